"""A model with its calibration data, and how quantized modules are built from it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from fhe_core.arguments import names_of, one_of, seed_of
from fhe_core.errors import CalibrationError, InputError, PlanError
from fhe_core.graph.model import load_model, read_graph
from fhe_core.graph.passes import SAMPLES, run_passes
from fhe_core.graph.runner import NumpyModule
from fhe_core.graph.simplify import simplify
from fhe_core.graph.steps import registry_of
from fhe_core.program import host
from fhe_core.program.interpreter import recorded_tensors, samples_at_a_time
from fhe_core.program.nodes import BATCH, Node, Root
from fhe_core.program.pipeline import optimized
from fhe_core.program.program import Program
from fhe_core.program.remarks import Remark
from fhe_core.program.rules import RULES
from fhe_core.program.widths import Range, Reading, concretize, free_name, name_accumulators
from fhe_core.progress import Progress, progress_of
from fhe_core.quantization.accumulators import Accumulators, channels_of
from fhe_core.quantization.calibration import (
    TensorStats,
    calibrate,
    calibration_data,
    float_values,
    missing_values,
    no_number,
    not_finite,
    static_batch,
    undefined,
    unvaried,
)
from fhe_core.quantization.classes import Classes, classes_of
from fhe_core.quantization.counting import with_counts
from fhe_core.quantization.ends import ends_that_matter, within
from fhe_core.quantization.evidence import Evidence
from fhe_core.quantization.exact_inputs import exact_elements, that_run, unseen, with_room
from fhe_core.quantization.extremes import Extremes
from fhe_core.quantization.fusion import fusion_table
from fhe_core.quantization.module import QuantizedModule
from fhe_core.quantization.placement import Placement, is_trained, place
from fhe_core.quantization.plan import AccumulatorPlan, Plan, ReductionPlan
from fhe_core.quantization.plan_fit import check_accumulators, check_tensors
from fhe_core.quantization.planning import Settings, initial_plan
from fhe_core.quantization.recording import Recorded, record
from fhe_core.quantization.reducing import check_reduction, forms_of, left_out, reduced_graph
from fhe_core.quantization.teaching import School
from fhe_core.quantization.tuning import Lessons, line_through, tune
from fhe_core.quantization.unfused import unfused

Array = NDArray[Any]

#: Samples on which accumulators are measured. More would only move the extremes, which have headroom. How many
#: of them are looked at together, and the elements that one step may hold then: 32 MB.
_MEASURED = 4096
#: Samples on which passes over the integer program are compared.
_COMPARED = 32
_TOGETHER = 1024
_ELEMENTS = 2**22
_FITTING_ROUNDS = 4
#: Fewer calibration samples than these show little of what one answer in 10,000 is like.
_ENOUGH = 50


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
        one_of(client_side, "client_side", ("any", "minimal"), PlanError)
        self.registry: Any = registry_of(registry)
        self.progress = progress_of(progress)
        graph = read_graph(load_model(model), self.registry)
        self.data = calibration_data(graph, calibration)
        count = static_batch(graph) or SAMPLES
        samples = {name: array[:count] for name, array in self.data.items()}
        trained = is_trained(graph, self.registry)
        # Weights that were trained for integers lie on a grid, which scaling them would leave.
        seen = None if trained else self.data
        graph, self.passes = run_passes(graph, self.registry, samples, seen)
        self.graph = simplify(graph, registry=self.registry)
        self.net = NumpyModule(self.graph, registry=self.registry)
        self.client_side = client_side
        self.encrypted = _encrypted(self.graph.input_names, encrypted)
        self.seed = seed_of(seed, PlanError)
        self.recorded: Recorded | None = None
        self.reductions: Mapping[str, ReductionPlan] = {}
        self.constants: Mapping[str, Array] = {}
        self.alternatives: tuple[str, ...] = ()
        #: The session of the model as it came.
        self.whole = self
        self._classes: Classes | None = None
        self._axes: dict[str, int] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self.school = School(self.net, self.graph, self.data, seed)
        self._trained = trained
        count = len(next(iter(self.data.values())))
        with self.progress.stage("calibrating", total=count) as advance:
            self._calibrate(advance)

    def _calibrate(self, advance: Callable[[int], None] | None = None) -> None:
        """Places the ops of the graph, and looks at its tensors."""
        self.placement: Placement = place(
            self.net, self.graph, n_bits=8, client_side=self.client_side, trained=self._trained
        )
        self.stats: dict[str, TensorStats] = calibrate(
            self.net, self.data, self.placement.tensors(), seed=self.seed, advance=advance
        )
        self.exact = exact_elements(self.placement, self.net.steps, static_batch(self.graph))
        self._unseen = unseen(self.data, self.exact, self.seed)
        if self._unseen is not None:
            self._unseen = that_run(self._unseen, self.placement, self.net)
        if self._unseen is not None:
            self.stats = with_room(self.stats, self._unseen, self.placement, self.net)
        for placed in self.placement.ops:
            seen = {n: self.stats[n].seen for n in placed.node.writes if n in self.stats}
            placed.shapes = {name: shape for name, shape in seen.items() if shape is not None}
        self.stats = with_counts(self.placement, self.stats)
        self._inputs_seen = {n: self.stats[n] for n in self.graph.input_names if n in self.stats}
        ends = ends_that_matter(self.placement, self.net, self.data, self.stats)
        self.stats |= {
            n: within(self.stats[n], found) for n, found in ends.items() if n in self.stats
        }
        for placed in self.placement.ops:
            placed.op.result_ends = ends.get(placed.node.outputs[0], placed.op.result_ends)
            placed.op.input_types = tuple(
                self.stats[name].dtype if name in self.stats else None
                for name in placed.node.inputs
            )
        self._unfused = unfused(self.net, self.placement, self.data, self.seed)

    @property
    def count(self) -> int:
        """How many calibration samples there are."""
        return len(next(iter(self.data.values())))

    @property
    def classes(self) -> Classes:
        """What the model as it came says of its classes."""
        if self.whole._classes is None:
            self.whole._classes = classes_of(self.whole.net, self.whole.placement, self.whole.shape)
        return self.whole._classes

    @property
    def class_axes(self) -> Mapping[str, int]:
        """The axis of each tensor that has a score for each class, as the model or a caller's labels say."""
        return {**self.classes.axes, **self._axes}

    def with_class_axes(self, axes: Mapping[str, int]) -> Session:
        """This session of a whole model, with axes that labels told."""
        other = copy.copy(self)
        other.whole, other._axes = other, dict(axes)
        return other

    @property
    def reducible(self) -> bool:
        """Whether the model may be trained: not where it was trained for integers."""
        return not self._trained

    def reduced(
        self,
        reductions: Mapping[str, ReductionPlan],
        constants: Mapping[str, Array] | None = None,
        alternatives: Sequence[str] = (),
    ) -> Session | None:
        """A session of the same model with fewer look-ups. What it is tuned on comes from the whole one.

        Args:
            reductions: by node of this session's graph.
            constants: trained ones, by "node:input" of the reduced graph; its own by default.
            alternatives: the forms that the reduced model is brought into, see ``forms``.

        Returns:
            None where no pack can write a reduction.

        Raises:
            PlanError: a reduction or a constant does not fit the model.
        """
        for name, entry in reductions.items():
            node = next((node for node in self.graph.nodes if node.name == name), None)
            if node is not None:
                check_reduction(
                    name, entry, node, self.graph.constants, self.shape(node.outputs[0])
                )
        samples = self._first_samples()
        found = reduced_graph(
            self.graph, self.registry, reductions, constants or {}, alternatives, samples
        )
        if found is None:
            return None
        other = copy.copy(self)
        other.whole = self
        other.graph = found
        other.net = NumpyModule(found, registry=self.registry)
        other.reductions, other.constants = dict(reductions), dict(constants or {})
        other.alternatives = tuple(alternatives)
        other.recorded, other._shapes = None, {}
        other._calibrate()
        return other

    def forms(self) -> list[str]:
        """The alternatives that the packs have for this session's model, each "pack.name"."""
        found = forms_of(self.graph, self.registry, self._first_samples())
        return [name for name, _ in found]

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor of the float model, with the batch dimension 1."""
        if name not in self._shapes:
            count = static_batch(self.graph) or 1
            found = self.net.run(
                {key: array[:count] for key, array in self.data.items()}, fetch=[name]
            )
            self._shapes[name] = (1, *np.shape(found[name])[1:])
        return self._shapes[name]

    def _first_samples(self, count: int = _MEASURED) -> dict[str, Array]:
        """Some, in a whole batch: enough to compare models on, and to see how far tensors reach."""
        batch = static_batch(self.graph)
        return {name: array[: batch or count] for name, array in self.data.items()}

    # -- building

    def build(self, settings: Settings, samples: Array | None = None) -> QuantizedModule:
        """A module under ``settings``, its plan made from the calibration data.

        Args:
            samples: indices of those that weights are tuned on; None for all.
        """
        for placed in self.placement.ops:
            placed.op.n_bits = settings.nodes.get(placed.node.name, settings.op_inputs)
        plan = initial_plan(self.placement, self.stats, settings)
        plan.reductions, plan.constants = dict(self.reductions), dict(self.constants)
        plan.alternatives = list(self.alternatives)
        recorded = self._record(plan)
        measured = self._accumulators(settings, recorded)
        for _ in range(_FITTING_ROUNDS):
            if not measured.fit_weights(recorded, plan):
                break
            recorded = self._record(plan)
            # Anew: what it has worked out of the tensors recorded before is not so of these.
            measured = replace(measured, values=self.measured(recorded), recorded=recorded)
            measured.widen(measured.kept)
        nodes = Program.of(recorded.integers).nodes
        found = measured.ranges(nodes)
        for name, (node, entry) in measured.planned(recorded).items():
            found[id(node)] = entry.low, entry.high
            plan.accumulators[name] = entry
        _plan_outputs(recorded, measured, plan, found)
        module = self._finished(recorded, plan, found, measured)
        if not settings.tuning or self.placement.trained or settings.overflow == "guaranteed":
            # Trained integers are what they should be. And where bounds hold for any input they follow from
            # the weights: moving these would widen accumulators.
            return module
        return self._tuned(module, settings, samples)

    def _tuned(
        self, module: QuantizedModule, settings: Settings, samples: Array | None
    ) -> QuantizedModule:
        """The module with weights that make up for its roundings, where that can be learned."""
        lessons = self.lessons(module, samples)
        if lessons is None:
            return module
        tuned = tune(
            module.whole,
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
        for name, shift in tuned.shifts.items():
            plan.accumulators[name].shift = shift
        measured = self._accumulators(settings, recorded, plan)
        nodes = Program.of(recorded.integers).nodes
        found = measured.ranges(nodes)
        _keep_ranges(nodes, plan, found)
        _plan_outputs(recorded, measured, plan, found)
        for name, shift in tuned.shifts.items():
            plan.accumulators[name].shift = shift
        return self._finished(recorded, plan, found, measured)

    def rebuild(self, plan: Plan) -> QuantizedModule:
        """A module under a plan that is there already.

        Raises:
            PlanError: it lacks a tensor or accumulator of this model.
        """
        plan = Plan.from_json(plan.to_json())
        changed = plan.reductions or plan.constants or plan.alternatives
        if changed and self.whole is self:
            session = self.reduced(plan.reductions, plan.constants, plan.alternatives)
            if session is None:
                raise PlanError(
                    "the plan leaves out parts of activations, and no installed pack can do that",
                    expected=f"a pack that reduces {', '.join(plan.reductions)}",
                    got="none",
                    fix="install the packs with which the plan was made",
                )
            return session.rebuild(plan)
        settings = Settings.of(4, None, overflow=plan.setting("overflow"))
        bits, named = plan.setting("op_inputs"), plan.setting("weight_bits")
        for placed in self.placement.ops:
            placed.op.n_bits = named.get(placed.node.name, bits)
        check_tensors(plan, self.placement, self.shape)
        self._complete(plan)
        recorded = self._record(plan)
        nodes = Program.of(recorded.integers).nodes
        read = name_accumulators(nodes)
        ends = _linear_outputs(recorded, nodes)
        check_accumulators(plan, read, ends, nodes)
        measured = self._accumulators(settings, recorded, plan)
        found = measured.ranges(nodes)
        _keep_ranges(nodes, plan, found)
        for name, node in ends.items():
            if name in plan.accumulators:
                found[id(node)] = (plan.accumulators[name].low, plan.accumulators[name].high)
        return self._finished(recorded, plan, found, measured)

    def _complete(self, plan: Plan) -> None:
        """Adds parameters of tensors that the plan's model never quantized: only ranges to pass on."""
        names = [name for name in self.placement.tensors() if name in self.stats]
        missing = [name for name in names if name not in plan.tensors]
        if not missing:
            return
        defaults = initial_plan(
            self.placement, self.stats, Settings.of(plan.setting("op_inputs"), None)
        )
        for name in missing:
            plan.tensors[name] = defaults.tensors[name]

    def lessons(self, module: QuantizedModule, samples: Array | None) -> Lessons | None:
        """What the module that was built last may be tuned on; see ``School.lessons``."""
        if self.recorded is None:
            return None
        nodes = self.recorded.integers
        names = [node.origin.output if node.origin else "" for node in nodes]
        if not {name for placed in self.placement.ops for name in placed.node.writes}.issuperset(
            names
        ):
            return None
        values, floats = self.measured_values(self.recorded, nodes), self.measured_floats(names)
        readings = []
        for node, name in zip(nodes, names, strict=True):
            integers, real = values[id(node)], floats[name]
            if integers.shape != real.shape:
                return None
            readings.append(line_through(integers, real, axes=(0,)))
        return self.school.lessons(module, readings, self.class_axes, samples)

    def record(self, plan: Plan) -> Recorded:
        """The integer program of the model under a plan, without widths and tables.

        Raises:
            CalibrationError: a tensor that was NaN or infinite is quantized, and nothing ignores that part.
        """
        self._complete(plan)
        recorded = record(
            self.placement, plan, encrypted=self.encrypted, client_side=self.client_side
        )
        for name in sorted(recorded.used & self.stats.keys()):
            if self.stats[name].undefined:
                raise undefined(name, self.graph, self.stats, self.data)
            if any(self.stats[name].infinite):
                raise no_number(name, "infinity")
        return recorded

    def _record(self, plan: Plan) -> Recorded:
        self.recorded = self.record(plan)
        return self.recorded

    def _inputs(
        self, nodes: Iterable[Node], data: Mapping[str, Array] | None = None
    ) -> dict[str, Array]:
        """The program's inputs on the measured part of the calibration data, or on other data."""
        parts = list(self._batches(nodes, data))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _batches(
        self, nodes: Iterable[Node], data: Mapping[str, Array] | None = None
    ) -> Iterator[dict[str, Array]]:
        """The same in batches that fit into memory, or of other data."""
        nodes = list(nodes)
        inputs = [node for node in nodes if node.op == "input"]
        encoder = host.build([node.attributes["source"] for node in inputs], _name)
        measured = self._measured_data() if data is None else data
        count = len(next(iter(measured.values())))
        size = samples_at_a_time(nodes, _TOGETHER, _ELEMENTS)
        for start in range(0, count, size):
            arrays = {name: array[start : start + size] for name, array in measured.items()}

            def refuse_nan(arrays: dict[str, Array] = arrays) -> NoReturn:
                for name, array in arrays.items():
                    if np.isnan(array).any():
                        raise not_finite(name, array)
                raise CalibrationError(
                    "the part of the model that the client computes gives NaN on the calibration data",
                    expected="numbers, which can become integers",
                    fix="remove the samples for which it does, or correct the model",
                )

            integers = encoder(arrays, min(size, count - start), refuse_nan=refuse_nan)
            yield {
                node.name: np.asarray(array) for node, array in zip(inputs, integers, strict=True)
            }

    def _measured_data(self) -> dict[str, Array]:
        return {name: array[:_MEASURED] for name, array in self.data.items()}

    def measured_floats(self, names: Sequence[str]) -> dict[str, Array]:
        """Tensors of the float model, by name, on the same part of the data."""
        return float_values(self.net, self._measured_data(), names)

    def _accumulators(
        self, settings: Settings, recorded: Recorded, plan: Plan | None = None
    ) -> Accumulators:
        made = Accumulators(self.placement, settings, self.measured(recorded, plan), recorded)
        made.widen(
            made.kept if plan is None else lambda node: plan.accumulators[node.name].rounding
        )
        return made

    def measured(self, recorded: Recorded, plan: Plan | None = None) -> dict[int, Extremes]:
        """What every integer tensor of a recorded program is on the measured part of the data, by ``id``.

        Args:
            plan: whose shifts belong to the recorded weights.
        """
        nodes = Program.of(recorded.integers).nodes
        shifts = _shifts(recorded, nodes, plan) if plan else {}
        channels = channels_of(self.placement, recorded)
        parts = (None, self._unseen) if self._unseen is not None else (None,)
        count = len(next(iter(self._measured_data().values())))
        found = {id(node): Extremes(node, channels.get(id(node)), count) for node in nodes}
        for data in parts:
            for inputs in self._batches(nodes, data):
                for node, values in recorded_tensors(recorded.integers, inputs, shifts):
                    found[id(node)].add(values, drawn=data is None)
        return found

    def measured_values(self, recorded: Recorded, wanted: Iterable[Node]) -> dict[int, Array]:
        """All values of some integer tensors of a recorded program on the same data, by ``id``."""
        nodes = Program.of(recorded.integers).nodes
        parts: dict[int, list[Array]] = {id(node): [] for node in wanted}
        for inputs in self._batches(nodes):
            for node, values in recorded_tensors(recorded.integers, inputs):
                if id(node) in parts:
                    parts[id(node)].append(values)
        axes = {id(node): node.shape.index(BATCH) for node in wanted}
        return {key: np.concatenate(found, axis=axes[key]) for key, found in parts.items()}

    def _finished(
        self,
        recorded: Recorded,
        plan: Plan,
        ranges: Mapping[int, Range],
        measured: Accumulators,
    ) -> QuantizedModule:
        """The module, with what is to be expected of its accumulators on data like these."""
        module = self._module(recorded, plan, ranges)
        nodes = Program.of(recorded.integers).nodes
        named = {**name_accumulators(nodes), **_linear_outputs(recorded, nodes)}
        for name, node in named.items():
            if node.op in RULES and name in plan.accumulators:
                plan.accumulators[name].risk = measured.risk(node, plan.accumulators[name])
        count, share = len(next(iter(self.data.values()))), plan.overflow_share
        if count < _ENOUGH and share > 0:
            module.notices += (
                f"the headroom of accumulators was estimated from {count} calibration samples, which show "
                "little of what is rare: give some hundred, or overflow='guaranteed'",
            )
        if share > plan.setting("overflow_risk"):
            module.notices += (
                f"a share of {share:.1e} of answers is expected to wrap around, and at most "
                f"{plan.setting('overflow_risk'):g} was asked for: give more calibration samples, or "
                "overflow='guaranteed'",
            )
        return module

    def _module(
        self, recorded: Recorded, plan: Plan, ranges: Mapping[int, Range]
    ) -> QuantizedModule:
        def reading(node: Node) -> Reading:
            entry = plan.accumulators[node.name]
            return Reading(
                entry.rounding, entry.exact, entry.offset, entry.shift, entry.antiperiodic
            )

        outputs = _linear_outputs(recorded, Program.of(recorded.integers).nodes)
        ends = {id(n): reading(n) for n in outputs.values() if n.name in plan.accumulators}
        whole = concretize(recorded.integers, ranges, reading, ends)
        program, savings = self._optimized(whole, plan)
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
        widths = {node.name: node.width for node in whole.nodes if node.name}
        before: dict[str, int] = {}  # any rounding
        for node in whole.nodes:
            if node.op != "round":
                before.setdefault(node.name, node.width)
        for name, entry in plan.accumulators.items():
            entry.bits = before.get(name, widths.get(name, 0))
        plan.tensors = {name: t for name, t in plan.tensors.items() if name in recorded.used}
        return QuantizedModule(
            input_infos=self.graph.inputs,
            output_names=self.graph.output_labels,
            encoder=encoder,
            encoder_names=[node.name for node in inputs],
            program=program,
            whole=whole,
            decoder=decoder,
            plan=plan,
            fusion=fusion_table(self.placement, recorded),
            missing=missing_values(self.data),
            input_ranges=self._input_ranges(),
            exact={name: elements.mask for name, elements in self.exact.items()},
            packs=self._packs(),
            passes=tuple(map(str, self.passes)),
            savings=savings,
            notices=[
                *unvaried(
                    self.stats, (*self.graph.input_names, *self.graph.output_names), self.count
                ),
                *self._unfused,
                *(notice for placed in self.placement.ops for notice in placed.op.notices),
                *map(left_out, self.reductions.items()),
            ],
            evidence=Evidence(self.graph, self.whole.net, self.data, recorded),
        )

    def _input_ranges(self) -> dict[str, tuple[float, float]]:
        """The calibrated range of each input, the elements aside that are read exactly."""
        found = {}
        for name in self.graph.input_names:
            if name in self.exact:
                confined = self.data[name][:, ~self.exact[name].mask]
                if confined.size:
                    found[name] = (float(np.nanmin(confined)), float(np.nanmax(confined)))
            elif name in self._inputs_seen:
                seen = self._inputs_seen[name]
                found[name] = (seen.minimum, seen.maximum)
        return found

    def _optimized(self, whole: Program, plan: Plan) -> tuple[Program, tuple[Remark, ...]]:
        """The program without what need not be computed, and what that was, as the plan's settings allow."""
        allowed = plan.setting("savings")
        if allowed == "none":
            return whole, ()
        calibrated = allowed == "all" and plan.setting("overflow") != "guaranteed"
        # Results are compared on a few samples; what holds on the data is seen on all of them.
        data = None if calibrated else self._first_samples(_COMPARED)
        passes = self.registry.program_passes()
        return optimized(whole, passes, self._inputs(whole.inputs, data), calibrated=calibrated)

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
        headroom = measured.headroom(node)
        plan.accumulators[name] = AccumulatorPlan(low, high, offset=offset, headroom=headroom)


def _shifts(recorded: Recorded, nodes: Sequence[Node], plan: Plan) -> dict[int, Any]:
    """What the plan adds to nodes beyond their offsets, by ``id``."""
    named = {**name_accumulators(nodes), **_linear_outputs(recorded, nodes)}
    planned = {name: plan.accumulators[name].shift for name in named if name in plan.accumulators}
    return {id(named[name]): shift for name, shift in planned.items() if np.any(shift)}


def _keep_ranges(nodes: Sequence[Node], plan: Plan, found: dict[int, Range]) -> None:
    """Puts the plan's ranges of accumulators into ``found``."""
    for name, node in name_accumulators(nodes).items():
        if node.op not in ("input", "lookup"):
            entry = plan.accumulators[name]
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


def _encrypted(names: tuple[str, ...], given: Iterable[str] | None) -> frozenset[str]:
    if given is None:
        return frozenset(names)
    chosen = names_of(given, "encrypted", InputError)
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
