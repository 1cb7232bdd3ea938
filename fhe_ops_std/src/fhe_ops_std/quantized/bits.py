"""Bits of encrypted integers.

With a constant an op is a table look-up. Two encrypted integers are cut into digits of two bits, and each
pair of digits, packed into four bits, is looked up: a look-up of all the bits of both at once would cost
seven times as much already for four bits each. Or and Xor follow from And by additions.

The integers have to be those of the model: with as many bits as they need, the plan gives them scale 1.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from fhe_core import PlanError, QuantizedArray, QuantizedOp, Tensor, primitives

#: Bits of a digit. Both digits of a pair are to pass the rounding before a look-up, which keeps one bit more
#: than tensors have.
_DIGIT_BITS = 2


class BitwiseOp(QuantizedOp):
    """An op on the bits of integers, which real values hold here as floats."""

    def can_fuse(self) -> bool:
        return len(self._int_input_names) == 1

    def reads_exactly(self, index: int) -> bool:
        return self.can_fuse()

    def call_impl(self, *inputs: Any, **attrs: Any) -> Any:
        function = partial(on_integers, self._function, self._types(inputs))
        if any(isinstance(x, Tensor) for x in inputs):
            return primitives.call(function, *inputs, **attrs)
        return function(*inputs, **attrs)

    def _types(self, inputs: tuple[Any, ...]) -> list[Any]:
        """The integer type of each input: its own, else that of the float model, else another's."""
        seen = [
            self.input_types[i] if i < len(self.input_types) else None for i in range(len(inputs))
        ]
        own = [x.dtype if x.dtype.kind in "iu" else t for x, t in zip(inputs, seen, strict=True)]
        known = next((dtype for dtype in own if dtype is not None), np.dtype(np.int64))
        return [known if dtype is None else dtype for dtype in own]


def on_integers(function: Any, types: list[Any], *inputs: Any, **attrs: Any) -> Any:
    """``function`` of whole numbers in the types that it is meant for."""
    return function(
        *(np.rint(x).astype(dtype) for x, dtype in zip(inputs, types, strict=True)), **attrs
    )


class QuantizedBitwiseNot(BitwiseOp):
    """Every bit turned."""

    _impl_for_op_named = "BitwiseNot"


class QuantizedBitShift(BitwiseOp):
    """The bits moved by a constant, or a constant's bits moved."""

    _impl_for_op_named = "BitShift"


class QuantizedBitwiseAnd(BitwiseOp):
    """The bits that are set in both integers."""

    _impl_for_op_named = "BitwiseAnd"

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        if self.can_fuse() or len(q_inputs) == 1:
            return super().q_impl(*q_inputs, **attrs)
        a, b = (self._whole(x) for x in q_inputs)
        return self.quantized(self.joined(a, b, self._both(a, b)).astype(np.float64))

    def joined(self, a: Any, b: Any, both: Any) -> Any:
        """The result for encrypted integers, of which ``both`` is the And."""
        return both

    def _both(self, a: Any, b: Any) -> Any:
        return bits_of_both(a, b, min(_DIGIT_BITS, (self.n_bits + 1) // 2))

    def _whole(self, x: QuantizedArray) -> Any:
        """The integers of x as the model has them.

        Raises:
            PlanError: the plan gave them fewer bits than they have.
        """
        if x.quantizer.scale != 1:
            raise PlanError(
                "an operator on bits needs all bits of its inputs",
                where=self.where,
                expected="integers with scale 1",
                got=f"scale {x.quantizer.scale:g}",
                fix="raise n_bits of its inputs to as many bits as the integers have",
            )
        return x.qvalues - x.quantizer.zero_point


class QuantizedBitwiseOr(QuantizedBitwiseAnd):
    """The bits that are set in one integer or both: a + b - (a and b)."""

    _impl_for_op_named = "BitwiseOr"

    def joined(self, a: Any, b: Any, both: Any) -> Any:
        return a + b - both


class QuantizedBitwiseXor(QuantizedBitwiseAnd):
    """The bits that are set in exactly one of the integers: a + b - 2 (a and b)."""

    _impl_for_op_named = "BitwiseXor"

    def joined(self, a: Any, b: Any, both: Any) -> Any:
        return a + b - 2 * both


def bits_of_both(a: Any, b: Any, digit: int) -> Any:
    """a and b, bit by bit, of encrypted integers.

    Args:
        digit: bits that are looked up of each at once.
    """
    signed = min(a.bounds[0], b.bounds[0]) < 0
    width = max(
        int(bound if bound >= 0 else ~bound).bit_length() for x in (a, b) for bound in x.bounds
    )
    count = max(-(-(width + signed) // digit), 1)
    result: Any = 0
    for place in range(count):
        # The last digit is as long as the integers are, and has their sign.
        least = -(2 ** (digit - 1)) if signed and place == count - 1 else 0
        first, second = (_digit(x, place * digit, digit, least, count) for x in (a, b))
        both = primitives.lookup(
            first * 2**digit + second,
            partial(_packed_and, digit=digit, least=least),
            low=least,
            high=least + 2**digit - 1,
        )
        result = both * 2 ** (place * digit) + result
    return result


def _digit(x: Any, shift: int, digit: int, least: int, count: int) -> Any:
    if count == 1:
        return x
    cut = partial(_cut, shift=shift, least=least, size=2**digit)
    return primitives.lookup(x, cut, low=least, high=least + 2**digit - 1)


def _cut(x: Any, *, shift: int, least: int, size: int) -> Any:
    """The digit of x from a bit on, least at the least."""
    return ((x >> shift) - least) % size + least


def _packed_and(x: Any, *, digit: int, least: int) -> Any:
    """The bits of both digits that are packed in x."""
    second = _cut(x, shift=0, least=least, size=2**digit)
    return ((x - second) >> digit) & second


CLASSES: tuple[type[QuantizedOp], ...] = (
    QuantizedBitwiseAnd,
    QuantizedBitwiseOr,
    QuantizedBitwiseXor,
    QuantizedBitwiseNot,
    QuantizedBitShift,
)
