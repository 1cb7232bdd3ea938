"""Features of very different size enter a product scaled to be alike, so that each keeps its levels."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from fhe_core.graph.equalization import feature_factors
from fhe_core.quantization.module import QuantizedModule

import fhe_core
from tests.core.quantization.building import model, normal

SIZE = 6
X = np.clip(normal(300, SIZE, seed=1), -3, 3)
PASS = "std.equalize_features"


def built(nodes: str, x: Any, **constants: Any) -> tuple[QuantizedModule, float]:
    """A module at eight bits, and how close it is to ONNX Runtime (R2)."""
    proto = model(nodes, {"x": ("N", x.shape[1])}, constants=constants)
    (wanted,) = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"x": x})
    module = fhe_core.quantize(proto, x, n_bits=8)
    missed = np.square(np.float64(module(x)) - wanted).sum()
    return module, float(1 - missed / np.square(wanted - wanted.mean(axis=0)).sum())


@pytest.mark.parametrize("factor", [0.001, 0.01, 100.0, 1000.0])
@pytest.mark.parametrize("last", ["Identity", "Relu"])
def test_joined_branches_of_different_size_keep_their_levels(factor: float, last: str) -> None:
    """Where the weights make up for the size: as if the branch had been as large as the other."""
    weights = normal(2 * SIZE, 4, seed=5)
    weights[SIZE:] /= factor
    nodes = f"""
        h = MatMul(x, a)
        p = Sigmoid(h)
        g = MatMul(x, b)
        t = Tanh(g)
        q = Mul(t, factor)
        j = Concat <axis = 1> (p, q)
        z = MatMul(j, v)
        y = {last}(z)
    """
    constants = {"a": normal(SIZE, SIZE, seed=2) / 3, "b": normal(SIZE, SIZE, seed=3) / 3}
    module, r2 = built(nodes, X, v=weights, factor=np.float32(factor), **constants)
    assert PASS in module.passes
    assert r2 > 0.998
    # What multiplies the branches is part of the look-ups that they are anyway.
    assert sum(int(np.prod(node.shape[1:])) for node in module.program.lookups) == 2 * SIZE


@pytest.mark.parametrize(
    "product",
    [
        "y = MatMul(x, w)",
        "y = Gemm(x, w)",
        "y = Gemm <transB = 1, alpha = 0.5> (x, u)",
        "a = MatMul(x, w) \n b = MatMul(x, v) \n r = Relu(b) \n y = Add(a, r)",
    ],
)
def test_raw_features_in_units_of_their_own_keep_their_levels(product: str) -> None:
    """What multiplies them runs before encryption."""
    units = np.float32([1, 1000, 0.01, 30, 1, 5])
    weights = normal(SIZE, 3, seed=4) / units[:, None]
    constants = {"w": weights, "u": weights.T.copy(), "v": weights[:, ::-1].copy()}
    used = {name: value for name, value in constants.items() if f" {name})" in product}
    module, r2 = built(product, X * units, **used)
    assert PASS in module.passes
    assert r2 > 0.998


def test_features_alike_are_left_as_they_are() -> None:
    for x in (X, X * np.float32([1, 2, 4, 1, 8, 1])):
        module, _ = built("y = MatMul(x, w)", x, w=normal(SIZE, 3))
        assert PASS not in module.passes


def test_what_something_else_reads_is_left_as_it_is() -> None:
    """It would be quantized twice."""
    x = X * np.float32([1, 1000, 1, 1, 1, 1])
    module, _ = built("h = MatMul(x, w) \n r = Relu(x) \n y = Add(h, r)", x, w=normal(SIZE, SIZE))
    assert PASS not in module.passes


def test_factors_are_powers_of_two_that_balance_features_with_their_weights() -> None:
    ends, weights = np.array([1.0, 1024.0, 0.0, 4.0]), np.array([1.0, 2.0**-10, 5.0, 0.25])
    factors = feature_factors(-ends, ends, weights)
    assert factors is not None
    np.testing.assert_array_equal(factors, [1, 2.0**-10, 1, 0.25])
    for few, by in (([1.0, 31.0], [1, 1]), ([0.0, 0.0], [1, 1]), ([1.0, 100.0], [np.inf, 1])):
        assert feature_factors(np.zeros(2), np.array(few), np.array(by)) is None


def test_units_may_lie_as_far_apart_as_they_do() -> None:
    """Of what is heard; of a feature without weights nothing is made that would take the scale."""
    sizes = np.array([2.0**-14, 1.0, 2.0**20, 2.0**30])
    weights = np.array([2.0**14, 1.0, 2.0**-20, 0.0])
    factors = feature_factors(-sizes, sizes, weights)
    assert factors is not None
    np.testing.assert_array_equal((factors * sizes)[:3], factors[0] * sizes[0])
    assert factors[3] * sizes[3] <= factors[0] * sizes[0]
    units = np.float32([1e-4, 1, 1e3, 1e6, 1, 5])
    _, r2 = built("y = MatMul(x, w)", X * units, w=normal(SIZE, 3, seed=4) / units[:, None])
    assert r2 > 0.998


def test_what_is_not_heard_in_the_product_decides_nothing() -> None:
    """A constant, or what varies so little that its levels do not matter."""
    low, high = np.array([-1.0, 50.0, 0.0]), np.array([1.0, 50.0, 0.01])
    assert feature_factors(low[:1], high[:1], np.ones(1)) is None
    assert feature_factors(low[[0, 2]], high[[0, 2]], np.ones(2)) is None
    assert feature_factors(low[[0, 2]], high[[0, 2]], np.array([1, 100.0])) is not None
