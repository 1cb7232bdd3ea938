"""Normalizations by statistics of the sample itself: an encrypted value over an encrypted deviation.

The mean is subtracted on integers, the deviation is a sum of squares, and the quotient is taken through
logarithms. Five look-ups an element: its square and the four of the quotient. What scales and shifts the
result joins the look-up after it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fhe_core import CompilationError, QuantizedArray, QuantizedOp
from fhe_ops_std.quantized.stages import (
    FREE_BITS,
    SUM_BITS,
    extent,
    levels,
    log_step,
    quotient,
    sample_axes,
    signed,
    size,
)

#: A mean is taken this many times finer than the input, where it is rounded at all.
_FINER = 16
#: The widest results of look-ups that were seen to cost no more than those of ten bits.
_MOST_BITS = 16


@dataclass(frozen=True)
class Standardized:
    """What a normalization computes.

    Attributes:
        integers: (x - mean) / deviation, in units of ``step``.
        variance: the mean square that it was divided by, real, a function of one integer tensor.
    """

    integers: Any
    step: float
    variance: Any

    @property
    def real(self) -> Any:
        return self.integers.astype(np.float64) * self.step


def standardized(
    x: Any,
    scale: float,
    ends: tuple[int, int],
    axes: tuple[int, ...],
    *,
    n_bits: int,
    centred: bool = True,
    inside: float = 0.0,
    outside: float = 0.0,
) -> Standardized:
    """(x - mean) / (sqrt(variance + inside) + outside) along ``axes``; without ``centred`` x over its rms.

    Args:
        x: integers, of which one stands for ``scale``.
        ends: the least and the largest of them, zero among them.
        inside, outside: what keeps the deviation from zero.
    """
    count = size(x.shape, axes)
    low, high = ends
    unit, reach = scale, float(max(-low, high))
    if centred:
        x, unit = _centred(x, scale, axes, count)
        # Of `count` values between two ends, the mean is at least a count-th of the way from either.
        reach = (high - low) * (1 - 1 / count) + 1 / _FINER
    most_square = (reach * scale) ** 2
    # Twice the bits of x make a step of a square about the square of a step of x.
    square_bits = min(max(FREE_BITS, 2 * n_bits), _MOST_BITS, SUM_BITS - (count - 1).bit_length())
    square_step = most_square / (2 ** max(square_bits, 1) - 1)
    squares = levels(np.square(x.astype(np.float64) * unit), square_step, 0.0, most_square)
    total = squares.sum(axis=axes, keepdims=True).astype(np.float64)
    # No sum is negative. Where a rounding joins some to zero, the table takes the mean over all that it joins,
    # and the mirrored ones keep that at the size of the others.
    variance = np.abs(total) * (square_step / count)
    # A sum that is not zero is one step or more. Where it is zero, x is its mean to within a step: half a step
    # keeps the logarithm in the range of the others, and what equals its mean gives zero all the same.
    floor = square_step / (2 * count)
    deviation = np.sqrt(np.maximum(variance, floor) + inside) + outside
    integers = quotient(
        x,
        unit,
        np.log(deviation),
        extent=(
            -reach * scale if centred or low < 0 else 0.0,
            reach * scale if centred or high else 0.0,
        ),
        log_extent=(
            math.log(math.sqrt(floor + inside) + outside),
            math.log(math.sqrt(most_square + inside) + outside),
        ),
        least=scale / 2,
        # No element is more than sqrt(count - 1) deviations from the mean, or sqrt(count) times the rms; and
        # the deviation is at least scale / sqrt(count), of which half a scale is sqrt(count) / 2.
        most=1.5 * math.sqrt(max(count, 2)),
        n_bits=n_bits,
        step=log_step(n_bits),
    )
    return Standardized(integers, log_step(n_bits), variance)


def _centred(x: Any, scale: float, axes: tuple[int, ...], count: int) -> tuple[Any, float]:
    """x - mean as integers, and what one of them stands for."""
    total = x.sum(axis=axes, keepdims=True)
    if count <= _FINER:
        # Exact and without a look-up: count times as many steps.
        return x * count - total, scale / count
    low, high = total.bounds
    mean = levels(total.astype(np.float64) / count, 1 / _FINER, low / count, high / count)
    return x * _FINER - mean, scale / _FINER


class Normalization(QuantizedOp):
    """A normalization with constant scale and offset."""

    def clear(self, *indices: int) -> list[Any]:
        """The constant inputs at ``indices`` (float64), None for those that are left out.

        Raises:
            CompilationError: one is encrypted.
        """
        names = self.input_names
        found = [self.constant(index) for index in indices]
        for index, value in zip(indices, found, strict=True):
            if value is None and index < len(names) and names[index]:
                raise CompilationError(
                    "a normalization's scale or offset is encrypted",
                    where=self.where,
                    expected="constants of the model",
                    got=f"input {names[index]!r}",
                    fix="make them constants, or multiply and add in nodes of their own",
                )
        return [value if value is None else np.asarray(value, np.float64) for value in found]

    def over(
        self, x: QuantizedArray, axes: Sequence[int], **how: Any
    ) -> tuple[Standardized, tuple[int, ...]]:
        """x standardized along ``axes``, and these from the front."""
        along = sample_axes(self, axes, len(x.shape))
        made = standardized(
            signed(x), x.quantizer.scale, extent(x), along, n_bits=self.n_bits, **how
        )
        return made, along


class QuantizedLayerNormalization(Normalization):
    """Standardized over the axes from ``axis`` on, then scaled and shifted; the mean and 1 / deviation."""

    _impl_for_op_named = "LayerNormalization"

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        scale, offset = self.clear(1, 2)
        x, rank = q_inputs[0], len(q_inputs[0].shape)
        made, axes = self.over(x, range(attrs["axis"] % rank, rank), inside=attrs["epsilon"])
        result = made.real * scale
        result = result if offset is None else result + offset
        total = signed(x).sum(axis=axes, keepdims=True).astype(np.float64)
        mean = total * (x.quantizer.scale / size(x.shape, axes))
        inverse = 1.0 / np.sqrt(made.variance + attrs["epsilon"])
        return self.quantized((result, mean, inverse)[: max(len(self.output_names), 1)])


class QuantizedRMSNormalization(Normalization):
    """x over its root mean square over the axes from ``axis`` on, then scaled."""

    _impl_for_op_named = "RMSNormalization"

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        (scale,) = self.clear(1)
        x, rank = q_inputs[0], len(q_inputs[0].shape)
        along = range(attrs["axis"] % rank, rank)
        made, _ = self.over(x, along, inside=attrs["epsilon"], centred=False)
        return self.quantized(made.real * scale)


class QuantizedInstanceNormalization(Normalization):
    """Standardized over each channel's spatial axes, then scaled and shifted."""

    _impl_for_op_named = "InstanceNormalization"

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        x, rank = q_inputs[0], len(q_inputs[0].shape)
        scale, offset = (_channels(part, rank) for part in self.clear(1, 2))
        made, _ = self.over(x, range(2, rank), inside=attrs["epsilon"])
        return self.quantized(made.real * scale + offset)


class QuantizedGroupNormalization(Normalization):
    """Standardized over groups of channels, then scaled and shifted."""

    _impl_for_op_named = "GroupNormalization"

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        x, rank = q_inputs[0], len(q_inputs[0].shape)
        scale, offset = (_channels(part, rank) for part in self.clear(1, 2))
        groups = signed(x).reshape(x.shape[0], attrs["num_groups"], -1)
        made = standardized(
            groups,
            x.quantizer.scale,
            extent(x),
            (2,),
            n_bits=self.n_bits,
            inside=attrs["epsilon"],
        )
        real = made.integers.reshape(x.shape).astype(np.float64) * made.step
        return self.quantized(real * scale + offset)


class QuantizedMeanVarianceNormalization(Normalization):
    """Standardized over ``axes``, among which the batch must not be."""

    _impl_for_op_named = "MeanVarianceNormalization"

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        made, _ = self.over(q_inputs[0], attrs["axes"], outside=1e-9)
        return self.quantized(made.real)


def _channels(values: Any, rank: int) -> Any:
    return values.reshape(-1, *(1,) * (rank - 2))


CLASSES: tuple[type[QuantizedOp], ...] = (
    QuantizedLayerNormalization,
    QuantizedRMSNormalization,
    QuantizedInstanceNormalization,
    QuantizedGroupNormalization,
    QuantizedMeanVarianceNormalization,
)
