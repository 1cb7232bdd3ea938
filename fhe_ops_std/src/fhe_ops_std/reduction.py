"""Reductions of the default ONNX domain in NumPy float.

Each reduction over axes has two interfaces: ``axes`` as an attribute, and, since opset 13
(ReduceSum) or 18 (the others), as an input. In both, no axes means all of them; in the second
``noop_with_empty_axes`` turns that into none of them, which NumPy writes as ``axis=()``: the
formula's other steps (square, logarithm...) are then still taken.

The result has the data's dtype. An empty reduction gives the formula's neutral element.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_ops_std._domains import Flag

Array = NDArray[Any]
Axes = tuple[int, ...] | None


def reduce_sum_1(data: Array, /, *, axes: Sequence[int] | None = None, keepdims: Flag = 1) -> Array:
    """ONNX ReduceSum-1 to -11: sum(x), over the attribute ``axes``."""
    return _sum(data, _attribute(axes), bool(keepdims))


def reduce_sum_13(
    data: Array, /, axes: Array | None = None, *, keepdims: Flag = 1, noop_with_empty_axes: Flag = 0
) -> Array:
    """ONNX ReduceSum-13: sum(x), over the input ``axes``."""
    return _sum(data, _input(axes, noop_with_empty_axes), bool(keepdims))


def reduce_mean_1(
    data: Array, /, *, axes: Sequence[int] | None = None, keepdims: Flag = 1
) -> Array:
    """ONNX ReduceMean-1 to -13: the mean (integers: truncated), over the attribute ``axes``."""
    return _mean(data, _attribute(axes), bool(keepdims))


def reduce_mean_18(
    data: Array, /, axes: Array | None = None, *, keepdims: Flag = 1, noop_with_empty_axes: Flag = 0
) -> Array:
    """ONNX ReduceMean-18: the mean (integers: truncated), over the input ``axes``."""
    return _mean(data, _input(axes, noop_with_empty_axes), bool(keepdims))


def reduce_max_1(data: Array, /, *, axes: Sequence[int] | None = None, keepdims: Flag = 1) -> Array:
    """ONNX ReduceMax-1 to -13: max(x), over the attribute ``axes``."""
    return _max(data, _attribute(axes), bool(keepdims))


def reduce_max_18(
    data: Array, /, axes: Array | None = None, *, keepdims: Flag = 1, noop_with_empty_axes: Flag = 0
) -> Array:
    """ONNX ReduceMax-20: max(x), over the input ``axes``."""
    return _max(data, _input(axes, noop_with_empty_axes), bool(keepdims))


def reduce_min_1(data: Array, /, *, axes: Sequence[int] | None = None, keepdims: Flag = 1) -> Array:
    """ONNX ReduceMin-1 to -13: min(x), over the attribute ``axes``."""
    return _min(data, _attribute(axes), bool(keepdims))


def reduce_min_18(
    data: Array, /, axes: Array | None = None, *, keepdims: Flag = 1, noop_with_empty_axes: Flag = 0
) -> Array:
    """ONNX ReduceMin-20: min(x), over the input ``axes``."""
    return _min(data, _input(axes, noop_with_empty_axes), bool(keepdims))


def reduce_prod_1(
    data: Array, /, *, axes: Sequence[int] | None = None, keepdims: Flag = 1
) -> Array:
    """ONNX ReduceProd-1 to -13: the product, over the attribute ``axes``."""
    return _prod(data, _attribute(axes), bool(keepdims))


def reduce_prod_18(
    data: Array, /, axes: Array | None = None, *, keepdims: Flag = 1, noop_with_empty_axes: Flag = 0
) -> Array:
    """ONNX ReduceProd-18: the product, over the input ``axes``."""
    return _prod(data, _input(axes, noop_with_empty_axes), bool(keepdims))


def reduce_l1_1(data: Array, /, *, axes: Sequence[int] | None = None, keepdims: Flag = 1) -> Array:
    """ONNX ReduceL1-1 to -13: sum(|x|), over the attribute ``axes``."""
    return _l1(data, _attribute(axes), bool(keepdims))


def reduce_l1_18(
    data: Array, /, axes: Array | None = None, *, keepdims: Flag = 1, noop_with_empty_axes: Flag = 0
) -> Array:
    """ONNX ReduceL1-18: sum(|x|), over the input ``axes``."""
    return _l1(data, _input(axes, noop_with_empty_axes), bool(keepdims))


def reduce_l2_1(data: Array, /, *, axes: Sequence[int] | None = None, keepdims: Flag = 1) -> Array:
    """ONNX ReduceL2-1 to -13: sqrt(sum(x²)), over the attribute ``axes``."""
    return _l2(data, _attribute(axes), bool(keepdims))


def reduce_l2_18(
    data: Array, /, axes: Array | None = None, *, keepdims: Flag = 1, noop_with_empty_axes: Flag = 0
) -> Array:
    """ONNX ReduceL2-18: sqrt(sum(x²)), over the input ``axes``."""
    return _l2(data, _input(axes, noop_with_empty_axes), bool(keepdims))


def reduce_sum_square_1(
    data: Array, /, *, axes: Sequence[int] | None = None, keepdims: Flag = 1
) -> Array:
    """ONNX ReduceSumSquare-1 to -13: sum(x²), over the attribute ``axes``."""
    return _sum_square(data, _attribute(axes), bool(keepdims))


def reduce_sum_square_18(
    data: Array, /, axes: Array | None = None, *, keepdims: Flag = 1, noop_with_empty_axes: Flag = 0
) -> Array:
    """ONNX ReduceSumSquare-18: sum(x²), over the input ``axes``."""
    return _sum_square(data, _input(axes, noop_with_empty_axes), bool(keepdims))


def reduce_log_sum_1(
    data: Array, /, *, axes: Sequence[int] | None = None, keepdims: Flag = 1
) -> Array:
    """ONNX ReduceLogSum-1 to -13: log(sum(x)), over the attribute ``axes``."""
    return _log_sum(data, _attribute(axes), bool(keepdims))


def reduce_log_sum_18(
    data: Array, /, axes: Array | None = None, *, keepdims: Flag = 1, noop_with_empty_axes: Flag = 0
) -> Array:
    """ONNX ReduceLogSum-28: log(sum(x)), over the input ``axes``."""
    return _log_sum(data, _input(axes, noop_with_empty_axes), bool(keepdims))


def reduce_log_sum_exp_1(
    data: Array, /, *, axes: Sequence[int] | None = None, keepdims: Flag = 1
) -> Array:
    """ONNX ReduceLogSumExp-1 to -13: log(sum(exp(x))), over the attribute ``axes``."""
    return _log_sum_exp(data, _attribute(axes), bool(keepdims))


def reduce_log_sum_exp_18(
    data: Array, /, axes: Array | None = None, *, keepdims: Flag = 1, noop_with_empty_axes: Flag = 0
) -> Array:
    """ONNX ReduceLogSumExp-28: log(sum(exp(x))), over the input ``axes``."""
    return _log_sum_exp(data, _input(axes, noop_with_empty_axes), bool(keepdims))


def arg_max_1(data: Array, /, *, axis: int = 0, keepdims: Flag = 1) -> Array:
    """ONNX ArgMax-1 and -11: the index (int64) of the first maximum along ``axis``."""
    return np.argmax(data, axis=axis, keepdims=bool(keepdims))


def arg_max_12(
    data: Array, /, *, axis: int = 0, keepdims: Flag = 1, select_last_index: Flag = 0
) -> Array:
    """ONNX ArgMax-13: the index (int64) of the first, or last, maximum along ``axis``."""
    if not select_last_index:
        return np.argmax(data, axis=axis, keepdims=bool(keepdims))
    from_the_end = np.argmax(np.flip(data, axis), axis=axis, keepdims=bool(keepdims))
    return data.shape[axis] - 1 - from_the_end


def arg_min_1(data: Array, /, *, axis: int = 0, keepdims: Flag = 1) -> Array:
    """ONNX ArgMin-1 and -11: the index (int64) of the first minimum along ``axis``."""
    return np.argmin(data, axis=axis, keepdims=bool(keepdims))


def arg_min_12(
    data: Array, /, *, axis: int = 0, keepdims: Flag = 1, select_last_index: Flag = 0
) -> Array:
    """ONNX ArgMin-13: the index (int64) of the first, or last, minimum along ``axis``."""
    if not select_last_index:
        return np.argmin(data, axis=axis, keepdims=bool(keepdims))
    from_the_end = np.argmin(np.flip(data, axis), axis=axis, keepdims=bool(keepdims))
    return data.shape[axis] - 1 - from_the_end


# --- the formulas, once for both interfaces ---


def _attribute(axes: Sequence[int] | None) -> Axes:
    return tuple(axes) if axes else None


def _input(axes: Array | None, noop_with_empty_axes: int) -> Axes:
    if axes is None or axes.size == 0:
        return () if noop_with_empty_axes else None
    return tuple(int(axis) for axis in axes.ravel())


def _sum(data: Array, axes: Axes, keepdims: bool) -> Array:
    # dtype: by itself NumPy widens small integers, and adds float16 up in float16.
    accumulator = np.dtype(np.float32) if data.dtype == np.float16 else data.dtype
    return _as(data.dtype, np.sum(data, axis=axes, keepdims=keepdims, dtype=accumulator))


def _mean(data: Array, axes: Axes, keepdims: bool) -> Array:
    if data.size == 0:  # ONNX leaves it undefined; np.mean would warn
        total = _sum(data, axes, keepdims)
        return total if _is_integer(data) else np.full_like(total, np.nan)
    return _as(data.dtype, np.mean(data, axis=axes, keepdims=keepdims))


def _max(data: Array, axes: Axes, keepdims: bool) -> Array:
    if data.size == 0:
        return np.max(data, axis=axes, keepdims=keepdims, initial=_limits(data.dtype)[0])
    return np.max(data, axis=axes, keepdims=keepdims)


def _min(data: Array, axes: Axes, keepdims: bool) -> Array:
    if data.size == 0:
        return np.min(data, axis=axes, keepdims=keepdims, initial=_limits(data.dtype)[1])
    return np.min(data, axis=axes, keepdims=keepdims)


def _prod(data: Array, axes: Axes, keepdims: bool) -> Array:
    return np.prod(data, axis=axes, keepdims=keepdims, dtype=data.dtype)


def _l1(data: Array, axes: Axes, keepdims: bool) -> Array:
    return _sum(np.abs(data), axes, keepdims)


def _l2(data: Array, axes: Axes, keepdims: bool) -> Array:
    return _as(data.dtype, np.sqrt(_sum_square(data, axes, keepdims)))


def _sum_square(data: Array, axes: Axes, keepdims: bool) -> Array:
    return _sum(np.square(data), axes, keepdims)


def _log_sum(data: Array, axes: Axes, keepdims: bool) -> Array:
    return _as(data.dtype, np.log(_sum(data, axes, keepdims)))


def _log_sum_exp(data: Array, axes: Axes, keepdims: bool) -> Array:
    x = data.astype(np.float64) if _is_integer(data) else data
    # log(sum(exp(x - top))) + top is the same for every finite top; the maximum keeps exp <= 1.
    top = _max(x, axes, True)
    top = np.where(np.isfinite(top), top, x.dtype.type(0))
    powers = np.exp(x - top)
    total = np.log(np.sum(powers, axis=axes, keepdims=True)) + top
    if not keepdims:
        total = np.sum(total, axis=axes)  # of one number each: drops the reduced axes
    return _as(data.dtype, total)


def _limits(dtype: np.dtype[Any]) -> tuple[Any, Any]:
    if dtype.kind == "b":
        return False, True
    if dtype.kind in "iu":
        return np.iinfo(dtype).min, np.iinfo(dtype).max
    return -np.inf, np.inf


def _is_integer(data: Array) -> bool:
    return data.dtype.kind in "iu"


def _as(dtype: np.dtype[Any], result: Array) -> Array:
    return result if result.dtype == dtype else result.astype(dtype)


IMPLEMENTATIONS: tuple[tuple[str, int, Callable[..., Any]], ...] = (
    ("ReduceSum", 1, reduce_sum_1),
    ("ReduceSum", 13, reduce_sum_13),
    ("ReduceMean", 1, reduce_mean_1),
    ("ReduceMean", 18, reduce_mean_18),
    ("ReduceMax", 1, reduce_max_1),
    ("ReduceMax", 18, reduce_max_18),
    ("ReduceMin", 1, reduce_min_1),
    ("ReduceMin", 18, reduce_min_18),
    ("ReduceProd", 1, reduce_prod_1),
    ("ReduceProd", 18, reduce_prod_18),
    ("ReduceL1", 1, reduce_l1_1),
    ("ReduceL1", 18, reduce_l1_18),
    ("ReduceL2", 1, reduce_l2_1),
    ("ReduceL2", 18, reduce_l2_18),
    ("ReduceSumSquare", 1, reduce_sum_square_1),
    ("ReduceSumSquare", 18, reduce_sum_square_18),
    ("ReduceLogSum", 1, reduce_log_sum_1),
    ("ReduceLogSum", 18, reduce_log_sum_18),
    ("ReduceLogSumExp", 1, reduce_log_sum_exp_1),
    ("ReduceLogSumExp", 18, reduce_log_sum_exp_18),
    ("ArgMax", 1, arg_max_1),
    ("ArgMax", 12, arg_max_12),
    ("ArgMin", 1, arg_min_1),
    ("ArgMin", 12, arg_min_12),
)
