"""Packs as newcomers write them: what they guess works, or is named with who has to change what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fhe_core.errors import CompilationError

import fhe_core
from fhe_core import QuantizedArray, QuantizedOp
from tests.core.quantization.building import model, normal, relative_error

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


# -- several outputs

TWO = model(
    "p, q = newcomer.Both(x, y)\n r = Relu(q)\n t = MatMul(r, w)\n s = MatMul(p, w)\n z = Add(s, t)",
    {"x": ("N", 4), "y": ("N", 4)},
    "z",
    {"w": normal(4, 2, seed=3)},
    domains={DOMAIN: 1},
)
PAIR = normal(300, 4, seed=1), normal(300, 4, seed=2)


def both(A: Any, B: Any, /) -> Any:
    return A + B, 10 * (A - B)


def with_outputs(returned: Callable[[QuantizedOp, Any, Any], Any]) -> type[QuantizedOp]:
    """An op whose two outputs have ranges that differ by a factor of ten."""

    def q_impl(self: Any, *q_inputs: Any, **attrs: Any) -> Any:
        a, b = self._prepare_inputs_with_constants(
            *q_inputs, calibrate=False, quantize_actual_values=True
        )
        za, zb, scale = a.quantizer.zero_point, b.quantizer.zero_point, a.quantizer.scale
        total = ((a.qvalues + b.qvalues).astype(np.float64) - (za + zb)) * scale
        difference = ((a.qvalues - b.qvalues).astype(np.float64) - (za - zb)) * scale * 10
        return returned(self, total, difference)

    body = {"_impl_for_op_named": "Both", "shares_scale": True, "q_impl": q_impl}
    return type("QuantizedBoth", (QuantizedOp,), body)


def seeds_constructor(self: Any, values: Any) -> QuantizedArray:
    return QuantizedArray(
        self.n_bits,
        values,
        value_is_float=True,
        options=self.input_quant_opts,
        stats=self.output_quant_stats,
        params=self.output_quant_params,
    )


RETURNED: dict[str, Callable[[Any, Any, Any], Any]] = {
    "one call": lambda self, a, b: self.quantized((a, b)),
    "a call for each": lambda self, a, b: (self.quantized(a), self.quantized(b)),
    "the seeds' constructor": lambda self, a, b: (
        seeds_constructor(self, a),
        seeds_constructor(self, b),
    ),
    "the range alone": lambda self, a, b: tuple(
        QuantizedArray(self.n_bits, x, stats=self.output_quant_stats) for x in (a, b)
    ),
    "parameters by index": lambda self, a, b: tuple(
        QuantizedArray(self.n_bits, x, params=self.output_params(i)) for i, x in enumerate((a, b))
    ),
    "the first as integers": lambda self, a, b: (_asked(self.quantized(a)), self.quantized(b)),
}


def _asked(array: QuantizedArray) -> QuantizedArray:
    assert array.qvalues is not None
    return array


@pytest.mark.parametrize("how", RETURNED)
def test_each_output_gets_the_quantizer_that_was_planned_for_it(how: str) -> None:
    with fhe_core.registered([("Both", both, OPTIONS)], [(with_outputs(RETURNED[how]), OPTIONS)]):
        wanted = fhe_core.NumpyModule(TWO)(*PAIR)
        result = fhe_core.quantize(TWO, PAIR, n_bits=8, client_side="minimal").forward(*PAIR)
    # 0.022 with the right ones, 0.3 with that of the first output.
    assert relative_error(result, wanted) < 0.03


def test_integers_of_another_output_are_refused() -> None:
    op = with_outputs(lambda self, a, b: (self.quantized(a), _asked(self.quantized(b))))
    with (
        fhe_core.registered([("Both", both, OPTIONS)], [(op, OPTIONS)]),
        pytest.raises(CompilationError, match="output 1 with the quantizer of output 0") as caught,
    ):
        fhe_core.quantize(TWO, PAIR, n_bits=8)
    assert caught.value.where.op == "Both"


# -- wrong results


WRONG: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "fewer columns": (
        lambda self, x: self.quantized(x[:, :2]),
        r"expected: \(batch, 4\); got: \(batch, 2\)",
    ),
    "another rank": (lambda self, x: self.quantized(x[:, :, None]), r"got: \(batch, 4, 1\)"),
    "sums": (lambda self, x: self.quantized(x.sum(axis=1)), r"got: \(batch,\)"),
    "integers of another shape": (
        lambda self, x: QuantizedArray(
            8, x.astype(np.int64)[:, :1], value_is_float=False, params=self.output_quant_params
        ),
        r"got: \(batch, 1\)",
    ),
    "a list": (lambda self, x: [self.quantized(x)], "returned a list"),
    "real values": (lambda self, x: x, "returned a Tensor"),
    "nothing": (lambda self, x: None, "returned a NoneType"),
    "an array": (lambda self, x: np.zeros((3, 4)), "returned a ndarray"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_result_is_caught_and_the_op_that_returned_it_named(what: str) -> None:
    returned, says = WRONG[what]

    def q_impl(self: Any, *q_inputs: Any, **attrs: Any) -> Any:
        (x,) = self._prepare_inputs_with_constants(
            *q_inputs, calibrate=False, quantize_actual_values=True
        )
        return returned(self, x.qvalues.astype(np.float64) * x.quantizer.scale)

    body = {"_impl_for_op_named": "Own", "impl": lambda X, /: X + 0, "q_impl": q_impl}
    own = type("QuantizedOwn", (QuantizedOp,), body)
    proto = alone("h = newcomer.Own(x)\n z = Relu(h)")
    with fhe_core.registered(quantized=[(own, OPTIONS)]):
        (problem,) = fhe_core.check(proto).problems
        with pytest.raises(CompilationError, match=says) as caught:
            fhe_core.quantize(proto, X, n_bits=6)
    assert caught.value.where.op == problem.op == "Own"
    assert caught.value.where.node == "Own_0"


@pytest.mark.parametrize(
    ("function", "float_function"),
    [
        (lambda i, j: np.where(i > j, i, j), np.maximum),
        (lambda i, j: i * (j > 0), lambda x, y: x * (y > 0)),
        (lambda i, j: np.where(j > 0, i, 0), lambda x, y: np.where(y > 0, x, 0)),
        (lambda i, j: (i > 0) * j + (i <= 0) * i, lambda x, y: np.where(x > 0, y, x)),
    ],
)
def test_a_choice_between_encrypted_values_survives_the_rounding_of_accumulators(
    function: Callable[..., Any], float_function: Callable[..., Any]
) -> None:
    def q_impl(self: Any, *q_inputs: Any, **attrs: Any) -> Any:
        i, j = (x.qvalues - x.quantizer.zero_point for x in q_inputs)
        return self.quantized(function(i, j).astype(np.float64) * q_inputs[0].quantizer.scale)

    body = {"_impl_for_op_named": "Own", "shares_scale": True, "q_impl": q_impl}
    own = type("Own", (QuantizedOp,), body)
    options = {"domain": DOMAIN}
    with fhe_core.registered(
        [("Own", lambda a, b, /: float_function(a, b), options)], [(own, options)]
    ):
        qm = fhe_core.quantize(alone("z = newcomer.Own(x, y)", "x y"), PAIR, n_bits=6)
    # Where a comparison is close, its rounding may decide it the other way.
    error = np.abs(qm.forward(*PAIR) - float_function(*PAIR))
    assert np.median(error) < 0.2
    assert np.mean(error) < 0.25
