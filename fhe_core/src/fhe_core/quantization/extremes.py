"""What the values of an integer tensor were on the calibration data, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.errors import PlanError
from fhe_core.program.nodes import BATCH, Node

Array = NDArray[Any]


class Extremes:
    """The least and the largest value of each element of a tensor, over all batches so far.

    Attributes:
        low, high: arrays of the shape of one sample, with the batch dimension 1.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._axis = node.shape.index(BATCH) if BATCH in node.shape else None
        self.low: Array = np.zeros(0)
        self.high: Array = np.zeros(0)

    def add(self, values: Array) -> None:
        """Takes in a batch."""
        low, high = (self._over_samples(values, reduce) for reduce in (np.min, np.max))
        first = not self.low.size
        self.low = low if first else np.minimum(self.low, low)
        self.high = high if first else np.maximum(self.high, high)

    def _over_samples(self, values: Array, reduce: Callable[..., Any]) -> Array:
        if self._axis is None:
            return values
        return np.asarray(reduce(values, axis=self._axis, keepdims=True))

    @property
    def whole(self) -> tuple[float, float]:
        """The least and the largest value of all."""
        return float(self.low.min()), float(self.high.max())

    def of_channels(self, axis: int) -> tuple[Array, Array]:
        """The least and the largest value of each channel.

        Raises:
            PlanError: the axis is the batch.
        """
        axis = axis % self.low.ndim
        if axis == self._axis:
            raise PlanError(
                "the output axis of weights is the batch",
                where=self._node.where,
                fix="correct weight_channels()",
            )
        others = tuple(i for i in range(self.low.ndim) if i != axis)
        return self.low.min(axis=others), self.high.max(axis=others)
