"""Operators that are defined by other operators: functions of the model, and of ONNX itself.

A model may bring functions (``ModelProto.functions``), and the schema of many of ONNX's own
operators has a body that says what they compute. ``reading`` puts a body in the place of its call
wherever no pack implements the operator.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
import onnx.defs
import onnx.shape_inference
from onnx import AttributeProto, helper

from fhe_core.errors import ModelError, UnsupportedOpError, Where
from fhe_core.graph.steps import Resolver
from fhe_core.graph.validity import DEFAULT_DOMAINS, NEWEST_VERSION
from fhe_core.registry import OpSpec
from fhe_core.registry.schema import normalize_domain

#: The types of tensors by name, asked for only where a body depends on them.
Types = Callable[[], Mapping[str, onnx.TypeProto]]

Key = tuple[str, str, str]  # domain, name, overload


@dataclass(frozen=True)
class Function:
    """An operator's body, at one call.

    ``optional`` says that the call may as well stay as it is: ONNX defines the operator itself.
    ``nodes`` have the call's attributes in place of references to them.
    """

    key: Key
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[onnx.NodeProto, ...]
    opsets: Mapping[str, int]
    optional: bool


class Library:
    """The functions that a model's nodes can mean.

    Args:
        model: whose own functions come before those of ONNX.
        registry: what it resolves is no function; None resolves nothing, and leaves ONNX's own
            operators as they are.
    """

    def __init__(self, model: onnx.ModelProto, registry: Resolver | None) -> None:
        self._own = {(f.domain, f.name, f.overload): f for f in model.functions}
        self._registry = registry

    def resolves(self, op_type: str, domain: str, opset: int) -> bool:
        """Whether a pack implements the operator."""
        return self._registry is not None and _implements(self._registry, op_type, domain, opset)

    def find(self, node: onnx.NodeProto, opset: int, types: Types, where: Where) -> Function | None:
        """The function that a node calls; None if it is an operator.

        Args:
            node: its attributes hold values, not references.
            opset: of the node's domain.
            types: those of the node's inputs among them.
            where: the node, for messages.

        Raises:
            ModelError: the call does not fit the function's inputs, outputs or attributes.
        """
        own = self._own.get((node.domain, node.op_type, node.overload))
        if own is None and self._registry is None:
            return None
        if self.resolves(node.op_type, node.domain, opset):
            return None
        if own is not None:
            _check_call(node, own, where)
            defaults = {default.name: default for default in own.attribute_proto}
            return _function(own, node, defaults, optional=False)
        schema = _schema(node, opset)
        body = None if schema is None else _schema_body(schema, node, opset, types, where)
        if schema is None or body is None or len(node.input) > len(body.input):
            return None
        return _function(body, node, _schema_defaults(schema), optional=True)


def inferred_types(
    nodes: Iterable[onnx.NodeProto],
    opsets: Mapping[str, int],
    inputs: Mapping[str, onnx.TypeProto],
) -> dict[str, onnx.TypeProto]:
    """The types that onnx infers for what some nodes write, as far as it can, and ``inputs``."""
    infos = [helper.make_value_info(name, kind) for name, kind in inputs.items()]
    graph = helper.make_graph(list(nodes), "body", infos, [])
    imports = [helper.make_opsetid(*entry) for entry in opsets.items()]
    return model_types(helper.make_model(graph, opset_imports=imports))


def model_types(model: onnx.ModelProto) -> dict[str, onnx.TypeProto]:
    """The types that a model declares, and that onnx infers as far as it can."""
    # What onnx cannot infer stays unknown: its errors differ between versions and backends.
    with contextlib.suppress(Exception):
        # Not with data_prop: onnx then computes what is concatenated, element by element.
        model = onnx.shape_inference.infer_shapes(inferable(model))
    found: dict[str, onnx.TypeProto] = {}
    for graph in _graphs(model.graph):
        for tensor in graph.initializer:
            found[tensor.name] = helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
        for info in (*graph.value_info, *graph.input, *graph.output):
            if info.type.WhichOneof("value"):
                found[info.name] = info.type
    return found


def inferable(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without the nodes of other domains than the default one: onnx 1.23 may crash on theirs.

    What they write is of unknown type.
    """
    if all(node.domain in DEFAULT_DOMAINS for node in model.graph.node):
        return model
    kept = [node for node in model.graph.node if node.domain in DEFAULT_DOMAINS]
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.node[:]
    copy.graph.node.extend(kept)
    return copy


def bound(
    nodes: Iterable[onnx.NodeProto], given: Mapping[str, AttributeProto]
) -> tuple[onnx.NodeProto, ...]:
    """Copies of a function's nodes with attributes in place of references to them, in subgraphs too.

    A reference to what is neither given nor has a default leaves its attribute out, as ONNX's
    specification of functions says.
    """
    result = []
    for node in nodes:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        _bind(copy, given)
        result.append(copy)
    return tuple(result)


def _bind(node: onnx.NodeProto, given: Mapping[str, AttributeProto]) -> None:
    attributes = []
    for attribute in node.attribute:
        if attribute.ref_attr_name:
            value = given.get(attribute.ref_attr_name)
            if value is None:
                continue
            name = attribute.name
            attribute = AttributeProto()
            attribute.CopyFrom(value)
            attribute.name = name
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                _bind(inner, given)
        attributes.append(attribute)
    kept = [AttributeProto.FromString(attribute.SerializeToString()) for attribute in attributes]
    del node.attribute[:]
    node.attribute.extend(kept)


def _function(
    body: onnx.FunctionProto,
    node: onnx.NodeProto,
    defaults: Mapping[str, AttributeProto],
    *,
    optional: bool,
) -> Function:
    given = {**defaults, **{attribute.name: attribute for attribute in node.attribute}}
    return Function(
        key=(node.domain, node.op_type, node.overload),
        inputs=tuple(body.input),
        outputs=tuple(body.output),
        nodes=bound(body.node, given),
        opsets={normalize_domain(entry.domain): entry.version for entry in body.opset_import},
        optional=optional,
    )


def _implements(registry: Resolver, op_type: str, domain: str, opset: int) -> bool:
    try:
        spec: OpSpec = registry.resolve(op_type, domain=domain, opset=opset)
    except UnsupportedOpError:
        return False
    return spec.impl is not None


def _schema(node: onnx.NodeProto, opset: int) -> Any:
    if not 0 < opset <= NEWEST_VERSION:
        return None
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
    except onnx.defs.SchemaError:
        return None
    return None if schema.deprecated else schema


def _schema_body(
    schema: Any, node: onnx.NodeProto, opset: int, types: Types, where: Where
) -> onnx.FunctionProto | None:
    try:
        if schema.has_function:
            data = schema.get_function_with_opset_version(opset)
        elif schema.has_context_dependent_function:
            known = types()
            kinds = [known.get(name, onnx.TypeProto()) for name in node.input]
            data = schema.get_context_dependent_function_with_opset_version(
                opset, node.SerializeToString(), [kind.SerializeToString() for kind in kinds]
            )
        else:
            return None
        return onnx.FunctionProto.FromString(data) if data else None
    except Exception as error:  # the builders of bodies trust the node, each in its own way
        raise ModelError(
            f"what ONNX puts in the op's place cannot be made: {' '.join(str(error).split())}",
            where=where,
            fix="correct the node's inputs and attributes, or export the model again",
        ) from error


def _schema_defaults(schema: Any) -> dict[str, AttributeProto]:
    return {
        name: attribute.default_value
        for name, attribute in schema.attributes.items()
        if attribute.default_value.type != AttributeProto.UNDEFINED
    }


def _check_call(node: onnx.NodeProto, function: onnx.FunctionProto, where: Where) -> None:
    known = [*function.attribute, *(default.name for default in function.attribute_proto)]
    for what, names, accepted in (
        ("inputs", node.input, function.input),
        ("outputs", node.output, function.output),
    ):
        if len(names) > len(accepted):
            raise ModelError(
                f"the node has {len(names)} {what}, and the function that it calls {len(accepted)}",
                where=where,
                expected=f"at most {', '.join(accepted) or 'none'}",
                got=_listed(names),
                fix="correct the call, or the function",
            )
    for attribute in node.attribute:
        if attribute.name not in known:
            raise ModelError(
                f"the function has no attribute {attribute.name!r}",
                where=where,
                expected=", ".join(known) or "no attributes",
                got=attribute.name,
                fix="remove the attribute, or add it to the function",
            )
        if attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS):
            raise ModelError(
                f"the function is given a graph as the attribute {attribute.name!r}",
                where=where,
                expected="numbers, strings and tensors as attributes of functions",
                fix="export the model without local functions",
            )


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            bodies = (*((attribute.g,) if attribute.HasField("g") else ()), *attribute.graphs)
            for body in bodies:
                yield from _graphs(body)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names)) or "none"
