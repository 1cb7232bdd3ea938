"""What is multiplied or added to each channel of a product joins its weights and bias."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from fhe_core.graph import Graph, load_model, read_graph
from hypothesis import given
from hypothesis import strategies as st

import fhe_core
from fhe_core import NumpyModule
from tests.core.quantization.building import model, normal, relative_error

(FOLD,) = (
    each.run for each in fhe_core.get_registry().passes() if each.name == "fold_affine_chains"
)

X = normal(7, 6, seed=1)
IMAGES = normal(5, 4, 6, 6, seed=2)
PARAMETERS: dict[str, Any] = {
    "w": normal(6, 4, seed=3),
    "t": normal(4, 6, seed=4),
    "k": normal(4, 4, 3, 3, seed=5),
    "g": normal(4, 2, 3, 3, seed=6),
    "c": normal(4, seed=7),
    "s": normal(4, seed=8),
    "b": normal(4, seed=9),
    "m": normal(4, seed=10),
    "v": abs(normal(4, seed=11)) + np.float32(0.3),
    "one": np.float32(2.5),
    "row": normal(1, 4, seed=12),
    "column": normal(4, 1, 1, seed=13),
    "map": normal(1, 4, 1, 1, seed=14),
    "zero": np.zeros(4, np.float32),
    "tall": normal(7, 1, seed=16),
}

PRODUCTS = {
    "MatMul": "h = MatMul(x, w)",
    "Gemm": "h = Gemm(x, w)",
    "Gemm with C": "h = Gemm <alpha = 0.5, beta = 2.0> (x, w, c)",
    "Gemm of the transpose": "h = Gemm <transB = 1> (x, t, row)",
    "Conv": "h = Conv(x, k)",
    "Conv with bias": "h = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, k, c)",
    "grouped Conv": "h = Conv <group = 2> (x, g)",
}
NORMALIZATION = "y = BatchNormalization <epsilon = 0.01> (h, s, b, m, v)"


def op_of(product: str) -> str:
    return PRODUCTS[product].split()[2].partition("(")[0]


def data_of(product: str) -> Any:
    return IMAGES if op_of(product) == "Conv" else X


def build(nodes: str, data: Any = X, outputs: str = "y", opset: int = 17, **constants: Any) -> Any:
    used = {name: value for name, value in PARAMETERS.items() if name in nodes}
    return model(nodes, {"x": ("N", *data.shape[1:])}, outputs, {**used, **constants}, opset=opset)


def graph_of(proto: Any) -> Graph:
    return read_graph(load_model(proto))


def ops(graph: Graph) -> list[str]:
    return [node.op_type for node in graph.nodes]


def assert_same(proto: Any, folded: Graph, data: Any) -> None:
    """What is folded computes what onnxruntime makes of the model as it was."""
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    found = NumpyModule(folded)(data)
    found = found if isinstance(found, tuple) else (found,)
    for value, wanted in zip(found, session.run(None, {"x": data}), strict=True):
        assert value.dtype == wanted.dtype
        np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-5 * abs(wanted).max())


def assert_left(proto: Any) -> None:
    graph = graph_of(proto)
    assert FOLD(graph) is graph


# -- batch normalization


@pytest.mark.parametrize(
    ("product", "opset"),
    [
        (product, opset)
        for product in PRODUCTS
        for opset in (7, 8, 9, 13, 14, 15, 17, 21)
        if product != "Gemm" or opset >= 11  # C is not optional before
    ],
)
def test_batch_normalization_joins_the_product_before_it(product: str, opset: int) -> None:
    data = data_of(product)
    proto = build(f"{PRODUCTS[product]} \n {NORMALIZATION}", data, opset=opset)
    folded = FOLD(graph_of(proto))
    assert ops(folded) == (["MatMul", "Add"] if product == "MatMul" else [op_of(product)])
    assert_same(proto, folded, data)


def test_batch_normalization_of_opset_6_folds_where_it_says_that_it_is_no_training() -> None:
    nodes = "h = Conv(x, k) \n y = BatchNormalization <is_test = {}> (h, s, b, m, v)"
    proto = build(nodes.format(1), IMAGES, opset=6)
    folded = FOLD(graph_of(proto))
    assert ops(folded) == ["Conv"]
    expected = NumpyModule(graph_of(proto))(IMAGES)
    np.testing.assert_allclose(NumpyModule(folded)(IMAGES), expected, rtol=1e-4, atol=1e-4)
    assert_left(build(nodes.format(0), IMAGES, opset=6))


@pytest.mark.parametrize("opset", [7, 8])
def test_statistics_for_each_element_fold_where_an_element_is_a_channel(opset: int) -> None:
    elementwise = NORMALIZATION.replace("<", "<spatial = 0, ")
    proto = build(f"h = Gemm(x, w, c) \n {elementwise}", opset=opset)
    folded = FOLD(graph_of(proto))
    assert ops(folded) == ["Gemm"]
    np.testing.assert_allclose(NumpyModule(folded)(X), NumpyModule(proto)(X), rtol=1e-4, atol=1e-5)
    maps = {name: np.ones((4, 4, 4), np.float32) for name in "sbmv"}
    assert_left(build(f"h = Conv(x, k) \n {elementwise}", IMAGES, opset=opset, **maps))


def test_batch_normalization_in_training_stays() -> None:
    training = NORMALIZATION.replace("<", "<training_mode = 1, ").replace("y =", "y, p, q =")
    assert_left(build(f"h = Conv(x, k) \n {training}", IMAGES))


def test_batch_normalization_of_a_sequence_has_its_channels_elsewhere() -> None:
    """Four steps of four features: only the number of axes tells them apart."""
    proto = build(f"h = MatMul(x, w) \n {NORMALIZATION}", normal(5, 4, 6))
    assert_left(proto)
    expanded = f"e = Expand(x, shape) \n h = MatMul(e, w) \n {NORMALIZATION}"
    assert_left(build(expanded, shape=np.array([1, 1])))


def test_the_rank_is_known_behind_functions_and_other_products() -> None:
    nodes = f"""
        a = MatMul(x, q)
        i = Add(a, c)
        r = Relu(i)
        h = MatMul(r, o)
        {NORMALIZATION}
    """
    proto = build(nodes, q=normal(6, 4), o=normal(4, 4, seed=1))
    folded = FOLD(graph_of(proto))
    assert ops(folded) == ["MatMul", "Add", "Relu", "MatMul", "Add"]
    assert_same(proto, folded, X)


# -- chains


#: Chains, with what they leave behind a MatMul, which has no bias.
CHAINS = {
    "y = Mul(h, s)": [],
    "y = Mul(s, h)": [],
    "y = Mul(h, one)": [],
    "y = Div(h, v)": [],
    "y = Sub(h, b)": ["Sub"],
    "y = Sub(b, h)": ["Add"],
    "y = Mul(h, row)": [],
    "i = Mul(h, s) \n y = Add(i, b)": ["Add"],
    "i = Add(h, one) \n j = Div(i, v) \n k2 = Sub(m, j) \n y = Mul(k2, one)": ["Add"],
    "i = Add(h, b) \n j = Identity(i) \n y = Add(j, m)": ["Add"],
    "i = Add(h, zero) \n y = Identity(i)": [],
}


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("product", [name for name in PRODUCTS if op_of(name) != "Conv"])
def test_constants_for_each_channel_join_a_matrix_product(product: str, chain: str) -> None:
    proto = build(f"{PRODUCTS[product]} \n {chain}")
    folded = FOLD(graph_of(proto))
    assert ops(folded) == [op_of(product), *(CHAINS[chain] if op_of(product) == "MatMul" else [])]
    assert_same(proto, folded, X)
    assert FOLD(folded) is folded


@pytest.mark.parametrize(
    "chain",
    [
        "y = Mul(h, column)",
        "y = Mul(map, h)",
        "i = Sub(h, map) \n j = Div(i, column) \n y = Add(one, j)",
        "y = Add(h, one)",
    ],
)
@pytest.mark.parametrize("product", [name for name in PRODUCTS if op_of(name) == "Conv"])
def test_constants_for_each_channel_join_a_convolution(product: str, chain: str) -> None:
    proto = build(f"{PRODUCTS[product]} \n {chain}", IMAGES)
    folded = FOLD(graph_of(proto))
    assert ops(folded) == ["Conv"]
    assert_same(proto, folded, IMAGES)


def test_convolutions_in_one_and_three_dimensions_fold_too() -> None:
    for rank in (1, 3):
        data = normal(3, 4, *(6,) * rank)
        kernel = normal(4, 4, *(3,) * rank, seed=1)
        proto = build(f"h = Conv(x, z) \n {NORMALIZATION}", data, z=kernel)
        folded = FOLD(graph_of(proto))
        assert ops(folded) == ["Conv"]
        assert_same(proto, folded, data)


@given(
    st.lists(st.sampled_from(["Mul", "Add", "Sub", "Div", "Rsub"]), min_size=1, max_size=6),
    st.integers(0, 2**32 - 1),
    st.sampled_from(["MatMul", "Gemm with C", "grouped Conv"]),
)
def test_any_chain_computes_the_same(links: list[str], seed: int, product: str) -> None:
    rng = np.random.default_rng(seed)
    shape = (4, 1, 1) if "Conv" in product else (4,)
    constants = {
        f"a{i}": (rng.uniform(0.5, 2, shape) * rng.choice([-1, 1], shape)).astype(np.float32)
        for i in range(len(links))
    }
    nodes, last = [PRODUCTS[product]], "h"
    for i, link in enumerate(links):
        pair = f"(a{i}, {last})" if link == "Rsub" else f"({last}, a{i})"
        nodes.append(f"y{i} = {link.replace('Rs', 'S')}{pair}")
        last = f"y{i}"
    data = data_of(product)
    proto = build(" \n ".join(nodes), data, last, **constants)
    folded = FOLD(graph_of(proto))
    assert len(folded.nodes) <= 2
    expected = NumpyModule(proto)(data)
    np.testing.assert_allclose(
        NumpyModule(folded)(data), expected, rtol=1e-3, atol=1e-4 * abs(expected).max()
    )


# -- what stays


@pytest.mark.parametrize(
    ("nodes", "data"),
    [
        ("h = MatMul(x, w) \n y = Add(h, b)", X),  # as short as it gets
        ("h = MatMul(x, w) \n y = Relu(h)", X),
        ("h = Gemm(x, w) \n y = Mul(h, tall)", X),  # for each sample
        ("h = Conv(x, k) \n y = Mul(h, s)", IMAGES),  # along the last axis, not the channels
        ("h = Conv(x, z) \n y = Mul(h, s)", IMAGES),
        ("h = MatMul(x, z) \n y = Mul(h, s)", X),  # one channel becomes four
        ("h = Gemm(x, w) \n y = Div(b, h)", X),
        ("h = Gemm(x, w) \n y = Div(h, zero)", X),
        ("h = Gemm(x, w) \n y = Mul(h, h)", X),
        ("h = Gemm(x, w) \n i = Gemm(x, w, c) \n y = Mul(h, i)", X),
        ("h = MatMul(x, w) \n y = Mul(h, deep)", X),  # a further axis
    ],
)
def test_what_is_not_one_number_for_each_channel_stays(nodes: str, data: Any) -> None:
    constants: dict[str, Any] = {"deep": normal(1, 1, 4)} if "deep" in nodes else {}
    if "z" in nodes and "zero" not in nodes:
        constants["z"] = normal(6, 1) if "MatMul" in nodes else normal(1, 4, 3, 3)
    assert_left(build(nodes, data, **constants))


def test_what_something_else_reads_stays() -> None:
    assert_left(build("h = Gemm(x, w) \n i = Mul(h, s) \n y = Add(i, h)"))
    assert_left(build("h = Gemm(x, w) \n y = Mul(h, s)", outputs="y h"))
    proto = build("h = Gemm(x, w) \n i = Mul(h, s) \n y = Add(i, b)", outputs="y i")
    folded = FOLD(graph_of(proto))
    assert ops(folded) == ["Gemm", "Add"]
    assert_same(proto, folded, X)


def test_weights_that_another_node_reads_stay_as_they_are_for_it() -> None:
    proto = build("h = MatMul(x, w) \n y = Mul(h, s) \n z = MatMul(x, w)", outputs="y z")
    folded = FOLD(graph_of(proto))
    assert ops(folded) == ["MatMul", "MatMul"]
    assert_same(proto, folded, X)


def test_a_constant_that_is_an_output_stays_as_it_is() -> None:
    proto = build("h = MatMul(x, w) \n y = Mul(h, s)", outputs="y w")
    assert_same(proto, FOLD(graph_of(proto)), X)


def test_tensors_that_remain_keep_their_names() -> None:
    proto = build("h = Gemm(x, w, c) \n i = Mul(h, s) \n r = Relu(i) \n y = Identity(r)")
    folded = FOLD(graph_of(proto))
    assert [node.outputs for node in folded.nodes] == [("i",), ("r",), ("y",)]
    assert folded.nodes[0].name == "Gemm_0"
    assert folded.nodes[0].inputs == ("x", "w", "c")
    old, new = NumpyModule(proto), NumpyModule(folded)
    for name in ("i", "r", "y"):
        a, b = (net.run({"x": X}, fetch=[name])[name] for net in (old, new))
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_weights_and_bias_keep_their_type(dtype: Any) -> None:
    proto = build("h = Gemm(x, w, c) \n y = Mul(h, s)")
    graph = graph_of(proto)
    cast = {name: value.astype(dtype) for name, value in graph.constants.items()}
    folded = FOLD(type(graph)(**{**vars(graph), "constants": cast}))
    assert {value.dtype for name, value in folded.constants.items()} == {np.dtype(dtype)}


def test_what_half_precision_cannot_hold_stays() -> None:
    graph = graph_of(build("h = Gemm(x, w, c) \n y = Mul(h, s)"))
    cast = {name: (value * 1e3).astype(np.float16) for name, value in graph.constants.items()}
    graph = type(graph)(**{**vars(graph), "constants": cast})
    assert FOLD(graph) is graph


# -- under quantization


def test_batch_normalization_and_its_kind_cost_no_look_up() -> None:
    data = normal(200, 4, 6, 6, seed=2)
    rest = "r = Relu(y) \n f = Flatten(r) \n z = MatMul(f, last)"
    plain, *others = (
        fhe_core.quantize(
            build(f"{nodes} \n {rest}", data, "z", last=normal(64, 3)), data, n_bits=6
        )
        for nodes in (
            "y = Conv(x, k, c)",
            f"h = Conv(x, k) \n {NORMALIZATION}",
            "h = Conv(x, k) \n i = Mul(h, map) \n y = Add(i, column)",
        )
    )
    assert plain.passes == ()
    for qm in others:
        assert qm.passes == ("std.fold_affine_chains",)
        assert "std" in qm.packs
        assert len(qm.program.lookups) == len(plain.program.lookups) == 1
        assert [row.op for row in qm.fusion] == [row.op for row in plain.fusion]


def test_a_model_with_batch_normalization_keeps_its_answers() -> None:
    data = normal(300, 4, 6, 6, seed=2)
    nodes = (
        f"h = Conv(x, k) \n {NORMALIZATION} \n r = Relu(y) \n f = Flatten(r) \n z = MatMul(f, last)"
    )
    proto = build(nodes, data, "z", last=normal(64, 3))
    qm = fhe_core.quantize(proto, data, n_bits=7)
    assert relative_error(qm(data), NumpyModule(proto)(data)) < 0.05


def test_check_says_what_is_folded() -> None:
    report = fhe_core.check(build(f"h = Conv(x, k) \n {NORMALIZATION}", IMAGES))
    assert report.ok
    assert [(node.op, node.status, node.pack) for node in report.nodes] == [
        ("Conv", "encrypted", "std"),
        ("BatchNormalization", "rewritten", "std"),
    ]
