"""Parts of support vector machines as operators of their own: the kernels, and the votes.

Between them stands a linear model. No exporter writes these operators; this pack's graph passes do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fhe_ops_contrib._checks import Array, as_matrix
from fhe_ops_contrib._domains import KernelType, PostTransform
from fhe_ops_contrib.kernels import Kernel, as_vectors, check_features, kernel_of
from fhe_ops_contrib.labels import class_labels
from fhe_ops_contrib.svm import svm_classification


def svm_kernel(
    X: Array,
    /,
    *,
    kernel_params: Sequence[float] | None = None,
    kernel_type: KernelType = "LINEAR",
    n_supports: int = 0,
    support_vectors: Sequence[float] | None = None,
) -> Array:
    """The kernel of X: (N, F) with each support vector: (N, n_supports), float32. The attributes are
    SVMRegressor's.

    Raises:
        ModelError: as SVMRegressor.
    """
    kernel, vectors = kernel_and_vectors(kernel_params, kernel_type, n_supports, support_vectors)
    rows = as_matrix(X, "SVMKernel")
    check_features(rows.shape[1], vectors.shape[1], "SVMKernel", "support_vectors")
    return kernel(rows, vectors).astype(np.float32)


def kernel_and_vectors(
    kernel_params: Sequence[float] | None,
    kernel_type: str,
    n_supports: int,
    support_vectors: Sequence[float] | None,
) -> tuple[Kernel, Array]:
    """The kernel, and the support vectors: (n_supports, F)."""
    op, count = "SVMKernel", max(n_supports, 1)
    vectors = as_vectors(support_vectors, count, op=op, told_by="n_supports")
    return kernel_of(kernel_type, kernel_params, op), vectors


def svm_votes(
    scores: Array,
    /,
    *,
    classlabels_ints: Sequence[int] | None = None,
    classlabels_strings: Sequence[str] | None = None,
    post_transform: PostTransform = "NONE",
    prob_a: Sequence[float] | None = None,
    prob_b: Sequence[float] | None = None,
) -> tuple[Array, Array]:
    """SVMClassifier's label and scores from the scores of its pairs of classes: (N, pairs). The attributes
    are SVMClassifier's.

    Raises:
        ModelError: as SVMClassifier.
    """
    labels, _ = class_labels(
        classlabels_ints, classlabels_strings, op="SVMVotes", ints_name="classlabels_ints"
    )
    return svm_classification(scores, labels, post_transform, prob_a, prob_b)


IMPLEMENTATIONS: tuple[tuple[str, int, Callable[..., Any]], ...] = (
    ("SVMKernel", 1, svm_kernel),
    ("SVMVotes", 1, svm_votes),
)
