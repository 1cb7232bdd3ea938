"""Holds a plan that was given against the model: names that it has, and shapes that go with its tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from fhe_core.arguments import shown
from fhe_core.errors import PlanError, Where
from fhe_core.program.nodes import BATCH, Node
from fhe_core.quantization.joins import at_join
from fhe_core.quantization.op import QuantizedOp
from fhe_core.quantization.placement import Placement
from fhe_core.quantization.plan import Plan

_FIX = "use the plan with the model that it was made for"


def check_tensors(
    plan: Plan, placement: Placement, shape_of: Callable[[str], tuple[int, ...]]
) -> None:
    """Before a plan is recorded.

    Args:
        shape_of: a tensor of the model, the batch dimension 1.

    Raises:
        PlanError: the plan names tensors or weights that the model has not, or has arrays that do not broadcast
            to a tensor.
    """
    graph = placement.graph
    written = {name for placed in placement.ops for name in placed.node.writes}
    tensors = {*graph.input_names, *graph.output_names, *written}
    constants = {
        placed.op.weight_name(index): placed.op.constant(index)
        for placed in placement.ops
        for index in (*placed.op.constant_inputs, *_weights_of_its_own(placed.op))
    }
    again = {at_join(name, p): name for p in placement.ops for name in p.variable}
    check_names("tensors", plan.tensors, {*tensors, *again}, "tensor")
    check_names("weights", plan.weights, constants, "constant input")
    for name, tensor in plan.tensors.items():
        given = [np.shape(tensor.zero_point), np.shape(tensor.low)]
        if any(given):
            check_shapes(f"tensors[{name!r}]", given, shape_of(again.get(name, name)))
    for name, weight in plan.weights.items():
        if constants[name] is not None:  # known once its op is recorded
            given = [np.shape(weight.scale), np.shape(weight.zero_point)]
            check_shapes(f"weights[{name!r}]", given, np.shape(constants[name]))


def _weights_of_its_own(op: QuantizedOp) -> tuple[int, ...]:
    """The place of an op's weights: of some they are an attribute, and no input."""
    channels = op.weight_channels()
    return (channels.index,) if channels is not None else ()


def check_accumulators(
    plan: Plan, read: Mapping[str, Node], ends: Mapping[str, Node], nodes: Sequence[Node]
) -> None:
    """Once a plan is recorded.

    Args:
        read: the integers that a look-up reads, by the plan's names.
        ends: those that leave without one.
        nodes: of the program.

    Raises:
        PlanError: the plan lacks one that is read, names accumulators or kernels that the program has not, or
            has offsets that do not broadcast to one.
    """
    missing = next((name for name in read if name not in plan.accumulators), None)
    if missing is not None:
        raise PlanError(
            f"the plan has no accumulator {missing!r}, which this model needs",
            expected=missing,
            got=", ".join(plan.accumulators) or "none",
            fix=_FIX,
        )
    named = {**read, **ends}
    kernels = {node.attributes["kernel"] for node in nodes if "kernel" in node.attributes}
    check_names("accumulators", plan.accumulators, named, "accumulator")
    check_names("kernels", plan.kernels, kernels, "product")
    for name, entry in plan.accumulators.items():
        node = named[name]
        shape = tuple(1 if n == BATCH else n for n in node.shape)
        given = [np.shape(entry.offset), np.shape(entry.shift)]
        check_shapes(f"accumulators[{name!r}]", given, shape, node.where)
        total = np.asarray(entry.offset) + np.asarray(entry.shift)
        least, most = int((node.low + total).min()), int((node.high + total).max())
        if (
            plan.setting("overflow") == "guaranteed"
            and not entry.low <= least <= most <= entry.high
        ):
            raise PlanError(
                f"the plan guarantees that nothing wraps, and {name!r} is wider than it says",
                where=node.where,
                expected=f"a range that holds {least} to {most}",
                got=f"{entry.low} to {entry.high}",
                fix="widen it, or set overflow to calibrated in the plan's settings",
            )
        if entry.antiperiodic and name in ends:
            raise PlanError(
                f"the plan keeps half of the period of {name!r}, which no look-up reads",
                where=node.where,
                fix="set antiperiodic to false for that accumulator",
            )


def check_names(part: str, given: Iterable[str], known: Iterable[str], thing: str) -> None:
    """Raises PlanError for what a part of the plan names and the model has not.

    Args:
        thing: what it has to be the name of.
    """
    names = sorted(known)
    unknown = next((name for name in given if name not in names), None)
    if unknown is not None:
        raise PlanError(
            f"{part} of the plan name {shown(unknown)}, which is no {thing} of the model",
            expected=", ".join(names[:8]) + ("..." if len(names) > 8 else "") or "none",
            got=shown(unknown),
            fix=_FIX,
        )


def check_shapes(
    what: str, given: Iterable[tuple[int, ...]], shape: tuple[int, ...], where: Where | None = None
) -> None:
    """Raises PlanError for arrays of an entry that do not broadcast to a shape."""
    shapes = list(given)
    try:
        fits = np.broadcast_shapes(*shapes, shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise PlanError(
            f"{what} of the plan does not fit the model",
            where=where,
            expected=f"arrays that broadcast to {shape}",
            got=f"shapes {', '.join(map(str, shapes))}",
            fix=_FIX,
        )
