"""Sampling of images at computed places: GridSample, AffineGrid and DeformConv."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fhe_ops_std._domains import Flag

from ._precision import precise, rounded
from ._sampling import Taps, cubic, sampled
from ._windows import windows

Array = NDArray[Any]

# --- GridSample ---


def grid_sample_16(
    x: Array,
    grid: Array,
    /,
    *,
    align_corners: Flag = 0,
    mode: str = "bilinear",
    padding_mode: Literal["zeros", "border", "reflection"] = "zeros",
) -> Array:
    """GridSample-20 with other names of the modes: "nearest", "bilinear" and "bicubic"."""
    return grid_sample_20(
        x,
        grid,
        align_corners=align_corners,
        mode={"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode),
        padding_mode=padding_mode,
    )


def grid_sample_20(
    x: Array,
    grid: Array,
    /,
    *,
    align_corners: Flag = 0,
    mode: str = "linear",
    padding_mode: Literal["zeros", "border", "reflection"] = "zeros",
) -> Array:
    """x: (N, C, ...) at the places of grid: (N, ..., axes), the last axis of x first: (N, C, ...).

    From -1 to 1 lies the image, from its first to its last element if ``align_corners``, else from
    the edge of its first to the edge of its last. ``padding_mode`` says what lies outside: "zeros",
    the nearest element ("border"), or the mirrored image ("reflection").
    """
    rank, out = x.ndim - 2, grid.shape[1:-1]
    if grid.ndim != x.ndim or grid.shape[-1] != rank or len(grid) != len(x):
        raise ValueError(f"grid {grid.shape} does not fit an image {x.shape}")
    if mode not in _TAPS or padding_mode not in ("zeros", "border", "reflection"):
        raise ValueError(f"mode {mode!r} or padding_mode {padding_mode!r} is not one of ONNX")
    if x.dtype.kind not in "fV" and mode != "nearest":
        raise NotImplementedError(f"{mode} interpolation of {x.dtype}: ONNX names no rounding")
    wide, places = precise(x), precise(grid)
    y = np.empty((*x.shape[:2], *out), wide.dtype)
    for n, image in enumerate(wide):
        axes = []
        for axis, length in enumerate(x.shape[2:]):
            place = places[n, ..., rank - 1 - axis].reshape(-1)
            if align_corners:
                edges = (0.0, length - 1.0)
                place = (place + 1) / 2 * (length - 1)
            else:
                edges = (-0.5, length - 0.5)
                place = ((place + 1) * length - 1) / 2
            axes.append(_taps(place, length, edges, mode, padding_mode))
        y[n] = sampled(image, axes).reshape(-1, *out)
    return rounded(y, x.dtype)


def _taps(
    place: Array, length: int, edges: tuple[float, float], mode: str, padding_mode: str
) -> Taps:
    if mode == "nearest":
        place = np.rint(place)
    if padding_mode == "border" and mode != "cubic":
        # A place between the edge and its element reads that element as well. The cubic kernel
        # stays where it is, as in PyTorch and ONNX Runtime, and reads the border from there; in
        # ONNX's reference it jumps.
        place = np.clip(place, 0, length - 1)
    elif padding_mode == "reflection":
        place = _reflected(place, *edges)
    index, weight = _TAPS[mode](place)
    if padding_mode == "border":
        index = np.clip(index, 0, length - 1)
    elif padding_mode == "reflection":
        index = np.clip(np.trunc(_reflected(index, *edges)), 0, length - 1)
    return Taps.within(index, weight, length)


def _reflected(place: Array, low: float, high: float) -> Array:
    """Places mirrored at both edges until they lie between them."""
    span = high - low
    if span <= 0:
        return np.full_like(place, low)
    shifted = np.mod(place - low, 2 * span)
    inner = low + np.minimum(shifted, 2 * span - shifted)
    return np.where((place >= low) & (place <= high), place, inner).astype(place.dtype)


def _nearest(place: Array) -> tuple[Array, Array]:
    return place[None], np.ones_like(place)[None]


def _linear(place: Array) -> tuple[Array, Array]:
    low = np.floor(place)
    share = place - low
    return np.stack([low, low + 1]), np.stack([1 - share, share])


def _cubic(place: Array) -> tuple[Array, Array]:
    index = np.floor(place) + np.arange(-1, 3, dtype=place.dtype)[:, None]
    return index, cubic(np.abs(place - index), -0.75)


_TAPS: dict[str, Callable[[Array], tuple[Array, Array]]] = {
    "nearest": _nearest,
    "linear": _linear,
    "cubic": _cubic,
}

# --- AffineGrid ---


def affine_grid(theta: Array, size: Array, /, *, align_corners: Flag = 0) -> Array:
    """The grid that samples an image of ``size``: (N, C, ...) moved by theta: (N, axes, axes + 1).

    Each place of the output, from -1 to 1 on every axis and the last axis first, times theta.
    """
    lengths = [int(length) for length in size[2:]]
    rank = len(lengths)
    if theta.ndim != 3 or theta.shape[1:] != (rank, rank + 1) or len(theta) != int(size[0]):
        raise ValueError(f"theta {theta.shape} does not fit the size {tuple(size)}")
    matrix = precise(theta)
    y = np.broadcast_to(matrix[:, :, rank], (len(theta), rank))
    y = y.reshape(len(theta), *(1,) * rank, rank)
    for axis, length in enumerate(lengths):
        first = -1 if align_corners else -1 + 1 / max(length, 1)
        places = np.linspace(first, -first, length) if length > 1 else np.zeros(length)
        places = places.astype(matrix.dtype).reshape(-1, *(1,) * (rank - axis))
        column = matrix[:, :, rank - 1 - axis].reshape(len(theta), *(1,) * rank, rank)
        y = y + places * column
    return rounded(y, theta.dtype)


# --- DeformConv ---


def deform_conv(
    x: Array,
    w: Array,
    offset: Array,
    /,
    b: Array | None = None,
    mask: Array | None = None,
    *,
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    offset_group: int = 1,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """Conv whose taps are moved by ``offset``, interpolated there, and weighted by ``mask``.

    x: (N, C, ...), w: (M, C/group, ...kernel), offset: (N, groups·kernel·axes, ...out), mask:
    (N, groups·kernel, ...out), b: (M,); each of ``offset_group`` groups of channels has its own.
    """
    (n, channels), maps, rank = x.shape[:2], len(w), x.ndim - 2
    sliding = windows(
        x.shape[2:],
        w.shape[2:],
        auto_pad="NOTSET",
        dilations=dilations,
        pads=pads,
        strides=strides,
    )
    out, kernel = tuple(window.steps for window in sliding), w.shape[2:]
    count = math.prod(kernel)
    if (
        channels != w.shape[1] * group
        or maps % group
        or channels % offset_group
        or offset.shape != (n, offset_group * count * rank, *out)
        or (mask is not None and mask.shape != (n, offset_group * count, *out))
        or (kernel_shape is not None and tuple(kernel_shape) != kernel)
    ):
        raise ValueError(
            f"x: {x.shape}, w: {w.shape}, offset: {offset.shape} and "
            f"{offset_group} groups of offsets do not fit each other"
        )
    wide, weights = precise(x), precise(w).reshape(group, maps // group, -1)
    moved = precise(offset).reshape(n, offset_group, count, rank, *out)
    own = channels // offset_group
    y = np.empty((n, maps, math.prod(out)), wide.dtype)
    columns = np.empty((channels, count, math.prod(out)), wide.dtype)
    places = []
    for axis, window in enumerate(sliding):
        begins, taps = window.places()
        taps = taps.reshape(-1, *(1,) * (rank - axis - 1)) + np.zeros(kernel, np.int64)
        places.append(
            taps.reshape(count, *(1,) * rank) + begins.reshape(-1, *(1,) * (rank - axis - 1))
        )
    for i in range(n):
        for g in range(offset_group):
            axes = [
                Taps.within(*_linear((place + moved[i, g, :, axis]).reshape(-1)), x.shape[axis + 2])
                for axis, place in enumerate(places)
            ]
            part = sampled(wide[i, g * own : (g + 1) * own], axes).reshape(own, count, -1)
            if mask is not None:
                part *= precise(mask[i]).reshape(offset_group, count, -1)[g]
            columns[g * own : (g + 1) * own] = part
        y[i] = np.matmul(weights, columns.reshape(group, -1, columns.shape[-1])).reshape(maps, -1)
    if b is not None:
        y += b[:, None]
    return rounded(y.reshape(n, maps, *out), x.dtype)


IMPLEMENTATIONS: tuple[tuple[str, int, Callable[..., Any]], ...] = (
    ("GridSample", 16, grid_sample_16),
    ("GridSample", 20, grid_sample_20),
    ("AffineGrid", 20, affine_grid),
    ("DeformConv", 19, deform_conv),
)
