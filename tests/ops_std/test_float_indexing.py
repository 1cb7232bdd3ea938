"""Ops that choose, sort, count and accumulate compute what ONNX defines, at every version.

Held to ONNX's node cases and, beyond them, to ONNX Runtime, through `NumpyModule`.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from fhe_core.errors import FheError

from fhe_ops_std import cumulative, detection, indexing, linear, ngrams, sorting

from . import onnx_cases
from .oracles import assert_all_same, by_module, by_reference, by_runtime

MODULES = (cumulative, detection, indexing, linear, ngrams, sorting)
IMPLEMENTATIONS = tuple(row for module in MODULES for row in module.IMPLEMENTATIONS)
# Those of indexing.py are in test_float_tensor.py.
OPS = ("CumSum", "CumProd", "NonMaxSuppression", "TfIdfVectorizer", "TopK", "Unique")

X = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
YES = np.array([True, False, True])


@pytest.mark.parametrize("case", onnx_cases.parameters(*OPS))
def test_onnx_s_own_cases(case: Any) -> None:
    case.check(IMPLEMENTATIONS)


def f32(*values: Any) -> Any:
    return np.array(values, np.float32)


SETTINGS: list[tuple[str, tuple[int, ...], tuple[Any, ...], dict[str, Any], int]] = [
    ("Compress", (9, 11), (X, YES), {"axis": 1}, 1),
    ("Compress", (9, 11), (X, YES[:1]), {"axis": -1}, 1),
    ("Compress", (9, 11), (X, YES), {}, 1),
    ("NonZero", (9, 13), (X % 3,), {}, 1),
    ("NonZero", (9, 13), (X[:0],), {}, 1),
    ("NonZero", (9, 13), (X > 5,), {}, 1),
    ("OneHot", (9, 11), (np.array([[0, 3], [4, 9]]), np.array([5]), f32(-1, 2)), {}, 1),
    ("OneHot", (9, 11), (np.array([0, 3]), np.array(5), np.array([1, 7])), {"axis": 0}, 1),
    ("OneHot", (11,), (np.array([-1, -5, -6, 4]), np.array(5), f32(-1, 2)), {"axis": -2}, 1),
    ("OneHot", (9, 11), (f32(2, 0), f32(3), f32(0, 1)), {}, 1),
    ("EyeLike", (9,), (X[0],), {"k": -1}, 1),
    ("EyeLike", (9,), (X[0],), {"k": 2, "dtype": 7}, 1),
    ("EyeLike", (9,), (X[0, :0],), {"dtype": 6}, 1),
    ("Det", (11, 22), (np.cos(np.arange(96, dtype=np.float32) ** 2).reshape(2, 3, 4, 4),), {}, 1),
    ("Det", (11, 22), (f32([1, 2], [3, 4]),), {}, 1),
    ("CumSum", (11, 14), (X, np.array(1)), {}, 1),
    ("CumSum", (11, 14), (X, np.array(-1)), {"exclusive": 1}, 1),
    ("CumSum", (11, 14), (X, np.array(0)), {"reverse": 1}, 1),
    ("CumSum", (11, 14), (X, np.array(2)), {"exclusive": 1, "reverse": 1}, 1),
    ("CumSum", (11, 14), (X[:, :0], np.array(1)), {"exclusive": 1}, 1),
    ("CumSum", (11, 14), (X.astype(np.int32), np.array(1, np.int32)), {}, 1),
    ("TopK", (6, 9), (X % 5,), {"k": 2, "axis": 1}, 2),
    ("TopK", (10,), (X % 5, np.array([2])), {"axis": 1}, 2),
    ("TopK", (10,), (X % 5, np.array([3])), {}, 2),
    ("TopK", (11,), (X % 5, np.array([3])), {"largest": 0}, 2),
    ("TopK", (11,), ((X % 5).astype(np.int64) - 2, np.array([4])), {"axis": -1}, 2),
    ("TopK", (11,), (f32(1, np.inf, -np.inf, 1), np.array([4])), {}, 2),
    ("TopK", (11,), (X[:0], np.array([1])), {}, 2),
    ("Unique", (11,), (X % 5,), {}, 4),
    ("Unique", (11,), (X % 5,), {"sorted": 0}, 4),
    ("Unique", (11,), (X % 2,), {"axis": 2}, 4),
    ("Unique", (11,), (f32([3, 1], [1, 3], [3, 1]),), {"axis": 0, "sorted": 0}, 4),
    ("Unique", (11,), (f32([3, 1, 3], [1, 3, 1]),), {"axis": -1, "sorted": 0}, 4),
    ("Unique", (11,), (np.array([3, -1, 3], np.int64),), {}, 1),
]  # fmt: skip
CASES = [
    pytest.param(op, opset, inputs, attributes, outputs, id=f"{op}-{opset}-{i}")
    for i, (op, opsets, inputs, attributes, outputs) in enumerate(SETTINGS)
    for opset in opsets
]


@pytest.mark.parametrize(("op", "opset", "inputs", "attributes", "outputs"), CASES)
def test_each_version_is_onnx_runtime_s(
    op: str, opset: int, inputs: tuple[Any, ...], attributes: dict[str, Any], outputs: int
) -> None:
    asked = {"opset": opset, "outputs": outputs, **attributes}
    assert_all_same(by_module(op, *inputs, **asked), by_runtime(op, *inputs, **asked))


# Compress, NonZero, OneHot, CenterCropPad


def test_a_scalar_has_no_axis_to_be_zero_on() -> None:
    """ONNX: (0, 1) where it is not zero, and (0, 0) where it is."""
    for value, count in ((3, 1), (0, 0)):
        (got,) = by_module("NonZero", np.array(value, np.float32), opset=13)
        onnx_cases.assert_same(got, np.zeros((0, count), np.int64))


def test_a_negative_index_is_hot_from_opset_11_on() -> None:
    """Up to 10 it is outside of the range, as ONNX says (Runtime wraps it at every version)."""
    inputs = (np.array([-1, 1]), np.array(2), f32(0, 1))
    assert by_module("OneHot", *inputs, opset=9)[0].tolist() == [[0, 0], [0, 1]]
    assert by_module("OneHot", *inputs, opset=11)[0].tolist() == [[0, 1], [0, 1]]


@pytest.mark.parametrize("shape", [(2, 2, 2), (3, 5, 5), (1, 0, 9), (2, 3, 4)])
def test_cut_and_padded_evenly(shape: tuple[int, ...]) -> None:
    """By the reference; of an odd difference the end is cut, and padded, by one more."""
    for axes in ([0, 1, 2], [2, 0, -2]):
        inputs = (X, np.array(shape)[axes])
        expected = by_reference("CenterCropPad", *inputs, opset=18, axes=axes)
        assert_all_same(by_module("CenterCropPad", *inputs, opset=18, axes=axes), expected)


# Running totals


@pytest.mark.parametrize(
    "attributes", [{"exclusive": e, "reverse": r} for e in (0, 1) for r in (0, 1)]
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.uint64])
def test_running_products_are_the_reference_s(attributes: dict[str, int], dtype: Any) -> None:
    x = (X % 4 + 1).astype(dtype)
    for axis in (0, 1, -1):
        expected = by_reference("CumProd", x, np.array(axis), opset=26, **attributes)
        assert_all_same(by_module("CumProd", x, np.array(axis), opset=26, **attributes), expected)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_adds_up_in_single_precision(dtype: Any) -> None:
    """4096 ones: float16 would stop at 2048, bfloat16 at 256."""
    y = cumulative.cum_sum(np.ones(4096, dtype), np.array(0))
    assert y.dtype == dtype
    assert y[-1] == 4096


# Sorting


@pytest.mark.parametrize("largest", [0, 1])
@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.uint64, np.float16, ml_dtypes.bfloat16])
def test_the_top_of_every_type(largest: int, dtype: Any) -> None:
    """Descending or ascending; of equals the lower index first, the least integers included."""
    info = np.iinfo(dtype) if np.dtype(dtype).kind in "iu" else np.finfo(np.float16)
    low, high = (info.min, info.max) if dtype is not ml_dtypes.bfloat16 else (-1, 1)
    x = np.array([low, high, 0, high, low], dtype)
    values, indices = by_module(
        "TopK", x, np.array([5]), outputs=2, opset=24, largest=largest, sorted=1
    )
    expected = sorted(range(5), key=lambda i: (-float(x[i]) if largest else float(x[i]), i))
    assert indices.tolist() == expected
    onnx_cases.assert_same(values, x[expected])


@pytest.mark.parametrize("axis", [None, 0, 1])
@pytest.mark.parametrize("ordered", [0, 1])
def test_distinct_elements_and_slices_give_back_the_input(axis: int | None, ordered: int) -> None:
    """y[inverse] is x, x[indices] is y, the counts add up; sorted, or by first occurrence."""
    x = np.random.default_rng(5).integers(0, 2, (9, 3)).astype(ml_dtypes.bfloat16)
    attributes = {"sorted": ordered} if axis is None else {"sorted": ordered, "axis": axis}
    y, indices, inverse, counts = by_module("Unique", x, outputs=4, opset=28, **attributes)
    along, flat = (0, x.reshape(-1)) if axis is None else (axis, x)
    assert np.array_equal(np.take(y, inverse, along), flat)
    assert np.array_equal(np.take(flat, indices, along), y)
    assert counts.tolist() == np.bincount(inverse).tolist()
    rows = np.moveaxis(y, along, 0).reshape(len(counts), -1).tolist()
    assert rows == sorted(rows) if ordered else indices.tolist() == sorted(indices.tolist())


# Overlapping boxes


@pytest.mark.parametrize("opset", [10, 11])
@pytest.mark.parametrize("center_point_box", [0, 1])
@pytest.mark.parametrize("seed", range(4))
def test_chosen_boxes_are_onnx_runtime_s(opset: int, center_point_box: int, seed: int) -> None:
    """Many boxes of a few sizes, equal scores among them; corners in any order."""
    rng = np.random.default_rng(seed)
    boxes = rng.integers(0, 12, (2, 40, 4)).astype(np.float32)
    scores = rng.integers(0, 9, (2, 3, 40)).astype(np.float32)
    inputs = (boxes, scores, np.array([10]), f32(0.3), f32(2))
    asked = {"opset": opset, "center_point_box": center_point_box}
    for few in (inputs, inputs[:4], inputs[:3], inputs[:2]):
        expected = by_runtime("NonMaxSuppression", *few, **asked)
        assert_all_same(by_module("NonMaxSuppression", *few, **asked), expected)


# N-grams

POOL = {  # three 1-grams, four 2-grams, one 3-gram
    "ngram_counts": [0, 3, 11],
    "ngram_indexes": [4, 0, 2, 1, 3, 5, 6, 7],
    "pool_int64s": [2, 3, 5, 2, 3, 5, 2, 3, 5, 4, 4, 2, 3, 2],
}


@pytest.mark.parametrize("mode", ["TF", "IDF", "TFIDF"])
@pytest.mark.parametrize("lengths", [(1, 1), (1, 3), (2, 2), (3, 3)])
@pytest.mark.parametrize("skips", [0, 1, 5])
@pytest.mark.parametrize("shape", [(30,), (4, 9), (1, 2)])
def test_ngrams_are_onnx_runtime_s(
    mode: str, lengths: tuple[int, int], skips: int, shape: tuple[int, ...]
) -> None:
    """A weight belongs to an n-gram of the pool, whatever its column (ONNX's reference takes it for
    the column's)."""
    x = np.random.default_rng(6).integers(2, 6, shape)
    attributes: dict[str, Any] = {
        "mode": mode,
        "min_gram_length": lengths[0],
        "max_gram_length": lengths[1],
        "max_skip_count": skips,
        "weights": [1.0, 2.0, 3.0, 0.5, 5.0, 6.0, 7.0, 8.0],
        **POOL,
    }
    for tokens in (x, x.astype(np.int32)):
        expected = by_runtime("TfIdfVectorizer", tokens, opset=9, **attributes)
        assert_all_same(by_module("TfIdfVectorizer", tokens, opset=9, **attributes), expected)


# Errors

BOXES, SCORES = np.zeros((1, 3, 4), np.float32), np.zeros((1, 1, 3), np.float32)
BAD: dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]] = {
    "a condition beyond the axis": ("Compress", (X, np.ones(5, bool)), {"axis": 0}),
    "a condition of two axes": ("Compress", (X, np.ones((2, 1), bool)), {"axis": 0}),
    "three values": ("OneHot", (np.array([1]), np.array(2), f32(0, 1, 2)), {}),
    "a new axis out of range": ("OneHot", (np.array([1]), np.array(2), f32(0, 1)), {"axis": 3}),
    "no matrix": ("EyeLike", (X,), {}),
    "no square": ("Det", (X,), {}),
    "too few sizes": ("CenterCropPad", (X, np.array([1])), {"axes": [0, 1]}),
    "a negative size": ("CenterCropPad", (X, np.array([-1])), {"axes": [0]}),
    "an axis out of range": ("CumSum", (X, np.array(3)), {}),
    "two axes": ("CumSum", (X, np.array([0, 1])), {}),
    "more than there are": ("TopK", (X, np.array([5])), {}),
    "fewer than none": ("TopK", (X, np.array([-1])), {}),
    "no axis to sort": ("TopK", (X, np.array([1])), {"axis": 3}),
    "an overlap above 1": ("NonMaxSuppression", (BOXES, SCORES, None, f32(1.5)), {}),
    "boxes for other scores": ("NonMaxSuppression", (BOXES[:, :2], SCORES), {}),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_input_is_a_typed_error(bad: str) -> None:
    op, inputs, attributes = BAD[bad]
    with pytest.raises(FheError, match=op):
        by_module(op, *inputs, outputs=2 if op == "TopK" else 1, opset=18, **attributes)


def test_gather_elements_reads_no_element_twice_for_longer_indices() -> None:
    """NumPy would stretch data of one row over indices of three: ONNX has no such thing."""
    with pytest.raises(ValueError, match="longer than data"):
        indexing.gather_elements(np.ones((1, 2), np.float32), np.zeros((3, 2), np.int64), axis=1)
