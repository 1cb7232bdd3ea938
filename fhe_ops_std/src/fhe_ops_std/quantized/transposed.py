"""Windows that run backwards: ConvTranspose as a convolution of a spread image, Col2Im as sums of blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fhe_core import QuantizedArray, QuantizedOp, WeightChannels, primitives
from fhe_ops_std._kernels import require_fit
from fhe_ops_std._windows import Window
from fhe_ops_std.quantized.fixed import Step
from fhe_ops_std.quantized.linear import convolved, zeros_of_channels
from fhe_ops_std.quantized.probing import parted
from fhe_ops_std.transposed import images

Array = NDArray[Any]


class QuantizedConvTranspose(QuantizedOp):
    """ConvTranspose in one or two dimensions, with clear weights.

    A convolution, with the kernel reversed, of the image with ``stride - 1`` zeros between its elements.
    """

    _impl_for_op_named = "ConvTranspose"
    encryptable: ClassVar[tuple[int, ...]] = (0,)

    def weight_channels(self) -> WeightChannels | None:
        # With groups an entry along this axis belongs to one output channel of each group.
        if self.constant(1) is None or self.attrs["group"] != 1:
            return None
        return WeightChannels(index=1, weight_axis=1, output_axis=1)

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        inputs = self._prepare_inputs_with_constants(
            *q_inputs, calibrate=False, quantize_actual_values=True
        )
        x, w = inputs[:2]
        group, kernel = attrs["group"], attrs["kernel_shape"]
        require_fit(
            self._impl_for_op_named,
            x.shape,
            w.shape,
            group=group,
            kernel_shape=kernel,
            transposed=True,
        )
        weights = _as_conv(w.qvalues - w.quantizer.zero_point, group)
        spatial = weights.ndim - 2
        sliding = images(
            x.shape[2:],
            weights.shape[2:],
            auto_pad=attrs["auto_pad"],
            dilations=attrs["dilations"],
            output_padding=attrs["output_padding"],
            output_shape=attrs["output_shape"],
            pads=attrs["pads"],
            strides=attrs["strides"],
        )
        zero = zeros_of_channels(x)
        accumulator = primitives.conv(
            _around(_spread(x.qvalues, sliding, zero), sliding, zero),
            weights,
            strides=[1] * spatial,
            pads=[(0, 0)] * spatial,
            dilations=[window.dilation for window in sliding],
            group=group,
        )
        result = convolved(accumulator, weights, x, w.quantizer.scale)
        bias = self.constant(2)
        if bias is not None:
            result = result + bias.astype(np.float64).reshape(-1, *[1] * spatial)
        return self.quantized(result)


def _as_conv(weights: Array, group: int) -> Array:
    """(C, M / group, ...) of a transposed convolution as (M, C / group, ...) of a convolution."""
    channels, maps, *kernel = weights.shape
    grouped = weights.reshape(group, channels // group, maps, *kernel).swapaxes(1, 2)
    turned: Array = np.flip(
        grouped.reshape(group * maps, channels // group, *kernel), tuple(range(2, weights.ndim))
    )
    return turned


def _spread(x: Any, sliding: Sequence[Window], zero: Array) -> Any:
    """x: (N, C, ...) with ``stride - 1`` zero points after each element, but the last, of each axis."""
    for axis, window in enumerate(sliding, 2):
        if window.stride == 1 or window.steps == 1:
            continue
        apart = np.expand_dims(x, axis + 1)
        apart = _padded(apart, axis + 1, (0, window.stride - 1), zero)
        length = window.steps * window.stride
        x = np.reshape(apart, (*x.shape[:axis], length, *x.shape[axis + 1 :]))
        x = x[(*[slice(None)] * axis, slice(length - window.stride + 1))]
    return x


def _around(x: Any, sliding: Sequence[Window], zero: Array) -> Any:
    """The spread image as far as windows of the convolution reach: padded, or cut."""
    for axis, window in enumerate(sliding, 2):
        reach = (window.kernel - 1) * window.dilation
        before = reach - window.before
        after = window.length + reach - before - x.shape[axis]
        x = _padded(x, axis, (max(before, 0), max(after, 0)), zero)
        cut = slice(max(-before, 0), x.shape[axis] - max(-after, 0))
        if (cut.start, cut.stop) != (0, x.shape[axis]):
            x = x[(*[slice(None)] * axis, cut)]
    return x


def _padded(x: Any, axis: int, width: tuple[int, int], zero: Array) -> Any:
    """x: (N, C, ...) with the zero point of each channel before and behind one axis."""
    if not any(width):
        return x
    # Of the rank of x: numpy.pad takes an array of two dimensions for pairs, one for each axis.
    column = zero.reshape(1, -1, *[1] * (len(x.shape) - 2))
    parts = [
        np.broadcast_to(column[0], (*x.shape[1:axis], count, *x.shape[axis + 1 :]))
        for count in width
    ]
    if isinstance(x, np.ndarray):
        ends = [np.broadcast_to(part, (len(x), *part.shape)) for part in parts]
        return np.concatenate([ends[0], x, ends[1]], axis=axis)
    widths = [width if i == axis else (0, 0) for i in range(len(x.shape))]
    return np.pad(x, widths, constant_values=column)


class QuantizedCol2Im(QuantizedOp):
    """Sums of blocks at their places in an image."""

    _impl_for_op_named = "Col2Im"
    encryptable: ClassVar[tuple[int, ...]] = (0,)

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        x, image, block = parted(self, q_inputs)
        size = math.prod(int(n) for n in block)
        samples, rows, places = x.shape
        shape = (samples, rows // size, size, places)

        def summed(blocks: Array) -> Array:
            y: Array = self._function(blocks, image, block, **attrs)
            return y[:, 0]

        # The channels come first among the rows, and each is an image of its own.
        step = Step.of(summed, shape, (2, 3))
        weights = np.rint(step.matrix).astype(np.int64)
        zero = np.broadcast_to(x.quantizer.zero_point, (1, rows, places)).reshape(1, *shape[1:])
        accumulator = step.applied(np.reshape(x.qvalues, shape), weights)
        offset = step.applied(zero, weights)
        return self.quantized((accumulator.astype(np.float64) - offset) * x.quantizer.scale)


CLASSES: tuple[type[QuantizedOp], ...] = (QuantizedConvTranspose, QuantizedCol2Im)
