"""What NumPy lacks and a ``q_impl`` needs, on tensors and on ordinary integer arrays alike.

Each function records the cheapest construction that was measured, out of the program's own vocabulary,
so that every reader of a program understands it. ``BATCH`` is the batch size in every shape, and ``is_batch``
tells it from other sizes; ``call`` records a function as it is, to be evaluated on ordinary arrays later.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fhe_core.errors import CompilationError
from fhe_core.program.layout import expand_dims, pad, select
from fhe_core.program.layout import maps as as_maps
from fhe_core.program.layout import rows as rows_at
from fhe_core.program.nodes import BATCH, Choice, Node, current_origin, is_batch
from fhe_core.program.rules import convolve
from fhe_core.program.tensor import Tensor, call, node, node_of, refused

__all__ = [
    "BATCH",
    "call",
    "conv",
    "entries",
    "exact",
    "is_batch",
    "lookup",
    "maps",
    "matmul",
    "maximum",
    "minimum",
    "multiply",
    "relu",
    "rows",
    "windows",
]


def lookup(x: Any, function: Any, *, low: Any, high: Any) -> Any:
    """An integer function of each element, as one table look-up.

    Args:
        x: integers.
        function: from an integer array to an array of the same shape.
        low, high: bounds of the result, of all elements or of each; values beyond are clipped.
    """
    if not isinstance(x, Tensor):
        return np.clip(function(x), low, high).astype(np.int64)
    result: Tensor = np.clip(call(function, x), low, high).astype(np.int64)
    return result


def entries(values: Any, places: Any) -> Any:
    """values[places], real numbers: part of what is computed in float from the integers ``places``.

    Args:
        values: (n,) constants; or (n, columns), for each column of ``places`` its own.
        places: integers from 0 to n - 1; (N, columns) where ``values`` have columns.
    """
    return call(select, places, values) if isinstance(places, Tensor) else select(places, values)


def rows(values: Any, places: Any) -> Any:
    """values[places], whole rows by integers, as of an embedding: what the client computes before it encrypts.

    Args:
        values: (n, ...) real constants.
        places: whole numbers, negative ones from the end. Those beyond give NaN, which is refused
            before anything is encrypted.
    """
    return call(rows_at, values, places) if isinstance(places, Tensor) else rows_at(values, places)


def exact(x: Any, *, low: Any = None, high: Any = None) -> Any:
    """``x``, integers of which every bit counts: numbers of cases, not sizes.

    They are not rounded before a look-up, whatever the plan says, and their width holds all that is within
    their bounds, not only what calibration saw.

    Args:
        low, high: bounds that hold although intervals do not show it: of all elements, or of each.
    """
    if isinstance(x, Tensor):
        value = node_of(x)
        value.exact = True
        sample = tuple(1 if n == BATCH else n for n in value.shape)
        value.low = value.low if low is None else np.broadcast_to(low, sample)
        value.high = value.high if high is None else np.broadcast_to(high, sample)
        return Tensor(value)
    return x


def relu(x: Any) -> Any:
    """max(x, 0) of integers: one look-up."""
    if not isinstance(x, Tensor):
        return np.maximum(x, 0)
    bounds = x.bounds
    high = max(bounds[1], 0) if bounds else 0
    return lookup(x, _positive_part, low=0, high=high)


def _positive_part(x: Any) -> Any:
    return np.maximum(x, 0)


def maximum(a: Any, b: Any) -> Any:
    """The larger of two encrypted integers: b + relu(a - b), one look-up on one more bit."""
    part = relu(a - b)
    return _between(b + part, a, b, part, greater=True)


def minimum(a: Any, b: Any) -> Any:
    """The smaller of two encrypted integers: b - relu(b - a), one look-up on one more bit."""
    part = relu(b - a)
    return _between(b - part, a, b, part, greater=False)


def _between(result: Any, a: Any, b: Any, part: Any, *, greater: bool) -> Any:
    """``result`` with the bounds of a choice between ``a`` and ``b``: intervals do not see that it is one."""
    if isinstance(result, Tensor) and isinstance(result.value, Node):
        chosen = np.maximum if greater else np.minimum
        first, second, added = (node_of(x) for x in (a, b, part))
        result.value.low = np.asarray(chosen(first.low, second.low))
        result.value.high = np.asarray(chosen(first.high, second.high))
        result.value.choice = Choice(greater, first, second, added)
    return result


def multiply(a: Any, b: Any) -> Any:
    """The product of two encrypted integers, exactly, by two look-ups.

    floor((a + b)² / 4) - floor((a - b)² / 4) = a b, because a + b and a - b have one parity.
    """
    if a is b or (isinstance(a, Tensor) and isinstance(b, Tensor) and a.value is b.value):
        return lookup(a, np.square, low=0, high=_largest_square(a))
    total, difference = a + b, a - b
    return _quarter_square(total) - _quarter_square(difference)


def _largest_square(x: Any) -> int:
    bounds = x.bounds if isinstance(x, Tensor) else (int(np.min(x)), int(np.max(x)))
    return max(bound * bound for bound in bounds or (0, 0))


def _quarter_square(x: Any) -> Any:
    return lookup(x, _floor_quarter_square, low=0, high=_largest_square(x) // 4)


def _floor_quarter_square(x: Any) -> Any:
    return np.square(x) // 4


def matmul(a: Any, b: Any) -> Any:
    """The matrix product of two encrypted tensors of at least two dimensions: a look-up pair a product."""
    return multiply(expand_dims(a, -1), expand_dims(b, -3)).sum(axis=-2)


def conv(
    x: Any,
    weights: Any,
    *,
    strides: Sequence[int],
    pads: Sequence[tuple[int, int]],
    dilations: Sequence[int],
    group: int = 1,
    pad_value: Any = 0,
) -> Any:
    """Cross-correlation of encrypted integers with clear weights, in one or two dimensions.

    Args:
        x: (N, C, W) or (N, C, H, W) integers.
        weights: (M, C / group, kW) or (M, C / group, kH, kW) clear integers.
        pads: (before, after) for each spatial dimension.
        pad_value: the integer that stands for zero (a zero point), scalar or one for each channel.

    Returns:
        (N, M, oW) or (N, M, oH, oW).

    Raises:
        CompilationError: three spatial dimensions, which the FHE backend does not have; or weights or
            a padding that are no integers.
    """
    weights, pad_value = _whole(weights, "weights"), _whole(pad_value, "a padding")
    spatial = weights.ndim - 2
    if spatial not in (1, 2):
        origin = current_origin()
        raise CompilationError(
            f"a convolution over {spatial} spatial dimensions cannot be encrypted",
            where=origin.where if origin else None,
            expected="one or two spatial dimensions",
            fix="rewrite it with convolutions over at most two",
        )
    if any(before or after for before, after in pads):
        widths = [(0, 0), (0, 0), *pads]
        column = pad_value.reshape(1, -1, *([1] * spatial)) if pad_value.ndim else pad_value
        x = _pad(x, widths, column)
    strides, dilations = list(strides), list(dilations)
    if spatial == 1:
        flat = conv(
            expand_dims(x, 2) if isinstance(x, Tensor) else np.expand_dims(x, 2),
            weights[:, :, None, :],
            strides=[1, *strides],
            pads=[(0, 0), (0, 0)],
            dilations=[1, *dilations],
            group=group,
        )
        return flat[:, :, 0]
    if not isinstance(x, Tensor):
        return convolve(np.asarray(x), weights, strides, dilations, group)
    height, width = (
        (size - (kernel - 1) * dilation - 1) // stride + 1
        for size, kernel, dilation, stride in zip(
            x.shape[2:], weights.shape[2:], dilations, strides, strict=True
        )
    )
    return node(
        "conv",
        x,
        shape=(x.shape[0], weights.shape[0], height, width),
        weights=weights,
        strides=tuple(strides),
        dilations=tuple(dilations),
        group=group,
    )


def _whole(values: Any, what: str) -> Any:
    """``values`` as an array of integers, which floats may hold too."""
    array = np.asarray(values)
    whole = array.astype(np.int64)
    if (whole != array).any():
        raise refused(f"convolves integers with {what} that are no integers", "quantize them first")
    return whole


def _pad(x: Any, widths: Any, value: Any) -> Any:
    if isinstance(x, Tensor):
        return pad(x, widths, constant_values=value)
    shape = [n + sum(w) for n, w in zip(x.shape, widths, strict=True)]
    padded = np.broadcast_to(value, shape).astype(x.dtype)
    padded[tuple(slice(b, b + n) for n, (b, _) in zip(x.shape, widths, strict=True))] = x
    return padded


def maps(rows: Any, keys: Sequence[Any]) -> Any:
    """A sequence of maps, as ONNX has it: a list with a dict for each row, from the keys to its elements.

    Nothing that computes follows it, so it is made after decryption.

    Args:
        rows: (N, keys) real numbers.
        keys: integers or strings.
    """
    return call(as_maps, rows, tuple(keys)) if isinstance(rows, Tensor) else as_maps(rows, keys)


def windows(
    x: Any,
    kernel: Sequence[int],
    *,
    strides: Sequence[int],
    dilations: Sequence[int],
) -> list[Any]:
    """The elements of each pooling window, as one strided view of ``x`` for each kernel position.

    Args:
        x: (N, C, ...), already padded.

    Returns:
        ``prod(kernel)`` tensors of shape (N, C, output...).
    """
    sizes = [
        (n - (k - 1) * d - 1) // s + 1
        for n, k, d, s in zip(x.shape[2:], kernel, dilations, strides, strict=True)
    ]
    views = []
    for offset in np.ndindex(*kernel):
        starts = [o * d for o, d in zip(offset, dilations, strict=True)]
        key = tuple(
            slice(b, b + (n - 1) * s + 1, s) for b, n, s in zip(starts, sizes, strides, strict=True)
        )
        views.append(x[(slice(None), slice(None), *key)])
    return views
