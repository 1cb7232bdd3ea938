"""Casts to narrow types follow the tables in ONNX's page of Cast."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from fhe_core.errors import FheError
from onnx import TensorProto

from . import onnx_cases
from .oracles import by_module

INF, NAN = np.inf, np.nan
# Largest value; and what infinity becomes where it is not the largest value.
EIGHT_BITS = {
    "FLOAT8E4M3FN": (ml_dtypes.float8_e4m3fn, 448, NAN),
    "FLOAT8E4M3FNUZ": (ml_dtypes.float8_e4m3fnuz, 240, NAN),
    "FLOAT8E5M2": (ml_dtypes.float8_e5m2, 57344, INF),
    "FLOAT8E5M2FNUZ": (ml_dtypes.float8_e5m2fnuz, 57344, NAN),
}


@pytest.mark.parametrize("target", EIGHT_BITS)
@pytest.mark.parametrize("opset", [19, 21, 24, 28])
@pytest.mark.parametrize("saturate", [0, 1])
@pytest.mark.parametrize("source", [np.float32, np.float16, np.float64, ml_dtypes.bfloat16])
def test_floats_of_eight_bits(target: str, opset: int, saturate: int, source: Any) -> None:
    """What is too large becomes the largest value, or with ``saturate`` 0 infinite or NaN."""
    dtype, largest, beyond = EIGHT_BITS[target]
    x = np.array([0, 1, -1.125, NAN, INF, -INF, 60000, -65000], source)
    to = TensorProto.DataType.Value(target)
    (y,) = by_module("Cast", x, opset=opset, to=to, saturate=saturate)
    limit = largest if saturate else beyond
    # From 60000 on all types but E5M2 overflow; E5M2 rounds 60000 down to 57344 and -65000 up.
    near = 57344 if target.startswith("FLOAT8E5M2") else limit
    expected = [0, 1, -1.125, NAN, limit, -limit, near, -limit]
    onnx_cases.assert_same(y, np.array(expected, dtype))


@pytest.mark.parametrize(
    ("saturate", "round_mode", "powers"),
    [  # of 0, 2⁻¹⁴⁰, 3, 4, 5, 6, 7, 2¹²⁷·1.5, infinity; None: not a number
        (1, "up", [-127, -127, 2, 2, 3, 3, 3, 127, 127]),
        (1, "down", [-127, -127, 1, 2, 2, 2, 2, 127, 127]),
        (1, "nearest", [-127, -127, 2, 2, 2, 3, 3, 127, 127]),
        (0, "up", [None, None, 2, 2, 3, 3, 3, None, None]),
        (0, "down", [None, None, 1, 2, 2, 2, 2, 127, None]),
        (0, "nearest", [None, None, 2, 2, 2, 3, 3, None, None]),
    ],
)
def test_powers_of_two(saturate: int, round_mode: str, powers: list[int | None]) -> None:
    """Rounded up, down or to the nearest, a tie up; to within 2⁻¹²⁷ and 2¹²⁷, or not at all."""
    x = np.array([0, 2.0**-140, 3, 4, 5, 6, 7, 2.0**127 * 1.5, INF], np.float32)
    to = TensorProto.FLOAT8E8M0
    (y,) = by_module("Cast", x, opset=24, to=to, saturate=saturate, round_mode=round_mode)
    expected = [NAN if power is None else 2.0**power for power in powers]
    onnx_cases.assert_same(y, np.array(expected, ml_dtypes.float8_e8m0fnu))


@pytest.mark.parametrize(
    ("source", "target", "before", "after"),
    [
        (np.int16, "INT8", [200, -129], [-56, 127]),
        (np.int32, "UINT4", [17, -1], [1, 15]),
        (np.int8, "INT4", [8, -9], [-8, 7]),
        (np.uint8, "INT2", [2, 5], [-2, 1]),
        (ml_dtypes.int4, "FLOAT16", [-8, 7], [-8, 7]),
        (ml_dtypes.bfloat16, "INT32", [2.5, -2.5], [2, -2]),
        (np.float32, "BFLOAT16", [1.00390625, 3e38], [1, 3e38]),
        (ml_dtypes.float8_e5m2, "BOOL", [0, 0.5], [False, True]),
    ],
)
def test_other_types(source: Any, target: str, before: list[Any], after: list[Any]) -> None:
    """Integers lose their high bits, floats their fraction or their last digits."""
    to = TensorProto.DataType.Value(target)
    (y,) = by_module("Cast", np.array(before, source), opset=25, to=to)
    (like,) = by_module("CastLike", np.array(before, source), y[:0], opset=25)
    onnx_cases.assert_same(y, np.array(after).astype(y.dtype))
    onnx_cases.assert_same(like, y)


def test_an_unknown_way_to_round_is_a_typed_error() -> None:
    x = np.ones(1, np.float32)
    with pytest.raises(FheError, match="round_mode"):
        by_module("Cast", x, opset=24, to=int(TensorProto.FLOAT8E8M0), round_mode="off")
