"""Products and convolutions of models that hold integers of 8 bits already, and requantize them.

With a = s (q - z), whatever the plan quantizes the integers a with, a - a_zero = s (q - (z + a_zero / s)):
an integer type's zero point joins the plan's, and the linear ops are those of the real numbers. What is
requantized afterwards becomes part of the next look-up.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from fhe_core.quantization.quantizers import QuantizationParameters
from numpy.typing import NDArray

from fhe_core import CompilationError, PlanError, QuantizedArray, QuantizedOp
from fhe_ops_std.integer_linear import by_map, by_row
from fhe_ops_std.linear import conv
from fhe_ops_std.quantized.linear import convolution, product
from fhe_ops_std.quantized.quantizing import integers_of

Array = NDArray[Any]


class QLinearOp(QuantizedOp):
    """A linear op on two tensors of integers, the result in integers of 8 bits again.

    Inputs: the first factor with its scale and zero point, the second with its own, scale and zero point
    of the result.
    """

    def output_quantization(self, index: int = 0) -> QuantizationParameters | None:
        zero_point = self.constant(7)
        return None if zero_point is None else integers_of(zero_point.dtype)

    def factor(self, index: int, factor: Any, zero_point: Array) -> QuantizedArray:
        """A factor, encrypted or clear, with the zero point of its integers."""
        if index in self.constant_inputs:
            q = factor.astype(np.int64)
            params = QuantizationParameters(1.0, zero_point.astype(np.int64), q.min(), q.max())
            return QuantizedArray(8, q, value_is_float=False, params=params)
        own = factor.quantizer.params
        zero = np.asarray(own.zero_point) + zero_point / own.scale
        whole = np.rint(zero).astype(np.int64)
        return with_params(
            factor, replace(own, zero_point=whole if np.array_equal(whole, zero) else zero)
        )

    def inputs(self, q_inputs: tuple[QuantizedArray, ...]) -> list[Any]:
        """All inputs by position: quantized, or arrays where they are constant.

        Raises:
            CompilationError: a scale, a zero point or a bias is encrypted.
        """
        inputs = self._prepare_inputs_with_constants(
            *q_inputs, calibrate=False, quantize_actual_values=True
        )
        for index, name in enumerate(self.signature.input_names[: len(inputs)]):
            if index in (0, 3) or index in self.constant_inputs or inputs[index] is None:
                continue
            raise CompilationError(
                f"the input {name!r} is encrypted",
                where=self.where,
                expected="scales, zero points and a bias that are constants of the model",
                fix="export them as constants",
            )
        return inputs

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


def with_params(array: QuantizedArray, params: QuantizationParameters) -> QuantizedArray:
    """The same integers under another quantizer."""
    return QuantizedArray(array.n_bits, array.qvalues, value_is_float=False, params=params)


class QuantizedQLinearMatMul(QLinearOp):
    """The product of what A and B stand for; both may be encrypted."""

    _impl_for_op_named = "QLinearMatMul"

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        a, _, a_zero, b, _, b_zero, *_ = self.inputs(q_inputs)
        # One scale and zero point, or one for each row of A and of the result, and column of B.
        rows = [by_row(values, a) for values in (a_zero, self.real(1), self.real(6), self.real(7))]
        left, right = self.factor(0, a, rows[0]), self.factor(3, b, b_zero)
        if not {0, 3} & set(self.constant_inputs):
            self._require_whole(left, right)
        result = product(left, right, 0 in self.constant_inputs)
        return self.requantized(result * (rows[1] * self.real(4) / rows[2]), rows[3])

    def _require_whole(self, *factors: QuantizedArray) -> None:
        if all(np.asarray(f.quantizer.zero_point).dtype.kind == "i" for f in factors):
            return
        raise PlanError(
            "two encrypted factors are multiplied, and a zero point lies between the integers of one",
            where=self.where,
            expected="factors with as many bits as their type has",
            fix="give them 8 bits: n_bits={'model_inputs': 8, 'op_inputs': 8}",
        )


class QuantizedQLinearConv(QLinearOp):
    """The convolution of what x and w stand for, with clear weights."""

    _impl_for_op_named = "QLinearConv"

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        x, _, x_zero, w, _, w_zero, *_ = self.inputs(q_inputs)
        if 3 not in self.constant_inputs:
            raise CompilationError(
                "convolution with encrypted weights is not supported",
                where=self.where,
                fix="make the weights constants of the model",
            )
        result = _convolved(
            self.factor(0, x, x_zero), self.factor(3, w, np.asarray(by_map(w_zero, w))), attrs
        )
        column = (-1, *[1] * (len(x.shape) - 2))
        if self.constant(8) is not None:
            result = result + self.real(8).reshape(column)
        scale = self.real(1) * self.real(4).reshape(column) / self.real(6)
        return self.requantized(result * scale, self.real(7))


def _convolved(x: QuantizedArray, w: QuantizedArray, attrs: Any) -> Any:
    """The convolution of x and w, also where x has its zero between two integers.

    An integer has to stand for zero in the padding. What rounding it leaves out is the same for all elements
    that are no padding, and is convolved in clear.
    """
    own = x.quantizer.params
    whole = np.rint(own.zero_point).astype(np.int64)
    rest = own.scale * (whole - np.asarray(own.zero_point, np.float64))
    result = convolution(with_params(x, replace(own, zero_point=whole)), w, attrs)
    if not rest.any():
        return result
    given = {name: value for name, value in attrs.items() if name != "kernel_shape"}
    weights = (w.qvalues - w.quantizer.zero_point).astype(np.float64)
    return result + conv(np.broadcast_to(rest, (1, *x.shape[1:])), weights, **given)


CLASSES: tuple[type[QuantizedOp], ...] = (QuantizedQLinearMatMul, QuantizedQLinearConv)
