"""Pooling: averages are sums of integers, maxima a tournament of look-ups."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fhe_core import CompilationError, QuantizedArray, QuantizedOp, primitives
from fhe_ops_std._windows import Window, windows


def _sliding(x: QuantizedArray, attrs: dict[str, Any]) -> tuple[Window, ...]:
    return windows(
        x.shape[2:],
        attrs["kernel_shape"],
        auto_pad=attrs["auto_pad"],
        dilations=attrs.get("dilations"),
        pads=attrs["pads"],
        strides=attrs["strides"],
        ceil_mode=attrs.get("ceil_mode", 0),
    )


def _pads(sliding: Sequence[Window]) -> list[tuple[int, int]]:
    """Padding that lets every window of ceil_mode end inside; negative where input is left over."""
    return [(w.before, max(w.reach - w.length - w.before, 0)) for w in sliding]


class QuantizedAveragePool(QuantizedOp):
    """Sums over windows, as a grouped convolution with ones; divided in the next look-up."""

    _impl_for_op_named = "AveragePool"

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        (x,) = self._prepare_inputs_with_constants(
            *q_inputs, calibrate=False, quantize_actual_values=True
        )
        sliding = _sliding(x, attrs)
        channels = x.shape[1]
        kernel = [window.kernel for window in sliding]
        zero = np.broadcast_to(np.reshape(x.quantizer.zero_point, -1), channels)
        total = primitives.conv(
            x.qvalues,
            np.ones((channels, 1, *kernel), dtype=np.int64),
            strides=[window.stride for window in sliding],
            pads=_pads(sliding),
            dilations=[window.dilation for window in sliding],
            group=channels,
            pad_value=zero,
        )
        column = (-1, *[1] * len(kernel))
        offset = zero.reshape(column) * int(np.prod(kernel))
        count = _counts(sliding, bool(attrs.get("count_include_pad", 0)))
        real = (total.astype(np.float64) - offset) * (x.quantizer.scale / count)
        return self.quantized(real)


def _counts(sliding: Sequence[Window], include_padding: bool) -> Any:
    """How many elements each window averages: (o1, o2, ...)."""
    counts = []
    for window in sliding:
        begins, taps = window.places()
        positions = begins[:, None] + taps[None, :]
        low = -window.before if include_padding else 0
        high = window.length + (window.after if include_padding else 0)
        counts.append(((positions >= low) & (positions < high)).sum(axis=1))
    total = reduce(np.multiply.outer, counts)
    return total.astype(np.float64)


class QuantizedGlobalAveragePool(QuantizedOp):
    """The mean over all spatial axes."""

    _impl_for_op_named = "GlobalAveragePool"

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        (x,) = self._prepare_inputs_with_constants(
            *q_inputs, calibrate=False, quantize_actual_values=True
        )
        axes = tuple(range(2, len(x.shape)))
        total = x.qvalues.sum(axis=axes, keepdims=True)
        count = int(np.prod(x.shape[2:]))
        offset = np.asarray(x.quantizer.zero_point) * count
        real = (total.astype(np.float64) - offset) * (x.quantizer.scale / count)
        return self.quantized(real)


class Maxima(QuantizedOp):
    """The largest elements of the input: lower ones than the lowest of these may be anything."""

    keeps_scale: ClassVar[bool] = True

    def reach(self, x: NDArray[Any]) -> tuple[float, float]:
        result = self.call_impl(x, **self.attrs)
        return float(np.min(result[0] if isinstance(result, tuple) else result)), np.inf


class QuantizedMaxPool(Maxima):
    """The maximum over windows, one axis after the other: max(a, b) is one look-up."""

    _impl_for_op_named = "MaxPool"

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        if len(self.output_names) > 1 and self.output_names[1]:
            raise CompilationError(
                "the indices of encrypted maxima cannot be computed",
                where=self.where,
                fix="export the model without the Indices output",
            )
        (x,) = self._prepare_inputs_with_constants(
            *q_inputs, calibrate=False, quantize_actual_values=True
        )
        values = pooled(x.qvalues, _sliding(x, attrs), primitives.maximum)
        return self.quantized(x.quantizer.dequant(values))


class QuantizedGlobalMaxPool(Maxima):
    """The maximum over all spatial axes."""

    _impl_for_op_named = "GlobalMaxPool"

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        (x,) = self._prepare_inputs_with_constants(
            *q_inputs, calibrate=False, quantize_actual_values=True
        )
        sliding = [Window(n, n, 1, 1, 0, 0, 1) for n in x.shape[2:]]
        values = pooled(x.qvalues, sliding, primitives.maximum)
        return self.quantized(x.quantizer.dequant(values))


def pooled(x: Any, sliding: Sequence[Window], choose: Any) -> Any:
    """A tournament over windows, along one axis after the other."""
    pads = _pads(sliding)
    if any(before or after for before, after in pads):
        least = x.bounds[0] if getattr(x, "bounds", None) else int(x.min())
        x = np.pad(x, [(0, 0), (0, 0), *pads], constant_values=least)
    for axis, window in enumerate(sliding):
        spatial = len(sliding)
        kernel, strides, dilations = [1] * spatial, [1] * spatial, [1] * spatial
        kernel[axis], strides[axis] = window.kernel, window.stride
        dilations[axis] = window.dilation
        views = primitives.windows(x, kernel, strides=strides, dilations=dilations)
        views = [view[_first(axis, window.steps)] for view in views]
        while len(views) > 1:
            pairs = [choose(a, b) for a, b in zip(views[::2], views[1::2], strict=False)]
            views = pairs + ([views[-1]] if len(views) % 2 else [])
        (x,) = views
    return x


def _first(axis: int, count: int) -> tuple[slice, ...]:
    return (*[slice(None)] * (axis + 2), slice(0, count))


CLASSES: tuple[type[QuantizedOp], ...] = (
    QuantizedAveragePool,
    QuantizedGlobalAveragePool,
    QuantizedMaxPool,
    QuantizedGlobalMaxPool,
)
