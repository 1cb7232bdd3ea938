"""Support vector machines in NumPy float: kernels of the input with the support vectors, added up.

All that is weighed is in one description of the machine (``Machine``); what comes after the sums is in
functions of its own, which the quantized forms call on decrypted scores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from fhe_ops_contrib._checks import Array, as_matrix, misfit
from fhe_ops_contrib._domains import Flag, KernelType, PostTransform
from fhe_ops_contrib.coupling import coupled
from fhe_ops_contrib.kernels import Kernel, as_vectors, check_features, check_length, kernel_of
from fhe_ops_contrib.labels import chosen, class_labels
from fhe_ops_contrib.transforms import transform


@dataclass(frozen=True)
class Machine:
    """scores = kernel(x, vectors) @ weights + offsets.

    Attributes:
        vectors: (V, F); None for a linear machine, which has its weights for the features themselves.
        weights: (V, scores), or (F, scores).
        offsets: (scores,).
    """

    kernel: Kernel
    vectors: Array | None
    weights: Array
    offsets: Array

    @property
    def features(self) -> int:
        """How many features it was trained on."""
        return len(self.weights) if self.vectors is None else self.vectors.shape[1]

    def sums(self, x: Array, op: str) -> Array:
        """The scores without the offsets: (N, scores), float64.

        Raises:
            ModelError: x: (N, F) or (F,) has another number of features.
        """
        rows = as_matrix(x, op)
        where = "coefficients" if self.vectors is None else "support_vectors"
        check_features(rows.shape[1], self.features, op, where)
        if self.vectors is None:
            return rows.astype(np.float64) @ self.weights
        return self.kernel(rows, self.vectors) @ self.weights


def svm_regressor(
    X: Array,
    /,
    *,
    coefficients: Sequence[float] | None = None,
    kernel_params: Sequence[float] | None = None,
    kernel_type: KernelType = "LINEAR",
    n_supports: int = 0,
    one_class: Flag = 0,
    post_transform: PostTransform = "NONE",
    rho: Sequence[float] | None = None,
    support_vectors: Sequence[float] | None = None,
) -> Array:
    """kernel(X, support vectors) @ coefficients + rho: (N, F) or (F,) to (N, 1), float32.

    Without support vectors the coefficients are those of the features, whatever the kernel. With
    ``one_class`` the result is 1 where it is positive, else -1. ``post_transform`` changes nothing, as
    in ONNX Runtime and in ONNX's reference.

    Raises:
        ModelError: attributes whose lengths contradict each other or X; an unknown kernel.
    """
    machine = regressor_machine(
        coefficients, kernel_params, kernel_type, n_supports, rho, support_vectors
    )
    scores = machine.sums(X, "SVMRegressor") + machine.offsets
    return svm_regression(scores, one_class, post_transform)


def regressor_machine(
    coefficients: Sequence[float] | None,
    kernel_params: Sequence[float] | None,
    kernel_type: str,
    n_supports: int,
    rho: Sequence[float] | None,
    support_vectors: Sequence[float] | None,
) -> Machine:
    """The machine of a regressor's attributes, with one score."""
    op = "SVMRegressor"
    kernel = kernel_of(kernel_type, kernel_params, op)
    check_length(op, "rho", rho, 1)
    vectors = None
    if n_supports > 0:
        vectors = as_vectors(support_vectors, n_supports, op=op, told_by="n_supports")
        check_length(op, "coefficients", coefficients, n_supports)
    weights = np.asarray(coefficients or (), np.float64).reshape(-1, 1)
    return Machine(kernel, vectors, weights, np.asarray(rho, np.float64))


def svm_regression(scores: Array, one_class: int, post_transform: str) -> Array:
    """The regressor's output from the machine's scores: (N, 1)."""
    transform(post_transform, "SVMRegressor")
    result = np.where(np.greater(scores, 0), 1.0, -1.0) if one_class else scores
    return result.astype(np.float32)


def svm_classifier(
    X: Array,
    /,
    *,
    classlabels_ints: Sequence[int] | None = None,
    classlabels_strings: Sequence[str] | None = None,
    coefficients: Sequence[float] | None = None,
    kernel_params: Sequence[float] | None = None,
    kernel_type: KernelType = "LINEAR",
    post_transform: PostTransform = "NONE",
    prob_a: Sequence[float] | None = None,
    prob_b: Sequence[float] | None = None,
    rho: Sequence[float] | None = None,
    support_vectors: Sequence[float] | None = None,
    vectors_per_class: Sequence[int] | None = None,
) -> tuple[Array, Array]:
    """The label with the most votes of one machine for each two classes, and the scores: (N, F) or (F,)
    to (N,) and (N, scores), float32.

    Scores are the machines' own, one a pair of classes in the order (0, 1), (0, 2)... (1, 2)..., for two
    classes (-s, s); with ``prob_a`` and ``prob_b`` they are a probability for each class. Without
    ``vectors_per_class`` the coefficients are those of the features, one row a class.

    Raises:
        ModelError: attributes whose lengths contradict each other or X; an unknown kernel or transform.
    """
    op = "SVMClassifier"
    labels, _ = class_labels(
        classlabels_ints, classlabels_strings, op=op, ints_name="classlabels_ints"
    )
    machine = classifier_machine(
        len(labels),
        coefficients,
        kernel_params,
        kernel_type,
        rho,
        support_vectors,
        vectors_per_class,
    )
    scores = machine.sums(X, op) + machine.offsets
    if vectors_per_class:
        return svm_classification(scores, labels, post_transform, prob_a, prob_b)
    return linear_classification(scores, labels, machine.weights, post_transform)


def classifier_machine(
    classes: int,
    coefficients: Sequence[float] | None,
    kernel_params: Sequence[float] | None,
    kernel_type: str,
    rho: Sequence[float] | None,
    support_vectors: Sequence[float] | None,
    vectors_per_class: Sequence[int] | None,
) -> Machine:
    """The machine of a classifier's attributes: a score for each pair of classes, or each class."""
    op = "SVMClassifier"
    kernel = kernel_of(kernel_type, kernel_params, op)
    if not vectors_per_class:
        given = len(coefficients or ())
        if not given or given % classes:
            check_length(op, "coefficients", coefficients, classes * max(1, given // classes))
        check_length(op, "rho", rho, 1)
        weights = np.asarray(coefficients, np.float64).reshape(classes, -1).T
        return Machine(kernel, None, weights, np.repeat(np.asarray(rho, np.float64), classes))
    if classes < 2 or min(vectors_per_class) < 0:
        raise misfit(
            op,
            "the attribute 'vectors_per_class' needs two classes, and numbers of vectors",
            expected="at least two class labels, and numbers of 0 or more",
            got=f"{classes} label, {list(vectors_per_class)}",
            fix="correct the class labels or 'vectors_per_class'",
        )
    check_length(op, "vectors_per_class", vectors_per_class, classes)
    count = sum(vectors_per_class)
    vectors = as_vectors(support_vectors, count, op=op, told_by="vectors_per_class")
    check_length(op, "coefficients", coefficients, (classes - 1) * count)
    check_length(op, "rho", rho, classes * (classes - 1) // 2)
    dual = np.asarray(coefficients, np.float64).reshape(classes - 1, count)
    owner = np.repeat(np.arange(classes), vectors_per_class)
    # Row r of `dual` weighs a class's vectors against the r-th of the other classes.
    columns = [
        np.where(owner == i, dual[j - 1], 0) + np.where(owner == j, dual[i], 0)
        for i, j in combinations(range(classes), 2)
    ]
    return Machine(kernel, vectors, np.stack(columns, axis=1), np.asarray(rho, np.float64))


def svm_classification(
    scores: Array,
    labels: Array,
    post_transform: str,
    prob_a: Sequence[float] | None,
    prob_b: Sequence[float] | None,
) -> tuple[Array, Array]:
    """The classifier's outputs from the scores of its pairs of classes: (N, pairs)."""
    op = "SVMClassifier"
    change = transform(post_transform, op)
    best = chosen(labels, np.argmax(_votes(scores, len(labels)), axis=1))
    count = scores.shape[1]
    if prob_a or prob_b:
        check_length(op, "prob_a", prob_a, count)
        check_length(op, "prob_b", prob_b, count)
        scores = coupled(scores * np.asarray(prob_a) + np.asarray(prob_b), len(labels))
    elif count == 1:
        # As ONNX Runtime has it; PROBIT there is of memory that was never written.
        negative = -scores if post_transform in ("NONE", "LOGISTIC") else 1 - scores
        scores = np.concatenate([negative, scores], axis=1)
        if post_transform not in ("LOGISTIC", "PROBIT"):
            return best, scores.astype(np.float32)
    return best, change(scores).astype(np.float32)


def _votes(scores: Array, classes: int) -> Array:
    """How many of its pairs each class wins, less those that it loses: (N, classes)."""
    places = np.arange(classes)
    signs = [np.equal(places, i) * 1 - np.equal(places, j) for i, j in combinations(places, 2)]
    wins = np.where(np.greater(scores, 0), 1, -1)
    return np.sum(np.expand_dims(wins, 2) * np.array(signs), axis=1)


def linear_classification(
    scores: Array, labels: Array, weights: Array, post_transform: str
) -> tuple[Array, Array]:
    """The outputs of a classifier without support vectors, from a score for each class: (N, classes).

    Of two classes it is the second already where the larger score is positive, or 1/2 if no coefficient
    is negative: so does ONNX Runtime, where ONNX says nothing. A single score is not transformed.
    """
    change = transform(post_transform, "SVMClassifier")
    best = np.argmax(scores, axis=1)
    if scores.shape[1] == 2:
        top = np.max(scores, axis=1)
        second = np.greater_equal(top, 0.5) if weights.min() >= 0 else np.greater(top, 0)
        best = np.where(second, 1, best)
    changed = change(scores) if scores.shape[1] > 1 else scores
    return chosen(labels, best), changed.astype(np.float32)


IMPLEMENTATIONS: tuple[tuple[str, int, Callable[..., Any]], ...] = (
    ("SVMRegressor", 1, svm_regressor),
    ("SVMClassifier", 1, svm_classifier),
)
