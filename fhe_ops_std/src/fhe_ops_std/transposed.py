"""Sums and placements that run a window backwards: from its contents back to the image."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_ops_std._domains import AutoPad

from ._kernels import require_fit
from ._precision import precise, rounded
from ._windows import Window, windows

Array = NDArray[Any]

# Columns of one matrix product inside ConvTranspose: as in Conv, few enough that the products
# (columns × maps·kernel elements) stay in the cache instead of growing with the image.
_COLUMNS = 2048

# --- ConvTranspose ---


def conv_transpose(
    x: Array,
    w: Array,
    /,
    b: Array | None = None,
    *,
    auto_pad: AutoPad = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    output_padding: Sequence[int] | None = None,
    output_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """The gradient of Conv: each element of x adds w, times itself, to the image, plus b: (M,).

    x: (N, C, ...), w: (C, M/group, ...kernel); pads are cut off the image. ``output_shape`` sets
    the image's spatial shape, and with it the pads.
    """
    require_fit(
        "ConvTranspose", x.shape, w.shape, group=group, kernel_shape=kernel_shape, transposed=True
    )
    sliding = images(
        x.shape[2:],
        w.shape[2:],
        auto_pad=auto_pad,
        dilations=dilations,
        output_padding=output_padding,
        output_shape=output_shape,
        pads=pads,
        strides=strides,
    )
    wide, weights = precise(x), precise(w)
    (n, channels), maps, rank = x.shape[:2], w.shape[1], len(sliding)
    # For each group a matrix of maps·kernel rows and C/group columns.
    weights = weights.reshape(group, channels // group, -1).swapaxes(1, 2)
    inputs = wide.reshape(n, group, channels // group, *x.shape[2:])
    lengths = tuple(window.length for window in sliding)
    y = np.zeros((n, group, maps, *lengths), wide.dtype)
    rows = max(1, _COLUMNS // max(math.prod(x.shape[3:]), 1))
    first, *others = sliding
    for i, j in itertools.product(range(n), range(0, x.shape[2], rows)):
        block = inputs[i, :, :, j : j + rows]
        steps = block.shape[2:]
        columns = block.reshape(group, channels // group, -1)
        # One input channel a group (depthwise) is a product of numbers, not of matrices.
        product = np.multiply if channels == group else np.matmul
        contents = product(weights, columns).reshape(group, maps, *w.shape[2:], *steps)
        part = replace(first, before=first.before - j * first.stride, steps=steps[0])
        _add(contents, (part, *others), y[i])
    y = y.reshape(n, group * maps, *lengths)
    if b is not None:
        y += b.reshape(-1, *(1,) * rank)
    return rounded(y, x.dtype)


def images(
    lengths: Sequence[int],
    kernel: Sequence[int],
    *,
    auto_pad: str,
    dilations: Sequence[int] | None,
    output_padding: Sequence[int] | None,
    output_shape: Sequence[int] | None,
    pads: Sequence[int] | None,
    strides: Sequence[int] | None,
) -> tuple[Window, ...]:
    """The windows that slide along the image, one step for each element of the input."""
    rank = len(lengths)
    strides, dilations = strides or (1,) * rank, dilations or (1,) * rank
    pads, extra = pads or (0,) * (2 * rank), output_padding or (0,) * rank
    for name, values, count in (
        ("strides", strides, rank),
        ("dilations", dilations, rank),
        ("pads", pads, 2 * rank),
        ("output_padding", extra, rank),
        ("output_shape", output_shape or lengths, rank),
    ):
        if len(values) != count:
            raise ValueError(f"{name} has {len(values)} values, {rank} axes need {count}")
    if auto_pad not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise ValueError(f"auto_pad {auto_pad!r} is not one that ONNX knows")
    images = []
    for axis, (steps, stride) in enumerate(zip(lengths, strides, strict=True)):
        reach = (kernel[axis] - 1) * dilations[axis] + 1
        full = (steps - 1) * stride + reach + extra[axis]
        before, after = pads[axis], pads[axis + rank]
        if output_shape is not None or auto_pad.startswith("SAME"):
            length = steps * stride if output_shape is None else output_shape[axis]
            total = max(full - length, 0)
            before, after = total - total // 2, total // 2
            if auto_pad == "SAME_UPPER":
                before, after = after, before
        elif auto_pad == "VALID":
            length, before, after = full, 0, 0
        else:
            length = full - before - after
        if length < 0:
            raise ValueError(f"pads of {before} and {after} are more than the {full} elements")
        images.append(Window(length, kernel[axis], stride, dilations[axis], before, after, steps))
    return tuple(images)


def _add(contents: Array, sliding: tuple[Window, ...], image: Array) -> None:
    """Add the windows' contents: (..., *kernel, *steps) to the image: (..., *lengths), in place."""
    for tap in np.ndindex(*(window.kernel for window in sliding)):
        steps, seen = zip(*map(Window.inside, sliding, tap), strict=True)
        image[(..., *seen)] += contents[(Ellipsis, *tap, *steps)]


# --- Col2Im ---


def col2im(
    input: Array,
    image_shape: Array,
    block_shape: Array,
    /,
    *,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """The sum of blocks at their places: (N, C, *image_shape) from input: (N, C·block, places)."""
    image, block = (tuple(int(size) for size in sizes) for sizes in (image_shape, block_shape))
    sliding = windows(
        image, block, auto_pad="NOTSET", dilations=dilations, pads=pads, strides=strides
    )
    steps = tuple(window.steps for window in sliding)
    if input.ndim != 3 or input.shape[1] % math.prod(block) or input.shape[2] != math.prod(steps):
        raise ValueError(f"input {input.shape} is not {math.prod(steps)} blocks of {block}")
    channels = input.shape[1] // math.prod(block)
    contents = precise(input).reshape(len(input), channels, *block, *steps)
    y = np.zeros((len(input), channels, *image), contents.dtype)
    _add(contents, sliding, y)
    return rounded(y, input.dtype)


# --- MaxUnpool ---


def max_unpool(
    x: Array,
    i: Array,
    /,
    output_shape: Array | None = None,
    *,
    kernel_shape: Sequence[int],
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """Each element of x where MaxPool found it, at the flat index i, and 0 elsewhere.

    x and i: (N, C, ...). The indices count in the smallest image that gives x; an ``output_shape``
    larger than that adds zeros at the end of its axes.
    """
    rank = x.ndim - 2
    strides, pads = strides or (1,) * rank, pads or (0,) * (2 * rank)
    if len(kernel_shape) != rank or len(strides) != rank or len(pads) != 2 * rank:
        raise ValueError(f"kernel_shape, strides and pads do not fit {rank} spatial axes")
    if i.shape != x.shape:
        raise ValueError(f"one index for each element of x: {x.shape} expected, got {i.shape}")
    lengths = tuple(
        (steps - 1) * stride - before - after + kernel
        for steps, stride, before, after, kernel in zip(
            x.shape[2:], strides, pads[:rank], pads[rank:], kernel_shape, strict=True
        )
    )
    y = np.zeros((*x.shape[:2], *lengths), x.dtype)
    if np.any((i < 0) | (i >= y.size)):
        raise ValueError(f"an index lies outside of the {y.size} elements of an image {y.shape}")
    y.reshape(-1)[i.reshape(-1)] = x.reshape(-1)
    if output_shape is None:
        return y
    shape = tuple(int(size) for size in output_shape)
    if len(shape) != y.ndim or any(
        size < least for size, least in zip(shape, y.shape, strict=True)
    ):
        raise ValueError(f"output_shape {shape} is smaller than the image {y.shape}")
    larger = np.zeros(shape, x.dtype)
    larger[tuple(map(slice, y.shape))] = y
    return larger


IMPLEMENTATIONS: tuple[tuple[str, int, Callable[..., Any]], ...] = (
    ("ConvTranspose", 1, conv_transpose),
    ("Col2Im", 18, col2im),
    ("MaxUnpool", 9, max_unpool),
)
