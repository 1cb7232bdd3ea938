"""Layout: ops that rearrange, repeat, join or cut tensors and compute nothing.

The compiler runs these on its own symbolic tensors, whose leading dimension is a symbolic batch
size. So data inputs meet nothing but NumPy functions that dispatch on their argument, slices,
``shape`` and ``ndim``; sizes that could involve the batch are left to NumPy as -1.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fhe_core import OUTPUTS_WANTED, ModelError, Where
from fhe_ops_std._domains import Flag

from ._axes import counted

Array = NDArray[Any]
Parts = Array | tuple[Array, ...]


def flatten(input: Array, /, *, axis: int = 1) -> Array:
    """The matrix of input: (d0, ..., dn) with d0···d(axis-1) rows."""
    if axis != input.ndim:  # where all axes are rows
        axis = counted(axis, input.ndim)
    columns = math.prod(input.shape[axis:]) if axis > 0 else -1
    if axis == 0:
        rows: int = 1
    elif axis == 1:
        rows = input.shape[0]
    else:  # NumPy cannot find the -1 of an empty array
        rows = -1 if columns else math.prod(input.shape[:axis])
    return np.reshape(input, (rows, columns))


def reshape_5(data: Array, shape: Array, /) -> Array:
    """data with a new shape, where 0 keeps the dimension at its place and -1 is what remains."""
    return reshape_14(data, shape)


def reshape_14(data: Array, shape: Array, /, *, allowzero: Flag = 0) -> Array:
    """data with a new shape, where -1 is what remains, and 0 keeps the dimension at its place
    unless ``allowzero``."""
    target = ints(shape)
    if not allowzero:
        target = tuple(size or data.shape[i] for i, size in enumerate(target))
    return np.reshape(data, target)


def transpose(data: Array, /, *, perm: Sequence[int] | None = None) -> Array:
    """data with its axes in the order ``perm``, or reversed."""
    return np.transpose(data, None if perm is None else tuple(perm))


def squeeze_1(data: Array, /, *, axes: Sequence[int] | None = None) -> Array:
    """data without the given axes, each of size 1, or without all of size 1."""
    return np.squeeze(data, None if axes is None else tuple(axes))


def squeeze_13(data: Array, /, axes: Array | None = None) -> Array:
    """data without the given axes, each of size 1, or without all of size 1."""
    return np.squeeze(data, None if axes is None else ints(axes))


def unsqueeze_1(data: Array, /, *, axes: Sequence[int]) -> Array:
    """data with axes of size 1 inserted, so that they are ``axes`` of the result."""
    return np.expand_dims(data, tuple(axes))


def unsqueeze_13(data: Array, axes: Array, /) -> Array:
    """data with axes of size 1 inserted, so that they are ``axes`` of the result."""
    return np.expand_dims(data, ints(axes))


def concat(*inputs: Array, axis: int) -> Array:
    """The inputs one after the other along ``axis``."""
    return np.concatenate(inputs, axis=axis)


def split_2(
    input: Array,
    /,
    *,
    axis: int = 0,
    split: Sequence[int] | None = None,
    wanted: tuple[bool, ...] = OUTPUTS_WANTED,
) -> Parts:
    """Views of input along ``axis``, of the sizes ``split``, or as many equal ones as the node has
    outputs."""
    return _parts(input, axis, _equal_sizes(input, axis, len(wanted)) if split is None else split)


def split_13(
    input: Array,
    /,
    split: Array | None = None,
    *,
    axis: int = 0,
    wanted: tuple[bool, ...] = OUTPUTS_WANTED,
) -> Parts:
    """Views of input along ``axis``, of the sizes ``split``, or as many equal ones as the node has
    outputs."""
    sizes = _equal_sizes(input, axis, len(wanted)) if split is None else ints(split)
    return _parts(input, axis, sizes)


def split_18(
    input: Array,
    /,
    split: Array | None = None,
    *,
    axis: int = 0,
    num_outputs: int | None = None,
    wanted: tuple[bool, ...] = OUTPUTS_WANTED,
) -> Parts:
    """Views of input along ``axis``, of the sizes ``split``, or ``num_outputs`` of one size, of
    which the last is smaller where that does not divide."""
    if split is not None:
        return _parts(input, axis, ints(split))
    if num_outputs is None:
        return _parts(input, axis, None)
    if num_outputs != (len(wanted) or num_outputs) or num_outputs < 1:
        raise ModelError(
            f"num_outputs is {num_outputs}",
            where=Where(op="Split"),
            expected=f"the number of the node's outputs, {len(wanted)}",
            fix="correct the attribute, or export the model again",
        )
    length = input.shape[axis]
    size = -(-length // num_outputs)
    return _parts(input, axis, [min(size, max(length - size * i, 0)) for i in range(num_outputs)])


def _equal_sizes(x: Array, axis: int, number: int) -> list[int] | None:
    """None where nobody says how many parts, or where they would differ."""
    length = x.shape[axis]
    return None if number == 0 or length % number else [length // number] * number


def _parts(x: Array, axis: int, sizes: Sequence[int] | None) -> Parts:
    if sizes is None:
        raise ModelError(
            "the sizes of the parts are missing",
            where=Where(op="Split"),
            expected="split, num_outputs, or an axis that the outputs divide",
            fix="give the node the sizes, or export the model at opset 18 or later",
        )
    before = (slice(None),) * counted(axis, x.ndim)
    stops = tuple(itertools.accumulate(sizes, initial=0))
    if stops[-1] != x.shape[axis]:
        raise ModelError(
            "the sizes of the parts do not add up to the axis",
            where=Where(op="Split"),
            expected=f"a sum of {x.shape[axis]}",
            got=f"{tuple(sizes)}",
            fix="correct the sizes in the model",
        )
    parts = tuple(x[(*before, slice(a, b))] for a, b in itertools.pairwise(stops))
    return parts if len(parts) > 1 else parts[0]


def expand(input: Array, shape: Array, /) -> Array:
    """input broadcast with ``shape``, in both directions: a 1 on either side gives way."""
    target = ints(shape)
    target = (1,) * (input.ndim - len(target)) + target
    offset = len(target) - input.ndim
    return np.broadcast_to(
        input,
        tuple(
            input.shape[i - offset] if size == 1 and i >= offset else size
            for i, size in enumerate(target)
        ),
    )


def tile(input: Array, repeats: Array, /) -> Array:
    """input repeated ``repeats[i]`` times along axis i."""
    return np.tile(input, ints(repeats))


def depth_to_space_1(input: Array, /, *, blocksize: int) -> Array:
    """Channels moved into blocks of pixels, (N, C, H, W) to (N, C/b², H·b, W·b)."""
    return depth_to_space_11(input, blocksize=blocksize)


def depth_to_space_11(
    input: Array, /, *, blocksize: int, mode: Literal["DCR", "CRD"] = "DCR"
) -> Array:
    """Channels moved into blocks of pixels, (N, C, H, W) to (N, C/b², H·b, W·b); the channel in
    the block is the slow part of C (``DCR``) or the fast one (``CRD``)."""
    n, c, h, w = input.shape
    depth = c // blocksize**2
    if mode == "DCR":
        blocks = np.reshape(input, (n, blocksize, blocksize, depth, h, w))
        pixels = np.transpose(blocks, (0, 3, 4, 1, 5, 2))
    else:
        blocks = np.reshape(input, (n, depth, blocksize, blocksize, h, w))
        pixels = np.transpose(blocks, (0, 1, 4, 2, 5, 3))
    return np.reshape(pixels, (n, depth, h * blocksize, w * blocksize))


def space_to_depth_1(input: Array, /, *, blocksize: int) -> Array:
    """Blocks of pixels moved into channels, (N, C, H, W) to (N, C·b², H/b, W/b)."""
    return space_to_depth_28(input, blocksize=blocksize)


def space_to_depth_28(
    input: Array, /, *, blocksize: int, mode: Literal["DCR", "CRD"] = "DCR"
) -> Array:
    """Blocks of pixels moved into channels, (N, C, H, W) to (N, C·b², H/b, W/b); the pixel in the
    block becomes the slow part of the channel (``DCR``) or the fast one (``CRD``)."""
    n, c, h, w = input.shape
    rows, columns = h // blocksize, w // blocksize
    blocks = np.reshape(input, (n, c, rows, blocksize, columns, blocksize))
    order = (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4)
    return np.reshape(np.transpose(blocks, order), (n, c * blocksize**2, rows, columns))


def pad_2(
    data: Array,
    /,
    *,
    mode: Literal["constant", "reflect", "edge", "wrap"] = "constant",
    pads: Sequence[int],
    value: float = 0.0,
) -> Array:
    """data with ``pads`` more elements (fewer, if negative) at the begin and end of each axis."""
    return _pad(data, tuple(pads), mode, value, None)


def pad_11(
    data: Array,
    pads: Array,
    /,
    constant_value: Array | None = None,
    *,
    mode: Literal["constant", "reflect", "edge", "wrap"] = "constant",
) -> Array:
    """data with ``pads`` more elements (fewer, if negative) at the begin and end of each axis."""
    return pad_18(data, pads, constant_value, mode=mode)


def pad_18(
    data: Array,
    pads: Array,
    /,
    constant_value: Array | None = None,
    axes: Array | None = None,
    *,
    mode: Literal["constant", "reflect", "edge", "wrap"] = "constant",
) -> Array:
    """data with ``pads`` more elements (fewer, if negative) at the begin and end of each of
    ``axes``; pads: (2·axes,), all begins first. wrap needs opset 19."""
    value = 0 if constant_value is None else np.asarray(constant_value).reshape(-1)[0]
    return _pad(data, ints(pads), mode, value, None if axes is None else ints(axes))


def _pad(
    x: Array, pads: Sequence[int], mode: str, value: Any, axes: tuple[int, ...] | None
) -> Array:
    """Cut what ``pads`` takes away, then pad: what is padded repeats only what is left."""
    axes = tuple(range(x.ndim)) if axes is None else tuple(counted(axis, x.ndim) for axis in axes)
    cut, widths = [slice(None)] * x.ndim, [(0, 0)] * x.ndim
    for axis, begin, end in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True):
        cut[axis] = slice(-begin if begin < 0 else None, end if end < 0 else None)
        widths[axis] = (max(begin, 0), max(end, 0))
    if cut != [slice(None)] * x.ndim:
        x = x[tuple(cut)]
    if not any(itertools.chain(*widths)):
        return x
    if mode == "constant":
        return np.pad(x, widths, mode="constant", constant_values=value)
    if mode not in ("reflect", "edge", "wrap"):
        raise ModelError(
            "mode is not one that ONNX knows",
            where=Where(op="Pad"),
            expected="constant, reflect, edge or wrap",
            got=mode,
            fix="export the model with one of these modes",
        )
    return np.pad(x, widths, mode=mode)  # type: ignore[call-overload]


def ints(values: Array) -> tuple[int, ...]:
    """The integers of an input that holds a shape, axes or sizes."""
    return tuple(np.asarray(values).reshape(-1).tolist())


IMPLEMENTATIONS: tuple[tuple[str, int, Callable[..., Any]], ...] = (
    ("Flatten", 1, flatten),
    ("Reshape", 5, reshape_5),
    ("Reshape", 14, reshape_14),
    ("Transpose", 1, transpose),
    ("Squeeze", 1, squeeze_1),
    ("Squeeze", 13, squeeze_13),
    ("Unsqueeze", 1, unsqueeze_1),
    ("Unsqueeze", 13, unsqueeze_13),
    ("Concat", 4, concat),
    ("Split", 2, split_2),
    ("Split", 13, split_13),
    ("Split", 18, split_18),
    ("Expand", 8, expand),
    ("Tile", 6, tile),
    ("DepthToSpace", 1, depth_to_space_1),
    ("DepthToSpace", 11, depth_to_space_11),
    ("SpaceToDepth", 1, space_to_depth_1),
    ("SpaceToDepth", 28, space_to_depth_28),
    ("Pad", 2, pad_2),
    ("Pad", 11, pad_11),
    ("Pad", 18, pad_18),
)
