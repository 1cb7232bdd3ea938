"""Ops that are linear in their data: matrix products and convolution."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from fhe_ops_std._domains import AutoPad, Flag

from ._kernels import require_fit
from ._precision import precise, rounded
from ._windows import Window, padded, steps_of, windows

Array = NDArray[Any]

# Elements of the windows that Conv unrolls at a time: enough for a fast product, few enough to stay
# in the cache.
_LEAST, _MOST = 2**17, 2**19


def matmul(a: Array, b: Array, /) -> Array:
    """The matrix product of a: (..., M, K) and b: (..., K, N), as NumPy's matmul."""
    # NumPy multiplies bfloat16 in single precision, and leaves the product there.
    return np.asarray(np.matmul(a, b)).astype(np.promote_types(a.dtype, b.dtype), copy=False)


def det(x: Array, /) -> Array:
    """The determinants of the matrices x: (..., M, M)."""
    return rounded(np.asarray(np.linalg.det(precise(x))), x.dtype)


def gemm_1(
    a: Array,
    b: Array,
    c: Array,
    /,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    broadcast: Flag = 0,
    transA: Flag = 0,
    transB: Flag = 0,
) -> Array:
    """alpha·A'B' + beta·C with C of the product's shape, or broadcast to it if ``broadcast``."""
    return gemm(a, b, c, alpha=alpha, beta=beta, transA=transA, transB=transB)


def gemm(
    a: Array,
    b: Array,
    /,
    c: Array | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: Flag = 0,
    transB: Flag = 0,
) -> Array:
    """alpha·A'B' + beta·C, with A': (M, K), B': (K, N) and C, if any, broadcast to (M, N)."""
    y = np.matmul(a.T if transA else a, b.T if transB else b)
    if alpha != 1:
        y = (alpha * y).astype(y.dtype, copy=False)
    if c is not None and beta != 0:
        y += c if beta == 1 else (beta * c).astype(y.dtype, copy=False)
    return y.astype(np.promote_types(a.dtype, b.dtype), copy=False)  # see `matmul`


def conv(
    x: Array,
    w: Array,
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
    """Cross-correlation of x: (N, C, ...) with w: (M, C/group, ...kernel), plus b: (M,)."""
    require_fit("Conv", x.shape, w.shape, group=group, kernel_shape=kernel_shape)
    sliding = windows(
        x.shape[2:],
        w.shape[2:],
        auto_pad=auto_pad,
        dilations=dilations,
        pads=pads,
        strides=strides,
    )
    # Half precision adds up in single precision: on its own, 2048 + 1 is 2048.
    precise = np.promote_types(x.dtype, np.float32)
    y = np.empty((len(x), len(w), *(window.steps for window in sliding)), dtype=precise)
    if y.size:
        _correlate(x, w.astype(precise, copy=False), b, sliding, group, out=y)
    return y.astype(x.dtype, copy=False)


def _correlate(
    x: Array, w: Array, b: Array | None, sliding: tuple[Window, ...], group: int, *, out: Array
) -> None:
    """Convolution as matrix products of the weights with the windows' contents as columns.

    What is unrolled at a time, of samples, groups and rows of the first spatial axis, is at most
    half as large as input and output together, or as the weights, unless that is very little. A
    1×1 kernel with stride 1 needs no copy.
    """
    n, maps, length = len(x), len(w) // group, out.shape[2]
    weights = w.reshape(group, maps, -1)
    bias = None if b is None else b.reshape(group, maps, 1)
    inputs = x.reshape(n, group, w.shape[1], *x.shape[2:])
    outputs = out.reshape(n, group, maps, *out.shape[2:])
    room = max(_LEAST, min(_MOST, (x.size + out.size) // 2), w.size // 2)
    room //= max(weights.shape[2], 1) * math.prod(out.shape[3:])  # in rows of one group
    rows = min(max(room, 1), length)
    groups = min(max(room // length, 1), group)
    samples = max(room // (length * group), 1)
    for i, g, j in itertools.product(
        range(0, n, samples), range(0, group, groups), range(0, length, rows)
    ):
        some = slice(i, i + samples), slice(g, g + groups)
        part = outputs[(*some, slice(None), slice(j, j + rows))]
        seen, there = steps_of(inputs[some], sliding, j, part.shape[3])
        product = np.matmul(
            weights[some[1]],
            _columns(seen.astype(out.dtype, copy=False), there),
            out=part.reshape(*part.shape[:3], -1),
        )
        if bias is not None:
            product += bias[some[1]]


def _columns(x: Array, sliding: tuple[Window, ...]) -> Array:
    """What the windows see in x: (N, group, C, ...), as (N, group, C·kernel, steps)."""
    x = padded(x, sliding)
    kernel = tuple(window.kernel for window in sliding)
    steps = tuple(window.steps for window in sliding)
    strides = x.strides[3:]
    view = as_strided(
        x,
        shape=(*x.shape[:3], *kernel, *steps),
        strides=(
            *x.strides[:3],
            *(stride * window.dilation for stride, window in zip(strides, sliding, strict=True)),
            *(stride * window.stride for stride, window in zip(strides, sliding, strict=True)),
        ),
        writeable=False,
    )
    return view.reshape(*x.shape[:2], x.shape[2] * math.prod(kernel), math.prod(steps))


IMPLEMENTATIONS: tuple[tuple[str, int, Callable[..., Any]], ...] = (
    ("MatMul", 1, matmul),
    ("Det", 11, det),
    ("Gemm", 1, gemm_1),
    ("Gemm", 7, gemm),
    ("Gemm", 11, gemm),  # c became optional
    ("Conv", 1, conv),
)
