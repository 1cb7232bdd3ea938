"""Tree ensembles in NumPy float: TreeEnsembleClassifier, TreeEnsembleRegressor, TreeEnsemble.

The attributes are read once for a node, in the constructors. What comes after the trees is in functions of
its own (``tree_scores``): the quantized forms call them on decrypted scores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from fhe_ops_contrib._checks import Array, as_matrix
from fhe_ops_contrib._domains import Aggregate, PostTransform
from fhe_ops_contrib.tree_scores import Classes, Targets, aggregated

Floats = Sequence[float] | None
Ints = Sequence[int] | None
Strings = Sequence[str] | None


def _classified(x: Array, classes: Classes) -> tuple[Array, Array]:
    leaves = classes.ensemble.leaves(as_matrix(x, classes.ensemble.op))
    return classes.outputs(*aggregated(classes.ensemble, leaves, "SUM"))


def _regressed(x: Array, targets: Targets) -> Array:
    leaves = targets.ensemble.leaves(as_matrix(x, targets.ensemble.op))
    scores, _ = aggregated(targets.ensemble, leaves, targets.aggregate)
    return targets.outputs(scores)


class TreeEnsembleClassifier:
    """The label of the largest sum of the leaves' weights, and these sums transformed.

    (N, F) or (F,) to (N,), and to (N, classes) float32. See ``Classes.outputs`` for two classes.

    Raises:
        ModelError: attributes that contradict each other or x; trees that are none.
    """

    def __init__(
        self,
        *,
        base_values: Floats = None,
        base_values_as_tensor: Array | None = None,
        class_ids: Ints = None,
        class_nodeids: Ints = None,
        class_treeids: Ints = None,
        class_weights: Floats = None,
        class_weights_as_tensor: Array | None = None,
        classlabels_int64s: Ints = None,
        classlabels_strings: Strings = None,
        nodes_falsenodeids: Ints = None,
        nodes_featureids: Ints = None,
        nodes_hitrates: Floats = None,
        nodes_hitrates_as_tensor: Array | None = None,
        nodes_missing_value_tracks_true: Ints = None,
        nodes_modes: Strings = None,
        nodes_nodeids: Ints = None,
        nodes_treeids: Ints = None,
        nodes_truenodeids: Ints = None,
        nodes_values: Floats = None,
        nodes_values_as_tensor: Array | None = None,
        post_transform: PostTransform = "NONE",
    ) -> None:
        self._classes = Classes.of(locals())

    def __call__(self, x: Array, /) -> tuple[Array, Array]:
        return _classified(x, self._classes)


class TreeEnsembleClassifier1:
    """``TreeEnsembleClassifier`` as it was before it took tensors."""

    def __init__(
        self,
        *,
        base_values: Floats = None,
        class_ids: Ints = None,
        class_nodeids: Ints = None,
        class_treeids: Ints = None,
        class_weights: Floats = None,
        classlabels_int64s: Ints = None,
        classlabels_strings: Strings = None,
        nodes_falsenodeids: Ints = None,
        nodes_featureids: Ints = None,
        nodes_hitrates: Floats = None,
        nodes_missing_value_tracks_true: Ints = None,
        nodes_modes: Strings = None,
        nodes_nodeids: Ints = None,
        nodes_treeids: Ints = None,
        nodes_truenodeids: Ints = None,
        nodes_values: Floats = None,
        post_transform: PostTransform = "NONE",
    ) -> None:
        self._classes = Classes.of(locals())

    def __call__(self, x: Array, /) -> tuple[Array, Array]:
        return _classified(x, self._classes)


class TreeEnsembleRegressor:
    """The leaves' weights for each target, aggregated and transformed.

    (N, F) or (F,) to (N, targets) float32.

    Raises:
        ModelError: attributes that contradict each other or x; trees that are none.
    """

    def __init__(
        self,
        *,
        aggregate_function: Aggregate = "SUM",
        base_values: Floats = None,
        base_values_as_tensor: Array | None = None,
        n_targets: int | None = None,
        nodes_falsenodeids: Ints = None,
        nodes_featureids: Ints = None,
        nodes_hitrates: Floats = None,
        nodes_hitrates_as_tensor: Array | None = None,
        nodes_missing_value_tracks_true: Ints = None,
        nodes_modes: Strings = None,
        nodes_nodeids: Ints = None,
        nodes_treeids: Ints = None,
        nodes_truenodeids: Ints = None,
        nodes_values: Floats = None,
        nodes_values_as_tensor: Array | None = None,
        post_transform: PostTransform = "NONE",
        target_ids: Ints = None,
        target_nodeids: Ints = None,
        target_treeids: Ints = None,
        target_weights: Floats = None,
        target_weights_as_tensor: Array | None = None,
    ) -> None:
        self._targets = Targets.of_regressor(locals())

    def __call__(self, x: Array, /) -> Array:
        return _regressed(x, self._targets)


class TreeEnsembleRegressor1:
    """``TreeEnsembleRegressor`` as it was before it took tensors."""

    def __init__(
        self,
        *,
        aggregate_function: Aggregate = "SUM",
        base_values: Floats = None,
        n_targets: int | None = None,
        nodes_falsenodeids: Ints = None,
        nodes_featureids: Ints = None,
        nodes_hitrates: Floats = None,
        nodes_missing_value_tracks_true: Ints = None,
        nodes_modes: Strings = None,
        nodes_nodeids: Ints = None,
        nodes_treeids: Ints = None,
        nodes_truenodeids: Ints = None,
        nodes_values: Floats = None,
        post_transform: PostTransform = "NONE",
        target_ids: Ints = None,
        target_nodeids: Ints = None,
        target_treeids: Ints = None,
        target_weights: Floats = None,
    ) -> None:
        self._targets = Targets.of_regressor(locals())

    def __call__(self, x: Array, /) -> Array:
        return _regressed(x, self._targets)


class TreeEnsemble:
    """The weights of the leaves for each target, aggregated and transformed: (N, F) to (N, targets).

    In x's type.

    Raises:
        ModelError: attributes that contradict each other or x; a cycle.
    """

    def __init__(
        self,
        *,
        aggregate_function: Literal[0, 1, 2, 3] = 1,
        leaf_targetids: Sequence[int],
        leaf_weights: Array,
        membership_values: Array | None = None,
        n_targets: int | None = None,
        nodes_falseleafs: Sequence[int],
        nodes_falsenodeids: Sequence[int],
        nodes_featureids: Sequence[int],
        nodes_hitrates: Array | None = None,
        nodes_missing_value_tracks_true: Ints = None,
        nodes_modes: Array,
        nodes_splits: Array,
        nodes_trueleafs: Sequence[int],
        nodes_truenodeids: Sequence[int],
        post_transform: Literal[0, 1, 2, 3, 4] = 0,
        tree_roots: Sequence[int],
    ) -> None:
        self._targets = Targets.of_ensemble(locals())

    def __call__(self, x: Array, /) -> Array:
        return _regressed(x, self._targets).astype(x.dtype)


IMPLEMENTATIONS: tuple[tuple[str, int, Callable[..., Any]], ...] = (
    ("TreeEnsembleClassifier", 1, TreeEnsembleClassifier1),
    ("TreeEnsembleClassifier", 3, TreeEnsembleClassifier),
    ("TreeEnsembleRegressor", 1, TreeEnsembleRegressor1),
    ("TreeEnsembleRegressor", 3, TreeEnsembleRegressor),
    ("TreeEnsemble", 5, TreeEnsemble),
)
