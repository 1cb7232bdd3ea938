"""A checked ModelProto to the plain dataclasses of ``ir``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, numpy_helper

from fhe_core.errors import ModelError, Where
from fhe_core.graph.ir import Graph, Node, ValueInfo

# Those that NumPy computes with: it knows neither bfloat16 nor the 8-bit floats nor 4-bit integers.
DTYPES: Mapping[int, np.dtype] = {
    TensorProto.FLOAT16: np.dtype(np.float16),
    TensorProto.FLOAT: np.dtype(np.float32),
    TensorProto.DOUBLE: np.dtype(np.float64),
    TensorProto.INT8: np.dtype(np.int8),
    TensorProto.INT16: np.dtype(np.int16),
    TensorProto.INT32: np.dtype(np.int32),
    TensorProto.INT64: np.dtype(np.int64),
    TensorProto.UINT8: np.dtype(np.uint8),
    TensorProto.UINT16: np.dtype(np.uint16),
    TensorProto.UINT32: np.dtype(np.uint32),
    TensorProto.UINT64: np.dtype(np.uint64),
    TensorProto.BOOL: np.dtype(np.bool_),
}


def read_graph(model: onnx.ModelProto) -> Graph:
    """The graph of a model that ``load_model`` has checked.

    Raises:
        ModelError: a tensor or attribute of a type that NumPy has nothing for, or whose data does
            not fit its shape.
    """
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    for info in model.graph.input:
        kind = info.type.WhichOneof("value")
        if kind != "tensor_type":
            raise ModelError(
                f"graph input {info.name!r} is not a tensor",
                expected="a tensor",
                got=kind.removesuffix("_type").replace("_", " "),
                fix="export the model with tensor inputs",
            )
    return _read_graph(model.graph, opsets)


def _read_graph(proto: Any, opsets: Mapping[str, int]) -> Graph:
    constants = {
        tensor.name: _array(tensor, f"tensor {tensor.name!r}") for tensor in proto.initializer
    }
    for sparse in proto.sparse_initializer:
        constants[sparse.values.name] = _dense(sparse, f"tensor {sparse.values.name!r}")
    nodes: list[Node] = []
    taken: set[str] = set()
    for entry in proto.node:
        nodes.append(_node(entry, opsets, taken))
        taken.add(nodes[-1].name)
    return Graph(
        name=proto.name,
        inputs=tuple(_value_info(info) for info in proto.input if info.name not in constants),
        outputs=tuple(_value_info(info) for info in proto.output),
        nodes=tuple(nodes),
        constants=constants,
        opsets=opsets,
    )


def _node(proto: Any, opsets: Mapping[str, int], taken: set[str]) -> Node:
    first_output = next(filter(None, proto.output), proto.op_type)
    name = proto.name if proto.name and proto.name not in taken else first_output
    where = Where(name, proto.op_type, proto.domain, opsets.get(proto.domain))
    attributes = {
        attribute.name: _attribute(attribute, where, opsets)
        for attribute in proto.attribute
        # "An internal symbol is defined as starting with two underscores" (onnx's defs/schema.cc).
        if not attribute.name.startswith("__")
    }
    captures: dict[str, None] = {}
    for body in _bodies(attributes):
        captures.update(dict.fromkeys(body.free_names()))
    return Node(
        name=name,
        op_type=proto.op_type,
        domain=proto.domain,
        # Only a node in a subgraph can lack an import here: the checker has seen the others.
        opset=opsets.get(proto.domain, 1),
        inputs=tuple(proto.input),
        outputs=tuple(proto.output),
        attributes=attributes,
        captures=tuple(captures),
    )


def _bodies(attributes: Mapping[str, Any]) -> list[Graph]:
    values = [
        item
        for value in attributes.values()
        for item in (value if isinstance(value, tuple) else (value,))
    ]
    return [value for value in values if isinstance(value, Graph)]


def _value_info(proto: Any) -> ValueInfo:
    # A sequence or map; or, in a subgraph, a type that is left to inference.
    if proto.type.WhichOneof("value") != "tensor_type":
        return ValueInfo(proto.name, None, None)
    tensor = proto.type.tensor_type
    shape = tuple(_dimension(dim, i) for i, dim in enumerate(tensor.shape.dim))
    return ValueInfo(
        proto.name,
        _dtype(tensor.elem_type, f"graph input or output {proto.name!r}"),
        shape if tensor.HasField("shape") else None,
    )


def _dimension(dim: Any, position: int) -> int | str | None:
    if dim.HasField("dim_param"):
        return dim.dim_param or None
    # skl2onnx has written 0, and others -1, for a batch of any size.
    if not dim.HasField("dim_value") or dim.dim_value < (1 if position == 0 else 0):
        return None
    return int(dim.dim_value)


def _dtype(elem_type: int, what: str, where: Where | None = None) -> np.dtype | None:
    if elem_type in (TensorProto.STRING, TensorProto.UNDEFINED):
        return None
    try:
        return DTYPES[elem_type]
    except KeyError:
        names = {number: name.lower() for name, number in TensorProto.DataType.items()}
        raise ModelError(
            f"{what} has the element type {names.get(elem_type, elem_type)}",
            where=where,
            expected="a float of 16, 32 or 64 bits, an integer of 8 to 64 bits, bool or string",
            fix="convert the model to float32",
        ) from None


def _array(proto: Any, what: str, where: Where | None = None) -> np.ndarray:
    _dtype(proto.data_type, what, where)
    try:
        array = numpy_helper.to_array(proto)
    except Exception as error:
        raise _unreadable(what, where, error) from error
    return constant(array)


def constant(array: np.ndarray) -> np.ndarray:
    """A read-only view, which the runner's outputs rely on (see ``schedule``)."""
    view = array.view()
    view.setflags(write=False)
    return view


def _dense(proto: Any, what: str, where: Where | None = None) -> np.ndarray:
    values, indices = _array(proto.values, what, where), _array(proto.indices, what, where)
    try:
        dense = np.zeros(tuple(proto.dims), values.dtype)
        if indices.ndim == 1:
            dense.reshape(-1)[indices] = values
        else:
            dense[tuple(indices.T)] = values
    except Exception as error:  # indices beyond the shape, or a shape beyond all memory
        raise _unreadable(what, where, error) from error
    return constant(dense)


def _unreadable(what: str, where: Where | None, error: Exception) -> ModelError:
    return ModelError(f"{what} cannot be read: {error}", where=where, fix="export the model again")


def _text(data: bytes, what: str, where: Where) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ModelError(
            f"{what} is not UTF-8", where=where, fix="export the model again"
        ) from error


_Reader = Callable[[Any, str, Where, Mapping[str, int]], Any]
_ATTRIBUTES: Mapping[int, _Reader] = {
    AttributeProto.FLOAT: lambda a, what, where, opsets: a.f,
    AttributeProto.INT: lambda a, what, where, opsets: a.i,
    AttributeProto.STRING: lambda a, what, where, opsets: _text(a.s, what, where),
    AttributeProto.TENSOR: lambda a, what, where, opsets: _array(a.t, what, where),
    AttributeProto.SPARSE_TENSOR: lambda a, what, where, opsets: _dense(
        a.sparse_tensor, what, where
    ),
    AttributeProto.GRAPH: lambda a, what, where, opsets: _read_graph(a.g, opsets),
    AttributeProto.FLOATS: lambda a, what, where, opsets: tuple(a.floats),
    AttributeProto.INTS: lambda a, what, where, opsets: tuple(a.ints),
    AttributeProto.STRINGS: lambda a, what, where, opsets: tuple(
        _text(item, what, where) for item in a.strings
    ),
    AttributeProto.TENSORS: lambda a, what, where, opsets: tuple(
        _array(item, what, where) for item in a.tensors
    ),
    AttributeProto.SPARSE_TENSORS: lambda a, what, where, opsets: tuple(
        _dense(item, what, where) for item in a.sparse_tensors
    ),
    AttributeProto.GRAPHS: lambda a, what, where, opsets: tuple(
        _read_graph(item, opsets) for item in a.graphs
    ),
}


def _attribute(proto: Any, where: Where, opsets: Mapping[str, int]) -> Any:
    what = f"attribute {proto.name!r}"
    reader = _ATTRIBUTES.get(proto.type)
    if reader is None:
        raise ModelError(
            f"{what} is of a type that cannot be read",
            where=where,
            expected="a number, string, tensor or graph, or a list of these",
            got=AttributeProto.AttributeType.Name(proto.type).lower(),
            fix="export the model without this operator",
        )
    return reader(proto, what, where, opsets)
