"""Squared distances to clear vectors on integers, and the operators that they stand in.

With a centre c for each feature, |x - v|² = Σ (x - c)² - 2 Σ x (v - c) + Σ (v² - c²). The squares are a
function of each feature, and the rest is a matrix product: where the client holds the features it
encrypts their squares too, and there is no look-up at all.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from fhe_core import QuantizedArray, QuantizedOp
from fhe_ops_contrib import distances

#: The largest squared distance of a vector from the centre, and half of the largest square of a feature, in
#: bits. Samples may be twice as far from a vector, so that their squares have two bits more; accumulators have
#: 20 at the most, some of it headroom.
_REACH_BITS = 15


def squared_distances(x: QuantizedArray, vectors: QuantizedArray) -> Any:
    """|x - v|² of x: (N, F) and clear vectors: (V, F), as an accumulator rescaled: (N, V).

    Both are taken as their integers stand for them, so what is computed is a distance but for the
    rounding of the squares: not below zero by more than that.
    """
    params = x.quantizer.params
    scale = np.broadcast_to(np.asarray(params.scale, np.float64), (1, x.shape[1]))
    zero = np.broadcast_to(params.zero_point, (1, x.shape[1]))
    grid = float(np.max(vectors.quantizer.scale))
    integers = vectors.qvalues - vectors.quantizer.zero_point
    middle = np.rint(integers.mean(axis=0, keepdims=True)).astype(np.int64)
    centre, offsets = middle * grid, integers - middle
    # What the integers of x stand for, also where x itself is not encrypted yet.
    held = (np.clip(np.rint(x.values / scale + zero), params.low, params.high) - zero) * scale
    ends = ((np.asarray(end) - zero) * scale - centre for end in (params.low, params.high))
    most = np.maximum(*(end**2 for end in ends))
    reach = float((offsets**2).sum(axis=1).max()) * grid**2
    step = _step(float(scale.min()), grid, max(reach, float(most.max()) / 2))
    squares = np.clip(np.rint((held - centre) ** 2 / step), 0, np.rint(most / step)).astype(
        np.int64
    )
    weights = np.rint(offsets * (scale * (-2 * grid / step))).astype(np.int64).T
    accumulator = squares.sum(axis=1, keepdims=True) + x.qvalues @ weights
    constant = (integers**2 - middle**2).sum(axis=1) * (grid**2 / step)
    return (accumulator.astype(np.float64) - zero @ weights + constant) * step


def _step(scale: float, grid: float, reach: float) -> float:
    """What one step of the accumulator stands for.

    A whole fraction of 2·scale·grid, so that the matrix of integers is exact, and fine enough for squares to
    be rounded by much less than moving x by half a step changes them. But where that does not fit, as coarse
    as it has to be: then vectors are moved a little.
    """
    exact, coarsest = 2 * scale * grid, reach / 2**_REACH_BITS
    fraction = min(math.ceil(exact / (scale**2 / 4)), math.floor(exact / coarsest))
    return exact / fraction if fraction else coarsest


class QuantizedCDist(QuantizedOp):
    """CDist to a constant matrix; the root follows in the next look-up, or after decryption."""

    _impl_for_op_named = "CDist"
    encryptable: ClassVar[tuple[int, ...] | None] = (0,)

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        distances.check_metric(attrs["metric"])
        x, vectors = self._prepare_inputs_with_constants(
            *q_inputs, calibrate=False, quantize_actual_values=True
        )
        # Rounded squares may leave a distance of nothing just below zero.
        squares = np.maximum(squared_distances(x, vectors), 0.0)
        return self.quantized(squares if attrs["metric"] == "sqeuclidean" else np.sqrt(squares))


CLASSES: tuple[type[QuantizedOp], ...] = (QuantizedCDist,)
