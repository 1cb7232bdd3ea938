"""Random trees, as the attributes of the three tree operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import numpy_helper

MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ")

#: A leaf, or (mode, feature, value, true branch, false branch).
Node = Any


def grown(rng: np.random.Generator, depth: int, features: int, modes: Sequence[str]) -> Node:
    """A tree with thresholds in halves, so that samples in halves meet them; ``None`` for a leaf."""
    if not depth or rng.random() < 0.15:
        return None
    mode = modes[rng.integers(len(modes))]
    feature, value = int(rng.integers(features)), float(rng.integers(-3, 4)) / 2
    below = [grown(rng, depth - 1, features, modes) for _ in range(2)]
    return (mode, feature, value, *below)


def samples(seed: int, count: int = 200, features: int = 4, kind: Any = np.float32) -> Any:
    """Values in halves, (count, features)."""
    drawn = np.random.default_rng(seed).integers(-4, 5, (count, features))
    return (drawn / (2 if np.dtype(kind).kind == "f" else 1)).astype(kind)


def numbered(
    seed: int,
    of: str,
    ids: Sequence[int],
    *,
    trees: int = 3,
    depth: int = 4,
    features: int = 4,
    modes: Sequence[str] = MODES,
    positive: bool = False,
    tracks: bool = False,
) -> dict[str, Any]:
    """Attributes of TreeEnsembleClassifier (``of`` = class) or TreeEnsembleRegressor (target).

    Args:
        ids: the classes or targets that each leaf has a weight for.
        tracks: NaN takes the true branch of some nodes.
    """
    rng = np.random.default_rng(seed)
    roots = []
    for _ in range(trees):
        node = None
        while node is None:
            node = grown(rng, depth, features, modes)
        roots.append(node)

    def weigh() -> float:
        return float(np.float32(abs(rng.normal()) if positive else rng.normal()))

    attributes = flattened(roots, of, ids, weigh)
    if tracks:
        count = len(attributes["nodes_modes"])
        attributes["nodes_missing_value_tracks_true"] = rng.integers(0, 2, count).tolist()
    return attributes


def flattened(
    roots: Sequence[Node], of: str, ids: Sequence[int], weigh: Callable[[], float]
) -> dict[str, list[Any]]:
    """The attributes of trees whose leaves get their weights from ``weigh``."""
    names = ["treeids", "nodeids", "featureids", "modes", "values", "truenodeids", "falsenodeids"]
    columns: dict[str, list[Any]] = {f"nodes_{name}": [] for name in names}
    ends: dict[str, list[Any]] = {f"{of}_{n}": [] for n in ("ids", "nodeids", "treeids", "weights")}

    def add(tree: int, node: Node) -> int:
        number = columns["nodes_treeids"].count(tree)
        row = len(columns["nodes_treeids"])
        leaf = ("LEAF", 0, 0.0, None, None)
        mode, feature, value, *below = leaf if node is None else node
        for name, entry in zip(names, (tree, number, feature, mode, value, 0, 0), strict=True):
            columns[f"nodes_{name}"].append(entry)
        if node is None:
            for each in ids:
                entries = (each, number, tree, weigh())
                for name, entry in zip(ends, entries, strict=True):
                    ends[name].append(entry)
        else:
            columns["nodes_truenodeids"][row] = add(tree, below[0])
            columns["nodes_falsenodeids"][row] = add(tree, below[1])
        return number

    for tree, root in enumerate(roots):
        add(tree, root)
    return {**columns, **ends}


def listed(
    seed: int, *, trees: int = 3, depth: int = 4, targets: int = 1, kind: Any = np.float32
) -> dict[str, Any]:
    """Attributes of TreeEnsemble, with sets among its modes."""
    rng = np.random.default_rng(seed)
    codes = {mode: number for number, mode in enumerate((*MODES, "BRANCH_MEMBER"))}
    nodes: list[list[Any]] = []
    leaves: list[int] = []
    members: list[float] = []

    def add(node: Node) -> tuple[int, int]:
        """Its number, and whether it is a leaf."""
        if node is None:
            leaves.append(int(rng.integers(targets)))
            return len(leaves) - 1, 1
        mode, feature, value, *below = node
        row = len(nodes)
        nodes.append([codes[mode], feature, value, 0, 0, 0, 0])
        nodes[row][3:5] = add(below[0])
        nodes[row][5:7] = add(below[1])
        return row, 0

    roots = []
    for _ in range(trees):
        node = None
        while node is None:
            node = grown(rng, depth, 4, tuple(codes))
        roots.append(add(node)[0])
    columns = [list(column) for column in zip(*nodes, strict=True)]
    for code in columns[0]:
        if code == codes["BRANCH_MEMBER"]:
            # Runtime takes small positive integers alone.
            members += [*rng.choice([0.0, 1.0, 2.0], 2, replace=False)[::-1].tolist(), np.nan]
    weights = rng.normal(size=len(leaves)).astype(kind)
    names = ["featureids", "truenodeids", "trueleafs", "falsenodeids", "falseleafs"]
    given = {f"nodes_{name}": columns[i] for name, i in zip(names, (1, 3, 4, 5, 6), strict=True)}
    return {
        **given,
        "nodes_modes": numpy_helper.from_array(np.array(columns[0], np.uint8)),
        "nodes_splits": numpy_helper.from_array(np.array(columns[2], kind)),
        "membership_values": numpy_helper.from_array(np.array(members, kind)),
        "leaf_targetids": leaves,
        "leaf_weights": numpy_helper.from_array(weights),
        "n_targets": targets,
        "tree_roots": roots,
    }
