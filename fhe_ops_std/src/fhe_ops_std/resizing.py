"""Resize and Upsample: every element of the output interpolates the input at its place there.

Interpolation is separable: the axes are resized one after the other, each with one pass over the
output for each tap of the kernel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fhe_ops_std._domains import Flag

from ._axes import counted
from ._interfaces import older
from ._precision import rounded
from ._sampling import cubic

Array = NDArray[Any]

# Elements of the output that are interpolated at a time.
_BLOCK = 2**16

# --- Resize ---


def resize_18(
    x: Array,
    /,
    roi: Array | None = None,
    scales: Array | None = None,
    sizes: Array | None = None,
    *,
    antialias: Flag = 0,
    axes: Sequence[int] | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: Flag = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: Literal["stretch", "not_larger", "not_smaller"] = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Array:
    """x with each of ``axes`` (all) scaled by ``scales``, or to ``sizes``.

    Args:
        roi: starts, then ends, of the part that "tf_crop_and_resize" takes, in shares of the axis.
        antialias: stretch the kernel by 1/scale, where that is more than 1.
        coordinate_transformation_mode: one of `_PLACES`, from the output's places to the input's.
        cubic_coeff_a: of the cubic kernel.
        exclude_outside: taps outside of the input have no weight, instead of its edge's value.
        extrapolation_value: for places outside of the input, of "tf_crop_and_resize" alone.
        keep_aspect_ratio_policy: "stretch" takes ``sizes`` as they are, "not_larger" and
            "not_smaller" as bounds for one scale for all axes.
        mode: "nearest", "linear" or "cubic".
        nearest_mode: one of `_NEAREST`.
    """
    axes = tuple(range(x.ndim)) if axes is None else tuple(counted(axis, x.ndim) for axis in axes)
    factors, lengths = _extents(
        [x.shape[axis] for axis in axes],
        None if scales is None or not scales.size else scales,
        None if sizes is None or not sizes.size else sizes,
        keep_aspect_ratio_policy,
    )
    crops = coordinate_transformation_mode == "tf_crop_and_resize"
    if crops and (roi is None or roi.size != 2 * len(axes)):
        raise ValueError(f"tf_crop_and_resize takes a roi of {2 * len(axes)} elements")
    region = roi if crops and roi is not None else [0.0] * len(axes) + [1.0] * len(axes)
    kernel = _Kernel(mode, nearest_mode, cubic_coeff_a, bool(antialias), bool(exclude_outside))
    for k, axis in enumerate(axes):
        start, end = float(region[k]), float(region[k + len(axes)])
        if math.isclose(factors[k], 1) and lengths[k] == x.shape[axis] and (start, end) == (0, 1):
            continue
        place = _places(
            coordinate_transformation_mode, lengths[k], x.shape[axis], factors[k], start, end
        )
        outside = (place < 0) | (place > x.shape[axis] - 1) if crops else None
        x = kernel.resized(x, axis, place, factors[k])
        if outside is not None and outside.any():
            value = np.asarray(extrapolation_value).astype(x.dtype)
            x = np.where(outside.reshape(-1, *(1,) * (x.ndim - axis - 1)), value, x)
    return x


def resize_11(
    x: Array,
    roi: Array,
    scales: Array,
    /,
    sizes: Array | None = None,
    *,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: Flag = 0,
    extrapolation_value: float = 0.0,
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Array:
    """Resize-18 of all axes, with "tf_half_pixel_for_nn" as a further place; ``roi`` and
    ``scales`` are empty where they are not meant."""
    return resize_18(
        x,
        roi,
        scales,
        sizes,
        coordinate_transformation_mode=coordinate_transformation_mode,
        cubic_coeff_a=cubic_coeff_a,
        exclude_outside=exclude_outside,
        extrapolation_value=extrapolation_value,
        mode=mode,
        nearest_mode=nearest_mode,
    )


def resize_10(x: Array, scales: Array, /, *, mode: str = "nearest") -> Array:
    """Every axis of x scaled; places are those of the output divided by the scale, "nearest" is
    the element before, or after where the axis shrinks, as ONNX Runtime has it."""
    factors, lengths = _extents(x.shape, scales, None, "stretch")
    for axis, (factor, length) in enumerate(zip(factors, lengths, strict=True)):
        if factor == 1:
            continue
        kernel = _Kernel(
            "linear" if mode == "bilinear" else mode, "ceil" if factor < 1 else "floor"
        )
        place = _places("asymmetric", length, x.shape[axis], factor, 0, 1)
        x = kernel.resized(x, axis, place, factor)
    return x


def upsample_1(
    x: Array, /, *, height_scale: float, mode: str = "nearest", width_scale: float
) -> Array:
    """Resize-10 of x: (N, C, H, W) with these scales of its last two axes."""
    return resize_10(x, np.array([1, 1, height_scale, width_scale], np.float32), mode=mode)


def upsample_7(x: Array, /, *, mode: str = "nearest", scales: Sequence[float]) -> Array:
    """Resize-10 of x."""
    return resize_10(x, np.array(scales, np.float32), mode=mode)


def upsample_9(x: Array, scales: Array, /, *, mode: str = "nearest") -> Array:
    """Resize-10 of x."""
    return resize_10(x, scales, mode=mode)


# --- how large, and from where ---


def _extents(
    lengths: Sequence[int], scales: Array | None, sizes: Array | None, policy: str
) -> tuple[list[float], list[int]]:
    """Each axis' scale, and its new length."""
    given = sizes if scales is None else scales
    if given is None or (scales is not None and sizes is not None) or len(given) != len(lengths):
        raise ValueError(f"either scales or sizes of {len(lengths)} axes are given")
    if scales is not None:
        if np.any(scales <= 0):
            raise ValueError(f"scales are positive, got {scales}")
        # The product is one of single precision in ONNX's shape inference: 0.7 · 10 is 7.
        new = [
            math.floor(np.float32(n) * np.float32(s)) for n, s in zip(lengths, scales, strict=True)
        ]
        return [float(scale) for scale in scales], new
    if not all(lengths):
        raise ValueError(f"an empty axis has no size to resize: {tuple(lengths)}")
    factors = [int(size) / n for size, n in zip(given, lengths, strict=True)]
    if policy == "stretch":
        return factors, [int(size) for size in given]
    if policy not in ("not_larger", "not_smaller"):
        raise ValueError(f"keep_aspect_ratio_policy {policy!r} is not one that ONNX knows")
    factor = min(factors) if policy == "not_larger" else max(factors)
    return [factor] * len(lengths), [math.floor(factor * n + 0.5) for n in lengths]


# From the places i of the output to those of the input. n: the input's length; s: the scale; m: the
# output's length, n·s, which need not be whole; k: that as a whole number; a, b: the region.
_PLACES: dict[str, Callable[[Array, int, float, float, int, float, float], Array]] = {
    "half_pixel": lambda i, n, s, m, k, a, b: (i + 0.5) / s - 0.5,
    "half_pixel_symmetric": lambda i, n, s, m, k, a, b: n / 2 * (1 - k / m) + (i + 0.5) / s - 0.5,
    "pytorch_half_pixel": lambda i, n, s, m, k, a, b: (i + 0.5) / s - 0.5 if k > 1 else i * 0,
    "align_corners": lambda i, n, s, m, k, a, b: i * (n - 1) / (m - 1) if m != 1 else i * 0,
    "asymmetric": lambda i, n, s, m, k, a, b: i / s,
    "tf_half_pixel_for_nn": lambda i, n, s, m, k, a, b: (i + 0.5) / s,
    "tf_crop_and_resize": lambda i, n, s, m, k, a, b: (
        a * (n - 1) + i * (b - a) * (n - 1) / (m - 1) if m != 1 else i * 0 + (a + b) / 2 * (n - 1)
    ),
}


def _places(
    mode: str, new: int, length: int, factor: float, start: float, end: float
) -> NDArray[np.float64]:
    if mode not in _PLACES:
        raise ValueError(f"coordinate_transformation_mode {mode!r} is not one that ONNX knows")
    index = np.arange(new, dtype=np.float64)
    return _PLACES[mode](index, length, factor, factor * length, new, start, end)


# --- interpolation ---

_NEAREST: dict[str, Callable[[Array], Array]] = {
    "round_prefer_floor": lambda place: np.ceil(place - 0.5),
    "round_prefer_ceil": lambda place: np.floor(place + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


@dataclass(frozen=True)
class _Kernel:
    """How an axis is interpolated; the fields are attributes of Resize."""

    mode: str
    nearest_mode: str
    a: float = -0.75
    antialias: bool = False
    exclude_outside: bool = False

    def resized(self, x: Array, axis: int, place: NDArray[np.float64], factor: float) -> Array:
        """x with the elements of ``axis`` at these places, and between them."""
        length = x.shape[axis]
        if len(place) and not length:
            raise ValueError("an empty axis has no elements to interpolate")
        if self.mode == "nearest":
            return self._nearest(x, axis, place)
        if self.mode not in ("linear", "cubic"):
            raise ValueError(f"mode {self.mode!r} is not one that ONNX knows")
        taps, weights = self._taps(place, length, factor)
        # Integers of up to 16 bits fit into single precision, larger ones need double.
        precise = np.promote_types(x.dtype, np.float32)
        wide, weights = x.astype(precise, copy=False), weights.astype(precise)
        y = np.zeros((*x.shape[:axis], len(place), *x.shape[axis + 1 :]), precise)
        if y.size:
            rows = math.prod(x.shape[:axis])
            _interpolate(
                wide.reshape(rows, length, -1), taps, weights, y.reshape(rows, len(place), -1)
            )
        if x.dtype.kind in "iu":
            limits = np.iinfo(x.dtype)
            y = np.clip(np.rint(y, out=y), limits.min, limits.max)
        return rounded(y, x.dtype)

    def _nearest(self, x: Array, axis: int, place: NDArray[np.float64]) -> Array:
        if self.nearest_mode not in _NEAREST:
            raise ValueError(f"nearest_mode {self.nearest_mode!r} is not one that ONNX knows")
        length = x.shape[axis]
        source = np.clip(_NEAREST[self.nearest_mode](place), 0, length - 1).astype(np.intp)
        times = len(place) // max(length, 1)
        if np.array_equal(source, np.repeat(np.arange(length), times)):
            # Whole repetitions are several times as fast as broadcasting as by indices.
            shape = (*x.shape[: axis + 1], times, *x.shape[axis + 1 :])
            repeated = np.broadcast_to(np.expand_dims(x, axis + 1), shape)
            return repeated.reshape(*x.shape[:axis], len(place), *x.shape[axis + 1 :])
        return np.take(x, source, axis)

    def _taps(
        self, place: NDArray[np.float64], length: int, factor: float
    ) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """The elements around each place, and their weights: (places, taps) both."""
        support, weight = (1, _linear) if self.mode == "linear" else (2, self._cubic)
        stretch = min(factor, 1) if self.antialias else 1
        first = math.floor(-support / stretch) + 1
        offsets = np.arange(first, 2 - first)
        taps = (np.ceil(place)[:, None] - 1 + offsets).astype(np.intp)
        weights = weight(np.abs(taps - place[:, None]) * stretch)
        if self.antialias:
            weights /= weights.sum(axis=1, keepdims=True)
        if self.exclude_outside:
            weights *= (taps >= 0) & (taps < length)
            total = weights.sum(axis=1, keepdims=True)
            weights /= np.where(total == 0, 1, total)
        return np.clip(taps, 0, length - 1), weights

    def _cubic(self, distance: Array) -> Array:
        return cubic(distance, self.a)


def _interpolate(x: Array, taps: NDArray[np.intp], weights: Array, y: Array) -> None:
    """Adds to y: (rows, places, M) the elements of x: (rows, length, M) at each place's taps, in
    blocks of rows that stay in the cache."""
    rows = max(1, _BLOCK // math.prod(y.shape[1:]))
    for start in range(0, len(y), rows):
        seen, part = x[start : start + rows], y[start : start + rows]
        for tap, weight in zip(taps.T, weights.T, strict=True):
            share = np.take(seen, tap, 1)
            share *= weight[:, None]
            part += share


def _linear(distance: Array) -> Array:
    return np.maximum(1 - distance, 0)


IMPLEMENTATIONS: tuple[tuple[str, int, Callable[..., Any]], ...] = (
    ("Resize", 10, resize_10),
    ("Resize", 11, resize_11),
    ("Resize", 13, older(resize_18, "antialias", "axes", "keep_aspect_ratio_policy")),
    ("Resize", 18, resize_18),
    ("Upsample", 1, upsample_1),
    ("Upsample", 7, upsample_7),
    ("Upsample", 9, upsample_9),
)
