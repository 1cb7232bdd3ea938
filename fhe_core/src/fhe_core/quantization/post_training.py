"""Post-training quantization: from a float model and data to a ``QuantizedModule``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.errors import InputError, PlanError
from fhe_core.graph.model import load_model, read_graph
from fhe_core.graph.passes import SAMPLES, run_passes
from fhe_core.graph.runner import NumpyModule
from fhe_core.graph.simplify import simplify
from fhe_core.program import host
from fhe_core.program.interpreter import recorded_values
from fhe_core.program.nodes import BATCH, Node, Root
from fhe_core.program.program import Program
from fhe_core.program.rules import RULES
from fhe_core.program.widths import (
    Range,
    Reading,
    bits_of,
    concretize,
    free_name,
    name_accumulators,
)
from fhe_core.progress import Progress, progress_of
from fhe_core.quantization.calibration import (
    TensorStats,
    calibrate,
    calibration_data,
    static_batch,
)
from fhe_core.quantization.module import FusionRow, QuantizedModule
from fhe_core.quantization.placement import PlacedOp, Placement, place
from fhe_core.quantization.plan import AccumulatorPlan, Plan
from fhe_core.quantization.planning import (
    Settings,
    channel_factors,
    channel_offsets,
    channel_width,
    initial_plan,
    per_channel,
    planned_range,
)
from fhe_core.quantization.recording import Recorded, record
from fhe_core.registry import get_registry

Array = NDArray[Any]

#: Samples on which accumulators are measured. More would only move the extremes, which have headroom.
_MEASURED = 1024
_FITTING_ROUNDS = 4


def quantize(
    model: Any,
    calibration: Any,
    *,
    n_bits: Any = 6,
    rounding: Any = None,
    plan: Any = None,
    encrypted: Iterable[str] | None = None,
    client_side: str = "any",
    overflow: str = "calibrated",
    rounding_method: str = "approximate",
    ranges: str = "mse",
    weight_scheme: str = "symmetric",
    weight_granularity: str = "per-channel",
    p_error: float = 2.0**-40,
    seed: int = 0,
    registry: Any = None,
    progress: bool | Progress | None = None,
) -> QuantizedModule:
    """Quantize a model, without compiling it: needs no FHE backend.

    Args:
        model: path, bytes or ``onnx.ModelProto``.
        calibration: an array, a tuple of arrays, or a dict by input name; some hundred samples.
        n_bits: an int (2 to 16), or a dict of ``op_inputs``, ``op_weights``, ``model_inputs``,
            ``model_outputs`` and node names.
        rounding: bits kept of each accumulator before a look-up: an int, a dict by node name, or None
            for one more than ``op_inputs``.
        plan: a ``Plan``, its JSON file or its dict, to use as it is.
        encrypted: names of the encrypted inputs; all by default.
        client_side: ``any``: what only shapes inputs or outputs runs on the client. ``minimal``: all that
            can be stays on the server.
        overflow: ``calibrated``: accumulators keep headroom over the data. ``guaranteed``: they are wide
            enough for any input.
        rounding_method: ``approximate`` or ``exact``.
        ranges: of activations: ``minmax``, ``percentile`` or ``mse``.
        weight_scheme: ``symmetric`` or ``affine``.
        weight_granularity: ``per-channel`` or ``per-tensor``.
        p_error: probability that one look-up is wrong.
        seed: of every random choice.
        registry: where ops come from; the installed packs by default.

    Raises:
        ModelError, UnsupportedOpError, CalibrationError, PlanError, CompilationError: see each.
        PackError: a pack's graph pass changes what the model computes, or one of its hooks fails.
    """
    given = None if plan is None else Plan.of(plan)
    settings = Settings.of(
        n_bits,
        rounding,
        exact=exactness(rounding_method),
        overflow=overflow,
        ranges=ranges,
        weight_scheme=weight_scheme,
        weight_granularity=weight_granularity,
        p_error=check_p_error(p_error),
    )
    session = Session(
        model,
        calibration,
        encrypted=encrypted,
        client_side=client_side,
        seed=seed,
        registry=registry,
        progress=progress_of(progress),
    )
    return session.build(settings) if given is None else session.rebuild(given)


def exactness(method: str) -> bool:
    """Whether a rounding method is the exact one.

    Raises:
        PlanError: there is no such method.
    """
    if method not in ("approximate", "exact"):
        raise PlanError(
            f"rounding_method cannot be {method!r}",
            expected="approximate or exact",
            got=repr(method),
            fix="choose one of them",
        )
    return method == "exact"


def check_p_error(p_error: Any) -> float:
    """A probability that Concrete's optimizer has parameters for.

    Raises:
        PlanError: it is no number between 2^-128 and 0.5.
    """
    if isinstance(p_error, (int, float)) and 2.0**-128 <= p_error < 0.5:
        return float(p_error)
    raise PlanError(
        f"p_error cannot be {p_error!r}",
        expected="a probability between 2**-128 and 0.5",
        got=repr(p_error),
        fix="use 2**-40, or 2**-17 for half the cost",
    )


class Session:
    """A model with its calibration, from which modules can be built under any settings.

    What does not depend on bits is done once: reading, placing, calibrating.

    Attributes:
        recorded: what the module that was built last was recorded as, before it had widths and tables.
    """

    def __init__(
        self,
        model: Any,
        calibration: Any,
        *,
        encrypted: Iterable[str] | None = None,
        client_side: str = "any",
        seed: int = 0,
        registry: Any = None,
        progress: Progress | None = None,
    ) -> None:
        if client_side not in ("any", "minimal"):
            raise PlanError(
                f"client_side cannot be {client_side!r}",
                expected="any or minimal",
                got=repr(client_side),
                fix="choose one of them",
            )
        self.registry = get_registry() if registry is None else registry
        self.progress = progress_of(progress)
        graph = read_graph(load_model(model), self.registry)
        self.data = calibration_data(graph, calibration)
        count = static_batch(graph) or SAMPLES
        samples = {name: array[:count] for name, array in self.data.items()}
        graph, self.passes = run_passes(graph, self.registry, samples)
        self.graph = simplify(graph, registry=self.registry)
        self.net = NumpyModule(self.graph, registry=self.registry)
        self.client_side = client_side
        self.encrypted = _encrypted(self.graph.input_names, encrypted)
        self.seed = seed
        self.recorded: Recorded | None = None
        self.placement: Placement = place(self.net, self.graph, n_bits=8, client_side=client_side)
        count = len(next(iter(self.data.values())))
        with self.progress.stage("calibrating", total=count) as advance:
            self.stats: dict[str, TensorStats] = calibrate(
                self.net, self.data, self.placement.tensors(), seed=seed, advance=advance
            )

    # -- building

    def build(self, settings: Settings) -> QuantizedModule:
        """A module under ``settings``, its plan made from the calibration data."""
        for placed in self.placement.ops:
            placed.op.n_bits = settings.nodes.get(placed.node.name, settings.op_inputs)
        plan = initial_plan(self.placement, self.stats, settings)
        recorded = self._record(plan)
        values = self._measure(recorded, plan)
        widths: dict[str, int] = {}
        for _ in range(_FITTING_ROUNDS):
            if not self._fit_weights(recorded, values, plan, settings, widths):
                break
            recorded = self._record(plan)
            values = self._measure(recorded, plan)
        nodes = Program.of(recorded.integers).nodes
        found = self._ranges(nodes, values, settings)
        for name, node in name_accumulators(nodes).items():
            offset = self._offsets(node, values, settings, widths)
            if np.any(offset):
                found[id(node)] = self._offset_range(node, values, offset, settings)
            low, high = found[id(node)]
            plan.accumulators[name] = AccumulatorPlan(
                low,
                high,
                self._kept(node, settings),
                settings.exact,
                offset,
                headroom=settings.headroom,
            )
        for name, node in _linear_outputs(recorded, nodes).items():
            offset, found[id(node)] = self._output_offset(node, values, settings)
            low, high = found[id(node)]
            plan.accumulators[name] = AccumulatorPlan(
                low, high, offset=offset, headroom=settings.headroom
            )
        return self._module(recorded, plan, found)

    def rebuild(self, plan: Plan) -> QuantizedModule:
        """A module under a plan that is there already.

        Raises:
            PlanError: it lacks a tensor or accumulator of this model.
        """
        plan = Plan.from_json(plan.to_json())
        settings = Settings.of(4, None, overflow=plan.settings.get("overflow", "calibrated"))
        missing = [name for name in self.placement.tensors() if name in self.stats]
        missing = [name for name in missing if name not in plan.tensors]
        self._complete(plan, missing)
        recorded = self._record(plan)
        nodes = Program.of(recorded.integers).nodes
        values = self._measure(recorded, plan)
        found = self._ranges(nodes, values, settings)
        for name, node in name_accumulators(nodes).items():
            entry = plan.accumulators.get(name)
            if entry is None:
                raise PlanError(
                    f"the plan has no accumulator {name!r}, which this model needs",
                    expected=name,
                    got=", ".join(plan.accumulators) or "none",
                    fix="use the plan with the model that it was made for",
                )
            if node.op not in ("input", "lookup"):
                found[id(node)] = (entry.low, entry.high)
        for name, node in _linear_outputs(recorded, nodes).items():
            if name in plan.accumulators:
                found[id(node)] = (plan.accumulators[name].low, plan.accumulators[name].high)
        return self._module(recorded, plan, found)

    def _complete(self, plan: Plan, missing: list[str]) -> None:
        """Parameters of tensors that the plan's model never quantized: only ranges to pass on."""
        if not missing:
            return
        defaults = initial_plan(
            self.placement, self.stats, Settings.of(plan.settings.get("op_inputs", 6), None)
        )
        for name in missing:
            plan.tensors[name] = defaults.tensors[name]

    def _record(self, plan: Plan) -> Recorded:
        self.recorded = record(
            self.placement, plan, encrypted=self.encrypted, client_side=self.client_side
        )
        return self.recorded

    def _inputs(self, nodes: Iterable[Node]) -> dict[str, Array]:
        """The program's inputs on the measured part of the calibration data."""
        inputs = [node for node in nodes if node.op == "input"]
        encoder = host.build([node.attributes["source"] for node in inputs], _name)
        count = min(len(next(iter(self.data.values()))), _MEASURED)
        arrays = {name: array[:count] for name, array in self.data.items()}
        return dict(zip([node.name for node in inputs], encoder(arrays, count), strict=True))

    def _measure(self, recorded: Recorded, plan: Plan) -> dict[int, Array]:
        return recorded_values(recorded.integers, self._inputs(Program.of(recorded.integers).nodes))

    def _kept(self, node: Node, settings: Settings) -> int:
        keys = [node.name, node.name.split("#")[0]]
        if node.origin and node.origin.where.node:
            keys.append(node.origin.where.node)
        named = next((settings.roundings[key] for key in keys if key in settings.roundings), None)
        return named if named is not None else settings.kept_bits

    def _fit_weights(
        self,
        recorded: Recorded,
        values: Mapping[int, Array],
        plan: Plan,
        settings: Settings,
        widths: dict[str, int],
    ) -> bool:
        """Scale weights so that each channel's accumulator fills its width. Whether any changed.

        ``widths`` remembers the width that the first round found for each op's accumulator.
        """
        if settings.weight_granularity == "per-tensor":
            return False
        changed = False
        looked_up = name_accumulators(Program.of(recorded.integers).nodes)
        for placed in self.placement.ops:
            found = _weighted(placed, looked_up.values())
            if found is None:
                continue
            node, channels = found
            weight = plan.weights[placed.op.weight_name(channels.index)]
            low, high = self._channel_range(node, values, channels.output_axis, settings)
            spare = 0.0 if settings.overflow == "guaranteed" else settings.headroom
            kept = self._kept(node, settings)
            width = widths.setdefault(
                placed.node.name, channel_width(low, high, kept=kept, headroom=spare)
            )
            if width <= kept:
                continue
            factors = channel_factors(low, high, width=width, kept=kept, headroom=spare)
            if factors.max() < 1.03 and factors.min() >= 0.99:
                continue
            array = np.asarray(placed.op.constant(channels.index))
            shape = [1] * array.ndim
            shape[channels.weight_axis] = array.shape[channels.weight_axis]
            weight.scale = np.broadcast_to(weight.scale, shape) / factors.reshape(shape)
            changed = True
        return changed

    def _ranges(
        self, nodes: Iterable[Node], values: Mapping[int, Array], settings: Settings
    ) -> dict[int, Range]:
        return {
            id(node): planned_range(
                node.op,
                (float(values[id(node)].min()), float(values[id(node)].max())),
                node.bounds,
                settings,
            )
            for node in nodes
        }

    def _offsets(
        self,
        node: Node,
        values: Mapping[int, Array],
        settings: Settings,
        widths: Mapping[str, int],
    ) -> Any:
        """What centres each channel of an accumulator whose weights were fitted to a width.

        For others one number, where that saves bits; else 0.
        """
        for placed in self.placement.ops:
            found = _weighted(placed, [node])
            if found is None or placed.node.name not in widths:
                continue
            axis = found[1].output_axis % len(node.shape)
            low, high = self._channel_range(node, values, axis, settings)
            kept = self._kept(node, settings)
            offsets = channel_offsets(low, high, width=widths[placed.node.name], kept=kept)
            return offsets.reshape([-1 if i == axis else 1 for i in range(len(node.shape))])
        if node.op in RULES:
            least, most = self._ranges([node], values, settings)[id(node)]
            offset = -(least + most) // 2
            if bits_of(least + offset, most + offset) < bits_of(least, most):
                return np.full([1] * len(node.shape), offset)
        return 0

    def _output_offset(
        self, node: Node, values: Mapping[int, Array], settings: Settings
    ) -> tuple[Any, Range]:
        """What makes each element of an output positive, and its range then.

        Positive outputs may use the padding bit, so they need one bit less.
        """
        array = values[id(node)]
        axis = node.shape.index(BATCH)
        if settings.overflow == "guaranteed":
            low, high = node.low, node.high
        else:
            low, high = array.min(axis=axis, keepdims=True), array.max(axis=axis, keepdims=True)
            spare = np.ceil((high - low) * settings.headroom / 2)
            low, high = low - spare, high + spare
        # All of the width is there anyway: leave as much room below as above.
        span = 2.0 ** bits_of(0, int((high - low).max())) - 1
        return np.rint((span - high - low) / 2).astype(np.int64), (0, int(span))

    def _offset_range(
        self, node: Node, values: Mapping[int, Array], offset: Any, settings: Settings
    ) -> Range:
        shifted = values[id(node)] + offset
        bounds = int((node.low + offset).min()), int((node.high + offset).max())
        if settings.overflow == "guaranteed":
            return bounds
        # Half of the span's headroom on either side, as the offsets leave it.
        spare = settings.headroom / 2
        axes = tuple(i for i, n in enumerate(offset.shape) if n == 1)
        low, high = shifted.min(axis=axes), shifted.max(axis=axes)
        wider = (high - low) * spare
        return (
            max(bounds[0], int(np.floor((low - wider).min()))),
            min(bounds[1], int(np.ceil((high + wider).max()))),
        )

    def _channel_range(
        self, node: Node, values: Mapping[int, Array], axis: int, settings: Settings
    ) -> tuple[Array, Array]:
        """Least and largest value of each channel: on the data, or for any input if guaranteed."""
        if settings.overflow != "guaranteed":
            return per_channel(values[id(node)], node.shape, axis)
        sample = tuple(1 if n == BATCH else n for n in node.shape)
        bounds = np.stack([np.broadcast_to(b, sample) for b in (node.low, node.high)])
        return per_channel(bounds, (1, *node.shape), axis % len(node.shape) + 1)

    def _module(
        self, recorded: Recorded, plan: Plan, ranges: Mapping[int, Range]
    ) -> QuantizedModule:
        def reading(node: Node) -> Reading:
            entry = plan.accumulators[node.name]
            return Reading(entry.rounding, entry.exact, entry.offset)

        ends = _linear_outputs(recorded, Program.of(recorded.integers).nodes)
        offsets = [
            next((plan.accumulators[n].offset for n, end in ends.items() if end is node), 0)
            for node in recorded.integers
        ]
        program = concretize(recorded.integers, ranges, reading, offsets)
        slots = {id(node): f"output{i}" for i, node in enumerate(recorded.integers)}
        decoder = host.build(
            list(recorded.outputs.values()),
            lambda root: slots[id(root)],
            lambda node: _levels(
                program.outputs[recorded.integers.index(node)],
                program.offsets[recorded.integers.index(node)],
            ),
        )
        inputs = program.inputs
        encoder = host.build([node.attributes["source"] for node in inputs], _name)
        widths = {node.name: node.width for node in program.nodes if node.name}
        for name, entry in plan.accumulators.items():
            entry.bits = next(
                (n.width for n in program.nodes if n.name == name and n.op != "round"),
                widths.get(name, 0),
            )
        plan.tensors = {name: t for name, t in plan.tensors.items() if name in recorded.used}
        return QuantizedModule(
            input_infos=self.graph.inputs,
            output_names=self.graph.output_names,
            encoder=encoder,
            encoder_names=[node.name for node in inputs],
            program=program,
            decoder=decoder,
            plan=plan,
            fusion=self._fusion(recorded, plan),
            input_ranges={
                name: (self.stats[name].minimum, self.stats[name].maximum)
                for name in self.graph.input_names
                if name in self.stats
            },
            packs=self._packs(),
            passes=tuple(map(str, self.passes)),
        )

    def _fusion(self, recorded: Recorded, plan: Plan) -> list[FusionRow]:
        rows = []
        late = _after_decryption(self.placement, recorded)
        for placed in self.placement.ops:
            mode = "mixed"
            if placed.node.name in late or (
                placed.sources
                and placed.sources <= set(self.graph.input_names) - self.placement.direct_inputs
                and placed.fused
            ):
                mode = "client"
            elif placed.fused:
                mode = "float"
            rows.append(
                FusionRow(
                    placed.node.name,
                    placed.node.op_type,
                    placed.pack,
                    mode,
                    tuple(sorted(placed.sources)),
                )
            )
        return rows

    def _packs(self) -> dict[str, str]:
        used = {placed.pack for placed in self.placement.ops} | {
            placed.spec.impl_pack for placed in self.placement.ops
        }
        used |= {each.origin.name for each in self.passes}
        return {p.name: str(p.version) for p in self.registry.packs() if p.name in used}


def _linear_outputs(recorded: Recorded, nodes: Iterable[Node]) -> dict[str, Node]:
    """Outputs that leave as accumulators, and that no look-up reads too, by name."""
    read = {id(node.inputs[0]): node.inputs[0] for node in nodes if node.op == "lookup"}
    taken = {node.name for node in read.values()}
    found: dict[str, Node] = {}
    for node in recorded.integers:
        if node.op in RULES and id(node) not in read:
            node.name = free_name(node.origin.output if node.origin else node.op, taken)
            taken.add(node.name)
            found[node.name] = node
    return found


def _after_decryption(placement: Placement, recorded: Recorded) -> set[str]:
    """Nodes that run on the client: no look-up and no output accumulator comes after them."""
    nodes = Program.of(recorded.integers).nodes
    recorded_by = [node.origin for node in nodes if node.origin]
    origins = {name for origin in recorded_by for name in (origin.where.node, origin.output)}
    late: set[str] = set()
    needed = set(placement.graph.output_names)
    for placed in reversed(placement.ops):
        writes = set(placed.node.writes)
        if not writes & needed:
            continue
        users = {use.node.name for name in writes for use, _ in placement.consumers.get(name, ())}
        if {placed.node.name, *writes} & origins or not users <= late:
            continue
        late.add(placed.node.name)
        needed |= set(placed.variable)
    return late


def _encrypted(names: tuple[str, ...], given: Iterable[str] | None) -> frozenset[str]:
    if given is None:
        return frozenset(names)
    chosen = [given] if isinstance(given, str) else list(given)
    unknown = [name for name in chosen if name not in names]
    if unknown or not chosen:
        raise InputError(
            f"encrypted names {', '.join(map(repr, unknown)) or 'nothing'}",
            expected=f"some of {', '.join(names)}",
            got=repr(chosen),
            fix="name at least one input of the model",
        )
    return frozenset(chosen)


def _name(root: Root) -> str:
    return root.name


def _levels(node: Node, offset: Any) -> NDArray[np.int64]:
    """Every integer that decryption of an output can give, offsets subtracted."""
    full = 1 << node.width
    low, high = (-full, full) if node.signed else (0, 2 * full)
    offset = np.asarray(offset)
    return np.arange(low - int(offset.max()), high - int(offset.min()), dtype=np.int64)


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
