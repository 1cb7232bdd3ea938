"""Where the nodes of a directed graph are drawn: in ranks, from top to bottom.

Each node stands below all that lead to it (Sugiyama, Tagawa, Toda, 1981). An edge over several ranks passes
through a place in each of them, so that it is led around other nodes. The order within a rank follows the
mean place of the neighbours, and positions are the nearest to it that keep nodes apart.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

#: How often the order is swept down and up again, and the positions.
_SWEEPS = 6
_ALIGNMENTS = 8

Edge = tuple[str, str]


@dataclass(frozen=True)
class Layout:
    """Positions in any unit.

    Attributes:
        x: of the centre of each node.
        rank: of each node, from 0 on.
        paths: for each edge the x that it passes through in each rank, from its start to its end.
    """

    x: Mapping[str, float]
    rank: Mapping[str, int]
    paths: Mapping[Edge, tuple[float, ...]]


def laid_out(nodes: Sequence[str], edges: Sequence[Edge], width: float, lane: float) -> Layout:
    """A layout.

    Args:
        nodes: in an order in which each comes after all that lead to it.
        edges: between them.
        width: that a node takes, with the space beside it.
        lane: the same of an edge that passes by.
    """
    rank = _ranks(nodes, edges)
    rows: list[list[str]] = [[] for _ in range(max(rank.values(), default=-1) + 1)]
    for name in nodes:
        rows[rank[name]].append(name)
    chains: dict[Edge, list[str]] = {}
    widths = dict.fromkeys(nodes, width)
    for start, end in dict.fromkeys(edges):
        between = [f"{start}\0{end}\0{row}" for row in range(rank[start] + 1, rank[end])]
        for row, passing in enumerate(between, rank[start] + 1):
            rows[row].append(passing)
            widths[passing] = lane
        chains[start, end] = [start, *between, end]
    above: dict[str, list[str]] = {name: [] for name in widths}
    below: dict[str, list[str]] = {name: [] for name in widths}
    for chain in chains.values():
        for upper, lower in itertools.pairwise(chain):
            below[upper].append(lower)
            above[lower].append(upper)
    _order(rows, above, below)
    x = _positions(rows, above, below, widths)
    paths = {edge: tuple(x[name] for name in chain) for edge, chain in chains.items()}
    return Layout({name: x[name] for name in nodes}, rank, paths)


def _ranks(nodes: Sequence[str], edges: Iterable[Edge]) -> dict[str, int]:
    """The length of the longest path to each node."""
    sources: dict[str, list[str]] = {name: [] for name in nodes}
    for start, end in edges:
        sources[end].append(start)
    rank: dict[str, int] = {}
    for name in nodes:
        rank[name] = max((rank[source] + 1 for source in sources[name]), default=0)
    return rank


def _order(
    rows: list[list[str]], above: Mapping[str, list[str]], below: Mapping[str, list[str]]
) -> None:
    """Sorts each row by the mean place of its neighbours, going down and up."""
    place = {name: float(i) for row in rows for i, name in enumerate(row)}
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        neighbours = above if down else below
        for row in rows if down else reversed(rows):
            row.sort(key=lambda name: _mean([place[n] for n in neighbours[name]], place[name]))
            place.update((name, float(i)) for i, name in enumerate(row))


def _positions(
    rows: Sequence[Sequence[str]],
    above: Mapping[str, list[str]],
    below: Mapping[str, list[str]],
    widths: Mapping[str, float],
) -> dict[str, float]:
    x: dict[str, float] = {}
    for row in rows:
        x.update(zip(row, _apart([0.0] * len(row), [widths[name] for name in row]), strict=True))
    for turn in range(_ALIGNMENTS):
        down = turn % 2 == 0
        neighbours = above if down else below
        for row in rows if down else reversed(rows):
            wanted = [_mean([x[n] for n in neighbours[name]], x[name]) for name in row]
            placed = _apart(wanted, [widths[name] for name in row])
            x.update(zip(row, placed, strict=True))
    left = min((x[name] - widths[name] / 2 for name in x), default=0.0)
    return {name: value - left for name, value in x.items()}


def _apart(wanted: Sequence[float], widths: Sequence[float]) -> list[float]:
    """The positions nearest to those wanted, in least squares, that overlap nowhere and keep the order.

    Pool adjacent violators (Ayer et al., 1955): what would overlap becomes a block, at its mean.
    """
    offsets = [0.0]
    for left, right in itertools.pairwise(widths):
        offsets.append(offsets[-1] + (left + right) / 2)
    blocks: list[tuple[float, int]] = []
    for want, offset in zip(wanted, offsets, strict=False):
        mean, count = want - offset, 1
        while blocks and blocks[-1][0] > mean:
            before, size = blocks.pop()
            mean, count = (mean * count + before * size) / (count + size), count + size
        blocks.append((mean, count))
    means = [mean for mean, count in blocks for _ in range(count)]
    return [mean + offset for mean, offset in zip(means, offsets, strict=False)]


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise
