"""Normal forms of trees: what they ask of each feature, without what makes no difference.

Every comparison of a feature is the same question, asked of cuts: x >= c. The sorted cuts of a feature that
all trees of an ensemble use divide its values into levels, and a node is a set of levels: those that take its
true branch. So all modes of branches are one, and thresholds can be compared. Sets of levels are the bits
of integers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fhe_core import CompilationError, Where
from fhe_ops_contrib._checks import Array
from fhe_ops_contrib.ensembles import MEMBER, MODES, Ensemble

#: Trees deeper than this would be walked beyond Python's own stack.
_DEEPEST = 400

#: Maps a feature and a cut of its values to a cut of what stands for them.
Placing = Callable[[int, float], float]


@dataclass(frozen=True)
class Branch:
    """A node of a normal form: where the level of ``feature`` is in ``levels`` it goes to ``yes``."""

    feature: int
    levels: int
    yes: int
    no: int


@dataclass(frozen=True)
class Leaf:
    """The end of a normal form. ``vector`` numbers the distinct weights of the tree."""

    vector: int


@dataclass
class Forest:
    """The normal forms of all trees.

    Attributes:
        cuts: by feature, sorted; level n is where n of them are passed.
        every: by feature, all levels that its values can have.
        missing: whether there is one more level, the last, for values that are NaN.
        nodes: branches and leaves, each once.
        roots: the node that each tree starts from.
        vectors: (distinct, targets) for each tree: the weights of its leaves.
    """

    cuts: dict[int, Array]
    every: dict[int, int]
    missing: bool = False
    nodes: list[Branch | Leaf] = field(default_factory=list)
    roots: list[int] = field(default_factory=list)
    vectors: list[Array] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        ensemble: Ensemble,
        dtype: Any,
        place: Placing | None = None,
        values: Mapping[int, Array] | None = None,
        missing: bool = False,
    ) -> Forest:
        """The normal forms of an ensemble.

        Args:
            dtype: the type in which features are compared.
            place: where cuts lie among what stands for the features' values; by default these themselves.
            values: by feature, all that can stand for its values, sorted; by default anything.
            missing: whether values may be NaN.

        Raises:
            CompilationError: a tree is deeper than Python's stack.
        """
        if ensemble.depth > _DEEPEST:
            raise CompilationError(
                f"a tree has {ensemble.depth} levels",
                where=Where(op=ensemble.op),
                expected=f"at most {_DEEPEST}",
                got=f"{ensemble.depth}",
                fix="train it with a bound on its depth: such a tree costs more than it tells",
            )
        asked = {
            int(row): [
                (float(low), float(high)) if place is None else (place(f, low), place(f, high))
                for low, high in _intervals(ensemble, int(row), dtype)
            ]
            for row in np.flatnonzero(~ensemble.is_leaf)
            for f in [int(ensemble.features[row])]
        }
        ends: dict[int, set[float]] = {}
        for row, intervals in asked.items():
            own = ends.setdefault(int(ensemble.features[row]), set())
            own.update(end for interval in intervals for end in interval if np.isfinite(end))
        cuts = {f: np.array(sorted(found)) for f, found in ends.items()}
        every = {f: (1 << (len(found) + 1 + missing)) - 1 for f, found in cuts.items()}
        if values is not None:
            for f, found in cuts.items():
                reached = np.unique(np.searchsorted(found, values[f], side="right"))
                every[f] = sum(1 << int(level) for level in reached)
        forest = cls(cuts, every, missing)
        _Grower(forest, ensemble, asked).grow()
        return forest

    def levels(self, feature: int) -> int:
        """How many levels a feature has."""
        return len(self.cuts[feature]) + 1 + self.missing


def _intervals(ensemble: Ensemble, row: int, dtype: Any) -> list[tuple[float, float]]:
    """The values that take the true branch of a row, as [low, high) each."""
    mode = int(ensemble.modes[row])
    members = ensemble.members.get(row) if mode == MEMBER else ensemble.values[row : row + 1]
    points = np.unique(np.asarray(members).astype(dtype))
    points = points[~np.isnan(points)]
    after = np.nextafter(points, np.asarray(np.inf, dtype))
    if mode == MEMBER:
        return list(zip(points.tolist(), after.tolist(), strict=True))
    # Comparisons with NaN are false, but for "not equal".
    if not len(points):
        return [(-np.inf, np.inf)] if MODES[mode] == "BRANCH_NEQ" else []
    at, next_to = float(points[0]), float(after[0])
    return {
        "BRANCH_LEQ": [(-np.inf, next_to)],
        "BRANCH_LT": [(-np.inf, at)],
        "BRANCH_GTE": [(at, np.inf)],
        "BRANCH_GT": [(next_to, np.inf)],
        "BRANCH_EQ": [(at, next_to)],
        "BRANCH_NEQ": [(-np.inf, at), (next_to, np.inf)],
    }[MODES[mode]]


class _Grower:
    """Copies trees, leaving out branches that nothing reaches and nodes whose branches are alike."""

    def __init__(
        self, forest: Forest, ensemble: Ensemble, asked: Mapping[int, list[tuple[float, float]]]
    ) -> None:
        self.forest, self.ensemble = forest, ensemble
        self.levels = {row: self._levels(row, intervals) for row, intervals in asked.items()}
        self._numbers: dict[Branch | Leaf, int] = {}
        self._vectors: dict[bytes, int] = {}

    def grow(self) -> None:
        for root in self.ensemble.roots.tolist():
            self._vectors = {}
            self.forest.roots.append(self._node(root, {}))
            width = self.ensemble.weights.shape[1]
            kept = [np.frombuffer(key, self.ensemble.weights.dtype) for key in self._vectors]
            self.forest.vectors.append(np.stack(kept).reshape(len(kept), width))

    def _levels(self, row: int, intervals: list[tuple[float, float]]) -> int:
        cuts = self.forest.cuts[int(self.ensemble.features[row])]
        found = 0
        for low, high in intervals:
            if low == np.inf:
                continue
            first, last = np.searchsorted(cuts, [low, high], side="right")
            if np.isinf(high) and high > 0:
                last = len(cuts) + 1
            # Level n starts at cut n - 1: the levels from `low` on, before `high`.
            found |= (1 << int(last)) - (1 << int(first))
        # NaN is equal to nothing.
        unequal = self.ensemble.modes[row] == MODES.index("BRANCH_NEQ")
        if self.forest.missing and (self.ensemble.missing[row] or unequal):
            found |= 1 << (len(cuts) + 1)
        return found

    def _node(self, row: int, inside: dict[int, int]) -> int:
        if row not in self.levels:
            key = self.ensemble.weights[row].tobytes()
            return self._number(Leaf(self._vectors.setdefault(key, len(self._vectors))))
        feature, levels = int(self.ensemble.features[row]), self.levels[row]
        here = inside.get(feature, self.forest.every[feature])
        if not here & levels:
            return self._node(int(self.ensemble.no[row]), inside)
        if not here & ~levels:
            return self._node(int(self.ensemble.yes[row]), inside)
        yes = self._node(int(self.ensemble.yes[row]), {**inside, feature: here & levels})
        no = self._node(int(self.ensemble.no[row]), {**inside, feature: here & ~levels})
        return yes if yes == no else self._number(Branch(feature, levels, yes, no))

    def _number(self, node: Branch | Leaf) -> int:
        if node not in self._numbers:
            self._numbers[node] = len(self.forest.nodes)
            self.forest.nodes.append(node)
        return self._numbers[node]
