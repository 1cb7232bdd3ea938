"""Trees as sums of table look-ups: which parts of a tree are looked up together, at least cost.

Bits that say which cuts a feature passes are encrypted, and sums of them with integer factors are free. So
any function of the level of one feature is free, and a table look-up can read any function of several
features whose numbers of cases have a small product: a mixed-radix number with one digit a feature. Four
bits of cases cost little more than three, and five more than twice as much.

A tree is cut into fragments: connected nodes, whose leaves come out of one look-up. What leads to a fragment is
part of its cases: features that only its way from the root asks for count the conditions that fail, together
one digit; what is wrong with a feature that the fragment asks for too is one more case of its digit. Where
that makes too many cases, a gate, a look-up of its own, says whether all conditions hold: one bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod

from fhe_ops_contrib.tree_forms import Branch, Forest, Leaf

#: The widest look-up that is considered for a fragment; for a leaf, with one case for each feature on the way
#: to it, there are wider ones. Then how many nodes a fragment has, and how many ways to cut one are tried.
_MOST_BITS = 4
_GATED_WIDTHS = (3, 4)
_MOST_NODES = 9
_MOST_FRAGMENTS = 100


@dataclass(frozen=True)
class Prices:
    """What a look-up costs by the bits that it reads: for a result, and for a gate."""

    result: Mapping[int, float]
    gate: Mapping[int, float]


@dataclass(eq=False)
class Position:
    """A node in its place in a tree.

    Attributes:
        inside: by feature, the levels at which the way from the root leads here.
        parts: the branches below, yes and no; None at a leaf.
        readings: how look-ups read what begins here, by the ids of the fragment and of the gate.
    """

    node: Branch | Leaf
    inside: dict[int, int]
    above: Position | None
    parts: tuple[Position, Position] | None = None
    fragments: list[Fragment] = field(default_factory=list)
    readings: dict[tuple[int, int], Reading] = field(default_factory=dict)

    @cached_property
    def asked(self) -> frozenset[int]:
        """The features that the way here depends on."""
        return frozenset(self.inside)

    def conditions(self, gate: Position | None) -> list[int]:
        """The features that the way here from ``gate`` depends on; from the root without one."""
        if gate is None:
            return list(self.inside)
        return [f for f, levels in self.inside.items() if gate.inside.get(f) != levels]


@dataclass(eq=False)
class Fragment:
    """Connected nodes that are looked up together.

    Attributes:
        nodes: its branches, from the first on.
        holes: branches below it that are looked up by themselves: nothing here.
        classes: by feature, the sets of levels that its branches tell apart.
        vectors: of its leaves.
    """

    nodes: tuple[Position, ...]
    holes: tuple[Position, ...]
    classes: Mapping[int, tuple[int, ...]]
    vectors: frozenset[int]


@dataclass(frozen=True)
class Reading:
    """How a look-up reads a fragment.

    Attributes:
        counted: features whose failing conditions are counted.
        outside: features whose digit has a case for a failing condition.
        bits: of the look-up; 0 where one feature decides: then it is no look-up.
    """

    counted: tuple[int, ...]
    outside: frozenset[int]
    bits: int


@dataclass(frozen=True)
class Chosen:
    """One look-up of the plan for a tree.

    Attributes:
        first: the place of the fragment, or of the leaf.
        fragment: None for a single leaf.
        gate: the place whose gate is part of its cases.
        width: of the look-up; 0 where it is none.
    """

    first: Position
    fragment: Fragment | None
    reading: Reading
    gate: Position | None
    width: int


@dataclass(frozen=True)
class Gate:
    """A gate of the plan: for the look-ups of ``width`` behind ``place``.

    Attributes:
        sibling: the place whose gate this one is the rest of, within that of the node above both; None where it
            is looked up.
    """

    place: Position
    width: int
    sibling: Position | None = None


@dataclass(frozen=True)
class Plan:
    """Look-ups and gates, and what they cost.

    Attributes:
        own: those that are not in ``parts``.
    """

    cost: float = 0.0
    own: tuple[Chosen | Gate, ...] = ()
    parts: tuple[Plan, ...] = ()

    def __add__(self, other: Plan) -> Plan:
        # Most sums are compared and forgotten: what is in them is collected for the best one alone.
        return Plan(self.cost + other.cost, (), (self, other))

    def _all(self) -> Iterator[Chosen | Gate]:
        pending = [self]
        while pending:
            plan = pending.pop()
            yield from plan.own
            pending.extend(plan.parts)

    @cached_property
    def chosen(self) -> tuple[Chosen, ...]:
        return tuple(each for each in self._all() if isinstance(each, Chosen))

    @cached_property
    def gates(self) -> tuple[Gate, ...]:
        return tuple(each for each in self._all() if isinstance(each, Gate))


class Chooser:
    """Finds the cheapest plan of a tree.

    Args:
        default: the vector of leaves that add nothing.
    """

    def __init__(self, root: Position, default: int, prices: Prices) -> None:
        self.root, self.default, self.prices = root, default, prices
        self._known: dict[tuple[int, int, int], Plan] = {}

    def plan(self) -> Plan:
        return self._best(self.root, None, 0)

    def _best(self, place: Position, gate: Position | None, width: int) -> Plan:
        """The cheapest plan for what is below ``place``, in look-ups of ``width`` that see ``gate``."""
        key = (id(place), id(gate), width)
        if key not in self._known:
            options = list(self._options(place, gate, width))
            self._known[key] = min(options, key=lambda plan: plan.cost)
        return self._known[key]

    def _options(self, place: Position, gate: Position | None, width: int) -> Iterator[Plan]:
        if place.parts is None:
            yield self._looked_up(place, None, gate, width) or Plan(float("inf"))
        for fragment in place.fragments:
            total = self._looked_up(place, fragment, gate, width)
            if total is None:
                continue
            for hole in fragment.holes:
                total = total + self._best(hole, gate, width)
            yield total
        if gate is not None and gate is not place:
            yield self._best(place, None, 0)
        if place.parts is not None:
            yes, no = place.parts
            yield self._best(yes, gate, width) + self._best(no, gate, width)
            yield from self._gated(place, gate, width)

    def _gated(self, place: Position, gate: Position | None, width: int) -> Iterator[Plan]:
        """With a gate here, or with one for each of the two ways from here."""
        possible = (wide for wide in _GATED_WIDTHS if wide in self.prices.result)
        widths = [width] if gate is not None else list(possible)
        if gate is None and len(place.asked) > 1:
            for wide in widths:
                yield self._gate(place, wide) + self._best(place, place, wide)
        parts = place.parts or ()
        if (gate is place or (gate is None and len(place.asked) < 2)) and all(
            part.parts and len(part.asked) > 1 for part in parts
        ):
            for wide in widths:
                first, other = sorted(parts, key=lambda part: len(part.asked))
                # What is open here, and not on the one way, is open on the other.
                rest = Plan(0.0, (Gate(other, wide, sibling=first),))
                both = self._gate(first, wide) + rest
                for part in parts:
                    both = both + self._best(part, part, wide)
                yield both

    def _gate(self, place: Position, width: int) -> Plan:
        bits = len(place.asked).bit_length()
        return Plan(self.prices.gate.get(bits, float("inf")), (Gate(place, width),))

    def _looked_up(
        self, place: Position, fragment: Fragment | None, gate: Position | None, width: int
    ) -> Plan | None:
        """The plan of one look-up; None where it has too many cases."""
        vectors = fragment.vectors if fragment else {vector_of(place)}
        if vectors <= {self.default}:
            return Plan()
        reading = _reading(place, fragment, gate)
        if reading.bits > (width or max(self.prices.result)):
            return None
        wide = reading.bits and (width or min(w for w in self.prices.result if w >= reading.bits))
        price = self.prices.result[wide] if wide else 0.0
        return Plan(price, (Chosen(place, fragment, reading, gate, wide),))


def _reading(place: Position, fragment: Fragment | None, gate: Position | None) -> Reading:
    """How a look-up reads a fragment, or a leaf, behind a gate: with the fewest cases."""
    key = id(fragment), id(gate)
    if key not in place.readings:
        place.readings[key] = _shortest(place, fragment.classes if fragment else {}, gate)
    return place.readings[key]


def _shortest(
    place: Position, classes: Mapping[int, tuple[int, ...]], gate: Position | None
) -> Reading:
    conditions = place.conditions(gate)
    counted = [f for f in conditions if f not in classes]
    both = [f for f in conditions if f in classes]
    if gate is None and len(counted) + len(classes) < 2:
        return Reading(tuple(counted), frozenset(both), 0)
    cases = len(counted) + 1 + (gate is not None)
    apart = cases + len(both)
    for f, found in classes.items():
        cases *= len(found) + (f in both)
        apart *= len(found)
    if apart < cases:
        return Reading((*counted, *both), frozenset(), max(1, (apart - 1).bit_length()))
    return Reading(tuple(counted), frozenset(both), max(1, (cases - 1).bit_length()))


# -- places and fragments


def vector_of(place: Position) -> int:
    """The vector of a leaf; -1 at a branch."""
    return place.node.vector if isinstance(place.node, Leaf) else -1


def placed(
    forest: Forest,
    number: int,
    inside: dict[int, int] | None = None,
    above: Position | None = None,
) -> Position:
    """A tree from node ``number`` on, with its fragments."""
    node, inside = forest.nodes[number], inside or {}
    place = Position(node, inside, above)
    if isinstance(node, Branch):
        here = inside.get(node.feature, forest.every[node.feature])
        ways = (node.yes, here & node.levels), (node.no, here & ~node.levels)
        # Nodes are shared by several ways to them, and each was made for one.
        for part, levels in ways:
            if levels == here:
                return placed(forest, part, inside, above)
        yes, no = (placed(forest, n, {**inside, node.feature: w}, place) for n, w in ways)
        place.parts = yes, no
        place.fragments = list(_fragments(forest, place))
    return place


def _fragments(forest: Forest, first: Position) -> Iterator[Fragment]:
    """The fragments that begin at ``first``, of which no more cases are told apart than look-ups read."""
    left = _MOST_FRAGMENTS

    def grown(
        nodes: tuple[Position, ...],
        holes: tuple[Position, ...],
        pending: tuple[Position, ...],
        classes: Mapping[int, tuple[int, ...]],
    ) -> Iterator[Fragment]:
        nonlocal left
        if not pending:
            left -= 1
            ends = (part for place in nodes for part in place.parts or ())
            vectors = frozenset(vector_of(end) for end in ends if end.parts is None)
            yield Fragment(nodes, holes, classes, vectors)
            return
        place, *rest = pending
        told = _told_apart(forest, classes, first, place)
        if prod(map(len, told.values())) <= 2**_MOST_BITS and len(nodes) < _MOST_NODES:
            below = tuple(part for part in place.parts or () if part.parts)
            yield from grown((*nodes, place), holes, (*rest, *below), told)
        if nodes and left > 0:
            yield from grown(nodes, (*holes, place), tuple(rest), classes)

    yield from grown((), (), (first,), {})


def _told_apart(
    forest: Forest, classes: Mapping[int, tuple[int, ...]], first: Position, place: Position
) -> dict[int, tuple[int, ...]]:
    """``classes`` with those of one more branch."""
    node = place.node
    if not isinstance(node, Branch):
        return dict(classes)
    here = first.inside.get(node.feature, forest.every[node.feature])
    parts = (
        part
        for found in classes.get(node.feature, (here,))
        for part in (found & node.levels, found & ~node.levels)
        if part
    )
    return {**classes, node.feature: tuple(parts)}
