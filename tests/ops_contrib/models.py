"""Small models of ``ai.onnx.ml`` operators, and ONNX Runtime to judge them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, TypeProto, helper, numpy_helper


def ml(op: str, inputs: str, outputs: str, **attributes: Any) -> Any:
    """A node, with its inputs and outputs as names between spaces. Its own name is ``op``'s."""
    return helper.make_node(
        op, inputs.split(), outputs.split(), name=op, domain="ai.onnx.ml", **attributes
    )


def model(
    nodes: Iterable[Any],
    inputs: Mapping[str, Any],
    outputs: Mapping[str, Any],
    constants: Mapping[str, Any] | None = None,
    *,
    version: int = 3,
) -> Any:
    """A model. ``inputs``: example arrays, whose first dimension becomes symbolic, or types; ``outputs``:
    their element types, or whole types; ``version``: of ai.onnx.ml."""
    graph = helper.make_graph(
        list(nodes),
        "model",
        [_declared(name, value) for name, value in inputs.items()],
        [_declared(name, kind) for name, kind in outputs.items()],
        [numpy_helper.from_array(np.asarray(v), name) for name, v in (constants or {}).items()],
    )
    others = {node.domain for node in graph.node} - {"", "ai.onnx.ml"}
    versions = {"": 17, "ai.onnx.ml": version, **dict.fromkeys(sorted(others), 1)}
    opsets = [helper.make_opsetid(*imported) for imported in versions.items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def _declared(name: str, value: Any) -> Any:
    if isinstance(value, TypeProto):
        return helper.make_value_info(name, value)
    if isinstance(value, int):
        return helper.make_tensor_value_info(name, value, None)
    text = value.dtype == object
    kind = TensorProto.STRING if text else helper.np_dtype_to_tensor_dtype(value.dtype)
    shape = [None, *value.shape[1:]] if value.ndim > 1 else value.shape
    return helper.make_tensor_value_info(name, kind, shape)


def mapping(key: int, value: int, *, sequence: bool = False) -> Any:
    """The type of a map, or of a sequence of maps, from element types."""
    kind = helper.make_map_type_proto(key, helper.make_tensor_type_proto(value, None))
    return helper.make_sequence_type_proto(kind) if sequence else kind


def single(
    op: str,
    *arrays: Any,
    outputs: tuple[Any, ...] | None = None,
    version: int = 3,
    **attributes: Any,
) -> Any:
    """A model of one node, with the inputs x0, x1... and the outputs y0, y1...

    ``outputs``: their element types; one float32 by default.
    """
    inputs = {f"x{i}": array for i, array in enumerate(arrays)}
    results = {f"y{i}": kind for i, kind in enumerate(outputs or (TensorProto.FLOAT,))}
    node = ml(op, " ".join(inputs), " ".join(results), **attributes)
    return model([node], inputs, results, version=version)


def by_runtime(proto: Any, *arrays: Any) -> list[Any]:
    """What ONNX Runtime computes."""
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    names = [info.name for info in session.get_inputs()]
    return list(session.run(None, dict(zip(names, arrays, strict=True))))
