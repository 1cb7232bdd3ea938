"""Products and convolutions of models that hold integers of 8 bits already, and requantize them.

What is requantized afterwards becomes part of the next look-up.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fhe_core import CompilationError, QuantizationParameters, QuantizedArray, QuantizedOp
from fhe_ops_std._kernels import require_fit
from fhe_ops_std.integer_linear import by_map, by_row
from fhe_ops_std.quantized.integer_linear import convolved_exactly, factor, require_whole
from fhe_ops_std.quantized.linear import product
from fhe_ops_std.quantized.probing import parted
from fhe_ops_std.quantized.quantizing import integers_of

Array = NDArray[Any]


class QLinearOp(QuantizedOp):
    """A linear op on two tensors of integers, the result in integers of 8 bits again.

    Inputs: the first factor with its scale and zero point, the second with its own, scale and zero point
    of the result. The factors may be encrypted, the rest has to be constant.
    """

    encryptable: ClassVar[tuple[int, ...]] = (0, 3)

    def output_quantization(self, index: int = 0) -> QuantizationParameters | None:
        zero_point = self.constant(7)
        return None if zero_point is None else integers_of(zero_point.dtype)

    def real(self, index: int) -> Array:
        """A constant input in float64."""
        return np.asarray(self.constant(index), np.float64)

    def requantized(self, result: Any, zero_point: Any) -> Any:
        """Real values in units of the result's scale, as its integers."""
        grid = self.output_quantization()
        if grid is None:
            raise CompilationError(
                "the result is of a type that holds no integers of at most 16 bits",
                where=self.where,
                expected="int8 or uint8",
                fix="export the model with an integer y_zero_point",
            )
        return self.quantized(np.clip(np.rint(result) + zero_point, grid.low, grid.high))


class QuantizedQLinearMatMul(QLinearOp):
    """The product of what A and B stand for; both may be encrypted."""

    _impl_for_op_named = "QLinearMatMul"

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        a, _, a_zero, b, _, b_zero, *_ = parted(self, q_inputs)
        # One scale and zero point, or one for each row of A and of the result, and column of B.
        rows = [by_row(values, a) for values in (a_zero, self.real(1), self.real(6), self.real(7))]
        left, right = factor(a, rows[0]), factor(b, b_zero)
        if not {0, 3} & set(self.constant_inputs):
            require_whole(self, left, right)
        result = product(left, right, 0 in self.constant_inputs)
        return self.requantized(result * (rows[1] * self.real(4) / rows[2]), rows[3])


class QuantizedQLinearConv(QLinearOp):
    """The convolution of what x and w stand for, with clear weights."""

    _impl_for_op_named = "QLinearConv"
    encryptable = (0,)

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        x, _, x_zero, w, _, w_zero, *_ = parted(self, q_inputs)
        group, kernel = attrs["group"], attrs["kernel_shape"]
        require_fit(self._impl_for_op_named, x.shape, w.shape, group=group, kernel_shape=kernel)
        weights = factor(w, np.asarray(by_map(w_zero, w)))
        result = convolved_exactly(factor(x, x_zero), weights, attrs)
        column = (-1, *[1] * (len(x.shape) - 2))
        if self.constant(8) is not None:
            result = result + self.real(8).reshape(column)
        scale = self.real(1) * self.real(4).reshape(column) / self.real(6)
        return self.requantized(result * scale, self.real(7))


CLASSES: tuple[type[QuantizedOp], ...] = (QuantizedQLinearMatMul, QuantizedQLinearConv)
