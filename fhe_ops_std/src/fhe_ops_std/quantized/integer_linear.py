"""MatMulInteger and ConvInteger: clear weights that are integers already, taken as they are.

a - a_zero_point and b - b_zero_point are multiplied exactly; only the encrypted one has a scale of its own,
that of its encoding.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from fhe_core.quantization.quantizers import QuantizationParameters
from numpy.typing import NDArray

from fhe_core import CompilationError, QuantizedArray, QuantizedOp
from fhe_ops_std.quantized.linear import convolution
from fhe_ops_std.quantized.probing import parted

Array = NDArray[Any]


class QuantizedMatMulInteger(QuantizedOp):
    """(a - a_zero_point) @ (b - b_zero_point), one of them clear."""

    _impl_for_op_named = "MatMulInteger"

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        a, b, a_zero, b_zero = [*parted(self, q_inputs, (0, 1)), None, None][:4]
        if a_zero is not None and a_zero.ndim == 1 and a_zero.size > 1:
            a_zero = a_zero[:, None]
        left = 0 in self.constant_inputs
        if not left and 1 not in self.constant_inputs:
            raise CompilationError(
                "MatMulInteger of two encrypted tensors is not supported",
                where=self.where,
                fix="make one of them a constant, or use MatMul of what they stand for",
            )
        x, zero = (b, b_zero) if left else (a, a_zero)
        weights = _shifted(a, a_zero) if left else _shifted(b, b_zero)
        # What the encrypted integers stand for at 0, and what the op subtracts from it.
        own = np.broadcast_to(x.quantizer.zero_point, (1, *x.shape[1:]))
        taken = np.broadcast_to(_number(zero), (1, *x.shape[1:]))

        def product(values: Any) -> Any:
            return weights @ values if left else values @ weights

        accumulator = product(x.qvalues).astype(np.float64) - product(own)
        return self.quantized(accumulator * x.quantizer.scale - product(taken))


class QuantizedConvInteger(QuantizedOp):
    """Conv of x - x_zero_point with clear weights, less their zero points."""

    _impl_for_op_named = "ConvInteger"

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        x, w, x_zero, w_zero = [*parted(self, q_inputs), None, None][:4]
        by_map = None if w_zero is None else w_zero.reshape(-1, *[1] * (w.ndim - 1))
        own, taken = x.quantizer.params, int(_number(x_zero))
        # Padding is x's zero point: the level that comes next to it stands for it.
        shift = np.rint(taken / own.scale).astype(np.int64)
        centred = replace(own, zero_point=own.zero_point + shift)
        shifted = QuantizedArray(x.n_bits, x.qvalues, value_is_float=False, params=centred)
        weights = _shifted(w, by_map)
        ones = QuantizationParameters(1.0, 0, int(weights.min()), int(weights.max()))
        clear = QuantizedArray(x.n_bits, weights, value_is_float=False, params=ones)
        real = convolution(shifted, clear, attrs)
        missing = float(shift * own.scale - taken)
        if missing:
            by_output = weights.sum(axis=tuple(range(1, w.ndim)))
            real = real + missing * by_output.reshape(-1, *[1] * (w.ndim - 2))
        return self.quantized(real)


def _shifted(values: Array, zero_point: Array | None) -> NDArray[np.int64]:
    return values.astype(np.int64) - _number(zero_point)


def _number(zero_point: Array | None) -> NDArray[np.int64]:
    return np.asarray(0 if zero_point is None else zero_point).astype(np.int64)


CLASSES: tuple[type[QuantizedOp], ...] = (QuantizedMatMulInteger, QuantizedConvInteger)
