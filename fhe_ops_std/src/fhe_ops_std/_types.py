"""Element types: the dtypes that TensorProto.DataType numbers, and their widths."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from fhe_core import UnsupportedOpError

# ml_dtypes keeps each of these in a byte of its own.
_NARROW = {
    "float6_e2m3fn": 6,
    "float6_e3m2fn": 6,
    "float4_e2m1fn": 4,
    "uint4": 4,
    "int4": 4,
    "uint2": 2,
    "int2": 2,
}


@functools.cache
def dtype_numbered(number: int) -> np.dtype[Any]:
    """The dtype of a number in TensorProto.DataType: NumPy's own or one of ml_dtypes.

    UnsupportedOpError where the number is unknown, or is not one of a type of numbers.
    """
    # Deferred, as importing onnx takes longer than importing this pack.
    from onnx import TensorProto, helper

    others = {TensorProto.UNDEFINED, TensorProto.STRING}
    if number in {*TensorProto.DataType.values()} - others:
        return np.dtype(helper.tensor_dtype_to_np_dtype(number))
    raise UnsupportedOpError(
        f"data type number {number} is no type of numbers",
        expected="a number from TensorProto.DataType, such as 1 (float32)",
        got=str(number),
        fix="export the model with another data type",
    )


def bits(dtype: np.dtype[Any]) -> int:
    """The width of an element as ONNX counts it."""
    return _NARROW.get(dtype.name, 8 * dtype.itemsize)
