"""Ops that are linear in their data: matrix products and convolution."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from fhe_core.errors import ModelError, Where
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from ._windows import Window, padded, windows

Array = NDArray[Any]

# Columns of one matrix product inside Conv: enough for a fast product, few enough that the unrolled
# windows (columns × C/group·kernel elements) stay in the cache instead of growing with the image.
_COLUMNS = 2048

# Elements that one multiply-add of a depthwise Conv works on, for the same reason.
_IMAGES = 2**17


def matmul(a: Array, b: Array, /) -> Array:
    """The matrix product of a: (..., M, K) and b: (..., K, N), as NumPy's matmul."""
    return np.asarray(np.matmul(a, b))


def gemm_1(
    a: Array,
    b: Array,
    c: Array,
    /,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    broadcast: int = 0,
    transA: int = 0,
    transB: int = 0,
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
    transA: int = 0,
    transB: int = 0,
) -> Array:
    """alpha·A'B' + beta·C, with A': (M, K), B': (K, N) and C, if any, broadcast to (M, N)."""
    y = np.matmul(a.T if transA else a, b.T if transB else b)
    if alpha != 1:
        y = (alpha * y).astype(a.dtype, copy=False)
    if c is not None and beta != 0:
        y += c if beta == 1 else (beta * c).astype(a.dtype, copy=False)
    return y


def conv(
    x: Array,
    w: Array,
    /,
    b: Array | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """Cross-correlation of x: (N, C, ...) with w: (M, C/group, ...kernel), plus b: (M,)."""
    if x.ndim != w.ndim or x.shape[1] != w.shape[1] * group or w.shape[0] % group:
        raise ModelError(
            "x, w and group do not fit each other",
            where=Where(op="Conv"),
            expected="x: (N, C, ...), w: (M, C/group, ...), M a multiple of group",
            got=f"x: {x.shape}, w: {w.shape}, group {group}",
            fix="correct the weights or the group",
        )
    if kernel_shape is not None and tuple(kernel_shape) != w.shape[2:]:
        raise ModelError(
            "kernel_shape contradicts w",
            where=Where(op="Conv"),
            expected=f"{w.shape[2:]}",
            got=f"{tuple(kernel_shape)}",
            fix="leave kernel_shape out",
        )
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
    product = _depthwise if group > 1 and w.shape[1] == 1 else _unrolled
    y = product(x.astype(precise, copy=False), w.astype(precise, copy=False), sliding, group)
    if b is not None:
        y += b.reshape(-1, *(1,) * len(sliding))
    return y.astype(x.dtype, copy=False)


def _unrolled(x: Array, w: Array, sliding: tuple[Window, ...], group: int) -> Array:
    """Convolution as matrix products of the weights with the windows' contents as columns.

    Blocks of samples and of rows of the first spatial axis bound the unrolled copy; a 1×1 kernel
    with stride 1 needs no copy at all.
    """
    (n, channels), maps = x.shape[:2], w.shape[0]
    rank, steps = len(sliding), tuple(window.steps for window in sliding)
    y = np.empty((n, group, maps // group, *steps), dtype=x.dtype)
    if y.size == 0:
        return y.reshape(n, maps, *steps)
    x = padded(x, sliding)
    strides = x.strides[2:]
    view = as_strided(  # (group, C/group, ...kernel, N, ...steps)
        x,
        shape=(group, channels // group, *w.shape[2:], n, *steps),
        strides=(
            x.strides[1] * (channels // group),
            x.strides[1],
            *(stride * window.dilation for stride, window in zip(strides, sliding, strict=True)),
            x.strides[0],
            *(stride * window.stride for stride, window in zip(strides, sliding, strict=True)),
        ),
        writeable=False,
    )
    weights = w.reshape(group, maps // group, -1)
    per_row = int(np.prod(steps[1:]))
    rows = max(1, min(steps[0], _COLUMNS // per_row))
    samples = max(1, _COLUMNS // (steps[0] * per_row))
    for i, j in itertools.product(range(0, n, samples), range(0, steps[0], rows)):
        cut: tuple[Any, ...] = (slice(i, i + samples), slice(j, j + rows))
        block = view[(..., *cut, *(slice(None),) * (rank - 1))]
        extent = block.shape[-rank - 1 :]
        columns = block.reshape(group, weights.shape[2], -1)
        part = np.matmul(weights, columns).reshape(group, maps // group, *extent)
        y[i : i + samples, :, :, j : j + rows] = np.moveaxis(part, 2, 0)
    return y.reshape(n, maps, *steps)


def _depthwise(x: Array, w: Array, sliding: tuple[Window, ...], group: int) -> Array:
    """Convolution with one input channel a group: one multiply-add of whole images for each tap."""
    n, maps = x.shape[0], w.shape[0]
    steps = tuple(window.steps for window in sliding)
    images = x[:, :, None]
    weights = w.reshape(group, maps // group, -1, *(1,) * len(sliding))
    y = np.zeros((n, group, maps // group, *steps), dtype=x.dtype)
    samples = max(1, _IMAGES // max(math.prod(y.shape[1:]), 1))
    taps = [
        tuple(zip(*map(Window.inside, sliding, tap), strict=True))
        for tap in np.ndindex(*w.shape[2:])
    ]
    for i in range(0, n, samples):
        block = slice(i, i + samples)
        for k, (at, seen) in enumerate(taps):
            y[(block, ..., *at)] += images[(block, ..., *seen)] * weights[:, :, k]
    return y.reshape(n, maps, *steps)


IMPLEMENTATIONS: tuple[tuple[str, int, Callable[..., Any]], ...] = (
    ("MatMul", 1, matmul),
    ("Gemm", 1, gemm_1),
    ("Gemm", 7, gemm),
    ("Gemm", 11, gemm),  # c became optional
    ("Conv", 1, conv),
)
