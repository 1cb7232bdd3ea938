"""Interpolation at places that no grid holds: what the ops that sample images share."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Taps:
    """On one axis, the elements that each of P places reads: (taps, P), and their weights.

    Elements outside of the image are none: their index is any that exists, their weight 0.
    """

    index: NDArray[np.intp]
    weight: Array

    @classmethod
    def within(cls, index: Array, weight: Array, length: int) -> Taps:
        """Taps at any whole numbers, which count where they lie in an axis of this length."""
        inside = (index >= 0) & (index < length)
        return cls(np.clip(index, 0, max(length - 1, 0)).astype(np.intp), weight * inside)


def cubic(distance: Array, a: float) -> Array:
    """The weight of an element at this distance (>= 0), with Keys' parameter a.

    Keys, Cubic convolution interpolation for digital image processing, 1981, equation 4.
    """
    d = distance
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


def sampled(image: Array, axes: Sequence[Taps]) -> Array:
    """image: (C, ...) at P places, one ``Taps`` for each spatial axis: (C, P)."""
    # With the channels last, a tap is a copy of whole rows.
    rows = np.ascontiguousarray(image.reshape(len(image), math.prod(image.shape[1:])).T)
    pitches = [math.prod(image.shape[axis + 2 :]) for axis in range(len(axes))]
    y = np.zeros((axes[0].index.shape[1], len(image)), image.dtype)
    for corner in itertools.product(*(range(len(taps.index)) for taps in axes)):
        chosen = list(zip(corner, axes, pitches, strict=True))
        source = sum(taps.index[i] * pitch for i, taps, pitch in chosen)
        weight = math.prod(taps.weight[i] for i, taps, _ in chosen)
        part = np.take(rows, source, axis=0)
        part *= np.asarray(weight, image.dtype)[:, None]
        y += part
    return y.T
