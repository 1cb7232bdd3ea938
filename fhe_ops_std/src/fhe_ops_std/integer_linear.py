"""Matrix products and convolutions of integers of 8 bits, exact: sums of 32 bits, or requantized.

Sums are made of floats, which BLAS multiplies much faster: of single precision while every sum of
products stays below 2²⁴, of double precision beyond that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_ops_std._domains import AutoPad

from ._precision import precise
from .linear import conv
from .quantizing import saturated

Array = NDArray[Any]

# A number of 8 bits less its zero point, so that 258 products add up below 2²⁴.
_LARGEST = 255


def mat_mul_integer(
    a: Array,
    b: Array,
    /,
    a_zero_point: Array | None = None,
    b_zero_point: Array | None = None,
) -> Array:
    """(a - a_zero_point)·(b - b_zero_point) in int32; one zero point, or one for each row of a and
    for each column of b."""
    return _wrapped(_product(a, a_zero_point, b, b_zero_point))


def q_linear_mat_mul(
    a: Array,
    a_scale: Array,
    a_zero_point: Array,
    b: Array,
    b_scale: Array,
    b_zero_point: Array,
    y_scale: Array,
    y_zero_point: Array,
    /,
) -> Array:
    """The product of what a and b stand for, quantized to the type of ``y_zero_point``; scales and
    zero points as in `mat_mul_integer`, those of y one, or one for each row."""
    y = _product(a, a_zero_point, b, b_zero_point)
    scale = precise(by_row(a_scale, a)) * precise(b_scale) / precise(by_row(y_scale, a))
    zero_point = by_row(y_zero_point, a)
    return saturated(y.astype(np.float64) * scale, zero_point, y_zero_point.dtype)


def conv_integer(
    x: Array,
    w: Array,
    /,
    x_zero_point: Array | None = None,
    w_zero_point: Array | None = None,
    *,
    auto_pad: AutoPad = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """Conv of x - x_zero_point and w - w_zero_point in int32; w: (M, C/group, ...) has one zero
    point, or M. Padding is the zero point."""
    dtype = _sums(w.size // max(len(w), 1))
    return _wrapped(
        conv(
            _shifted(x, x_zero_point, dtype),
            _shifted(w, by_map(w_zero_point, w), dtype),
            auto_pad=auto_pad,
            dilations=dilations,
            group=group,
            kernel_shape=kernel_shape,
            pads=pads,
            strides=strides,
        )
    )


def q_linear_conv(
    x: Array,
    x_scale: Array,
    x_zero_point: Array,
    w: Array,
    w_scale: Array,
    w_zero_point: Array,
    y_scale: Array,
    y_zero_point: Array,
    /,
    b: Array | None = None,
    *,
    auto_pad: AutoPad = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """Conv of what x and w stand for, quantized to the type of ``y_zero_point``.

    w: (M, C/group, ...) has one scale and zero point, or M; b: (M,) int32 has the scale
    x_scale·w_scale.
    """
    y = conv_integer(
        x,
        w,
        x_zero_point,
        w_zero_point,
        auto_pad=auto_pad,
        dilations=dilations,
        group=group,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
    )
    trailing = (1,) * (x.ndim - 2)
    if b is not None:
        y += b.reshape(-1, *trailing)
    scale = x_scale * w_scale.reshape(-1, *trailing) / y_scale
    return saturated(y.astype(np.float64) * scale, y_zero_point, y_zero_point.dtype)


def _product(a: Array, a_zero_point: Array | None, b: Array, b_zero_point: Array | None) -> Array:
    dtype = _sums(a.shape[-1])
    rows = None if a_zero_point is None else by_row(a_zero_point, a)
    return np.asarray(
        np.matmul(_shifted(a, rows, dtype), _shifted(b, b_zero_point, dtype)), dtype=dtype
    )


def _sums(terms: int) -> type[np.float32] | type[np.float64]:
    return np.float32 if terms * _LARGEST**2 < 2**24 else np.float64


def _shifted(x: Array, zero_point: Array | None, dtype: Any) -> Array:
    y = x.astype(dtype)
    if zero_point is not None:
        y -= zero_point.astype(dtype)
    return y


def by_row(values: Array, a: Any) -> Array:
    """One value, or one for each row of a, as they broadcast to a."""
    return values[:, None] if values.ndim == 1 and values.size > 1 and len(a.shape) > 1 else values


def by_map(values: Array | None, w: Array) -> Array | None:
    """One value, or one for each of w's M maps, as they broadcast to w."""
    return None if values is None else values.reshape(-1, *(1,) * (w.ndim - 1))


def _wrapped(sums: Array) -> Array:
    """Whole numbers in int32, where they may overflow."""
    return sums.astype(np.int64).astype(np.int32)


IMPLEMENTATIONS: tuple[tuple[str, int, Callable[..., Any]], ...] = (
    ("MatMulInteger", 10, mat_mul_integer),
    ("QLinearMatMul", 10, q_linear_mat_mul),
    ("ConvInteger", 10, conv_integer),
    ("QLinearConv", 10, q_linear_conv),
)
