"""A model with its calibration data, and how quantized modules are built from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
from fhe_core.program.nodes import Node, Root
from fhe_core.program.program import Program
from fhe_core.program.rules import RULES
from fhe_core.program.widths import Range, Reading, concretize, free_name, name_accumulators
from fhe_core.progress import Progress, progress_of
from fhe_core.quantization.accumulators import Accumulators
from fhe_core.quantization.calibration import (
    TensorStats,
    calibrate,
    calibration_data,
    static_batch,
)
from fhe_core.quantization.module import FusionRow, QuantizedModule
from fhe_core.quantization.placement import Placement, is_trained, place
from fhe_core.quantization.plan import AccumulatorPlan, Plan
from fhe_core.quantization.planning import Settings, initial_plan
from fhe_core.quantization.recording import Recorded, record
from fhe_core.quantization.teaching import School
from fhe_core.quantization.tuning import tune
from fhe_core.registry import get_registry

Array = NDArray[Any]

#: Samples on which accumulators are measured. More would only move the extremes, which have headroom.
_MEASURED = 4096
_FITTING_ROUNDS = 4


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
        trained = is_trained(graph, self.registry)
        graph, self.passes = run_passes(graph, self.registry, samples)
        self.graph = simplify(graph, registry=self.registry)
        self.net = NumpyModule(self.graph, registry=self.registry)
        self.client_side = client_side
        self.encrypted = _encrypted(self.graph.input_names, encrypted)
        self.seed = seed
        self.recorded: Recorded | None = None
        self._school = School(self.net, self.graph, self.data, seed)
        self.placement: Placement = place(
            self.net, self.graph, n_bits=8, client_side=client_side, trained=trained
        )
        count = len(next(iter(self.data.values())))
        with self.progress.stage("calibrating", total=count) as advance:
            self.stats: dict[str, TensorStats] = calibrate(
                self.net, self.data, self.placement.tensors(), seed=seed, advance=advance
            )
        for placed in self.placement.ops:
            placed.op.input_types = tuple(
                self.stats[name].dtype if name in self.stats else None
                for name in placed.node.inputs
            )

    # -- building

    def build(self, settings: Settings, samples: Array | None = None) -> QuantizedModule:
        """A module under ``settings``, its plan made from the calibration data.

        Args:
            samples: indices of those that weights are tuned on; None for all.
        """
        for placed in self.placement.ops:
            placed.op.n_bits = settings.nodes.get(placed.node.name, settings.op_inputs)
        plan = initial_plan(self.placement, self.stats, settings)
        recorded = self._record(plan)
        measured = Accumulators(self.placement, settings, self._measure(recorded))
        for _ in range(_FITTING_ROUNDS):
            if not measured.fit_weights(recorded, plan):
                break
            recorded = self._record(plan)
            measured.values = self._measure(recorded)
        nodes = Program.of(recorded.integers).nodes
        found = measured.ranges(nodes)
        for name, node in name_accumulators(nodes).items():
            offset = measured.offset(node)
            if np.any(offset):
                found[id(node)] = measured.offset_range(node, offset)
            low, high = found[id(node)]
            plan.accumulators[name] = AccumulatorPlan(
                low,
                high,
                measured.kept(node),
                settings.exact,
                offset,
                headroom=settings.headroom,
            )
        _plan_outputs(recorded, measured, plan, found)
        module = self._module(recorded, plan, found)
        if not settings.tuning or self.placement.trained or settings.overflow == "guaranteed":
            # Trained integers are what they should be. And where bounds hold for any input they follow from
            # the weights: moving these would widen accumulators.
            return module
        return self._tuned(module, settings, samples)

    def _tuned(
        self, module: QuantizedModule, settings: Settings, samples: Array | None
    ) -> QuantizedModule:
        """The module with weights that make up for its roundings, where that can be learned."""
        lessons = self._school.lessons(module, samples)
        if lessons is None:
            return module
        tuned = tune(
            module.program,
            lessons,
            steps=settings.tuning,
            p_error=settings.p_error,
            seed=self.seed,
        )
        plan = module.plan
        plan.kernels = dict(tuned.kernels)
        plan.settings["tuning"] = settings.tuning
        self._complete(plan)
        recorded = self._record(plan)
        measured = Accumulators(self.placement, settings, self._measure(recorded))
        nodes = Program.of(recorded.integers).nodes
        found = measured.ranges(nodes)
        _keep_ranges(nodes, plan, found)
        _plan_outputs(recorded, measured, plan, found)
        for name, shift in tuned.shifts.items():
            plan.accumulators[name].shift = shift
        return self._module(recorded, plan, found)

    def rebuild(self, plan: Plan) -> QuantizedModule:
        """A module under a plan that is there already.

        Raises:
            PlanError: it lacks a tensor or accumulator of this model.
        """
        plan = Plan.from_json(plan.to_json())
        settings = Settings.of(4, None, overflow=plan.settings.get("overflow", "calibrated"))
        self._complete(plan)
        recorded = self._record(plan)
        nodes = Program.of(recorded.integers).nodes
        found = Accumulators(self.placement, settings, self._measure(recorded)).ranges(nodes)
        _keep_ranges(nodes, plan, found)
        for name, node in _linear_outputs(recorded, nodes).items():
            if name in plan.accumulators:
                found[id(node)] = (plan.accumulators[name].low, plan.accumulators[name].high)
        return self._module(recorded, plan, found)

    def _complete(self, plan: Plan) -> None:
        """Adds parameters of tensors that the plan's model never quantized: only ranges to pass on."""
        names = [name for name in self.placement.tensors() if name in self.stats]
        missing = [name for name in names if name not in plan.tensors]
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

    def _measure(self, recorded: Recorded) -> dict[int, Array]:
        return recorded_values(recorded.integers, self._inputs(Program.of(recorded.integers).nodes))

    def _module(
        self, recorded: Recorded, plan: Plan, ranges: Mapping[int, Range]
    ) -> QuantizedModule:
        def reading(node: Node) -> Reading:
            entry = plan.accumulators[node.name]
            return Reading(entry.rounding, entry.exact, entry.offset, entry.shift)

        outputs = _linear_outputs(recorded, Program.of(recorded.integers).nodes)
        ends = {id(n): reading(n) for n in outputs.values() if n.name in plan.accumulators}
        program = concretize(recorded.integers, ranges, reading, ends)
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
            output_names=self.graph.output_labels,
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


def _plan_outputs(
    recorded: Recorded, measured: Accumulators, plan: Plan, found: dict[int, Range]
) -> None:
    """Plans the outputs that leave as accumulators, and adds their ranges to ``found``."""
    nodes = Program.of(recorded.integers).nodes
    for name, node in _linear_outputs(recorded, nodes).items():
        offset, found[id(node)] = measured.output_offset(node)
        low, high = found[id(node)]
        headroom = measured.settings.headroom
        plan.accumulators[name] = AccumulatorPlan(low, high, offset=offset, headroom=headroom)


def _keep_ranges(nodes: Sequence[Node], plan: Plan, found: dict[int, Range]) -> None:
    """Puts the plan's ranges of accumulators into ``found``.

    Raises:
        PlanError: it has none for one of them.
    """
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
