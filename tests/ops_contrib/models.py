"""Small models of ``ai.onnx.ml`` operators, and ONNX Runtime to judge them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper


def ml(op: str, inputs: str, outputs: str, **attributes: Any) -> Any:
    """A node, with its inputs and outputs as names between spaces. Its own name is ``op``'s."""
    return helper.make_node(
        op, inputs.split(), outputs.split(), name=op, domain="ai.onnx.ml", **attributes
    )


def model(
    nodes: Iterable[Any],
    inputs: Mapping[str, Any],
    outputs: Mapping[str, int],
    constants: Mapping[str, Any] | None = None,
) -> Any:
    """A model. ``inputs``: example arrays, whose first dimension becomes symbolic; ``outputs``:
    their element types."""
    graph = helper.make_graph(
        list(nodes),
        "model",
        [
            helper.make_tensor_value_info(
                name,
                helper.np_dtype_to_tensor_dtype(array.dtype),
                [None, *array.shape[1:]] if array.ndim > 1 else array.shape,
            )
            for name, array in inputs.items()
        ],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()],
        [numpy_helper.from_array(np.asarray(v), name) for name, v in (constants or {}).items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def single(op: str, *arrays: Any, outputs: tuple[int, ...] | None = None, **attributes: Any) -> Any:
    """A model of one node, with the inputs x0, x1... and the outputs y0, y1...

    ``outputs``: their element types; one float32 by default.
    """
    inputs = {f"x{i}": array for i, array in enumerate(arrays)}
    results = {f"y{i}": kind for i, kind in enumerate(outputs or (TensorProto.FLOAT,))}
    return model([ml(op, " ".join(inputs), " ".join(results), **attributes)], inputs, results)


def by_runtime(proto: Any, *arrays: Any) -> list[Any]:
    """What ONNX Runtime computes."""
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    names = [info.name for info in session.get_inputs()]
    return list(session.run(None, dict(zip(names, arrays, strict=True))))
