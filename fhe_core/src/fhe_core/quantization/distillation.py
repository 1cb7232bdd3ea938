"""Float constants trained until a reduced model gives what the whole one gives.

The teacher is the float model as it came (Hinton, Vinyals, Dean, 2015). What is trained are the weights, and
the biases beside them, of ops that have a scale for each output channel: as the integers of a program whose
widths are so fine that it is as good as the float model, by the gradients of `tuning`. How an op lays its
weights out in the program is found by recording it with numbered ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.errors import CompilationError
from fhe_core.graph.runner import NumpyModule
from fhe_core.program.adjoints import WEIGHTED
from fhe_core.program.nodes import BATCH, Node
from fhe_core.program.program import Program
from fhe_core.quantization.calibration import float_values
from fhe_core.quantization.op import WeightChannels
from fhe_core.quantization.placement import PlacedOp
from fhe_core.quantization.plan import Plan, WeightPlan
from fhe_core.quantization.planning import Settings, widened
from fhe_core.quantization.reducing import constant_key, with_constants
from fhe_core.quantization.tuning import EXAMINED, Tuned, line_through, tune

if TYPE_CHECKING:
    from fhe_core.quantization.session import Session

Array = NDArray[Any]

#: Bits of activations, of weights and of roundings that stand for real numbers: the first that fit.
_FINE = ((8, 8, 9), (7, 7, 9), (6, 7, 8), (6, 6, 8), (5, 5, 8), (4, 4, 8))
#: Training moves accumulators further than inference ever does.
_HEADROOM = 0.6


@dataclass(frozen=True)
class _Trainable:
    """Weights as a program multiplies by them.

    Attributes:
        codes: for each of the program's integers, the position of the constant's element that it is.
    """

    placed: PlacedOp
    channels: WeightChannels
    codes: NDArray[np.int64]


def distilled(
    session: Session, samples: Array | None, *, steps: int, seed: int
) -> dict[str, Array]:
    """The constants of a session's model after training, by "node:input".

    Args:
        samples: indices of the calibration samples that may be learned from; None for all.
        steps: of gradient descent, on 64 blends each.

    Returns:
        Only what was trained: nothing where an output of the program is no tensor of the teacher.
    """
    module = _fine(session)
    lessons = session.lessons(module, samples) if module else None
    if module is None or lessons is None:
        return {}
    trainable = _trainable(session, module.plan)
    learned = tune(module.whole, lessons, steps=steps, p_error=module.p_error, seed=seed)
    initial = {
        node.attributes["kernel"]: node.attributes["weights"]
        for node in module.whole.nodes
        if "kernel" in node.attributes
    }
    found: dict[str, Array] = {}
    for name, entry in trainable.items():
        if name not in initial or initial[name].shape != entry.codes.shape:
            continue
        index = entry.channels.index
        old = np.asarray(entry.placed.op.constant(index), np.float64)
        moved = np.zeros(old.size)
        moved[entry.codes.reshape(-1)] = (learned.kernels[name] - initial[name]).reshape(-1)
        scale = module.plan.weights[entry.placed.op.weight_name(index)].scale
        found[constant_key(entry.placed.node.name, index)] = old + moved.reshape(old.shape) * scale
    meant = _meant(session, module.whole, learned)
    return _with_biases(session, found, meant, session.school.blends(samples))


def _fine(session: Session) -> Any:
    """A module that is as good as the float model; None where no width fits."""
    for activations, weights, kept in _FINE:
        # A look-up that uses the padding bit goes back where values grow beyond its range.
        settings = Settings.of(
            activations, kept, ranges="minmax", headroom=_HEADROOM, savings="none"
        )
        try:
            return session.build(widened(settings, op_weights=weights))
        except CompilationError as error:
            if not error.problem.startswith("an accumulator needs"):
                raise
    return None


def _trainable(session: Session, plan: Plan) -> dict[str, _Trainable]:
    """The weights whose elements each stand at one place of the program, by the name of their kernel."""
    found: dict[str, _Trainable] = {}
    chosen = {}
    for placed in session.placement.ops:
        channels = placed.op.weight_channels()
        if channels is not None and placed.op.constant(channels.index) is not None:
            chosen[placed.node.name] = (placed, channels)
    with _numbered(list(chosen.values()), plan) as numbered:
        recorded = session.record(numbered)
    for node in Program.of(recorded.integers).nodes:
        name = node.attributes.get("kernel")
        if name is None or node.op not in WEIGHTED or node.origin is None:
            continue
        placed, channels = chosen[node.origin.where.node or ""]
        codes = node.attributes["weights"]
        count = int(np.size(placed.op.constant(channels.index)))
        if np.array_equal(np.sort(codes, axis=None), np.arange(1, count + 1)):
            found[name] = _Trainable(placed, channels, codes - 1)
    return found


@contextmanager
def _numbered(ops: list[tuple[PlacedOp, WeightChannels]], plan: Plan) -> Iterator[Plan]:
    """In the body each element of the ops' weights is its number, from 1, and so it is in the plan."""
    weights = dict(plan.weights)
    held = []
    for placed, channels in ops:
        old = placed.op.constant_inputs[channels.index]
        held.append((placed.op.constant_inputs, channels.index, old))
        weights[placed.op.weight_name(channels.index)] = WeightPlan(16, 1.0)
    try:
        for constants, index, old in held:
            constants[index] = np.arange(1.0, np.size(old) + 1).reshape(np.shape(old))
        yield replace(plan, weights=weights, kernels={})
    finally:
        for constants, index, old in held:
            constants[index] = old


def _meant(session: Session, program: Program, learned: Tuned) -> dict[str, tuple[PlacedOp, Array]]:
    """By ONNX output, the op and the mean that each channel of it has after training.

    What an integer of an accumulator means is found by regression on what the float model has for it.
    """
    recorded = session.recorded
    if recorded is None:
        return {}
    ops = {placed.node.name: placed for placed in session.placement.ops}
    nodes: dict[str, tuple[PlacedOp, Node, int]] = {}
    for node in Program.of(recorded.integers).nodes:
        placed = ops.get(node.origin.where.node or "") if node.origin else None
        channels = placed.op.weight_channels() if placed else None
        if placed is None or channels is None or channels.bias is None:
            continue
        if node.name in learned.means and node.op != "lookup" and node.shape[:1] == (BATCH,):
            nodes[node.name] = (placed, node, channels.output_axis % len(node.shape))
    values = session.measured_values(recorded, [node for _, node, _ in nodes.values()])
    outputs = {name: placed.node.outputs[0] for name, (placed, _, _) in nodes.items()}
    real = session.measured_floats(list(outputs.values()))
    found = {}
    for name, (placed, node, axis) in nodes.items():
        x, y = values[id(node)], real[outputs[name]]
        if x.shape == y.shape:
            others = tuple(i for i in range(x.ndim) if i != axis)
            slope, intercept = line_through(x, y, others)
            mean = learned.means[name].mean(
                axis=tuple(i for i in range(x.ndim - 1) if i + 1 != axis)
            )
            found[outputs[name]] = (placed, slope * mean + intercept)
    return found


def _with_biases(
    session: Session,
    weights: dict[str, Array],
    meant: dict[str, tuple[PlacedOp, Array]],
    blends: dict[str, Array],
) -> dict[str, Array]:
    """The constants, with biases that give every channel the mean that it has after training.

    One op after the other: what comes later depends on what comes before.
    """
    found = dict(weights)
    first = {name: array[:EXAMINED] for name, array in blends.items()}
    for output, (placed, wanted) in meant.items():
        channels = placed.op.weight_channels()
        old = placed.op.constant(channels.bias) if channels and channels.bias is not None else None
        if channels is None or channels.bias is None or old is None or np.size(old) != wanted.size:
            continue
        net = NumpyModule(with_constants(session.graph, found), registry=session.registry)
        values = float_values(net, first, [output])[output]
        axis = channels.output_axis % values.ndim
        others = tuple(i for i in range(values.ndim) if i != axis)
        moved = wanted - values.mean(axis=others)
        key = constant_key(placed.node.name, channels.bias)
        found[key] = np.asarray(old, np.float64) + moved.reshape(np.shape(old))
    return found
