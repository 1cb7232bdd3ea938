"""What the shapes of the inputs decide: everything but the batch is a number, and folds.

The graph is walked for a few sizes of the batch, with the types of tensors in place of their values, until an
operator reads nothing but shapes; from there on with values. A value that is the same for each size is a
constant. One that grows with the batch, or has equal rows along it, is known for a batch of any size.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fhe_core.graph.inference import TensorType, known_types, output_types, run_step
from fhe_core.graph.ir import Graph, Node
from fhe_core.graph.steps import Step
from fhe_core.graph.tensors import constant
from fhe_core.program.batch import Sized

#: The sizes of the batch for which values are computed. Small, because arrays may be as long as it.
_SIZES = (2, 3, 5)


@dataclass(frozen=True)
class ShapeValues:
    """The tensors of a graph that follow from the shapes of its inputs.

    Attributes:
        constants: the same for each size of the batch; read-only.
        sized: those that depend on it; None where no rule says how: samples have rows of their own.
    """

    constants: Mapping[str, np.ndarray]
    sized: Mapping[str, Sized | None]

    def decide(self, node: Node) -> bool:
        """Whether all that a node computes is among them."""
        return all(name in self.constants or name in self.sized for name in node.writes)


#: Of a graph in which no operator reads shapes.
NO_VALUES = ShapeValues({}, {})


def shape_values(graph: Graph, steps: Iterable[Step]) -> ShapeValues:
    """The tensors that the shapes of the inputs decide.

    Args:
        steps: those of the graph that can run, in order.
    """
    steps = [step for step in steps if not graph.constants.keys() >= set(step.node.writes)]
    starts = [step for step in steps if reads_shapes(step)]
    if not starts:
        return NO_VALUES
    typed = _behind(steps, (name for step in starts for name in step.node.reads))
    first = {info.shape[0] for info in graph.inputs if info.shape}
    fixed = (
        next((size for size in first if isinstance(size, int)), None) if len(first) == 1 else None
    )
    walks = [_walk(graph, steps, typed, size) for size in ((fixed,) if fixed else _SIZES)]
    constants: dict[str, np.ndarray] = {}
    sized: dict[str, Sized | None] = {}
    for name in walks[0]:
        values = [walk[name] for walk in walks if name in walk]
        if len(values) < len(walks):
            continue
        if all(_equal(values[0], other) for other in values[1:]):
            constants[name] = constant(values[0])
        else:
            sized[name] = Sized.of(dict(zip(_SIZES, values, strict=True)))
    return ShapeValues(constants, sized)


def reads_shapes(step: Step) -> bool:
    """Whether an op's result follows from the shapes of its inputs, as its class declares."""
    return step.deterministic and bool(getattr(step.spec.quantized, "reads_shapes", False))


def _behind(steps: Sequence[Step], names: Iterable[str]) -> set[str]:
    """These tensors, and all that they are computed from."""
    wanted = set(names)
    for step in reversed(steps):
        if not wanted.isdisjoint(step.node.writes):
            wanted.update(step.node.reads)
    return wanted


def _walk(
    graph: Graph, steps: Sequence[Step], typed: set[str], batch: int
) -> dict[str, np.ndarray]:
    """The values that follow from shapes, for a batch of one size."""
    types: dict[str, TensorType] = {}
    for info in graph.inputs:
        sizes = (batch, *info.shape[1:]) if info.shape else ()
        shape = tuple(size for size in sizes if isinstance(size, int))
        if info.dtype is not None and sizes and len(shape) == len(sizes):
            types[info.name] = TensorType(info.dtype, shape)
    found: dict[str, np.ndarray] = {}
    values: Mapping[str, Any] = ChainMap(found, graph.constants)  # type: ignore[arg-type]
    for step in steps:
        reads = step.node.reads
        types.update(known_types([name for name in reads if name not in types], values))
        given: dict[str, Any] | None = None
        if step.deterministic and all(name in values for name in reads):
            given = {name: values[name] for name in reads}
        elif reads_shapes(step) and all(name in types for name in reads):
            given = {name: types[name].blank() for name in reads}
        if given is not None:
            found.update(run_step(step, given) or {})
        elif not typed.isdisjoint(step.node.writes) and all(name in types for name in reads):
            types.update(output_types(step, types, values))
    return found


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return (
        a.dtype == b.dtype
        and a.shape == b.shape
        and bool(np.array_equal(a, b, equal_nan=a.dtype.kind == "f"))
    )
