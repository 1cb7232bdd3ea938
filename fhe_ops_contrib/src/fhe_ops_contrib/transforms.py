"""What classifiers and regressors may do to their scores: the attribute ``post_transform``.

Whole-array functions only: they run after decryption, where the compiler traces them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fhe_ops_contrib._checks import Array, misfit


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


def transform(name: str, op: str) -> Callable[[Array], Array]:
    """The transform that ``post_transform`` names: (N, classes) to the same, row by row.

    Raises:
        ModelError: there is none of that name.
    """
    if name not in _TRANSFORMS:
        raise misfit(
            op,
            "the attribute 'post_transform' names no transform",
            expected=", ".join(_TRANSFORMS),
            got=repr(name),
            fix="correct 'post_transform'",
        )
    return _TRANSFORMS[name]
