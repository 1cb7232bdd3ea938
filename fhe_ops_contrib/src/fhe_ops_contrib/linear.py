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


def linear_regressor(
    x: Array,
    /,
    *,
    coefficients: Sequence[float] | None = None,
    intercepts: Sequence[float] | None = None,
    post_transform: str = "NONE",
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
    multi_class: int = 0,
    post_transform: str = "NONE",
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
    if bool(ints) == bool(strings):
        raise misfit(
            op,
            "the class labels are not in one attribute",
            expected="either 'classlabels_ints' or 'classlabels_strings'",
            got="both" if ints else "neither",
            fix="set one and leave the other out",
        )
    attribute = "classlabels_ints" if ints else "classlabels_strings"
    labels = np.asarray(ints, np.int64) if ints else np.asarray(strings, np.str_)
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
    transform = _transform(post_transform, op)
    scores = _shifted(scores, intercepts, op)
    if scores.shape[1] > 1 or post_transform == "PROBIT":
        scores = transform(scores)
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
    transform = _transform(post_transform, op)
    scores = _shifted(scores, intercepts, op)
    labels = _labels(classlabels_ints, classlabels_strings, scores.shape[1])
    if scores.shape[1] > 1:
        best = np.argmax(scores, axis=1)
        scores = transform(scores)
    else:
        best = np.greater(scores[:, 0], 0)
        negative = -scores if post_transform == "LOGISTIC" else 1 - scores
        scores = np.concatenate([negative, scores], axis=1)
        if post_transform in ("LOGISTIC", "PROBIT"):
            scores = transform(scores)
    return _chosen(labels, best), scores.astype(np.float32)


def _chosen(labels: Array, best: Array) -> Array:
    """labels[best]; text as objects, as ONNX's string tensors are here.

    One ``where`` a label, and not ``take``: the places may be computed from encrypted scores.
    """
    chosen = labels[:1]
    for place in range(1, len(labels)):
        chosen = np.where(np.equal(best, place), labels[place : place + 1], chosen)
    return chosen if labels.dtype.kind == "i" else chosen.astype(object)


# -- transforms of (N, classes), row by row


def _none(scores: Array) -> Array:
    return scores


def _logistic(scores: Array) -> Array:
    """1 / (1 + e^-s), without overflow on either side."""
    return np.exp(np.minimum(scores, 0)) / (1 + np.exp(-np.abs(scores)))


def _softmax(scores: Array) -> Array:
    powers = np.exp(scores - np.max(scores, axis=1, keepdims=True))
    return powers / np.sum(powers, axis=1, keepdims=True)


def _softmax_zero(scores: Array) -> Array:
    """Softmax over the scores that are not 0 (to 1e-7); 0 stays 0."""
    top = np.max(scores, axis=1, keepdims=True)
    # Where a score is 0 the largest is not negative: then the bound changes nothing.
    zero = scores * np.exp(-np.maximum(top, 0))
    powers = np.where(np.less_equal(np.abs(scores), 1e-7), zero, np.exp(scores - top))
    total = np.sum(powers, axis=1, keepdims=True)
    return powers / np.where(np.equal(total, 0), 1, total)


def _probit(scores: Array) -> Array:
    """The normal distribution's quantile √2·erf⁻¹(2s - 1): NaN outside of [0, 1].

    ONNX Runtime and ONNX's reference compute erf⁻¹ by Winitzki's approximation (2008, a = 0.147),
    good to 2e-3; so it is the op's definition in practice.
    """
    x = 2 * scores - 1
    log = np.log((1 - x) * (1 + x))
    v = 2 / (np.pi * 0.147) + log / 2
    # At 1/2 the difference is 0, but for rounding.
    size = np.sqrt(np.maximum(np.sqrt(v * v - log / 0.147) - v, 0))
    return np.sqrt(2) * np.where(np.less(x, 0), -size, size)


_TRANSFORMS: dict[str, Callable[[Array], Array]] = {
    "NONE": _none,
    "SOFTMAX": _softmax,
    "LOGISTIC": _logistic,
    "SOFTMAX_ZERO": _softmax_zero,
    "PROBIT": _probit,
}


def _transform(name: str, op: str) -> Callable[[Array], Array]:
    if name not in _TRANSFORMS:
        raise misfit(
            op,
            "the attribute 'post_transform' names no transform",
            expected=", ".join(_TRANSFORMS),
            got=repr(name),
            fix="correct 'post_transform'",
        )
    return _TRANSFORMS[name]


IMPLEMENTATIONS: tuple[tuple[str, int, Callable[..., Any]], ...] = (
    ("LinearRegressor", 1, linear_regressor),
    ("LinearClassifier", 1, linear_classifier),
)
