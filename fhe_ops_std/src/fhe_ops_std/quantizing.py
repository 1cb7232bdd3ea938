"""Numbers to and from few bits: quantization with a scale and a zero point.

A scale, and the zero point of the same shape, counts for the whole tensor (a scalar), for each
index on one axis (a vector), or for each block of indices there (a tensor of x's rank).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from fhe_ops_std._domains import Flag

from ._axes import counted
from ._interfaces import older
from ._precision import precise, rounded
from ._types import dtype_numbered

Array = NDArray[Any]


def quantize_linear_23(
    x: Array,
    y_scale: Array,
    /,
    y_zero_point: Array | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    precision: int = 0,
    saturate: Flag = 1,
) -> Array:
    """round(x / y_scale) + y_zero_point, halves to even, clipped to the type's range.

    The result has the zero point's type, else ``output_dtype``, else uint8. The quotient is one of
    y_scale's type, or of ``precision``. Unless ``saturate``, what a float of 8 bits cannot hold
    becomes infinite, or NaN where the type has no infinity.
    """
    dtype = np.dtype(np.uint8) if y_zero_point is None else y_zero_point.dtype
    if output_dtype and y_zero_point is None:
        dtype = dtype_numbered(output_dtype)
    elif output_dtype and dtype != dtype_numbered(output_dtype):
        raise ValueError(f"output_dtype is {output_dtype}, but the zero point has type {dtype}")
    if precision:
        divided = dtype_numbered(precision)
    elif y_scale.dtype.kind == "i":
        divided = np.dtype(np.float64)  # holds every quotient of int32 closely enough to round
    else:
        # A power of two (float8e8m0) is no type for quotients.
        divided = (x if y_scale.dtype.name.startswith("float8") else y_scale).dtype
    scale = spread(y_scale, x.shape, axis, block_size)
    quotient = precise(rounded(x, divided)) / precise(rounded(scale, divided))
    quotient = precise(rounded(quotient, divided))
    zero_point = None
    if y_zero_point is not None:
        zero_point = spread(y_zero_point, x.shape, axis, block_size)
    return saturated(quotient, zero_point, dtype, saturate=bool(saturate))


def dequantize_linear_23(
    x: Array,
    x_scale: Array,
    /,
    x_zero_point: Array | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
) -> Array:
    """(x - x_zero_point)·x_scale in the scale's type, or in ``output_dtype``."""
    dtype = dtype_numbered(output_dtype) if output_dtype else x_scale.dtype
    if dtype.name.startswith("float8"):
        raise ValueError("with a scale of powers of two, output_dtype has to be given")
    y = x.astype(np.float32)
    if x_zero_point is not None:
        if x_zero_point.dtype != x.dtype:
            raise ValueError(f"x has type {x.dtype}, its zero point {x_zero_point.dtype}")
        y -= spread(x_zero_point, x.shape, axis, block_size).astype(np.float32)
    return rounded(y * precise(spread(x_scale, x.shape, axis, block_size)), dtype)


def dynamic_quantize_linear(x: Array, /) -> tuple[Array, Array, Array]:
    """x in 8 bits that cover its range and 0, then the scale and the zero point."""
    low = np.min(x, initial=np.float32(0))
    high = np.max(x, initial=np.float32(0))
    scale = np.float32((high - low if high > low else 1) / np.float32(255))
    zero_point = np.rint(np.clip(-low / scale, 0, 255)).astype(np.uint8)
    y = saturated(x / scale, zero_point, zero_point.dtype)
    return y, np.asarray(scale), np.asarray(zero_point)


def saturated(
    quotient: Array, zero_point: Array | None, dtype: np.dtype[Any], *, saturate: bool = True
) -> Array:
    """The quotient rounded to ``dtype`` with the zero point added; ``saturate``: see above.

    For an integer dtype the quotient is overwritten.
    """
    if dtype.kind in "iu" or "int" in dtype.name:
        y = np.asarray(quotient)
        np.rint(y, out=y)
        if zero_point is not None:
            y += zero_point.astype(y.dtype)
        limits = ml_dtypes.iinfo(dtype)
        np.clip(y, limits.min, limits.max, out=y)
        if dtype.kind in "iu" and dtype.itemsize < 4:
            return y.astype(dtype)
        # The narrow types of ml_dtypes convert from integers, not from every float, and 2³¹ - 1 is
        # no float.
        return y.astype(np.int64).astype(dtype)
    if zero_point is not None:
        quotient = quotient + precise(zero_point)
    # Floats of 4 and 6 bits have neither infinity nor NaN to become.
    if saturate or not dtype.name.startswith("float8"):
        largest = float(ml_dtypes.finfo(dtype).max)
        quotient = np.clip(quotient, -largest, largest)
    return rounded(quotient, dtype)


def spread(values: Array, shape: tuple[int, ...], axis: int, block_size: int) -> Array:
    """Scales or zero points as they broadcast to a tensor of this shape."""
    if values.ndim == 0 or (values.size == 1 and values.ndim == 1):
        return values.reshape(())
    axis = counted(axis, len(shape)) if len(shape) > 1 else 0  # which a vector does not need
    if block_size == 0 and values.shape == (shape[axis],):
        return values.reshape(-1, *(1,) * (len(shape) - axis - 1))
    blocks = (*shape[:axis], -(-shape[axis] // max(block_size, 1)), *shape[axis + 1 :])
    if block_size <= 0 or values.shape != blocks:
        raise ValueError(
            f"scale or zero point of shape {values.shape} does not fit x: {shape} "
            f"on axis {axis} with block_size {block_size}"
        )
    cut = (slice(None),) * axis
    return np.repeat(values, block_size, axis)[(*cut, slice(shape[axis]))]


# Opset 28's element types are the only news since opset 23.
_quantize_21 = older(quantize_linear_23, "precision")
_quantize_19 = older(_quantize_21, "block_size", "output_dtype")
_quantize_13 = older(_quantize_19, "saturate")
_dequantize_21 = older(dequantize_linear_23, "output_dtype")
_dequantize_13 = older(_dequantize_21, "block_size")

IMPLEMENTATIONS: tuple[tuple[str, int, Callable[..., Any]], ...] = (
    ("QuantizeLinear", 10, older(_quantize_13, "axis")),
    ("QuantizeLinear", 13, _quantize_13),
    ("QuantizeLinear", 19, _quantize_19),
    ("QuantizeLinear", 21, _quantize_21),
    ("QuantizeLinear", 23, quantize_linear_23),
    ("DequantizeLinear", 10, older(_dequantize_13, "axis")),
    ("DequantizeLinear", 13, _dequantize_13),
    ("DequantizeLinear", 21, _dequantize_21),
    ("DequantizeLinear", 23, dequantize_linear_23),
    ("DynamicQuantizeLinear", 11, dynamic_quantize_linear),
)
