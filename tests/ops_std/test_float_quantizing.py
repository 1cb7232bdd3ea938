"""Quantization and exact integer products are what ONNX defines, at every version."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from fhe_core.errors import FheError

from fhe_ops_std import integer_linear, quantizing

from . import onnx_cases
from .oracles import assert_all_same, by_module, by_reference, by_runtime

IMPLEMENTATIONS = (*quantizing.IMPLEMENTATIONS, *integer_linear.IMPLEMENTATIONS)
OPS = tuple(sorted({op for op, _, _ in IMPLEMENTATIONS}))


@pytest.mark.parametrize("case", onnx_cases.parameters(*OPS))
def test_onnx_s_own_cases(case: Any) -> None:
    case.check(IMPLEMENTATIONS)


def compute(op: str, *inputs: Any, opset: int = 28, **attributes: Any) -> tuple[Any, ...]:
    function = onnx_cases.implementation_for(IMPLEMENTATIONS, op, opset)
    return onnx_cases.run(function, inputs, attributes)


def f32(value: Any) -> Any:
    return np.array(value, np.float32)


# QuantizeLinear, DequantizeLinear

RNG = np.random.default_rng(0)
X = (RNG.normal(size=(3, 4, 5)) * 40).astype(np.float32)
SCALES = RNG.uniform(0.1, 2, 4).astype(np.float32)
ZEROS = RNG.integers(0, 255, 4).astype(np.uint8)


@pytest.mark.parametrize("opset", [10, 13, 19, 21, 23, 25])
@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_one_scale_is_onnx_runtime_s_at_every_version(opset: int, dtype: Any) -> None:
    zero = np.array(3, dtype)
    for rest in ((f32(0.5), zero), (f32(0.25),))[: 2 if dtype is np.uint8 else 1]:
        (q,) = got = compute("QuantizeLinear", X, *rest, opset=opset)
        assert_all_same(got, by_runtime("QuantizeLinear", X, *rest, opset=min(opset, 21)))
        got = compute("DequantizeLinear", q, *rest, opset=opset)
        assert_all_same(got, by_runtime("DequantizeLinear", q, *rest, opset=min(opset, 21)))


@pytest.mark.parametrize("opset", [13, 19, 21, 23])
@pytest.mark.parametrize("axis", [1, -2])
def test_a_scale_for_each_index_is_onnx_runtime_s(opset: int, axis: int) -> None:
    (q,) = got = compute("QuantizeLinear", X, SCALES, ZEROS, opset=opset, axis=axis)
    common: dict[str, Any] = {"axis": axis, "opset": min(opset, 21)}
    assert_all_same(got, by_runtime("QuantizeLinear", X, SCALES, ZEROS, **common))
    got = compute("DequantizeLinear", q, SCALES, ZEROS, opset=opset, axis=axis)
    assert_all_same(got, by_runtime("DequantizeLinear", q, SCALES, ZEROS, **common))


@pytest.mark.parametrize("name", ["uint16", "int16", "uint4", "int4", "uint2", "int2"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_blocks_and_narrow_integers_are_the_formula_in_double_precision(
    name: str, axis: int
) -> None:
    """Blocks of 2, the last one of an odd axis smaller."""
    dtype = np.dtype(getattr(ml_dtypes, name, name))
    limits = ml_dtypes.iinfo(dtype)
    shape = [*X.shape]
    shape[axis] = -(-shape[axis] // 2)
    scale = RNG.uniform(10, 40, shape).astype(np.float32)
    zero = RNG.integers(0, 2, shape).astype(np.int8).astype(dtype)
    wide = [
        np.take(np.repeat(v.astype(np.float64), 2, axis), range(X.shape[axis]), axis)
        for v in (scale, zero)
    ]
    expected = np.clip(np.rint(X / wide[0]) + wide[1], limits.min, limits.max)
    (q,) = compute("QuantizeLinear", X, scale, zero, axis=axis, block_size=2)
    assert q.dtype == dtype
    assert np.array_equal(q.astype(np.float64), expected)
    (y,) = compute("DequantizeLinear", q, scale, zero, axis=axis, block_size=2)
    onnx_cases.assert_same(y, ((expected - wide[1]) * wide[0]).astype(np.float32), rtol=1e-6)


def test_halves_are_rounded_to_even_before_the_zero_point_is_added() -> None:
    x = f32([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5])
    (y,) = compute("QuantizeLinear", x, f32(1), np.array(1, np.int8))
    assert y.tolist() == [-1, -1, 1, 1, 3, 3]


FLOAT8 = ["float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"]


@pytest.mark.parametrize("name", FLOAT8)
@pytest.mark.parametrize("saturate", [0, 1])
@pytest.mark.parametrize("opset", [19, 21, 28])
def test_floats_of_8_bits_saturate_or_not(name: str, saturate: int, opset: int) -> None:
    dtype = np.dtype(getattr(ml_dtypes, name))
    x = f32([0, 1, -3.3, 500, -500, 1e6, np.inf, np.nan])
    zero = np.zeros((), dtype)
    got = compute("QuantizeLinear", x, f32(2), zero, saturate=saturate, opset=opset)
    assert got[0].dtype == dtype
    expected = by_reference("QuantizeLinear", x, f32(2), zero, saturate=saturate, opset=opset)
    np.testing.assert_array_equal(got[0].view(np.uint8), expected[0].view(np.uint8))
    assert_all_same(
        compute("DequantizeLinear", got[0], f32(2), opset=opset),
        by_reference("DequantizeLinear", got[0], f32(2), opset=opset),
    )


@pytest.mark.parametrize("number", [23, 27, 28])
def test_floats_of_4_and_6_bits_saturate_always(number: int) -> None:
    """4-bit floats, and 6-bit ones of two kinds, by their number in TensorProto.DataType."""
    names = {23: "float4_e2m1fn", 27: "float6_e2m3fn", 28: "float6_e3m2fn"}
    dtype = np.dtype(getattr(ml_dtypes, names[number]))
    x = f32([0, 1, 1.3, -2.6, 900, -np.inf])
    for saturate in (0, 1):
        (y,) = compute("QuantizeLinear", x, f32(1), output_dtype=number, saturate=saturate)
        assert y.dtype == dtype
        expected = np.clip(x, *(sign * float(ml_dtypes.finfo(dtype).max) for sign in (-1, 1)))
        assert np.array_equal(y.astype(np.float32), expected.astype(dtype).astype(np.float32))


def test_the_scale_s_type_is_that_of_the_quotient_unless_precision_says_otherwise() -> None:
    """2051 / 2 is 1025.5: 1026 in single precision, and 1025 or 1026 where 2051 is 2052."""
    x, scale = f32([2051]), np.array(2, np.float16)
    zero = np.array(0, np.int16)
    assert compute("QuantizeLinear", x, scale, zero)[0].item() == 1026
    assert compute("QuantizeLinear", x, scale, zero, precision=1)[0].item() == 1026
    x = f32([4095])  # 4096 in half precision
    assert compute("QuantizeLinear", x, scale, zero)[0].item() == 2048
    x = f32([4093])  # 4092 in half precision
    assert compute("QuantizeLinear", x, scale, zero)[0].item() == 2046
    assert compute("QuantizeLinear", x, scale, zero, precision=1)[0].item() == 2046
    assert compute("QuantizeLinear", f32([4097]), scale, zero, precision=1)[0].item() == 2048


def test_integers_of_32_bits_quantize_and_dequantize() -> None:
    x = np.array([[-7, 0, 100_000]], np.int32)
    assert_all_same(
        compute("QuantizeLinear", x, f32(3), np.array(9, np.uint8), opset=13),
        by_reference("QuantizeLinear", x, f32(3), np.array(9, np.uint8), opset=13),
    )
    assert_all_same(
        compute("DequantizeLinear", x, f32(0.5), opset=13),
        by_runtime("DequantizeLinear", x, f32(0.5), opset=13),
    )


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_the_output_has_the_type_that_is_asked_for(dtype: Any) -> None:
    q = np.array([0, 3, 250], np.uint8)
    scale = np.array(0.5, dtype)
    (y,) = compute("DequantizeLinear", q, scale, np.array(3, np.uint8))
    onnx_cases.assert_same(y, np.array([-1.5, 0, 123.5], dtype))
    (y,) = compute("DequantizeLinear", q, scale, np.array(3, np.uint8), output_dtype=1)
    onnx_cases.assert_same(y, f32([-1.5, 0, 123.5]))
    (y,) = compute("QuantizeLinear", f32([1, -8]), f32(1), output_dtype=22)
    onnx_cases.assert_same(y, np.array([1, -8], ml_dtypes.int4))


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "message"),
    [
        ("QuantizeLinear", (X, SCALES[:3], ZEROS[:3]), {}, "does not fit x"),
        ("QuantizeLinear", (X, SCALES, ZEROS), {"axis": 2}, "does not fit x"),
        ("QuantizeLinear", (X, X[:1], None), {"block_size": 2, "axis": 0}, "does not fit x"),
        ("QuantizeLinear", (X, SCALES, ZEROS), {"output_dtype": 3}, "output_dtype is 3"),
        ("DequantizeLinear", (ZEROS, f32(1), np.array(1, np.int8)), {}, "zero point"),
    ],
)
def test_what_does_not_fit_is_an_error_that_names_the_node(
    op: str, inputs: tuple[Any, ...], attributes: dict[str, Any], message: str
) -> None:
    inputs = inputs if inputs[-1] is not None else inputs[:-1]
    with pytest.raises(FheError, match=f"(?s){message}.*{op}|{op}.*{message}"):
        by_module(op, *inputs, opset=21, **attributes)


@pytest.mark.parametrize("shift", [0, 30, -300])
def test_dynamic_quantization_is_onnx_runtime_s(shift: float) -> None:
    x = X + f32(shift)
    assert_all_same(
        compute("DynamicQuantizeLinear", x), by_runtime("DynamicQuantizeLinear", x, outputs=3)
    )


def test_dynamic_quantization_of_zeros_has_a_scale() -> None:
    y, scale, zero_point = compute("DynamicQuantizeLinear", f32([0, 0]))
    assert_all_same(
        (y, scale, zero_point), by_reference("DynamicQuantizeLinear", f32([0, 0]), outputs=3)
    )
    assert scale > 0


# Products


def integers(dtype: Any, *shape: int) -> Any:
    limits = np.iinfo(dtype)
    return (
        np.random.default_rng(sum(shape)).integers(limits.min, limits.max + 1, shape).astype(dtype)
    )


@pytest.mark.parametrize("terms", [1, 257, 259, 5000])
@pytest.mark.parametrize(("left", "right"), [(np.uint8, np.uint8), (np.int8, np.uint8)])
def test_integer_products_are_exact(terms: int, left: Any, right: Any) -> None:
    """At any number of terms; with extremes that a sum in single precision would miss."""
    a, b = integers(left, 3, terms), integers(right, terms, 4)
    a[0], b[:, 0] = np.iinfo(left).max, np.iinfo(right).max
    a_zero, b_zero = integers(left, 3), integers(right, 4)
    a_zero[0] = np.iinfo(left).min
    wide = a.astype(np.int64) - a_zero[:, None], b.astype(np.int64) - b_zero
    (y,) = compute("MatMulInteger", a, b, a_zero, b_zero)
    onnx_cases.assert_same(y, (wide[0] @ wide[1]).astype(np.int32))
    (y,) = compute("MatMulInteger", a, b)
    onnx_cases.assert_same(y, (a.astype(np.int64) @ b.astype(np.int64)).astype(np.int32))
    x, w = a.reshape(1, 3, -1), b.T.reshape(4, 1, -1)
    (y,) = compute("ConvInteger", np.repeat(x, 4, 1)[:, :4], w, a_zero[0], b_zero, group=4)
    shifted = np.repeat(x, 4, 1)[:, :4].astype(np.int64) - int(a_zero[0])
    expected = np.sum(shifted[0] * wide[1].T, axis=1).reshape(1, 4, 1)
    onnx_cases.assert_same(y, expected.astype(np.int32))


def test_sums_beyond_32_bits_wrap_around() -> None:
    """33,026 products of 255 · 255 are more than 2³¹; ONNX lets the accumulation overflow."""
    a = np.full((1, 33_100), 255, np.uint8)
    (y,) = compute("MatMulInteger", a, a.T)
    assert y.item() == 33_100 * 255**2 - 2**32


@pytest.mark.parametrize("opset", [10, 21])
@pytest.mark.parametrize("by_column", [False, True])
def test_quantized_matrix_products_are_onnx_runtime_s(opset: int, by_column: bool) -> None:
    a, b = integers(np.uint8, 2, 3, 6), integers(np.int8, 6, 4)
    scale, zero = (SCALES / 100, np.zeros(4, np.int8)) if by_column else (f32(0.01), np.int8(2))
    inputs = (
        a, f32(0.02), np.array(120, np.uint8), b, scale, np.asarray(zero),
        f32(0.2), np.array(130, np.uint8),
    )  # fmt: skip
    expected = by_runtime("QLinearMatMul", *inputs, opset=opset)
    assert_all_same(compute("QLinearMatMul", *inputs, opset=opset), expected)


def test_rows_have_their_own_scales_in_and_out() -> None:
    a, b = integers(np.int8, 3, 6), integers(np.int8, 6, 4)
    rows = f32([0.01, 0.02, 0.03])
    zeros = np.array([1, -2, 3], np.int8)
    inputs = (a, rows, zeros, b, f32(0.02), np.array(4, np.int8), rows * 9, zeros)
    product = (a.astype(float) - zeros[:, None]) @ (b.astype(float) - 4)
    expected = np.rint(product * np.float64(f32(0.02)) / 9) + zeros[:, None]
    (y,) = compute("QLinearMatMul", *inputs)
    onnx_cases.assert_same(y, np.clip(expected, -128, 127).astype(np.int8))


@pytest.mark.parametrize("name", FLOAT8)
def test_floats_of_8_bits_multiply_too(name: str) -> None:
    dtype = np.dtype(getattr(ml_dtypes, name))
    a, b = (RNG.normal(size=shape).astype(dtype) for shape in ((2, 3), (3, 4)))
    zero, one = np.zeros((), dtype), f32(1)
    (y,) = compute("QLinearMatMul", a, one, zero, b, one, zero, f32(0.5), zero, opset=21)
    expected = a.astype(np.float32) @ b.astype(np.float32) * 2
    assert y.dtype == dtype
    assert np.array_equal(y, expected.astype(dtype))


SETTINGS: list[dict[str, Any]] = [
    {},
    {"pads": [1, 0, 2, 1]},
    {"strides": [2, 1], "dilations": [1, 2]},
    {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
    {"group": 2},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("by_map", [False, True])
def test_quantized_convolutions_are_onnx_runtime_s(settings: dict[str, Any], by_map: bool) -> None:
    x = integers(np.uint8, 2, 4, 7, 8)
    w = integers(np.int8, 4, 4 // settings.get("group", 1), 3, 2)
    common = {"kernel_shape": [3, 2], **settings}
    x_zero = np.array(100, np.uint8)
    w_zero = np.array([0, 0, 0, 0] if by_map else 0, np.int8)
    w_scale = SCALES / 100 if by_map else f32(0.01)
    bias = np.array([100, -2000, 3000, 4], np.int32)
    inputs = (
        x, f32(0.02), x_zero, w, w_scale, w_zero, f32(0.4), np.array(110, np.uint8), bias,
    )  # fmt: skip
    expected = by_runtime("QLinearConv", *inputs, **common)
    assert_all_same(compute("QLinearConv", *inputs, **common), expected)
    expected = by_runtime("ConvInteger", x, w.view(np.uint8), x_zero, **common)
    assert_all_same(compute("ConvInteger", x, w.view(np.uint8), x_zero, **common), expected)
