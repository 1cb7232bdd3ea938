"""Accumulators that fill the period of a triangle, padding bit included (``program.antiperiodic``).

The tip of each channel's triangle is put at 0, and its weights are scaled until the value farthest from there
is half a period away. Little headroom is needed: beyond, the answer goes back as much as it should go on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.program.antiperiodic import Triangle
from fhe_core.program.nodes import Node
from fhe_core.program.wrapping import TURNED

Array = NDArray[Any]

#: Headroom of an accumulator beyond its farthest value on the calibration data.
SPARE = 0.03
#: Share of the range of the quantizer behind the look-up that half a period may take: weights are scaled to
#: within a few percent, and what goes beyond that range would saturate at both ends.
_FILLED = 0.96
#: How far apart the tips of a channel's elements may be found: only inexact arithmetic tells them apart.
_SAME = 0.05
#: How many bits a rounding has to drop for a tip between two integers to be near enough to either: half an
#: integer is then an eighth of a level.
_DROPPED = 2


@dataclass(frozen=True)
class Period:
    """The triangles of an accumulator's channels.

    Attributes:
        centre: the integer of each tip.
        slope: how steep it is, without sign.
        room: how far from the tip the quantizer behind it saturates.
        off: how far the tip is from its integer.
    """

    centre: NDArray[np.int64]
    slope: Array
    room: Array
    off: Array

    @classmethod
    def of(cls, looked_up: Node, triangle: Triangle, axis: int) -> Period | None:
        """None where the elements of a channel have different ones, or one is outside of its quantizer."""
        rest = tuple(i for i in range(triangle.centre.ndim) if i != axis)
        slope, tip = triangle.slope, triangle.tip
        space = np.where(slope > 0, looked_up.high - tip, tip - looked_up.low)
        with np.errstate(divide="ignore", invalid="ignore"):
            room = np.where(slope == 0, np.inf, space / np.abs(slope))
        if (np.ptp(triangle.centre, axis=rest) > _SAME).any() or not (room > 0).all():
            return None
        # By a part of a level, as zero points are rounded: else the tip itself saturates, which is no triangle.
        if ((tip < looked_up.low - 1) | (tip > looked_up.high + 1)).any():
            return None
        tips = triangle.centre.mean(axis=rest)
        centre = np.rint(tips)
        return cls(
            centre.astype(np.int64),
            np.abs(slope).max(axis=rest),
            room.min(axis=rest),
            np.abs(tips - centre),
        )

    def reach(self, low: Array, high: Array) -> Array:
        """Half of the period that each channel should have, for values from ``low`` to ``high``."""
        farthest = np.maximum(np.abs(high - self.centre), np.abs(low - self.centre))
        return np.asarray(np.minimum(farthest * (1 + SPARE), _FILLED * self.room))

    def width(self, low: Array, high: Array, kept: int, *, exact: bool) -> int | None:
        """The bits, without the padding bit, that these periods should have.

        None where they have fewer than are kept, or too few for exact rounding: each bit more would cost
        a look-up.
        """
        bits = max(1, int(np.ceil(np.log2(max(self.reach(low, high).max(), 2.0)))))
        if bits < kept or (exact and not self._is_near(bits - kept)):
            return None
        return bits if self._is_near(bits - kept) else kept + _DROPPED

    def _is_near(self, dropped: int) -> bool:
        """Whether each tip is near enough to its integer where so many bits are dropped."""
        return bool((self.off <= 2.0 ** (dropped - _DROPPED - 1)).all())

    def factors(self, low: Array, high: Array, width: int) -> Array:
        """How much larger each channel's accumulator may become to fill ``width`` bits and the padding bit."""
        reach = self.reach(low, high)
        return np.where(reach > 0, 2.0**width / np.where(reach > 0, reach, 1.0), 1.0)

    def is_finer(self, low: Array, high: Array, room: Array) -> bool:
        """Whether as many bits make smaller steps than where each channel is centred by its own values."""
        own = self.slope * self.reach(low, high)
        return bool((own**2).sum() < ((self.slope * room) ** 2).sum())

    def holds(self, low: Array, high: Array, down: Array, up: Array) -> bool:
        """Whether values expected from ``down`` to ``up`` are answered, on the way back at the worst."""
        farthest = np.maximum(np.abs(up - self.centre), np.abs(down - self.centre))
        return bool((farthest <= (1 + TURNED) * self.reach(low, high)).all())

    def fits(self, width: int, kept: int) -> bool:
        """Whether no channel saturates inside a period of ``width`` bits and the padding bit, and all tips are
        near enough to an integer."""
        return self._is_near(width - kept) and bool((self.room >= 2.0**width).all())
