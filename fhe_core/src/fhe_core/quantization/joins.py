"""The scales at which tensors meet.

Tensors that an op joins take one scale, so that joining them needs no look-up. It comes from those that vary
on the calibration data: one that is constant there needs no step of its own size, and would take all the
others' levels away. A tensor whose own readers would lose by a joint scale keeps its own, and has a second one
at the join.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from fhe_core.quantization.calibration import TensorStats
from fhe_core.quantization.placement import PlacedOp, Placement

#: A tensor that shares its inputs' scale may grow by this many bits before it is requantized.
GROWTH = 2
#: A joint scale may be this many times as coarse as what else reads a tensor would have. A second scale costs
#: a look-up an element: of eight bits, four are left to do without.
_COARSER = 16
#: What single precision leaves of a constant that was computed, as a share of it.
_NOISE = 2.0**-21


def varies(low: float, high: float) -> bool:
    """Whether a range is more than one number and what single precision makes of it."""
    least = max(float(np.finfo(np.float32).tiny), _NOISE * max(abs(low), abs(high)))
    return high - low > least


def own_scale(low: float, high: float, bits: int) -> float:
    """The step of 2^bits levels from ``low`` to ``high``. A constant is one step: its one value decides, and
    zero is represented by any scale."""
    return (high - low) / (2**bits - 1) if varies(low, high) else (abs(high) or 1.0)


def on_whole_numbers(scale: float) -> float:
    """A scale of which all whole numbers are multiples, about as fine; itself where it is coarser than one.

    So numbers that count stay exact, and what compares them with whole numbers is right.
    """
    steps = 1 / scale
    if steps < 1:
        return scale
    # Up to an eighth coarser costs no bit; where it would be more, finer.
    return 1 / (np.floor(steps) if steps >= 8 else np.ceil(steps - 1e-9))


@dataclass(frozen=True)
class Meeting:
    """What joins decide of a tensor.

    Attributes:
        scale: its own or the joint one.
        inherits: it takes it over from integers that are there already.
        of: the tensor whose range it has.
    """

    scale: float
    inherits: bool
    of: str


def meetings(
    placement: Placement,
    stats: Mapping[str, TensorStats],
    bits: Mapping[str, int],
    own: Mapping[str, float],
) -> tuple[dict[str, Meeting], dict[str, Meeting]]:
    """For each tensor what joins decide of it; and of second readings of some, by `at_join`.

    Args:
        bits: of each tensor.
        own: the scales that the tensors would have if nothing else had a say.
    """
    groups = _Groups(stats, own)
    kept: dict[str, str] = {}
    inherits: set[str] = set()
    joins: list[tuple[PlacedOp, list[str]]] = []
    for placed in placement.ops:
        shares, keeps = placed.shares_scale, placed.op.keeps_scale
        if not (shares or keeps) or any(name not in own for name in placed.variable):
            continue
        if keeps and all(is_chosen(name, placed, placement, own) for name in placed.node.writes):
            continue
        # Truth values are 0 and 1 at any scale: they have none to share.
        joined = [name for name in placed.variable if not stats[name].is_truth]
        members = joined if shares else list(placed.variable[:1])
        if not members:
            continue
        if shares:
            joins.append((placed, members))
        groups.join(members)
        most = max(bits[name] for name in members) + GROWTH
        for name in placed.node.writes:
            # What a comparison says has no scale.
            if name not in own or (stats[name].is_truth and not keeps):
                continue
            span = _span(name, placed, stats)
            if keeps or span / groups.coarsest(members[0]) < 2**most:
                groups.join([members[0], name])
                inherits.add(name)
            if keeps:
                kept[name] = members[0]
    scales = groups.scales(inherits)
    found = {name: Meeting(scales[groups.root(name)], name in inherits, name) for name in own}
    readers = _readers(placement, groups, joins)
    seconds: dict[str, Meeting] = {}
    for placed, members in joins:
        result = next((name for name in placed.node.writes if name in inherits), "")
        if placed.op.saturates_inputs and result and _finer(own[result], found[result].scale):
            found[result] = Meeting(own[result], False, result)
            seconds.update((at_join(name, placed), found[result]) for name in members)
            continue
        for name in members:
            chain = [name]
            while chain[-1] in kept:
                chain.append(kept[chain[-1]])
            # What is the result of a join itself has no scale but that.
            first, joint = chain[-1], scales[groups.root(name)]
            if first in inherits or not _finer(own[first], joint):
                continue
            if any(readers.get(each, set()) - {groups.root(name)} for each in chain):
                seconds[at_join(name, placed)] = Meeting(joint, False, name)
                found[first] = Meeting(own[first], False, first)
    return found, seconds


def is_chosen(
    name: str, placed: PlacedOp, placement: Placement, scales: Mapping[str, float]
) -> bool:
    """Whether a tensor is features that the client chooses from others whose scale is too coarse for them.

    They are encrypted as what they are: it is real values that are moved before encryption.
    """
    source = placed.variable[0] if placed.variable else ""
    known = name in scales and source in scales and name in placement.before_encryption
    return known and _finer(scales[name], scales[source])


def _span(name: str, placed: PlacedOp, stats: Mapping[str, TensorStats]) -> float:
    """How far the elements of a result of a join go. Constants move them apart, and no element further: each
    has a zero point of its own for free. Unless a condition chooses between them."""
    spans = [_length(stats[source]) for source in placed.variable]
    constant = [not varies(stats[s].minimum, stats[s].maximum) for s in placed.variable]
    if not any(constant) or any(stats[source].is_truth for source in placed.variable):
        return _length(stats[name])
    return min(_length(stats[name]), sum(spans))


def _length(stats: TensorStats) -> float:
    return stats.maximum - stats.minimum


def _finer(own: float, joint: float) -> bool:
    """Whether a joint scale is too coarse beside a tensor's own."""
    return own * _COARSER < joint


def _readers(
    placement: Placement, groups: _Groups, joins: Iterable[tuple[PlacedOp, list[str]]]
) -> dict[str, set[str]]:
    """What reads the integers of each tensor: the group of a join, or the name of another op."""
    groups_of = {placed.node.name: groups.root(members[0]) for placed, members in joins}
    found: dict[str, set[str]] = {}
    for placed in placement.ops:
        if not placed.is_float:
            for name in placed.variable:
                found.setdefault(name, set()).add(
                    groups_of.get(placed.node.name, f"@{placed.node.name}")
                )
    return found


def at_join(name: str, placed: PlacedOp) -> str:
    """The plan's name for a tensor as one op reads it."""
    return f"{name}@{placed.node.name}"


class _Groups:
    """Tensors that share a scale.

    Args:
        own: the scale that each tensor would have by itself.
    """

    def __init__(self, stats: Mapping[str, TensorStats], own: Mapping[str, float]) -> None:
        self._stats, self._own = stats, own
        self._parents = {name: name for name in own}
        self._coarsest = {name: self._say(name) for name in own}

    def _say(self, name: str) -> float:
        """A tensor's scale where it has a say, else 0."""
        entry = self._stats[name]
        return self._own[name] if varies(entry.minimum, entry.maximum) else 0.0

    def root(self, name: str) -> str:
        while (above := self._parents[name]) != name:
            self._parents[name] = name = self._parents[above]
        return name

    def join(self, names: Iterable[str]) -> None:
        first, *others = map(self.root, names)
        for other in others:
            self._parents[other] = first
            self._coarsest[first] = max(self._coarsest[first], self._coarsest[other])

    def coarsest(self, name: str) -> float:
        """The largest scale in the group, results included."""
        return self._coarsest[self.root(name)] or self._own[name]

    def scales(self, silent: Collection[str]) -> dict[str, float]:
        """The scale of each group by its root: the largest of those that vary; a step of all whole numbers
        where some of them consist of these.

        Args:
            silent: what takes the scale over, and has no say in it.
        """
        heard: dict[str, list[str]] = {}
        for name in self._own:
            if name not in silent:
                heard.setdefault(self.root(name), []).append(name)
        found = {}
        for root, names in heard.items():
            scale = max(map(self._say, names)) or max(self._own[name] for name in names)
            counts = len(names) > 1 and any(self._stats[name].is_integral for name in names)
            found[root] = on_whole_numbers(scale) if counts else scale
        return found
