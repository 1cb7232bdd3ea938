"""Maxima and what is built on them: the place of the largest element, and the softmax.

As last ops they run after decryption. In the middle of a net they are tournaments: the maximum takes one
look-up for each element but the first, on one bit more than the elements have.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fhe_core import QuantizedArray, QuantizedOp, primitives
from fhe_ops_std.quantized.stages import (
    FREE_BITS,
    LEAST_EXPONENT,
    extent,
    levels,
    log_step,
    sample_axes,
    signed,
    size,
    tournament,
)

Array = NDArray[Any]

#: From this opset on Softmax, LogSoftmax and Hardmax work along one axis; before, along all from it on.
_ONE_AXIS_SINCE = 13


class AlongAxis(QuantizedOp):
    """Softmax, LogSoftmax or Hardmax, along the axes that their opset means."""

    shapes_outputs: ClassVar[bool] = True

    def axes(self, x: QuantizedArray | Array) -> tuple[int, ...]:
        rank = len(x.shape)
        return sample_axes(self, self._range(rank), rank)

    def class_axis(self, shape: tuple[int, ...]) -> int | None:
        axes = [axis for axis in self._range(len(shape)) if shape[axis] != 1]
        return axes[0] if len(axes) == 1 else None

    def _range(self, rank: int) -> range:
        axis = self.attrs["axis"] % rank
        opset = self.where.opset
        return range(axis, axis + 1 if opset is None or opset >= _ONE_AXIS_SINCE else rank)

    def reach(self, x: Array) -> tuple[float, float]:
        return below_maxima(x, self.axes(x), LEAST_EXPONENT), np.inf


def below_maxima(x: Array, axes: tuple[int, ...], less: float = 0.0) -> float:
    """The least maximum along ``axes``, and ``less`` from there: what is lower is no candidate anywhere."""
    return float(np.max(x, axis=axes).min()) + less


@dataclass(frozen=True)
class LogSumExp:
    """The stages of log(sum(exp(x))), as integers.

    Attributes:
        top: the maximum, in the steps of x.
        below: x - top, in the steps of x; never positive.
        log: log(sum(exp(x - top))), in units of ``step``.
        step: a whole fraction of the step of x.
        fineness: which one.
    """

    top: Any
    below: Any
    log: Any
    step: float
    fineness: int


def log_sum_exp(x: Any, scale: float, axes: tuple[int, ...], n_bits: int) -> LogSumExp:
    """log(sum(exp(x))) along ``axes`` in stages: two look-ups an element, one for each sum.

    Args:
        x: integers, of which one stands for ``scale``.
    """
    top = tournament(x, axes, primitives.maximum)
    below = x - top
    # exp(x - maximum) is in [0, 1]. Where all are small but one, the sum needs their fractions.
    unit = 1 / (2 ** max(FREE_BITS, n_bits) - 1)
    exponentials = levels(np.exp(below.astype(np.float64) * scale), unit, 0.0, 1.0)
    total = exponentials.sum(axis=axes, keepdims=True).astype(np.float64) * unit
    fineness = math.ceil(scale / log_step(n_bits))
    step = scale / fineness
    # The largest one is exp(0), so the sum is in [1, count].
    log = levels(np.log(np.maximum(total, 1.0)), step, 0.0, math.log(size(x.shape, axes)))
    return LogSumExp(top, below, log, step, fineness)


class QuantizedLogSoftmax(AlongAxis):
    """x - log(sum(exp(x))): two look-ups an element, one a sum."""

    _impl_for_op_named = "LogSoftmax"

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        return self.quantized(self.logarithm(*q_inputs))

    def logarithm(self, x: QuantizedArray) -> Any:
        """The real logarithms, from one integer tensor."""
        parts = log_sum_exp(signed(x), x.quantizer.scale, self.axes(x), self.n_bits)
        return (parts.below * parts.fineness - parts.log).astype(np.float64) * parts.step


class QuantizedSoftmax(QuantizedLogSoftmax):
    """exp(LogSoftmax(x)), the exponential in the look-up after it: so no product of encrypted values."""

    _impl_for_op_named = "Softmax"

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        # Of levels that a rounding joins, the highest may be an impossible one above 1.
        return self.quantized(np.exp(np.minimum(self.logarithm(*q_inputs), 0.0)))


def first_largest(x: Any, axes: tuple[int, ...], *, last: bool = False, most: bool = True) -> Any:
    """1 at the first (or ``last``) largest (or smallest) element along ``axes``, 0 elsewhere.

    Three look-ups an element: the tournament, the comparison with its result, and whether an element
    before it has won already.
    """
    best = tournament(x, axes, primitives.maximum if most else primitives.minimum)
    ahead = x - best if most else best - x
    wins = levels(np.where(ahead.astype(np.float64) >= 0, 1.0, 0.0), 1.0, 0.0, 1.0)
    rest = [axis for axis in range(len(x.shape)) if axis not in axes]
    order = (*rest, *axes)
    turned = np.transpose(wins, order)
    count = size(x.shape, axes)
    flat = turned.reshape(*turned.shape[: len(rest)], count)
    # An element that does not win, and each winner before it, count one: 0 is left for the first winner.
    before = np.tri(count, k=-1, dtype=np.int64)
    before = before if last else before.T
    others = flat @ (before - np.eye(count, dtype=np.int64)) + 1
    first = levels(np.where(others.astype(np.float64) <= 0, 1.0, 0.0), 1.0, 0.0, 1.0)
    return np.transpose(first.reshape(turned.shape), np.argsort(order))


def told_apart(op: QuantizedOp, x: QuantizedArray) -> Any:
    """``signed(x)`` in steps so coarse that the plan rounds no difference of two.

    A rounding of differences joins elements in each round of a tournament, and all that are so near to the
    best would have to count as equals: many more than steps of twice the size do not tell apart.
    """
    kept = op.plan.settings.get("rounding") if op.plan else None
    low, high = extent(x)
    step = 1
    while kept and (high // step - low // step).bit_length() >= max(kept, 2):
        step *= 2
    integers = signed(x)
    if step == 1:
        return integers
    return levels(integers.astype(np.float64), step, low, high)


class QuantizedHardmax(AlongAxis):
    """1 at the first maximum: three look-ups an element."""

    _impl_for_op_named = "Hardmax"

    def reach(self, x: Array) -> tuple[float, float]:
        return below_maxima(x, self.axes(x)), np.inf

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        (x,) = q_inputs
        marks = first_largest(told_apart(self, x), self.axes(x))
        return self.quantized(marks.astype(np.float64))


class QuantizedArgMax(QuantizedOp):
    """The place of the maximum: three look-ups an element mark it, and a sum of places reads it."""

    _impl_for_op_named = "ArgMax"
    shapes_outputs: ClassVar[bool] = True
    most: ClassVar[bool] = True

    def class_axis(self, shape: tuple[int, ...]) -> int | None:
        return int(self.attrs["axis"]) % len(shape) if self.most else None

    def reach(self, x: Array) -> tuple[float, float]:
        (axis,) = sample_axes(self, [self.attrs["axis"]], x.ndim)
        if self.most:
            return below_maxima(x, (axis,)), np.inf
        return -np.inf, -below_maxima(-x, (axis,))

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        (x,) = q_inputs
        (axis,) = axes = sample_axes(self, [attrs["axis"]], len(x.shape))
        last = bool(attrs.get("select_last_index", 0))
        marks = first_largest(told_apart(self, x), axes, last=last, most=self.most)
        places = np.arange(x.shape[axis]).reshape(-1, *(1,) * (len(x.shape) - axis - 1))
        place = (marks * places).sum(axis=axis, keepdims=bool(attrs["keepdims"]))
        return self.quantized(place.astype(np.float64))


class QuantizedArgMin(QuantizedArgMax):
    """The place of the minimum, likewise."""

    _impl_for_op_named = "ArgMin"
    most = False


CLASSES: tuple[type[QuantizedOp], ...] = (
    QuantizedHardmax,
    QuantizedSoftmax,
    QuantizedLogSoftmax,
    QuantizedArgMax,
    QuantizedArgMin,
)
