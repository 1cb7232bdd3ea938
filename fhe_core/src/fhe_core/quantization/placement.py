"""Each op of a graph in its place: quantized class, constants, producers, and whether it fuses.

The first step of quantization. It finds, for every tensor, the unique integer tensors that it is computed
from; ``can_fuse`` is asked in graph order, when those of the op's inputs are known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fhe_core.errors import CompilationError, FheError, UnsupportedOpError
from fhe_core.graph.ir import Graph, Node
from fhe_core.graph.runner import NumpyModule
from fhe_core.graph.steps import Resolver, Step, choose_quantized, resolve_steps
from fhe_core.quantization.op import QuantizedOp
from fhe_core.quantization.quantizers import QuantizationParameters
from fhe_core.registry import OpSpec

LEAST_OPSET = 7


class FloatOp(QuantizedOp):
    """Stands in for an op without a quantized class, which can only run after decryption."""

    def can_fuse(self) -> bool:
        return False


@dataclass
class PlacedOp:
    """One node with its quantized op.

    Attributes:
        variable: names of its inputs that are not constant, in order.
        fused: what ``can_fuse`` said: float mode, part of a look-up; else mixed mode, on integers.
        sources: the unique integer tensors that its inputs are computed from.
        float_only: it has no quantized class.
        late: it has one, and runs after decryption all the same.
    """

    node: Node
    spec: OpSpec
    op: QuantizedOp
    variable: tuple[str, ...]
    fused: bool
    sources: frozenset[str]
    float_only: bool = False
    late: bool = False

    @property
    def is_float(self) -> bool:
        """Whether it computes on real values, or moves them."""
        moves = self.op.keeps_scale and not self.op.shapes_outputs
        return self.fused or self.float_only or self.late or moves

    @property
    def pack(self) -> str | None:
        return self.spec.quantized_pack or self.spec.impl_pack


@dataclass
class Placement:
    """All ops of a graph in order.

    Attributes:
        sources: for each tensor, the integer tensors that it is a function of, element by element.
        direct_inputs: model inputs that are encrypted as they are, because nothing but functions of each
            element stands between them and an output.
        trained: the model was trained for integers: its weights may lie on a grid.
    """

    graph: Graph
    ops: tuple[PlacedOp, ...]
    sources: Mapping[str, frozenset[str]]
    direct_inputs: frozenset[str]
    consumers: Mapping[str, tuple[tuple[PlacedOp, int], ...]] = field(default_factory=dict)
    trained: bool = False

    def fixed(self) -> dict[str, QuantizationParameters]:
        """How the tensors are quantized whose op does not leave that to the planner."""
        found = {}
        for placed in self.ops:
            for index, name in enumerate(placed.node.outputs):
                parameters = placed.op.output_quantization(index)
                if name and parameters is not None:
                    found[name] = parameters
        return found

    def tensors(self) -> list[str]:
        """The names of everything that may be quantized: inputs and results, in graph order."""
        names = list(self.graph.input_names)
        return names + [name for placed in self.ops for name in placed.node.writes]


def is_trained(graph: Graph, registry: Resolver) -> bool:
    """Whether some op fixes how its output is quantized. Asked before constants are folded, because
    some of these ops are folded with the weights that they quantize."""
    steps, _ = resolve_steps(graph, registry)
    kinds = {step.spec.quantized for step in steps}
    return any(
        kind is not None
        and issubclass(kind, QuantizedOp)
        and kind.output_quantization is not QuantizedOp.output_quantization
        for kind in kinds
    )


def place(
    net: NumpyModule, graph: Graph, *, n_bits: int, client_side: str, trained: bool = False
) -> Placement:
    """Place every op of a simplified graph.

    Args:
        trained: the model was trained for integers.

    Raises:
        UnsupportedOpError: an op has no quantized form where it needs one, or the opset is too old.
        CompilationError: nothing is encrypted.
        PackError: a pack's hook fails to choose a quantized class.
    """
    specs = {step.node.name: step for step in net.steps}
    constants = graph.constants
    sources: dict[str, frozenset[str]] = {name: frozenset([name]) for name in graph.input_names}
    ops: list[PlacedOp] = []
    for node in graph.nodes:
        step = choose_quantized(specs[node.name], net.registry, constants)
        _check_opset(node)
        placed = _place(node, step, constants, sources, n_bits)
        ops.append(placed)
        for name in node.writes:
            sources[name] = placed.sources if placed.fused else frozenset([name])
    consumers = _consumers(ops)
    if client_side != "minimal":
        _leave_for_the_client(ops, graph, consumers)
    _check_float_only(ops, graph)
    direct = _direct_inputs(graph, sources, client_side)
    return Placement(graph, tuple(ops), sources, direct, _consumers(ops), trained)


def _check_opset(node: Node) -> None:
    if node.domain == "" and node.opset < LEAST_OPSET:
        raise UnsupportedOpError(
            "models this old run in float only",
            where=node.where(),
            expected=f"opset {LEAST_OPSET} or newer",
            got=f"opset {node.opset}",
            fix="convert the model with onnx.version_converter",
        )


def _place(
    node: Node,
    step: Step,
    constants: Mapping[str, Any],
    sources: Mapping[str, frozenset[str]],
    n_bits: int,
) -> PlacedOp:
    spec = step.spec
    if step.bodies or node.captures:
        raise UnsupportedOpError(
            "an op with a subgraph cannot be encrypted",
            where=node.where(spec.impl_pack),
            fix="unroll it when the model is exported",
        )
    variable = tuple(name for name in node.inputs if name and name not in constants)
    fixed = {i: constants[name] for i, name in enumerate(node.inputs) if name in constants}
    incoming = frozenset().union(*(sources[name] for name in variable)) if variable else frozenset()
    kind: type[QuantizedOp] = spec.quantized or FloatOp
    try:
        op = kind(
            n_bits,
            node.name,
            set(incoming),
            fixed,
            input_names=node.inputs,
            output_names=node.outputs,
            where=node.where(spec.quantized_pack or spec.impl_pack),
            impl=step.impl,
            **step.attributes,
        )
        fused = bool(op.can_fuse()) and bool(incoming)
    except FheError:
        raise
    except Exception as error:
        raise CompilationError(
            f"{kind.__name__} failed when it was placed in the graph: {error}",
            where=node.where(spec.quantized_pack),
            fix="report this to the pack's authors",
        ) from error
    return PlacedOp(node, spec, op, variable, fused, incoming, spec.quantized is None)


def _leave_for_the_client(
    ops: Sequence[PlacedOp],
    graph: Graph,
    consumers: Mapping[str, Sequence[tuple[PlacedOp, int]]],
) -> None:
    """Ops that shape outputs run after decryption, if no integer arithmetic follows and some precedes."""
    clear = set(graph.input_names)
    for placed in ops:
        if placed.is_float and not clear.isdisjoint(placed.variable):
            clear.update(placed.node.writes)
    after: set[str] = set()
    for placed in reversed(ops):
        users = {use.node.name for name in placed.node.writes for use, _ in consumers.get(name, ())}
        if not users <= after:
            continue
        placed.late = placed.op.shapes_outputs and clear.isdisjoint(placed.variable)
        if placed.is_float:
            after.add(placed.node.name)


def _check_float_only(ops: Sequence[PlacedOp], graph: Graph) -> None:
    """Ops without a quantized form may only be followed by what runs after decryption too."""
    late: dict[str, PlacedOp] = {}
    for placed in ops:
        blocker = next((late[name] for name in placed.variable if name in late), None)
        if blocker is None and not placed.float_only:
            continue
        first = placed if blocker is None else blocker
        if blocker is not None and not placed.is_float:
            raise UnsupportedOpError(
                "the op has no quantized form, and is followed by "
                f"{placed.node.op_type} ({placed.node.name!r}), which works on integers",
                where=first.node.where(first.spec.impl_pack),
                expected="a quantized op, or nothing but output shaping after it",
                fix="install a pack with a quantized form of it (fhe-ops list), or move it last",
            )
        for name in placed.node.writes:
            late[name] = first


def _direct_inputs(
    graph: Graph, sources: Mapping[str, frozenset[str]], client_side: str
) -> frozenset[str]:
    names = frozenset(graph.input_names)
    if client_side == "minimal":
        return names
    reached: frozenset[str] = frozenset().union(
        *(sources.get(name, frozenset()) for name in graph.output_names)
    )
    return names & reached


def _consumers(ops: Iterable[PlacedOp]) -> dict[str, tuple[tuple[PlacedOp, int], ...]]:
    found: dict[str, list[tuple[PlacedOp, int]]] = {}
    for placed in ops:
        for index, name in enumerate(placed.node.inputs):
            if name in placed.variable:
                found.setdefault(name, []).append((placed, index))
    return {name: tuple(uses) for name, uses in found.items()}
