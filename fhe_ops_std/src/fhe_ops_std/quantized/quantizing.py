"""Numbers to and from few bits, as models that were trained for integers write it.

Both ops are functions of each element, and part of a look-up. What they say beyond that is how their
result is quantized: the plan keeps the trained scale and zero point, so that the integers of the circuit
are those of the model.
"""

from __future__ import annotations

from typing import Any, ClassVar

import ml_dtypes
import numpy as np

from fhe_core import QuantizationParameters, QuantizedOp
from fhe_ops_std._types import dtype_numbered
from fhe_ops_std.quantizing import spread

#: What the plan's integers may have; types of 32 bits hold sums, which have no trained scale.
_MOST_BITS = 16


def integers_of(
    dtype: Any, scale: float = 1.0, zero_point: int = 0
) -> QuantizationParameters | None:
    """The grid of all integers of a type, or None where it holds no integers or too many."""
    if dtype is None or not (dtype.kind in "iu" or "int" in dtype.name):
        return None
    limits = ml_dtypes.iinfo(dtype)
    low, high = int(limits.min), int(limits.max)
    if high - low >= 2**_MOST_BITS:
        return None
    return QuantizationParameters(scale, zero_point, low, high)


class WithClearScale(QuantizedOp):
    """An op with a scale and a zero point, which are constants of the model."""

    encryptable: ClassVar[tuple[int, ...]] = (0,)

    def _spread(self, index: int, x: Any, attrs: Any) -> Any:
        """A constant input in float32, as it broadcasts to x; 0 where it is absent."""
        values = self.constant(index)
        if values is None:
            return np.float32(0)
        axis, block = attrs.get("axis", 1), attrs.get("block_size", 0)
        return spread(values, x.shape, axis, block).astype(np.float32)


class QuantizedQuantizeLinear(WithClearScale):
    """The integers of x: they are the circuit's own."""

    _impl_for_op_named = "QuantizeLinear"

    def output_quantization(self, index: int = 0) -> QuantizationParameters | None:
        return integers_of(self._dtype())

    def _dtype(self) -> Any:
        zero_point = self.constant(2)
        if zero_point is not None:
            return zero_point.dtype
        number = self.attrs.get("output_dtype", 0)
        return dtype_numbered(number) if number else np.dtype(np.uint8)

    def call_impl(self, *inputs: Any, **attrs: Any) -> Any:
        grid = self.output_quantization()
        scale = self.constant(1)
        if grid is None or attrs.get("precision") or scale is None or scale.dtype != np.float32:
            return super().call_impl(*inputs, **attrs)
        # The implementation in steps that a client can be sent: it quantizes before it encrypts.
        x = inputs[0].astype(np.float32)
        levels = np.rint(x / self._spread(1, x, attrs)) + self._spread(2, x, attrs)
        return np.clip(levels, grid.low, grid.high)


class QuantizedDequantizeLinear(WithClearScale):
    """What integers stand for: on the grid that the model was trained for."""

    _impl_for_op_named = "DequantizeLinear"

    def output_quantization(self, index: int = 0) -> QuantizationParameters | None:
        scale, zero_point = self.constant(1), self.constant(2)
        if scale is None or scale.size != 1 or scale <= 0:
            return None
        if zero_point is None:
            dtype, zero = self.input_types[0] if self.input_types else None, 0
        elif zero_point.size == 1:
            dtype, zero = zero_point.dtype, int(zero_point.item())
        else:
            return None
        return integers_of(dtype, float(scale.item()), zero)

    def call_impl(self, *inputs: Any, **attrs: Any) -> Any:
        scale, number = self.constant(1), attrs.get("output_dtype", 0)
        x = inputs[0].astype(np.float32)
        result = (x - self._spread(2, x, attrs)) * self._spread(1, x, attrs)
        return result.astype(dtype_numbered(number) if number else scale.dtype)


CLASSES: tuple[type[QuantizedOp], ...] = (QuantizedQuantizeLinear, QuantizedDequantizeLinear)
