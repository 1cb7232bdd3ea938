"""Scattering: a copy of a tensor in which elements or slices at given places are updated.

Every form comes down to one: the tensor seen as one row of elements, a position and a value for
each update. An index counts from the end if negative. Where no reduction is asked for and several
updates meet at one place, which ONNX leaves open, the last one stays.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._precision import precise, rounded

Array = NDArray[Any]

_REDUCTIONS: dict[str, np.ufunc] = {
    "add": np.add,
    "mul": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
}


def scatter(data: Array, indices: Array, updates: Array, /, *, axis: int = 0) -> Array:
    """ONNX Scatter-9 and ScatterElements-13: data in which the element at the place of each update,
    but along ``axis`` at its index, is the update. indices, updates: one shape."""
    return scatter_elements_16(data, indices, updates, axis=axis)


def scatter_elements_16(
    data: Array, indices: Array, updates: Array, /, *, axis: int = 0, reduction: str = "none"
) -> Array:
    """ONNX ScatterElements-18: `scatter`, where ``reduction`` (none, add, mul, max, min) joins an
    update and what is there."""
    if indices.shape != updates.shape or indices.ndim != data.ndim:
        raise ValueError(
            f"indices {indices.shape} and updates {updates.shape} must have one shape, "
            f"with as many axes as the data {data.shape}"
        )
    places = list(np.indices(indices.shape, sparse=True))
    places[range(data.ndim)[axis]] = indices
    return _updated(data, _positions(places, data.shape), updates, reduction)


def scatter_nd_11(data: Array, indices: Array, updates: Array, /) -> Array:
    """ONNX ScatterND-13: data in which data[i] is the update of the same place, for each index
    tuple i in the last axis of indices: (..., length of the tuples)."""
    return scatter_nd_16(data, indices, updates)


def scatter_nd_16(
    data: Array, indices: Array, updates: Array, /, *, reduction: str = "none"
) -> Array:
    """ONNX ScatterND-18: `scatter_nd_11`, where ``reduction`` (none, add, mul, max, min) joins an
    update and what is there."""
    length = indices.shape[-1]
    if length > data.ndim:
        raise ValueError(f"index tuples of length {length} for data of {data.ndim} axes")
    shape = indices.shape[:-1] + data.shape[length:]
    if updates.shape != shape:
        raise ValueError(f"the updates must have the shape {shape}, not {updates.shape}")
    size = math.prod(data.shape[length:])
    starts = _positions(list(np.moveaxis(indices, -1, 0)), data.shape[:length]) * size
    positions = np.reshape(starts, (*indices.shape[:-1], 1)) + np.arange(size)
    return _updated(data, positions, updates, reduction)


def _positions(places: list[Array], shape: tuple[int, ...]) -> Array:
    """The places, an array of indices for each axis of ``shape``, in the flattened tensor."""
    total = np.zeros((), np.int64)
    for index, size in zip(places, shape, strict=True):
        if index.size and not (-size <= index.min() and index.max() < size):
            raise ValueError(
                f"the indices {index.min()} to {index.max()} leave the axis of {size} elements"
            )
        total = total * size + np.where(index < 0, index + size, index)
    return total


def _updated(data: Array, positions: Array, updates: Array, reduction: str) -> Array:
    if reduction == "none":
        y = data.flatten()
        y[positions.reshape(-1)] = updates.reshape(-1)
        return y.reshape(data.shape)
    if reduction not in _REDUCTIONS:
        raise ValueError(f"reduction is {reduction!r}, not none, {', '.join(_REDUCTIONS)}")
    if data.dtype.kind in "biu":
        y, values = data.flatten(), updates
    else:
        y, values = precise(data.flatten()), precise(updates)
    # One axis of positions: that is where ``at`` is fast.
    _REDUCTIONS[reduction].at(y, positions.reshape(-1), values.reshape(-1))
    return rounded(y, data.dtype).reshape(data.shape)


IMPLEMENTATIONS: tuple[tuple[str, int, Callable[..., Any]], ...] = (
    ("Scatter", 9, scatter),
    ("ScatterElements", 11, scatter),
    ("ScatterElements", 16, scatter_elements_16),
    ("ScatterND", 11, scatter_nd_11),
    ("ScatterND", 16, scatter_nd_16),
)
