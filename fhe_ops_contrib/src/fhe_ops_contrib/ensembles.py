"""Trees as arrays: what the attributes of the tree operators say, checked, and run for whole batches.

All nodes of all trees are rows of the same arrays, leaves among them. A leaf leads to itself, so that
walking as many steps as the deepest tree has levels ends in a leaf from everywhere. Small ensembles are
looked up instead (``tree_masks``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from fhe_ops_contrib._checks import Array, misfit
from fhe_ops_contrib.tree_masks import Masks

#: Comparisons of a feature with a node's value, numbered as TreeEnsemble numbers them.
MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ")
MEMBER = len(MODES)
_COMPARISONS = (np.less_equal, np.less, np.greater_equal, np.greater, np.equal, np.not_equal)
#: The modes that part at x >= v, and those that part at x > v.
_CUT_AT, _CUT_AFTER = (1, 2, 4, 5), (0, 3, 4, 5)

#: Samples times trees that are walked at a time.
_CHUNK = 2**20


class Group(NamedTuple):
    """Trees of an ensemble, None for all, the targets they give scores to, and weights (rows, targets)."""

    trees: Array | None
    targets: Array | slice
    weights: Array


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
    _by_type: dict[Any, Masks | None] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def is_leaf(self) -> Array:
        """(rows,) whether a row is a leaf."""
        return np.asarray(self.yes == np.arange(len(self.yes)))

    @cached_property
    def scored_by(self) -> tuple[Array, Array]:
        """(trees, targets) twice: whether any leaf of a tree gives a target a score, and whether all do."""
        count, trees, rows = len(self.yes), np.arange(len(self.roots)), self.roots
        for _ in range(self.depth):
            # Nodes may be shared: each counts once in a tree.
            reached = trees * count + np.stack([self.yes[rows], self.no[rows]])
            trees, rows = np.divmod(np.unique(reached), count)
        starts = np.searchsorted(trees, np.arange(len(self.roots)))
        scored = self.scored[rows]
        return np.logical_or.reduceat(scored, starts), np.logical_and.reduceat(scored, starts)

    @cached_property
    def always_scored(self) -> Array:
        """(targets,) whether all leaves of some tree give a target a score, so that it always has one."""
        return np.asarray(self.scored_by[1].any(axis=0))

    @cached_property
    def scored_alike(self) -> bool:
        """Whether every sample has a score for the same targets."""
        return bool((self.always_scored == self.scored_by[0].any(axis=0)).all())

    @cached_property
    def needed(self) -> int:
        """How many features a sample needs."""
        return int(self.features[~self.is_leaf].max(initial=-1)) + 1

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """The trees that give scores to the same targets.

        In the multi-class ensembles of gradient boosting, each tree gives a score to one class.
        """
        targets, number = np.unique(self.scored_by[0], axis=0, return_inverse=True)
        found = []
        for which, mask in enumerate(targets):
            if mask.any():
                trees = np.flatnonzero(number.reshape(-1) == which)
                # By rows, as they are read.
                weights = np.ascontiguousarray(self.weights[:, mask], np.float64)
                places = np.flatnonzero(mask)
                here = slice(places[0], places[0] + 1) if len(places) == 1 else places
                found.append(Group(None if len(trees) == len(self.roots) else trees, here, weights))
        return tuple(found)

    def leaves(self, x: Array) -> Array:
        """The row of the leaf in which each sample ends in each tree: (N, F) to (N, trees).

        Raises:
            ModelError: the trees ask for features that ``x`` does not have.
        """
        if self.needed > x.shape[1]:
            raise misfit(
                self.op,
                "the trees ask for a feature that the input does not have",
                expected=f"at least {self.needed} features",
                got=f"{x.shape[1]}",
                fix="correct 'nodes_featureids', or give the features the model was trained on",
            )
        if x.dtype != np.float64:
            x = x.astype(np.float32, copy=False)
        masks = self._masks(x.dtype.type)
        if masks is not None:
            return masks.find(x)
        return self.walk(x)

    def _masks(self, dtype: Any) -> Masks | None:
        if dtype not in self._by_type:
            self._by_type[dtype] = Masks.of(self, dtype)
        return self._by_type[dtype]

    def walk(self, x: Array) -> Array:
        """What ``leaves`` gives, found from the roots downwards."""
        step = max(1, _CHUNK // len(self.roots))
        parts = [self._walked(x[i : i + step]) for i in range(0, len(x), step)]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.roots)), np.int64)

    def _walked(self, x: Array) -> Array:
        rows = np.broadcast_to(self.roots, (len(x), len(self.roots)))
        values, samples = x.reshape(-1), x.shape[1] * np.arange(len(x))[:, None]
        for _ in range(self.depth):
            asked = values.take(samples + self.features.take(rows))
            rows = np.where(self.passes(rows, asked), self.yes.take(rows), self.no.take(rows))
        return np.asarray(rows)

    def passes(self, rows: Array, asked: Array) -> Array:
        """Which of the values ``asked`` take the true branch of their row; a leaf's mean nothing."""
        values = self.values.take(rows).astype(asked.dtype, copy=False)
        passed = np.isnan(asked) & self.missing.take(rows)
        for mode in self._modes:
            found = _COMPARISONS[mode](asked, values)
            if len(self._modes) > 1 or self.members:
                found &= self.modes.take(rows) == mode
            passed = passed | found
        for row in (
            sorted(self.members.keys() & set(rows.reshape(-1).tolist())) if self.members else ()
        ):
            passed |= (rows == row) & np.isin(asked, self.members[row].astype(asked.dtype))
        return passed

    @cached_property
    def _modes(self) -> list[int]:
        return [int(mode) for mode in np.unique(self.modes[~self.is_leaf]) if mode < MEMBER]

    def cuts(self, dtype: Any) -> tuple[Array, Array]:
        """All numbers c of ``dtype`` such that branches may part at x >= c: their features, and they."""
        inner = np.flatnonzero(~self.is_leaf & (self.modes != MEMBER))
        at, after = (np.isin(self.modes[inner], modes) for modes in (_CUT_AT, _CUT_AFTER))
        rows = [np.full(len(members), row) for row, members in self.members.items()]
        points = [members.astype(dtype) for members in self.members.values()]
        values = self.values[inner].astype(dtype)
        low = np.concatenate([values[at], *points])
        high = np.nextafter(np.concatenate([values[after], *points]), dtype(np.inf))
        asked = np.concatenate([inner[at], *rows, inner[after], *rows]).astype(np.int64)
        found = np.concatenate([low, high])
        known = ~np.isnan(found)
        return self.features[asked[known]], found[known]


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
