"""Affine ops between two tensors become one op, where that has few enough weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from fhe_core.graph import Graph, load_model, read_graph
from fhe_core.graph.passes import alternatives
from fhe_ops_std.composing import compose_linear as compose

import fhe_core
from fhe_core import NumpyModule
from tests.core.quantization.building import model, normal

X = normal(5, 6, seed=1)
IMAGES = normal(3, 2, 9, 8, seed=2)
TOKENS = normal(3, 4, 6, seed=3)
INPUTS = {"x": X, "images": IMAGES, "tokens": TOKENS}

CONSTANTS: dict[str, Any] = {
    "w1": normal(6, 6, seed=4),
    "w2": normal(6, 6, seed=5),
    "w3": normal(6, 3, seed=6),
    "t1": normal(6, 6, seed=7),
    "thin": normal(6, 1, seed=8),
    "wide": normal(1, 6, seed=9),
    "b1": normal(6, seed=10),
    "b3": normal(3, seed=11),
    "one": np.float32(1.5),
    "k1": normal(4, 2, 3, 3, seed=12),
    "k2": normal(4, 4, 2, 2, seed=13),
    "k3": normal(4, 4, 1, 1, seed=14),
    "k4": normal(4, 4, 3, 3, seed=15),
    "g1": normal(4, 1, 3, 3, seed=17),
    "g2": normal(4, 2, 1, 1, seed=18),
    "c1": normal(4, seed=19),
    "c2": normal(4, seed=20),
    "m": normal(4, seed=21),
    "v": abs(normal(4, seed=22)) + np.float32(0.3),
    "pixel": normal(1, 4, 1, 1, seed=23),
    "g3": normal(16, 1, 3, 3, seed=24),
    "k5": normal(16, 2, 1, 1, seed=25),
    "k6": normal(16, 16, 1, 1, seed=26),
    "w4": normal(3, 168, seed=27),
    "w5": normal(168, 3, seed=28),
    "w6": normal(1, 60, seed=29),
    "m1": normal(3, 3, seed=30),
    "d1": normal(6, 6, seed=31).astype(np.float64),
    "d2": normal(6, 3, seed=32).astype(np.float64),
    "rows": np.array([-1, 2, 3]),
    "single": np.array([1, -1]),
}


def build(nodes: str, outputs: str = "y", opset: int = 17, batch: Any = "N") -> Any:
    """A model of what the nodes read: x of (N, 6), images of (N, 2, 9, 8) or tokens of (N, 4, 6)."""
    words = set("".join(c if c.isalnum() else " " for c in nodes).split())
    inputs = {name: (batch, *data.shape[1:]) for name, data in INPUTS.items() if name in words}
    used = {name: value for name, value in CONSTANTS.items() if name in words}
    return model(nodes, inputs, outputs, used, opset=opset)


def graph_of(proto: Any) -> Graph:
    return read_graph(load_model(proto))


def ops(graph: Graph) -> list[str]:
    return [node.op_type for node in graph.nodes]


def composed(nodes: str, outputs: str = "y", opset: int = 17, batch: Any = "N") -> Graph:
    """The composed graph, which computes what onnxruntime makes of the model as it was."""
    proto = build(nodes, outputs, opset, batch)
    after = compose(graph_of(proto))
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    count = 3 if batch == "N" else batch
    feeds = {info.name: INPUTS[info.name][:count] for info in after.inputs}
    found = NumpyModule(after).run(feeds)
    for value, wanted in zip(found.values(), session.run(None, feeds), strict=True):
        assert (value.dtype, value.shape) == (wanted.dtype, wanted.shape)
        np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=2e-5 * abs(wanted).max())
    return after


def assert_left(nodes: str, outputs: str = "y", opset: int = 17, batch: Any = "N") -> None:
    graph = graph_of(build(nodes, outputs, opset, batch))
    assert compose(graph) is graph


# -- what becomes one op


@pytest.mark.parametrize(
    ("nodes", "left"),
    [
        ("h = Gemm(x, w1, b1) \n y = Gemm <transB = 1, alpha = 0.5> (h, t1)", ["Gemm"]),
        ("h = MatMul(x, w1) \n a = Add(h, b1) \n y = MatMul(a, w3)", ["Gemm"]),
        (
            "r = Relu(x) \n h = MatMul(r, w1) \n s = Mul(h, b1) \n a = Add(s, b1) \n"
            "g = Gemm(a, w2) \n y = Relu(g)",
            ["Relu", "Gemm", "Relu"],
        ),
        ("a = Gemm(x, w1) \n b = Gemm(x, w2) \n y = Sub(a, b)", ["Gemm"]),
        ("a = Gemm(x, w1) \n b = Gemm(x, w3) \n y = Concat <axis = 1> (a, b)", ["Gemm"]),
        ("h = MatMul(x, w1) \n s = Add(x, h) \n y = Add(s, b1)", ["Gemm"]),
        ("h = MatMul(x, w1) \n s, t = Split <axis = 1> (h) \n y = Add(s, t)", ["Gemm"]),
    ],
)
def test_vectors_take_one_gemm(nodes: str, left: list[str]) -> None:
    assert ops(composed(nodes)) == left


@pytest.mark.parametrize(
    ("nodes", "kernel", "stride"),
    [
        ("h = Conv(images, k1, c1) \n y = Conv(h, k2, c2)", (4, 4), 1),
        ("h = Conv <strides = [2, 2]> (images, k1, c1) \n y = Conv(h, k2)", (5, 5), 2),
        ("h = Conv(images, k1) \n y = Conv <strides = [2, 1]> (h, k3, c2)", (3, 3), (2, 1)),
        ("h = Conv <strides = [2, 2]> (images, k1) \n y = Conv <strides = [2, 2]> (h, k2)",
         (5, 5), 4),
        ("h = Conv(images, k1, c1) \n y = Conv <dilations = [2, 2]> (h, k2)", (5, 5), 1),
        ("h = Conv(images, k1, c1) \n p = AveragePool <kernel_shape = [2, 2]> (h) \n"
         "y = Conv(p, k3)", (4, 4), 1),
        ("h = Conv(images, k1, c1) \n a = Conv(h, k3) \n s = Add(a, h) \n y = Mul(s, pixel)",
         (3, 3), 1),
        ("r = Relu(images) \n h = Conv(r, k1) \n"
         "n = BatchNormalization (h, c1, c2, m, v) \n y = Conv(n, k2)", (4, 4), 1),
    ],
)  # fmt: skip
def test_convolutions_take_one_conv(nodes: str, kernel: Any, stride: Any) -> None:
    after = composed(nodes)
    conv = after.nodes[-1]
    assert ops(after) in (["Conv"], ["Relu", "Conv"])
    assert after.constants[conv.inputs[1]].shape[2:] == kernel
    assert conv.attributes["strides"] == tuple(np.broadcast_to(stride, 2))


def test_padding_of_the_first_convolution_alone_is_kept() -> None:
    pads = "<pads = [1, 2, 1, 0]>"
    after = composed(f"h = Conv {pads} (images, k1, c1) \n y = Conv(h, k3, c2)")
    assert ops(after) == ["Conv"]
    assert after.nodes[0].attributes["pads"] == (1, 2, 1, 0)
    inner = f"h = Conv(images, k1, c1) \n y = Conv {pads} (h, k4, c2)"
    assert_left(inner)


def test_a_residual_convolution_takes_one_conv_with_its_groups() -> None:
    padded = "pads = [1, 1, 1, 1]"
    nodes = f"r = Conv(images, k1) \n u = Relu(r) \n h = Conv <group = 4, {padded}> (u, g1, c1)"
    after = composed(f"{nodes} \n y = Add(h, u)")
    assert ops(after) == ["Conv", "Relu", "Conv"]
    assert after.nodes[-1].attributes["group"] == 4
    assert after.constants[after.nodes[-1].inputs[1]].shape == (4, 1, 3, 3)


def test_groups_that_a_second_convolution_mixes_are_no_groups() -> None:
    nodes = "r = Conv(images, k1) \n u = Relu(r) \n h = Conv <group = 4> (u, g1) \n"
    after = composed(f"{nodes} y = Conv <group = 2> (h, g2)")
    assert after.nodes[-1].attributes["group"] == 2


@pytest.mark.parametrize("batch", ["N", 1, 3])
def test_an_image_to_a_vector_takes_a_dense_product(batch: Any) -> None:
    nodes = "h = Conv(images, k1) \n f = {} \n y = Gemm <transB = 1> (f, w4)"
    assert ops(composed(nodes.format("Flatten(h)"), batch=batch)) == ["Flatten", "Gemm"]
    # As exporters write it for a batch of one, which no other batch can take.
    if batch == 1:
        assert ops(composed(nodes.format("Reshape(h, single)"), batch=1)) == ["Flatten", "Gemm"]


def test_a_vector_to_an_image_takes_a_dense_product() -> None:
    nodes = "h = Gemm(x, w1, b1) \n u = Reshape(h, rows) \n a = MatMul(u, m1) \n y = Relu(a)"
    assert ops(composed(nodes)) == ["Gemm", "Reshape", "Relu"]


def test_tokens_take_one_product_for_all() -> None:
    nodes = "h = MatMul(tokens, w1) \n a = Add(h, b1) \n y = MatMul(a, w3)"
    assert ops(composed(nodes)) == ["MatMul", "Add"]
    assert ops(composed(nodes.replace("Add(h, b1)", "Neg(h)"))) == ["MatMul"]


def test_residual_blocks_without_activations_take_one_gemm() -> None:
    nodes = (
        "r = Relu(x) \n b = MatMul(r, w1) \n a = Add(r, b) \n s = Add(a, b1) \n"
        "c = MatMul(s, w2) \n d = Add(s, c) \n y = Gemm(d, w3, b3)"
    )
    assert ops(composed(nodes)) == ["Relu", "Gemm"]


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 21])
def test_every_opset_that_compiles(opset: int) -> None:
    assert ops(composed("h = Gemm(x, w1, b1) \n y = Gemm(h, w2, b1)", opset=opset)) == ["Gemm"]
    layers = "h = Conv(images, k1) \n f = Flatten(h) \n y = MatMul(f, w5)"
    assert ops(composed(layers, opset=opset)) == ["Flatten", "Gemm"]


# -- where a region starts and ends


def test_what_prepares_the_start_and_lays_out_the_end_stays() -> None:
    """Scaling in front joins a look-up or runs before encryption; a layout behind is free."""
    nodes = "n = Sub(x, b1) \n d = Mul(n, b1) \n h = MatMul(d, w1) \n g = MatMul(h, w2)"
    assert ops(composed(f"{nodes} \n y = Reshape(g, rows)")) == ["Sub", "Mul", "Gemm", "Reshape"]


def test_what_others_read_is_computed_twice_only_if_that_takes_no_more_weights() -> None:
    shared = "h = Gemm(x, w1, b1) \n r = Relu(h) \n y = Gemm(h, w3)"
    after = composed(shared, "r y")
    assert ops(after) == ["Gemm", "Relu", "Gemm"]
    assert after.nodes[2].inputs[0] == "x"
    # A product of 6 x 1 and 1 x 6 weights has 36, which are worth it only if both go.
    assert ops(composed("h = MatMul(x, thin) \n y = MatMul(h, wide)")) == ["Gemm"]
    assert_left("h = MatMul(x, thin) \n y = MatMul(h, wide)", "h y")


def test_outputs_keep_their_names_and_nodes_the_last_products() -> None:
    after = composed("h = Gemm(x, w1) \n r = Relu(h) \n g = Gemm(r, w2) \n y = Gemm(g, w3)")
    assert [node.name for node in after.nodes] == ["Gemm_0", "Relu_1", "Gemm_3"]
    assert after.output_names == ("y",)


def test_two_inputs_are_two_regions() -> None:
    nodes = "a = Gemm(x, w1) \n b = Gemm(a, w3) \n c = Conv(images, k1) \n e = Conv(c, k3)"
    after = composed(f"{nodes} \n f = Flatten(e) \n g = MatMul(f, w5) \n y = Add(b, g)")
    assert ops(after) == ["Gemm", "Flatten", "Gemm", "Add"]


def test_the_type_of_the_model_stays() -> None:
    nodes = (
        "d = Cast <to = 11> (x) \n h = MatMul(d, d1) \n g = MatMul(h, d2) \n y = Cast <to = 1> (g)"
    )
    after = composed(nodes)
    assert ops(after) == ["Cast", "Gemm", "Cast"]
    assert after.constants[after.nodes[1].inputs[1]].dtype == np.float64


# -- what stays as it is


@pytest.mark.parametrize(
    "nodes",
    [
        "h = Gemm(x, w1, b1) \n r = Relu(h) \n y = Gemm(r, w3)",
        "h = Gemm(x, w1, b1) \n y = Add(h, b1)",
        "h = Relu(images) \n y = Conv <pads = [1, 1, 1, 1]> (h, k1)",
        "a = MatMul(x, w1) \n b = MatMul(x, w2) \n y = Mul(a, b)",
        "a = MatMul(x, w1) \n r = Relu(x) \n s = Add(a, r) \n y = Sigmoid(s)",
    ],
)
def test_nothing_changes_where_there_is_nothing_to_do(nodes: str) -> None:
    assert_left(nodes)


def test_a_product_of_thin_factors_stays() -> None:
    assert_left("h = MatMul(x, thin) \n y = MatMul(h, w6)")


def test_a_convolution_in_each_channel_before_one_of_points_stays() -> None:
    nodes = "c = Conv(images, k5) \n r = Relu(c) \n h = Conv <group = 16> (r, g3)"
    assert_left(f"{nodes} \n y = Conv(h, k6)")


@pytest.mark.parametrize("batch", ["N", 3])
def test_what_mixes_the_samples_of_a_batch_stays(batch: Any) -> None:
    mixing = "h = MatMul(x, w1) \n mean = ReduceMean <axes = [0]> (h) \n s = Sub(h, mean)"
    assert_left(f"{mixing} \n y = MatMul(s, w3)", batch=batch)
    turned = "h = MatMul(x, w1) \n t = Transpose(h) \n s = Transpose(t)"
    assert_left(f"{turned} \n y = MatMul(s, w3)", batch=batch)


def test_open_dimensions_besides_the_batch_stay() -> None:
    nodes = "h = MatMul(x, w1) \n y = MatMul(h, w3)"
    constants = {name: CONSTANTS[name] for name in ("w1", "w3")}
    graph = graph_of(model(nodes, {"x": ("N", "T", 6)}, constants=constants))
    assert compose(graph) is graph


def test_a_model_that_was_trained_for_integers_stays() -> None:
    nodes = "q = QuantizeLinear(x, one) \n d = DequantizeLinear(q, one) \n h = Gemm(d, w1)"
    assert_left(f"{nodes} \n y = Gemm(h, w3)", opset=21)


def test_what_cannot_run_stays() -> None:
    nodes = "h = MatMul(x, w1) \n g = MatMul(h, w3) \n y = tests.Unheard(g)"
    constants = {name: CONSTANTS[name] for name in ("w1", "w3")}
    proto = model(nodes, {"x": ("N", 6)}, constants=constants, domains={"tests": 1})
    graph = graph_of(proto)
    assert compose(graph) is graph
    assert_left("h = MatMul(x, w1) \n y = MatMul(h, w3)", opset=6)


# -- when a model is quantized


def test_what_is_composed_is_an_alternative_without_a_look_up_in_between() -> None:
    proto = build("h = Gemm(x, w1, b1) \n g = Gemm(h, w2) \n r = Relu(g) \n y = Gemm(r, w3)")
    registry = fhe_core.get_registry()
    forms = {str(each): found for each, found in alternatives(graph_of(proto), registry, {"x": X})}
    assert [node.op_type for node in forms["std.composed"].nodes] == ["Gemm", "Relu", "Gemm"]
