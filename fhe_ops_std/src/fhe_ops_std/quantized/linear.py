"""Matrix products and convolutions: integers times clear integer weights, rescaled afterwards.

With inputs x = s (q - z) and weights w = t v for each output channel, sum(x w) = s t (sum(q v) - sum(z v)):
the accumulator sum(q v) is all that is computed under encryption, and the rest becomes part of the next
look-up. Zero points may therefore differ from channel to channel of the input, and scales from channel to
channel of the output, at no cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from fhe_core import (
    CompilationError,
    QuantizedArray,
    QuantizedOp,
    Tensor,
    WeightChannels,
    primitives,
)
from fhe_ops_std._kernels import require_fit
from fhe_ops_std._windows import windows

#: More than a tensor has, where it is brought to another scale: rounding it again is hardly seen.
_SPARE_BITS = 4


class QuantizedMatMul(QuantizedOp):
    """A @ B, of an encrypted and a clear matrix or of two encrypted ones."""

    _impl_for_op_named = "MatMul"

    def weight_channels(self) -> WeightChannels | None:
        weights = self.constant(1)
        if weights is None or weights.ndim != 2:
            return None
        return WeightChannels(index=1, weight_axis=1, output_axis=-1)

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        a, b = self._prepare_inputs_with_constants(
            *q_inputs, calibrate=False, quantize_actual_values=True
        )
        return self.quantized(product(a, b, 0 in self.constant_inputs))


def product(a: QuantizedArray, b: QuantizedArray, left: bool = False) -> Any:
    """The real values of a @ b, as an accumulator rescaled. ``left``: ``a`` is the clear one.

    Raises:
        CompilationError: samples of a batch would be added up, or multiplied with each other.
    """
    _keep_samples_apart(a, b)
    zero_a, zero_b = a.quantizer.zero_point, b.quantizer.zero_point
    scale = a.quantizer.scale * b.quantizer.scale
    if left:
        weights = a.qvalues - zero_a
        accumulator, offset = weights @ b.qvalues, weights @ _zeros(b, min(2, len(b.shape)))
    elif isinstance(b.qvalues, np.ndarray):
        weights = b.qvalues - zero_b
        accumulator, offset = a.qvalues @ weights, _zeros(a, 1) @ weights
    else:
        accumulator, offset = (a.qvalues - zero_a) @ (b.qvalues - zero_b), 0
    return (accumulator.astype(np.float64) - offset) * scale


def _keep_samples_apart(a: QuantizedArray, b: QuantizedArray) -> None:
    both = isinstance(a.qvalues, Tensor) and isinstance(b.qvalues, Tensor)
    if both and min(len(a.shape), len(b.shape)) < 3:
        problem = "two encrypted matrices are multiplied, and so the samples with each other"
    elif primitives.BATCH in (a.shape[-1], b.shape[-2:][0]):
        problem = "the product sums over the samples of a batch"
    else:
        return
    raise CompilationError(
        problem,
        expected="the batch as the first of three dimensions or more, or as the rows of an encrypted A",
        got=f"{a.shape} @ {b.shape}",
        fix="add the dimension (Unsqueeze), or export the model with samples as rows of the first matrix",
    )


def _zeros(array: QuantizedArray, place: int) -> Any:
    """What stands for zero, all along the axis that a product sums over, the ``place``-th from the end."""
    zero_point = array.quantizer.zero_point
    along = [1] * len(array.shape)
    along[-place] = array.shape[-place]
    return np.broadcast_to(zero_point, np.broadcast_shapes(np.shape(zero_point), tuple(along)))


class QuantizedGemm(QuantizedOp):
    """alpha A' @ B' + beta C, A' encrypted with samples as its rows."""

    _impl_for_op_named = "Gemm"

    def weight_channels(self) -> WeightChannels | None:
        if self.constant(1) is None:
            return None
        axis = 0 if self.attrs.get("transB") else 1
        bias = 2 if self.attrs.get("beta", 1.0) == 1 else None
        return WeightChannels(index=1, weight_axis=axis, output_axis=1, bias=bias)

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        inputs = self._prepare_inputs_with_constants(
            *q_inputs, calibrate=False, quantize_actual_values=True
        )
        a, b = inputs[:2]
        left = 0 in self.constant_inputs
        if attrs["transA"] and not left:
            raise CompilationError(
                "the encrypted matrix is transposed, which mixes the samples of a batch",
                where=self.where,
                expected="transA=0 where A is encrypted: its rows are the samples",
                fix="export the model with a Gemm or MatMul whose first matrix has samples as rows",
            )
        if attrs["transA"]:
            a = transposed(a)
        if attrs["transB"]:
            b = transposed(b)
        if len(inputs) > 2 and inputs[2] is not None and 2 not in self.constant_inputs:
            return self.quantized(self._with_encrypted(a, b, inputs[2], attrs))
        result = product(a, b, left) * attrs["alpha"]
        if 2 in self.constant_inputs:
            result = result + attrs["beta"] * self.constant(2).astype(np.float64)
        return self.quantized(result)

    def _with_encrypted(
        self, a: QuantizedArray, b: QuantizedArray, c: QuantizedArray, attrs: Any
    ) -> Any:
        """The real values of the op, with a look-up that brings C to the scale of the accumulator."""
        if 1 not in self.constant_inputs:
            raise CompilationError(
                "Gemm with an encrypted B and an encrypted C is not supported",
                where=self.where,
                fix="export it as a MatMul and an Add",
            )
        weights = b.qvalues - b.quantizer.zero_point
        scale = a.quantizer.scale * b.quantizer.scale * attrs["alpha"]
        ratio = attrs["beta"] / scale
        params = c.quantizer.params
        ends = [
            (np.asarray(end, dtype=np.float64) - params.zero_point) * params.scale * ratio
            for end in (params.low, params.high)
        ]
        # Steps of the accumulator may be much finer than C deserves: then as many of them in one.
        span = float(np.max(ends) - np.min(ends)) + 1
        finer = 2 ** max(0, int(np.ceil(np.log2(span))) - c.n_bits - _SPARE_BITS)
        low, high = (int(np.rint(end / finer)) for end in (np.min(ends), np.max(ends)))
        levels = np.clip(np.rint(c.values * (ratio / finer)), low, high).astype(np.int64) * finer
        accumulator = a.qvalues @ weights + levels
        offset = _zeros(a, 1) @ weights
        return (accumulator.astype(np.float64) - offset) * scale


def transposed(array: QuantizedArray) -> QuantizedArray:
    """The transpose of a clear or encrypted matrix, with scales that still broadcast to it."""
    quantizer = array.quantizer
    parameters = quantizer.params
    turned = type(parameters)(
        *(
            np.swapaxes(value, -1, -2) if np.ndim(value) > 1 else value
            for value in (parameters.scale, parameters.zero_point, parameters.low, parameters.high)
        )
    )
    return QuantizedArray(
        array.n_bits, np.swapaxes(array.qvalues, -1, -2), value_is_float=False, params=turned
    )


class QuantizedConv(QuantizedOp):
    """Convolution in one or two dimensions, with clear weights."""

    _impl_for_op_named = "Conv"
    encryptable: ClassVar[tuple[int, ...]] = (0,)

    def weight_channels(self) -> WeightChannels | None:
        if self.constant(1) is None:
            return None
        return WeightChannels(index=1, weight_axis=0, output_axis=1, bias=2)

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        inputs = self._prepare_inputs_with_constants(
            *q_inputs, calibrate=False, quantize_actual_values=True
        )
        x, w = inputs[:2]
        require_fit(
            "Conv", x.shape, w.shape, group=attrs["group"], kernel_shape=attrs["kernel_shape"]
        )
        result = convolution(x, w, attrs)
        bias = self.constant(2)
        if bias is not None:
            result = result + bias.astype(np.float64).reshape(-1, *[1] * (len(x.shape) - 2))
        return self.quantized(result)


def convolution(x: QuantizedArray, w: QuantizedArray, attrs: Mapping[str, Any]) -> Any:
    """The real values of a convolution with clear weights, as an accumulator rescaled.

    Args:
        attrs: ``auto_pad``, ``dilations``, ``group``, ``pads`` and ``strides`` as Conv has them.
    """
    weights = w.qvalues - w.quantizer.zero_point
    sliding = windows(
        x.shape[2:],
        weights.shape[2:],
        auto_pad=attrs["auto_pad"],
        dilations=attrs["dilations"],
        pads=attrs["pads"],
        strides=attrs["strides"],
    )
    zero = zeros_of_channels(x)
    accumulator = primitives.conv(
        x.qvalues,
        weights,
        strides=[window.stride for window in sliding],
        pads=[(window.before, window.after) for window in sliding],
        dilations=[window.dilation for window in sliding],
        group=attrs["group"],
        pad_value=zero,
    )
    return convolved(accumulator, weights, x, w.quantizer.scale)


def zeros_of_channels(x: QuantizedArray) -> Any:
    """The integer that stands for zero in each channel of x: (N, C, ...)."""
    return np.broadcast_to(np.reshape(x.quantizer.zero_point, -1), x.shape[1])


def convolved(accumulator: Any, weights: Any, x: QuantizedArray, scale: Any) -> Any:
    """The real values of a convolution: (N, M, ...), from its integers.

    Args:
        weights: (M, C / group, ...kernel), those that x was convolved with, its zero points as padding.
        scale: of the weights: one, or M.
    """
    # Every tap sees an element, or the zero point: that adds up to one number a channel, at the border too.
    taps = weights.sum(axis=tuple(range(2, weights.ndim)))
    zero = zeros_of_channels(x)
    group = len(zero) // taps.shape[1]
    channels = zero.reshape(group, -1).repeat(len(taps) // group, axis=0)
    column = (-1, *[1] * (weights.ndim - 2))
    offset = (taps * channels).sum(axis=1).reshape(column)
    scale = np.asarray(scale)
    scale = scale.reshape(column) if scale.ndim else scale
    return (accumulator.astype(np.float64) - offset) * (scale * x.quantizer.scale)


CLASSES: tuple[type[QuantizedOp], ...] = (QuantizedMatMul, QuantizedGemm, QuantizedConv)
