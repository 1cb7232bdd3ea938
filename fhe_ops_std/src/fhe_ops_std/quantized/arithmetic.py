"""Arithmetic of two or more tensors: a look-up where one integer tensor is behind all of them, integer
arithmetic where several are."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fhe_core import (
    CompilationError,
    PlanError,
    QuantizationStats,
    QuantizedArray,
    QuantizedOp,
    primitives,
)


class Conditional(QuantizedOp):
    """Fuses where everything that varies is computed from one integer tensor."""

    def can_fuse(self) -> bool:
        return len(self._int_input_names) == 1


Ends = tuple[float, float]


class JoiningOp(Conditional):
    """Computes on the integers of several tensors at one scale, and on constants in the next look-up."""

    shares_scale: ClassVar[bool] = True

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        if self.can_fuse() or len(q_inputs) == 1:
            return super().q_impl(*q_inputs, **attrs)
        real = self.join(q_inputs)
        constants = [self.constant_inputs[index] for index in sorted(self.constant_inputs)]
        return self.quantized(self.with_constants(real, constants))

    def gives_whole_numbers(self, whole: Sequence[bool]) -> bool:
        return all(whole)

    def join(self, q_inputs: Sequence[QuantizedArray]) -> Any:
        """The real values of the op on its encrypted inputs alone."""
        return total(self, q_inputs)

    def with_constants(self, real: Any, constants: Sequence[Any]) -> Any:
        return self.call_impl(real, *constants) if constants else real


def total(op: QuantizedOp, arrays: Sequence[QuantizedArray], sign: int = 1) -> Any:
    """The real values of a + sign (b + c + ...), added up as integers at one scale."""
    scale = joint_scale(op, arrays)
    (integers, zero), *others = (at_scale(array, scale) for array in arrays)
    for part, zero_point in others:
        integers = integers + part if sign > 0 else integers - part
        zero = zero + sign * np.asarray(zero_point)
    return (integers.astype(np.float64) - zero) * scale


def joint_scale(op: QuantizedOp, arrays: Sequence[QuantizedArray]) -> float:
    """The scale at which an op joins tensors: that of the first, which the plan has for all of them.

    Where training has chosen one for each, the least: the others are often whole multiples of it.
    """
    scales = [float(array.quantizer.scale) for array in arrays]
    trained = op.plan is not None and op.plan.settings.get("trained")
    return min(scales) if trained else scales[0]


def at_scale(array: QuantizedArray, scale: float) -> tuple[Any, Any]:
    """The integers of an array at a given scale, and their zero point.

    The plan gives tensors that are joined one scale, and then these are the array's own. Where it does not,
    because a user or the training said otherwise, they are multiplied if their scale is a whole multiple,
    and else requantized, with a look-up.

    Raises:
        PlanError: they would need more than 16 bits.
    """
    own = array.quantizer
    ratio = own.scale / scale
    if np.isclose(ratio, 1, rtol=1e-9, atol=0):
        return array.qvalues, own.zero_point
    span = (np.asarray(own.params.high) - own.params.low).max() * ratio
    bits = int(np.ceil(np.log2(span + 1))) + 1
    if bits > 16:
        raise PlanError(
            "tensors that are joined have scales too far apart",
            expected="one scale",
            got=f"{own.scale:g} and {scale:g}",
            fix="give them one scale in the plan",
        )
    factor = round(ratio)
    if factor and np.isclose(ratio, factor, rtol=1e-9, atol=0):
        return array.qvalues * factor, np.asarray(own.zero_point) * factor
    low = -(2 ** (bits - 1))
    levels = np.clip(np.rint(array.values / scale), low, -low - 1).astype(np.int64)
    return levels, 0


def constant_levels(op: QuantizedOp, values: Any, scale: float) -> NDArray[np.int64]:
    """The integers of a constant that meets encrypted values at ``scale``; where nobody cares how low or how
    high it is, as a mask may be, at the ends of what matters."""
    ends = np.clip(np.asarray(values, np.float64), *op.result_ends)
    if not np.isfinite(ends).all():
        raise CompilationError(
            "a constant that is infinite joins encrypted values",
            where=op.where,
            expected="finite numbers, or a mask that a Softmax or a maximum reads",
            fix="put the lowest number that the model tells apart in its place",
        )
    return np.rint(ends / scale).astype(np.int64)


class QuantizedSum(JoiningOp):
    """The sum of any number of tensors."""

    _impl_for_op_named = "Sum"

    def input_ends(self, index: int, result: Ends, ranges: Sequence[Ends]) -> Ends:
        # Where all the others are as large as they get, it is below the result's end, and likewise above.
        others = [ends for i, ends in enumerate(ranges) if i != index]
        most, least = (sum(ends[side] for ends in others) for side in (1, 0))
        return result[0] - most, result[1] - least


class QuantizedAdd(QuantizedSum):
    """A + B."""

    _impl_for_op_named = "Add"


class QuantizedSub(JoiningOp):
    """A - B."""

    _impl_for_op_named = "Sub"

    def input_ends(self, index: int, result: Ends, ranges: Sequence[Ends]) -> Ends:
        (low, high), other = result, ranges[1 - index]
        if index == 0:
            return low + other[0], high + other[1]
        return other[0] - high, other[1] - low

    def join(self, q_inputs: Sequence[QuantizedArray]) -> Any:
        return total(self, q_inputs, sign=-1)


class QuantizedMean(JoiningOp):
    """The mean of any number of tensors: their sum, divided in the next look-up."""

    _impl_for_op_named = "Mean"

    def gives_whole_numbers(self, whole: Sequence[bool]) -> bool:
        return False

    def with_constants(self, real: Any, constants: Sequence[Any]) -> Any:
        count = len(self.input_names) or 2
        return sum(constants, real) / count


class Comparison(Conditional):
    """Compares with a constant, or two encrypted tensors at one scale: their difference with zero."""

    shares_scale: ClassVar[bool] = True

    def reads_exactly(self, index: int) -> bool:
        return self.can_fuse() or bool(self.constant_inputs)

    def told_apart(self, index: int) -> Any:
        return self.constant(1 - index)

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        if self.can_fuse() or len(q_inputs) == 1:
            return super().q_impl(*q_inputs, **attrs)
        return self.quantized(self.call_impl(total(self, q_inputs, sign=-1), np.float64(0)))


class Residue(Conditional):
    """Fuses where everything that varies is computed from one integer tensor."""

    def reads_exactly(self, index: int) -> bool:
        # What lies beyond a range leaves another remainder than the range's end.
        return self.can_fuse()

    def told_apart(self, index: int) -> Any:
        divisor = self.constant(1)
        whole = divisor is not None and divisor.size and divisor.dtype.kind in "iu"
        return np.arange(min(int(np.abs(divisor).max()), 256)) if whole else None


def divided(ends: Ends, factor: Any) -> Ends:
    """The ends before a multiplication with one positive number; all values where it is something else."""
    if factor is None or np.size(factor) != 1 or not 0 < np.min(factor) < np.inf:
        return -np.inf, np.inf
    return ends[0] / float(np.min(factor)), ends[1] / float(np.min(factor))


class QuantizedMul(Conditional):
    """A * B. Of two encrypted tensors: two look-ups a product."""

    _impl_for_op_named = "Mul"

    def gives_whole_numbers(self, whole: Sequence[bool]) -> bool:
        return all(whole)

    def input_ends(self, index: int, result: Ends, ranges: Sequence[Ends]) -> Ends:
        return divided(result, self.constant(1 - index))

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        if self.can_fuse() or self.constant_inputs:
            return super().q_impl(*q_inputs, **attrs)
        a, b = self._prepare_inputs_with_constants(
            *q_inputs, calibrate=False, quantize_actual_values=True
        )
        product = primitives.multiply(
            a.qvalues - a.quantizer.zero_point, b.qvalues - b.quantizer.zero_point
        )
        scale = a.quantizer.scale * b.quantizer.scale
        return self.quantized(product.astype(np.float64) * scale)


class QuantizedDiv(Conditional):
    """A / B. Of two encrypted tensors: A times a table of 1 / B."""

    _impl_for_op_named = "Div"

    def input_ends(self, index: int, result: Ends, ranges: Sequence[Ends]) -> Ends:
        divisor = self.constant(1)
        return divided(result, None if divisor is None else 1 / np.float64(divisor))

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        if self.can_fuse() or (self.constant_inputs and 1 in self.constant_inputs):
            return super().q_impl(*q_inputs, **attrs)
        a, b = self._prepare_inputs_with_constants(
            *q_inputs, calibrate=False, quantize_actual_values=True
        )
        inverse = self._reciprocal(b)
        if 0 in self.constant_inputs:
            return self.quantized(self.constant(0) * inverse.values)
        product = primitives.multiply(
            a.qvalues - a.quantizer.zero_point, inverse.qvalues - inverse.quantizer.zero_point
        )
        scale = a.quantizer.scale * inverse.quantizer.scale
        return self.quantized(product.astype(np.float64) * scale)

    def _reciprocal(self, b: QuantizedArray) -> QuantizedArray:
        """1 / B with a range of its own, from the integers that B can be (0 counts as the next one)."""
        params = b.quantizer.params
        levels = np.arange(int(np.min(params.low)), int(np.max(params.high)) + 1)
        real = (levels - np.asarray(params.zero_point).mean()) * params.scale
        real = real[np.abs(real) > params.scale / 2]
        step = params.scale
        values = np.where(b.values < 0, -1.0, 1.0) / np.maximum(np.abs(b.values), step)
        stats = QuantizationStats(float((1 / real).min()), float((1 / real).max()))
        return QuantizedArray(b.n_bits, values, stats=stats)


class QuantizedMax(JoiningOp):
    """The largest of any number of tensors: one look-up for each further tensor."""

    _impl_for_op_named = "Max"
    saturates_inputs: ClassVar[bool] = True

    def input_ends(self, index: int, result: Ends, ranges: Sequence[Ends]) -> Ends:
        return result

    choose = staticmethod(primitives.maximum)

    def join(self, q_inputs: Sequence[QuantizedArray]) -> Any:
        scale = joint_scale(self, q_inputs)
        # One zero point for all: comparing integers then compares values.
        parts = [part - zero for part, zero in (at_scale(array, scale) for array in q_inputs)]
        return reduce(self.choose, parts).astype(np.float64) * scale


class QuantizedMin(QuantizedMax):
    """The smallest of any number of tensors."""

    _impl_for_op_named = "Min"
    choose = staticmethod(primitives.minimum)


def named(name: str, base: type[QuantizedOp]) -> type[QuantizedOp]:
    """The quantized form of an op about which ``base`` says everything."""
    return type(
        f"Quantized{name}",
        (base,),
        {
            "__doc__": f"{name}: {base.__doc__}",
            "__module__": __name__,
            "_impl_for_op_named": name,
        },
    )


CLASSES: tuple[type[QuantizedOp], ...] = (
    QuantizedAdd,
    QuantizedSub,
    QuantizedSum,
    QuantizedMul,
    QuantizedDiv,
    QuantizedMean,
    QuantizedMax,
    QuantizedMin,
    *(
        named(name, Comparison)
        for name in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
    ),
    *(named(name, Conditional) for name in ("Pow", "PRelu")),
    named("Mod", Residue),
)
