"""What a plan decides of accumulators from their values on the calibration data: ranges, offsets, scales.

A rounding keeps the topmost bits of an accumulator's width. So each output channel's weights are scaled
until its values fill that width, and an offset centres them in it; both are free.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.program.antiperiodic import Triangle, triangles
from fhe_core.program.nodes import BATCH, Node
from fhe_core.program.program import Program
from fhe_core.program.rules import RULES
from fhe_core.program.widths import Range, bits_of, name_accumulators
from fhe_core.quantization.extremes import Extremes
from fhe_core.quantization.periods import SPARE, Period
from fhe_core.quantization.placement import PlacedOp, Placement
from fhe_core.quantization.plan import AccumulatorPlan, Plan
from fhe_core.quantization.planning import (
    Settings,
    channel_factors,
    channel_offsets,
    channel_width,
    planned_range,
    usable_span,
)
from fhe_core.quantization.recording import Recorded

Array = NDArray[Any]


@dataclass
class Accumulators:
    """The integer tensors of a recorded graph, as they were on the calibration data.

    Attributes:
        values: of each node by ``id``.
        widths: by ONNX node, the width that its weights were fitted to.
        halved: of these, those whose look-up needs half a table, and so one bit less.
    """

    placement: Placement
    settings: Settings
    values: Mapping[int, Extremes]
    widths: dict[str, int] = field(default_factory=dict)
    halved: dict[str, bool] = field(default_factory=dict)

    def kept(self, node: Node) -> int | None:
        """Bits that the rounding before a look-up keeps; None where there is none."""
        return None if node.exact else self._rounded_to(node)

    def _rounded_to(self, node: Node) -> int:
        settings = self.settings
        keys = [node.name, node.name.split("#")[0]]
        if node.origin and node.origin.where.node:
            keys.append(node.origin.where.node)
        named = next((settings.roundings[key] for key in keys if key in settings.roundings), None)
        return named if named is not None else settings.kept_bits

    def fit_weights(self, recorded: Recorded, plan: Plan) -> bool:
        """Scale weights so that each channel's accumulator fills its width. Whether any changed.

        The width of the first round stays.
        """
        settings = self.settings
        if settings.weight_granularity == "per-tensor":
            return False
        changed = False
        looked_up = name_accumulators(Program.of(recorded.integers).nodes)
        triangular = self._triangular(recorded)
        for placed in self.placement.ops:
            found = _weighted(placed, looked_up.values())
            if found is None:
                continue
            node, channels = found
            weight = plan.weights[placed.op.weight_name(channels.index)]
            period = None
            if id(node) in triangular and not weight.trained:
                axis = channels.output_axis % len(node.shape)
                period = Period.of(*triangular[id(node)], axis)
            factors = self._factors(placed.node.name, node, channels.output_axis, period)
            if factors is None:
                continue
            if weight.trained:
                # Whole multiples of a grid: the weights stay what they are.
                factors = np.maximum(np.floor(factors), 1.0)
            if factors.max() < 1.03 and factors.min() >= 0.99:
                continue
            array = np.asarray(placed.op.constant(channels.index))
            shape = [1] * array.ndim
            shape[channels.weight_axis] = array.shape[channels.weight_axis]
            weight.scale = np.broadcast_to(weight.scale, shape) / factors.reshape(shape)
            changed = True
        return changed

    def _factors(
        self, name: str, node: Node, axis: int, period: Period | None
    ) -> NDArray[np.float64] | None:
        """How much larger each channel of an accumulator may become; None where it is narrow enough as it is.

        Args:
            name: of the ONNX node, whose width is decided when it is first asked for.
            period: of its look-up's triangles, if it may use the padding bit.
        """
        low, high = self._channel_range(node, axis)
        kept = self._rounded_to(node)
        spare = 0.0 if self.settings.overflow == "guaranteed" else self.settings.headroom
        if name not in self.halved:
            half = period and period.width(low, high, kept, exact=self.settings.exact)
            self.halved[name] = bool(half and period and period.is_finer(low, high, spare))
            whole = channel_width(low, high, kept=kept, headroom=spare)
            self.widths[name] = half if half and self.halved[name] else whole
        width = self.widths[name]
        if self.halved[name]:
            return period.factors(low, high, width) if period else None
        if width <= kept:
            return None
        return channel_factors(low, high, width=width, kept=kept, headroom=spare)

    def _triangular(self, recorded: Recorded) -> dict[int, tuple[Node, Triangle]]:
        """Accumulators whose look-up may need half a table only."""
        if self.settings.overflow == "guaranteed" or self.settings.savings == "none":
            return {}  # what is guaranteed to stay in its width needs no period to come back into
        return triangles(Program.of(recorded.integers).nodes, recorded.integers)

    def planned(self, recorded: Recorded) -> dict[str, tuple[Node, AccumulatorPlan]]:
        """What is planned for each accumulator that a look-up reads, by name."""
        settings = self.settings
        nodes = Program.of(recorded.integers).nodes
        triangular = self._triangular(recorded)
        found: dict[str, tuple[Node, AccumulatorPlan]] = {}
        for name, node in name_accumulators(nodes).items():
            kept = self.kept(node)
            entry = self._halved(node, triangular)
            if entry is None:
                offset = self.offset(node)
                moved = np.any(offset)
                values = self.offset_range(node, offset) if moved else self.ranges([node])[id(node)]
                entry = AccumulatorPlan(
                    *values, kept, settings.exact, offset, headroom=settings.headroom
                )
            found[name] = node, entry
        return found

    def _halved(
        self, node: Node, triangular: Mapping[int, tuple[Node, Triangle]]
    ) -> AccumulatorPlan | None:
        """The plan of an accumulator whose look-up needs half a table; None for others."""
        for placed in self.placement.ops:
            found = _weighted(placed, [node]) if self.halved.get(placed.node.name) else None
            if found is None or id(node) not in triangular:
                continue
            axis = found[1].output_axis % len(node.shape)
            period = Period.of(*triangular[id(node)], axis)
            width, kept = self.widths[placed.node.name], self._rounded_to(node)
            if period is None or not period.fits(width, kept):
                return None
            offset = -period.centre.reshape(
                [-1 if i == axis else 1 for i in range(len(node.shape))]
            )
            return AccumulatorPlan(
                -(2**width),
                2**width - 1,
                kept,
                self.settings.exact,
                offset,
                headroom=min(SPARE, self.settings.headroom),
                antiperiodic=True,
            )
        return None

    def ranges(self, nodes: Iterable[Node]) -> dict[int, Range]:
        """The range that each node is planned for, by ``id``, without offsets."""
        return {
            id(node): node.bounds
            if node.exact
            else planned_range(
                node.op,
                self.values[id(node)].whole,
                node.bounds,
                self.settings,
            )
            for node in nodes
        }

    def offset(self, node: Node) -> Any:
        """What centres each channel of an accumulator whose weights were fitted to a width.

        For others one number, where that saves bits; else 0.
        """
        for placed in self.placement.ops:
            found = _weighted(placed, [node])
            if found is None or placed.node.name not in self.widths:
                continue
            axis = found[1].output_axis % len(node.shape)
            low, high = self._channel_range(node, axis)
            kept = self._rounded_to(node)
            offsets = channel_offsets(low, high, width=self.widths[placed.node.name], kept=kept)
            return offsets.reshape([-1 if i == axis else 1 for i in range(len(node.shape))])
        if node.op in RULES:
            least, most = self.ranges([node])[id(node)]
            offset = -(least + most) // 2
            if bits_of(least + offset, most + offset) < bits_of(least, most):
                return np.full([1] * len(node.shape), offset)
        return 0

    def output_offset(self, node: Node) -> tuple[Any, Range]:
        """What makes each element of an output positive, and its range then.

        Positive outputs may use the padding bit, so they need one bit less.
        """
        measured, settings = self.values[id(node)], self.settings
        if node.exact or settings.overflow == "guaranteed":
            low, high = node.low, node.high
        else:
            low, high = measured.low, measured.high
            spare = np.ceil((high - low) * settings.headroom / 2)
            low, high = low - spare, high + spare
        # All of the width is there anyway: leave as much room below as above.
        span = 2.0 ** bits_of(0, int((high - low).max())) - 1
        return np.rint((span - high - low) / 2).astype(np.int64), (0, int(span))

    def offset_range(self, node: Node, offset: Any) -> Range:
        """The range that a node with an offset is planned for."""
        settings = self.settings
        measured = self.values[id(node)]
        bounds = int((node.low + offset).min()), int((node.high + offset).max())
        if node.exact or settings.overflow == "guaranteed":
            return bounds
        # Half of the span's headroom on either side, as the offsets leave it.
        spare = settings.headroom / 2
        axes = tuple(i for i, n in enumerate(offset.shape) if n == 1)
        low = (measured.low + offset).min(axis=axes)
        high = (measured.high + offset).max(axis=axes)
        wider = (high - low) * spare
        least = max(bounds[0], int(np.floor((low - wider).min())))
        most = min(bounds[1], int(np.ceil((high + wider).max())))
        width = self._fitted_width(node)
        if width is None:
            return least, most
        # Rounding the weights moved some channels a little beyond what they were scaled to. They give up
        # some headroom for it: one more bit would leave half of everybody's levels unused.
        floor = -(2 ** (width - 1))
        ceiling = floor + int(usable_span(width, self._rounded_to(node)))
        half = wider / 2
        if (low - half).min() >= floor and (high + half).max() <= ceiling:
            least, most = max(least, floor), min(most, ceiling)
        return least, most

    def _fitted_width(self, node: Node) -> int | None:
        """The width that an accumulator's weights were fitted to, if they were."""
        fitted = (p for p in self.placement.ops if p.node.name in self.widths)
        return next((self.widths[p.node.name] for p in fitted if _weighted(p, [node])), None)

    def _channel_range(self, node: Node, axis: int) -> tuple[Array, Array]:
        """Least and largest value of each channel: on the data, or for any input if guaranteed."""
        if self.settings.overflow != "guaranteed":
            return self.values[id(node)].of_channels(axis)
        sample = tuple(1 if n == BATCH else n for n in node.shape)
        bounds = Extremes(node)
        for bound in (node.low, node.high):
            bounds.add(np.broadcast_to(bound, sample))
        return bounds.of_channels(axis)


def _weighted(placed: PlacedOp, accumulators: Iterable[Node]) -> Any:
    """The accumulator that an op's weights compute directly, with its channels; or None."""
    channels = placed.op.weight_channels()
    if channels is None or placed.op.constant(channels.index) is None:
        return None
    own = [n for n in accumulators if n.origin and n.origin.where.node == placed.node.name]
    if len(own) != 1 or own[0].op in ("input", "lookup"):
        return None
    count = np.shape(placed.op.constant(channels.index))[channels.weight_axis]
    shape = own[0].shape
    fits = -len(shape) <= channels.output_axis < len(shape)
    # A layout op between the weights and the look-up may have moved the channels elsewhere.
    return (own[0], channels) if fits and shape[channels.output_axis] == count else None
