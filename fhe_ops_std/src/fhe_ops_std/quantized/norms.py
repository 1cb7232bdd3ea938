"""Lp norms over windows, and values divided by the norm of their neighbours.

Powers are one exact look-up an element; the root joins the look-up after the sum.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from fhe_core import CompilationError, QuantizedArray, QuantizedOp, primitives
from fhe_ops_std._windows import windows
from fhe_ops_std.quantized.stages import (
    extent,
    log_step,
    powers,
    quotient,
    sample_axes,
    signed,
    size,
)


class QuantizedGlobalLpPool(QuantizedOp):
    """The p-norm over all spatial axes."""

    _impl_for_op_named = "GlobalLpPool"
    shapes_outputs: ClassVar[bool] = True

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        (x,) = q_inputs
        p, (low, high) = attrs["p"], extent(x)
        parts, step = powers(signed(x), p, max(-low, high), self.count(x, attrs))
        total = self.total(parts, attrs).astype(np.float64) * step
        # The root of the integers, scaled: a power of the scale could leave the range of floats.
        return self.quantized(total ** (1 / p) * x.quantizer.scale)

    def count(self, x: QuantizedArray, attrs: dict[str, Any]) -> int:
        """How many elements are summed up."""
        return math.prod(x.shape[2:])

    def total(self, x: Any, attrs: dict[str, Any]) -> Any:
        """The sums of ``x``: (N, C, ...)."""
        return x.sum(axis=tuple(range(2, len(x.shape))), keepdims=True)


class QuantizedLpPool(QuantizedGlobalLpPool):
    """The p-norm over windows; padding adds nothing."""

    _impl_for_op_named = "LpPool"
    shapes_outputs = False

    def count(self, x: QuantizedArray, attrs: dict[str, Any]) -> int:
        return math.prod(attrs["kernel_shape"])

    def total(self, x: Any, attrs: dict[str, Any]) -> Any:
        sliding = windows(
            x.shape[2:],
            attrs["kernel_shape"],
            auto_pad=attrs["auto_pad"],
            dilations=attrs.get("dilations"),
            pads=attrs["pads"],
            strides=attrs["strides"],
            ceil_mode=attrs.get("ceil_mode", 0),
        )
        channels = x.shape[1]
        return primitives.conv(
            x,
            np.ones((channels, 1, *(window.kernel for window in sliding)), dtype=np.int64),
            strides=[window.stride for window in sliding],
            pads=[(w.before, max(w.reach - w.length - w.before, 0)) for w in sliding],
            dilations=[window.dilation for window in sliding],
            group=channels,
        )


class QuantizedLpNormalization(QuantizedOp):
    """x over its 1- or 2-norm along an axis: one look-up an element for the norm, four for the quotient."""

    _impl_for_op_named = "LpNormalization"
    shapes_outputs: ClassVar[bool] = True

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        (x,) = q_inputs
        axes = sample_axes(self, [attrs["axis"]], len(x.shape))
        p, scale, (low, high) = attrs["p"], x.quantizer.scale, extent(x)
        integers = signed(x)
        count, reach = size(x.shape, axes), max(-low, high)
        parts, step = powers(integers, p, reach, count)
        total = parts.sum(axis=axes, keepdims=True).astype(np.float64) * step
        # A norm that is not zero is one step or more, of which the half that is added to x is half.
        quotients = quotient(
            integers,
            scale,
            np.log(np.maximum(np.abs(total), 1.0)) / p + math.log(scale),
            extent=(low * scale, high * scale),
            log_extent=(math.log(scale), math.log(max(count * reach**p, 1)) / p + math.log(scale)),
            least=scale / 2,
            most=1.5,
            n_bits=self.n_bits,
            step=log_step(self.n_bits),
        )
        return self.quantized(quotients.astype(np.float64) * log_step(self.n_bits))


class QuantizedLRN(QuantizedOp):
    """x / (bias + alpha / size * squares of neighbouring channels)^beta: five look-ups an element, and one
    for each sum."""

    _impl_for_op_named = "LRN"

    def can_fuse(self) -> bool:
        """A window of one channel holds the element itself."""
        return bool(self.attrs["size"] == 1)

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        if self.can_fuse():
            return super().q_impl(*q_inputs, **attrs)
        (x,) = q_inputs
        alpha, beta, bias, width = (attrs[name] for name in ("alpha", "beta", "bias", "size"))
        if bias <= 0 or alpha < 0:
            raise CompilationError(
                "the denominator of an LRN may become zero",
                where=self.where,
                expected="bias above 0, and alpha of 0 or more",
                got=f"bias {bias:g}, alpha {alpha:g}",
                fix="export the model with other attributes",
            )
        scale, (low, high) = x.quantizer.scale, extent(x)
        integers = signed(x)
        reach, count = max(-low, high), min(width, x.shape[1])
        squares, coarser = powers(integers, 2, reach, count)
        total = _neighbours(squares, width).astype(np.float64)
        factor = alpha / width * scale**2
        logs = sorted(beta * math.log(bias + factor * n * reach**2) for n in (0, count))
        most = (reach + 0.5) * scale * math.exp(-logs[0])
        step = most * log_step(self.n_bits)
        quotients = quotient(
            integers,
            scale,
            np.log(bias + factor * coarser * np.maximum(total, 0.0)) * beta,
            extent=(low * scale, high * scale),
            log_extent=(logs[0], logs[1]),
            least=scale / 2,
            most=most,
            n_bits=self.n_bits,
            step=step,
        )
        return self.quantized(quotients.astype(np.float64) * step)


def _neighbours(x: Any, width: int) -> Any:
    """Sums over windows of ``width`` channels of x: (N, C, ...), zeros beyond the ends."""
    channels = x.shape[1]
    ends = [(0, 0)] * len(x.shape)
    ends[1] = ((width - 1) // 2, width // 2)
    padded = np.pad(x, ends)
    parts = [padded[:, start : start + channels] for start in range(width)]
    return sum(parts[1:], parts[0])


CLASSES: tuple[type[QuantizedOp], ...] = (
    QuantizedLpPool,
    QuantizedGlobalLpPool,
    QuantizedLpNormalization,
    QuantizedLRN,
)
