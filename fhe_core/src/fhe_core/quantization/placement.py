"""Each op of a graph in its place: quantized class, constants, producers, and whether it fuses.

The first step of quantization. It finds, for every tensor, the unique integer tensors that it is computed
from; ``can_fuse`` is asked in graph order, when those of the op's inputs are known.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from fhe_core.errors import CompilationError, FheError, ResourceError, UnsupportedOpError, Where
from fhe_core.graph.ir import Graph, Node
from fhe_core.graph.runner import NumpyModule
from fhe_core.graph.shapes import NO_VALUES, ShapeValues, shape_values
from fhe_core.graph.steps import Resolver, Step, choose_quantized, resolve_steps
from fhe_core.program.batch import BATCH
from fhe_core.program.nodes import Origin
from fhe_core.quantization.interface import interface_errors
from fhe_core.quantization.op import QuantizedOp
from fhe_core.quantization.quantizers import QuantizationParameters
from fhe_core.registry import OpSpec, to_mend


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
        early: it has one, and runs before encryption all the same: it joins what the client computes there.
        decrypted: it reads what is decrypted already.
        shapes: of its outputs in the float model, with the number of samples; empty before calibration.
    """

    node: Node
    spec: OpSpec
    op: QuantizedOp
    variable: tuple[str, ...]
    fused: bool
    sources: frozenset[str]
    float_only: bool = False
    late: bool = False
    early: bool = False
    decrypted: bool = False
    shapes: Mapping[str, tuple[int, tuple[int, ...]]] = field(default_factory=dict)

    @property
    def is_float(self) -> bool:
        """Whether it computes on real values, or moves them."""
        moves = self.op.keeps_scale and not self.op.shapes_outputs
        return self.fused or self.float_only or self.late or self.early or moves

    @property
    def shares_scale(self) -> bool:
        """Whether its inputs meet at one scale, as integers."""
        return self.op.shares_scale and not (self.fused or self.early)

    @property
    def origin(self) -> Origin:
        """What is recorded in its name."""
        computes = type(self.op).q_impl is not QuantizedOp.q_impl
        return Origin(self.node.outputs[0], self.op.where, computes, self.fused)

    @property
    def pack(self) -> str | None:
        return self.spec.quantized_pack or self.spec.impl_pack

    @property
    def fix(self) -> str:
        """Who can mend the op, as the end of an error."""
        return to_mend(self.spec.quantized_origin or self.spec.impl_origin)


@dataclass
class Placement:
    """All ops of a graph in order.

    Attributes:
        sources: for each tensor, the integer tensors that it is a function of, element by element.
        direct_inputs: model inputs that are encrypted as they are, because nothing but functions of each
            element stands between them and an output.
        trained: the model was trained for integers: its weights may lie on a grid.
        public: what the shapes of the inputs decide, and no op computes.
    """

    graph: Graph
    ops: tuple[PlacedOp, ...]
    sources: Mapping[str, frozenset[str]]
    direct_inputs: frozenset[str]
    consumers: Mapping[str, tuple[tuple[PlacedOp, int], ...]] = field(default_factory=dict)
    trained: bool = False
    public: ShapeValues = NO_VALUES

    def constant(self, name: str, batch: int) -> Any:
        """The value of a constant of the graph, or of what follows from shapes; None of what is neither."""
        sized = self.public.sized.get(name)
        return sized.at(batch) if sized else self.fixed_constants.get(name)

    @cached_property
    def fixed_constants(self) -> Mapping[str, Any]:
        """The constants that are the same for each size of the batch, by name."""
        return ChainMap(dict(self.public.constants), dict(self.graph.constants))

    @cached_property
    def producers(self) -> Mapping[str, PlacedOp]:
        """The op that writes each tensor, by the tensor's name."""
        return {name: placed for placed in self.ops for name in placed.node.writes}

    @cached_property
    def _by_node(self) -> Mapping[str, PlacedOp]:
        return {placed.node.name: placed for placed in self.ops}

    def of(self, origin: Origin | None) -> tuple[PlacedOp, ...]:
        """The op that an integer operation comes from, if any: none or one."""
        placed = self._by_node.get(origin.where.node or "") if origin else None
        return (placed,) if placed else ()

    def fixed(self) -> dict[str, QuantizationParameters]:
        """How the tensors are quantized whose op does not leave that to the planner."""
        found = {}
        for placed in self.ops:
            for index, name in enumerate(placed.node.outputs):
                parameters = placed.op.output_quantization(index)
                if name and parameters is not None:
                    found[name] = parameters
        return found

    def clear(self) -> set[str]:
        """The inputs, and what is computed from them without integer arithmetic on the way."""
        return _clear(self.ops, self.graph)

    @cached_property
    def before_encryption(self) -> frozenset[str]:
        """The inputs that are not encrypted as they are, and what the client computes from these alone."""
        return frozenset(_before(self.ops, self.graph, self.direct_inputs))

    @property
    def encoded_by_ops(self) -> frozenset[str]:
        """The model inputs that only ops read which turn them into integers themselves."""
        return _encoded_by_ops(self.graph, self.consumers)

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
        CompilationError: nothing is encrypted, or an input has no fixed shape.
        PackError: a pack's hook fails to choose a quantized class.
    """
    placement, errors = try_to_place(
        graph, net.steps, net.registry, n_bits=n_bits, client_side=client_side, trained=trained
    )
    for error in errors:
        raise error
    return placement


def try_to_place(
    graph: Graph,
    steps: Iterable[Step],
    registry: Resolver,
    *,
    n_bits: int,
    client_side: str,
    trained: bool = False,
) -> tuple[Placement, list[FheError]]:
    """The ops of a simplified graph that can be placed, and everything that keeps it from compiling.

    Args:
        steps: of the nodes that can run; the others, and what fails to be placed, might be functions of
            each element.
    """
    known = {step.node.name: step for step in steps}
    public = shape_values(graph, known.values())
    sized = {name: value for name, value in public.sized.items() if value is not None}
    spelled = {name: value.at(BATCH) for name, value in sized.items()}
    constants = {**graph.constants, **public.constants, **spelled}
    sources: dict[str, frozenset[str]] = {name: frozenset([name]) for name in graph.input_names}
    ops: list[PlacedOp] = []
    errors = [*interface_errors(graph), *_public_outputs(graph, public)]
    for node in graph.nodes:
        if public.decide(node):
            continue
        behind = frozenset().union(*(sources.get(name, frozenset()) for name in node.reads))
        sources.update((name, behind) for name in node.writes)
        if node.name not in known:
            continue
        try:
            step = choose_quantized(known[node.name], registry, constants)
            _refuse_own_rows(node, public)
            placed = _place(node, step, constants, sources, n_bits)
            placed.op.sized = {id(spelled[n]): sized[n] for n in node.reads if n in sized}
            placed.op.client_side = client_side
        except ResourceError:
            raise
        except FheError as error:
            errors.append(error)
            continue
        ops.append(placed)
        if not placed.fused:
            sources.update((name, frozenset([name])) for name in node.writes)
    consumers = _consumers(ops)
    if client_side != "minimal":
        _leave_for_the_client(ops, graph, consumers, sources)
    errors += _float_only_errors(ops, graph)
    direct = _direct_inputs(graph, sources, client_side) - _encoded_by_ops(graph, consumers)
    if client_side != "minimal":
        _join_before_encryption(ops, graph, direct)
    placement = Placement(graph, tuple(ops), sources, direct, consumers, trained, public)
    return placement, errors


def _public_outputs(graph: Graph, public: ShapeValues) -> list[FheError]:
    return [
        CompilationError(
            f"the output {name!r} follows from the shapes of the inputs, so there is nothing to decrypt",
            where=Where(node=name),
            fix="remove that output from the model",
        )
        for name in graph.output_names
        if name in public.constants or name in public.sized
    ]


def _refuse_own_rows(node: Node, public: ShapeValues) -> None:
    for name in node.reads:
        if public.sized.get(name, True) is None:
            raise CompilationError(
                f"the input {name!r} is computed from the number of samples, which nobody knows yet",
                where=node.where(),
                expected="a shape, or an array with equal rows for all samples, which stand apart",
                fix="leave the batch dimension out of it, or export the model for a batch of 1",
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
            "a subgraph cannot run on encrypted data: which branch to take, or how often to repeat it, "
            "would have to be known",
            where=node.where(spec.impl_pack),
            fix="unroll it when the model is exported, or keep the branch that is taken",
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
    except (FheError, MemoryError):
        raise
    except Exception as error:
        raise CompilationError(
            f"{kind.__name__} failed when it was placed in the graph: {error}",
            where=node.where(spec.quantized_pack),
            fix=to_mend(spec.quantized_origin or spec.impl_origin),
        ) from error
    return PlacedOp(node, spec, op, variable, fused, incoming, spec.quantized is None)


def _clear(ops: Iterable[PlacedOp], graph: Graph) -> set[str]:
    clear = set(graph.input_names)
    for placed in ops:
        if placed.is_float and not clear.isdisjoint(placed.variable):
            clear.update(placed.node.writes)
    return clear


def _before(ops: Iterable[PlacedOp], graph: Graph, direct: frozenset[str]) -> set[str]:
    before = set(graph.input_names) - direct
    for placed in ops:
        if placed.is_float and not placed.late and before.issuperset(placed.variable):
            before.update(placed.node.writes)
    return before


def _leave_for_the_client(
    ops: Sequence[PlacedOp],
    graph: Graph,
    consumers: Mapping[str, Sequence[tuple[PlacedOp, int]]],
    sources: Mapping[str, frozenset[str]],
) -> None:
    """Ops that shape outputs run after decryption, if no integer arithmetic follows and some precedes.

    So do those that join several encrypted tensors there, which would cost look-ups on the server, and those
    without weights that read what is decrypted already, or are computed from nothing but what is decrypted for
    others: a sum that normalizes is then of the very numbers that it normalizes.
    """
    clear = _clear(ops, graph)
    after: set[str] = set()
    for placed in reversed(ops):
        users = {use.node.name for name in placed.node.writes for use, _ in consumers.get(name, ())}
        if not users <= after or not (placed.is_float or clear.isdisjoint(placed.variable)):
            continue
        joins = _has_no_weights(placed) and len(placed.variable) > 1
        placed.late = (placed.op.shapes_outputs or joins) and clear.isdisjoint(placed.variable)
        if placed.is_float or _has_no_weights(placed):
            after.add(placed.node.name)
    sent = frozenset().union(
        *(placed.sources for placed in ops if placed.late),
        *(sources.get(name, frozenset()) for name in graph.output_names),
    )
    decrypted: set[str] = set()
    for placed in ops:
        reads_decrypted = not decrypted.isdisjoint(placed.variable)
        if placed.node.name in after and not placed.is_float:
            known = bool(placed.sources) and placed.sources <= sent - clear
            placed.late = reads_decrypted or known
        placed.decrypted = reads_decrypted
        if placed.late or placed.float_only or (placed.is_float and reads_decrypted):
            decrypted.update(placed.node.writes)


def _join_before_encryption(
    ops: Sequence[PlacedOp],
    graph: Graph,
    direct: frozenset[str],
) -> None:
    """Ops that join what the client computes before encryption run there too, if integer arithmetic follows:
    features in units of their own then need no scale together.

    A product keeps them apart: each part has its scale there, which the weights take up.
    """
    leaving, weighed = set(graph.output_names), set[str]()
    for placed in reversed(ops):
        results = placed.node.writes
        if placed.is_float and not leaving.isdisjoint(results):
            leaving.update(placed.variable)
        moves = placed.op.keeps_scale or placed.op.joins_elements
        if placed.op.weight_channels() is not None or (moves and not weighed.isdisjoint(results)):
            weighed.update(placed.variable)
    stay = leaving | weighed
    for placed in ops:
        # Constants may be as long as the batch of which the model was exported: the op knows what to do.
        joins = placed.op.joins_elements and not placed.op.constant_inputs
        if joins and not placed.is_float and stay.isdisjoint(placed.node.writes):
            placed.early = _before(ops, graph, direct).issuperset(placed.variable)


def _has_no_weights(placed: PlacedOp) -> bool:
    """Whether an op mixes elements by what it is, and not by numbers of the model: if it sometimes fuses, or
    joins tensors on one scale."""
    return placed.op.fusion() == "conditional" or placed.op.shares_scale


def _float_only_errors(ops: Sequence[PlacedOp], graph: Graph) -> list[FheError]:
    """Ops without a quantized form may only run after decryption.

    So something encrypted has to come before them, and what comes after them has to run there too.
    """
    clear = _clear(ops, graph)
    late: dict[str, PlacedOp] = {}
    errors: dict[str, FheError] = {}
    for placed in ops:
        if placed.float_only and not clear.isdisjoint(placed.variable):
            errors[placed.node.name] = _float_only(placed, None)
        before = [late[name] for name in placed.variable if name in late]
        if not placed.is_float:
            for first in before:
                errors.setdefault(first.node.name, _float_only(first, placed))
        if placed.float_only or before:
            first = placed if placed.float_only else before[0]
            late.update((name, first) for name in placed.node.writes)
    return [errors[placed.node.name] for placed in ops if placed.node.name in errors]


def _float_only(placed: PlacedOp, user: PlacedOp | None) -> FheError:
    """What is said of an op that can only run after decryption, and is followed by ``user``."""
    left_out = placed.spec.left_out_origin
    if left_out is not None:
        pack, other = placed.spec.impl_pack, left_out.name
        return UnsupportedOpError(
            f"runs in float only: pack {pack!r} overrides its float function alone, and the quantized form "
            f"of pack {other!r} computes the function that was replaced",
            where=placed.node.where(pack),
            got=None if user is None else f"{user.node.name!r} ({user.node.op_type}) after it",
            fix=f"register a quantized form with override=True in pack {pack!r}; if both functions are the "
            f"same, that of pack {other!r}",
        )
    return UnsupportedOpError(
        "runs in float only: no installed pack has a quantized form of it",
        where=placed.node.where(placed.spec.impl_pack),
        got=f"{user.node.name!r} ({user.node.op_type}) after it, which works on integers"
        if user
        else None,
        fix="install a pack that has one, or take the op out of the model: apply it to the data "
        "before, or to the result after",
    )


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


def _encoded_by_ops(
    graph: Graph, consumers: Mapping[str, Sequence[tuple[PlacedOp, int]]]
) -> frozenset[str]:
    """The model inputs that only ops read which turn them into integers themselves."""
    return frozenset(
        name
        for name in set(graph.input_names) - set(graph.output_names)
        if consumers.get(name) and all(use.op.encodes_inputs for use, _ in consumers[name])
    )


def _consumers(ops: Iterable[PlacedOp]) -> dict[str, tuple[tuple[PlacedOp, int], ...]]:
    found: dict[str, list[tuple[PlacedOp, int]]] = {}
    for placed in ops:
        for index, name in enumerate(placed.node.inputs):
            if name in placed.variable:
                found.setdefault(name, []).append((placed, index))
    return {name: tuple(uses) for name, uses in found.items()}
