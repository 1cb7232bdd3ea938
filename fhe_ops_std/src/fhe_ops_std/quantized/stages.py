"""Stages of composed operators: maxima along axes, values on a finer grid, quotients of two encrypted values.

Each takes and returns integer tensors. Their ranges follow from those of the integers and from the op, so
nothing that an input can be is clipped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fhe_core import CompilationError, QuantizedArray, QuantizedOp, Tensor

#: A look-up's result costs the same up to this width, and half as much again beyond.
FREE_BITS = 8
#: Sums are kept below this width: an accumulator has 20 bits at the most, of which headroom takes some.
SUM_BITS = 18
#: exp(-9) is half a step of twelve bits: by so much below the largest an element is none.
LEAST_EXPONENT = -9.0


def signed(x: QuantizedArray) -> Any:
    """The integers of ``x`` with zero for zero, so that real = scale * integer."""
    return x.qvalues - x.quantizer.zero_point


def extent(x: QuantizedArray) -> tuple[int, int]:
    """The least and the largest that ``signed(x)`` can be, zero among them."""
    integers = signed(x)
    if isinstance(integers, Tensor):
        # Of integers that are joined at one scale there are fewer than the quantizer allows for.
        low, high = integers.bounds or (0, 0)
    else:
        params = x.quantizer.params
        low = (np.asarray(params.low) - params.zero_point).min()
        high = (np.asarray(params.high) - params.zero_point).max()
    return min(int(low), 0), max(int(high), 0)


def sample_axes(op: QuantizedOp, axes: Sequence[int], rank: int) -> tuple[int, ...]:
    """``axes`` counted from the front.

    Raises:
        CompilationError: the batch is one of them.
    """
    counted = tuple(sorted({int(axis) % rank for axis in axes}))
    if 0 in counted:
        raise CompilationError(
            "the op works along the batch",
            where=op.where,
            expected="axes among the dimensions of one sample",
            got=f"axes {counted}",
            fix="leave the first axis out: samples of a batch stay independent",
        )
    return counted


def size(shape: Sequence[int], axes: Sequence[int]) -> int:
    """How many elements ``axes`` of ``shape`` span."""
    return math.prod(shape[axis] for axis in axes)


def tournament(x: Any, axes: Sequence[int], choose: Callable[[Any, Any], Any]) -> Any:
    """``choose`` over all elements along ``axes``, which stay as 1: one look-up for each but the first.

    The halves of an axis meet, then those of the winners.
    """
    for axis in axes:
        while (count := x.shape[axis]) > 1:
            half = count // 2
            first, second = (_part(x, axis, start, start + half) for start in (0, half))
            winners = choose(first, second)
            odd = [_part(x, axis, 2 * half, count)] if count % 2 else []
            x = np.concatenate([winners, *odd], axis=axis) if odd else winners
    return x


def _part(x: Any, axis: int, start: int, stop: int) -> Any:
    return x[(*(slice(None),) * axis, slice(start, stop))]


def levels(real: Any, step: float, low: float, high: float) -> Any:
    """``real``, a function of one integer tensor with values from ``low`` to ``high``, in whole steps."""
    limits = math.floor(low / step), math.ceil(high / step)
    return np.clip(np.rint(real / step), *limits).astype(np.int64)


def powers(x: Any, p: int, most: int, count: int) -> tuple[Any, int]:
    """|x|^p of integers, one look-up each: exact, or in steps as coarse as a sum of ``count`` needs.

    Args:
        most: the largest magnitude.

    Returns:
        Integers, and how much one of them stands for.
    """
    step = math.ceil(most**p * count / 2**SUM_BITS)
    magnitudes = np.square(x) if p == 2 else np.abs(x)
    if step > 1 or p > 2:
        exponent = 1 if p == 2 else p
        return levels(magnitudes.astype(np.float64) ** exponent, max(step, 1), 0.0, most**p), max(
            step, 1
        )
    return magnitudes.astype(np.int64), 1


def log_step(n_bits: int) -> float:
    """The step of a logarithm. Half of it is a relative error of half a step of ``n_bits``."""
    return 2.0**-n_bits


def quotient(
    numerator: Any,
    unit: float,
    log_denominator: Any,
    *,
    extent: tuple[float, float],
    log_extent: tuple[float, float],
    least: float,
    most: float,
    n_bits: int,
    step: float,
) -> Any:
    """numerator / denominator in units of ``step``, both encrypted; the denominator is positive.

    With p = max(a, 0) + c and m = max(-a, 0) + c, a / d = exp(log p - log d) - exp(log m - log d) for any
    c > 0. So it is four look-ups an element, or two where all numerators have one sign. Each is continuous,
    whatever is rounded before it, and accurate over all magnitudes of d; a product with a table of 1 / d
    would need steps as fine as for the largest d over a range as wide as for the least.
    Zero gives zero: both terms are one.

    Args:
        numerator: integers, of which one stands for ``unit``.
        log_denominator: float function of one integer tensor; its last dimensions broadcast.
        extent: the least and the largest numerator (real).
        log_extent: the least and the largest logarithm.
        least: c, about half of the smallest numerator to tell from zero.
        most: bound of (|numerator| + c) / denominator where the numerator is not zero.
        n_bits: the op's width, which gives the steps of the logarithms.
    """
    fine = log_step(n_bits)
    divisor = levels(log_denominator, fine, *log_extent)
    terms = []
    for sign in (1, -1):
        reach = max(sign * extent[0], sign * extent[1])
        if reach > 0:
            part = np.maximum(numerator.astype(np.float64) * (sign * unit), 0.0) + least
            log = levels(np.log(part), fine, math.log(least), math.log(reach + least))
        else:
            # No numerator has this sign: the term is one for all that share a denominator.
            log = round(math.log(least) / fine)
        difference = (log - divisor).astype(np.float64) * fine
        terms.append(levels(np.exp(difference), step, 0.0, most))
    return terms[0] - terms[1]
