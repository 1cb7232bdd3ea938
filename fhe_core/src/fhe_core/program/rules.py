"""What each operation of the integer program computes, and between which bounds.

One row an operation. ``evaluate`` works on whole batches of any dtype that holds the integers exactly
(the interpreter chooses float32, float64 or int64); ``interval`` propagates bounds per element, with
the batch dimension 1 (interval arithmetic: Moore, Interval Analysis, 1966).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.program.nodes import with_batch

Array = NDArray[Any]
Attributes = Mapping[str, Any]
Interval = tuple[Array, Array]


@dataclass(frozen=True)
class Rule:
    """How one operation is read.

    Attributes:
        evaluate: (arrays, attributes, batch) to the resulting array.
        interval: (intervals, attributes) to the result's interval.
        linear: inputs and output are one component: the circuit gives them one bit width.
    """

    evaluate: Callable[[Sequence[Array], Attributes, int], Array]
    interval: Callable[[Sequence[Interval], Attributes], Interval]
    linear: bool = True


def _monotone(evaluate: Callable[[Sequence[Array], Attributes, int], Array]) -> Rule:
    """A rule whose result grows with every input: the bounds map to the bounds."""

    def interval(intervals: Sequence[Interval], attributes: Attributes) -> Interval:
        low = evaluate([low for low, _ in intervals], attributes, 1)
        high = evaluate([high for _, high in intervals], attributes, 1)
        return low, high

    return Rule(evaluate, interval)


def _signed_weights(
    name: str, evaluate: Callable[[Sequence[Array], Attributes, int], Array]
) -> Rule:
    """A rule linear in one input, with the constant ``name``: positive and negative weights apart."""

    def interval(intervals: Sequence[Interval], attributes: Attributes) -> Interval:
        ((low, high),) = intervals
        weights = attributes[name]
        positive = {**attributes, name: np.maximum(weights, 0)}
        negative = {**attributes, name: np.minimum(weights, 0)}
        return (
            evaluate([low], positive, 1) + evaluate([high], negative, 1),
            evaluate([high], positive, 1) + evaluate([low], negative, 1),
        )

    return Rule(evaluate, interval)


def _cast(constant: Array, like: Array) -> Array:
    return constant.astype(like.dtype, copy=False)


def _matmul(arrays: Sequence[Array], attributes: Attributes, batch: int) -> Array:
    (x,) = arrays
    weights = _cast(attributes["weights"], x)
    return weights @ x if attributes["left"] else x @ weights


def convolve(
    x: Array, weights: Array, strides: Sequence[int], dilations: Sequence[int], group: int
) -> Array:
    """Cross-correlation without padding, as matrix products over windows.

    Args:
        x: (N, C, H, W).
        weights: (M, C / group, kH, kW).

    Returns:
        (N, M, oH, oW).
    """
    count, features, group_features = len(x), weights.shape[0], weights.shape[0] // group
    columns = convolution_windows(x, weights.shape, strides, dilations, group)
    matrix = weights.reshape(group, group_features, -1).transpose(0, 2, 1)
    product = columns @ np.ascontiguousarray(_cast(matrix, x))
    steps = [
        (n - (k - 1) * d - 1) // s + 1
        for n, k, d, s in zip(x.shape[2:], weights.shape[2:], dilations, strides, strict=True)
    ]
    product = product.reshape(group, count, *steps, group_features)
    return np.ascontiguousarray(product.transpose(1, 0, 4, 2, 3)).reshape(count, features, *steps)


def convolution_windows(
    x: Array, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], group: int
) -> Array:
    """What the windows of a convolution see, as one matrix a group.

    Args:
        x: (N, C, H, W).
        kernel: the shape of the weights, (M, C / group, kH, kW).

    Returns:
        (group, N * oH * oW, C / group * kH * kW): a row for each window.
    """
    _, depth, *taps = kernel
    reach = [(k - 1) * d + 1 for k, d in zip(taps, dilations, strict=True)]
    windows = np.lib.stride_tricks.sliding_window_view(x, reach, axis=(2, 3))  # type: ignore[call-overload]
    windows = windows[:, :, :: strides[0], :: strides[1], :: dilations[0], :: dilations[1]]
    columns = windows.reshape(len(x), group, depth, *windows.shape[2:4], *taps)
    columns = columns.transpose(1, 0, 3, 4, 2, 5, 6)
    return np.asarray(columns.reshape(group, -1, depth * math.prod(taps)))


def _conv(arrays: Sequence[Array], attributes: Attributes, batch: int) -> Array:
    return convolve(
        arrays[0],
        attributes["weights"],
        attributes["strides"],
        attributes["dilations"],
        attributes["group"],
    )


def _pad(arrays: Sequence[Array], attributes: Attributes, batch: int) -> Array:
    (x,) = arrays
    widths = attributes["widths"]
    shape = [n + before + after for n, (before, after) in zip(x.shape, widths, strict=True)]
    inside = tuple(slice(b, b + n) for n, (b, _) in zip(x.shape, widths, strict=True))
    padded = np.empty(shape, x.dtype)
    padded[...] = _cast(attributes["value"], x)
    padded[inside] = x
    return padded


def _flipped(rule: Callable[..., Array]) -> Callable[[Sequence[Interval], Attributes], Interval]:
    def interval(intervals: Sequence[Interval], attributes: Attributes) -> Interval:
        ((low, high),) = intervals
        return rule([high], attributes, 1), rule([low], attributes, 1)

    return interval


def _subtract_interval(intervals: Sequence[Interval], attributes: Attributes) -> Interval:
    (low, high), (other_low, other_high) = intervals
    return low - other_high, high - other_low


def _scale_interval(intervals: Sequence[Interval], attributes: Attributes) -> Interval:
    ((low, high),) = intervals
    ends = low * attributes["factor"], high * attributes["factor"]
    return np.minimum(*ends), np.maximum(*ends)


def _negative(arrays: Sequence[Array], attributes: Attributes, batch: int) -> Array:
    return -arrays[0]


RULES: dict[str, Rule] = {
    "add": _monotone(lambda arrays, attributes, batch: arrays[0] + arrays[1]),
    "subtract": Rule(lambda arrays, attributes, batch: arrays[0] - arrays[1], _subtract_interval),
    "negative": Rule(_negative, _flipped(_negative)),
    "shift": _monotone(
        lambda arrays, attributes, batch: arrays[0] + _cast(attributes["offset"], arrays[0])
    ),
    "scale": Rule(
        lambda arrays, attributes, batch: arrays[0] * _cast(attributes["factor"], arrays[0]),
        _scale_interval,
    ),
    "matmul": _signed_weights("weights", _matmul),
    "conv": _signed_weights("weights", _conv),
    "sum": _monotone(
        lambda arrays, attributes, batch: arrays[0].sum(
            axis=attributes["axes"], keepdims=attributes["keepdims"]
        )
    ),
    "reshape": _monotone(
        lambda arrays, attributes, batch: arrays[0].reshape(with_batch(attributes["target"], batch))
    ),
    "transpose": _monotone(
        lambda arrays, attributes, batch: arrays[0].transpose(attributes["axes"])
    ),
    "broadcast": _monotone(
        lambda arrays, attributes, batch: np.broadcast_to(
            arrays[0], with_batch(attributes["target"], batch)
        )
    ),
    "index": _monotone(
        lambda arrays, attributes, batch: arrays[0][with_batch(attributes["key"], batch)]
    ),
    "take": _monotone(
        lambda arrays, attributes, batch: np.take(
            arrays[0], attributes["indices"], axis=attributes["axis"]
        )
    ),
    "concatenate": _monotone(
        lambda arrays, attributes, batch: np.concatenate(list(arrays), axis=attributes["axis"])
    ),
    "pad": _monotone(_pad),
}
