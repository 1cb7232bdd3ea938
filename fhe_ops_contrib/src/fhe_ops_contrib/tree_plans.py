"""How each tree of an ensemble is computed, by what that costs.

Either each look-up of a tree gives what its leaves add to the result, and takes as many look-ups as the result
has columns. Or all together give the number of the leaf, and one more look-up for each column turns that
into what it adds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fhe_core import primitives
from fhe_ops_contrib._checks import Array
from fhe_ops_contrib.tree_bits import Bits
from fhe_ops_contrib.tree_circuit import Circuit, looked_up
from fhe_ops_contrib.tree_forms import Forest
from fhe_ops_contrib.tree_payloads import Payload, spans
from fhe_ops_contrib.tree_terms import Chooser, Plan, Prices, placed

# Millions of Concrete's complexity a look-up, at a failure rate of 2^-40, by the bits that it reads. What its
# result is added up to decides too: a little for sums of few bits, more for wide ones. All look-ups of one
# width share their parameters: where no results are looked up by two bits, as most gates are, gates cost less.
_NARROW = Prices(
    {1: 51, 2: 55, 3: 77, 4: 106, 5: 227, 6: 526, 7: 1201, 8: 2694},
    {2: 55, 3: 77, 4: 106, 5: 227, 6: 526, 7: 1201, 8: 2694},
)
_WIDE = Prices(
    {1: 72, 2: 81, 3: 113, 4: 149, 5: 345, 6: 800, 7: 1820, 8: 4080},
    {2: 81, 3: 113, 4: 149, 5: 345, 6: 800, 7: 1820, 8: 4080},
)
_WIDE_WITH_CHEAP_GATES = Prices(
    {3: 113, 4: 149, 5: 345, 6: 800, 7: 1820, 8: 4080},
    {2: 61, 3: 113, 4: 149, 5: 345, 6: 800, 7: 1820, 8: 4080},
)
#: Sums of so many bits are narrow.
_NARROW_BITS = 6
#: Sums of n look-ups of so many bits, plus half of log2(n), cost no more than what is wide.
_WIDE_BITS = 16.6
#: The widest number of a leaf that is looked up again.
_NUMBER_BITS = 5
#: Leaves of a tree times those of them that are tried as the one that is taken for nothing.
_DEFAULTS = 64


def most_bits(forest: Forest) -> int:
    """The most bits that a sum of all trees may have at no cost: it has some look-ups for each tree."""
    branches = max(len(forest.nodes) // 4, len(forest.roots))
    return int(_WIDE_BITS - np.log2(branches) / 2)


@dataclass(frozen=True)
class PlannedTree:
    """A tree's plan.

    Attributes:
        default: the vector that is taken for nothing.
        number_bits: of the number that is looked up again; 0 where results are looked up at once.
    """

    plan: Plan
    default: int
    number_bits: int
    cost: float


@dataclass(frozen=True)
class Planned:
    """The plans of all trees for one payload."""

    forest: Forest
    payload: Payload
    trees: Sequence[PlannedTree]

    @property
    def cost(self) -> float:
        """Millions of Concrete's complexity, about."""
        return sum(each.cost for each in self.trees)

    @property
    def is_constant(self) -> bool:
        """Whether nothing depends on a feature."""
        return not any(each.plan.chosen for each in self.trees)


class Planner:
    """Finds the cheapest plans of all trees of a forest."""

    def __init__(self, forest: Forest) -> None:
        self.forest = forest
        self.roots = [placed(forest, root) for root in forest.roots]

    def plan(self, payload: Payload) -> Planned:
        narrow = payload.bits <= _NARROW_BITS
        return min(
            (
                Planned(
                    self.forest,
                    payload,
                    [
                        min(self._options(tree, payload, prices), key=lambda each: each.cost)
                        for tree in range(len(self.roots))
                    ],
                )
                for prices in ((_NARROW,) if narrow else (_WIDE, _WIDE_WITH_CHEAP_GATES))
            ),
            key=lambda planned: planned.cost,
        )

    def _options(self, tree: int, payload: Payload, prices: Prices) -> Iterator[PlannedTree]:
        root, integers = self.roots[tree], payload.integers[tree]
        columns = max(1, int(np.ptp(integers, axis=0).astype(bool).sum()))
        number_bits = (len(integers) - 1).bit_length()
        each = Prices({n: columns * price for n, price in prices.result.items()}, prices.gate)
        for default in range(max(1, min(len(integers), _DEFAULTS // len(integers)))):
            plan = Chooser(root, default, each).plan()
            yield PlannedTree(plan, default, 0, plan.cost)
            if columns > 1 and number_bits in prices.result and number_bits <= _NUMBER_BITS:
                plan = Chooser(root, default, prices).plan()
                again = columns * prices.result[number_bits]
                yield PlannedTree(plan, default, number_bits, plan.cost + again)


def sums(planned: Planned, bits: Bits) -> Any:
    """The sums of what the leaves add: integers (N, columns)."""
    integers = planned.payload.integers
    low, high = spans(integers)
    defaults = [part[p.default] for part, p in zip(integers, planned.trees, strict=True)]
    total: Any = np.sum(defaults, axis=0)[None]
    for number_bits in sorted({each.number_bits for each in planned.trees}):
        trees = {t: p for t, p in enumerate(planned.trees) if p.number_bits == number_bits}
        circuit = Circuit(planned.forest, {t: each.plan for t, each in trees.items()})
        added = {t: integers[t] - defaults[t] for t in trees}
        record = (
            _numbered(circuit, bits, trees, added) if number_bits else circuit.record(bits, added)
        )
        total = total if record is None else total + record
    return primitives.exact(total, low=low[None], high=high[None])


def _numbered(
    circuit: Circuit, bits: Bits, trees: dict[int, PlannedTree], added: dict[int, Array]
) -> Any:
    """What trees add whose leaves' numbers are looked up again."""
    # The leaf that is taken for nothing is number 0: negative numbers would need one more bit.
    order = {t: np.roll(np.arange(len(added[t])), -each.default) for t, each in trees.items()}
    own = dict(zip(trees, np.eye(len(trees), dtype=np.int64), strict=True))
    numbers = {t: np.argsort(order[t])[:, None] * own[t] for t in trees}
    most = np.array([[len(order[t]) - 1 for t in trees]])
    leaves = primitives.exact(circuit.record(bits, numbers), low=0, high=most)
    columns = next(iter(added.values())).shape[1]
    pairs = [(t, c) for t in trees for c in range(columns) if added[t][:, c].any()]
    states = leaves @ np.stack([own[t] for t, _ in pairs], axis=1)
    tables = [added[t][order[t], c] for t, c in pairs]
    return looked_up(states, tables, [c for _, c in pairs], columns)
