"""Runs the ``q_impl``s of a graph once, on tensors: what comes out is the integer program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np

from fhe_core.errors import CompilationError, FheError, PlanError, Where
from fhe_core.program.adjoints import WEIGHTED
from fhe_core.program.batch import as_exported, without_number
from fhe_core.program.nodes import (
    BATCH,
    HostInput,
    Node,
    Origin,
    Value,
    exported_for,
    recording,
    roots,
)
from fhe_core.program.program import Program
from fhe_core.program.rules import RULES
from fhe_core.program.tensor import Tensor, on_client
from fhe_core.program.widths import free_name
from fhe_core.quantization.array import QuantizedArray
from fhe_core.quantization.calibration import static_batch
from fhe_core.quantization.joins import at_join
from fhe_core.quantization.op import QuantizedOp
from fhe_core.quantization.placement import PlacedOp, Placement
from fhe_core.quantization.plan import Plan
from fhe_core.quantization.results import results_of


@dataclass(frozen=True)
class Recorded:
    """A graph as recorded under one plan.

    Attributes:
        outputs: the model's outputs, as float functions of integer tensors; by name.
        integers: the integer tensors that they start from: what the client decrypts.
        used: names of the tensors whose parameters something has asked for.
    """

    outputs: Mapping[str, Value]
    integers: tuple[Node, ...]
    used: frozenset[str]


def record(
    placement: Placement,
    plan: Plan,
    *,
    encrypted: frozenset[str],
    client_side: str,
) -> Recorded:
    """Record the whole graph.

    Raises:
        CompilationError: an op mixes elements where it said that it would not, or fails.
    """
    with exported_for(static_batch(placement.graph)):
        return _record(placement, plan, encrypted, client_side)


def _record(
    placement: Placement, plan: Plan, encrypted: frozenset[str], client_side: str
) -> Recorded:
    values: dict[str, QuantizedArray] = {}
    for info in placement.graph.inputs:
        shape = (BATCH, *(n for n in (info.shape or ())[1:] if isinstance(n, int)))
        host = HostInput(
            info.name,
            shape,
            np.dtype(info.dtype or np.float32),
            encrypted=info.name in encrypted,
        )
        with recording(Origin(info.name, Where(node=info.name))):
            values[info.name] = _entered(host, plan, direct=info.name in placement.direct_inputs)
    for placed in placement.ops:
        placed.op.plan = plan
        with recording(placed.origin):
            values.update(_second_readings(placed, values, plan))
            values.update(run_op(placed, values))
    outputs: dict[str, Value] = {}
    for info in placement.graph.outputs:
        name = info.name
        with recording(Origin(name, Where(node=name))):
            left = Tensor(_leaving(name, values, placement, client_side))
            # The model's own dtype: the arithmetic in between is in float64.
            declared = info.dtype is not None and info.dtype.kind == "f" and left.dtype.kind == "f"
            outputs[info.label or name] = left.astype(info.dtype).value if declared else left.value
    found: dict[int, Node] = {}
    for value in outputs.values():
        found.update((id(root), root) for root in roots(value) if isinstance(root, Node))
    if not found:
        raise CompilationError(
            "nothing in this model is computed on encrypted data",
            fix="compile a model whose outputs depend on its inputs",
        )
    # A model input that enters in several ways, in slices for example, is several inputs of the circuit.
    taken: set[str] = set()
    for node in Program.of(found.values()).inputs:
        node.name = free_name(node.name, taken)
        taken.add(node.name)
    _use_kernels(Program.of(found.values()).nodes, placement, plan)
    used = frozenset(name for name, array in values.items() if array.is_planned)
    return Recorded(outputs, tuple(found.values()), used)


def _use_kernels(nodes: Sequence[Node], placement: Placement, plan: Plan) -> None:
    """Names the weights that tuning may move, those with a scale for each channel, and puts in what it chose.

    Raises:
        PlanError: the plan's integers have another shape than the model's weights.
    """
    tunable = {p.node.name for p in placement.ops if p.op.weight_channels() is not None}
    taken: set[str] = set()
    for node in nodes:
        if node.op in WEIGHTED and node.origin and node.origin.where.node in tunable:
            name = free_name(node.origin.output, taken)
            taken.add(name)
            node.attributes["kernel"] = name
            weights = plan.kernels.get(name)
            if weights is not None and weights.shape != node.attributes["weights"].shape:
                raise PlanError(
                    f"kernels[{name!r}] of the plan does not fit the model",
                    where=node.where,
                    expected=f"integers of shape {node.attributes['weights'].shape}",
                    got=f"shape {weights.shape}",
                    fix="use the plan with the model that it was made for",
                )
            node.attributes["weights"] = node.attributes["weights"] if weights is None else weights
        if plan.kernels and node.op in RULES:
            intervals = [(source.low, source.high) for source in node.inputs]
            node.low, node.high = RULES[node.op].interval(intervals, node.attributes)


def _entered(host: HostInput, plan: Plan, *, direct: bool) -> QuantizedArray:
    tensor = plan.tensors.get(host.name)
    if tensor is None:
        raise CompilationError(
            "the plan has no entry for a model input",
            where=Where(node=host.name),
            fix="add it under `tensors`, or compile without a plan",
        )
    array = QuantizedArray(tensor.bits, Tensor(host), params=tensor.parameters)
    if not direct:
        return array
    # Integers from the start: what follows is computed on them, and not by the client.
    return QuantizedArray(
        tensor.bits, array.qvalues, value_is_float=False, params=tensor.parameters
    )


def _second_readings(
    placed: PlacedOp, values: Mapping[str, QuantizedArray], plan: Plan
) -> dict[str, QuantizedArray]:
    """The inputs of an op for which the plan has another scale at this op, by `at_join`."""
    entries = {name: plan.tensors.get(at_join(name, placed)) for name in placed.variable}
    return {
        at_join(name, placed): QuantizedArray(
            entry.bits, values[name].values, params=entry.parameters
        )
        for name, entry in entries.items()
        if entry is not None
    }


def run_op(placed: PlacedOp, values: Mapping[str, QuantizedArray]) -> dict[str, QuantizedArray]:
    """The outputs of an op by name, recorded where its inputs are encrypted.

    Args:
        values: its inputs by name.

    Raises:
        CompilationError: it cannot be computed so, fails, or returns something else.
    """
    inputs = [values.get(at_join(name, placed), values[name]) for name in placed.variable]
    try:
        encrypted = not (placed.late or placed.early)
        if encrypted and any(isinstance(array.values, Tensor) for array in inputs):
            with on_client() if placed.decrypted else nullcontext():
                result = placed.op(*inputs)
        else:
            # On the client; or computed from shapes alone, which are no secret: nothing to quantize.
            result = QuantizedOp.q_impl(placed.op, *inputs, **placed.op.attrs)
    except FheError as error:
        raise _at(error, placed) from error.__cause__
    except MemoryError:
        raise
    except Exception as error:
        problem = f"{type(error).__name__}: {without_number(str(error))}"
        raise CompilationError(
            f"{type(placed.op).__name__}.q_impl failed: {problem}",
            where=placed.op.where,
            fix=as_exported(placed.fix),
        ) from error
    return results_of(placed, result)


def _at(error: FheError, placed: PlacedOp) -> FheError:
    """``error`` with a place, where it has none."""
    if error.where != Where():
        return error
    return type(error)(
        error.problem,
        where=placed.op.where,
        expected=error.expected,
        got=error.got,
        fix=error.fix,
    )


def _leaving(
    name: str, values: dict[str, QuantizedArray], placement: Placement, client_side: str
) -> Value:
    """An output as a float function of integer tensors.

    What follows the last integer tensor runs after decryption, unless that tensor is an input: then the
    model would do nothing under encryption.
    """
    array = values.get(name)
    if array is None:
        raise CompilationError(
            "an output is constant, so there is nothing to decrypt",
            where=Where(node=name),
            fix="remove that output from the model",
        )
    value = array.values
    if not isinstance(value, Tensor):
        raise CompilationError(
            "an output does not depend on encrypted data",
            where=Where(node=name),
            fix="remove that output from the model",
        )
    starts = roots(value.value)
    clear = [root for root in starts if not isinstance(root, Node) or root.op == "input"]
    fused = name in placement.producers and placement.producers[name].fused
    stays = client_side == "minimal" and fused and len(starts) == 1
    if clear or stays:
        try:
            parameters = array.quantizer.params
            integers = QuantizedArray(
                array.n_bits, array.qvalues, value_is_float=False, params=parameters
            )
            return integers.values.value
        except CompilationError:
            if clear:
                raise
            # No look-up computes it (the place of a maximum, say), so the client does, without a quantizer.
            values[name] = QuantizedArray(array.n_bits, value)
    return value.value
