"""The grid that trained weights lie on, found again from the weights.

A model that was trained for integers multiplies integers by a scale before it uses them. Once that is
folded, transposed, or joined with a batch normalization, nothing is left of scale and integers but the
products, and these tell both.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

#: The largest integer that is looked for: 8 bits, less a zero point at the other end.
MOST = 255

#: Products are float32, and may have been multiplied again: half a unit in the last place, four times.
_TOLERANCE = 2.0**-22


def grid_of(weights: Array, axis: int | None) -> Any:
    """The largest scale of which all weights are whole multiples: one, or one for each slice on ``axis``.

    Args:
        weights: floats.
        axis: of the channels, which may have a scale each.

    Returns:
        A float; with an axis an array that broadcasts to the weights; None where some are no multiples,
        up to ``MOST``, of anything.
    """
    rows = weights.reshape(1, -1) if axis is None else np.moveaxis(weights, axis, 0)
    rows = rows.reshape(len(rows), -1)
    scales = [_scale(row) for row in rows]
    if any(scale is None for scale in scales):
        return None
    if axis is None:
        return scales[0]
    shape = [1] * weights.ndim
    shape[axis] = len(scales)
    return np.array(scales, np.float64).reshape(shape)


def _scale(row: Array) -> float | None:
    sizes = np.unique(np.abs(row))
    sizes = sizes[sizes > 0]
    if not sizes.size:
        return 1.0
    if sizes.size > MOST:
        return None
    counts = np.arange(np.rint(sizes[-1] / sizes[0]), MOST + 1)
    ratios = counts[:, None] * (sizes.astype(np.float64) / sizes[-1])
    off = np.abs(ratios - np.rint(ratios)).max(axis=1)
    fitting = np.flatnonzero(off <= counts * _TOLERANCE)
    if not fitting.size:
        return None
    return _as_trained(sizes, np.rint(ratios[fitting[0]]))


def _as_trained(sizes: Array, integers: Array) -> float:
    """The scale whose products with ``integers`` are ``sizes``, to the last bit if there is one."""
    scale = float(sizes[-1]) / integers[-1]
    near = np.asarray(scale).astype(sizes.dtype)
    for guess in (
        near,
        np.nextafter(near, 0, dtype=near.dtype),
        np.nextafter(near, np.inf, dtype=near.dtype),
    ):
        if np.array_equal(guess * integers.astype(sizes.dtype), sizes):
            return float(guess)
    return scale
