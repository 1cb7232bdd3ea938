"""Bits: ops on the binary representation of numbers, element by element, with broadcasting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ._types import bits, dtype_numbered

Array = NDArray[Any]


def bitwise_and(a: Array, b: Array, /) -> Array:
    """ONNX BitwiseAnd-18: the bits that are set in both integers."""
    return np.bitwise_and(a, b)


def bitwise_or(a: Array, b: Array, /) -> Array:
    """ONNX BitwiseOr-18: the bits that are set in one integer or both."""
    return np.bitwise_or(a, b)


def bitwise_xor(a: Array, b: Array, /) -> Array:
    """ONNX BitwiseXor-18: the bits that are set in exactly one of the integers."""
    return np.bitwise_xor(a, b)


def bitwise_not(x: Array, /) -> Array:
    """ONNX BitwiseNot-18: the bits that are not set in the integer."""
    return np.invert(x)


def bit_shift(x: Array, y: Array, /, *, direction: Literal["LEFT", "RIGHT"]) -> Array:
    """ONNX BitShift-28: the bits of the integers x moved ``direction`` (LEFT, RIGHT) by y places.

    To the right the sign is repeated. A y that is negative, or not below the width of x, shifts
    everything out, in NumPy as in ONNX.
    """
    if direction == "LEFT":
        return np.left_shift(x, y)
    if direction == "RIGHT":
        return np.right_shift(x, y)
    raise ValueError(f"direction is {direction!r}, not LEFT or RIGHT")


def bit_cast(input: Array, /, *, to: int) -> Array:
    """ONNX BitCast-26: the same bits as another type of the same width, which TensorProto.DataType
    numbers ``to``.

    ValueError for another width, or for a byte that is no Boolean.
    """
    dtype = dtype_numbered(to)
    if bits(dtype) != bits(input.dtype):
        raise ValueError(
            f"{input.dtype} has {bits(input.dtype)} bits, {dtype} has {bits(dtype)}: not the same"
        )
    if dtype == np.bool_ and np.any(input.view(np.uint8) > 1):
        raise ValueError("a Boolean is a byte of 0 or 1, and the input holds others")
    return input.view(dtype)


IMPLEMENTATIONS: tuple[tuple[str, int, Callable[..., Any]], ...] = (
    ("BitwiseAnd", 18, bitwise_and),
    ("BitwiseOr", 18, bitwise_or),
    ("BitwiseXor", 18, bitwise_xor),
    ("BitwiseNot", 18, bitwise_not),
    ("BitShift", 11, bit_shift),
    ("BitCast", 26, bit_cast),
)
