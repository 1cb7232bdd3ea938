"""The integer arithmetic of trees: bits of passed cuts, gates, look-ups, and their sum.

What linear operations connect shares one width in a circuit. So each width of look-up gets bits of its own:
where the client makes them they cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fhe_core import primitives
from fhe_ops_contrib._checks import Array
from fhe_ops_contrib.tree_bits import Bits, Cut
from fhe_ops_contrib.tree_forms import Branch, Forest, Leaf
from fhe_ops_contrib.tree_terms import Chosen, Gate, Plan, Position

#: What a state of a look-up adds where no leaf is reached.
NOTHING = -1


@dataclass(frozen=True)
class Form:
    """A sum of numbers, one for each level of a feature, and of gates.

    Attributes:
        digits: by feature, the number at each level.
        gates: by the number of a gate, its factor.
    """

    constant: int = 0
    digits: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    gates: Mapping[int, int] = field(default_factory=dict)

    def plus(self, other: Form, factor: int = 1) -> Form:
        digits = dict(self.digits)
        for f, added in other.digits.items():
            own = digits.get(f, (0,) * len(added))
            digits[f] = tuple(a + factor * b for a, b in zip(own, added, strict=True))
        gates = dict(self.gates)
        for gate, weight in other.gates.items():
            gates[gate] = gates.get(gate, 0) + factor * weight
        return Form(self.constant + factor * other.constant, digits, gates)

    @property
    def key(self) -> Any:
        return self.constant, tuple(sorted(self.digits.items())), tuple(sorted(self.gates.items()))

    def factors(self, forest: Forest) -> tuple[int, dict[Cut, int]]:
        """The same as a constant and a factor for each cut that matters."""
        constant, factors = self.constant, {}
        for f, numbers in self.digits.items():
            constant += numbers[0]
            for cut, step in enumerate(steps(np.array(numbers), forest).tolist()):
                if step:
                    factors[f, cut] = step
        return constant, factors


def steps(values: Array, forest: Forest) -> Array:
    """What each cut of a feature adds to the value at level 0, from the values at all levels."""
    if not forest.missing:
        return np.diff(values, axis=0)
    # Where a value is missing no cut is passed, but for the last, which says so.
    return np.concatenate([np.diff(values[:-1], axis=0), values[-1:] - values[:1]])


@dataclass
class Term:
    """One look-up of results, or a function of one feature where ``width`` is 0.

    Attributes:
        entries: for each tree that shares it, the vector that each state adds, or ``NOTHING``.
    """

    width: int
    form: Form
    entries: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)

    def table(self, payloads: Mapping[int, Array]) -> Array:
        """What each state adds: (states, columns)."""
        found = 0
        for tree, vectors in self.entries:
            added = np.vstack([payloads[tree], np.zeros_like(payloads[tree][:1])])
            found = found + added[np.asarray(vectors)]
        return np.asarray(found)


@dataclass
class Closing:
    """A gate: a look-up that gives 0 where a form is 0, and 1 elsewhere.

    Attributes:
        width: of the look-up.
        width_behind: of the look-ups that read it.
    """

    width: int
    width_behind: int
    form: Form


class Circuit:
    """All look-ups of some trees of an ensemble.

    Args:
        plans: by tree.
    """

    def __init__(self, forest: Forest, plans: Mapping[int, Plan]) -> None:
        self.forest = forest
        self.gates: list[Closing] = []
        self.terms: list[Term] = []
        self._gate_numbers: dict[Any, int] = {}
        self._term_numbers: dict[Any, int] = {}
        for tree, plan in plans.items():
            self._add(tree, plan)

    def _add(self, tree: int, plan: Plan) -> None:
        closed: dict[tuple[int, int], Form] = {}
        known = {(id(gate.place), gate.width): gate for gate in plan.gates}

        def form_of(gate: Gate) -> Form:
            key = (id(gate.place), gate.width)
            if key not in closed:
                if gate.sibling is None:
                    closed[key] = self._looked_up_gate(gate)
                else:
                    closed[key] = rest_of(gate, gate.sibling)
            return closed[key]

        def rest_of(gate: Gate, sibling: Position) -> Form:
            # Open where the node above both is open, and the sibling is not.
            above = gate.place.above
            other = form_of(known[id(sibling), gate.width])
            outer = known.get((id(above), gate.width))
            whole = form_of(outer) if outer else self._failing(above, above.asked if above else ())
            return Form(1).plus(other, -1).plus(whole)

        for chosen in plan.chosen:
            gate = None
            if chosen.gate is not None:
                gate = form_of(known[id(chosen.gate), chosen.width])
            self._add_term(tree, chosen, gate)

    def _looked_up_gate(self, gate: Gate) -> Form:
        form = self._failing(gate.place, gate.place.asked)
        key = (gate.width, form.key)
        if key not in self._gate_numbers:
            self._gate_numbers[key] = len(self.gates)
            bits = len(gate.place.asked).bit_length()
            self.gates.append(Closing(bits, gate.width, form))
        return Form(gates={self._gate_numbers[key]: 1})

    def _failing(self, place: Position | None, features: Iterable[int]) -> Form:
        """How many of the conditions on ``features`` fail on the way to ``place``."""
        form = Form()
        for f in features:
            inside = place.inside[f] if place else 0
            numbers = tuple(int(not inside >> level & 1) for level in range(self.forest.levels(f)))
            form = form.plus(Form(digits={f: numbers}))
        return form

    def _add_term(self, tree: int, chosen: Chosen, gate: Form | None) -> None:
        classes = chosen.fragment.classes if chosen.fragment else {}
        form = self._failing(chosen.first, chosen.reading.counted)
        count = len(chosen.reading.counted) + 1
        if gate is not None:
            form, count = form.plus(gate), count + 1
        sizes = [count]
        for f, found in classes.items():
            numbers = [0] * self.forest.levels(f)
            for level in range(len(numbers)):
                other = len(found) if f in chosen.reading.outside else 0
                inside = (i for i, levels in enumerate(found) if levels >> level & 1)
                numbers[level] = next(inside, other)
            form = form.plus(Form(digits={f: tuple(numbers)}), int(np.prod(sizes)))
            sizes.append(len(found) + (f in chosen.reading.outside))
        states = [
            self._vector(chosen, dict(zip(classes, digits, strict=True)))
            if not failing
            else NOTHING
            for failing, *digits in np.ndindex(*sizes)
        ]
        # The first digit is the lowest.
        order = np.arange(len(states)).reshape(sizes).reshape(-1, order="F")
        entries = tuple(states[i] for i in order)
        key = (chosen.width, form.key)
        if key not in self._term_numbers:
            self._term_numbers[key] = len(self.terms)
            self.terms.append(Term(chosen.width, form))
        self.terms[self._term_numbers[key]].entries.append((tree, entries))

    def _vector(self, chosen: Chosen, digits: Mapping[int, int]) -> int:
        """The leaf in which a case ends; ``NOTHING`` where that is not in the fragment."""
        place, fragment = chosen.first, chosen.fragment
        if fragment and any(digits[f] == len(found) for f, found in fragment.classes.items()):
            return NOTHING
        while fragment is not None and place.parts is not None:
            if any(place is hole for hole in fragment.holes):
                return NOTHING
            node = place.node
            if not isinstance(node, Branch):
                break
            levels = fragment.classes[node.feature][digits[node.feature]]
            place = place.parts[0 if levels & node.levels else 1]
        return place.node.vector if isinstance(place.node, Leaf) else NOTHING

    # -- recording

    def record(self, bits: Bits, payloads: Mapping[int, Array]) -> Any:
        """The sum of all that is looked up, integers (N, columns); None where that is 0.

        Args:
            payloads: by tree, what its vectors add to each column: (vectors, columns).
        """
        closed: list[tuple[Any, list[int]]] = []
        sources = {width: _Source(self, bits, width) for width in self._widths()}
        for width, width_behind in sorted({(g.width, g.width_behind) for g in self.gates}):
            numbers = [
                i
                for i, gate in enumerate(self.gates)
                if (gate.width, gate.width_behind) == (width, width_behind)
            ]
            failing = sources[width].sums([self.gates[i].form for i in numbers], [])
            closed.append((primitives.lookup(failing, _is_closed, low=0, high=1), numbers))
        total = None
        for width in sorted({term.width for term in self.terms}):
            terms = [term for term in self.terms if term.width == width]
            tables = [term.table(payloads) for term in terms]
            added = sources[width].results(terms, tables, closed)
            total = added if total is None else total if added is None else total + added
        return total

    def _widths(self) -> set[int]:
        return {gate.width for gate in self.gates} | {term.width for term in self.terms}


class _Source:
    """The bits that all look-ups of one width read."""

    def __init__(self, circuit: Circuit, bits: Bits, width: int) -> None:
        looked_up: list[Closing | Term] = [*circuit.gates, *circuit.terms]
        forms = [each.form for each in looked_up if each.width == width]
        self.forest = circuit.forest
        self.cuts = sorted({cut for form in forms for cut in form.factors(self.forest)[1]})
        self.bits = bits(self.cuts)

    def sums(self, forms: Sequence[Form], closed: Sequence[tuple[Any, list[int]]]) -> Any:
        """The values of forms: (N, forms)."""
        places = {cut: i for i, cut in enumerate(self.cuts)}
        weights = np.zeros((len(self.cuts), len(forms)), np.int64)
        constants = np.zeros((1, len(forms)), np.int64)
        for column, form in enumerate(forms):
            constants[0, column], factors = form.factors(self.forest)
            for cut, factor in factors.items():
                weights[places[cut], column] = factor
        result = self.bits @ weights + constants
        for tensor, numbers in closed:
            behind = np.array([[form.gates.get(number, 0) for form in forms] for number in numbers])
            if behind.any():
                result = result + tensor @ behind
        return primitives.exact(result)

    def results(
        self,
        terms: Sequence[Term],
        tables: Sequence[Array],
        closed: Sequence[tuple[Any, list[int]]],
    ) -> Any:
        """What the terms add up to: (N, columns); None where that is 0."""
        columns = tables[0].shape[1]
        if not terms[0].width:
            return self._linear(terms, tables, columns)
        pairs = [(i, c) for i, t in enumerate(tables) for c in range(columns) if t[:, c].any()]
        if not pairs:
            return None
        states = self.sums([terms[i].form for i, _ in pairs], closed)
        return looked_up(
            states, [tables[i][:, c] for i, c in pairs], [c for _, c in pairs], columns
        )

    def _linear(self, terms: Sequence[Term], tables: Sequence[Array], columns: int) -> Any:
        """Functions of the levels of single features: factors for the bits."""
        places = {cut: i for i, cut in enumerate(self.cuts)}
        weights = np.zeros((len(self.cuts), columns), np.int64)
        constants = np.zeros((1, columns), np.int64)
        for term, table in zip(terms, tables, strict=True):
            ((feature, digits),) = term.form.digits.items()
            values = table[np.asarray(digits) + term.form.constant]
            constants += values[0]
            for cut, step in enumerate(steps(values, self.forest)):
                if step.any():
                    weights[places[feature, cut]] += step
        return self.bits @ weights + constants


def looked_up(states: Any, tables: Sequence[Array], into: Sequence[int], columns: int) -> Any:
    """Adds up entries of tables by column: (N, tables) states to (N, columns).

    Args:
        into: the column that the entries of each table are added to.
    """
    width = max(len(table) - 1 for table in tables).bit_length()
    entries = np.zeros((len(tables), 1 << width), np.int64)
    gather = np.zeros((len(tables), columns), np.int64)
    for row, (table, column) in enumerate(zip(tables, into, strict=True)):
        entries[row, : len(table)] = table
        gather[row, column] = 1
    # Digits exclude each other in ways that intervals do not see.
    states = primitives.exact(states, low=0, high=np.array([[len(table) - 1 for table in tables]]))
    least, most = entries.min(axis=1), entries.max(axis=1)
    return primitives.lookup(states, _Entries(entries), low=least, high=most) @ gather


class _Entries:
    """Looks up each column in a table of its own: (N, columns) states to entries."""

    def __init__(self, entries: Array) -> None:
        self.entries = entries

    def __call__(self, states: Array) -> Array:
        places = np.clip(states, 0, self.entries.shape[1] - 1).astype(np.intp)
        return np.asarray(self.entries[np.arange(len(self.entries)), places])


def _is_closed(failing: Array) -> Array:
    return np.greater(failing, 0)
