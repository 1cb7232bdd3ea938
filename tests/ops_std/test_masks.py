"""Masks choose elements: what they add or put in is no number to be quantized."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

import fhe_core
from tests.core.quantization.building import model, normal

X = normal(200, 4, 6)
KEEP = np.tril(np.ones((4, 4), bool))
_LENGTHS = np.random.default_rng(1).integers(1, 5, (200, 1))
#: 1 where there is something, 0 where a sequence has ended.
PADDING = (np.arange(4) < _LENGTHS).astype(np.float32).reshape(200, 1, 4)
LOWS = {
    "infinity": -np.inf,
    "lowest": float(np.finfo(np.float32).min),
    "billion": -1e9,
    "ten-thousand": -1e4,
}
SCORES = "a = MatMul(x, q) \n t = Transpose <perm = [0, 2, 1]> (x) \n s = MatMul(a, t)"
ATTENTION = "p = Softmax <axis = -1> (m) \n y = MatMul(p, x)"
DECOMPOSED = """
    r = ReduceMax <axes = [2], keepdims = 1> (m)
    d = Sub(m, r)
    e = Exp(d)
    u = ReduceSum(e, last)
    p = Div(e, u)
    y = MatMul(p, x)
"""
TRUTH = 9


def r2_of(
    nodes: str, low: float, data: Mapping[str, NDArray[Any]], n_bits: int = 8, **how: Any
) -> float:
    """How close a quantized model is to ONNX Runtime."""
    constants = {
        "q": normal(6, 6, seed=3) / 5,
        "w": normal(4, 3, seed=7),
        "keep": KEEP,
        "low": np.float32(low),
        "mask": np.where(KEEP, 0, low).astype(np.float32),
        "one": np.float32(1),
        "half": np.float32(0.5),
        "last": np.array([-1]),
    }
    words = set(nodes.replace(",", " ").replace("(", " ").replace(")", " ").split())
    used = {name: value for name, value in constants.items() if name in words}
    proto = model(nodes, {n: ("N", *x.shape[1:]) for n, x in data.items()}, constants=used)
    for info in proto.graph.input:
        if data[info.name].dtype == bool:
            info.type.tensor_type.elem_type = TRUTH
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options)
    (wanted,) = session.run(None, dict(data))
    assert fhe_core.check(proto).ok
    found = fhe_core.quantize(proto, dict(data), n_bits=n_bits, **how)(**data)
    missed = np.square(np.float64(found) - wanted).sum()
    return float(1 - missed / np.square(wanted - wanted.mean(axis=0)).sum())


@pytest.mark.parametrize("low", LOWS.values(), ids=list(LOWS))
@pytest.mark.parametrize(
    "nodes",
    [
        f"m = Where(keep, s, low) \n {ATTENTION}",
        f"m = Add(s, mask) \n {ATTENTION}",
        f"h = Where(keep, s, low) \n m = Mul(h, half) \n {ATTENTION}",
        f"m = Where(keep, s, low) \n {DECOMPOSED}",
        "m = Add(s, mask) \n l = LogSoftmax <axis = -1> (m) \n p = Exp(l) \n y = MatMul(p, x)",
        "m = Where(keep, s, low) \n r = ReduceMax <axes = [2], keepdims = 0> (m) \n y = MatMul(r, w)",
        "m = Where(keep, s, low) \n r = Max(m, s) \n y = MatMul(r, w)",
    ],
    ids=["where", "add", "scaled", "decomposed", "log", "reduce-max", "max"],
)
def test_a_constant_mask_leaves_the_scores_their_precision(nodes: str, low: float) -> None:
    """As close to the float model as with no mask: R2 of 0.99 at eight bits."""
    assert r2_of(f"{SCORES} \n {nodes}", low, {"x": X}) > 0.985


@pytest.mark.parametrize("low", list(LOWS.values())[1:], ids=list(LOWS)[1:])
@pytest.mark.parametrize("encrypted", [["x"], ["x", "k"]], ids=["clear", "encrypted"])
@pytest.mark.parametrize(
    "mask",
    [
        "n = Sub(one, k) \n e = Mul(n, low) \n m = Add(s, e)",
        "n = Sub(one, k) \n o = Neg(low) \n e = Mul(n, o) \n m = Sub(s, e)",
        "n = Sub(one, k) \n e = Mul(n, low) \n h = Where(keep, s, low) \n g = Add(h, e) \n m = Mul(g, half)",
    ],
    ids=["add", "sub", "causal-too"],
)
def test_a_mask_that_is_an_input_saturates_where_it_hides(
    mask: str, encrypted: list[str], low: float
) -> None:
    data = {"x": X, "k": PADDING}
    assert r2_of(f"{SCORES} \n {mask} \n {ATTENTION}", low, data, encrypted=encrypted) > 0.985


@pytest.mark.parametrize("low", LOWS.values(), ids=list(LOWS))
def test_a_truth_value_that_is_an_input_chooses(low: float) -> None:
    data = {"x": X, "k": PADDING > 0}
    assert r2_of(f"{SCORES} \n m = Where(k, s, low) \n {ATTENTION}", low, data) > 0.985


def test_an_input_that_is_a_mask_is_in_range_as_it_was_calibrated() -> None:
    """What saturates inside is no reason for a warning about the input."""
    nodes = f"{SCORES} \n m = Add(s, e) \n {ATTENTION}"
    proto = model(nodes, {"x": ("N", 4, 6), "e": ("N", 1, 4)}, constants={"q": normal(6, 6) / 5})
    data = {"x": X, "e": (1 - PADDING) * np.float32(-1e9)}
    module = fhe_core.quantize(proto, data, n_bits=8)
    module.forward(**data, out_of_range="raise")


def test_a_mask_that_hides_a_whole_row_is_refused() -> None:
    """The float model itself computes NaN."""
    mask = np.where(np.arange(4)[:, None] == 2, -np.inf, np.zeros((4, 4))).astype(np.float32)
    nodes = f"{SCORES} \n m = Add(s, mask) \n {ATTENTION}"
    proto = model(nodes, {"x": ("N", 4, 6)}, constants={"q": normal(6, 6), "mask": mask})
    with pytest.raises(fhe_core.CalibrationError, match="NaN in 'p'"):
        fhe_core.quantize(proto, X)


def test_an_infinity_that_something_quantizes_is_refused() -> None:
    """A product reads it, to which it is no mask."""
    nodes = "r = Reciprocal(x) \n m = Max(r, x) \n g = MatMul(m, w) \n y = Sigmoid(g)"
    x = np.abs(normal(50, 3))
    x[0, 0] = 0
    proto = model(nodes, {"x": ("N", 3)}, constants={"w": np.ones((3, 1), np.float32)})
    with pytest.raises(fhe_core.CalibrationError, match="infinity in 'm'"):
        fhe_core.quantize(proto, x)


def test_an_infinity_inside_a_look_up_is_what_it_is_in_float() -> None:
    """1 / (1 + exp(-x)) where the exponential leaves single precision."""
    nodes = "g = MatMul(x, w) \n n = Neg(g) \n e = Exp(n) \n u = Add(e, one) \n y = Div(one, u)"
    constants = {"w": np.full((3, 1), 90, np.float32), "one": np.float32(1)}
    proto = model(nodes, {"x": ("N", 3)}, constants=constants)
    x = normal(200, 3)
    wanted = 1 / (1 + np.exp(-x.sum(axis=1, keepdims=True).astype(np.float64) * 90))
    found = fhe_core.quantize(proto, x, n_bits=8, client_side="minimal")(x)
    sure = np.abs(x.sum(axis=1)) > 0.1
    np.testing.assert_allclose(found[sure], wanted[sure], atol=0.01)
