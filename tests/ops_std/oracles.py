"""Other people's implementations, asked about one node: ONNX Runtime and ONNX's reference."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper
from onnx.reference import ReferenceEvaluator

import fhe_core

from . import onnx_cases


def one_node_model(
    op: str, inputs: tuple[Any, ...], outputs: int, opset: int, attributes: dict[str, Any]
) -> onnx.ModelProto:
    """A model of one node whose inputs x0, x1... are declared like these (None: left out)."""
    names = [f"x{i}" if value is not None else "" for i, value in enumerate(inputs)]
    results = [f"y{i}" for i in range(outputs)]
    graph = helper.make_graph(
        [helper.make_node(op, names, results, **attributes)],
        op,
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
            )
            for name, value in zip(names, inputs, strict=True)
            if name
        ],
        [helper.make_empty_tensor_value_info(name) for name in results],
    )
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    # A valid model declares the types of its outputs. The schema infers them; where it does not,
    # as that of Compress-9, they are that of the first input.
    inferred = onnx.shape_inference.infer_shapes(model).graph
    for declared, output in zip(model.graph.output, inferred.output, strict=True):
        elem_type = (
            output.type.tensor_type.elem_type or model.graph.input[0].type.tensor_type.elem_type
        )
        declared.type.tensor_type.elem_type = elem_type
    return model


def feeds(inputs: tuple[Any, ...]) -> dict[str, Any]:
    """The inputs by name."""
    return {f"x{i}": value for i, value in enumerate(inputs) if value is not None}


def by_runtime(
    op: str, *inputs: Any, outputs: int = 1, opset: int = 17, **attributes: Any
) -> list[Any]:
    """What ONNX Runtime computes for one node."""
    model = one_node_model(op, inputs, outputs, opset, attributes)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return list(session.run(None, feeds(inputs)))


def by_reference(
    op: str, *inputs: Any, outputs: int = 1, opset: int = 17, **attributes: Any
) -> list[Any]:
    """What ONNX's reference evaluator computes for one node."""
    model = one_node_model(op, inputs, outputs, opset, attributes)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return list(ReferenceEvaluator(model).run(None, feeds(inputs)))


def by_module(
    op: str, *inputs: Any, outputs: int = 1, opset: int = 17, **attributes: Any
) -> list[Any]:
    """What a `NumpyModule` of the node computes, with the installed packs."""
    module = fhe_core.NumpyModule(one_node_model(op, inputs, outputs, opset, attributes))
    result = module(**feeds(inputs))
    return list(result) if isinstance(result, tuple) else [result]


def assert_all_same(got: Any, expected: Any, rtol: float = 1e-5) -> None:
    """Dtypes, shapes and values of all the expected outputs."""
    assert len(got) >= len(expected)
    for one, other in zip(got, expected, strict=False):
        onnx_cases.assert_same(one, other, rtol=rtol, atol=rtol)
