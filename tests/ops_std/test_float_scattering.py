"""Scattering puts each update where ONNX says, at every version, and reduces duplicates."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from fhe_core.errors import FheError

from fhe_ops_std import scattering

from . import onnx_cases
from .oracles import assert_all_same, by_module, by_reference, by_runtime

OPS = ("Scatter", "ScatterElements", "ScatterND")


@pytest.mark.parametrize("case", onnx_cases.parameters(*OPS))
def test_onnx_s_own_cases(case: Any) -> None:
    case.check(scattering.IMPLEMENTATIONS)


def elements(rng: np.random.Generator, dtype: Any, axis: int, distinct: bool) -> tuple[Any, ...]:
    """Data of three axes, with indices and updates for ScatterElements along ``axis``."""
    data = rng.integers(-9, 9, (4, 5, 6)).astype(dtype)
    shape = [3, 4, 5]
    if distinct:
        places = rng.random(data.shape).argsort(axis)  # a permutation along the axis
        indices = places[tuple(slice(size) for size in shape)]
        indices = np.where(rng.random(shape) < 0.5, indices, indices - data.shape[axis])
    else:
        indices = rng.integers(-data.shape[axis], data.shape[axis], shape)
    return data, indices, rng.integers(-9, 9, shape).astype(dtype)


VERSIONS = [(op, opset) for op, opsets in (("Scatter", (9, 10)), ("ScatterElements", (11, 13, 18)))
            for opset in opsets]  # fmt: skip


@pytest.mark.parametrize(("op", "opset"), VERSIONS)
@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_elements_without_a_reduction(op: str, opset: int, axis: int) -> None:
    """At every version; indices of both signs, none twice."""
    inputs = elements(np.random.default_rng(axis + 9), np.float32, axis, distinct=True)
    expected = by_runtime(op, *inputs, opset=opset, axis=axis)
    assert_all_same(by_module(op, *inputs, opset=opset, axis=axis), expected)


@pytest.mark.parametrize(
    ("opset", "reduction"),
    [(16, "add"), (16, "mul"), *((18, name) for name in ("add", "mul", "max", "min"))],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.int32, np.uint8])
def test_elements_with_a_reduction(opset: int, reduction: str, dtype: Any) -> None:
    """Duplicates are joined with each other and with what was there."""
    inputs = elements(np.random.default_rng(opset), dtype, 1, distinct=False)
    attributes: dict[str, Any] = {"axis": 1, "reduction": reduction}
    expected = by_runtime("ScatterElements", *inputs, opset=opset, **attributes)
    assert_all_same(
        by_module("ScatterElements", *inputs, opset=opset, **attributes), expected, rtol=1e-6
    )


@pytest.mark.parametrize("opset", [11, 13, 16, 18])
@pytest.mark.parametrize("length", [1, 2, 3])
def test_slices(opset: int, length: int) -> None:
    """Index tuples as long as the data has axes name elements, shorter ones whole slices."""
    rng = np.random.default_rng(length)
    data = rng.normal(size=(4, 5, 6)).astype(np.float32)
    flat = rng.permutation(np.prod(data.shape[:length]))[:4]
    indices = np.stack(np.unravel_index(flat, data.shape[:length]), -1).reshape(2, 2, length)
    indices -= rng.integers(0, 2, indices.shape) * np.array(data.shape[:length])
    updates = rng.normal(size=(2, 2, *data.shape[length:])).astype(np.float32)
    expected = by_runtime("ScatterND", data, indices, updates, opset=opset)
    assert_all_same(by_module("ScatterND", data, indices, updates, opset=opset), expected)


@pytest.mark.parametrize("reduction", ["add", "mul", "max", "min"])
@pytest.mark.parametrize("length", [1, 2, 3])
def test_slices_with_a_reduction(reduction: str, length: int) -> None:
    rng = np.random.default_rng(length)
    data = rng.integers(-9, 9, (2, 3, 4)).astype(np.float32)
    indices = rng.integers(0, data.shape[:length], (7, length))
    updates = rng.integers(-9, 9, (7, *data.shape[length:])).astype(np.float32)
    expected = by_reference("ScatterND", data, indices, updates, opset=18, reduction=reduction)
    got = by_module("ScatterND", data, indices, updates, opset=18, reduction=reduction)
    assert_all_same(got, expected)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_adds_up_in_single_precision(dtype: Any) -> None:
    """4096 ones: float16 would stop at 2048, bfloat16 at 256."""
    ones = np.ones(4096, dtype)
    y = scattering.scatter_elements_16(
        np.zeros(2, dtype), np.zeros(4096, np.int64), ones, reduction="add"
    )
    assert y.dtype == dtype
    assert y.astype(np.float32).tolist() == [4096, 0]


def test_nothing_to_update() -> None:
    """Without updates the result is the data, in memory of its own."""
    data = np.arange(6.0).reshape(2, 3)
    none = np.zeros((0, 3), np.int64)
    y = scattering.scatter(data, none, none.astype(data.dtype))
    assert np.array_equal(y, data)
    assert not np.shares_memory(y, data)


X = np.zeros((2, 3), np.float32)
BAD: dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]] = {
    "an index beyond the axis": ("ScatterElements", (X, np.full((1, 3), 2), X[:1]), {}),
    "an index too far below": ("ScatterElements", (X, np.full((1, 3), -3), X[:1]), {}),
    "updates of another shape": ("ScatterElements", (X, np.zeros((1, 3), int), X), {}),
    "more rows than the data": ("ScatterElements", (X, np.zeros((3, 1), int), X.T), {"axis": 1}),
    "an axis out of range": ("ScatterElements", (X, np.zeros((2, 3), int), X), {"axis": 2}),
    "no such reduction": ("ScatterElements", (X, X.astype(int), X), {"reduction": "mean"}),
    "slices of another shape": ("ScatterND", (X, np.zeros((1, 1), int), X), {}),
    "tuples that are too long": ("ScatterND", (X, np.zeros((1, 3), int), X[0, :1]), {}),
    "an index tuple outside": ("ScatterND", (X, np.array([[0, 3]]), X[0, :1]), {}),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_input_is_a_typed_error(bad: str) -> None:
    op, inputs, attributes = BAD[bad]
    with pytest.raises(FheError, match=op):
        by_module(op, *inputs, opset=18, **attributes)
