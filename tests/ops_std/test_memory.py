"""A run needs at most twice the memory of its largest live set.

The live set at a node is what is computed before or by it and read by it or later: its bytes follow
from the shapes that onnx infers. Inputs and constants are there anyway, and count on neither side.
"""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import onnx
import onnx.shape_inference
import pytest
from onnx import TensorProto, helper

from fhe_core import NumpyModule

from . import networks

SIDE = 1024  # of the chains' matrices: 4 MiB


def largest_live_set(model: onnx.ModelProto) -> int:
    """In bytes."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    sizes = {info.name: size(info) for info in (*graph.value_info, *graph.output)}
    last = {name: i for i, node in enumerate(graph.node) for name in node.input}
    last.update({info.name: len(graph.node) for info in graph.output})
    live: set[str] = set()
    largest = 0
    for i, node in enumerate(graph.node):
        live.update(name for name in node.output if name in last)
        largest = max(largest, sum(sizes[name] for name in live))
        live = {name for name in live if last[name] > i}
    return largest


def size(info: onnx.ValueInfoProto) -> int:
    kind = info.type.tensor_type
    elements = math.prod(dim.dim_value for dim in kind.shape.dim)
    assert elements, f"{info.name} has no known shape"
    return elements * helper.tensor_dtype_to_np_dtype(kind.elem_type).itemsize


def peak(net: NumpyModule, feeds: networks.Feeds) -> int:
    """The bytes that a run holds at most; NumPy reports its arrays to tracemalloc."""
    net.run(feeds)
    tracemalloc.start()
    try:
        net.run(feeds)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "name", ["densenet121", "inception_v2", "resnet50", "shufflenet", "squeezenet"]
)
def test_a_network(name: str) -> None:
    light = networks.light(name)
    assert peak(NumpyModule(light.model), light.feeds) <= 2 * largest_live_set(light.model)


def chain(*nodes: str) -> onnx.ModelProto:
    """A model with one square matrix as its input x, from nodes such as ``"b = Add(a, x)"``."""
    protos = [onnx.parser.parse_node(node) for node in nodes]
    infos = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [SIDE, SIDE])
        for name in ("x", protos[-1].output[0])
    ]
    graph = helper.make_graph(protos, "chain", infos[:1], infos[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)])


ACTIVATIONS = ("Celu", "Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "Neg",
               "Relu", "Selu", "Shrink", "Sigmoid", "Softplus", "Softsign", "Swish", "Tanh",
               "ThresholdedRelu")  # fmt: skip


def test_a_chain_of_elementwise_ops() -> None:
    """Two matrices are live at a time, however long the chain is."""
    nodes = [f"t{i + 1} = {op}({f't{i}' if i else 'x'})" for i, op in enumerate(ACTIVATIONS)]
    model = chain(*nodes, *(f"t{i + 1} = Add(t{i}, x)" for i in range(len(nodes), 60)))
    matrix = 4 * SIDE**2
    assert largest_live_set(model) == 2 * matrix
    assert peak(NumpyModule(model), {"x": feed()}) <= 4 * matrix


@pytest.mark.parametrize("op", ACTIVATIONS)
def test_an_elementwise_op(op: str) -> None:
    """Its temporaries are fewer, or smaller, than its input and output."""
    model = chain("a = Neg(x)", f"b = {op}(a)")
    assert peak(NumpyModule(model), {"x": feed()}) <= 2 * largest_live_set(model)


def test_what_is_read_late_counts_until_then() -> None:
    """Eight matrices that are summed up at the end are all live there, and no more than that."""
    names = [f"t{i}" for i in range(8)]
    nodes = [f"{name} = Neg({before})" for before, name in zip(["x", *names], names, strict=False)]
    model = chain(*nodes, f"y = Sum({', '.join(names)})")
    matrix = 4 * SIDE**2
    assert largest_live_set(model) == 9 * matrix
    assert 9 * matrix <= peak(NumpyModule(model), {"x": feed()}) <= 18 * matrix


def feed() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((SIDE, SIDE), np.float32)
