"""The op-graph of a report, drawn: boxes, arrows, and contours around what becomes one look-up."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fhe_core.compiler.report.layout import Edge, Layout, laid_out

BOX_WIDTH, BOX_HEIGHT = 190, 56
#: From box to box, to the side and down; between an edge that passes by and its neighbour.
_COLUMN, _ROW, _LANE = BOX_WIDTH + 36, BOX_HEIGHT + 44, 26
_MARGIN = 20
#: How far a contour stands off.
CONTOUR = 9
_MOST_LETTERS = 23


@dataclass(frozen=True)
class Box:
    """A node.

    Attributes:
        x, y: of its upper left corner.
        kind: ``input``, ``output``, ``mixed``, ``float``, ``client`` or ``lookup``.
        title: its full name.
        lines: what is written in it.
    """

    x: float
    y: float
    kind: str
    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Contour:
    """What becomes one look-up: boxes, and bands between them."""

    title: str
    boxes: tuple[Box, ...]
    bands: tuple[str, ...]


@dataclass(frozen=True)
class Drawing:
    """A picture of ``width`` x ``height`` pixels."""

    width: float
    height: float
    boxes: tuple[Box, ...]
    arrows: tuple[str, ...]
    contours: tuple[Contour, ...]


def drawn(report: Mapping[str, Any]) -> Drawing:
    """The op-graph of a report."""
    ops = {_node(row["node"]): row for row in report["fusion"]}
    layers = {layer["name"]: layer for layer in report["layers"]}
    edges, between = _edges(report["graph"])
    kinds: dict[str, str] = {_input(row["name"]): "input" for row in report["inputs"]}
    kinds |= {name: row["mode"] for name, row in ops.items()}
    kinds |= dict.fromkeys(between, "lookup")
    kinds |= dict.fromkeys((end for _, end in edges if end not in kinds), "output")
    names = _sorted(kinds, edges)
    layout = laid_out(names, edges, _COLUMN, _LANE)
    labels = _labels(report["graph"]["groups"], layers, between)
    boxes = {
        name: Box(
            _MARGIN + layout.x[name] - BOX_WIDTH / 2,
            _MARGIN + layout.rank[name] * _ROW,
            kinds[name],
            _title(name, ops, between),
            _lines(name, kinds[name], ops, labels.get(name, "")),
        )
        for name in names
    }
    paths = {edge: _path(edge, layout) for edge in layout.paths}
    contours = [_contour(group, boxes, layout) for group in report["graph"]["groups"]]
    contours += [
        Contour(f"look-ups of {layer}", (boxes[name],), ()) for name, layer in between.items()
    ]
    passing = max((x for path in layout.paths.values() for x in path), default=0) + _LANE
    return Drawing(
        _MARGIN + max([passing, *(box.x + BOX_WIDTH for box in boxes.values())]),
        max((box.y for box in boxes.values()), default=0) + BOX_HEIGHT + _MARGIN,
        tuple(boxes.values()),
        tuple(paths.values()),
        tuple({contour.boxes: contour for contour in contours if contour.boxes}.values()),
    )


# Nodes, inputs and outputs may have one name.
def _node(name: str) -> str:
    return f"node {name}"


def _input(name: str) -> str:
    return f"input {name}"


def _edges(graph: Mapping[str, Any]) -> tuple[list[Edge], dict[str, str]]:
    """The edges, with look-ups that are of no op as nodes of their own; and of which layer these are."""
    edges = [
        (
            _input(edge["tensor"]) if edge["from"] is None else _node(edge["from"]),
            f"output {edge['tensor']}" if edge["to"] is None else _node(edge["to"]),
        )
        for edge in graph["edges"]
    ]
    between: dict[str, str] = {}
    for number, group in enumerate(graph["groups"]):
        if group["between"]:
            name = f"lookup {number}"
            between[name] = group["layer"]
            producer, consumer = map(_node, group["between"])
            last = _last_before(consumer, producer, edges)
            edges = [edge for edge in edges if edge != (last, consumer)]
            edges += [(last, name), (name, consumer)]
    return edges, between


def _last_before(consumer: str, producer: str, edges: Sequence[Edge]) -> str:
    """The last node on a shortest way from one node to another; the first itself where there is none."""
    sources: dict[str, list[str]] = {}
    for start, end in edges:
        sources.setdefault(end, []).append(start)
    # Which way each node that leads to the consumer enters it.
    enters = {source: source for source in sources.get(consumer, ())}
    for name in (reached := list(enters)):
        for source in sources.get(name, ()):
            if source not in enters:
                enters[source] = enters[name]
                reached.append(source)
    return enters.get(producer, producer)


def _sorted(names: Mapping[str, str], edges: Sequence[Edge]) -> list[str]:
    """Names in an order in which each comes after all that lead to it."""
    missing = dict.fromkeys(names, 0)
    followers: dict[str, list[str]] = {name: [] for name in names}
    for start, end in edges:
        missing[end] += 1
        followers[start].append(end)
    ready = [name for name in names if not missing[name]]
    for name in ready:
        for follower in followers[name]:
            missing[follower] -= 1
            if not missing[follower]:
                ready.append(follower)
    return ready


def _labels(
    groups: Sequence[Mapping[str, Any]],
    layers: Mapping[str, Mapping[str, Any]],
    between: Mapping[str, str],
) -> dict[str, str]:
    """What a group's last box says of its look-ups: how many, how wide, and their share of the cost."""
    ends = [(_node(group["nodes"][-1]), group["layer"]) for group in groups if group["nodes"]]
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for name, layer in (*ends, *between.items()):
        found.setdefault(name, {})[layer] = layers[layer]
    return {name: _label(list(several.values())) for name, several in found.items()}


def _label(layers: Sequence[Mapping[str, Any]]) -> str:
    count = sum(layer["lookups"] for layer in layers)
    bits = max(layer["rounded_bits"] or layer["accumulator_bits"] for layer in layers)
    priced = [layer["share"] for layer in layers if layer["share"] is not None]
    share = f", {sum(priced):.0%}" if priced else ""
    return f"{count:,} look-up{'s' * (count != 1)}, {bits} bit{'s' * (bits != 1)}{share}"


def _title(name: str, ops: Mapping[str, Any], between: Mapping[str, str]) -> str:
    if name in between:
        return f"look-ups of {between[name]}"
    row = ops.get(name)
    return f"{row['op']} {row['node']}, {row['mode']}" if row else name


def _lines(name: str, kind: str, ops: Mapping[str, Any], label: str) -> tuple[str, ...]:
    if kind == "lookup":
        return ("quantize", label)
    row = ops.get(name)
    if row is None:
        return (_short(name.partition(" ")[2]), kind)
    own = _short(row["node"]) if row["node"] != row["op"] else ""
    return tuple(filter(None, (row["op"], own, label)))


def _short(name: str) -> str:
    """The end of a long name: its beginning is that of many others."""
    return name if len(name) <= _MOST_LETTERS else "…" + name[1 - _MOST_LETTERS :]


def _path(edge: Edge, layout: Layout) -> str:
    """An SVG path from the bottom of one box to the top of another, in smooth steps."""
    top = _MARGIN + layout.rank[edge[0]] * _ROW + BOX_HEIGHT
    xs = [_MARGIN + x for x in layout.paths[edge]]
    parts = [f"M{xs[0]:.1f} {top:.1f}"]
    for step, (left, right) in enumerate(itertools.pairwise(xs)):
        start = top + step * _ROW
        end = start + _ROW - BOX_HEIGHT
        middle = (start + end) / 2
        parts.append(f"C{left:.1f} {middle:.1f} {right:.1f} {middle:.1f} {right:.1f} {end:.1f}")
        if step < len(xs) - 2:
            parts.append(f"V{end + BOX_HEIGHT:.1f}")
    return "".join(parts)


def _contour(group: Mapping[str, Any], boxes: Mapping[str, Box], layout: Layout) -> Contour:
    members = [name for name in map(_node, group["nodes"]) if name in boxes]
    inside = [edge for edge in layout.paths if edge[0] in members and edge[1] in members]
    return Contour(
        f"one look-up of {group['layer']}",
        tuple(boxes[name] for name in members),
        tuple(_band(edge, layout) for edge in inside),
    )


def _band(edge: Edge, layout: Layout) -> str:
    """The way from the middle of one box to that of another, without curves: it is drawn wide."""
    top = _MARGIN + layout.rank[edge[0]] * _ROW + BOX_HEIGHT / 2
    steps = enumerate(layout.paths[edge])
    return "M" + "L".join(f"{_MARGIN + x:.1f} {top + step * _ROW:.1f}" for step, x in steps)
