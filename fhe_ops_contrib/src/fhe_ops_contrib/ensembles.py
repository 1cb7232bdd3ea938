"""Trees as arrays: what the attributes of the tree operators say, checked, and walked for whole batches.

All nodes of all trees are rows of the same arrays, leaves among them. A leaf leads to itself, so that
walking as many steps as the deepest tree has levels ends in a leaf from everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fhe_ops_contrib._checks import Array, misfit

#: Comparisons of a feature with a node's value, numbered as TreeEnsemble numbers them.
MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ")
MEMBER = len(MODES)
_COMPARISONS = (np.less_equal, np.less, np.greater_equal, np.greater, np.equal, np.not_equal)

#: Samples times trees that are walked at a time.
_CHUNK = 2**20


@dataclass(frozen=True)
class Ensemble:
    """The trees of one node of a model.

    Attributes:
        op: the operator, for errors.
        roots: (trees,) the first row of each tree.
        features, modes, values: (rows,) what a row compares, how, and with what; a leaf's mean nothing.
        missing: (rows,) whether NaN goes to the true branch; not at leaves.
        yes, no: (rows,) where a row leads; a leaf's are itself.
        members: by row, the set that BRANCH_MEMBER looks in.
        weights: (rows, targets) what a leaf gives to each target.
        scored: (rows, targets) which of them it gives anything.
        depth: of the deepest tree.
    """

    op: str
    roots: Array
    features: Array
    modes: Array
    values: Array
    missing: Array
    yes: Array
    no: Array
    weights: Array
    scored: Array
    depth: int
    members: Mapping[int, Array] = field(default_factory=dict)

    @property
    def is_leaf(self) -> Array:
        """(rows,) whether a row is a leaf."""
        return np.asarray(self.yes == np.arange(len(self.yes)))

    def always_scored(self) -> Array:
        """(targets,) whether all leaves of some tree give a target a score, so that it always has one."""
        found = np.zeros(self.scored.shape[1], bool)
        for root in self.roots.tolist():
            rows = np.array([root])
            for _ in range(self.depth):
                rows = np.unique(np.concatenate([self.yes[rows], self.no[rows]]))
            found |= self.scored[rows].all(axis=0)
        return found

    def leaves(self, x: Array) -> Array:
        """The row of the leaf in which each sample ends in each tree: (N, F) to (N, trees).

        Raises:
            ModelError: the trees ask for features that ``x`` does not have.
        """
        asked = self.features[~self.is_leaf]
        if asked.max(initial=0) >= x.shape[1]:
            raise misfit(
                self.op,
                "the trees ask for a feature that the input does not have",
                expected=f"at least {asked.max() + 1} features",
                got=f"{x.shape[1]}",
                fix="correct 'nodes_featureids', or give the features the model was trained on",
            )
        if x.dtype != np.float64:
            x = x.astype(np.float32)
        step = max(1, _CHUNK // len(self.roots))
        parts = [self._walk(x[i : i + step]) for i in range(0, len(x), step)]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.roots)), np.int64)

    def _walk(self, x: Array) -> Array:
        rows = np.broadcast_to(self.roots, (len(x), len(self.roots)))
        samples = np.arange(len(x))[:, None]
        for _ in range(self.depth):
            asked = x[samples, self.features[rows]]
            passed = self._passes(rows, asked)
            rows = np.where(passed, self.yes[rows], self.no[rows])
        return np.asarray(rows)

    def _passes(self, rows: Array, asked: Array) -> Array:
        modes, values = self.modes[rows], self.values[rows].astype(asked.dtype)
        passed = np.isnan(asked) & self.missing[rows]
        for mode in np.unique(self.modes):
            if mode < MEMBER:
                passed |= (modes == mode) & _COMPARISONS[mode](asked, values)
        for row, members in self.members.items():
            passed |= (rows == row) & np.isin(asked, members.astype(asked.dtype))
        return passed


def depth_of(yes: Array, no: Array, roots: Array, *, op: str) -> int:
    """The number of levels below the roots.

    Raises:
        ModelError: a walk from a root may never end.
    """
    inner = yes != np.arange(len(yes))
    parents = np.bincount(np.concatenate([yes[inner], no[inner]]), minlength=len(yes))
    layer = np.flatnonzero(parents == 0)
    seen, depth = len(layer), 0
    while True:
        sources = layer[inner[layer]]
        if not len(sources):
            break
        children = np.concatenate([yes[sources], no[sources]])
        np.subtract.at(parents, children, 1)
        layer = np.unique(children)[parents[np.unique(children)] == 0]
        seen, depth = seen + len(layer), depth + 1
    if seen < len(yes):
        raise misfit(
            op,
            "the branches of a tree form a cycle",
            expected="branches that lead from a root to leaves",
            got=f"{len(yes) - seen} nodes that lead back to themselves",
            fix="correct 'nodes_truenodeids' and 'nodes_falsenodeids'",
        )
    return depth


def as_array(
    attributes: Mapping[str, Any], name: str, dtype: Any, *, op: str, length: int | None = None
) -> Array:
    """An attribute as an array of ``length``.

    Raises:
        ModelError: it is missing, or has another length.
    """
    given = attributes.get(name)
    array = np.asarray([] if given is None else given, dtype)
    if length is not None and array.shape != (length,):
        raise misfit(
            op,
            f"the attribute {name!r} does not fit the others",
            expected=f"{length} values",
            got="none" if given is None else f"{array.size} values",
            fix=f"correct {name!r}",
        )
    return array


def dense(
    rows: Array, targets: Array, weights: Array, shape: tuple[int, int], aggregate: str
) -> tuple[Array, Array]:
    """Weights by leaf and target, and which there are; several for one target are aggregated."""
    scored = np.zeros(shape, bool)
    scored[rows, targets] = True
    if aggregate in ("MIN", "MAX"):
        worst = np.inf if aggregate == "MIN" else -np.inf
        table = np.full(shape, worst, weights.dtype)
        (np.minimum if aggregate == "MIN" else np.maximum).at(table, (rows, targets), weights)
        return np.where(scored, table, 0), scored
    table = np.zeros(shape, weights.dtype)
    np.add.at(table, (rows, targets), weights)
    return table, scored
