"""Small ONNX models from ONNX's own text format, for the tests of quantization."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper, parser

Array = NDArray[Any]


def model(
    nodes: str,
    inputs: Mapping[str, tuple[Any, ...]],
    outputs: str = "y",
    constants: Mapping[str, Any] | None = None,
    *,
    opset: int = 17,
    domains: Mapping[str, int] | None = None,
) -> onnx.ModelProto:
    """A float32 model.

    Args:
        nodes: in ONNX's text format, one a line: ``y = Gemm <transB = 1> (x, w)``.
        inputs: shape by name; the batch is "N", or a number where it is static.
        outputs: names, separated by spaces; their shapes are left open.
        constants: initializers, arrays or lists, by name.
        domains: further opsets that the nodes use.
    """
    graph = parser.parse_graph("g () => () {" + nodes + "}")
    graph.input.extend(
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in inputs.items()
    )
    graph.output.extend(
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in outputs.split()
    )
    graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name)
        for name, value in (constants or {}).items()
    )
    for i, node in enumerate(graph.node):
        node.name = node.name or f"{node.op_type}_{i}"
    opsets = [helper.make_opsetid("", opset)]
    opsets += [helper.make_opsetid(name, version) for name, version in (domains or {}).items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def normal(*shape: int, seed: int = 0) -> Array:
    """Seeded float32 values, normally distributed."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def relative_error(result: Any, expected: Any) -> float:
    """Root mean squared error, in standard deviations of what was expected."""
    assert result.shape == expected.shape
    error = np.sqrt(np.mean((np.float64(result) - expected) ** 2))
    return float(error / max(expected.std(), 1e-6))
