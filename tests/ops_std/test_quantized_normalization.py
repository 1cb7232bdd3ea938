"""Softmax, normalizations and extrema in the middle of a net; after decryption where they come last."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fhe_core
from fhe_core import CompilationError
from tests.core.quantization.building import model, normal, relative_error

SIZE = 8
CONSTANTS = {
    "w": normal(SIZE, SIZE, seed=3) / np.sqrt(np.float32(SIZE)),
    "v": normal(SIZE, 3, seed=9),
    "g": np.linspace(0.5, 1.5, SIZE, dtype=np.float32),
    "b": normal(SIZE, seed=4),
    "axis": np.array([1]),
    "last": np.array([-1]),
}

#: Nodes from h to y, and look-ups of an element: those of a whole row by its length.
COMPOSED = [
    ("y = Softmax(h)", 3),
    ("y = LogSoftmax(h)", 3),
    ("y = LayerNormalization(h, g, b)", 7),
    ("y = RMSNormalization(h, g)", 7),
    ("y = LpNormalization <p = 1> (h)", 7),
    ("y = LpNormalization(h)", 7),
]


def between_products(nodes: str, shape: tuple[int, ...] = (SIZE,), opset: int = 23) -> Any:
    """``nodes`` from h to y, a product before and one after them."""
    text = f"h = MatMul(x, w)\n {nodes}\n out = MatMul(y, v)"
    return model(text, {"x": ("N", *shape)}, "out", CONSTANTS, opset=opset)


def data(*shape: int, rows: int = 200) -> Any:
    return normal(rows, *(shape or (SIZE,)), seed=1)


def looked_up(module: Any) -> int:
    """Elements that are looked up for one sample."""
    nodes = [node for node in module.program.nodes if node.op == "lookup"]
    return sum(int(np.prod(node.shape[1:])) for node in nodes)


@pytest.mark.parametrize(("nodes", "each"), COMPOSED)
def test_in_the_middle_of_a_net_it_is_close_to_float(nodes: str, each: int) -> None:
    """At eight bits with the default roundings, and at no more look-ups than its stages have."""
    net, x = between_products(nodes), data()
    module = fhe_core.quantize(net, x, n_bits=8)
    expected = fhe_core.NumpyModule(net)(x)
    assert relative_error(module.forward(x), expected) < 0.05
    assert relative_error(module.forward(x, fhe="simulate", seed=0), expected) < 0.05
    # h is quantized; the mean, the maximum and the logarithm are one a row or fewer.
    assert looked_up(module) <= (each + 1) * SIZE


@pytest.mark.parametrize(
    "nodes",
    [
        "y = Softmax(h)",
        "y = LogSoftmax(h)",
        "y = Hardmax(h)",
        "y = ArgMax <axis = 1> (h)",
        "y = ArgMin <axis = 1> (h)",
        "y = ReduceMax(h, axis)",
        "s = Softmax(h) \n y = ReduceMax(s, axis)",
        "s = Softmax(h) \n t = Tanh(s) \n y = Reshape(t, shape)",
    ],
)
def test_as_a_last_op_it_runs_after_decryption(nodes: str) -> None:
    """There it costs nothing; ``client_side="minimal"`` keeps it on the server."""
    constants = {**CONSTANTS, "shape": np.array([-1, 2, SIZE // 2])}
    net = model(f"h = MatMul(x, w)\n {nodes}", {"x": ("N", SIZE)}, "y", constants, opset=23)
    x = data()
    module = fhe_core.quantize(net, x, n_bits=6)
    assert looked_up(module) == 0
    exact = fhe_core.NumpyModule(net)(x)
    agree = np.isclose(module.forward(x), exact, atol=0.2)
    assert agree.mean() > 0.9
    assert fhe_core.check(net).ok
    assert looked_up(fhe_core.quantize(net, x, n_bits=6, client_side="minimal")) > 0


@pytest.mark.parametrize(("bits", "joined"), [(5, 0), (8, 2)])
@pytest.mark.parametrize("fhe", ["disable", "simulate"])
def test_one_of_the_largest_elements_is_marked(bits: int, joined: int, fhe: str) -> None:
    """The largest to a step of x; where a rounding of differences joins two, to as many in each of the three
    rounds, too high or too low."""
    net = model("y = Hardmax(x)", {"x": ("N", SIZE)}, "y", {}, opset=17)
    x = data(rows=400)
    module = fhe_core.quantize(net, x, n_bits=bits)
    marks = module.forward(x, fhe=fhe)
    assert (marks.sum(axis=1) == 1).all()
    behind = x.max(axis=1) - (x * marks).sum(axis=1)
    assert behind.max() <= (1 + 2 * 3 * joined) * module.plan.tensors["x"].scale


def test_an_output_that_also_goes_on_is_computed_on_the_server() -> None:
    """What a product reads is encrypted, whoever else wants it."""
    text = "h = MatMul(x, w)\n y = Softmax(h)\n out = MatMul(y, v)"
    net = model(text, {"x": ("N", SIZE)}, "y out", CONSTANTS, opset=17)
    x = data()
    module = fhe_core.quantize(net, x, n_bits=8)
    for result, expected in zip(module.forward(x), fhe_core.NumpyModule(net)(x), strict=True):
        assert relative_error(result, expected) < 0.05


def test_of_a_model_input_it_runs_on_the_server() -> None:
    """Nothing would be encrypted else."""
    net = model("y = Softmax(x)", {"x": ("N", SIZE)}, "y", {}, opset=17)
    x = data()
    module = fhe_core.quantize(net, x, n_bits=6)
    assert looked_up(module) > SIZE
    assert relative_error(module.forward(x), fhe_core.NumpyModule(net)(x)) < 0.1


@pytest.mark.parametrize("p", [1, 2, 3])
def test_a_norm_over_all_places_is_one_lookup_an_element(p: int) -> None:
    """And one for each channel that goes on."""
    text = f"n = GlobalLpPool <p = {p}> (x) \n y = Flatten(n) \n out = MatMul(y, u)"
    constants = {"u": normal(3, 2, seed=5)}
    net = model(text, {"x": ("N", 3, 4, 4)}, "out", constants, opset=17)
    x = data(3, 4, 4)
    module = fhe_core.quantize(net, x, n_bits=6, client_side="minimal")
    assert looked_up(module) == 3 * 16 + 3
    assert relative_error(module.forward(x), fhe_core.NumpyModule(net)(x)) < 0.08


@pytest.mark.parametrize("values", [np.zeros(SIZE), np.full(SIZE, 2.0), np.eye(SIZE)[2] * 3])
def test_a_normalization_of_what_hardly_varies_stays_finite_and_right(values: Any) -> None:
    """A constant is normalized to zero, and a single peak to what float makes of it, where roundings let
    its deviation be told from nothing."""
    net = model("y = LayerNormalization(x, g)", {"x": ("N", SIZE)}, "y", CONSTANTS, opset=17)
    how: dict[str, Any] = {"rounding": 14, "rounding_method": "exact", "client_side": "minimal"}
    module = fhe_core.quantize(net, data(), n_bits=6, **how)
    x = values.astype(np.float32)[None]
    np.testing.assert_allclose(module.forward(x), fhe_core.NumpyModule(net)(x), atol=0.15)


def test_softmax_before_opset_13_runs_over_all_axes_from_its_own_on() -> None:
    """One maximum and one sum for both axes of a sample."""
    text = "y = Softmax(x) \n f = Flatten(y) \n out = MatMul(f, u)"
    constants = {"u": normal(2 * SIZE, 3, seed=5)}
    x = data(2, SIZE)
    sums = {}
    for opset in (11, 13):
        net = model(text, {"x": ("N", 2, SIZE)}, "out", constants, opset=opset)
        module = fhe_core.quantize(net, x, n_bits=8, client_side="minimal")
        assert relative_error(module.forward(x), fhe_core.NumpyModule(net)(x)) < 0.05
        sums[opset] = looked_up(module)
    assert sums[11] == sums[13]  # a further comparison, one sum less


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("opset", [12, 13])
def test_the_axes_are_those_of_the_opset_on_either_side_of_the_change(op: str, opset: int) -> None:
    """Along axis 1 of three: with the last one until opset 12, alone from 13 on."""
    text = f"y = {op} <axis = 1> (x) \n f = Flatten(y) \n out = MatMul(f, u)"
    constants = {"u": normal(2 * SIZE, 3, seed=5)}
    x = data(2, SIZE)
    net = model(text, {"x": ("N", 2, SIZE)}, "out", constants, opset=opset)
    module = fhe_core.quantize(net, x, n_bits=8, client_side="minimal")
    assert relative_error(module.forward(x), fhe_core.NumpyModule(net)(x)) < 0.05


@pytest.mark.parametrize(
    ("nodes", "says"),
    [
        ("y = Softmax <axis = 0> (h)", "along the batch"),
        ("y = ReduceMax <keepdims = 1> (h)", "along the batch"),
        ("y = ArgMax <axis = 0, keepdims = 1> (h)", "along the batch"),
        ("y = LayerNormalization(h, h)", "encrypted"),
    ],
)
def test_what_cannot_be_computed_names_the_node(nodes: str, says: str) -> None:
    """Samples of a batch stay independent; a normalization's scale is clear."""
    net = model(
        f"h = MatMul(x, w)\n {nodes}\n c = Cast <to = 1> (y) \n out = Mul(c, g)",
        {"x": ("N", SIZE)},
        "out",
        CONSTANTS,
        opset=18,
    )
    with pytest.raises(CompilationError, match=says) as caught:
        fhe_core.quantize(net, data(), n_bits=4, client_side="minimal")
    assert caught.value.where.op in nodes


@pytest.mark.fhe
@pytest.mark.parametrize(
    ("nodes", "bits"),
    [
        ("y = Softmax(x)", 2),
        ("y = LpNormalization(x)", 2),
        ("y = Hardmax(x)", 3),
        ("y = ReduceProd(x, last)", 3),
    ],
)
def test_encrypted_it_gives_what_it_gives_in_the_clear(nodes: str, bits: int) -> None:
    """Two elements under real keys, with exact rounding: the results are equal."""
    net = model(nodes, {"x": ("N", 2)}, "y", {"last": CONSTANTS["last"]}, opset=18)
    x = data(2)
    how: dict[str, Any] = {"rounding_method": "exact", "client_side": "minimal"}
    module = fhe_core.compile(net, x, n_bits=bits, rounding=6, **how)
    np.testing.assert_array_equal(module.forward(x[:1], fhe="execute"), module.forward(x[:1]))
