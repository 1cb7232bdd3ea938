"""check: will this model compile, and what of it runs encrypted? All answers at once."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

import onnx

from fhe_core.errors import (
    FheError,
    ModelError,
    PackError,
    UnsupportedOpError,
)
from fhe_core.graph.budgets import byte_limit
from fhe_core.graph.folding import fold_constants, foldable
from fhe_core.graph.ir import Graph, Node, live_nodes
from fhe_core.graph.loading import normalize, parse_model
from fhe_core.graph.passes import run_passes
from fhe_core.graph.reading import read_graph
from fhe_core.graph.shapes import reads_shapes
from fhe_core.graph.simplify import tidy
from fhe_core.graph.sizes import size_errors
from fhe_core.graph.steps import Resolver, Step, registry_of, resolve_step
from fhe_core.graph.support import (
    AFTER_DECRYPTION,
    BEFORE_ENCRYPTION,
    ENCRYPTED,
    FLOAT_ONLY,
    FOLDED,
    FUSED,
    MERGED,
    REWRITTEN,
    UNSUPPORTED,
    UNUSED,
    NodeSupport,
    Problem,
    SupportReport,
)
from fhe_core.graph.validity import NEWEST_OPSET, OLDEST_OPSET, validity_errors
from fhe_core.memory import within_memory
from fhe_core.program.nodes import Shape
from fhe_core.quantization.placement import PlacedOp, Placement, try_to_place
from fhe_core.quantization.reasons import impossible_because
from fhe_core.quantization.trial import Tried, try_ops

_BITS = 8


@within_memory
def check(
    model: str | os.PathLike[str] | bytes | onnx.ModelProto,
    *,
    registry: Resolver | None = None,
    max_bytes: int | None = None,
) -> SupportReport:
    """Whether a model will compile with the installed packs, and everything that is in the way.

    Every op is tried on encrypted tensors of the shapes that it will have, so that what is refused here is what
    ``quantize`` refuses. What depends on data alone is not seen: values that are not finite, widths that no
    circuit has.

    Args:
        model: a path, bytes or ``onnx.ModelProto``.
        registry: where operators come from; the installed packs by default.
        max_bytes: what a tensor, for one sample, and all constants together may take; 8 GiB by default.

    Raises:
        ModelError: there is no model to check: the file is missing, truncated, or not ONNX.
        ResourceError: there is not enough memory, which is no verdict on the model.
    """
    with byte_limit(max_bytes):
        return _checked(model, registry_of(registry))


def _checked(model: object, registry: Resolver) -> SupportReport:
    parsed = parse_model(model)
    try:
        parsed = normalize(parsed)
    except ModelError as error:
        return SupportReport((Problem.of(error),), ())
    invalid = validity_errors(parsed.proto, parsed.label) or size_errors(parsed.proto)
    problems = [Problem.of(error) for error in invalid]
    try:
        graph = read_graph(parsed.proto, registry)
    except ModelError as error:
        # Of an invalid model, what can be read is a bonus.
        return SupportReport(tuple(problems or [Problem.of(error)]), ())
    if problems:
        _, errors = _resolved(graph, registry)
        return SupportReport((*problems, *map(Problem.of, errors)), ())
    return _report(graph, registry)


def _report(graph: Graph, registry: Resolver) -> SupportReport:
    failed_pass: list[FheError] = []
    try:
        final, passes = run_passes(graph, registry)
    except PackError as error:
        failed_pass = [error]
        final, passes = tidy(graph, registry), ()
    steps, unresolved = _resolved(final, registry)
    _, failures = fold_constants(steps.values(), final.constants)
    placement, misplaced = try_to_place(
        final, steps.values(), registry, n_bits=_BITS, client_side="any"
    )
    tried = try_ops(placement)
    known = {error.where.node for error in (*failures, *misplaced)}
    placed = {op.node.name: op for op in placement.ops}
    explained = [_explained(e, placed.get(e.where.node or ""), tried.shapes) for e in misplaced]
    errors = [*unresolved, *failures, *explained]
    errors += [error for error in tried.errors if error.where.node not in known]
    nodes = _final_nodes(placement, steps, tried, errors)
    places = {node.name: place for place, node in enumerate(final.nodes)}
    errors.sort(key=lambda error: places.get(error.where.node or "", -1))
    all_nodes = _all_nodes(
        graph, registry, nodes, ", ".join(dict.fromkeys(p.origin.name for p in passes))
    )
    return SupportReport(tuple(map(Problem.of, [*errors, *failed_pass])), all_nodes)


def _explained(error: FheError, placed: PlacedOp | None, shapes: Mapping[str, Shape]) -> FheError:
    """The error about an op that runs in float alone, and why it always will, if that can be told."""
    if placed is None or not placed.float_only or any(n not in shapes for n in placed.variable):
        return error
    reason = impossible_because(placed, {name: shapes[name] for name in placed.variable})
    if not reason:
        return error
    return UnsupportedOpError(
        f"runs in float only: {reason}",
        where=error.where,
        got=error.got,
        fix="take the op out of the model: apply it to the data before, or to the result after",
    )


def _final_nodes(
    placement: Placement, steps: Mapping[Node, Step], tried: Tried, errors: Iterable[FheError]
) -> dict[str, NodeSupport]:
    """What becomes of each node of the graph as it is quantized, by name."""
    placed = {op.node.name: op for op in placement.ops}
    refused = {error.where.node for error in errors}
    decrypted: set[str] = set()
    nodes = {}
    for node in placement.graph.nodes:
        status = _status(placed.get(node.name), node.name in refused, tried, decrypted)
        if placement.public.decide(node):
            status = FOLDED
        if status == AFTER_DECRYPTION:
            decrypted.update(node.writes)
        step, place = steps.get(node), placed.get(node.name)
        # A hook may have chosen another class.
        chosen = replace(step, spec=place.spec) if step is not None and place is not None else step
        nodes[node.name] = _support(node, chosen, status)
    return nodes


def _status(
    placed: PlacedOp | None, refused: bool, tried: Tried, decrypted: Collection[str]
) -> str:
    if placed is None or refused:
        return FLOAT_ONLY if placed is not None and placed.float_only else UNSUPPORTED
    if tried.public.issuperset(placed.node.writes):
        return FOLDED
    if tried.before.issuperset(placed.node.writes):
        return BEFORE_ENCRYPTION
    behind = placed.is_float and any(name in decrypted for name in placed.variable)
    if placed.float_only or placed.late or behind:
        return AFTER_DECRYPTION
    return FUSED if placed.fused else ENCRYPTED


def _all_nodes(
    graph: Graph, registry: Resolver, final: Mapping[str, NodeSupport], packs: str
) -> tuple[NodeSupport, ...]:
    """The nodes of the model in order, then those that graph passes have made.

    Args:
        final: what is left of them, by name.
        packs: whose passes changed the graph; "" where none did.
    """
    live = set(live_nodes(graph))
    constants = dict.fromkeys(graph.constants)
    kept = {node.name for node in tidy(graph, registry).nodes} if packs else set()
    left = dict(final)
    nodes = []
    for node in graph.nodes:
        step, _ = resolve_step(node, registry, graph.constants)
        if step is not None and (foldable(step, constants) or reads_shapes(step)):
            constants.update(dict.fromkeys(node.writes))
        if node.name in left:
            nodes.append(left.pop(node.name))
        elif node not in live:
            nodes.append(_support(node, step, UNUSED))
        elif constants.keys() >= set(node.writes):
            nodes.append(_support(node, step, FOLDED))
        elif node.name in kept:
            nodes.append(replace(_support(node, step, REWRITTEN), pack=packs))
        else:
            nodes.append(_support(node, step, MERGED))
    return (*nodes, *left.values())


def _support(node: Node, step: Step | None, status: str) -> NodeSupport:
    pack, quantized = None, False
    if step is not None:
        spec = step.spec
        pack = spec.quantized_pack if status in (ENCRYPTED, FUSED) else spec.impl_pack
        quantized = spec.quantized is not None
    return NodeSupport(
        node.name, node.op_type, node.domain, node.opset, status, pack or "", quantized
    )


def _resolved(graph: Graph, registry: Resolver) -> tuple[dict[Node, Step], list[FheError]]:
    steps: dict[Node, Step] = {}
    errors: list[FheError] = []
    for node in graph.nodes:
        if node.domain == "" and not OLDEST_OPSET <= node.opset <= NEWEST_OPSET:
            continue  # said once, of the model
        step, found = resolve_step(node, registry, graph.constants)
        errors += found
        if step is not None:
            steps[node] = step
    return steps, errors
