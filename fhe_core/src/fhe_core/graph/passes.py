"""The packs' graph passes and other rewritings: each result is checked before anybody sees it.

A pass is a stranger's code that may rewrite the model. So whatever it returns has to be a sound
graph with the same inputs and outputs, and, where the model runs in float before and after, has to
compute the same on some samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np

from fhe_core.errors import FheError, PackError, ResourceError, Where
from fhe_core.graph.ir import Graph, Node
from fhe_core.graph.rounding import Reach, within_rounding
from fhe_core.graph.runner import NumpyModule
from fhe_core.graph.simplify import tidy
from fhe_core.graph.steps import Resolver
from fhe_core.graph.tensors import constant, kind
from fhe_core.registry import GraphAlternative, GraphPass, Rewriting, to_mend

#: How many samples a rewritten model is compared on.
SAMPLES = 8

#: How far a pass may move an output, as a share of the output's largest magnitude: far more than
#: another order of additions does in single precision, far less than a wrong weight.
TOLERANCE = 1e-3

#: The same where some tensor has 16 bits or fewer: bfloat16 alone rounds by 2**-8.
HALF_TOLERANCE = 5e-2


def run_passes(
    graph: Graph,
    registry: Resolver,
    samples: Mapping[str, Any] | None = None,
    seen: Mapping[str, Any] | None = None,
) -> tuple[Graph, tuple[GraphPass, ...]]:
    """The graph as the packs' passes leave it, simplified, and those passes that changed it.

    Args:
        graph: any graph; nodes that nothing implements may become some that something does.
        samples: arrays by input name, to compare what the model computes before and after a pass;
            None to do without.
        seen: the same, for the passes that look how large tensors are; None to leave these out.

    Raises:
        PackError: a pass raised, returned no sound graph, or changed what the model computes.
    """
    changed: dict[GraphPass, None] = {}

    def run(passes: Iterable[GraphPass], graph: Graph) -> Graph:
        for each in passes:
            before = _read_only(graph)
            if each.samples and seen is None:
                continue
            after = _rewritten(each, before, *([seen] if each.samples else []))
            if after is before:
                continue
            if samples is not None:
                _check_outputs(each, before, after, registry, samples)
            graph = tidy(after, registry)
            changed[each] = None
        return graph

    first = [each for each in registry.passes() if not each.last]
    last = [each for each in registry.passes() if each.last]
    graph = run(first, tidy(graph, registry))
    taken_apart = run(last, graph)
    if taken_apart is not graph:
        taken_apart = run(first, taken_apart)
    return taken_apart, tuple(changed)


def reduce_activation(
    graph: Graph, registry: Resolver, node: Node, live: Any, slope: Any, offset: Any
) -> Graph | None:
    """The graph with a node's elements replaced by ``slope * x + offset`` where they are not ``live``.

    Args:
        node: computes each element of its one output from that element of its one variable input.
        live, slope, offset: arrays that broadcast to that output, with the batch dimension 1.

    Returns:
        None where no pack knows how.

    Raises:
        PackError: a pack's reduction raised, or returned no sound graph.
    """
    before = _read_only(graph)
    node = next(each for each in before.nodes if each.name == node.name)
    for each in registry.reductions():
        after = _rewritten(each, before, node, live, slope, offset)
        if after is not before:
            return after
    return None


def alternatives(
    graph: Graph, registry: Resolver, samples: Mapping[str, Any]
) -> list[tuple[GraphAlternative, Graph]]:
    """Other forms of a graph that compute the same, each with the alternative that made it.

    Args:
        graph: as the passes left it.
        samples: arrays by input name, to compare what the model computes, and for the alternatives to
            see how large its tensors are.

    Raises:
        PackError: an alternative raised, returned no sound graph, or one that computes something else.
    """
    found = []
    before = _read_only(graph)
    for each in registry.alternatives():
        after = _rewritten(each, before, samples)
        if after is not before:
            _check_outputs(each, before, after, registry, samples)
            found.append((each, tidy(after, registry)))
    return found


def _rewritten(each: Rewriting[Any], graph: Graph, *arguments: Any) -> Graph:
    """What the pass returns, sound and read-only; the very graph if that is what it returns, or None."""
    try:
        result: object = each.run(graph, *arguments)
    except MemoryError:  # which says nothing of the pass
        raise
    except (Exception, SystemExit) as error:
        text = " ".join(str(error).split())
        raise _error(each, f"raised {type(error).__name__}: {text}") from error
    if result is graph or (result is None and arguments):
        return graph
    if not isinstance(result, Graph):
        raise _error(
            each,
            "did not return a graph",
            expected="a fhe_core.Graph, the one that it was given if there is nothing to do",
            got=type(result).__name__,
        )
    flaw = _interface_flaw(graph, result) or _value_flaw(result) or _order_flaw(result)
    if flaw:
        raise _error(each, f"returned a graph that is not sound: {flaw}")
    return _read_only(result)


def _read_only(graph: Graph) -> Graph:
    """The graph such that no pass can change it in place, not even in what it holds."""
    return replace(
        graph,
        nodes=tuple(
            replace(node, attributes=MappingProxyType(dict(node.attributes)))
            for node in graph.nodes
        ),
        constants=MappingProxyType({k: constant(v) for k, v in graph.constants.items()}),
    )


def _interface_flaw(before: Graph, after: Graph) -> str | None:
    for what, old, new in (
        ("inputs", before.inputs, after.inputs),
        ("outputs", before.outputs, after.outputs),
    ):
        if old != new:
            return f"its {what} are {_listed(new)}, not {_listed(old)}"
    return None


def _value_flaw(graph: Graph) -> str | None:
    """What is of a wrong type."""
    if not isinstance(graph.nodes, Sequence) or not isinstance(graph.constants, Mapping):
        return "its nodes are no sequence, or its constants no mapping"
    for node in graph.nodes:
        if not isinstance(node, Node):
            return f"among its nodes is {node!r}"
    for name, value in graph.constants.items():
        if not isinstance(value, np.ndarray):
            return f"its constant {name!r} is no array but {type(value).__name__}"
    return None


def _order_flaw(graph: Graph) -> str | None:
    """What keeps the nodes from running in their order."""
    known = {*graph.input_names, *graph.constants}
    names: set[str] = set()
    for node in graph.nodes:
        if node.name in names:
            return f"two of its nodes have the name {node.name!r}"
        names.add(node.name)
        captured = {name for body in _bodies(node) for name in body.free_names()}
        for name in (*node.reads, *sorted(captured)):
            if name not in known:
                return f"node {node.name!r} reads {name!r}, which nothing before it defines"
            if name in captured and name not in node.captures:
                return f"node {node.name!r} does not name {name!r} among its captures"
        for name in node.writes:
            if name in known:
                return f"{name!r} is defined twice, the second time by node {node.name!r}"
            known.add(name)
    missing = next((name for name in graph.output_names if name not in known), None)
    return None if missing is None else f"nothing defines its output {missing!r}"


def _bodies(node: Node) -> list[Graph]:
    values = (
        item
        for value in node.attributes.values()
        for item in (value if isinstance(value, tuple) else (value,))
    )
    return [value for value in values if isinstance(value, Graph)]


def _check_outputs(
    each: Rewriting[Any],
    before: Graph,
    after: Graph,
    registry: Resolver,
    samples: Mapping[str, Any],
) -> None:
    try:
        old = NumpyModule(before, registry=registry)
        if not all(step.deterministic for step in old.steps):
            return
        expected = old.run(samples)
    except ResourceError:
        raise
    except FheError:
        return  # it does not run in float, and what comes later says why
    try:
        found = NumpyModule(after, registry=registry).run(samples)
    except ResourceError:
        raise
    except FheError as error:
        raise _error(each, f"returned a graph that does not run: {error.problem}") from error
    tolerance = HALF_TOLERANCE if _is_coarse(before) else TOLERANCE
    flaws = {
        name: got
        for name, values in expected.items()
        if (got := _difference(values, found[name], tolerance))
    }
    if not flaws:
        return
    # Seldom, so only now: what rounding alone may do to either.
    reach = [Reach.of(graph, registry, samples) for graph in (before, after)]
    for name, got in flaws.items():
        if not within_rounding(expected[name], found[name], [part.moved(name) for part in reach]):
            raise _error(
                each,
                f"changes what the model computes in {name!r}",
                expected=f"at most {tolerance:g} of its largest magnitude",
                got=got,
            )


def _is_coarse(graph: Graph) -> bool:
    """Whether something in the graph is declared, or given, in half precision or less."""
    declared = [info.dtype for info in (*graph.inputs, *graph.outputs) if info.dtype]
    given = [value.dtype for value in graph.constants.values()]
    return any(kind(dtype) == "f" and dtype.itemsize <= 2 for dtype in (*declared, *given))


def _difference(expected: Any, found: Any, tolerance: float) -> str | None:
    """In what two outputs differ, or None: rounding aside if they are floats, else at all."""
    if not isinstance(expected, np.ndarray) or not isinstance(found, np.ndarray):
        return None if type(expected) is type(found) else f"{type(found).__name__}"
    if (expected.dtype, expected.shape) != (found.dtype, found.shape):
        return f"{_described(found)} instead of {_described(expected)}"
    if kind(expected.dtype) != "f":
        share = np.mean(expected != found) if expected.size else 0
        return f"{share:.0%} other values" if share else None
    a, b = expected.astype(np.float64), found.astype(np.float64)
    finite = np.isfinite(a)
    if not np.array_equal(np.where(finite, 0, a), np.where(np.isfinite(b), 0, b), equal_nan=True):
        return "NaN or infinity in other places"
    largest = np.abs(a[finite]).max(initial=0)
    moved = np.abs(a[finite] - b[finite]).max(initial=0)
    return f"{moved / largest if largest else np.inf:.3g}" if moved > tolerance * largest else None


def _described(array: np.ndarray) -> str:
    return f"{array.dtype.name}[{', '.join(map(str, array.shape))}]"


def _listed(infos: Sequence[Any]) -> str:
    return ", ".join(f"{getattr(info, 'name', info)!r} {info}" for info in infos) or "none"


def _error(
    each: Rewriting[Any], problem: str, expected: str | None = None, got: str | None = None
) -> PackError:
    return PackError(
        f"its {each.kind} {each.name!r} {problem}",
        where=Where(pack=each.origin.name),
        expected=expected,
        got=got,
        fix=to_mend(each.origin, optional=True),
    )
