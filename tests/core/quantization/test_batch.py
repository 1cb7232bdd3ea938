"""The batch size is a symbol: what is as long as the batch takes no memory, and no number stands for it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx.parser
import pytest
from fhe_core.program.batch import BATCH, broadcast_shapes, per_sample, without_number

import fhe_core
from fhe_core import QuantizedOp
from tests.core.quantization.building import model, normal

N, C = 40, 4
MODEL = """<ir_version: 8, opset_import: ["" : 17, "d" : 1]>
    net (float[N, 4] x) => (float[N, K] z) { z = d.Op(x) }"""
ROW = np.arange(1, C + 1)

Function = Callable[[Any], Any]


def padded(x: Any) -> Any:
    return np.concatenate([np.zeros((x.shape[0], 1), np.int64), x[:, :-1]], axis=1)


#: Integer arithmetic with something that an implementation makes of the shape that it sees.
WITH_SHAPES: dict[str, Function] = {
    "zeros": padded,
    "ones": lambda x: x + np.ones(x.shape, np.int64),
    "full": lambda x: x * np.full((x.shape[0], 1), 3),
    "len": lambda x: x - np.full((len(x), 1), 3),
    "broadcast_to": lambda x: x + np.broadcast_to(ROW, x.shape),
    "broadcast_to a row": lambda x: x * np.broadcast_to(ROW[:1], (x.shape[0], 1)),
    "tile": lambda x: x + np.tile(ROW, (x.shape[0], 1)),
    "concatenate behind": lambda x: np.concatenate([x, np.broadcast_to(ROW, x.shape)], axis=1),
    "stack": lambda x: np.stack([x, np.broadcast_to(ROW, x.shape)], axis=2).reshape(x.shape[0], -1),
    "hstack": lambda x: np.hstack([np.zeros((x.shape[0], 2), np.int64), x]),
    "append": lambda x: np.append(x, np.broadcast_to(ROW, x.shape), axis=1),
    "repeat": lambda x: x + np.repeat(ROW[None], x.shape[0], axis=0),
    "maximum": lambda x: np.where(x > 0, x, np.zeros(x.shape, np.int64)),
    "broadcast_shapes": lambda x: np.broadcast_to(x, np.broadcast_shapes(x.shape, (1, C))),
    "reshape with numbers": lambda x: x.reshape(tuple(int(n) for n in x.shape)),
    "reshape with an array": lambda x: np.reshape(x, np.array([x.shape[0], 2, 2])).reshape(
        len(x), -1
    ),
    "slice": lambda x: x[0 : x.shape[0], 1:] + x[..., : len(x), :-1],
    "size": lambda x: x.reshape(x.size // x.shape[1], -1),
}


def quantized(function: Function, *, real: bool = False) -> Any:
    class Quantized(QuantizedOp):
        _impl_for_op_named = "Op"

        def impl(X, /):
            return function(X)

        def q_impl(self, *q_inputs: Any, **attrs: Any) -> Any:
            (x,) = self._prepare_inputs_with_constants(
                *q_inputs, calibrate=False, quantize_actual_values=True
            )
            i = x.qvalues - x.quantizer.zero_point
            if real:
                return self.quantized(function(i.astype(np.float64)) * x.quantizer.scale)
            return self.quantized(function(i).astype(np.float64) * x.quantizer.scale)

    x = np.random.default_rng(0).integers(-8, 8, (N, C)).astype(np.float32)
    x[0], x[1] = -8, 7
    with fhe_core.registered(quantized=[(Quantized, {"domain": "d"})]):
        model = onnx.parser.parse_model(MODEL)
        assert fhe_core.check(model).ok
        return fhe_core.quantize(model, x, n_bits=4), x


#: Constants are joined to encrypted values on integers alone.
JOINING = ("zeros", "concatenate behind", "stack", "hstack", "append")


@pytest.mark.parametrize(
    ("name", "real"),
    [
        (name, real)
        for name in WITH_SHAPES
        for real in (False, True)
        if not (real and name in JOINING)
    ],
)
def test_numpy_takes_the_batch_size_of_a_q_impl(name: str, real: bool) -> None:
    module, x = quantized(WITH_SHAPES[name], real=real)
    scale = (x.max() - x.min()) / 15
    for samples in (x, x[:1]):
        assert np.allclose(
            module(samples), WITH_SHAPES[name](samples / scale) * scale, atol=1.5 * scale
        )


def test_an_array_as_long_as_the_batch_is_small() -> None:
    tracemalloc.start()
    quantized(padded)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20e6


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda x: x + np.arange(x.shape[0])[:, None], "differs from sample to sample"),
        (lambda x: x.sum(axis=1, keepdims=True) / x.shape[0], "with the number of samples"),
        (lambda x: x - x.size, "with the number of samples"),
        (lambda x: x * (1 / x.size), "with the number of samples"),
        (lambda x: x.reshape(x.shape[0] * 2, 2), "mixes the samples"),
        (lambda x: x + np.zeros((x.shape[0], 3)), "with 2 samples"),
        (lambda x: x @ np.zeros((x.shape[0], 3), np.int64), "batch"),
        (lambda x: np.reshape(np.zeros(7), x.shape), "batch"),
        (lambda x: np.reshape(np.zeros(7), x.shape[0] * 4), "4 * batch"),
    ],
)
def test_what_depends_on_the_number_of_samples_is_refused_without_a_number(
    function: Function, said: str
) -> None:
    with pytest.raises(fhe_core.CompilationError) as caught:
        quantized_unchecked(function)
    assert said in str(caught.value)
    assert str(int(BATCH)) not in str(caught.value)
    assert "2147483647" not in str(caught.value)


def quantized_unchecked(function: Function) -> None:
    class Quantized(QuantizedOp):
        _impl_for_op_named = "Op"

        def impl(X, /):
            return X

        def q_impl(self, *q_inputs: Any, **attrs: Any) -> Any:
            (x,) = q_inputs
            return self.quantized(function(x.qvalues - x.quantizer.zero_point).astype(np.float64))

    with fhe_core.registered(quantized=[(Quantized, {"domain": "d"})]):
        model = onnx.parser.parse_model(MODEL)
        report = fhe_core.check(model)
        assert not report.ok
        assert str(int(BATCH)) not in str(report)
        fhe_core.quantize(model, np.ones((8, C), np.float32))


def test_the_batch_equals_no_number() -> None:
    number = int(BATCH)
    assert number != BATCH
    assert (number, 3) != (BATCH, 3)
    assert BATCH not in (number, 3)
    assert f"{(BATCH, 3)}" == "(batch, 3)"
    assert without_number(f"shape ({number}, 3)") == "shape (batch, 3)"
    assert without_number(f"0 of {4 * number} in 3{number}") == f"0 of 4 * batch in 3{number}"


def test_a_dimension_of_the_stand_ins_size_is_a_dimension() -> None:
    number = int(BATCH)
    x = np.random.default_rng(0).normal(size=(20, number)).astype(np.float32)
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> net (float[N, {number}] x) => (float[N, {number}] z)'
        "<float[1] one = {1}> { a = Add(x, one)  z = Relu(a) }"
    )
    assert np.allclose(fhe_core.quantize(model, x, n_bits=8)(x), np.maximum(x + 1, 0), atol=0.1)


def test_shapes_broadcast_with_the_batch_as_a_symbol() -> None:
    assert broadcast_shapes((BATCH, 1, 3), (4, 1)) == (BATCH, 4, 3)
    with pytest.raises(ValueError, match="batch"):
        broadcast_shapes((BATCH, 3), (4, 3))


def test_a_constant_as_long_as_the_batch_has_one_row() -> None:
    rows = np.tile(np.arange(3), (int(BATCH), 1))
    assert per_sample(rows, (BATCH, 3)).shape == (1, 3)
    assert per_sample(rows, (5, 3)).shape == rows.shape


def test_constants_of_several_samples_are_refused_with_the_export_that_helps() -> None:
    """Of as many rows as samples, which torch writes where the batch is not left open."""
    nodes = "h = MatMul(x, w) \n y = Add(h, rows)"
    w, rows = normal(3, 2), np.ones((4, 2), np.float32)
    fixed = model(nodes, {"x": (4, 3)}, constants={"w": w, "rows": rows})
    (problem,) = fhe_core.check(fixed).problems
    assert "xport the model with its batch left open, or for a batch of 1 in place of 4" in str(
        problem
    )
    single = model(nodes, {"x": (1, 3)}, constants={"w": w, "rows": rows[:1]})
    assert fhe_core.check(single).ok


def test_a_shape_may_spell_the_samples_out_and_leave_another_length_open() -> None:
    nodes = "r = Reshape(x, s) \n t = Transpose <perm = [0, 2, 1]> (r) \n y = MatMul(t, w)"
    constants = {"s": np.array([4, 3, -1]), "w": normal(3, 2)}
    net = model(
        f"h = MatMul(z, v) \n {nodes.replace('(x', '(h')}",
        {"z": (4, 3, 2, 2)},
        constants={**constants, "v": normal(2, 2)},
    )
    assert fhe_core.check(net).ok, fhe_core.check(net)
    fhe_core.quantize(net, normal(8, 3, 2, 2))
