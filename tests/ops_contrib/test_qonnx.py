"""The operators of QONNX: rounding as their page tabulates it, and trained networks that are computed with
their own integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from fhe_core.errors import CompilationError, ModelError, UnsupportedOpError

import fhe_core
from tests.core.quantization.building import model, normal
from tests.ops_contrib.samples_qonnx import DOMAINS, nearest

#: The table of https://github.com/fastmachinelearning/qonnx (IntQuant-1), column by column.
ROUNDED = (5.5, 2.5, 1.6, 1.1, 1.0, -1.0, -1.1, -1.6, -2.5, -5.5)
TABLE = {
    "ROUND": (6, 2, 2, 1, 1, -1, -1, -2, -2, -6),
    "CEIL": (6, 3, 2, 2, 1, -1, -1, -1, -2, -5),
    "FLOOR": (5, 2, 1, 1, 1, -1, -2, -2, -3, -6),
    "UP": (6, 3, 2, 2, 1, -1, -2, -2, -3, -6),
    "DOWN": (5, 2, 1, 1, 1, -1, -1, -1, -2, -5),
    "HALF_UP": (6, 3, 2, 1, 1, -1, -1, -2, -3, -6),
    "HALF_DOWN": (5, 2, 2, 1, 1, -1, -1, -2, -2, -5),
}


def one(node: str, shape: Any, **constants: Any) -> onnx.ModelProto:
    """A model of one node from x to y."""
    arrays = {name: np.float32(value) for name, value in constants.items()}
    domains = dict.fromkeys(DOMAINS, 1)
    return model(node, {"x": shape}, "y", arrays, domains=domains)


@pytest.mark.parametrize("mode", TABLE)
@pytest.mark.parametrize("spelled", [str.upper, str.lower])
def test_rounding_is_as_the_page_tabulates_it(mode: str, spelled: Any) -> None:
    node = f'y = {DOMAINS[0]}.Quant <rounding_mode = "{spelled(mode)}"> (x, s, z, n)'
    net = fhe_core.NumpyModule(one(node, (1, 10), s=1, z=0, n=4))
    assert net(np.array([ROUNDED], np.float32)).tolist() == [list(TABLE[mode])]


def test_one_signed_bit_is_a_sign() -> None:
    net = fhe_core.NumpyModule(one(f"y = {DOMAINS[0]}.Quant(x, s, z, n)", (1, 3), s=0.5, z=0, n=1))
    assert net(np.array([[-3, 0, 0.1]], np.float32)).tolist() == [[-0.5, 0.5, 0.5]]


@pytest.mark.parametrize(
    ("node", "constants"),
    [
        ('y = {}.Quant <rounding_mode = "SOMEHOW"> (x, s, z, n)', {"s": 1, "z": 0, "n": 4}),
        ("y = {}.Quant(x, s, z, n)", {"s": 1, "z": 0, "n": 2.5}),
        ("y = {}.Quant(x, s, z, n)", {"s": 1, "z": 0, "n": -1}),
    ],
)
def test_a_wrong_constant_is_named(node: str, constants: dict[str, Any]) -> None:
    net = fhe_core.NumpyModule(one(node.format(DOMAINS[0]), (1, 2), **constants))
    with pytest.raises(ModelError, match=r"rounding mode|bit width"):
        net(np.zeros((1, 2), np.float32))


def test_a_scale_that_depends_on_encrypted_data_is_refused() -> None:
    nodes = f"s = Abs(x)\ny = {DOMAINS[0]}.Quant(z, s, zero, n)"
    inputs = {"x": ("N", 2), "z": ("N", 2)}
    constants = {"zero": np.float32(0), "n": np.float32(4)}
    net = model(nodes, inputs, "y", constants, domains={DOMAINS[0]: 1})
    with pytest.raises((CompilationError, UnsupportedOpError), match="scale"):
        fhe_core.quantize(net, (normal(20, 2), normal(20, 2, seed=1)), client_side="minimal")


# -- networks

X = normal(300, 6)
WEIGHTS = {"w": normal(6, 5, seed=1), "v": normal(5, 3, seed=2)}
SCALES = {
    "s": np.float32(0.125),
    "ws": np.array([[0.5, 0.25, 0.125, 0.5, 0.25]], np.float32),
    "hs": np.float32(0.25),
    "vs": np.float32(0.5),
    "b": np.array([1, -0.5, 0.25, 0, 0.5], np.float32),
    "gamma": np.array([1, 2, 0.5, -1, 1], np.float32),
}
WIDTHS = {"zero": np.float32(0), "n6": np.float32(6), "n4": np.float32(4), "n3": np.float32(3)}
MLP = """
    xq = {0}.Quant <signed = 1, narrow = 0> (x, s, zero, n6)
    wq = {0}.Quant <signed = 1, narrow = 1> (w, ws, zero, n4)
    h0 = MatMul(xq, wq)
    h1 = Mul(h0, gamma)
    h2 = Add(h1, b)
    h3 = Relu(h2)
    hq = {0}.Quant <signed = 0, narrow = 0, rounding_mode = "FLOOR"> (h3, hs, zero, n3)
    vq = {0}.BipolarQuant(v, vs)
    y = MatMul(hq, vq)
"""


def mlp(domain: str) -> onnx.ModelProto:
    constants = {**WEIGHTS, **SCALES, **WIDTHS}
    return model(MLP.format(domain), {"x": ("N", 6)}, "y", constants, domains={domain: 1})


def by_hand(x: Any) -> Any:
    """The network from its definition: the nearest numbers of each grid. All are exact in floats."""
    xq = nearest(x, 0.125 * np.arange(-32, 32))
    columns = zip(WEIGHTS["w"].T, SCALES["ws"][0], strict=True)
    w = np.stack([nearest(column, s * np.arange(-7, 8)) for column, s in columns], axis=1)
    h = np.maximum(xq @ w * SCALES["gamma"] + SCALES["b"], 0)
    hq = np.minimum(np.floor(h / 0.25), 7) * 0.25
    return hq @ np.where(WEIGHTS["v"] >= 0, np.float32(0.5), np.float32(-0.5))


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("mode", ["disable", "simulate"])
def test_a_trained_mlp_gives_its_own_numbers(domain: str, mode: str) -> None:
    """Also where its batch normalization is folded into weights, whatever bits are asked for."""
    qm = fhe_core.quantize(mlp(domain), X, n_bits=5, rounding=16, rounding_method="exact")
    assert np.array_equal(qm.forward(X, fhe=mode), by_hand(X))
    assert all(weight.trained for weight in qm.plan.weights.values())
    assert (qm.plan.tensors["xq"].scale, qm.plan.tensors["xq"].bits) == (0.125, 6)
    assert (qm.plan.tensors["hq"].scale, qm.plan.tensors["hq"].bits) == (0.25, 3)


def test_truncated_integers_go_on_at_their_new_scale() -> None:
    """A sum of eight integers less its last three bits, as trained networks write averages."""
    nodes = f"""
        xq = {DOMAINS[0]}.Quant <signed = 0> (x, s, zero, n4)
        total = MatMul(xq, ones)
        t = {DOMAINS[0]}.Trunc <signed = 0> (total, s, zero, n7, s8, n4)
        wq = {DOMAINS[0]}.BipolarQuant(v, vs)
        y = MatMul(t, wq)
    """
    ones = np.kron(np.eye(2), np.ones((8, 1))).astype(np.float32)
    constants = {
        "s": np.float32(0.125),
        "s8": np.float32(1),
        "n7": np.float32(7),
        "ones": ones,
        "v": normal(2, 3),
        "vs": np.float32(1),
        **WIDTHS,
    }
    net = model(nodes, {"x": ("N", 16)}, "y", constants, domains={DOMAINS[0]: 2})
    x = np.abs(normal(200, 16))
    qm = fhe_core.quantize(net, x, n_bits=4, rounding=16, rounding_method="exact")
    levels = np.clip(np.rint(x / 0.125), 0, 15).reshape(-1, 2, 8).sum(axis=2)
    expected = np.floor(levels / 8) @ np.sign(constants["v"])
    assert np.array_equal(qm.forward(x, fhe="simulate"), expected)
    assert qm.plan.tensors["t"].scale == 1


def test_a_scale_for_each_channel_of_an_activation_is_quantized_anew() -> None:
    """Products need one scale along what they sum over. The trained numbers are then rounded once more: by
    half a step of the calibrated scale, for each of which the weights tell how much it counts."""
    nodes = f"xq = {DOMAINS[0]}.Quant(x, s, zero, n3)\ny = MatMul(xq, w)"
    scales = np.array([[1, 0.5, 0.3, 0.7, 1, 0.2]], np.float32)
    net = model(
        nodes,
        {"x": ("N", 6)},
        "y",
        {"s": scales, "w": np.ones((6, 2), np.float32), **WIDTHS},
        domains={DOMAINS[0]: 1},
    )
    qm = fhe_core.quantize(net, X, n_bits=8, rounding=16, ranges="minmax")
    step = qm.plan.tensors["xq"].scale
    error = np.abs(qm(X) - fhe_core.NumpyModule(net)(X))
    assert (error <= 6 * step / 2 + 1e-6).all()


@pytest.mark.fhe
def test_encrypted_a_trained_layer_gives_its_own_numbers() -> None:
    nodes = f"""
        xq = {DOMAINS[1]}.Quant(x, s, zero, n3)
        wq = {DOMAINS[1]}.BipolarQuant(w, s)
        h = MatMul(xq, wq)
        y = {DOMAINS[1]}.BipolarQuant(h, s)
        out = MatMul(y, v)
    """
    w, v = normal(3, 2), np.array([[1], [2]], np.float32)
    constants = {"w": w, "v": v, "s": np.float32(1), **WIDTHS}
    net = model(nodes, {"x": ("N", 3)}, "out", constants, domains={DOMAINS[1]: 1})
    x = 2 * X[:60, :3]
    qm = fhe_core.compile(net, x, n_bits=2, rounding=6)
    h = nearest(x[:3], np.arange(-4.0, 4)) @ np.where(w >= 0, 1, -1)
    assert np.array_equal(qm.forward(x[:3], fhe="execute"), np.where(h >= 0, 1, -1) @ v)
