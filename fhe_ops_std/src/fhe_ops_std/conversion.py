"""Ops of the default ONNX domain that convert, produce or describe a tensor, in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fhe_core import ModelError
from fhe_ops_std._domains import Flag

from ._casting import converted
from ._types import dtype_numbered

Array = NDArray[Any]

# --- types ---


def cast_6(input: Array, /, *, to: int) -> Array:
    """ONNX Cast-6 to -13: the values in the dtype that TensorProto.DataType numbers ``to``.

    UnsupportedOpError for strings, here and below.
    """
    return converted(input, dtype_numbered(to))


def cast_19(input: Array, /, *, to: int, saturate: Flag = 1) -> Array:
    """ONNX Cast-19: Cast-6, where ``saturate`` limits 8-bit floats to their largest one."""
    return converted(input, dtype_numbered(to), saturate=bool(saturate))


def cast_24(
    input: Array,
    /,
    *,
    to: int,
    saturate: Flag = 1,
    round_mode: Literal["up", "down", "nearest"] = "up",
) -> Array:
    """ONNX Cast-28: Cast-19, where ``round_mode`` (up, down, nearest) concerns float8e8m0."""
    dtype = dtype_numbered(to)
    return converted(input, dtype, saturate=bool(saturate), round_mode=round_mode)


def cast_like_15(input: Array, target_type: Array, /) -> Array:
    """ONNX CastLike-15: the values in the dtype of ``target_type``."""
    return converted(input, target_type.dtype)


def cast_like_19(input: Array, target_type: Array, /, *, saturate: Flag = 1) -> Array:
    """ONNX CastLike-19: CastLike-15; ``saturate`` as for Cast-19."""
    return converted(input, target_type.dtype, saturate=bool(saturate))


def cast_like_24(
    input: Array,
    target_type: Array,
    /,
    *,
    saturate: Flag = 1,
    round_mode: Literal["up", "down", "nearest"] = "up",
) -> Array:
    """ONNX CastLike-25: CastLike-19; ``round_mode`` as for Cast-24."""
    dtype = target_type.dtype
    return converted(input, dtype, saturate=bool(saturate), round_mode=round_mode)


# --- values ---


def identity(input: Any, /) -> Any:
    """ONNX Identity-25: the input itself, of any type."""
    return input


def constant_1(*, value: Array) -> Array:
    """ONNX Constant-1 and -9: ``value``."""
    return value


def constant_11(*, value: Array | None = None, sparse_value: Array | None = None) -> Array:
    """ONNX Constant-11: ``value`` or ``sparse_value``, which the graph reader has made dense."""
    given = sparse_value if value is None else value
    if given is None:
        raise ModelError(
            "this Constant has no value",
            expected="exactly one of its attributes",
            got="none",
            fix="export the model again",
        )
    return given


def constant_12(
    *,
    value: Array | None = None,
    sparse_value: Array | None = None,
    value_float: float | None = None,
    value_floats: Sequence[float] | None = None,
    value_int: int | None = None,
    value_ints: Sequence[int] | None = None,
    value_string: str | None = None,
    value_strings: Sequence[str] | None = None,
) -> Array:
    """ONNX Constant-25: the one attribute given: float32, int64 or object (strings); 0-d or 1-D."""
    for given, dtype in (
        (value_float, np.float32),
        (value_floats, np.float32),
        (value_int, np.int64),
        (value_ints, np.int64),
        (value_string, np.object_),
        (value_strings, np.object_),
    ):
        if given is not None:
            return np.array(given, dtype=dtype)
    return constant_11(value=value, sparse_value=sparse_value)


# --- dropout ---
# The second output, the mask of what is kept, shares one element unless something is dropped.


def dropout_6(data: Array, /, *, is_test: Flag = 0, ratio: float = 0.5) -> tuple[Array, Array]:
    """ONNX Dropout-6: the data, unless ``is_test`` is 0; and the mask in the data's dtype."""
    output, mask = _kept(data) if is_test else _dropped(data, ratio, None)
    return output, mask.astype(data.dtype)


def dropout_7(data: Array, /, *, ratio: float = 0.5) -> tuple[Array, Array]:
    """ONNX Dropout-7: the data, and a mask of ones in the data's dtype."""
    return data, np.broadcast_to(data.dtype.type(1), data.shape)


def dropout_10(data: Array, /, *, ratio: float = 0.5) -> tuple[Array, Array]:
    """ONNX Dropout-10: the data, and a mask that is all true."""
    return _kept(data)


def dropout_12(
    data: Array,
    /,
    ratio: Array | None = None,
    training_mode: Array | None = None,
    *,
    seed: int | None = None,
) -> tuple[Array, Array]:
    """ONNX Dropout-22: the data and the mask.

    In training mode a share ``ratio`` (0.5) of the elements, drawn at random, is 0, and the others
    are divided by 1 - ratio.
    """
    if training_mode is None or not training_mode:
        return _kept(data)
    return _dropped(data, 0.5 if ratio is None else float(ratio), seed)


def _kept(data: Array) -> tuple[Array, Array]:
    return data, np.broadcast_to(np.bool_(True), data.shape)


def _dropped(data: Array, ratio: float, seed: int | None) -> tuple[Array, Array]:
    # The generator of ONNX's reference, so that one seed drops the same elements.
    mask = np.asarray(np.random.RandomState(seed).uniform(size=data.shape) >= ratio)
    scale = data.dtype.type(1 / (1 - ratio))
    return np.where(mask, data * scale, data.dtype.type(0)), mask


# --- shapes ---


def shape_1(data: Array, /) -> Array:
    """ONNX Shape-1 and -13: the shape, 1-D int64."""
    return np.array(data.shape, dtype=np.int64)


def shape_15(data: Array, /, *, start: int = 0, end: int | None = None) -> Array:
    """ONNX Shape-25: the shape from axis ``start`` up to ``end``, 1-D int64."""
    return np.array(data.shape[start:end], dtype=np.int64)


def size(data: Array, /) -> Array:
    """ONNX Size-25: the number of elements, 0-d int64."""
    return np.array(data.size, dtype=np.int64)


IMPLEMENTATIONS: tuple[tuple[str, int, Callable[..., Any]], ...] = (
    ("Cast", 6, cast_6),
    ("Cast", 19, cast_19),
    ("Cast", 24, cast_24),
    ("CastLike", 15, cast_like_15),
    ("CastLike", 19, cast_like_19),
    ("CastLike", 24, cast_like_24),
    ("Identity", 1, identity),
    ("Constant", 1, constant_1),
    ("Constant", 11, constant_11),
    ("Constant", 12, constant_12),
    ("Dropout", 6, dropout_6),
    ("Dropout", 7, dropout_7),
    ("Dropout", 10, dropout_10),  # the interface of 7, but the mask is Boolean
    ("Dropout", 12, dropout_12),
    ("Shape", 1, shape_1),
    ("Shape", 15, shape_15),
    ("Size", 1, size),
)
