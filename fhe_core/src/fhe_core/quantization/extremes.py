"""The values of an integer tensor on the calibration data, a batch at a time, and what to plan it for."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.errors import PlanError
from fhe_core.program.nodes import BATCH, Node
from fhe_core.program.wrapping import NEAR
from fhe_core.quantization.tails import Tail

Array = NDArray[Any]

#: Values that are kept of a tensor: of every sample its least and largest of each channel, as long as these
#: are fewer, else of every second, third...
_KEPT = 2**20
#: The share of samples that may be answered as at the end that they leave: with few samples more than those
#: that were measured would be.
_SATURATED = 0.01
#: A guarantee is worth having where it takes that much more room than what the data ask for.
_CHEAP = 1.1
#: Where there are too few samples to tell, a range may grow by this many times what is known of it.
_BLIND = 8.0


@dataclass(frozen=True)
class Span:
    """How far the channels of a tensor reach, one element each.

    Attributes:
        low, high: measured.
        first, last: expected but of one sample in a hundred.
        down, up: expected but of the share that may wrap.
        least, most: with any input.
    """

    low: Array
    high: Array
    first: Array
    last: Array
    down: Array
    up: Array
    least: Array
    most: Array

    def grid(self, points: int) -> Array:
        """Values from ``down`` to ``up``: (points, channels)."""
        return np.linspace(self.down, self.up, points)

    def window(self, flat: Flat) -> Window:
        """What each channel is planned for."""
        likely = self.last - self.first
        both = np.maximum.reduce([self.up - flat.below, flat.above - self.down, likely])
        lower = np.maximum(self.up - flat.below, self.last - self.down)
        upper = np.maximum(flat.above - self.down, self.up - self.first)
        room = np.minimum.reduce([both, lower, upper, self.up - self.down])
        # With a flat end at the bottom, the window begins where values do; at the top, it ends where they do.
        middle = (self.first + self.last - room) / 2
        start = np.where(room == both, middle, np.where(room == lower, self.down, self.up - room))
        start = np.minimum(np.maximum(self.least, start), np.maximum(self.least, self.most - room))
        safe = self.most - self.least <= _CHEAP * room
        least, most = np.where(safe, self.least, start), np.where(safe, self.most, start + room)
        return Window(np.minimum(least, self.low), np.maximum(most, self.high), safe)


@dataclass(frozen=True)
class Window:
    """What each channel is planned for, from ``least`` to ``most``; and whether no input leaves that."""

    least: Array
    most: Array
    safe: NDArray[np.bool_]


@dataclass(frozen=True)
class Flat:
    """Up to where, and from where on, a function of each channel hardly changes.

    What leaves a look-up's width at one end is answered with what the function has at the other end, turned
    around (``levels``): as at the end that it left, for as long as the function is flat at the other.
    """

    below: Array
    above: Array

    @classmethod
    def nowhere(cls, span: Span) -> Flat:
        return cls(span.down, span.up)

    @classmethod
    def of(cls, grid: Array, results: Array) -> Flat:
        """From its results on a grid: (points, channels), or (points, channels, elements) of each."""
        results = results.reshape(*grid.shape, -1)
        near = NEAR * np.ptp(results, axis=0).max(initial=0)
        first, last = (np.abs(results - results[end]) <= near for end in (0, -1))
        below = np.logical_and.accumulate(first, axis=0).sum(axis=0).min(axis=-1) - 1
        above = len(grid) - np.logical_and.accumulate(last[::-1], axis=0).sum(axis=0).min(axis=-1)
        channels = np.arange(grid.shape[1])
        return cls(grid[below, channels], grid[above, channels])

    def joined(self, other: Flat) -> Flat:
        """Where both are flat."""
        return Flat(np.minimum(self.below, other.below), np.maximum(self.above, other.above))

    def reach(self, window: Window) -> tuple[Array, Array]:
        """How far values may leave a window at either end."""
        beyond = np.maximum(window.most - self.above, 0), np.maximum(self.below - window.least, 0)
        return window.least - beyond[0], window.most + beyond[1]


class Extremes:
    """The least and the largest values of a tensor, over all batches so far.

    Args:
        node: the tensor.
        channels: the axes along which it has channels, which are planned each for itself; without axes it
            is one channel. None where nothing is to be planned.
        samples: how many there will be.

    Attributes:
        low, high: of each element, arrays of the shape of one sample, with the batch dimension 1.
        off: how far each may be below and above what was measured, because of roundings.
    """

    def __init__(self, node: Node, channels: Sequence[int] | None = None, samples: int = 0) -> None:
        self.node = node
        self._axis = node.shape.index(BATCH) if BATCH in node.shape else None
        rank = len(node.shape)
        self._channels = None if channels is None else sorted(axis % rank for axis in channels)
        if self._axis is not None and self._axis in (self._channels or ()):
            raise PlanError(
                "the output axis of weights is the batch",
                where=node.where,
                fix="correct weight_channels()",
            )
        count = math.prod(node.shape[axis] for axis in self._channels or ())
        self._stride = max(1, math.ceil(samples * count / _KEPT))
        self._seen = 0
        self._blocks: list[tuple[Array, Array]] = []
        self.low: Array = np.zeros(0)
        self.high: Array = np.zeros(0)
        self.off: tuple[Any, Any] = (0, 0)

    def add(self, values: Array, *, drawn: bool = True) -> None:
        """Takes in a batch; of made-up samples, that tell nothing of how rare values are, the ends alone."""
        axis = self._axis
        low, high = values, values
        if axis is not None:
            low, high = values.min(axis, keepdims=True), values.max(axis, keepdims=True)
        first = not self.low.size
        self.low = low if first else np.minimum(self.low, low)
        self.high = high if first else np.maximum(self.high, high)
        if axis is None or self._channels is None or not drawn:
            return
        count = values.shape[axis]
        chosen = np.arange(-self._seen % self._stride, count, self._stride)
        self._seen += count
        if len(chosen):
            part = np.moveaxis(
                values if len(chosen) == count else values.take(chosen, axis), axis, 0
            )
            self._blocks.append(
                (self._reduced(part, np.min, axis), self._reduced(part, np.max, axis))
            )

    def _reduced(self, values: Array, reduce: Any, axis: int) -> Array:
        """The extremes of (samples, channels) from values with the samples first."""
        kept = [c + (c < axis) for c in self._channels or ()]
        others = tuple(i for i in range(1, values.ndim) if i not in kept)
        return np.asarray(reduce(values, axis=others)).reshape(len(values), -1).astype(np.float32)

    @property
    def planned(self) -> bool:
        """Whether anything is to be planned."""
        return self._channels is not None

    @property
    def whole(self) -> tuple[float, float]:
        """The least and the largest value of all."""
        return float(self.low.min()), float(self.high.max())

    def of_channels(self, low: Array, high: Array) -> tuple[Array, Array]:
        """The extremes of each channel, from those of each element of a sample."""
        others = tuple(i for i in range(len(self.node.shape)) if i not in (self._channels or ()))
        sample = tuple(1 if n == BATCH else n for n in self.node.shape)
        low, high = np.broadcast_to(low, sample), np.broadcast_to(high, sample)
        return low.min(axis=others).reshape(-1), high.max(axis=others).reshape(-1)

    def spread(self, values: Array) -> Array:
        """Values of (samples, channels) as a tensor that has them in all elements of its channels."""
        axis = self._axis or 0
        kept = self._channels or []
        sizes = [n if i in kept else 1 for i, n in enumerate(self.node.shape)]
        sizes[axis] = 1
        rows = values.reshape(len(values), *(n for i, n in enumerate(sizes) if i != axis))
        shape = [len(values) if n == BATCH else n for n in self.node.shape]
        return np.broadcast_to(np.moveaxis(rows, 0, axis), shape)

    def gathered(self, values: Array) -> Array:
        """A tensor's values as (samples, channels, elements of each)."""
        axis, kept = self._axis or 0, self._channels or []
        others = [i for i in range(values.ndim) if i != axis and i not in kept]
        count = math.prod(values.shape[i] for i in kept)
        return values.transpose(axis, *kept, *others).reshape(values.shape[axis], count, -1)

    @functools.cached_property
    def tails(self) -> tuple[Tail, Tail] | None:
        """Of low and of high values; the low ones negated. None where too few samples are known."""
        if not self._blocks:
            return None
        low, high = (np.concatenate(parts) for parts in zip(*self._blocks, strict=True))
        down, up = Tail.of(-low), Tail.of(high)
        return None if down is None or up is None else (down, up)

    def span(self, risk: float, *, headroom: float | None = None, guaranteed: bool) -> Span:
        """How far each channel reaches.

        Args:
            risk: the share of samples that may reach farther than expected, in any channel.
            headroom: instead, how much of the measured range is added.
            guaranteed: whether any input is expected.
        """
        low, high = self.of_channels(self.low - self.off[0], self.high + self.off[1])
        bounds = self.of_channels(self.node.low, self.node.high)
        least, most = np.minimum(bounds[0], low), np.maximum(bounds[1], high)
        if guaranteed:
            return Span(low, high, low, high, least, most, least, most)
        first, last = low, high
        if headroom is not None:
            down, up = low - headroom / 2 * (high - low), high + headroom / 2 * (high - low)
        elif self.tails is None:
            known = max(float((high - low).max()), *map(abs, self.whole))
            down, up = low - _BLIND / 2 * known, high + _BLIND / 2 * known
        else:
            # Both ends of all channels have their share, and half is kept for what tails do not show.
            share = risk / (4 * len(low))
            below, above = self.tails
            down, up = -below.reach(share), above.reach(share)
            first, last = -below.reach(_SATURATED / 2), above.reach(_SATURATED / 2)
        down, up = np.clip(down, least, low), np.clip(up, high, most)
        first, last = np.clip(first, down, low), np.clip(last, high, up)
        return Span(low, high, first, last, down, up, least, most)

    def left(self, least: Array, most: Array) -> float:
        """The share of samples that are expected to leave what each channel has room for, at most 1."""
        bounds = self.of_channels(self.node.low, self.node.high)
        least = np.where(least <= bounds[0], -np.inf, least)
        most = np.where(most >= bounds[1], np.inf, most)
        if self.tails is None:
            return float(np.isfinite(least).any() or np.isfinite(most).any())
        return min(1.0, self.tails[0].passed(-least) + self.tails[1].passed(most))
