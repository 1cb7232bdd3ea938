"""Reductions along constant axes of one sample.

Sums are integers added up, and scaled in the next look-up; what is applied to each element first, such as
its square, is one exact look-up of each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fhe_core import CompilationError, QuantizedArray, QuantizedOp, primitives
from fhe_ops_std.quantized.extrema import below_maxima, log_sum_exp
from fhe_ops_std.quantized.stages import (
    LEAST_EXPONENT,
    extent,
    levels,
    powers,
    sample_axes,
    signed,
    size,
    tournament,
)


class Reduction(QuantizedOp):
    """A reduction along axes that are an attribute, or an input since opset 13 or 18."""

    shapes_outputs: ClassVar[bool] = True

    def can_fuse(self) -> bool:
        """Along no axis (``noop_with_empty_axes``) it is a function of each element."""
        given = len(self.input_names) > 1 and self.input_names[1] and self.constant(1) is None
        return (
            bool(self.attrs.get("noop_with_empty_axes")) and not given and not np.size(self._axes)
        )

    @property
    def _axes(self) -> Any:
        axes = self.attrs["axes"] if "axes" in self.attrs else self.constant(1)
        return () if axes is None else axes

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        if self.can_fuse():
            return super().q_impl(*q_inputs, **attrs)
        if len(q_inputs) > 1:
            raise CompilationError(
                "the axes of a reduction are encrypted",
                where=self.where,
                fix="make them constants of the model",
            )
        (x,) = q_inputs
        along = self.along(len(x.shape))
        real = self.reduced(x, along)
        if not attrs["keepdims"]:
            real = np.squeeze(real, axis=along)
        return self.quantized(real)

    def along(self, rank: int) -> tuple[int, ...]:
        """The axes, counted from the front."""
        given = [int(axis) for axis in np.ravel(self._axes)]
        return sample_axes(self, given or range(rank), rank)

    def reduced(self, x: QuantizedArray, axes: tuple[int, ...]) -> Any:
        """The real results, with the axes kept as 1."""
        raise NotImplementedError


class QuantizedReduceSum(Reduction):
    """The sum: no look-up of its own."""

    _impl_for_op_named = "ReduceSum"
    shapes_outputs = False

    def gives_whole_numbers(self, whole: Sequence[bool]) -> bool:
        return type(self).reduced is QuantizedReduceSum.reduced and whole[0]

    def reduced(self, x: QuantizedArray, axes: tuple[int, ...]) -> Any:
        # The zero points are subtracted after the sum, where the plan can centre the accumulator.
        total = x.qvalues.sum(axis=axes, keepdims=True)
        offset = np.broadcast_to(x.quantizer.zero_point, (1, *x.shape[1:])).sum(axes, keepdims=True)
        return (total.astype(np.float64) - offset) * x.quantizer.scale


class QuantizedReduceMean(QuantizedReduceSum):
    """The mean: a sum, divided in the next look-up."""

    _impl_for_op_named = "ReduceMean"

    def reduced(self, x: QuantizedArray, axes: tuple[int, ...]) -> Any:
        return super().reduced(x, axes) / size(x.shape, axes)


class QuantizedReduceLogSum(QuantizedReduceSum):
    """The logarithm of the sum, in the look-up after it."""

    _impl_for_op_named = "ReduceLogSum"
    shapes_outputs = True

    def reduced(self, x: QuantizedArray, axes: tuple[int, ...]) -> Any:
        return np.log(super().reduced(x, axes))


def _powers(x: QuantizedArray, axes: tuple[int, ...], p: int) -> Any:
    """The sums of |integer|^p: one look-up an element."""
    low, high = extent(x)
    parts, step = powers(signed(x), p, max(-low, high), size(x.shape, axes))
    return parts.sum(axis=axes, keepdims=True).astype(np.float64) * step


class QuantizedReduceL1(Reduction):
    """The sum of magnitudes: one look-up an element."""

    _impl_for_op_named = "ReduceL1"

    def reduced(self, x: QuantizedArray, axes: tuple[int, ...]) -> Any:
        return _powers(x, axes, 1) * x.quantizer.scale


class QuantizedReduceSumSquare(Reduction):
    """The sum of squares: one look-up an element."""

    _impl_for_op_named = "ReduceSumSquare"

    def reduced(self, x: QuantizedArray, axes: tuple[int, ...]) -> Any:
        return _powers(x, axes, 2) * x.quantizer.scale**2


class QuantizedReduceL2(QuantizedReduceSumSquare):
    """The root of the sum of squares, in the look-up after it: one look-up an element before."""

    _impl_for_op_named = "ReduceL2"

    def reduced(self, x: QuantizedArray, axes: tuple[int, ...]) -> Any:
        return np.sqrt(super().reduced(x, axes))


class QuantizedReduceMax(Reduction):
    """The largest element: a tournament of one look-up for each element but the first."""

    _impl_for_op_named = "ReduceMax"
    keeps_scale: ClassVar[bool] = True
    choose = staticmethod(primitives.maximum)

    def gives_whole_numbers(self, whole: Sequence[bool]) -> bool:
        return whole[0]

    def reach(self, x: NDArray[Any]) -> tuple[float, float]:
        return below_maxima(x, self.along(x.ndim)), np.inf

    def reduced(self, x: QuantizedArray, axes: tuple[int, ...]) -> Any:
        chosen = tournament(signed(x), axes, type(self).choose)
        return chosen.astype(np.float64) * x.quantizer.scale


class QuantizedReduceMin(QuantizedReduceMax):
    """The smallest element, by the same tournament."""

    _impl_for_op_named = "ReduceMin"
    choose = staticmethod(primitives.minimum)

    def reach(self, x: NDArray[Any]) -> tuple[float, float]:
        return -np.inf, -below_maxima(-x, self.along(x.ndim))


class QuantizedReduceProd(Reduction):
    """The product, of pairs and then of pairs of products: two look-ups a product, one to requantize it."""

    _impl_for_op_named = "ReduceProd"

    def reduced(self, x: QuantizedArray, axes: tuple[int, ...]) -> Any:
        rest = [axis for axis in range(len(x.shape)) if axis not in axes]
        kept = tuple(1 if axis in axes else n for axis, n in enumerate(x.shape))
        last = np.transpose(signed(x), (*rest, *axes))
        flat = last.reshape(*last.shape[: len(rest)], size(x.shape, axes))
        factors, alone = Factors(flat, x.quantizer.scale, *extent(x)), []
        while (count := factors.integers.shape[-1]) > 1:
            half = count // 2
            if count % 2:
                alone.append(factors.part(count - 1, count))
            pairs = factors.part(0, half), factors.part(half, 2 * half)
            factors = times(*(factor.narrowed(self.n_bits) for factor in pairs))
        for factor in alone:
            factors = times(factors.narrowed(self.n_bits), factor.narrowed(self.n_bits))
        return (factors.integers.astype(np.float64) * factors.scale).reshape(kept)


@dataclass(frozen=True)
class Factors:
    """Encrypted factors, and what they can be.

    Attributes:
        integers: the factors in units of ``scale``.
        low, high: the least and the largest integer.
    """

    integers: Any
    scale: float
    low: int
    high: int

    def part(self, start: int, stop: int) -> Factors:
        """Some of the factors along the last axis."""
        return replace(self, integers=self.integers[..., start:stop])

    def narrowed(self, n_bits: int) -> Factors:
        """The same with at most 2^n_bits steps over the range, by a look-up where there are more."""
        span = self.high - self.low
        if span < 2**n_bits:
            return self
        low, high = self.low * self.scale, self.high * self.scale
        step = (high - low) / (2**n_bits - 1)
        integers = levels(self.integers.astype(np.float64) * self.scale, step, low, high)
        return Factors(integers, step, math.floor(low / step), math.ceil(high / step))


def times(a: Factors, b: Factors) -> Factors:
    """The products, exactly."""
    ends = [first * second for first in (a.low, a.high) for second in (b.low, b.high)]
    integers = primitives.multiply(a.integers, b.integers)
    return Factors(integers, a.scale * b.scale, min(ends), max(ends))


class QuantizedReduceLogSumExp(Reduction):
    """log(sum(exp(x))): a maximum, one table of exp(x - maximum), one of the logarithm."""

    _impl_for_op_named = "ReduceLogSumExp"

    def reach(self, x: NDArray[Any]) -> tuple[float, float]:
        return below_maxima(x, self.along(x.ndim), LEAST_EXPONENT), np.inf

    def reduced(self, x: QuantizedArray, axes: tuple[int, ...]) -> Any:
        parts = log_sum_exp(signed(x), x.quantizer.scale, axes, self.n_bits)
        # The maximum on the finer grid of the logarithm: a sum of integers.
        return (parts.top * parts.fineness + parts.log).astype(np.float64) * parts.step


CLASSES: tuple[type[QuantizedOp], ...] = (
    QuantizedReduceSum,
    QuantizedReduceMean,
    QuantizedReduceLogSum,
    QuantizedReduceL1,
    QuantizedReduceSumSquare,
    QuantizedReduceL2,
    QuantizedReduceMax,
    QuantizedReduceMin,
    QuantizedReduceProd,
    QuantizedReduceLogSumExp,
)
