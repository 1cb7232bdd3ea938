"""Conversion between element types, those of ml_dtypes included, as ONNX's Cast defines it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core import UnsupportedOpError

from ._precision import precise

Array = NDArray[Any]


def converted(
    x: Array, dtype: np.dtype[Any], *, saturate: bool = True, round_mode: str = "up"
) -> Array:
    """The values of x in another type; x itself where it has that type.

    Integers lose their high bits, floats become infinite, and what an integer type cannot hold of
    floats, ONNX leaves open. A float of 8 bits is its largest one instead with ``saturate``, else
    infinite, or NaN where it has no infinity. ``round_mode`` concerns powers of two (float8e8m0).
    UnsupportedOpError for strings.
    """
    if "O" in (x.dtype.kind, dtype.kind):
        raise UnsupportedOpError(
            "strings cannot be cast",
            expected="types of numbers, from and to",
            got=f"a cast from {x.dtype} to {dtype}",
            fix="export the model without this cast",
        )
    if x.dtype == dtype:
        return x
    with np.errstate(over="ignore", invalid="ignore"):
        if dtype.name == "float8_e8m0fnu":
            return _powers_of_two(x, dtype, saturate, round_mode)
        if dtype.name.startswith("float8"):
            return _eight_bits(x, dtype, saturate)
        return x.astype(dtype)


def _eight_bits(x: Array, dtype: np.dtype[Any], saturate: bool) -> Array:
    if saturate:
        import ml_dtypes

        largest = float(ml_dtypes.finfo(dtype).max)
        x = np.clip(precise(x), -largest, largest)
    return x.astype(dtype)


def _powers_of_two(x: Array, dtype: np.dtype[Any], saturate: bool, round_mode: str) -> Array:
    """The table and the rounding modes of ONNX's Cast: exponents from -127 to 127, and NaN."""
    mantissa, exponent = np.frexp(x.astype(np.float64))  # x = mantissa·2^exponent, from 1/2 to 1
    beyond = {"up": mantissa > 0.5, "down": mantissa >= 1, "nearest": mantissa >= 0.75}
    if round_mode not in beyond:
        raise ValueError(f"round_mode is {round_mode!r}, not {', '.join(beyond)}")
    power = exponent - 1 + beyond[round_mode]
    power = np.where(mantissa == 0, -128, np.where(np.isinf(mantissa), 128, power))
    held = np.clip(power, -127, 127)
    nothing = np.isnan(mantissa) | (False if saturate else held != power)
    return np.where(nothing, 255, held + 127).astype(np.uint8).view(dtype)
