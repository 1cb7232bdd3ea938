"""Bit by bit, integers and other types are what ONNX says."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from fhe_core.errors import FheError

from fhe_ops_std import bits

from . import onnx_cases
from .oracles import assert_all_same, by_module, by_runtime

OPS = ("BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot", "BitShift", "BitCast")
INTEGERS = [np.dtype(f"{sign}int{8 * 2**i}") for sign in ("", "u") for i in range(4)]


@pytest.mark.parametrize("case", onnx_cases.parameters(*OPS))
def test_onnx_s_own_cases(case: Any) -> None:
    case.check(bits.IMPLEMENTATIONS)


@pytest.mark.parametrize("op", ["BitwiseAnd", "BitwiseOr", "BitwiseXor"])
@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_two_operands_are_onnx_runtime_s(op: str, dtype: Any) -> None:
    rng = np.random.default_rng(1)
    info = np.iinfo(dtype)
    a, b = (
        rng.integers(info.min, info.max, shape, dtype, endpoint=True)
        for shape in ((3, 1, 4), (5, 1))
    )
    assert_all_same(by_module(op, a, b, opset=18), by_runtime(op, a, b, opset=18))


@pytest.mark.parametrize("direction", ["LEFT", "RIGHT"])
@pytest.mark.parametrize(
    ("opset", "dtype"),
    [(11, dtype) for dtype in INTEGERS if dtype.kind == "u"] + [(28, dtype) for dtype in INTEGERS],
)
def test_a_shift_is_a_product_with_a_power_of_two(opset: int, direction: str, dtype: Any) -> None:
    """Rounded down, and modulo the width; by any distance, negative ones and the width included."""
    info = np.iinfo(dtype)
    rng = np.random.default_rng(2)
    x = rng.integers(info.min, info.max, 300, dtype, endpoint=True)
    least = -3 if info.min else 0
    y = rng.integers(least, info.bits + 3, x.shape).astype(dtype)
    (got,) = by_module("BitShift", x, y, opset=opset, direction=direction)
    assert got.dtype == dtype
    for value, places, result in zip(x.tolist(), y.tolist(), got.tolist(), strict=True):
        far = places if places >= 0 else info.bits
        exact = value << far if direction == "LEFT" else value >> far
        assert result == (exact - int(info.min)) % 2**info.bits + int(info.min)


NARROW = [
    (np.int8, np.uint8, [-128, -1, 0, 5], [128, 255, 0, 5]),
    (ml_dtypes.int4, ml_dtypes.uint4, [-8, -1, 0, 7], [8, 15, 0, 7]),
    (ml_dtypes.int2, ml_dtypes.uint2, [-2, -1, 0, 1], [2, 3, 0, 1]),
    (ml_dtypes.uint4, ml_dtypes.float4_e2m1fn, [0, 1, 7, 15], [0, 0.5, 6, -6]),
    (ml_dtypes.float8_e4m3fn, np.uint8, [1, -2], [0x38, 0xC0]),
    (ml_dtypes.bfloat16, np.uint16, [1, -2], [0x3F80, 0xC000]),
    (np.float16, ml_dtypes.bfloat16, [1.875], [1]),
    (np.complex64, np.float64, [0], [0]),
]


@pytest.mark.parametrize(("source", "target", "before", "after"), NARROW)
def test_bits_of_other_types(source: Any, target: Any, before: Any, after: Any) -> None:
    """Types of one width, whatever the memory that NumPy takes for them, there and back."""
    x, y = np.array(before, source), np.array(after, target)
    number = onnx.helper.np_dtype_to_tensor_dtype
    got = bits.bit_cast(x, to=number(y.dtype))
    assert got.dtype == y.dtype
    assert got.tobytes() == y.tobytes()
    assert bits.bit_cast(got, to=number(x.dtype)).tobytes() == x.tobytes()


BYTES = np.array([0, 1, 2], np.uint8)
BAD: dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]] = {
    "another width": ("BitCast", (BYTES,), {"to": 7}),
    "four bits of eight": ("BitCast", (BYTES,), {"to": 21}),
    "strings": ("BitCast", (BYTES,), {"to": 8}),
    "no such type": ("BitCast", (BYTES,), {"to": 99}),
    "a Boolean of 2": ("BitCast", (BYTES,), {"to": 9}),
    "no such direction": ("BitShift", (BYTES, BYTES), {"direction": "UP"}),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_input_is_a_typed_error(bad: str) -> None:
    op, inputs, attributes = BAD[bad]
    with pytest.raises(FheError, match=op):
        by_module(op, *inputs, opset=26, **attributes)
