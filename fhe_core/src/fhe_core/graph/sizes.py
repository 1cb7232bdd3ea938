"""How many bytes the tensors of a model take, as far as shapes say it before anything is computed."""

from __future__ import annotations

import math
from typing import Any

import onnx
import onnx.inliner
import onnx.shape_inference
from onnx import helper

from fhe_core.errors import ModelError
from fhe_core.graph.budgets import check_bytes
from fhe_core.graph.functions import inferable
from fhe_core.graph.names import where_of
from fhe_core.graph.tensors import DTYPES

# Constants up to this many bytes are told to onnx: shapes, axes, pads. Of weights the shape says enough.
_TOLD = 1 << 13


def size_errors(model: onnx.ModelProto) -> list[ModelError]:
    """The first tensor that takes too many bytes for one sample, where the model or onnx tells its shape.

    Every dimension that has no number counts as one.
    """
    try:
        for info in model.graph.input:
            check_bytes(_bytes(info.type), f"the input {info.name!r} takes, for one sample,")
        graph = _inferred(model)
        sizes = {info.name: _bytes(info.type) for info in (*graph.value_info, *graph.output)}
        for node in graph.node:
            for name in node.output:
                what = f"its output {name!r} takes, for one sample,"
                check_bytes(sizes.get(name, 0), what, where_of(node))
    except ModelError as error:
        return [error]
    return []


def _inferred(model: onnx.ModelProto) -> Any:
    """The graph with the types that onnx infers, the model's functions in the place of their calls."""
    try:
        outline = _outline(model)
        if model.functions:
            outline = onnx.inliner.inline_local_functions(outline)
        # Not with data_prop: onnx then computes what is concatenated, element by element.
        return onnx.shape_inference.infer_shapes(inferable(outline)).graph
    except Exception:  # noqa: BLE001 - what onnx cannot infer stays unknown, each version in its way
        return onnx.GraphProto()


def _outline(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model for one sample, and without its weights: these would be copied three times."""
    outline = onnx.ModelProto(ir_version=model.ir_version)
    outline.opset_import.extend(model.opset_import)
    outline.functions.extend(model.functions)
    graph = outline.graph
    graph.name = model.graph.name
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(onnx.ValueInfoProto(name=info.name) for info in model.graph.output)
    for info in graph.input:
        for dim in info.type.tensor_type.shape.dim:
            if not dim.HasField("dim_value") or dim.dim_value <= 0:
                dim.dim_value = 1
    given = {info.name for info in graph.input}
    for tensor in model.graph.initializer:
        if tensor.ByteSize() <= _TOLD:
            graph.initializer.append(tensor)
        if tensor.name not in given:
            kind = helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
            graph.input.append(helper.make_value_info(tensor.name, kind))
    return outline


def _bytes(kind: Any) -> float:
    """Of a tensor of this type; 0 where its rank is unknown, or it is none."""
    if kind.WhichOneof("value") != "tensor_type" or not kind.tensor_type.HasField("shape"):
        return 0
    tensor = kind.tensor_type
    dtype = DTYPES.get(tensor.elem_type)
    sizes = (dim.dim_value if dim.dim_value > 0 else 1 for dim in tensor.shape.dim)
    return math.prod(sizes) * (dtype.itemsize if dtype is not None else 8)
