"""Einsum with one or two encrypted operands, as a matrix product for each subscript that they share.

All constants together are one operand. Integers are moved and summed up as the subscripts say, and then
multiplied: with constants for nothing, with each other by two look-ups a product.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core import CompilationError, QuantizedArray, QuantizedOp, WeightChannels
from fhe_ops_std.einsum import subscripts
from fhe_ops_std.quantized.fixed import integers_for
from fhe_ops_std.quantized.rearranging import moved

Array = NDArray[Any]


class QuantizedEinsum(QuantizedOp):
    """Sums of products, of which at most two factors are encrypted."""

    _impl_for_op_named = "Einsum"

    def can_fuse(self) -> bool:
        """Whether elements of one tensor keep their places, and are multiplied with constants or themselves."""
        labels, out = self._spelled()
        varying = {own for i, own in enumerate(labels) if i not in self.constant_inputs}
        letters = out.replace("...", "")
        keeps_places = varying == {out} and len(set(letters)) == len(letters)
        return keeps_places and len(self._int_input_names) == 1

    def weight_channels(self) -> WeightChannels | None:
        labels, out = self._spelled()
        if len(labels) != 2 or len(self.constant_inputs) != 1 or "..." in out:
            return None
        (index,) = self.constant_inputs
        own, other = labels[index], labels[1 - index]
        channels = [c for c in own if c in out and c not in other]
        if not channels:
            return None
        return WeightChannels(index, own.index(channels[-1]), out.index(channels[-1]))

    def _spelled(self) -> tuple[list[str], str]:
        """The subscripts as the equation has them, those of the output only where it has any."""
        given, _, out = self.attrs["equation"].replace(" ", "").partition("->")
        return given.split(","), out

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        if self.can_fuse():
            return super().q_impl(*q_inputs, **attrs)
        inputs = self._prepare_inputs_with_constants(
            *q_inputs, calibrate=False, quantize_actual_values=True
        )
        ranks = [len(array.shape) for array in inputs]
        *labels, out = subscripts(attrs["equation"], ranks)
        places = [i for i in range(len(inputs)) if i not in self.constant_inputs]
        self._check(labels, out, places)
        clear = [(inputs[i], labels[i]) for i in range(len(inputs)) if i not in places]
        first = inputs[places[0]], labels[places[0]]
        if len(places) == 2:
            second = inputs[places[1]], labels[places[1]]
            a, b = (_Operand(_centred(x), own) for x, own in (first, second))
            for array, own in clear:
                a = _product(a, _Operand(_centred(array), own), out + b.labels)
            scale = np.prod([array.quantizer.scale for array in inputs])
            return self.quantized(_finished(_product(a, b, out), out) * scale)
        x, own = first
        weights, divisor = _constant(clear, own + out)
        channels = self.weight_channels()
        if channels is not None:
            # A scale for each output channel, along its axis of the result.
            along = [-1 if i == channels.output_axis else 1 for i in range(len(out))]
            divisor = np.reshape(divisor, along)
        zero = np.broadcast_to(x.quantizer.zero_point, (1, *x.shape[1:]))
        result, offset = (
            _finished(_product(_Operand(values, own), weights, out), out)
            for values in (x.qvalues, zero)
        )
        return self.quantized((result - offset) * (x.quantizer.scale / divisor))

    def _check(self, labels: Sequence[str], out: str, places: Sequence[int]) -> None:
        if len(places) > 2:
            raise CompilationError(
                f"{len(places)} encrypted operands of one Einsum are not supported",
                where=self.where,
                expected="one or two encrypted operands",
                fix="write it as several Einsums",
            )
        batch = labels[places[0]][:1]
        others = [labels[i] for i in range(len(labels)) if i not in places]
        side_by_side = all(labels[i][:1] == batch and labels[i].count(batch) == 1 for i in places)
        if not batch or out[:1] != batch or not side_by_side or batch in "".join(others):
            raise CompilationError(
                f"the equation {self.attrs['equation']!r} does not keep the samples of a batch apart",
                where=self.where,
                expected="the first subscript of the encrypted operands first in the output, and in "
                "no constant",
                fix="keep the batch as the first axis of each encrypted operand and of the output",
            )


class _Operand:
    """Integers: (N, ...), or clear ones, with a letter for each axis."""

    def __init__(self, values: Any, labels: str) -> None:
        self.labels = "".join(dict.fromkeys(labels))
        self.values = values if self.labels == labels else _diagonal(values, labels, self.labels)

    def summed(self, kept: str) -> _Operand:
        """Without the letters that nothing needs any more."""
        gone = tuple(i for i, letter in enumerate(self.labels) if letter not in kept)
        if not gone:
            return self
        left = "".join(letter for letter in self.labels if letter in kept)
        return _Operand(self.values.sum(axis=gone), left)

    def ordered(self, *groups: str) -> Any:
        """The values with the axes of the first group, then each further group as one axis."""
        order = [self.labels.index(letter) for letter in "".join(groups)]
        sizes = self.sizes()
        shape = [sizes[letter] for letter in groups[0]]
        shape += [prod(sizes[letter] for letter in group) for group in groups[1:]]
        return np.reshape(np.transpose(self.values, order), shape)

    def sizes(self) -> dict[str, int]:
        return dict(zip(self.labels, self.values.shape, strict=True))


def _diagonal(values: Any, labels: str, once: str) -> Any:
    """The elements where subscripts that occur several times agree. The first is the batch."""
    places = np.arange(prod(values.shape[1:])).reshape(values.shape[1:])
    return moved(values, np.einsum(f"{labels[1:]}->{once[1:]}", places))


def _constant(operands: Sequence[tuple[QuantizedArray, str]], used: str) -> tuple[_Operand, Any]:
    """The product of all constants, summed over what only they have: integers, and a divisor.

    One constant has the integers that the plan gives it. Those of several would multiply to many bits, so
    it is their product that becomes integers.
    """
    kept = "".join(dict.fromkeys(c for _, labels in operands for c in labels if c in used))
    if not operands:
        return _Operand(np.asarray(1), ""), 1.0
    equation = f"{','.join(labels for _, labels in operands)}->{kept}"
    if len(operands) == 1:
        ((array, _),) = operands
        return _Operand(np.einsum(equation, _centred(array)), kept), 1 / array.quantizer.scale
    product = np.einsum(equation, *(array.values for array, _ in operands), dtype=np.float64)
    ((integers, divisor),) = integers_for([product])
    return _Operand(integers, kept), divisor


def _product(a: _Operand, b: _Operand, out: str) -> _Operand:
    """The product of an encrypted operand, whose first letter is the batch, and another, over ``out``."""
    a, b = a.summed(out + b.labels), b.summed(out + a.labels)
    if not b.labels:
        return _Operand(a.values * b.values, a.labels)
    batch = a.labels[0]
    both = [c for c in a.labels[1:] if c in b.labels]
    shared = "".join(c for c in both if c in out)
    inner = "".join(c for c in both if c not in out)
    rows = "".join(c for c in a.labels[1:] if c not in b.labels)
    columns = "".join(c for c in b.labels if c not in a.labels)
    left = a.ordered(batch + shared, rows, inner)
    right = b.ordered((batch if batch in b.labels else "") + shared, inner, columns)
    sizes = {**b.sizes(), **a.sizes()}
    labels = batch + shared + rows + columns
    return _Operand(np.reshape(left @ right, [sizes[c] for c in labels]), labels)


def _finished(operand: _Operand, out: str) -> Any:
    """The values as real numbers, in the order of the output."""
    summed = operand.summed(out)
    order = [summed.labels.index(letter) for letter in out]
    return np.transpose(summed.values, order).astype(np.float64)


def _centred(array: QuantizedArray) -> Any:
    return array.qvalues - array.quantizer.zero_point


CLASSES: tuple[type[QuantizedOp], ...] = (QuantizedEinsum,)
