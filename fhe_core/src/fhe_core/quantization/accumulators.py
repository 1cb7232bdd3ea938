"""What a plan decides of accumulators from their values on the calibration data: ranges, offsets, scales.

A rounding keeps the topmost bits of an accumulator's width. So each output channel's weights are scaled
until its values fill that width, and an offset centres them in it; both are free.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.program.antiperiodic import Triangle, triangles
from fhe_core.program.interpreter import group_values
from fhe_core.program.nodes import BATCH, Node
from fhe_core.program.program import Program
from fhe_core.program.reaching import widen_choices
from fhe_core.program.rules import RULES
from fhe_core.program.widths import (
    MOST_ACCUMULATOR_BITS,
    Range,
    Reading,
    bits_of,
    name_accumulators,
)
from fhe_core.program.wrapping import TURNED
from fhe_core.quantization.extremes import Extremes, Flat, Span, Window
from fhe_core.quantization.periods import SPARE, Period
from fhe_core.quantization.placement import PlacedOp, Placement
from fhe_core.quantization.plan import AccumulatorPlan, Plan
from fhe_core.quantization.planning import (
    Settings,
    channel_factors,
    channel_offsets,
    channel_width,
    usable_span,
)
from fhe_core.quantization.recording import Recorded

Array = NDArray[Any]

#: Values of an accumulator at which it is looked where a function is flat.
_POINTS = 257
#: Share of its range that a channel may give up at either end for the rounding of its weights.
_GIVEN_UP = 0.02
#: Share of the measured range that an output's width has room for in any case.
_USUAL = 0.2
#: Bits of an output of which one more costs at most a tenth, where there is no look-up: measured are 39 more of
#: 706 (thousand) at 7 bits, of 946 at 11, of 1181 at 15.
_BITS_PER_TENTH = 5


@dataclass
class Accumulators:
    """The integer tensors of a recorded graph, as they were on the calibration data.

    Attributes:
        values: of each node by ``id``.
        recorded: what they are tensors of.
        widths: by ONNX node, the width that its weights were fitted to.
        halved: of these, those whose look-up needs half a table, and so one bit less.
        ends: by ONNX node, the bits of an output's range that its weights were fitted to.
    """

    placement: Placement
    settings: Settings
    values: Mapping[int, Extremes]
    recorded: Recorded
    widths: dict[str, int] = field(default_factory=dict)
    halved: dict[str, bool] = field(default_factory=dict)
    ends: dict[str, int] = field(default_factory=dict)
    _windows: dict[Extremes, tuple[Span, Flat, Window]] = field(default_factory=dict)

    @functools.cached_property
    def nodes(self) -> tuple[Node, ...]:
        return Program.of(self.recorded.integers).nodes

    @functools.cached_property
    def _lookups(self) -> Mapping[int, list[Node]]:
        """The look-ups that read each tensor, by its ``id``."""
        found: dict[int, list[Node]] = defaultdict(list)
        for node in self.nodes:
            if node.op == "lookup":
                found[id(node.inputs[0])].append(node)
        return found

    @property
    def outputs(self) -> Sequence[Node]:
        """What the client decrypts: beyond its width it comes out at the other end."""
        return self.recorded.integers

    @property
    def looked_up(self) -> bool:
        """Whether there are look-ups, which the widths of linear operations make dearer."""
        return any(node.op == "lookup" for node in self.nodes)

    @functools.cached_property
    def count(self) -> int:
        """How many tensors share the risk that one of them leaves its width."""
        return sum(entry.planned for entry in self.values.values())

    def kept(self, node: Node) -> int | None:
        """Bits that the rounding before a look-up keeps; None where there is none."""
        return None if node.exact else self._rounded_to(node)

    def widen(self, kept: Callable[[Node], int | None]) -> None:
        """Takes into account what roundings to so many bits do to the integers that are chosen by look-ups."""
        for key, off in widen_choices(self.nodes, kept).items():
            self.values[key].off = off

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
        if self.settings.weight_granularity == "per-tensor":
            return False
        changed = False
        nodes = Program.of(recorded.integers).nodes
        looked_up = name_accumulators(nodes)
        triangular = self._triangular(recorded)
        ends = [n for n in recorded.integers if looked_up and n.name not in looked_up]
        by_op: dict[str | None, list[Node]] = defaultdict(list)
        for node in (*looked_up.values(), *ends):
            by_op[node.origin.where.node if node.origin else None].append(node)
        for placed in self.placement.ops:
            found = _weighted(placed, by_op[placed.node.name])
            if found is None:
                continue
            node, channels = found
            weight = plan.weights[placed.op.weight_name(channels.index)]
            axis = channels.output_axis % len(node.shape)
            if any(node is end for end in ends):
                factors = (
                    None if weight.trained else self._end_factors(placed.node.name, node, axis)
                )
            else:
                period = None
                if id(node) in triangular and not weight.trained:
                    period = Period.of(*triangular[id(node)], axis)
                factors = self._factors(placed.node.name, node, axis, period)
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

    def _end_factors(self, name: str, node: Node, axis: int) -> NDArray[np.float64] | None:
        """How much smaller the channels of an output become for its headroom; None where it has room enough.

        Its width is that of the look-ups before it, whose cost it would raise by a quarter. Its weights are
        better off with a part of a bit less.
        """
        if node.exact or self.settings.overflow == "guaranteed":
            return None
        span = self.span(node)
        shape = tuple(1 if n == BATCH else n for n in node.shape)
        others = tuple(i for i in range(len(shape)) if i != axis)
        needed = (span.up - span.down).reshape(shape).max(axis=others) + 2
        if name not in self.ends:
            measured = float((span.high - span.low).max()) * (1 + _USUAL)
            least = max(measured, float(needed.max()) / 2)
            self.ends[name] = min(bits_of(0, int(least)), MOST_ACCUMULATOR_BITS + 1)
        room = 0.99 * 2.0 ** self.ends[name]
        return np.minimum(1.0, room / needed) if needed.max() > room else None

    def _factors(
        self, name: str, node: Node, axis: int, period: Period | None
    ) -> NDArray[np.float64] | None:
        """How much larger each channel of an accumulator may become; None where it is narrow enough as it is.

        Args:
            name: of the ONNX node, whose width is decided when it is first asked for.
            period: of its look-up's triangles, if it may use the padding bit.
        """
        span, window, kept = self.span(node), self.window(node), self._rounded_to(node)
        low, high = span.low, span.high
        if name not in self.halved:
            half = period and period.width(low, high, kept, exact=self.settings.exact)
            finer = half and period and period.is_finer(low, high, window.most - window.least)
            finer = finer and period and period.holds(low, high, span.down, span.up)
            self.halved[name] = bool(finer)
            whole = channel_width(window.least, window.most, kept=kept)
            # Weights lose a little rather than that no circuit could hold them.
            most = max(MOST_ACCUMULATOR_BITS, channel_width(low, high, kept=kept))
            self.widths[name] = half if half and finer else min(whole, most)
        width = self.widths[name]
        if self.halved[name]:
            return period.factors(low, high, width) if period else None
        if width <= kept:
            return None
        return channel_factors(window.least, window.most, width=width, kept=kept)

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
                headroom = self.headroom(node)
                entry = AccumulatorPlan(*values, kept, settings.exact, offset, headroom=headroom)
            found[name] = node, entry
        return found

    def _halved(
        self, node: Node, triangular: Mapping[int, tuple[Node, Triangle]]
    ) -> AccumulatorPlan | None:
        """The plan of an accumulator whose look-up needs half a table; None for others."""
        for placed in self.placement.of(node.origin):
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
                headroom=SPARE,
                antiperiodic=True,
            )
        return None

    def span(self, node: Node) -> Span:
        """How far the channels of an accumulator are expected to reach, without offsets."""
        return self._planned(node)[0]

    def window(self, node: Node) -> Window:
        """What they are planned for."""
        return self._planned(node)[2]

    def headroom(self, node: Node) -> float:
        """How much of its measured range each channel may grow by, at least."""
        values, window = self.values[id(node)], self.window(node)
        low, high = values.of_channels(values.low, values.high)
        measured = high - low
        varies = measured > 0
        more = (window.most - window.least)[varies] / measured[varies] - 1
        return float(more.min()) if varies.any() else 0.0

    def _planned(self, node: Node) -> tuple[Span, Flat, Window]:
        measured, settings = self.values[id(node)], self.settings
        if measured not in self._windows:
            guaranteed = node.exact or settings.overflow == "guaranteed"
            given = guaranteed or settings.headroom is not None
            risk = settings.overflow_risk / max(self.count, 1)
            span = measured.span(risk, headroom=settings.headroom, guaranteed=guaranteed)
            flat = Flat.nowhere(span) if given else self._flat(node, span)
            self._windows[measured] = span, flat, span.window(flat)
        return self._windows[measured]

    def _flat(self, node: Node, span: Span) -> Flat:
        """Where all that reads an accumulator is flat; nowhere if the client reads it."""
        readers = self._lookups.get(id(node), [])
        if not readers or any(node is output for output in self.outputs):
            return Flat.nowhere(span)
        if any(n.attributes["root"] is not node or n.shape != node.shape for n in readers):
            return Flat.nowhere(span)
        grid = span.grid(_POINTS)
        measured = self.values[id(node)]
        integers = measured.spread(np.rint(grid))
        found = [
            Flat.of(grid, measured.gathered(group_values(reader, integers, _POINTS)))
            for reader in readers
        ]
        return functools.reduce(Flat.joined, found)

    def ranges(self, nodes: Iterable[Node]) -> dict[int, Range]:
        """The range that each node is planned for, by ``id``, without offsets."""
        return {id(node): self._range(node) for node in nodes}

    def _range(self, node: Node) -> Range:
        if node.exact or node.op in ("input", "lookup") or self.settings.overflow == "guaranteed":
            return node.bounds
        measured = self.values[id(node)]
        if not measured.planned:
            low, high = measured.whole
            return int(low), int(high)
        window = self.window(node)
        return int(np.floor(window.least.min())), int(np.ceil(window.most.max()))

    def offset(self, node: Node) -> Any:
        """What centres each channel of an accumulator whose weights were fitted to a width.

        For others one number, where that saves bits; else 0.
        """
        for placed in self.placement.of(node.origin):
            found = _weighted(placed, [node])
            if found is None or placed.node.name not in self.widths:
                continue
            axis = found[1].output_axis % len(node.shape)
            window, kept = self.window(node), self._rounded_to(node)
            width = self.widths[placed.node.name]
            offsets = channel_offsets(window.least, window.most, width=width, kept=kept)
            return offsets.reshape([-1 if i == axis else 1 for i in range(len(node.shape))])
        if node.op in RULES:
            least, most = self._range(node)
            offset = -(least + most) // 2
            if bits_of(least + offset, most + offset) < bits_of(least, most):
                return np.full([1] * len(node.shape), offset)
        return 0

    def output_offset(self, node: Node) -> tuple[Any, Range]:
        """What makes each element of an output positive, and its range then.

        Positive outputs may use the padding bit, so they need one bit less.
        """
        window, span = self.window(node), self.span(node)
        low, high = np.floor(window.least), np.ceil(window.most)
        bits = bits_of(0, int((high - low).max()))
        least, most = span.least, span.most
        # Without look-ups a bit costs 3 to 5 %, and beside them what is there anyway nothing.
        more = 0 if self.looked_up else bits // _BITS_PER_TENTH
        if bits_of(0, int((most - least).max())) <= min(bits + more, MOST_ACCUMULATOR_BITS):
            low, high = least, most
            bits = bits_of(0, int((high - low).max()))
        # All of the width is there anyway: leave as much room below as above.
        room = 2.0**bits - 1
        offset = np.rint((room - high - low) / 2).astype(np.int64)
        return self.values[id(node)].spread(offset[None]).copy(), (0, int(room))

    def offset_range(self, node: Node, offset: Any) -> Range:
        """The range that a node with an offset is planned for."""
        if node.exact or self.settings.overflow == "guaranteed":
            return int((node.low + offset).min()), int((node.high + offset).max())
        window, flat = self.window(node), np.reshape(offset, -1)
        least = int(np.floor((window.least + flat).min()))
        most = int(np.ceil((window.most + flat).max()))
        width = self._fitted_width(node)
        if width is None:
            return least, most
        # Rounding the weights moved some channels a little beyond what they were scaled to. They give up
        # some headroom for it: one more bit would leave half of everybody's levels unused.
        floor = -(2 ** (width - 1))
        ceiling = floor + int(usable_span(width, self._rounded_to(node)))
        spare = _GIVEN_UP * (window.most - window.least)
        below, above = (window.least + spare + flat).min(), (window.most - spare + flat).max()
        if below >= floor and above <= ceiling:
            least, most = max(least, floor), min(most, ceiling)
        return least, most

    def risk(self, node: Node, entry: AccumulatorPlan) -> float:
        """The share of answers in which an accumulator is expected to leave the room that it has.

        Beyond one end a look-up goes on as at this end for as long as there is room at the other; where it uses
        the padding bit it turns back, and may go as far again.
        """
        if node.exact or self.settings.overflow == "guaranteed":
            return 0.0
        measured, (span, flat, _) = self.values[id(node)], self._planned(node)
        offset = np.broadcast_to(np.reshape(entry.offset, -1), span.low.shape)
        if entry.antiperiodic:
            half = (1 + TURNED) * 2.0**entry.bits
            return measured.left(-half - offset, half - offset)
        if any(node is end for end in self.outputs) and not entry.rounding:
            return measured.left(entry.low - offset, entry.high - offset)
        reading = Reading(entry.rounding, entry.exact)
        width = reading.bits_for((entry.low, entry.high)) if entry.rounding else entry.bits
        floor = -(2.0 ** (width - 1)) if entry.low < 0 else 0.0
        room = usable_span(width, entry.rounding or width)
        window = Window(floor - offset, floor + room - offset, np.zeros(offset.shape, bool))
        return measured.left(*flat.reach(window))

    def _fitted_width(self, node: Node) -> int | None:
        """The width that an accumulator's weights were fitted to, if they were."""
        fitted = (p for p in self.placement.of(node.origin) if p.node.name in self.widths)
        return next((self.widths[p.node.name] for p in fitted if _weighted(p, [node])), None)


def channels_of(placement: Placement, recorded: Recorded) -> dict[int, tuple[int, ...]]:
    """The axes along which the tensors have channels that a look-up or the client reads, by ``id``.

    Outputs have an offset for each element, accumulators one for each output channel of weights; what has
    neither is one channel.
    """
    looked_up = name_accumulators(Program.of(recorded.integers).nodes)
    found: dict[int, tuple[int, ...]] = {}
    for node in recorded.integers:
        if node.op in RULES and not node.exact:
            found[id(node)] = tuple(i for i, n in enumerate(node.shape) if n != BATCH)
    for node in looked_up.values():
        if node.op not in RULES or node.exact:
            continue
        weighted = [_weighted(placed, [node]) for placed in placement.of(node.origin)]
        found[id(node)] = next(((w[1].output_axis,) for w in weighted if w), ())
    return found


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
