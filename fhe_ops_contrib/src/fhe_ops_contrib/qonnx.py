"""The operators of QONNX, which write down a network that was trained for few bits.

Source: the operator pages of QONNX, https://github.com/fastmachinelearning/qonnx. Results are floats on a
grid: scale * (integer - zero point). Brevitas exports the same operators under a domain of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core import ModelError, Where
from fhe_ops_contrib._domains import Flag

Array = NDArray[Any]

DOMAINS = ("qonnx.custom_op.general", "onnx.brevitas")


def _away_from_zero(x: Any) -> Any:
    return np.sign(x) * np.ceil(np.abs(x))


def _half_away_from_zero(x: Any) -> Any:
    return np.sign(x) * np.floor(np.abs(x) + 0.5)


def _half_towards_zero(x: Any) -> Any:
    return np.sign(x) * np.ceil(np.abs(x) - 0.5)


_ROUNDINGS: dict[str, Callable[[Any], Any]] = {
    "ROUND": np.rint,
    "HALF_EVEN": np.rint,
    "CEIL": np.ceil,
    "FLOOR": np.floor,
    "UP": _away_from_zero,
    "DOWN": np.trunc,
    "ROUND_TO_ZERO": np.trunc,  # as Brevitas calls it
    "HALF_UP": _half_away_from_zero,
    "HALF_DOWN": _half_towards_zero,
}


def integer_range(bits: int, *, signed: bool, narrow: bool) -> tuple[int, int]:
    """The least and the largest integer of some bits; ``narrow`` leaves one out, the least if signed.

    One signed bit is -1 or 1.
    """
    if signed and bits == 1:
        return -1, 1
    if signed:
        return -(2 ** (bits - 1)) + narrow, 2 ** (bits - 1) - 1
    return 0, 2**bits - 1 - narrow


def quant(
    x: Array,
    scale: Array,
    zeropt: Array,
    bitwidth: Array,
    /,
    *,
    signed: Flag = 1,
    narrow: Flag = 0,
    rounding_mode: str = "ROUND",
) -> Array:
    """QONNX Quant-1, also called IntQuant: scale * (q - zeropt), where q is x / scale + zeropt, limited to
    the integers of ``bitwidth`` bits and rounded."""
    bits = _bits(bitwidth, "Quant")
    integers = x / scale + zeropt
    if bits == 1 and signed:
        integers = np.where(integers >= 0, np.float32(1), np.float32(-1))
    else:
        low, high = integer_range(bits, signed=bool(signed), narrow=bool(narrow))
        integers = _rounding(rounding_mode, "Quant")(np.clip(integers, low, high))
    return (integers - zeropt) * scale


def bipolar_quant(x: Array, scale: Array, /) -> Array:
    """QONNX BipolarQuant-1: scale where x >= 0, else -scale."""
    return np.where(x >= 0, np.float32(1), np.float32(-1)) * scale


def trunc_1(
    x: Array,
    scale: Array,
    zeropt: Array,
    in_bitwidth: Array,
    out_bitwidth: Array,
    /,
    *,
    rounding_mode: str = "FLOOR",
) -> Array:
    """QONNX Trunc-1: the integers of x without their last in_bitwidth - out_bitwidth bits, in units of
    ``scale``."""
    dropped = _bits(in_bitwidth, "Trunc") - _bits(out_bitwidth, "Trunc")
    integers = np.rint(x / scale + zeropt) / np.float32(2.0**dropped)
    return (_rounding(rounding_mode, "Trunc")(integers) - zeropt) * scale


def trunc_2(
    x: Array,
    scale: Array,
    zeropt: Array,
    in_bitwidth: Array,
    out_scale: Array,
    out_bitwidth: Array,
    /,
    *,
    rounding_mode: str = "FLOOR",
    signed: Flag = 1,
    narrow: Flag = 0,
) -> Array:
    """QONNX Trunc-2: the integers of x divided by the power of two between the scales, limited to those
    of ``out_bitwidth`` bits, and rounded."""
    low, high = integer_range(
        _bits(out_bitwidth, "Trunc"), signed=bool(signed), narrow=bool(narrow)
    )
    step = power_of_two(out_scale, scale)
    integers = np.clip(np.rint(x / scale + zeropt) / step, low, high)
    return (_rounding(rounding_mode, "Trunc")(integers) - zeropt / step) * out_scale


def power_of_two(out_scale: Array, scale: Array) -> Array:
    """The power of two nearest to the quotient of two scales."""
    return np.exp2(np.rint(np.log2(out_scale / scale)))


def _bits(width: Array, op: str) -> int:
    """A width, which may be held as a float.

    Raises:
        ModelError: it is no positive integer.
    """
    if np.size(width) == 1 and np.rint(width) == width and width > 0:
        return int(np.reshape(width, ()))
    raise ModelError(
        "a bit width is no positive integer",
        where=Where(op=op),
        expected="a scalar such as 4 or 4.0",
        got=str(width),
        fix="correct the model's constant",
    )


def _rounding(mode: str, op: str) -> Callable[[Any], Any]:
    function = _ROUNDINGS.get(mode.upper())
    if function is None:
        raise ModelError(
            f"the rounding mode {mode!r} does not exist",
            where=Where(op=op),
            expected=", ".join(_ROUNDINGS),
            got=repr(mode),
            fix="correct rounding_mode",
        )
    return function


IMPLEMENTATIONS: tuple[tuple[str, int, Callable[..., Any]], ...] = (
    ("Quant", 1, quant),
    ("IntQuant", 1, quant),
    ("BipolarQuant", 1, bipolar_quant),
    ("Trunc", 1, trunc_1),
    ("Trunc", 2, trunc_2),
)
