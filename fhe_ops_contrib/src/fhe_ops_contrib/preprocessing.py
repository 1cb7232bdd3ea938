"""Ops that prepare features, in NumPy float: rescale, impute, normalize, select, join.

Whole-array functions only, without masks and ``out=``: where these ops run on the client, before
encryption or after decryption, the compiler traces them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from fhe_ops_contrib._checks import Array, as_matrix, misfit, per_feature, real


def scaler(
    x: Array,
    /,
    *,
    offset: Sequence[float] | None = None,
    scale: Sequence[float] | None = None,
) -> Array:
    """(x - offset)·scale as float32; both one number, or one for each feature, the last dimension.

    Raises:
        ModelError: ``offset`` and ``scale`` differ in length, or do not fit x.
    """
    if offset is not None and scale is not None and len(offset) != len(scale):
        raise misfit(
            "Scaler",
            "the attributes 'offset' and 'scale' differ in length",
            expected="as many values in both",
            got=f"{len(offset)} in 'offset', {len(scale)} in 'scale'",
            fix="make 'scale' and 'offset' equally long",
        )
    dtype = real(x)
    y = x.astype(dtype)
    if offset is not None:
        y = y - per_feature(offset, x, dtype, op="Scaler", attribute="offset")
    if scale is not None:
        y = y * per_feature(scale, x, dtype, op="Scaler", attribute="scale")
    return y.astype(np.float32)


def binarizer(x: Array, /, *, threshold: float = 0.0) -> Array:
    """1 where x > threshold, else (NaN included) 0, in x's type."""
    one, zero = np.ones((), x.dtype), np.zeros((), x.dtype)
    return np.where(np.greater(x, threshold), one, zero)


def imputer(
    x: Array,
    /,
    *,
    imputed_value_floats: Sequence[float] | None = None,
    imputed_value_int64s: Sequence[int] | None = None,
    replaced_value_float: float = 0.0,
    replaced_value_int64: int = 0,
) -> Array:
    """x with the imputed value in place of each element equal to the replaced one (NaN: each NaN).

    One imputed value, or one for each feature (the last dimension). Whichever imputed values are
    given, floats or integers, the replaced value is that of the same kind.

    Raises:
        ModelError: the imputed values are missing, given twice, too many, or none that x can hold.
    """
    op, floating = "Imputer", bool(imputed_value_floats)
    if floating == bool(imputed_value_int64s):
        raise misfit(
            op,
            "the imputed values are not in one attribute",
            expected="either 'imputed_value_floats' or 'imputed_value_int64s'",
            got="both" if floating else "neither",
            fix="set one and leave the other out",
        )
    attribute = "imputed_value_floats" if floating else "imputed_value_int64s"
    values: Sequence[float] = imputed_value_floats or imputed_value_int64s or ()
    exact = per_feature(values, x, np.float64 if floating else np.int64, op=op, attribute=attribute)
    imputed = exact.astype(x.dtype)
    if x.dtype.kind in "iu" and np.any(imputed != exact):
        raise misfit(
            op,
            f"the attribute {attribute!r} holds what {x.dtype} cannot",
            expected=f"values of {x.dtype}",
            got=", ".join(map(str, values)),
            fix=f"correct {attribute!r}, or cast the input",
        )
    replaced = replaced_value_float if floating else replaced_value_int64
    missing = np.isnan(x) if math.isnan(replaced) else np.equal(x, replaced)
    return np.where(missing, imputed, x)


def normalizer(x: Array, /, *, norm: Literal["MAX", "L1", "L2"] = "MAX") -> Array:
    """Each row of x: (N, C) or (C,), as float32, over its largest element (MAX), the sum of its
    absolute values (L1) or the root of its sum of squares (L2); unchanged where that is 0.

    ONNX writes sum(x) for L1; ONNX Runtime and ONNX's reference sum absolute values. They part over
    the largest, which is ONNX's and Runtime's max(x) here, and the reference's max(|x|).

    Raises:
        ModelError: ``norm`` is none of the three, or x has more dimensions.
    """
    if norm not in _NORMS:
        raise misfit(
            "Normalizer",
            "the attribute 'norm' names no norm",
            expected=", ".join(_NORMS),
            got=repr(norm),
            fix="correct 'norm'",
        )
    rows = as_matrix(x, "Normalizer")
    rows = rows.astype(real(x))
    length = _NORMS[norm](rows)
    y = rows / np.where(np.equal(length, 0), 1, length)
    return y.astype(np.float32) if x.ndim == 2 else y.astype(np.float32).reshape(-1)


def _largest(rows: Array) -> Array:
    return np.max(rows, axis=1, keepdims=True)


def _l1(rows: Array) -> Array:
    return np.sum(np.abs(rows), axis=1, keepdims=True)


def _l2(rows: Array) -> Array:
    return np.sqrt(np.sum(np.square(rows), axis=1, keepdims=True))


_NORMS: dict[str, Callable[[Array], Array]] = {"MAX": _largest, "L1": _l1, "L2": _l2}


def feature_vectorizer(*x: Array, inputdimensions: Sequence[int] | None = None) -> Array:
    """The inputs, (N, C) or (C,) each, side by side as float32: (N, sum of ``inputdimensions``).

    An input with more columns is cut, one with fewer is filled up with zeros, as ONNX Runtime does.
    Without ``inputdimensions`` each has its own width.

    Raises:
        ModelError: not one dimension for each input, or a negative one; an input of another rank.
    """
    op = "FeatureVectorizer"
    rows = [as_matrix(one, op) for one in x]
    widths = [one.shape[1] for one in rows] if inputdimensions is None else inputdimensions
    if len(widths) != len(rows) or min(widths, default=0) < 0:
        raise misfit(
            op,
            "the attribute 'inputdimensions' does not fit the inputs",
            expected=f"{len(rows)} widths, one for each input",
            got=str(list(widths)),
            fix="correct 'inputdimensions'",
        )
    return np.concatenate(
        [_of_width(one, n).astype(np.float32) for one, n in zip(rows, widths, strict=True)], axis=1
    )


def _of_width(rows: Array, width: int) -> Array:
    missing = width - rows.shape[1]
    if missing > 0:
        return np.pad(rows, ((0, 0), (0, missing)))
    return rows[:, :width] if missing else rows


def array_feature_extractor(x: Array, y: Array, /) -> Array:
    """The elements of the last dimension of x: (..., F) at the places y, flattened: (..., n).

    A vector x counts as one row: the result is (1, n).

    Raises:
        ModelError: y is empty or leaves x.
    """
    places = y.reshape(-1)
    length = x.shape[-1]
    if not places.size or places.min() < 0 or places.max() >= length:
        raise misfit(
            "ArrayFeatureExtractor",
            "the indices y do not lie in the last dimension of x",
            expected=f"at least one index from 0 to {length - 1}",
            got=f"{places.min()} to {places.max()}" if places.size else "none",
            fix="correct the indices",
        )
    return np.take(x.reshape(1, -1) if x.ndim == 1 else x, places, axis=-1)


IMPLEMENTATIONS: tuple[tuple[str, int, Callable[..., Any]], ...] = (
    ("Scaler", 1, scaler),
    ("Binarizer", 1, binarizer),
    ("Imputer", 1, imputer),
    ("Normalizer", 1, normalizer),
    ("FeatureVectorizer", 1, feature_vectorizer),
    ("ArrayFeatureExtractor", 1, array_feature_extractor),
)
