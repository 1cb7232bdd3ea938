"""check: will this model run, and what of it runs encrypted? All answers at once."""

from __future__ import annotations

import os
import textwrap
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import onnx

from fhe_core.errors import FheError, ModelError, PackError
from fhe_core.graph.folding import fold_constants, foldable
from fhe_core.graph.ir import Graph, Node, live_nodes
from fhe_core.graph.loading import normalize, parse_model
from fhe_core.graph.passes import run_passes
from fhe_core.graph.reading import read_graph
from fhe_core.graph.simplify import tidy
from fhe_core.graph.steps import Resolver, Step, choose_quantized, resolve_step
from fhe_core.graph.validity import (
    NEWEST_OPSET,
    OLDEST_COMPILED_OPSET,
    OLDEST_OPSET,
    validity_errors,
)
from fhe_core.registry import get_registry

ENCRYPTED = "encrypted"
FUSED = "fused"
AFTER_DECRYPTION = "after decryption"
FOLDED = "folded"
FLOAT_ONLY = "float only"
UNSUPPORTED = "unsupported"
UNUSED = "unused"
REWRITTEN = "rewritten"

_WIDTH = 80
_SHOWN_NODES = 5  # names of one op's nodes in the text; the report holds them all


@dataclass(frozen=True)
class Problem:
    """One reason why a model does not compile.

    ``node`` and ``op`` are empty where it concerns the whole model, ``fix`` where none is known,
    ``pack`` where no pack's code is concerned.
    """

    node: str
    op: str
    reason: str
    fix: str
    pack: str = ""

    def __str__(self) -> str:
        return _grouped([self])[0]


@dataclass(frozen=True)
class NodeSupport:
    """What becomes of one node.

    ``status`` is one of ``"encrypted"`` (integer arithmetic, perhaps with look-ups, on the server),
    ``"fused"`` (part of a table look-up there), ``"after decryption"`` (in float, by the client),
    ``"folded"`` (a constant), ``"unused"`` (no output needs it), ``"rewritten"`` (a pack's graph pass
    has put something else in its place), ``"float only"`` (has no quantized form where one is
    needed) and ``"unsupported"``. ``pack`` is whose code runs, empty if
    none does. ``quantized`` tells whether an installed pack has a quantized form of the op at all.
    """

    node: str
    op: str
    domain: str
    opset: int
    status: str
    pack: str
    quantized: bool = False


@dataclass(frozen=True)
class SupportReport:
    """Whether a model compiles, and if not, everything that is in the way."""

    problems: tuple[Problem, ...]
    nodes: tuple[NodeSupport, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is in the way."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """The report in plain types, as for JSON."""
        return {"ok": self.ok, **asdict(self)}

    def __str__(self) -> str:
        counts = Counter(node.status for node in self.nodes)
        listed = ", ".join(f"{count} {status}" for status, count in counts.items())
        nodes = f" {_plural(len(self.nodes), 'node')}: {listed}." if self.nodes else ""
        if self.ok:
            return _wrapped(f"This model compiles.{nodes}")
        head = f"This model does not compile: {_plural(len(self.problems), 'problem')}.{nodes}"
        lines = [_wrapped(f"- {line}", "  ") for line in _grouped(self.problems)]
        return "\n".join([_wrapped(head), *lines])


def check(
    model: str | os.PathLike[str] | bytes | onnx.ModelProto,
    *,
    registry: Resolver | None = None,
) -> SupportReport:
    """Whether a model will compile with the installed packs, and everything that is in the way.

    Args:
        model: a path, bytes or ``onnx.ModelProto``.
        registry: where operators come from; the installed packs by default.

    Raises:
        ModelError: there is no model to check: the file is missing, truncated, or not ONNX.
    """
    registry = get_registry() if registry is None else registry
    parsed = parse_model(model)
    try:
        parsed = normalize(parsed)
    except ModelError as error:
        return SupportReport((_problem(error),), ())
    problems = [_problem(error) for error in validity_errors(parsed.proto, parsed.label)]
    try:
        graph = read_graph(parsed.proto, registry)
    except ModelError as error:
        # Of an invalid model, what can be read is a bonus.
        return SupportReport(tuple(problems or [_problem(error)]), ())
    if problems:
        _, errors = _resolved(graph, registry)
        return SupportReport((*problems, *map(_problem, errors)), ())
    return _report(graph, registry)


def _report(graph: Graph, registry: Resolver) -> SupportReport:
    report = _report_as_is(graph, registry)
    try:
        rewritten, passes = run_passes(graph, registry)
    except PackError as error:
        return SupportReport((*report.problems, _problem(error)), report.nodes)
    if not passes:
        return report
    after = _report_as_is(rewritten, registry)
    left = {node.node: node for node in after.nodes}
    gone = {node.name for node in tidy(graph, registry).nodes} - left.keys()
    pack = ", ".join(dict.fromkeys(each.origin.name for each in passes))
    nodes = [
        replace(node, status=REWRITTEN, pack=pack)
        if node.node in gone
        else left.pop(node.node, node)
        for node in report.nodes
    ]
    return SupportReport(after.problems, (*nodes, *left.values()))


def _report_as_is(graph: Graph, registry: Resolver) -> SupportReport:
    """The report without the packs' passes."""
    steps, errors = _resolved(graph, registry)
    folded, failures = fold_constants(steps.values(), graph.constants)
    statuses = _statuses(graph, steps, folded)
    problems = [
        *_opset_problems(graph),
        *_input_problems(graph),
        *map(_problem, (*errors, *failures)),
        *(
            _float_only(node, step)
            for node, step in steps.items()
            if statuses[node] == FLOAT_ONLY and not foldable(step, folded)
        ),
    ]
    if not problems and not {ENCRYPTED, FUSED} & set(statuses.values()):
        reason = "no part of the model runs encrypted"
        problems.append(Problem("", "", reason, "check that its outputs depend on its inputs"))
    nodes = tuple(_node_support(node, steps.get(node), statuses[node]) for node in graph.nodes)
    return SupportReport(tuple(problems), nodes)


def _resolved(graph: Graph, registry: Resolver) -> tuple[dict[Node, Step], list[FheError]]:
    steps: dict[Node, Step] = {}
    errors: list[FheError] = []
    for node in graph.nodes:
        if node.domain == "" and not OLDEST_OPSET <= node.opset <= NEWEST_OPSET:
            continue  # said once, of the model
        step, found = resolve_step(node, registry, graph.constants)
        errors += found
        if step is None:
            continue
        try:
            steps[node] = choose_quantized(step, registry, graph.constants)
        except PackError as error:
            errors.append(error)
    return steps, errors


def _statuses(
    graph: Graph, steps: Mapping[Node, Step], folded: Mapping[str, Any]
) -> dict[Node, str]:
    """Each node's status: what it is by itself, then what its place in the graph makes of it."""
    live = set(live_nodes(graph))
    alone = {node: _status_alone(node, steps.get(node), folded, live) for node in graph.nodes}
    tail = _tail(graph, steps, alone)
    statuses: dict[Node, str] = {}
    encrypted: set[str] = set()  # tensors that something encrypted has a part in
    decrypted: set[str] = set()  # tensors that only exist after decryption
    for node in graph.nodes:
        status = alone[node]
        # An op that could run encrypted does so, unless its input is already decrypted or it shapes outputs.
        turning = (
            encrypted if status == FLOAT_ONLY or _shapes_outputs(steps.get(node)) else decrypted
        )
        if node in tail and not turning.isdisjoint(node.reads):
            status = AFTER_DECRYPTION
            decrypted.update(node.writes)
        if status in (ENCRYPTED, FUSED, AFTER_DECRYPTION, UNSUPPORTED):
            encrypted.update(node.writes)
        statuses[node] = status
    return statuses


def _shapes_outputs(step: Step | None) -> bool:
    return getattr(step and step.spec.quantized, "shapes_outputs", False)


def _status_alone(
    node: Node, step: Step | None, folded: Mapping[str, Any], live: Container[Node]
) -> str:
    if step is None:
        return UNSUPPORTED
    if node not in live:
        return UNUSED
    if all(name in folded for name in node.writes):
        return FOLDED
    if step.spec.quantized is None:
        return FLOAT_ONLY
    return FUSED if step.spec.fusion == "always" else ENCRYPTED


def _tail(graph: Graph, steps: Mapping[Node, Step], alone: Mapping[Node, str]) -> set[Node]:
    """Nodes that may run after decryption: neither they nor any behind them need be encrypted.

    An op that never fuses mixes elements, by its weights for the most part. It stays on the server:
    to run a Gemm behind a Softmax, the client would be given the matrix.
    """
    tail: set[Node] = set()
    needed: set[str] = set()  # tensors that an op on the server reads
    for node in reversed(graph.nodes):
        if alone[node] in (FOLDED, UNUSED, UNSUPPORTED):
            continue
        movable = steps[node].spec.fusion != "never" or _shapes_outputs(steps[node])
        if movable and needed.isdisjoint(node.writes):
            tail.add(node)
        else:
            needed.update(node.reads)
    return tail


def _opset_problems(graph: Graph) -> list[Problem]:
    opset = graph.opsets.get("", OLDEST_COMPILED_OPSET)
    if opset >= OLDEST_COMPILED_OPSET:
        return []
    return [
        Problem(
            "",
            "",
            f"opset {opset} runs in float but does not compile",
            f"export the model with an opset from {OLDEST_COMPILED_OPSET} to {NEWEST_OPSET}",
        )
    ]


def _input_problems(graph: Graph) -> list[Problem]:
    problems = []
    if not graph.inputs:
        reason = "the model has no graph inputs, and so nothing to encrypt"
        problems.append(Problem("", "", reason, "export the model with its data as inputs"))
    for info in graph.inputs:
        if info.dtype is None or info.dtype.kind not in "fiu":
            reason = "encrypted inputs must be numeric, of a type of NumPy's own"
            fix = "export the model with a float32 or integer input"
        elif not info.shape:
            reason = "encrypted inputs must have a batch dimension"
            fix = "export the model with the input's shape, its first dimension the batch"
        else:
            continue
        problems.append(Problem("", "", f"input {info.name!r} is {info}: {reason}", fix))
    return problems


def _float_only(node: Node, step: Step) -> Problem:
    return Problem(
        node.name,
        node.op_type,
        "runs in float only: no installed pack has a quantized form of it",
        "install a pack that has one, or take the op out of the model: apply it to the data "
        "before, or to the result after",
        step.spec.impl_pack or "",
    )


def _node_support(node: Node, step: Step | None, status: str) -> NodeSupport:
    pack, quantized = None, False
    if step is not None:
        spec = step.spec
        pack = spec.quantized_pack if status in (ENCRYPTED, FUSED) else spec.impl_pack
        quantized = spec.quantized is not None
    return NodeSupport(
        node.name, node.op_type, node.domain, node.opset, status, pack or "", quantized
    )


def _problem(error: FheError) -> Problem:
    details = [
        f"{label} {text}"
        for label, text in (("expected", error.expected), ("got", error.got))
        if text
    ]
    reason = error.problem + (f" ({'; '.join(details)})" if details else "")
    where = error.where
    return Problem(where.node or "", where.op or "", reason, error.fix or "", where.pack or "")


def _grouped(problems: Iterable[Problem]) -> list[str]:
    """One sentence for all the nodes of one op that have the same problem."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for problem in problems:
        groups.setdefault((problem.op, problem.reason, problem.fix), []).append(problem.node)
    lines = []
    for (op, reason, fix), nodes in groups.items():
        names = ", ".join(nodes[:_SHOWN_NODES])
        if len(nodes) > _SHOWN_NODES:
            names += f" and {len(nodes) - _SHOWN_NODES} more"
        place = f"{names} ({op}): " if op else ""
        lines.append(f"{place}{reason}" + (f". {fix[0].upper()}{fix[1:]}" if fix else ""))
    return lines


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(
        text, _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
