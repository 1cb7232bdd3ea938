"""Pooling: the largest or the mean element of windows that slide along the spatial axes.

Pooling is separable: the axes are reduced one after the other, each with one pass over the array
for each tap of its window, and with no padded copy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core import OUTPUTS_WANTED
from fhe_ops_std._domains import AutoPad, Flag

from ._interfaces import older
from ._precision import precise, rounded
from ._windows import Window, windows

Array = NDArray[Any]


def global_average_pool(x: Array, /) -> Array:
    """The mean over all spatial axes; x: (N, C, ...), y: (N, C, 1, ...)."""
    return np.mean(x, axis=tuple(range(2, x.ndim)), keepdims=True)


def global_max_pool(x: Array, /) -> Array:
    """The largest element over all spatial axes; x: (N, C, ...), y: (N, C, 1, ...)."""
    return np.max(x, axis=tuple(range(2, x.ndim)), keepdims=True)


def average_pool_1(
    x: Array,
    /,
    *,
    auto_pad: AutoPad = "NOTSET",
    kernel_shape: Sequence[int],
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """The mean of each window, padding left out; x: (N, C, ...)."""
    return average_pool_19(
        x, auto_pad=auto_pad, kernel_shape=kernel_shape, pads=pads, strides=strides
    )


def average_pool_7(
    x: Array,
    /,
    *,
    auto_pad: AutoPad = "NOTSET",
    count_include_pad: Flag = 0,
    kernel_shape: Sequence[int],
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """The mean of each window; x: (N, C, ...)."""
    return average_pool_19(
        x,
        auto_pad=auto_pad,
        count_include_pad=count_include_pad,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
    )


def average_pool_10(
    x: Array,
    /,
    *,
    auto_pad: AutoPad = "NOTSET",
    ceil_mode: Flag = 0,
    count_include_pad: Flag = 0,
    kernel_shape: Sequence[int],
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """The mean of each window; x: (N, C, ...). ``ceil_mode`` keeps windows that overhang."""
    return average_pool_19(
        x,
        auto_pad=auto_pad,
        ceil_mode=ceil_mode,
        count_include_pad=count_include_pad,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
    )


def average_pool_19(
    x: Array,
    /,
    *,
    auto_pad: AutoPad = "NOTSET",
    ceil_mode: Flag = 0,
    count_include_pad: Flag = 0,
    dilations: Sequence[int] | None = None,
    kernel_shape: Sequence[int],
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """The mean of each window of (dilated) taps; x: (N, C, ...).

    Padding counts if ``count_include_pad``; what a window of ``ceil_mode`` sees beyond it never
    does.
    """
    sliding = windows(
        x.shape[2:],
        kernel_shape,
        auto_pad=auto_pad,
        ceil_mode=ceil_mode,
        dilations=dilations,
        pads=pads,
        strides=strides,
    )
    precise = np.promote_types(x.dtype, np.float32)
    y = _reduced(x.astype(precise, copy=False), sliding, np.add, 0)
    for axis, window in enumerate(sliding, start=2):
        count = _taps_counted(window, count_include_pad)
        y /= count.astype(y.dtype).reshape(-1, *(1,) * (x.ndim - axis - 1))
    return y.astype(x.dtype, copy=False)


def max_pool_1(
    x: Array,
    /,
    *,
    auto_pad: AutoPad = "NOTSET",
    kernel_shape: Sequence[int],
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """The largest element of each window; x: (N, C, ...)."""
    sliding = windows(
        x.shape[2:],
        kernel_shape,
        auto_pad=auto_pad,
        dilations=None,
        pads=pads,
        strides=strides,
    )
    return _reduced(x, sliding, np.maximum, _lowest(x.dtype))


def max_pool_8(
    x: Array,
    /,
    *,
    auto_pad: AutoPad = "NOTSET",
    kernel_shape: Sequence[int],
    pads: Sequence[int] | None = None,
    storage_order: Flag = 0,
    strides: Sequence[int] | None = None,
    wanted: tuple[bool, ...] = OUTPUTS_WANTED,
) -> Array | tuple[Array, NDArray[np.int64]]:
    """The largest element of each window, and its index in x; x: (N, C, ...)."""
    return max_pool_10(
        x,
        auto_pad=auto_pad,
        kernel_shape=kernel_shape,
        pads=pads,
        storage_order=storage_order,
        strides=strides,
        wanted=wanted,
    )


def max_pool_10(
    x: Array,
    /,
    *,
    auto_pad: AutoPad = "NOTSET",
    ceil_mode: Flag = 0,
    dilations: Sequence[int] | None = None,
    kernel_shape: Sequence[int],
    pads: Sequence[int] | None = None,
    storage_order: Flag = 0,
    strides: Sequence[int] | None = None,
    wanted: tuple[bool, ...] = OUTPUTS_WANTED,
) -> Array | tuple[Array, NDArray[np.int64]]:
    """The largest element of each window of (dilated) taps, and its index; x: (N, C, ...).

    The index counts through the whole of x, with the spatial axes row by row, or column by column
    (the first spatial axis fastest) if ``storage_order`` is 1. Among equals the first one counts.
    """
    sliding = windows(
        x.shape[2:],
        kernel_shape,
        auto_pad=auto_pad,
        ceil_mode=ceil_mode,
        dilations=dilations,
        pads=pads,
        strides=strides,
    )
    y = _reduced(x, sliding, np.maximum, _lowest(x.dtype))
    if wanted and not any(wanted[1:]):
        return y  # finding the places takes longer than the maxima
    return y, _first_places(x, y, sliding, storage_order)


def global_lp_pool(x: Array, /, *, p: int = 2) -> Array:
    """The p-norm over all spatial axes; x: (N, C, ...), y: (N, C, 1, ...)."""
    powers = _power(precise(x), p).sum(axis=tuple(range(2, x.ndim)), keepdims=True)
    return rounded(_root(powers, p), x.dtype)


def lp_pool_18(
    x: Array,
    /,
    *,
    auto_pad: AutoPad = "NOTSET",
    ceil_mode: Flag = 0,
    dilations: Sequence[int] | None = None,
    kernel_shape: Sequence[int],
    p: int = 2,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """The p-norm of each window of (dilated) taps; x: (N, C, ...). Padding adds nothing."""
    sliding = windows(
        x.shape[2:],
        kernel_shape,
        auto_pad=auto_pad,
        ceil_mode=ceil_mode,
        dilations=dilations,
        pads=pads,
        strides=strides,
    )
    powers = _reduced(_power(precise(x), p), sliding, np.add, 0)
    return rounded(_root(powers, p), x.dtype)


def _reduced(x: Array, sliding: tuple[Window, ...], ufunc: np.ufunc, initial: float) -> Array:
    """Every window of x reduced by ``ufunc``, which leaves the padding out.

    The last axis, where a stride breaks up the memory, comes when the array is smallest.
    """
    for axis, window in enumerate(sliding, start=2):
        before = (slice(None),) * axis
        y = np.full((*x.shape[:axis], window.steps, *x.shape[axis + 1 :]), initial, x.dtype)
        for k in range(window.kernel):
            steps, seen = window.inside(k)
            part = y[(*before, steps)]
            ufunc(part, x[(*before, seen)], out=part)
        x = y
    return x


def _power(x: Array, p: int) -> Array:
    return np.square(x) if p == 2 else np.abs(x) ** p


def _root(sums: Array, p: int) -> Array:
    return np.sqrt(sums) if p == 2 else sums ** (1 / p)


def _lowest(dtype: np.dtype[Any]) -> float:
    return np.iinfo(dtype).min if dtype.kind in "iu" else -np.inf


def _taps_counted(window: Window, count_include_pad: int) -> NDArray[np.int64]:
    """How many taps count at each step; 1 where none does, since the sum is 0 there."""
    places = np.add.outer(*window.places())
    low, high = (-window.before, window.after) if count_include_pad else (0, 0)
    count = np.sum((places >= low) & (places < window.length + high), axis=1)
    return np.maximum(count, 1)


def _first_places(
    x: Array, y: Array, sliding: tuple[Window, ...], storage_order: int
) -> NDArray[np.int64]:
    """Where in x each of the maxima y is, the first in its window where there are several."""
    # Which tap was it? As many taps as came before the first match: padding never matches.
    kernel = tuple(window.kernel for window in sliding)
    unmatched = np.ones(y.shape, dtype=np.bool_)
    first = np.zeros(y.shape, dtype=np.min_scalar_type(math.prod(kernel)))
    for tap in np.ndindex(*kernel):
        steps, seen = zip(*map(Window.inside, sliding, tap), strict=True)
        unmatched[(..., *steps)] &= x[(..., *seen)] != y[(..., *steps)]
        first += unmatched
    # The place is a sum: where the image begins, where the window does, and where in it the tap is.
    lengths = tuple(window.length for window in sliding)
    images = np.arange(math.prod(x.shape[:2])) * math.prod(lengths)
    begins = images.reshape(*x.shape[:2], *(1,) * len(sliding))
    offsets = np.zeros((), dtype=np.int64)
    for i, window in enumerate(sliding):
        pitch = math.prod(lengths[:i] if storage_order else lengths[i + 1 :])
        step, tap_offset = window.places()
        trailing = (1,) * (len(sliding) - i - 1)
        begins = begins + (step * pitch).reshape(-1, *trailing)
        offsets = offsets + (tap_offset * pitch).reshape(-1, *trailing)
    place = np.take(offsets.reshape(-1), first, mode="clip")
    return np.add(place, begins, out=place)


IMPLEMENTATIONS: tuple[tuple[str, int, Callable[..., Any]], ...] = (
    ("GlobalAveragePool", 1, global_average_pool),
    ("GlobalMaxPool", 1, global_max_pool),
    ("AveragePool", 1, average_pool_1),
    ("AveragePool", 7, average_pool_7),
    ("AveragePool", 10, average_pool_10),
    ("AveragePool", 19, average_pool_19),
    ("GlobalLpPool", 2, global_lp_pool),
    ("LpPool", 2, older(lp_pool_18, "ceil_mode", "dilations")),
    ("LpPool", 18, lp_pool_18),
    ("MaxPool", 1, max_pool_1),
    ("MaxPool", 8, max_pool_8),
    ("MaxPool", 10, max_pool_10),
)
