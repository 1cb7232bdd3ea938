"""Indexing: ops that pick elements by their place, and ops that make tensors from places."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core import UnsupportedOpError, Where
from fhe_ops_std._domains import Flag

from ._axes import counted
from ._types import dtype_numbered
from .layout import ints

Array = NDArray[Any]


def slice_1(
    data: Array,
    /,
    *,
    axes: Sequence[int] | None = None,
    ends: Sequence[int],
    starts: Sequence[int],
) -> Array:
    """The view data[starts:ends] along ``axes``, the first ones by default."""
    return _slice(data, starts, ends, axes, None)


def slice_10(
    data: Array,
    starts: Array,
    ends: Array,
    /,
    axes: Array | None = None,
    steps: Array | None = None,
) -> Array:
    """The view data[starts:ends:steps] along ``axes``, the first ones by default."""
    return _slice(
        data,
        ints(starts),
        ints(ends),
        None if axes is None else ints(axes),
        None if steps is None else ints(steps),
    )


def _slice(
    x: Array,
    starts: Sequence[int],
    ends: Sequence[int],
    axes: Sequence[int] | None,
    steps: Sequence[int] | None,
) -> Array:
    """Python clamps a slice as ONNX does, but for a start that lies before the first element when
    stepping back: to ONNX that is the first element, to Python nothing is left."""
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    picked = [slice(None)] * x.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if step < 0 and start < 0:
            start = max(start, -x.shape[axis])
        picked[axis] = slice(start, end, step)
    return x[tuple(picked)]


def gather(data: Array, indices: Array, /, *, axis: int = 0) -> Array:
    """The entries of data along ``axis`` that indices: (...) name; negative ones from the end.

    The result has the axes of indices in the place of ``axis``.
    """
    y = np.take(data, indices, axis=axis)
    return np.asarray(y) if isinstance(y, np.generic) else y


def gather_elements(data: Array, indices: Array, /, *, axis: int = 0) -> Array:
    """For each element of indices, the element of data at the same place, but along ``axis`` at
    that index. data: as many axes as indices, none shorter but for ``axis``."""
    axis = counted(axis, data.ndim)
    corner = tuple(
        slice(None) if i == axis else slice(size) for i, size in enumerate(indices.shape)
    )
    seen = data[corner]
    if any(i != axis and seen.shape[i] < size for i, size in enumerate(indices.shape)):
        raise ValueError(f"indices of shape {indices.shape} are longer than data: {data.shape}")
    return np.take_along_axis(seen, indices, axis)


def gather_nd_11(data: Array, indices: Array, /) -> Array:
    """data[i] for each index tuple i in the last axis of indices: (..., length of the tuples)."""
    return gather_nd_12(data, indices)


def gather_nd_12(data: Array, indices: Array, /, *, batch_dims: int = 0) -> Array:
    """data[i] for each index tuple i in the last axis of indices: (..., length of the tuples).

    The first ``batch_dims`` axes of both run side by side.
    """
    rank = indices.ndim - 1
    batch = (
        np.arange(size).reshape(-1, *(1,) * (rank - axis - 1))
        for axis, size in enumerate(indices.shape[:batch_dims])
    )
    return np.asarray(data[(*batch, *np.moveaxis(indices, -1, 0))])


def compress(input: Array, condition: Array, /, *, axis: int | None = None) -> Array:
    """The slices along ``axis`` where condition: (size,) is true; without ``axis`` the elements of
    the flattened input. A shorter condition drops what is beyond it."""
    return np.compress(condition, input, axis=axis)


def non_zero(x: Array, /) -> Array:
    """The places of the elements that are not zero, in row-major order: (axes, number) int64."""
    if x.ndim == 0:  # which for NumPy has one axis, for ONNX none
        return np.empty((0, int(bool(x))), np.int64)
    return np.array(np.nonzero(x), dtype=np.int64)


def one_hot_9(indices: Array, depth: Array, values: Array, /, *, axis: int = -1) -> Array:
    """A new axis of size depth, which holds values[1] at the index and values[0] elsewhere; an
    index outside of 0 to depth - 1 gives values[0] throughout. values: (2,), whose dtype is y's."""
    return _one_hot(indices.astype(np.int64), depth, values, axis)


def one_hot_11(indices: Array, depth: Array, values: Array, /, *, axis: int = -1) -> Array:
    """`one_hot_9`, where indices from -depth to -1 count from the end."""
    places = indices.astype(np.int64)
    return _one_hot(np.where(places < 0, places + int(depth.item()), places), depth, values, axis)


def _one_hot(places: Array, depth: Array, values: Array, axis: int) -> Array:
    if values.shape != (2,):
        raise ValueError(f"values must be the two of off and on, not of the shape {values.shape}")
    classes = np.arange(int(depth.item()))
    along = range(places.ndim + 1)[axis]
    chosen = np.expand_dims(places, along) == classes.reshape(-1, *(1,) * (places.ndim - along))
    return np.where(chosen, values[1:], values[:1])


def eye_like(input: Array, /, *, dtype: int | None = None, k: int = 0) -> Array:
    """A matrix of the shape of input: (M, N) with ones on the k-th diagonal, zeros elsewhere, in the
    input's dtype or the one that TensorProto.DataType numbers ``dtype``."""
    rows, columns = input.shape
    return np.eye(rows, columns, k, dtype=input.dtype if dtype is None else dtype_numbered(dtype))


def center_crop_pad(
    input_data: Array, shape: Array, /, *, axes: Sequence[int] | None = None
) -> Array:
    """input_data cut, or padded with zeros, on both sides to the sizes shape: (number of axes,)
    along ``axes``, all by default. Of an odd number of elements the end gets one more."""
    sizes = list(input_data.shape)
    along = range(input_data.ndim) if axes is None else axes
    for axis, size in zip(along, ints(shape), strict=True):
        if size < 0:
            raise ValueError(f"the size of axis {axis} would be {size}")
        sizes[axis] = size
    missing = [size - given for size, given in zip(sizes, input_data.shape, strict=True)]
    begins = [max(-few, 0) // 2 for few in missing]
    kept = tuple(slice(begin, begin + size) for begin, size in zip(begins, sizes, strict=True))
    pads = [(max(few, 0) // 2, (max(few, 0) + 1) // 2) for few in missing]
    return np.pad(input_data[kept], pads)


def trilu(input: Array, /, k: Array | None = None, *, upper: Flag = 1) -> Array:
    """The upper or lower triangle of the matrices input: (..., M, N), from the k-th diagonal on;
    0 elsewhere."""
    diagonal = 0 if k is None else ints(k)[0]
    return np.triu(input, diagonal) if upper else np.tril(input, diagonal)


def constant_of_shape(input: Array, /, *, value: Array | None = None) -> Array:
    """A tensor of the shape input: (rank,) filled with the one element of value, or float32 0."""
    fill = np.zeros(1, np.float32) if value is None else np.asarray(value)
    return np.full(ints(input), fill.reshape(()), dtype=fill.dtype)


def range_11(start: Array, limit: Array, delta: Array, /) -> Array:
    """start, start + delta, ... while before limit; three scalars of one type, which is y's."""
    return range_27(start, limit, delta)


def range_27(start: Array, limit: Array, delta: Array, /, *, stash_type: int = 1) -> Array:
    """start, start + delta, ... while before limit; three scalars of one type, which is y's.

    Half precision computes in single precision (``stash_type`` 1).
    """
    dtype = start.dtype
    if np.issubdtype(dtype, np.integer):
        count = -((start.item() - limit.item()) // delta.item())  # rounds up, and is exact
    else:
        if dtype == np.float16:
            if stash_type != 1:
                raise UnsupportedOpError(
                    "this precision is not supported",
                    where=Where(op="Range"),
                    expected="stash_type=1 (float)",
                    got=f"stash_type={stash_type}",
                    fix="export the model with stash_type=1",
                )
            start, limit, delta = (v.astype(np.float32) for v in (start, limit, delta))
        count = math.ceil((limit - start).item() / delta.item())
    places = np.arange(max(count, 0)).astype(start.dtype)
    y = places * delta.reshape(()) + start.reshape(())
    return y.astype(dtype, copy=False)


IMPLEMENTATIONS: tuple[tuple[str, int, Callable[..., Any]], ...] = (
    ("Slice", 1, slice_1),
    ("Slice", 10, slice_10),
    ("Gather", 1, gather),
    ("GatherElements", 11, gather_elements),
    ("GatherND", 11, gather_nd_11),
    ("GatherND", 12, gather_nd_12),
    ("Compress", 9, compress),
    ("NonZero", 9, non_zero),
    ("OneHot", 9, one_hot_9),
    ("OneHot", 11, one_hot_11),
    ("EyeLike", 9, eye_like),
    ("CenterCropPad", 18, center_crop_pad),
    ("Trilu", 14, trilu),
    ("ConstantOfShape", 9, constant_of_shape),
    ("Range", 11, range_11),
    ("Range", 27, range_27),
)
