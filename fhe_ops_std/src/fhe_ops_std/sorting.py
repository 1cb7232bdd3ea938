"""Sorting: the largest or smallest elements, and the distinct ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_ops_std._domains import Flag

from ._precision import precise
from .layout import ints

Array = NDArray[Any]


def top_k_1(x: Array, /, *, axis: int = -1, k: int) -> tuple[Array, Array]:
    """ONNX TopK-1: the ``k`` largest elements along ``axis`` in descending order, and their int64
    indices. Of equal elements the one with the lower index comes first."""
    return _top(x, k, axis, largest=1)


def top_k_10(x: Array, k: Array, /, *, axis: int = -1) -> tuple[Array, Array]:
    """ONNX TopK-10: `top_k_1`, k being an input of one element."""
    return top_k_11(x, k, axis=axis)


def top_k_11(
    x: Array, k: Array, /, *, axis: int = -1, largest: Flag = 1, sorted: Flag = 1
) -> tuple[Array, Array]:
    """ONNX TopK-24: `top_k_10`, or the smallest elements in ascending order.

    The order is open where ``sorted`` is 0; here it is the same.
    """
    (count,) = ints(k)
    return _top(x, count, axis, largest)


def _top(x: Array, k: int, axis: int, largest: int) -> tuple[Array, Array]:
    size = x.shape[axis]
    if not 0 <= k <= size:
        raise ValueError(f"k is {k}, and the axis has {size} elements")
    if largest:
        # Ascending and from the back, which keeps the lower index first once turned around. The
        # negated elements would do for floats alone: unsigned integers and the least one wrap.
        backward = np.argsort(np.flip(x, axis), axis=axis, kind="stable")
        order = size - 1 - np.flip(backward, axis)
    else:
        order = np.argsort(x, axis=axis, kind="stable")
    indices = np.take(order, np.arange(k), axis=axis)
    return np.take_along_axis(x, indices, axis), indices.astype(np.int64, copy=False)


def unique(
    x: Array, /, *, axis: int | None = None, sorted: Flag = 1
) -> tuple[Array, Array, Array, Array]:
    """ONNX Unique-28: the distinct elements of x, or the distinct slices along ``axis``.

    In ascending order, or with ``sorted`` 0 in that of their first occurrence; the index of that
    occurrence; for each element or slice of x its index in the result; and how often each occurs:
    the last three 1-D, int64.
    """
    comparable = x if x.dtype.kind != "V" else precise(x)  # bfloat16 holds no more than float32
    y, first, inverse, counts = np.unique(
        comparable, return_index=True, return_inverse=True, return_counts=True, axis=axis
    )
    inverse = inverse.reshape(-1)  # NumPy 2.0 gives it the shape of x
    if not sorted:
        order = np.argsort(first)
        place = np.empty_like(order)
        place[order] = np.arange(order.size)
        y = np.take(y, order, axis=0 if axis is None else axis)
        first, inverse, counts = first[order], place[inverse], counts[order]
    numbers = (places.astype(np.int64, copy=False) for places in (first, inverse, counts))
    return (y.astype(x.dtype, copy=False), *numbers)  # type: ignore[return-value]


IMPLEMENTATIONS: tuple[tuple[str, int, Callable[..., Any]], ...] = (
    ("TopK", 1, top_k_1),
    ("TopK", 10, top_k_10),
    ("TopK", 11, top_k_11),
    ("Unique", 11, unique),
)
