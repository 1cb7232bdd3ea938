"""A checked ModelProto to the plain dataclasses of ``ir``, functions expanded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache, cached_property
from itertools import zip_longest
from typing import Any

import onnx
from onnx import AttributeProto

from fhe_core.errors import ModelError, Where
from fhe_core.graph.budgets import MAX_NODES, too_many_nodes
from fhe_core.graph.functions import Function, Key, Library, inferred_types, model_types
from fhe_core.graph.ir import Graph, Node, ValueInfo
from fhe_core.graph.scopes import InnerNames, LocalNames, SameNames, Scope, defined, unused
from fhe_core.graph.steps import Resolver
from fhe_core.graph.tensors import array, dense, value_info


def read_graph(model: onnx.ModelProto, registry: Resolver | None = None) -> Graph:
    """The graph of a model that ``load_model`` has checked.

    Calls of the model's functions, and of operators that ONNX defines by a body, are replaced by
    their bodies where ``registry`` has no implementation. What comes from a body is named
    ``call/inner``, after the calling node.

    Args:
        model: as from ``load_model``.
        registry: where operators come from. None expands the model's own functions, all of them,
            and nothing else.

    Raises:
        ModelError: a tensor or attribute of a type that nothing here computes with, data that does
            not fit its shape, or a call that does not fit its function.
    """
    for info in model.graph.input:
        kind = info.type.WhichOneof("value")
        if kind not in ("tensor_type", "map_type"):
            raise ModelError(
                f"graph input {info.name!r} is not a tensor",
                expected="a tensor, or a map",
                got=kind.removesuffix("_type").replace("_", " ") if kind else "no type",
                fix="export the model with tensor inputs",
            )
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    scope = Scope(opsets, SameNames(), cache(lambda: model_types(model)))
    try:
        return _Reader(model, registry).graph(model.graph, scope)
    except RecursionError as error:
        raise ModelError(
            "the model's subgraphs and functions are nested too deep",
            fix="export the model without local functions, or with flatter control flow",
        ) from error


class _Reader:
    def __init__(self, model: onnx.ModelProto, registry: Resolver | None) -> None:
        self._model = model
        self._library = Library(model, registry)
        self._read = 0  # nodes, those of bodies that are then left alone included

    def graph(self, proto: Any, scope: Scope) -> Graph:
        scope = self._inside(proto, scope)
        constants = {
            scope.define(tensor.name): array(tensor, f"tensor {tensor.name!r}")
            for tensor in proto.initializer
        }
        for sparse in proto.sparse_initializer:
            name = sparse.values.name
            constants[scope.define(name)] = dense(sparse, f"tensor {name!r}")
        inputs = (
            replace(info, name=scope.define(info.name)) for info in map(value_info, proto.input)
        )
        return Graph(
            name=proto.name,
            inputs=tuple(info for info in inputs if info.name not in constants),
            nodes=tuple(self._nodes(proto.node, scope, set())),
            outputs=tuple(_output(info, scope) for info in map(value_info, proto.output)),
            constants=constants,
            opsets=scope.opsets,
        )

    def _inside(self, proto: Any, scope: Scope) -> Scope:
        """The scope in a graph or subgraph, whose own tensors hide nothing that an alias means."""
        names, meant = scope.names, {*scope.aliases.values()}
        if meant:
            hiding = [name for name in defined(proto) if names[name] in meant]
            names = InnerNames(names, {name: self._fresh(names[name]) for name in hiding})
        return replace(scope, names=names, aliases=dict(scope.aliases))

    def _nodes(self, protos: Iterable[Any], scope: Scope, taken: set[str]) -> Iterator[Node]:
        for proto in protos:
            name = scope.node_name(proto, taken)
            # Only a node in a subgraph can lack an import: the checker has seen the others.
            opset = scope.opsets.get(proto.domain, 1)
            where = Where(name, proto.op_type, proto.domain, opset)
            function = self._library.find(proto, opset, scope.types, where)
            if function is not None:
                body = self._body(function, proto, scope, name, where, taken)
                if not function.optional or all(map(self._runs, body)):
                    yield from body
                    continue
                taken.difference_update(node.name for node in body)
            node = self._node(proto, scope, where)
            taken.add(name)
            self._read += 1
            if self._read > MAX_NODES:
                raise too_many_nodes("the model", where)
            yield node

    def _node(self, proto: Any, scope: Scope, where: Where) -> Node:
        attributes = {
            attribute.name: self._attribute(attribute, where, scope)
            for attribute in proto.attribute
            # "An internal symbol is defined as starting with two underscores" (onnx's schema.cc).
            if not attribute.name.startswith("__")
        }
        captures: dict[str, None] = {}
        for body in _bodies(attributes):
            captures.update(dict.fromkeys(body.free_names()))
        return Node(
            name=where.node or "",
            op_type=proto.op_type,
            domain=proto.domain,
            opset=where.opset or 1,
            inputs=tuple(map(scope.read, proto.input)),
            outputs=tuple(map(scope.define, proto.output)),
            attributes=attributes,
            captures=tuple(captures),
        )

    def _body(
        self,
        function: Function,
        proto: Any,
        outer: Scope,
        name: str,
        where: Where,
        taken: set[str],
    ) -> list[Node]:
        """The nodes that stand for a call."""
        if function.key in outer.calls:
            raise ModelError(
                "the function calls itself",
                where=where,
                expected="functions that call only others",
                got=" calls ".join(_function_name(key) for key in (*outer.calls, function.key)),
                fix="export the model without local functions",
            )
        names = LocalNames(name, self._fresh)
        for formal, actual in zip_longest(function.inputs, proto.input, fillvalue=""):
            outer.aliases[names[formal]] = outer.read(actual)
        known = dict(zip(function.inputs, proto.input, strict=False))
        returned = []  # what was given
        for formal, actual in zip(function.outputs, proto.output, strict=False):
            if actual and formal in names:
                returned.append((formal, outer.names[actual]))
            elif actual:
                names[formal] = outer.define(actual)
        # Bodies of ONNX's own operators in other domains import the default one nowhere.
        opsets = {**outer.opsets, **function.opsets} if function.optional else function.opsets
        scope = Scope(
            opsets,
            names,
            cache(lambda: inferred_types(function.nodes, opsets, _known(known, outer))),
            outer.aliases,
            name,
            (*outer.calls, function.key),
        )
        nodes = list(self._nodes(function.nodes, scope, taken))
        for formal, result in returned:
            tensor = scope.read(formal)
            if not tensor:
                raise ModelError(
                    f"the function returns its input {formal!r}, which the call leaves out",
                    where=where,
                    expected=f"the input {formal!r}",
                    got=", ".join(map(repr, proto.input)) or "no inputs",
                    fix="connect the missing input",
                )
            scope.aliases[result] = tensor
        return nodes

    def _runs(self, node: Node) -> bool:
        return self._library.resolves(node.op_type, node.domain, node.opset) and all(
            self._runs(inner) for body in _bodies(node.attributes) for inner in body.nodes
        )

    def _fresh(self, name: str) -> str:
        name = unused(name, self._used)
        self._used.add(name)
        return name

    @cached_property
    def _used(self) -> set[str]:
        """Every name of a tensor in the model, its functions aside."""
        found: set[str] = set()
        graphs = [self._model.graph]
        while graphs:
            graph = graphs.pop()
            found.update(info.name for info in (*graph.input, *graph.output))
            found.update(tensor.name for tensor in graph.initializer)
            found.update(sparse.values.name for sparse in graph.sparse_initializer)
            for node in graph.node:
                found.update(node.output)
                for attribute in node.attribute:
                    graphs += [attribute.g, *attribute.graphs]
        return found

    def _attribute(self, proto: Any, where: Where, scope: Scope) -> Any:
        what = f"attribute {proto.name!r}"
        if proto.type == AttributeProto.GRAPH:
            return self.graph(proto.g, scope)
        if proto.type == AttributeProto.GRAPHS:
            return tuple(self.graph(item, scope) for item in proto.graphs)
        reader = _ATTRIBUTES.get(proto.type)
        if reader is None:
            raise ModelError(
                f"{what} is of a type that cannot be read",
                where=where,
                expected="a number, string, tensor or graph, or a list of these",
                got=AttributeProto.AttributeType.Name(proto.type).lower(),
                fix="export the model without this operator",
            )
        return reader(proto, what, where)


_Read = Callable[[Any, str, Where], Any]
_ATTRIBUTES: Mapping[int, _Read] = {
    AttributeProto.FLOAT: lambda a, what, where: a.f,
    AttributeProto.INT: lambda a, what, where: a.i,
    AttributeProto.STRING: lambda a, what, where: _text(a.s, what, where),
    AttributeProto.TENSOR: lambda a, what, where: array(a.t, what, where),
    AttributeProto.SPARSE_TENSOR: lambda a, what, where: dense(a.sparse_tensor, what, where),
    AttributeProto.FLOATS: lambda a, what, where: tuple(a.floats),
    AttributeProto.INTS: lambda a, what, where: tuple(a.ints),
    AttributeProto.STRINGS: lambda a, what, where: tuple(
        _text(item, what, where) for item in a.strings
    ),
    AttributeProto.TENSORS: lambda a, what, where: tuple(
        array(item, what, where) for item in a.tensors
    ),
    AttributeProto.SPARSE_TENSORS: lambda a, what, where: tuple(
        dense(item, what, where) for item in a.sparse_tensors
    ),
}


def _text(data: bytes, what: str, where: Where) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ModelError(
            f"{what} is not UTF-8", where=where, fix="export the model again"
        ) from error


def _output(info: ValueInfo, scope: Scope) -> ValueInfo:
    name, tensor = scope.names[info.name], scope.read(info.name)
    return replace(info, name=tensor, label="" if tensor == name else name)


def _bodies(attributes: Mapping[str, Any]) -> list[Graph]:
    values = [
        item
        for value in attributes.values()
        for item in (value if isinstance(value, tuple) else (value,))
    ]
    return [value for value in values if isinstance(value, Graph)]


def _known(names: Mapping[str, str], outer: Scope) -> dict[str, onnx.TypeProto]:
    """The types of a function's inputs, from those of what a call gives."""
    types = outer.types()
    return {formal: types[actual] for formal, actual in names.items() if actual in types}


def _function_name(key: Key) -> str:
    domain, name, _ = key
    return f"{domain}.{name}" if domain else name
