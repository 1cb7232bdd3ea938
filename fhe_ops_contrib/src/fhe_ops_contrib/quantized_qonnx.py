"""Quantized forms of the operators of QONNX: part of a look-up, and the trained scales stay.

What they return lies on the grid that the network was trained for. They say which, so that the circuit
computes with the integers of the training.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fhe_core import CompilationError, QuantizationParameters, QuantizedArray, QuantizedOp
from fhe_ops_contrib.qonnx import integer_range, power_of_two

#: The plan's integers may have as many.
_MOST_BITS = 16


class Grid(QuantizedOp):
    """A function of each element of x; everything else is constant."""

    def can_fuse(self) -> bool:
        return not self._encrypted()

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        names = self._encrypted()
        if names:
            raise CompilationError(
                f"{', '.join(names)} of the quantization depends on encrypted values",
                where=self.where,
                expected="constants",
                fix="export the trained scales and widths as constants of the model",
            )
        return super().q_impl(*q_inputs, **attrs)

    def _encrypted(self) -> list[str]:
        """Inputs other than x that are not constant."""
        if not self.input_names:
            return []
        names = self.signature.input_names[: len(self.input_names)]
        return [name for i, name in enumerate(names) if i and i not in self.constant_inputs]

    def grid(
        self, scale: Any, zero_point: Any, low: int, high: int
    ) -> QuantizationParameters | None:
        """The parameters of a grid; None where its scale or zero point differs from channel to channel,
        or no integer stands for zero, and calibration has to find another one."""
        if scale is None or zero_point is None or np.size(scale) != 1 or np.size(zero_point) != 1:
            return None
        step, zero = float(np.reshape(scale, ())), float(np.reshape(zero_point, ()))
        if not (np.isfinite(step) and step > 0 and zero.is_integer()):
            return None
        return QuantizationParameters(step, int(zero), low, high)

    def width(self, index: int) -> int | None:
        """A constant bit width, None where it is not constant or more than a circuit has."""
        bits = self.constant(index)
        return int(np.reshape(bits, ())) if bits is not None and bits <= _MOST_BITS else None


class QuantizedQuant(Grid):
    """Quant."""

    _impl_for_op_named = "Quant"

    def output_quantization(self, index: int = 0) -> QuantizationParameters | None:
        bits = self.width(3)
        if bits is None:
            return None
        signed, narrow = bool(self.attrs["signed"]), bool(self.attrs["narrow"])
        limits = integer_range(bits, signed=signed, narrow=narrow)
        return self.grid(self.constant(1), self.constant(2), *limits)


class QuantizedIntQuant(QuantizedQuant):
    """IntQuant, the newer name of Quant."""

    _impl_for_op_named = "IntQuant"


class QuantizedBipolarQuant(Grid):
    """BipolarQuant: one of two values."""

    _impl_for_op_named = "BipolarQuant"

    def output_quantization(self, index: int = 0) -> QuantizationParameters | None:
        return self.grid(self.constant(1), np.zeros(()), -1, 1)


class QuantizedTrunc(Grid):
    """Trunc."""

    _impl_for_op_named = "Trunc"

    def output_quantization(self, index: int = 0) -> QuantizationParameters | None:
        scale, zero = self.constant(1), self.constant(2)
        rescales = "out_scale" in self.signature.input_names
        bits = self.width(5 if rescales else 4)
        if bits is None or scale is None or zero is None:
            return None
        if not rescales:
            # The first version does not say whether its integers have a sign.
            limits = integer_range(bits, signed=True, narrow=False)[0], 2**bits - 1
            return self.grid(scale, zero, *limits)
        out_scale = self.constant(4)
        if out_scale is None:
            return None
        signed, narrow = bool(self.attrs["signed"]), bool(self.attrs["narrow"])
        limits = integer_range(bits, signed=signed, narrow=narrow)
        return self.grid(out_scale, zero / power_of_two(out_scale, scale), *limits)


CLASSES: tuple[type[QuantizedOp], ...] = (
    QuantizedQuant,
    QuantizedIntQuant,
    QuantizedBipolarQuant,
    QuantizedTrunc,
)
