"""What is wrong with the names in a model: defined twice, read too early, or never produced."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import onnx

from fhe_core.errors import ModelError, Where

REPAIR = "repair the graph, or export the model again"
_SHOWN_NAMES = 6  # of a cycle
_HINTS = 3  # names looked for among all that are near


def name_errors(proto: onnx.ModelProto, label: str) -> Iterator[ModelError]:
    """Names defined twice, read before they are produced, or never produced.

    In the graph, its subgraphs and the model's functions.
    """
    yield from _scope_errors(_Scope.of_graph(proto.graph, label))
    for body in proto.functions:
        name = f"{body.domain}.{body.name}" if body.domain else body.name
        what = f"function {name!r} of {label}"
        yield from _scope_errors(_Scope(what, body.input, (), body.node, body.output))


def where_of(node: Any) -> Where:
    """A NodeProto as the place that an error is about."""
    name = node.name or next(filter(None, node.output), node.op_type)
    return Where(name, node.op_type, node.domain)


@dataclass(frozen=True)
class _Scope:
    """A graph, subgraph or function body: what it defines, and what surrounds it."""

    label: str
    inputs: Sequence[str]
    initializers: Sequence[str]
    nodes: Sequence[Any]
    outputs: Sequence[str]
    outer: tuple[Container[str], ...] = ()

    @classmethod
    def of_graph(cls, graph: Any, label: str, outer: tuple[Container[str], ...] = ()) -> _Scope:
        initializers = [
            *(tensor.name for tensor in graph.initializer),
            *(sparse.values.name for sparse in graph.sparse_initializer),
        ]
        inputs, outputs = ([info.name for info in part] for part in (graph.input, graph.output))
        return cls(label, inputs, initializers, graph.node, outputs, outer)

    def surrounds(self, name: str) -> bool:
        return any(name in names for names in self.outer)


def _scope_errors(scope: _Scope) -> Iterator[ModelError]:
    known: set[str] = set()
    for kind, names in (("graph input", scope.inputs), ("initializer", scope.initializers)):
        seen: set[str] = set()
        for name in names:
            if name in seen:
                yield ModelError(f"{scope.label} has two {kind}s named {name!r}", fix=REPAIR)
            seen.add(name)
        known |= seen  # an initializer may share a graph input's name: it is its default
    order = _Order(scope.nodes)
    for node in scope.nodes:
        for name in filter(None, node.input):
            if name not in known and not scope.surrounds(name):
                yield _early(name, node, scope, order, known)
        for attribute in node.attribute:
            bodies = (*((attribute.g,) if attribute.HasField("g") else ()), *attribute.graphs)
            for body in bodies:
                what = f"the subgraph {attribute.name!r} of node {where_of(node).node!r}"
                yield from _scope_errors(_Scope.of_graph(body, what, (*scope.outer, known)))
        for name in filter(None, node.output):
            if name in known:
                yield ModelError(
                    f"output {name!r} is already the name of another tensor of {scope.label}",
                    where=where_of(node),
                    expected="every tensor to be produced once",
                    fix=REPAIR,
                )
            known.add(name)
    for name in scope.outputs:
        if name not in known and not scope.surrounds(name):
            yield ModelError(
                f"graph output {name!r} of {scope.label} is produced by nothing",
                got=order.near(name, known),
                fix=REPAIR,
            )


def _early(name: str, node: Any, scope: _Scope, order: _Order, known: set[str]) -> ModelError:
    """Why a node reads a tensor that is not there yet."""
    if name not in order.produced:
        return ModelError(
            f"input {name!r} is produced by nothing: {scope.label} has no initializer, graph input "
            "or node output of that name",
            where=where_of(node),
            got=order.near(name, known),
            fix=REPAIR,
        )
    cyclic = name in order.blocked
    return ModelError(
        f"input {name!r} "
        + (
            "can never be produced: the graph is cyclic"
            if cyclic
            else "is produced by a later node: the graph is not sorted"
        ),
        where=where_of(node),
        expected=f"the nodes of {scope.label} in an order in which they can run",
        got=f"the cycle {order.cycle(name)}" if cyclic else None,
        fix=REPAIR,
    )


class _Order:
    """In which order nodes could run, worked out where they do not stand in one."""

    def __init__(self, nodes: Sequence[Any]) -> None:
        self._nodes = nodes
        self._hints = _HINTS
        self._cycles: dict[str, str] = {}

    @cached_property
    def produced(self) -> dict[str, Any]:
        """Which node writes each tensor."""
        return {name: node for node in self._nodes for name in node.output if name}

    @cached_property
    def blocked(self) -> set[str]:
        """Tensors that no order can produce: their nodes are in a cycle, or behind one."""
        missing = [self.produced.keys() & set(node.input) for node in self._nodes]
        readers: dict[str, list[int]] = defaultdict(list)
        for i, names in enumerate(missing):
            for name in names:
                readers[name].append(i)
        ready = [i for i, names in enumerate(missing) if not names]
        blocked = set(self.produced)
        while ready:
            for name in blocked.intersection(self._nodes[ready.pop()].output):
                blocked.discard(name)
                for i in readers[name]:
                    missing[i] = missing[i] - {name}
                    if not missing[i]:
                        ready.append(i)
        return blocked

    def cycle(self, name: str) -> str:
        """A cycle that a blocked tensor is in or behind: each of its tensors needs the next."""
        path: dict[str, None] = {}
        while name not in path and name not in self._cycles:
            path[name] = None
            name = next(filter(self.blocked.__contains__, self.produced[name].input))
        found = self._cycles.get(name)
        if found is None:
            names = list(path)[list(path).index(name) :]
            shown = names[:_SHOWN_NAMES] + ["..."] * (len(names) > _SHOWN_NAMES)
            found = " <- ".join([*shown, name])
        self._cycles.update(dict.fromkeys(path, found))
        return found

    def near(self, name: str, known: set[str]) -> str | None:
        """The name that may have been meant. Looked for a few times only: it takes a while."""
        if self._hints == 0:
            return None
        self._hints -= 1
        matches = difflib.get_close_matches(name, known | self.produced.keys(), n=1)
        return f"the nearest name is {matches[0]!r}" if matches else None
