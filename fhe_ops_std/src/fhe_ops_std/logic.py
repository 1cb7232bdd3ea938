"""Comparison, Boolean logic and selection of the default ONNX domain in NumPy, broadcasting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_ops_std._domains import Flag

from ._broadcasting import limited

Array = NDArray[Any]


def equal(a: Array, b: Array, /) -> Array:
    """ONNX Equal-19: a == b."""
    return np.equal(a, b)


def greater(a: Array, b: Array, /) -> Array:
    """ONNX Greater-13: a > b."""
    return np.greater(a, b)


def greater_or_equal(a: Array, b: Array, /) -> Array:
    """ONNX GreaterOrEqual-16: a >= b."""
    return np.greater_equal(a, b)


def less(a: Array, b: Array, /) -> Array:
    """ONNX Less-13: a < b."""
    return np.less(a, b)


def less_or_equal(a: Array, b: Array, /) -> Array:
    """ONNX LessOrEqual-16: a <= b."""
    return np.less_equal(a, b)


def and_(a: Array, b: Array, /) -> Array:
    """ONNX And-7: whether both are true."""
    return np.logical_and(a, b)


def or_(a: Array, b: Array, /) -> Array:
    """ONNX Or-7: whether one or both are true."""
    return np.logical_or(a, b)


def xor(a: Array, b: Array, /) -> Array:
    """ONNX Xor-7: whether exactly one is true."""
    return np.logical_xor(a, b)


def not_(x: Array, /) -> Array:
    """ONNX Not-1: whether x is false."""
    return np.logical_not(x)


def where(condition: Array, x: Array, y: Array, /) -> Array:
    """ONNX Where-16: x where the condition is true, y elsewhere."""
    return np.where(condition, x, y)


def is_nan(x: Array, /) -> Array:
    """ONNX IsNaN-20: whether x is not a number."""
    return np.isnan(x)


def is_inf(x: Array, /, *, detect_negative: Flag = 1, detect_positive: Flag = 1) -> Array:
    """ONNX IsInf-20: whether x is infinite, of the signs asked for."""
    if detect_negative and detect_positive:
        return np.isinf(x)
    if detect_negative:
        return np.equal(x, -np.inf)
    return np.equal(x, np.inf) if detect_positive else np.zeros_like(x, dtype=bool)


IMPLEMENTATIONS: tuple[tuple[str, int, Callable[..., Any]], ...] = (
    ("Equal", 1, limited(equal, "Equal-1")),
    ("Greater", 1, limited(greater, "Greater-1")),
    ("Less", 1, limited(less, "Less-1")),
    ("And", 1, limited(and_, "And-1")),
    ("Or", 1, limited(or_, "Or-1")),
    ("Xor", 1, limited(xor, "Xor-1")),
    ("Equal", 7, equal),
    ("Greater", 7, greater),
    ("GreaterOrEqual", 12, greater_or_equal),
    ("Less", 7, less),
    ("LessOrEqual", 12, less_or_equal),
    ("And", 7, and_),
    ("Or", 7, or_),
    ("Xor", 7, xor),
    ("Not", 1, not_),
    ("Where", 9, where),
    ("IsNaN", 9, is_nan),
    ("IsInf", 10, is_inf),
)
