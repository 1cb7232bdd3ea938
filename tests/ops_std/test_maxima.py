"""A function that never decreases is computed before a maximum, where it joins the look-up that is there."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from fhe_core.graph import Graph, load_model, read_graph
from fhe_core.program.remarks import lookups

import fhe_core
from fhe_core import NumpyModule
from tests.core.quantization.building import model, normal

(MOVE,) = (
    each.run for each in fhe_core.get_registry().passes() if each.name == "functions_before_maxima"
)

IMAGES = normal(150, 1, 6, 6, seed=1)
PARAMETERS: dict[str, Any] = {
    "k": normal(2, 1, 3, 3, seed=2),
    "w": normal(8, 3, seed=3),
    "u": normal(2, 3, seed=4),
    "low": np.float32(-0.5),
    "high": np.float32(1.5),
    "axes": np.array([2, 3]),
}
CONV = "h = Conv(x, k)"
POOL = "p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (h)"
END = "f = Flatten(r) \n y = Gemm(f, w)"
FUNCTIONS = [
    *("Relu", "Sigmoid", "Tanh", "Softplus", "Softsign", "Elu", "Selu", "Celu", "HardSigmoid"),
    *("LeakyRelu", "ThresholdedRelu", "Erf", "Exp", "Atan", "Sinh", "Asinh", "Floor", "Ceil"),
    "Round",
]


def net(*nodes: str, opset: int = 17) -> Any:
    text = " \n ".join(nodes)
    words = set(text.replace(",", " ").replace("(", " ").replace(")", " ").split())
    used = {name: value for name, value in PARAMETERS.items() if name in words}
    return model(text, {"x": ("N", 1, 6, 6)}, constants=used, opset=opset)


def moved(onnx_model: Any) -> Graph:
    """The graph as the pass leaves it, which has to compute what ONNX Runtime does."""
    before = read_graph(load_model(onnx_model), fhe_core.get_registry())
    after = MOVE(before)
    session = onnxruntime.InferenceSession(onnx_model.SerializeToString())
    (expected,) = session.run(None, {"x": IMAGES})
    np.testing.assert_allclose(NumpyModule(after)(IMAGES), expected, rtol=1e-4, atol=1e-4)
    return after


def order(graph: Graph) -> list[str]:
    return [node.op_type for node in graph.nodes]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_functions_that_never_decrease_move_before_the_maximum(function: str) -> None:
    graph = moved(net(CONV, POOL, f"r = {function}(p)", END))
    assert order(graph) == ["Conv", function, "MaxPool", "Flatten", "Gemm"]


@pytest.mark.parametrize(
    ("maximum", "weights"),
    [("GlobalMaxPool(h)", "u"), ("ReduceMax <axes = [2, 3]> (h)", "u")],
    ids=["GlobalMaxPool", "ReduceMax"],
)
def test_so_they_do_before_other_maxima(maximum: str, weights: str) -> None:
    graph = moved(net(CONV, f"p = {maximum}", "r = Relu(p)", END.replace("w", weights)))
    assert order(graph)[:2] == ["Conv", "Relu"]


def test_clip_moves_with_constant_bounds() -> None:
    assert order(moved(net(CONV, POOL, "r = Clip(p, low, high)", END)))[1] == "Clip"


def test_several_functions_move_in_their_order_and_past_layout() -> None:
    graph = moved(net(CONV, POOL, "q = Relu(p)", "s = Flatten(q)", "r = Tanh(s)", "y = Gemm(r, w)"))
    assert order(graph) == ["Conv", "Relu", "Tanh", "MaxPool", "Flatten", "Gemm"]


@pytest.mark.parametrize(
    "nodes",
    [
        (CONV, POOL, "r = Neg(p)", END),
        (CONV, POOL, "r = Abs(p)", END),
        (CONV, POOL, "r = HardSigmoid <alpha = -0.3> (p)", END),
        (CONV, POOL, "q = Abs(p)", "r = Log(q)", END),
        (CONV, POOL, "q = Relu(p)", "r = Add(p, q)", END),
        (CONV, POOL, "q = Relu(p)", "m = ReduceMax <axes = [2, 3]> (h)", "r = Add(m, q)", END),
        (CONV, POOL, "y = Relu(p)"),
        (CONV, POOL, "r = Relu(p)", "s = Flatten(r)", "y = Softmax(s)"),
        (CONV, POOL, "q = ReduceMax(p)", "r = Clip(p, low, q)", END),
    ],
    ids=[
        "decreasing",
        "turning",
        "decreasing by its factor",
        "undefined for some",
        "pooled values read elsewhere",
        "unpooled values read elsewhere",
        "an output",
        "shapes an output",
        "bounds that vary",
    ],
)
def test_what_would_change_or_cost_something_stays(nodes: tuple[str, ...]) -> None:
    before = read_graph(load_model(net(*nodes)), fhe_core.get_registry())
    assert MOVE(before) is before


def test_a_model_that_was_trained_for_integers_stays_as_it_is() -> None:
    quantized = "q = QuantizeLinear(h, high) \n d = DequantizeLinear(q, high)"
    nodes = net(CONV, quantized, POOL.replace("(h)", "(d)"), "r = Relu(p)", END)
    before = read_graph(load_model(nodes), fhe_core.get_registry())
    assert MOVE(before) is before


def test_a_function_before_a_maximum_takes_no_look_up() -> None:
    """32 of the product's results, 24 of the tournaments, and none of 8 maxima."""
    qm = fhe_core.quantize(net(CONV, POOL, "r = Relu(p)", END), IMAGES, n_bits=4, savings="none")
    assert qm.passes == ("std.functions_before_maxima",)
    assert lookups(qm.program) == 32 + 24


@pytest.mark.fhe
def test_the_circuit_is_cheaper_for_it() -> None:
    pytest.importorskip("concrete.fhe", reason="needs fhe-core[concrete]")
    options: dict[str, Any] = {"n_bits": 3, "rounding": 3, "savings": "none"}
    costs = [
        fhe_core.compile(net(CONV, *nodes, END), IMAGES, **options).cost.complexity
        # A product in between keeps the pass off, and joins the look-up of the Relu.
        for nodes in ((POOL, "r = Relu(p)"), (POOL, "q = Mul(p, high)", "r = Relu(q)"))
    ]
    assert costs[0] < 0.9 * costs[1]


@pytest.mark.parametrize(
    ("op", "sign"),
    [("ArgMax <axis = 1>", 1), ("ArgMin <axis = 1>", -1), ("Hardmax <axis = 1>", 1)],
)
def test_the_place_of_the_largest_is_wrong_only_where_roundings_do_not_tell_it_apart(
    op: str, sign: int
) -> None:
    """At 8 bits differences of 9 are rounded to 8: once, however many elements a tournament has."""
    nodes = [f"h = MatMul(x, a) \n p = {op} (h)", "c = Cast <to = 1> (p) \n y = MatMul(c, w)"]
    weights = np.eye(16, dtype=np.float32) if op[0] == "H" else np.ones((1, 1), np.float32)
    a = normal(8, 16, seed=5)
    proto = model(" \n ".join(nodes), {"x": ("N", 8)}, constants={"a": a, "w": weights})
    x = normal(300, 8, seed=6)
    unseen = np.clip(normal(2000, 8, seed=7), -2.5, 2.5)
    qm = fhe_core.quantize(proto, x, n_bits=8)
    ordered = np.sort(sign * (unseen @ a), axis=1)
    # One step each for rounding two elements to steps, two for doubling these; the products are rounded too.
    step = qm.plan.tensors["h"].scale
    clear = (ordered[:, -1] - ordered[:, -2] > 6 * step) & (np.abs(ordered).max(1) < 10)
    assert clear.mean() > 0.4
    np.testing.assert_allclose(qm(unseen[clear]), NumpyModule(proto)(unseen[clear]), atol=0.3)
