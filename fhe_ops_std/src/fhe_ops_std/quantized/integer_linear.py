"""Products and convolutions of integers that are the model's own: MatMulInteger and ConvInteger.

With a = s (q - z), whatever the plan quantizes the integers a with, a - a_zero = s (q - (z + a_zero / s)):
an integer type's zero point joins the plan's, and the linear ops are those of the real numbers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fhe_core import PlanError, QuantizationParameters, QuantizedArray, QuantizedOp
from fhe_ops_std._kernels import require_fit
from fhe_ops_std.integer_linear import by_map, by_row
from fhe_ops_std.linear import conv
from fhe_ops_std.quantized.linear import convolution, product
from fhe_ops_std.quantized.probing import parted

Array = NDArray[Any]


def factor(values: Any, zero_point: Any) -> QuantizedArray:
    """Integers of the model, encrypted or clear, less their zero point."""
    if isinstance(values, QuantizedArray):
        own = values.quantizer.params
        zero = np.asarray(own.zero_point) + zero_point / own.scale
        whole = np.rint(zero).astype(np.int64)
        return with_params(
            values, replace(own, zero_point=whole if np.array_equal(whole, zero) else zero)
        )
    q = values.astype(np.int64)
    params = QuantizationParameters(1.0, np.asarray(zero_point).astype(np.int64), q.min(), q.max())
    return QuantizedArray(8, q, value_is_float=False, params=params)


def with_params(array: QuantizedArray, params: QuantizationParameters) -> QuantizedArray:
    """The same integers under another quantizer."""
    return QuantizedArray(array.n_bits, array.qvalues, value_is_float=False, params=params)


def require_whole(op: QuantizedOp, *factors: QuantizedArray) -> None:
    """Refuses factors, both encrypted, whose zero is none of their integers.

    Raises:
        PlanError: with fewer bits than the type has, it may lie between two.
    """
    if all(np.asarray(f.quantizer.zero_point).dtype.kind == "i" for f in factors):
        return
    raise PlanError(
        "two encrypted factors are multiplied, and a zero point lies between the integers of one",
        where=op.where,
        expected="factors with as many bits as their type has",
        fix="give them 8 bits: n_bits={'model_inputs': 8, 'op_inputs': 8}",
    )


def convolved_exactly(x: QuantizedArray, w: QuantizedArray, attrs: Any) -> Any:
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


class QuantizedMatMulInteger(QuantizedOp):
    """(a - a_zero_point) @ (b - b_zero_point); both may be encrypted."""

    _impl_for_op_named = "MatMulInteger"
    encryptable: ClassVar[tuple[int, ...]] = (0, 1)

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        a, b, a_zero, b_zero = [*parted(self, q_inputs), None, None][:4]
        left, right = factor(a, by_row(_number(a_zero), a)), factor(b, _number(b_zero))
        if not {0, 1} & set(self.constant_inputs):
            require_whole(self, left, right)
        return self.quantized(product(left, right, 0 in self.constant_inputs))


class QuantizedConvInteger(QuantizedOp):
    """Conv of x - x_zero_point with clear weights, less their zero points."""

    _impl_for_op_named = "ConvInteger"
    encryptable: ClassVar[tuple[int, ...]] = (0,)

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        x, w, x_zero, w_zero = [*parted(self, q_inputs), None, None][:4]
        require_fit(
            self._impl_for_op_named,
            x.shape,
            w.shape,
            group=attrs["group"],
            kernel_shape=attrs["kernel_shape"],
        )
        weights = factor(w, by_map(_number(w_zero), w))
        return self.quantized(convolved_exactly(factor(x, _number(x_zero)), weights, attrs))


def _number(zero_point: Array | None) -> NDArray[np.int64]:
    return np.asarray(0 if zero_point is None else zero_point).astype(np.int64)


CLASSES: tuple[type[QuantizedOp], ...] = (QuantizedMatMulInteger, QuantizedConvInteger)
