"""Packs as newcomers write them: what they guess works, or is named with who has to change what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fhe_core.errors import CompilationError

import fhe_core
from fhe_core import QuantizedOp
from tests.core.quantization.building import model, normal

DOMAIN = "newcomer"
X = normal(200, 4)
OPTIONS = {"domain": DOMAIN}


def on_integers(function: Callable[..., Any], impl: Any = None) -> type[QuantizedOp]:
    """An op that applies a function to integers whose zero point is 0."""

    def q_impl(self: Any, *q_inputs: Any, **attrs: Any) -> Any:
        (x,) = self._prepare_inputs_with_constants(
            *q_inputs, calibrate=False, quantize_actual_values=True
        )
        integers = function(x.qvalues - x.quantizer.zero_point)
        return self.quantized(integers.astype(np.float64) * x.quantizer.scale)

    body = {
        "_impl_for_op_named": "Own",
        "impl": impl or (lambda X, /: function(X)),
        "q_impl": q_impl,
    }
    return type("Own", (QuantizedOp,), body)


def alone(nodes: str = "z = newcomer.Own(x)", inputs: str = "x") -> Any:
    shapes = dict.fromkeys(inputs.split(), ("N", 4))
    return model(nodes, shapes, "z", domains={DOMAIN: 1})


def test_relu_as_one_writes_it_in_numpy_is_relu() -> None:
    with fhe_core.registered(quantized=[(on_integers(lambda i: i * (i > 0)), OPTIONS)]):
        assert fhe_core.check(alone()).ok
        qm = fhe_core.quantize(alone(), X, n_bits=8)
    assert np.abs(qm.forward(X) - np.maximum(X, 0)).max() < np.ptp(X) / 200


def test_the_name_of_a_function_means_nothing() -> None:
    def times_hundred(x: Any, /) -> Any:
        return np.asarray(x) * 100

    def q_impl(self: Any, *q_inputs: Any, **attrs: Any) -> Any:
        levels = np.clip(np.rint(q_inputs[0].values), 0, 3)
        return self.quantized(self.call_impl(levels).astype(np.int64).astype(np.float64))

    own = type("Own", (QuantizedOp,), {"_impl_for_op_named": "Own", "q_impl": q_impl})
    eye = {"w": np.eye(4, dtype=np.float32)}
    proto = model(
        "m = MatMul(x, w)\n z = newcomer.Own(m)", {"x": ("N", 4)}, "z", eye, domains={DOMAIN: 1}
    )
    data = np.random.default_rng(0).uniform(0, 3, (200, 4)).astype(np.float32)
    results = []
    for name in ("times_hundred", "convert", "padded"):
        times_hundred.__name__ = name
        with fhe_core.registered(
            impls=[("Own", times_hundred, OPTIONS)], quantized=[(own, OPTIONS)]
        ):
            results.append(fhe_core.quantize(proto, data, n_bits=6)(data))
    assert results[0].max() > 250
    assert all(np.array_equal(result, results[0]) for result in results)


def test_an_op_with_a_q_impl_is_not_told_to_have_one() -> None:
    weights = {"w": np.ones((4, 2), np.float32)}
    proto = model(
        "m = newcomer.Own(x)\n z = MatMul(m, w)", {"x": ("N", 4)}, "z", weights, domains={DOMAIN: 1}
    )
    for function in (
        lambda i: i * np.linalg.norm(i, axis=1, keepdims=True),
        lambda i: np.sort(i, axis=1),
        lambda i: i.argsort(axis=1),
    ):
        with (
            fhe_core.registered(quantized=[(on_integers(function, lambda X, /: X), OPTIONS)]),
            pytest.raises(CompilationError) as caught,
        ):
            fhe_core.quantize(proto, X, n_bits=6)
        assert "is not available on encrypted values" in caught.value.problem
        assert "use " in (caught.value.fix or "")
        assert "q_impl" not in str(caught.value)
