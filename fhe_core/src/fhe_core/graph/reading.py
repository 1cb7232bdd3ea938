"""A checked ModelProto to the plain dataclasses of ``ir``, functions expanded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import count
from typing import Any

import onnx
import onnx.defs
from onnx import AttributeProto

from fhe_core.errors import ModelError, Where
from fhe_core.graph.functions import Function, Key, Library, Types, inferred_types, model_types
from fhe_core.graph.ir import Graph, Node, ValueInfo
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
        if kind != "tensor_type":
            raise ModelError(
                f"graph input {info.name!r} is not a tensor",
                expected="a tensor",
                got=kind.removesuffix("_type").replace("_", " "),
                fix="export the model with tensor inputs",
            )
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    scope = _Scope(opsets, _SameNames(), cache(lambda: model_types(model)))
    return _Reader(model, registry).graph(model.graph, scope)


class _SameNames(dict[str, str]):
    """In the model's own graph, and its subgraphs, a tensor keeps its name."""

    def __missing__(self, name: str) -> str:
        return name


class _LocalNames(dict[str, str]):
    """In a function's body, what the call does not name gets a name that the model does not have."""

    def __init__(self, call: str, fresh: Callable[[str], str]) -> None:
        super().__init__({"": ""})
        self._call, self._fresh = call, fresh

    def __missing__(self, name: str) -> str:
        self[name] = found = self._fresh(f"{self._call}/{name}")
        return found


@dataclass(frozen=True)
class _Scope:
    """Where a node stands: in the model's own graph, or in a function's body at one of its calls.

    ``names`` are the tensors' names in the graph that results, ``types`` those by the names here;
    ``call`` is the calling node's name, and ``calls`` are the functions around.
    """

    opsets: Mapping[str, int]
    names: Mapping[str, str]
    types: Types
    call: str = ""
    calls: tuple[Key, ...] = ()

    def node_name(self, proto: Any, taken: set[str]) -> str:
        """The node's own name, or its first output where that is empty or taken."""
        output = next(filter(None, proto.output), proto.op_type)
        if not self.call:
            return proto.name if proto.name and proto.name not in taken else output
        return _unused(f"{self.call}/{proto.name or output}", taken)


class _Reader:
    def __init__(self, model: onnx.ModelProto, registry: Resolver | None) -> None:
        self._model = model
        self._library = Library(model, registry)

    def graph(self, proto: Any, scope: _Scope) -> Graph:
        names = scope.names
        constants = {
            names[tensor.name]: array(tensor, f"tensor {tensor.name!r}")
            for tensor in proto.initializer
        }
        for sparse in proto.sparse_initializer:
            name = sparse.values.name
            constants[names[name]] = dense(sparse, f"tensor {name!r}")
        taken: set[str] = set()
        return Graph(
            name=proto.name,
            inputs=tuple(info for info in _infos(proto.input, scope) if info.name not in constants),
            outputs=tuple(_infos(proto.output, scope)),
            nodes=tuple(self._nodes(proto.node, scope, taken)),
            constants=constants,
            opsets=scope.opsets,
        )

    def _nodes(self, protos: Iterable[Any], scope: _Scope, taken: set[str]) -> Iterator[Node]:
        for proto in protos:
            name = scope.node_name(proto, taken)
            # Only a node in a subgraph can lack an import: the checker has seen the others.
            opset = scope.opsets.get(proto.domain, 1)
            where = Where(name, proto.op_type, proto.domain, opset)
            function = self._library.find(proto, opset, scope.types, where)
            if function is not None:
                body = self._body(function, proto, scope, name, where, taken)
                if not function.optional or all(map(self._runs, body)):
                    taken.update(node.name for node in body)
                    yield from body
                    continue
            node = self._node(proto, scope, where)
            taken.add(name)
            yield node

    def _node(self, proto: Any, scope: _Scope, where: Where) -> Node:
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
            inputs=tuple(scope.names[name] for name in proto.input),
            outputs=tuple(scope.names[name] for name in proto.output),
            attributes=attributes,
            captures=tuple(captures),
        )

    def _body(
        self,
        function: Function,
        proto: Any,
        outer: _Scope,
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
        names = _LocalNames(name, self._fresh)
        for formal in function.inputs[len(proto.input) :]:
            names[formal] = ""
        names.update(
            {f: outer.names[a] for f, a in zip(function.inputs, proto.input, strict=False)}
        )
        aliases = []
        for formal, actual in zip(function.outputs, proto.output, strict=False):
            if not actual:
                continue
            if formal in names:
                aliases.append((names[formal], outer.names[actual]))
            else:
                names[formal] = outer.names[actual]
        known = dict(zip(function.inputs, proto.input, strict=False))
        # Bodies of ONNX's own operators in other domains import the default one nowhere.
        opsets = {**outer.opsets, **function.opsets} if function.optional else function.opsets
        scope = _Scope(
            opsets,
            names,
            cache(lambda: inferred_types(function.nodes, opsets, _known(known, outer))),
            name,
            (*outer.calls, function.key),
        )
        nodes = list(self._nodes(function.nodes, scope, set(taken)))
        return [*nodes, *(_alias(*pair, name, outer) for pair in aliases)]

    def _runs(self, node: Node) -> bool:
        return self._library.resolves(node.op_type, node.domain, node.opset) and all(
            self._runs(inner) for body in _bodies(node.attributes) for inner in body.nodes
        )

    def _fresh(self, name: str) -> str:
        name = _unused(name, self._used)
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

    def _attribute(self, proto: Any, where: Where, scope: _Scope) -> Any:
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


def _infos(protos: Iterable[Any], scope: _Scope) -> Iterator[ValueInfo]:
    for proto in protos:
        info = value_info(proto)
        yield ValueInfo(scope.names[info.name], info.dtype, info.shape)


def _bodies(attributes: Mapping[str, Any]) -> list[Graph]:
    values = [
        item
        for value in attributes.values()
        for item in (value if isinstance(value, tuple) else (value,))
    ]
    return [value for value in values if isinstance(value, Graph)]


def _alias(source: str, target: str, call: str, scope: _Scope) -> Node:
    """A function may return what it was given; the result has a name of its own all the same."""
    opset = scope.opsets.get("", onnx.defs.onnx_opset_version())
    return Node(f"{call}/{target}", "Identity", "", opset, (source,), (target,), {})


def _known(names: Mapping[str, str], outer: _Scope) -> dict[str, onnx.TypeProto]:
    """The types of a function's inputs, from those of what a call gives."""
    types = outer.types()
    return {formal: types[actual] for formal, actual in names.items() if actual in types}


def _unused(name: str, used: set[str]) -> str:
    if name not in used:
        return name
    return next(found for i in count(2) if (found := f"{name}_{i}") not in used)


def _function_name(key: Key) -> str:
    domain, name, _ = key
    return f"{domain}.{name}" if domain else name
