"""Truth values of encrypted tensors, and choices by them.

Truth is 0 or 1, whatever scale the plan has for it. Functions of two truth values are one look-up of their
sum, on two bits. A choice between two tensors at one scale is one look-up for each of them that is encrypted,
on one bit more than it has, and none where the condition is clear.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from fhe_core import QuantizedArray, QuantizedOp, Tensor, primitives
from fhe_ops_std.quantized.arithmetic import (
    Conditional,
    Ends,
    at_scale,
    constant_levels,
    joint_scale,
    named,
)


def truth(x: QuantizedArray) -> Any:
    """0 or 1 for each element."""
    return (x.values > 0.5).astype(np.int64)


class OfTwoTruths(Conditional):
    """A look-up of the sum of two truth values: 0, 1 or 2."""

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        if self.can_fuse() or len(q_inputs) == 1:
            return super().q_impl(*q_inputs, **attrs)
        a, b = q_inputs
        count = (truth(a) + truth(b)).astype(np.float64)
        # The larger of the two and the smaller one: none of these operators minds the order.
        return self.quantized(self.call_impl(count > 0.5, count > 1.5))


class QuantizedWhere(Conditional):
    """X where the condition holds, else Y."""

    _impl_for_op_named = "Where"
    shares_scale: ClassVar[bool] = True

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        if self.can_fuse() or len(q_inputs) == 1:
            return super().q_impl(*q_inputs, **attrs)
        encrypted = iter(q_inputs)
        condition, *choices = (
            self.constant_inputs[index] if index in self.constant_inputs else next(encrypted)
            for index in range(3)
        )
        scale = joint_scale(self, [x for x in choices if isinstance(x, QuantizedArray)])
        first, second = (self._levels(x, scale) for x in choices)
        if isinstance(condition, QuantizedArray):
            holds = truth(condition)
            chosen = _kept(first, holds) + _kept(second, 1 - holds)
        else:
            holds = condition.astype(np.int64)
            chosen = first * holds + second * (1 - holds)
        return self.quantized(chosen.astype(np.float64) * scale)

    def _levels(self, x: Any, scale: float) -> Any:
        """A choice, encrypted or clear, in steps of ``scale``."""
        if not isinstance(x, QuantizedArray):
            return constant_levels(self, x, scale)
        integers, zero = at_scale(x, scale)
        return integers - zero

    def gives_whole_numbers(self, whole: Sequence[bool]) -> bool:
        return all(whole[1:])

    def input_ends(self, index: int, result: Ends, ranges: Sequence[Ends]) -> Ends:
        return result if index else (-np.inf, np.inf)


def _kept(x: Any, holds: Any) -> Any:
    """x where ``holds`` is 1, else 0.

    With y = x - low, which goes from 0 to span, y * holds is max(y + span * (holds - 1), 0): a look-up of a
    function without a jump, so that a rounding before it costs no more than what it joins.
    """
    if not isinstance(x, Tensor):
        return holds * x
    low, high = x.bounds or (0, 0)
    return primitives.relu((x - low) + (holds - 1) * (high - low)) + holds * low


CLASSES: tuple[type[QuantizedOp], ...] = (
    QuantizedWhere,
    *(named(name, OfTwoTruths) for name in ("And", "Or", "Xor")),
)
