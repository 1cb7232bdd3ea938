"""Linear models in NumPy float: scores = X @ coefficients + intercepts, transformed, and labelled.

What comes after the matrix product is in functions of its own (``regression``, ``classification``):
the quantized forms call them on decrypted scores. Whole-array functions only, so that the compiler
can trace them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fhe_ops_contrib._checks import Array, as_matrix, misfit, real
from fhe_ops_contrib._domains import Flag, PostTransform
from fhe_ops_contrib.labels import chosen, class_labels
from fhe_ops_contrib.transforms import transform


def linear_regressor(
    x: Array,
    /,
    *,
    coefficients: Sequence[float] | None = None,
    intercepts: Sequence[float] | None = None,
    post_transform: PostTransform = "NONE",
    targets: int = 1,
) -> Array:
    """x @ coefficients + intercepts, transformed: (N, F) or (F,) to (N, targets), float32.

    Raises:
        ModelError: attributes whose lengths contradict each other or x; an unknown transform.
    """
    rows = as_matrix(x, "LinearRegressor")
    weights = regressor_weights(rows.shape[1], coefficients, targets)
    scores = rows.astype(real(x)) @ weights.astype(real(x))
    return regression(scores, intercepts, post_transform)


def linear_classifier(
    x: Array,
    /,
    *,
    classlabels_ints: Sequence[int] | None = None,
    classlabels_strings: Sequence[str] | None = None,
    coefficients: Sequence[float],
    intercepts: Sequence[float] | None = None,
    multi_class: Flag = 0,
    post_transform: PostTransform = "NONE",
) -> tuple[Array, Array]:
    """The label of the largest of the scores x @ coefficients + intercepts, and these transformed:
    (N, F) or (F,) to (N,) and (N, classes), float32.

    With one row of coefficients for two labels the second label is that of positive scores, and the
    scores are a pair: see ``classification``. ``multi_class`` says how the model was trained, and
    changes nothing, as in ONNX Runtime.

    Raises:
        ModelError: attributes whose lengths contradict each other or x; an unknown transform.
    """
    rows = as_matrix(x, "LinearClassifier")
    weights = classifier_weights(rows.shape[1], coefficients)
    scores = rows.astype(real(x)) @ weights.astype(real(x))
    return classification(scores, intercepts, classlabels_ints, classlabels_strings, post_transform)


# -- the attributes


def regressor_weights(features: int, coefficients: Sequence[float] | None, targets: int) -> Array:
    """The coefficients as (features, targets), float64; those of a target are contiguous."""
    given = 0 if coefficients is None else len(coefficients)
    if targets < 1 or given != features * targets:
        raise misfit(
            "LinearRegressor",
            "the attribute 'coefficients' does not fit the input and the attribute 'targets'",
            expected=f"{features} for each of at least one target",
            got=f"{given} for {targets}",
            fix="correct 'coefficients' or 'targets'",
        )
    return np.asarray(coefficients, np.float64).reshape(targets, features).T


def classifier_weights(features: int, coefficients: Sequence[float]) -> Array:
    """The coefficients as (features, classes), float64; those of a class are contiguous."""
    given = len(coefficients)
    if not given or not features or given % features:
        raise misfit(
            "LinearClassifier",
            "the attribute 'coefficients' does not fit the input",
            expected=f"a multiple of its {features} features",
            got=f"{given}",
            fix="correct 'coefficients'",
        )
    return np.asarray(coefficients, np.float64).reshape(-1, features).T


def _shifted(scores: Array, intercepts: Sequence[float] | None, op: str) -> Array:
    """``scores`` with an intercept added to each column."""
    if not intercepts:
        return scores
    if len(intercepts) != scores.shape[1]:
        raise misfit(
            op,
            "the attribute 'intercepts' does not fit the coefficients",
            expected=f"{scores.shape[1]}, one for each row of coefficients",
            got=f"{len(intercepts)}",
            fix="correct 'intercepts' or 'coefficients'",
        )
    return scores + np.asarray(intercepts, scores.dtype)


def _labels(ints: Sequence[int] | None, strings: Sequence[str] | None, rows: int) -> Array:
    """The class labels as int64 or text, one for each row of coefficients, or two for one row."""
    op = "LinearClassifier"
    labels, attribute = class_labels(ints, strings, op=op, ints_name="classlabels_ints")
    if len(labels) != max(rows, 2):
        raise misfit(
            op,
            f"the attribute {attribute!r} does not fit the coefficients",
            expected=f"{max(rows, 2)} labels",
            got=f"{len(labels)} labels for {rows} row{'s' * (rows != 1)} of coefficients",
            fix=f"correct {attribute!r} or 'coefficients'",
        )
    return labels


# -- after the matrix product


def regression(scores: Array, intercepts: Sequence[float] | None, post_transform: str) -> Array:
    """The regressor's output from scores without intercepts: (N, targets).

    A single target is changed by no transform but PROBIT: so does ONNX Runtime, the only
    implementation to compare with, and ONNX speaks of a vector.
    """
    op = "LinearRegressor"
    change = transform(post_transform, op)
    scores = _shifted(scores, intercepts, op)
    if scores.shape[1] > 1 or post_transform == "PROBIT":
        scores = change(scores)
    return scores.astype(np.float32)


def classification(
    scores: Array,
    intercepts: Sequence[float] | None,
    classlabels_ints: Sequence[int] | None,
    classlabels_strings: Sequence[str] | None,
    post_transform: str,
) -> tuple[Array, Array]:
    """The classifier's outputs from scores without intercepts: (N, rows of coefficients).

    From a single score s ONNX Runtime makes the pair (1 - s, s) and transforms it no further; for
    LOGISTIC, the logistic of (-s, s). For PROBIT it returns memory that it never wrote: that is the
    probit of (1 - s, s) here.
    """
    op = "LinearClassifier"
    change = transform(post_transform, op)
    scores = _shifted(scores, intercepts, op)
    labels = _labels(classlabels_ints, classlabels_strings, scores.shape[1])
    if scores.shape[1] > 1:
        best = np.argmax(scores, axis=1)
        scores = change(scores)
    else:
        best = np.greater(scores[:, 0], 0)
        negative = -scores if post_transform == "LOGISTIC" else 1 - scores
        scores = np.concatenate([negative, scores], axis=1)
        if post_transform in ("LOGISTIC", "PROBIT"):
            scores = change(scores)
    return chosen(labels, best), scores.astype(np.float32)


IMPLEMENTATIONS: tuple[tuple[str, int, Callable[..., Any]], ...] = (
    ("LinearRegressor", 1, linear_regressor),
    ("LinearClassifier", 1, linear_classifier),
)
