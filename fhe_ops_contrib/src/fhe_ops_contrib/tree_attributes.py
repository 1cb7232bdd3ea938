"""From the attributes of TreeEnsembleClassifier, TreeEnsembleRegressor and TreeEnsemble to an ``Ensemble``.

The first two number the nodes of each tree, leaves among them; the third has one list of nodes and one of
leaves for all trees.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fhe_ops_contrib._checks import Array, misfit
from fhe_ops_contrib.ensembles import MEMBER, MODES, Ensemble, as_array, dense, depth_of

Attributes = Mapping[str, Any]


def numbered_trees(
    attributes: Attributes, *, op: str, of: str, targets: int, aggregate: str
) -> Ensemble:
    """The trees of a classifier or regressor (``ai.onnx.ml`` 1 to 4).

    Args:
        of: ``class`` or ``target``: how the attributes of the leaves begin.
        targets: how many classes or targets there are.
        aggregate: what becomes of several weights.

    Raises:
        ModelError: attributes that contradict each other; a tree with a cycle, or with several roots.
    """
    nodes = as_array(attributes, "nodes_nodeids", np.int64, op=op)
    count = len(nodes)
    if not count:
        raise misfit(
            op,
            "there are no trees",
            expected="at least one node in 'nodes_nodeids'",
            got="none",
            fix="export the model again after it was trained",
        )
    whole = {
        name: as_array(attributes, f"nodes_{name}", np.int64, op=op, length=count)
        for name in ("treeids", "featureids", "truenodeids", "falsenodeids")
    }
    trees, numbers = np.unique(whole["treeids"], return_inverse=True)
    find = _Finder(numbers, nodes, op)
    modes = _modes(attributes, count, op)
    leaf = modes < 0
    own = np.arange(count)
    yes, no = own.copy(), own.copy()
    for children, name in ((yes, "truenodeids"), (no, "falsenodeids")):
        children[~leaf] = find(numbers[~leaf], whole[name][~leaf], f"nodes_{name}")
    values, _ = _either(attributes, "nodes_values", op=op, length=count)
    weights, given = _either(attributes, f"{of}_weights", op=op)
    ends = {
        name: as_array(attributes, f"{of}_{name}", np.int64, op=op, length=len(weights))
        for name in ("ids", "nodeids", "treeids")
    }
    _in_range(ends["ids"], targets, f"{of}_ids", op)
    places = np.searchsorted(trees, ends["treeids"])
    known = trees[np.minimum(places, len(trees) - 1)] == ends["treeids"]
    rows = find(np.where(known, places, -1), ends["nodeids"], f"{of}_nodeids")
    table, scored = dense(rows, ends["ids"], weights.astype(given), (count, targets), aggregate)
    return Ensemble(
        op,
        _roots(numbers, yes, no, trees, op),
        features=np.where(leaf, 0, _in_range(whole["featureids"], None, "nodes_featureids", op)),
        modes=np.maximum(modes, 0),
        values=values,
        missing=_missing(attributes, count, op) & ~leaf,
        yes=yes,
        no=no,
        weights=table,
        scored=scored,
        depth=depth_of(yes, no, own, op=op),
    )


def listed_trees(attributes: Attributes, *, aggregate: str) -> Ensemble:
    """The trees of TreeEnsemble (``ai.onnx.ml`` 5).

    Raises:
        ModelError: attributes that contradict each other; a cycle.
    """
    op = "TreeEnsemble"
    splits = as_array(attributes, "nodes_splits", None, op=op)
    weights = as_array(attributes, "leaf_weights", None, op=op)
    count, leaves = len(splits), len(weights)
    modes = as_array(attributes, "nodes_modes", np.int64, op=op, length=count)
    _in_range(modes, MEMBER + 1, "nodes_modes", op)
    features = as_array(attributes, "nodes_featureids", np.int64, op=op, length=count)
    targets = as_array(attributes, "leaf_targetids", np.int64, op=op, length=leaves)
    wanted = attributes.get("n_targets")
    number = int(targets.max(initial=0) + 1 if wanted is None else wanted)
    branches = []
    for way in ("true", "false"):
        children = as_array(attributes, f"nodes_{way}nodeids", np.int64, op=op, length=count)
        ends = as_array(attributes, f"nodes_{way}leafs", np.int64, op=op, length=count) != 0
        _in_range(children[ends], leaves, f"nodes_{way}nodeids", op)
        _in_range(children[~ends], count, f"nodes_{way}nodeids", op)
        branches.append(
            np.concatenate([np.where(ends, children + count, children), count + np.arange(leaves)])
        )
    yes, no = branches
    roots = _in_range(as_array(attributes, "tree_roots", np.int64, op=op), count, "tree_roots", op)
    if not len(roots):
        raise misfit(
            op,
            "there are no trees",
            expected="at least one node in 'tree_roots'",
            got="none",
            fix="export the model again after it was trained",
        )
    table, scored = dense(
        count + np.arange(leaves),
        _in_range(targets, number, "leaf_targetids", op),
        weights,
        (count + leaves, number),
        aggregate,
    )
    none = np.zeros(leaves, np.int64)
    return Ensemble(
        op,
        roots,
        features=np.concatenate([_in_range(features, None, "nodes_featureids", op), none]),
        modes=np.concatenate([modes, none]),
        values=np.concatenate([splits, none.astype(splits.dtype)]),
        missing=np.concatenate([_missing(attributes, count, op), none.astype(bool)]),
        yes=yes,
        no=no,
        weights=table,
        scored=scored,
        depth=depth_of(yes, no, roots, op=op),
        members=_members(attributes, modes, op),
    )


# -- parts of them


class _Finder:
    """Finds rows by the number of their tree and their id in it."""

    def __init__(self, trees: Array, nodes: Array, op: str) -> None:
        self.op = op
        self.least, self.span = int(nodes.min()), int(np.ptp(nodes)) + 1
        keys = trees * self.span + (nodes - self.least)
        self.order = np.argsort(keys, kind="stable")
        self.keys = keys[self.order]
        if (self.keys[1:] == self.keys[:-1]).any():
            raise misfit(
                op,
                "two nodes of a tree have the same id",
                expected="ids in 'nodes_nodeids' that differ within a tree",
                got="an id twice",
                fix="correct 'nodes_nodeids' or 'nodes_treeids'",
            )

    def __call__(self, trees: Array, nodes: Array, attribute: str) -> Array:
        inside = (trees >= 0) & (nodes >= self.least) & (nodes < self.least + self.span)
        keys = np.where(inside, trees * self.span + (nodes - self.least), -1)
        places = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        lost = self.keys[places] != keys
        if lost.any():
            raise misfit(
                self.op,
                f"the attribute {attribute!r} names a node that does not exist",
                expected="ids of 'nodes_nodeids' in the same tree",
                got=f"{int(nodes[lost][0])}",
                fix=f"correct {attribute!r}",
            )
        return np.asarray(self.order[places])


def _modes(attributes: Attributes, count: int, op: str) -> Array:
    """The numbers of the modes, -1 for leaves."""
    known = {name: number for number, name in enumerate(MODES)} | {"LEAF": -1}
    names = as_array(attributes, "nodes_modes", np.str_, op=op, length=count)
    unknown = sorted(set(names.tolist()) - set(known))
    if unknown:
        raise misfit(
            op,
            "the attribute 'nodes_modes' has a mode that does not exist",
            expected=", ".join(known),
            got=repr(unknown[0]),
            fix="correct 'nodes_modes'",
        )
    return np.array([known[name] for name in names.tolist()])


def _either(
    attributes: Attributes, name: str, *, op: str, length: int | None = None
) -> tuple[Array, Any]:
    """A list of floats that may be given as a tensor instead, and its element type.

    Raises:
        ModelError: it is given in both ways, or has another length.
    """
    tensor = f"{name}_as_tensor"
    given = [
        n
        for n in (name, tensor)
        if np.size(attributes.get(n, ())) and attributes.get(n) is not None
    ]
    if len(given) > 1:
        raise misfit(
            op,
            f"the attributes {name!r} and {tensor!r} say the same thing",
            expected="one of them",
            got="both",
            fix="leave one out",
        )
    if given == [tensor]:
        array = as_array(attributes, tensor, None, op=op, length=length)
        return array, array.dtype
    return as_array(attributes, name, np.float32, op=op, length=length), np.dtype(np.float32)


def base_values(attributes: Attributes, *, op: str, allowed: tuple[int, ...]) -> Array | None:
    """What is added to every score; None where nothing is.

    Raises:
        ModelError: there are as many as fit neither of ``allowed``.
    """
    values, _ = _either(attributes, "base_values", op=op)
    if not len(values):
        return None
    if len(values) not in allowed:
        raise misfit(
            op,
            "the attribute 'base_values' does not fit the others",
            expected=f"{' or '.join(map(str, allowed))} values",
            got=f"{len(values)}",
            fix="correct 'base_values'",
        )
    return values


def _missing(attributes: Attributes, count: int, op: str) -> Array:
    name = "nodes_missing_value_tracks_true"
    given = attributes.get(name)
    if given is None or not len(given):
        return np.zeros(count, bool)
    return as_array(attributes, name, np.int64, op=op, length=count) != 0


def _in_range(numbers: Array, end: int | None, attribute: str, op: str) -> Array:
    outside = (numbers < 0) if end is None else (numbers < 0) | (numbers >= end)
    if outside.any():
        raise misfit(
            op,
            f"the attribute {attribute!r} has a number out of range",
            expected="numbers from 0" + ("" if end is None else f" to {end - 1}"),
            got=f"{int(numbers[outside][0])}",
            fix=f"correct {attribute!r}",
        )
    return numbers


def _roots(numbers: Array, yes: Array, no: Array, trees: Array, op: str) -> Array:
    """The one row of each tree to which no other leads."""
    own = np.arange(len(yes))
    led_to = np.zeros(len(yes), bool)
    led_to[yes[yes != own]] = True
    led_to[no[no != own]] = True
    roots = np.flatnonzero(~led_to)
    counts = np.bincount(numbers[roots], minlength=len(trees))
    if (counts != 1).any():
        worst = int(np.flatnonzero(counts != 1)[0])
        raise misfit(
            op,
            f"tree {trees[worst]} has {'several roots' if counts[worst] else 'a cycle and no root'}",
            expected="one node to which no branch leads",
            got=f"{counts[worst]}",
            fix="correct 'nodes_truenodeids', 'nodes_falsenodeids' or 'nodes_treeids'",
        )
    return roots[np.argsort(numbers[roots], kind="stable")]


def _members(attributes: Attributes, modes: Array, op: str) -> dict[int, Array]:
    """By row, the sets of the BRANCH_MEMBER nodes: NaN ends each of them."""
    rows = np.flatnonzero(modes == MEMBER)
    values = as_array(attributes, "membership_values", None, op=op).astype(np.float64)
    ends = np.flatnonzero(np.isnan(values))
    # The last NaN may be left out.
    if len(values) and (not len(ends) or ends[-1] != len(values) - 1):
        ends = np.append(ends, len(values))
    if len(ends) != len(rows):
        raise misfit(
            op,
            "the attribute 'membership_values' does not fit 'nodes_modes'",
            expected=f"{len(rows)} sets, each ended by NaN",
            got=f"{len(ends)}",
            fix="give one set for each BRANCH_MEMBER node, in their order",
        )
    starts = np.concatenate([[0], ends + 1]).astype(int)[: len(ends)]
    return {int(row): values[start:end] for row, start, end in zip(rows, starts, ends, strict=True)}
