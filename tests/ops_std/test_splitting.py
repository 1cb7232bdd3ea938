"""Activations of two straight halves become magnitudes, and lines that cost no look-up."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from fhe_core.graph import Graph, load_model, read_graph

import fhe_core
from fhe_core import NumpyModule
from tests.core.quantization.building import model, normal, relative_error

(SPLIT,) = (
    each.run for each in fhe_core.get_registry().alternatives() if each.name == "split_activations"
)

X = normal(60, 6, seed=1)
IMAGES = normal(20, 2, 7, 6, seed=2)
TOKENS = normal(20, 4, 6, seed=3)
INPUTS = {"x": X, "images": IMAGES, "tokens": TOKENS}

CONSTANTS: dict[str, Any] = {
    "w1": normal(6, 5, seed=4),
    "b1": normal(5, seed=5),
    "w2": normal(5, 5, seed=6),
    "b2": normal(5, seed=7),
    "w3": normal(5, 3, seed=8),
    "b3": normal(3, seed=9),
    "direct": normal(6, 3, seed=10),
    "slopes": np.array([0.1, -0.5, 2, 0, 1], np.float32),
    "k1": normal(4, 2, 3, 3, seed=11),
    "c1": normal(4, seed=12),
    "k2": normal(3, 4, 3, 2, seed=13),
    "each": np.array([0.3, 0.2, -1, 3], np.float32).reshape(4, 1, 1),
    "w4": normal(80, 3, seed=14),
    "w5": normal(27, 3, seed=15),
    "w6": normal(4, 3, seed=16),
    "w7": normal(20, 3, seed=17),
    "scale": np.array([100, 1, 10, 1, 0.1, 1], np.float32),
    "shift": normal(6, seed=18),
    "one": np.float32(0.25),
    "d1": normal(6, 5, seed=19).astype(np.float64),
    "d2": normal(5, 3, seed=20).astype(np.float64),
    "sizes": np.array([2, 3]),
    "tall": normal(6, 1, 3, 2, seed=21),
}


def build(nodes: str, outputs: str = "y", opset: int = 17, batch: Any = "N") -> Any:
    """A model of what the nodes read: x of (N, 6), images of (N, 2, 7, 6) or tokens of (N, 4, 6)."""
    words = set("".join(c if c.isalnum() else " " for c in nodes).split())
    inputs = {name: (batch, *data.shape[1:]) for name, data in INPUTS.items() if name in words}
    used = {name: value for name, value in CONSTANTS.items() if name in words}
    return model(nodes, inputs, outputs, used, opset=opset)


def graph_of(proto: Any) -> Graph:
    return read_graph(load_model(proto))


def samples(graph: Graph, batch: Any = "N") -> dict[str, Any]:
    return {name: INPUTS[name][: None if batch == "N" else batch] for name in graph.input_names}


def ops(graph: Graph) -> list[str]:
    return [node.op_type for node in graph.nodes]


def split(nodes: str, outputs: str = "y", opset: int = 17, batch: Any = "N") -> Graph:
    """The split graph, which computes what onnxruntime makes of the model as it was."""
    proto = build(nodes, outputs, opset, batch)
    before = graph_of(proto)
    feeds = samples(before, batch)
    after = SPLIT(before, feeds)
    assert after is not None
    assert (after.inputs, after.outputs) == (before.inputs, before.outputs)
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    found = NumpyModule(after).run(feeds)
    for value, wanted in zip(found.values(), session.run(None, feeds), strict=True):
        assert (value.dtype, value.shape) == (wanted.dtype, wanted.shape)
        np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=2e-5 * abs(wanted).max())
    return after


def assert_left(nodes: str, outputs: str = "y", opset: int = 17) -> None:
    graph = graph_of(build(nodes, outputs, opset))
    assert SPLIT(graph, samples(graph)) is None


# -- what is split

ONE = "t = Gemm(x, w1, b1) \n r = {} \n y = Gemm(r, w3, b3)"


@pytest.mark.parametrize(
    "activation", ["Relu(t)", "LeakyRelu(t)", "LeakyRelu <alpha = 0.3> (t)", "PRelu(t, slopes)"]
)
def test_a_hidden_layer_takes_magnitudes_and_the_input(activation: str) -> None:
    after = split(ONE.format(activation))
    assert ops(after) == ["Gemm", "Abs", "Concat", "Gemm"]
    assert after.constants[after.nodes[-1].inputs[1]].shape == (3, 6 + 5)


def test_each_layer_reads_the_input_and_the_magnitudes_of_all_before_it() -> None:
    after = split(
        "t = Gemm(x, w1, b1) \n r = Relu(t) \n u = Gemm(r, w2, b2) \n s = LeakyRelu(u) \n"
        "y = Gemm(s, w3, b3)"
    )
    assert ops(after) == ["Gemm", "Abs", "Concat", "Gemm", "Abs", "Concat", "Gemm"]
    weights = [after.constants[node.inputs[1]].shape for node in after.nodes if "Gemm" in node.name]
    assert weights == [(6, 5), (5, 6 + 5), (3, 6 + 5 + 5)]


def test_residual_branches_join_the_product() -> None:
    after = split(
        "h = Gemm(x, w1, b1) \n r = Relu(h) \n u = MatMul(r, w2) \n a = Add(u, b2) \n s = Relu(a) \n"
        "j = Add(r, s) \n z = Gemm(j, w3) \n e = MatMul(x, direct) \n y = Add(z, e)"
    )
    assert ops(after) == ["Gemm", "Abs", "Concat", "Gemm", "Abs", "Concat", "Gemm"]


def test_two_branches_and_two_readers() -> None:
    after = split(
        "t = MatMul(x, w1) \n a = Add(t, b1) \n r = Relu(a) \n l = LeakyRelu(a) \n"
        "g = Gemm(r, w3) \n h = Gemm(l, w3) \n z = Sub(g, h) \n y = Sigmoid(g)",
        "y z",
    )
    assert "Relu" not in " ".join(ops(after))
    assert ops(after).count("Gemm") == 2


@pytest.mark.parametrize(
    ("nodes", "columns"),
    [
        ("r = Relu(t) \n f = Flatten(r) \n y = MatMul(f, w4)", 84 + 80),
        ("r = PRelu(t, each) \n f = Flatten(r) \n y = MatMul(f, w4)", 84 + 80),
        ("r = Relu(t) \n p = GlobalAveragePool(r) \n f = Flatten(p) \n y = Gemm(f, w6)", 84 + 80),
    ],
)
def test_a_convolution_stays_and_what_follows_takes_one_gemm(nodes: str, columns: int) -> None:
    after = split(f"t = Conv(images, k1, c1) \n {nodes}")
    assert ops(after) == ["Conv", "Abs", "Flatten", "Flatten", "Concat", "Gemm"]
    assert after.constants[after.nodes[-1].inputs[1]].shape == (3, columns)


def test_of_two_convolutions_only_the_last_is_split() -> None:
    """An image takes too many weights to be one product of others."""
    after = split(
        "t = Conv(images, k1, c1) \n r = Relu(t) \n u = Conv(r, k2) \n s = Relu(u) \n"
        "f = Flatten(s) \n y = MatMul(f, w5)"
    )
    assert [node.op_type for node in after.nodes[:4]] == ["Conv", "Relu", "Conv", "Abs"]
    assert after.constants[after.nodes[-1].inputs[1]].shape == (3, 80 + 27)


def test_tokens_that_become_a_vector() -> None:
    assert "Abs" in ops(
        split("t = MatMul(tokens, w1) \n r = Relu(t) \n f = Flatten(r) \n y = MatMul(f, w7)")
    )


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 21])
def test_every_opset_that_compiles(opset: int) -> None:
    assert ops(split(ONE.format("Relu(t)"), opset=opset)) == ["Gemm", "Abs", "Concat", "Gemm"]


@pytest.mark.parametrize("batch", [1, 3])
def test_a_static_batch(batch: int) -> None:
    nodes = "t = Conv(images, k1) \n r = Relu(t) \n f = Flatten(r) \n y = MatMul(f, w4)"
    assert ops(split(nodes, batch=batch))[:2] == ["Conv", "Abs"]


def test_the_type_of_the_model_stays() -> None:
    after = split(
        "d = Cast <to = 11> (x) \n t = MatMul(d, d1) \n r = Relu(t) \n g = MatMul(r, d2) \n"
        "y = Cast <to = 1> (g)"
    )
    assert ops(after) == ["Cast", "MatMul", "Abs", "Concat", "Gemm", "Cast"]
    assert after.constants[after.nodes[1].inputs[1]].dtype == np.float64


# -- names and scales


def test_nodes_keep_their_names() -> None:
    after = split(ONE.format("Relu(t)"))
    named = {node.name: node.op_type for node in after.nodes if node.op_type != "Concat"}
    assert named == {"Gemm_0": "Gemm", "Relu_1": "Abs", "Gemm_2": "Gemm"}


def test_what_several_products_join_has_one_name_each() -> None:
    """Both outputs come from one product, which is computed for each."""
    after = split(
        "t = Gemm(x, w1, b1) \n r = Relu(t) \n g = Gemm(r, w3) \n e = MatMul(x, direct) \n"
        "z = Add(g, e) \n y = Sigmoid(g)",
        "y z",
    )
    names = [node.name for node in after.nodes]
    assert len({*names}) == len(names)
    assert "Gemm_2" in names


def test_each_channel_of_a_magnitude_reaches_as_far_as_the_input() -> None:
    for nodes, source in (
        (ONE.format("Relu(t)"), "x"),
        ("t = Conv(images, k1) \n r = Relu(t) \n f = Flatten(r) \n y = MatMul(f, w4)", "images"),
    ):
        after = split(nodes)
        magnitude = next(node.outputs[0] for node in after.nodes if node.op_type == "Abs")
        found = NumpyModule(after).run(samples(after), fetch=[magnitude])[magnitude]
        reach = found.max(axis=tuple(axis for axis in range(found.ndim) if axis != 1))
        np.testing.assert_allclose(reach, abs(INPUTS[source]).max(), rtol=1e-5)


def test_what_prepares_the_input_stays_before_it() -> None:
    """Features of different scales would share one if they were concatenated as they come."""
    nodes = "c = Sub(x, shift) \n n = Mul(c, scale) \n t = Gemm(n, w1) \n r = Relu(t) \n"
    after = split(f"{nodes} y = Gemm(r, w3)")
    assert ops(after)[:2] == ["Sub", "Mul"]
    concat = next(node for node in after.nodes if node.op_type == "Concat")
    assert "n" in concat.inputs


def test_a_channel_that_is_always_zero_is_not_scaled() -> None:
    zero = CONSTANTS["w1"].copy()
    zero[:, 2] = 0
    constants = {**CONSTANTS, "w1": zero}
    used = {name: constants[name] for name in ("w1", "w3")}
    nodes = "t = Gemm(x, w1) \n r = Relu(t) \n y = Gemm(r, w3)"
    graph = graph_of(model(nodes, {"x": ("N", 6)}, constants=used))
    after = SPLIT(graph, {"x": X})
    assert after is not None
    np.testing.assert_allclose(NumpyModule(after)(X), NumpyModule(graph)(X), rtol=1e-3, atol=1e-4)


def test_a_magnitude_that_is_there_is_scaled_and_then_left() -> None:
    after = split(ONE.format("Abs(t)"))
    assert ops(after) == ["Gemm", "Abs", "Gemm"]
    assert SPLIT(after, samples(after)) is None
    relu = split(ONE.format("Relu(t)"))
    assert SPLIT(relu, samples(relu)) is None


# -- what stays as it is


@pytest.mark.parametrize(
    "nodes",
    [
        "t = Gemm(x, w1) \n y = Relu(t)",
        "t = Gemm(x, w1) \n r = Relu(t) \n s = Sigmoid(r) \n y = Gemm(s, w3)",
        "t = Gemm(x, w1) \n r = Relu(t) \n s = Add(r, b1) \n u = Tanh(s) \n y = Gemm(u, w3)",
        "r = Relu(x) \n y = Gemm(r, w1)",
        "n = Sub(x, shift) \n r = Relu(n) \n y = Gemm(r, w1)",
        "t = Gemm(x, w1) \n s = Sigmoid(t) \n y = Gemm(s, w3)",
        "t = Conv(images, k1) \n r = Relu(t) \n y = Conv(r, k2)",
        "t = Conv(images, k1) \n r = Relu(t) \n m = MaxPool <kernel_shape = [2, 2]> (r) \n"
        "y = Conv(m, k2)",
        "t = MatMul(tokens, w1) \n r = Relu(t) \n y = MatMul(r, w3)",
    ],
)
def test_none_says_that_nothing_can_be_split(nodes: str) -> None:
    assert_left(nodes)


def test_what_is_read_by_something_else_too_stays() -> None:
    assert_left("t = Gemm(x, w1) \n r = Relu(t) \n y = Gemm(r, w3)", "r y")


def test_two_activations_that_one_look_up_computes_stay() -> None:
    nodes = (
        "t = Gemm(x, w1) \n r = Relu(t) \n s = Sub(r, b1) \n l = LeakyRelu(s) \n y = Gemm(l, w3)"
    )
    assert_left(nodes)


def test_a_model_that_was_trained_for_integers_stays() -> None:
    nodes = "q = QuantizeLinear(x, one) \n d = DequantizeLinear(q, one) \n t = Gemm(d, w1)"
    assert_left(f"{nodes} \n r = Relu(t) \n y = Gemm(r, w3)", opset=21)


def test_too_many_weights_stay() -> None:
    wide = {"w1": normal(300, 300, seed=1), "w2": normal(300, 500, seed=2)}
    nodes = "t = Gemm(x, w1) \n r = Relu(t) \n y = Gemm(r, w2)"
    graph = graph_of(model(nodes, {"x": ("N", 300)}, constants=wide))
    assert SPLIT(graph, {"x": normal(4, 300)}) is None


def test_open_dimensions_besides_the_batch_stay() -> None:
    constants = {name: CONSTANTS[name] for name in ("w1", "w3")}
    nodes = "t = MatMul(x, w1) \n r = Relu(t) \n m = ReduceMean <axes = [1], keepdims = 0> (r) \n"
    graph = graph_of(model(f"{nodes} y = MatMul(m, w3)", {"x": ("N", "T", 6)}, constants=constants))
    assert SPLIT(graph, {"x": TOKENS}) is None


# -- when a model is quantized


def test_as_many_look_ups_do_less_harm() -> None:
    """With enough samples: the padding bit is used where it holds what is expected on unseen data."""
    proto, x = build(ONE.format("Relu(t)")), normal(2000, 6, seed=1)

    def in_halves(graph: Graph) -> Graph:
        return SPLIT(graph, {"x": X}) or graph

    plain = fhe_core.quantize(proto, x, n_bits=6, rounding=3)
    with fhe_core.registered(passes=[in_halves]):
        halves = fhe_core.quantize(proto, x, n_bits=6, rounding=3)
    counts = [sum(np.prod(node.shape[1:]) for node in qm.program.lookups) for qm in (plain, halves)]
    assert counts == [5, 5]
    expected = NumpyModule(proto)(x)
    errors = [relative_error(qm(x), expected) for qm in (plain, halves)]
    assert errors[1] < 0.5 * errors[0]
