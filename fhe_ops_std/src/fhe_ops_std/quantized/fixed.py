"""Linear functions that the op itself fixes: running sums, transforms, interpolation.

Their matrices are read off the NumPy implementation, which runs once on unit vectors, and become integers:
exactly where a common denominator is small, else to the bits that a rounded accumulator has for free.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fhe_core import QuantizedArray, QuantizedOp
from fhe_ops_std.quantized.probing import parted
from fhe_ops_std.quantized.stages import sample_axes

Array = NDArray[Any]

#: Of the integers that stand for weights, where there is one matrix: 4 to 8 bits cost the same.
_WEIGHT_BITS = 8
#: Of all matrices together where there are several. With activations of 4 bits, accumulators then stay within
#: the 18 bits that have been seen to work if they are rounded.
_SHARED_BITS = 12
#: What computing weights in double precision may leave of a whole number.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Step:
    """A matrix along some axes.

    Attributes:
        axes: of the tensor; none is the first.
        matrix: (elements along the axes, elements of the result), float64.
        lengths: of the axes in the result. As many as ``axes``: in their places; else behind all others.
        offset: added to the result, of shape ``lengths``.
    """

    axes: tuple[int, ...]
    matrix: Array
    lengths: tuple[int, ...]
    offset: Array | float = 0.0

    @classmethod
    def of(
        cls, function: Callable[[Array], Array], shape: Sequence[int], axes: Sequence[int]
    ) -> Step:
        """The step of a function from rows: (n, *lengths of the axes) to rows of results.

        Args:
            shape: of the tensor.
        """
        lengths = [shape[axis] for axis in axes]
        size = math.prod(lengths)
        rows = np.concatenate([np.zeros((1, size)), np.eye(size)]).reshape(-1, *lengths)
        offset, *columns = np.asarray(function(rows), dtype=np.float64)
        matrix = (np.asarray(columns) - offset).reshape(size, -1)
        return cls(tuple(axes), matrix, offset.shape, offset if offset.any() else 0.0)

    def applied(self, x: Any, weights: Array) -> Any:
        """x, with ``weights`` in place of the matrix."""
        others = [i for i in range(x.ndim) if i not in self.axes]
        order = [*others, *self.axes]
        kept = [x.shape[i] for i in others]
        rows = np.reshape(np.transpose(x, order), (*kept, len(weights)))
        y = np.reshape(rows @ weights, (*kept, *self.lengths))
        if len(self.lengths) != len(self.axes):
            return y
        return np.transpose(y, [order.index(i) for i in range(len(order))])


class FixedMap(QuantizedOp):
    """A linear function of the encrypted input, given by the op's constants."""

    encryptable: ClassVar[tuple[int, ...]] = (0,)

    @abstractmethod
    def steps(self, shape: tuple[int, ...], clear: Sequence[Any]) -> Iterable[Step]:
        """The matrices that make up the op, one after the other.

        Args:
            shape: of the encrypted input.
            clear: the inputs after it, None where one is left out.
        """

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        x, *clear = parted(self, q_inputs)
        return self.quantized(through(x, tuple(self.steps(x.shape, clear))))


def through(x: QuantizedArray, steps: Sequence[Step]) -> Any:
    """The real values of x after all steps, as an accumulator rescaled."""
    integers = x.qvalues
    zero = np.broadcast_to(x.quantizer.zero_point, (1, *x.shape[1:]))
    scale = x.quantizer.scale
    offset: Array | float = 0.0
    for step, (weights, denominator) in zip(
        steps, integers_for([s.matrix for s in steps]), strict=True
    ):
        integers, zero = step.applied(integers, weights), step.applied(zero, weights)
        scale, offset = scale / denominator, step.offset
    return (integers.astype(np.float64) - zero) * scale + offset


def integers_for(matrices: Sequence[Array]) -> list[tuple[NDArray[np.int64], float]]:
    """For each of the matrices that follow each other integers, and what to divide them by."""
    budget = float(2**_WEIGHT_BITS)
    found = []
    for matrix in matrices:
        exact = _denominator(matrix, budget)
        if exact is None:
            bits = _WEIGHT_BITS if len(matrices) == 1 else _SHARED_BITS / len(matrices)
            return [_rounded(matrix, bits) for matrix in matrices]
        found.append((np.rint(matrix * exact).astype(np.int64), float(exact)))
        budget /= exact
    return found


def _denominator(matrix: Array, budget: float) -> int | None:
    """The least number up to ``budget`` that makes the matrix whole."""
    for number in range(1, int(budget) + 1):
        multiple = matrix * number
        if np.abs(multiple - np.rint(multiple)).max(initial=0) < _ROUNDING * number:
            return number
    return None


def _rounded(matrix: Array, bits: float) -> tuple[NDArray[np.int64], float]:
    largest = np.abs(matrix).max(initial=0) or 1.0
    factor = (2 ** (bits - 1) - 1) / largest
    return np.rint(matrix * factor).astype(np.int64), factor


class QuantizedCumSum(FixedMap):
    """Running sums along a constant axis."""

    _impl_for_op_named = "CumSum"

    def steps(self, shape: tuple[int, ...], clear: Sequence[Any]) -> Iterable[Step]:
        axes, along = sample_axes(self, np.reshape(clear[0], -1).tolist(), len(shape)), np.array(1)
        yield Step.of(lambda rows: self._function(rows, along, **self.attrs), shape, axes)


class QuantizedDFT(FixedMap):
    """The discrete Fourier transform along a constant axis, of a constant length."""

    _impl_for_op_named = "DFT"

    def steps(self, shape: tuple[int, ...], clear: Sequence[Any]) -> Iterable[Step]:
        attrs, inputs = dict(self.attrs), [*clear, None, None][:2]
        if "axis" in attrs:  # until opset 20
            axis, attrs["axis"], inputs = attrs["axis"], 1, inputs[:1]
        else:
            axis, inputs[1] = -2 if inputs[1] is None else int(inputs[1].item()), np.array(1)
        axes = sample_axes(self, [axis, -1], len(shape))
        yield Step.of(lambda rows: self._function(rows, *inputs, **attrs), shape, axes)


class QuantizedSTFT(FixedMap):
    """Fourier transforms of the frames of a signal."""

    _impl_for_op_named = "STFT"

    def steps(self, shape: tuple[int, ...], clear: Sequence[Any]) -> Iterable[Step]:
        axes = range(1, len(shape))
        yield Step.of(lambda rows: self._function(rows, *clear, **self.attrs), shape, axes)


CLASSES: tuple[type[QuantizedOp], ...] = (QuantizedCumSum, QuantizedDFT, QuantizedSTFT)
