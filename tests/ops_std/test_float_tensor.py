"""The NumPy implementations of tensor ops compute what ONNX defines.

Linear, pooling, normalization, layout and indexing ops: held to ONNX's own node tests, and to ONNX
Runtime where there are many settings or an interface is old.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from fhe_core.errors import FheError, ModelError, UnsupportedOpError

from fhe_ops_std import indexing, layout, linear, normalization, pooling

from . import onnx_cases
from .oracles import assert_all_same, by_runtime

MODULES = (linear, pooling, normalization, layout, indexing)
IMPLEMENTATIONS = tuple(row for module in MODULES for row in module.IMPLEMENTATIONS)
OPS = tuple(sorted({op for op, _, _ in IMPLEMENTATIONS}))

COUNTED = "the sizes follow from the node's number of outputs, which no implementation is told"
EXCLUDED = {
    "test_split_equal_parts_1d_opset13": COUNTED,
    "test_split_equal_parts_2d_opset13": COUNTED,
    "test_split_equal_parts_default_axis_opset13": COUNTED,
}


@pytest.mark.parametrize("case", onnx_cases.parameters(*OPS, exclude=EXCLUDED))
def test_onnx_s_own_cases(case: Any) -> None:
    """Values, dtypes and shapes are those of ONNX's node tests; inputs are read-only."""
    case.check(IMPLEMENTATIONS)


def test_onnx_s_own_cases_are_all_there() -> None:
    """222 cases with onnx 1.23; a collection that breaks must not pass as an empty one."""
    found = onnx_cases.cases(*OPS)
    assert len(found) >= 200
    assert {case.op_type for case in found} == set(OPS) - {"GlobalLpPool"}


# ONNX Runtime as a further judge


def f32(value: Any) -> Any:
    return np.array(value, np.float32)


def compute(op: str, *inputs: Any, opset: int = 17, **attributes: Any) -> tuple[Any, ...]:
    function = onnx_cases.implementation_for(IMPLEMENTATIONS, op, opset)
    return onnx_cases.run(function, inputs, attributes)


def random_windows(rng: np.random.Generator, rank: int, *, pooling: bool) -> dict[str, Any]:
    """Attributes of a window that fits 9 elements or more on each axis.

    Left out is where Runtime departs from ONNX: it has no dilation with SAME (Conv refuses, pooling
    forgets it), pools from inside the image where SAME meets a stride beyond the kernel, and lets
    ceil_mode change VALID.
    """
    kernel, strides = rng.integers(1, 4, rank), rng.integers(1, 4, rank)
    dilations = rng.integers(1, 3, rank)
    kind = rng.choice(["pads", "none", "SAME_UPPER", "SAME_LOWER", "VALID"], p=[0.4] + [0.15] * 4)
    settings: dict[str, Any] = {}
    if kind == "pads":
        # Runtime refuses pooling pads that are not smaller than the kernel.
        settings["pads"] = [*rng.integers(0, kernel).tolist(), *rng.integers(0, kernel).tolist()]
    elif kind != "none":
        settings["auto_pad"] = str(kind)
    if kind.startswith("SAME"):
        dilations = np.ones(rank, int)
        strides = np.minimum(strides, kernel) if pooling else strides
    if pooling and kind in ("pads", "none"):
        settings["ceil_mode"] = int(rng.integers(0, 2))
    return settings | {
        "kernel_shape": kernel.tolist(),
        "strides": strides.tolist(),
        "dilations": dilations.tolist(),
    }


SETTINGS = [(rank, seed) for rank in (1, 2, 3) for seed in range(25)]


@pytest.mark.parametrize(("rank", "seed"), SETTINGS)
def test_conv_is_onnx_runtime_s(rank: int, seed: int) -> None:
    rng = np.random.default_rng((rank, seed))
    group = int(rng.choice([1, 1, 2, 3]))
    depth, maps = int(rng.integers(1, 4)), group * int(rng.integers(1, 4))
    settings = random_windows(rng, rank, pooling=False)
    n, sizes = int(rng.integers(1, 4)), rng.integers(9, 14, rank).tolist()
    x = rng.normal(size=(n, group * depth, *sizes)).astype(np.float32)
    w = rng.normal(size=(maps, depth, *settings["kernel_shape"])).astype(np.float32)
    inputs = (x, w, rng.normal(size=maps).astype(np.float32))[: int(rng.integers(2, 4))]
    settings["group"] = group
    assert_all_same(compute("Conv", *inputs, **settings), by_runtime("Conv", *inputs, **settings))


@pytest.mark.parametrize(("rank", "seed"), SETTINGS)
def test_max_pool_is_onnx_runtime_s(rank: int, seed: int) -> None:
    """Values and indices, also where maxima are equal: the elements are few whole numbers."""
    rng = np.random.default_rng((rank, seed))
    settings = random_windows(rng, rank, pooling=True)
    settings["storage_order"] = int(rng.integers(0, 2)) if rank > 1 else 0
    x = rng.integers(1, 9, (2, 3, *rng.integers(9, 14, rank))).astype(np.float32)
    assert_all_same(
        compute("MaxPool", x, **settings), by_runtime("MaxPool", x, outputs=2, **settings)
    )


@pytest.mark.parametrize(("rank", "seed"), SETTINGS)
def test_average_pool_is_onnx_runtime_s(rank: int, seed: int) -> None:
    rng = np.random.default_rng((rank, seed))
    settings = random_windows(rng, rank, pooling=True)
    settings["count_include_pad"] = int(rng.integers(0, 2))
    x = rng.normal(size=(2, 3, *rng.integers(9, 14, rank))).astype(np.float32)
    assert_all_same(
        compute("AveragePool", x, opset=19, **settings),
        by_runtime("AveragePool", x, opset=19, **settings),
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.float32])
def test_padding_is_never_the_maximum(dtype: Any) -> None:
    """Not even where the maximum is the lowest number that there is, which padding could equal."""
    lowest = -np.inf if dtype is np.float32 else np.iinfo(dtype).min
    x = np.full((1, 2, 3, 3), lowest, dtype)
    y, index = compute("MaxPool", x, kernel_shape=[3, 3], pads=[2, 2, 2, 2])
    assert np.array_equal(y, np.full((1, 2, 5, 5), lowest, dtype))
    assert np.array_equal(index // 9, np.arange(2)[:, None, None] + np.zeros(y.shape, int))
    assert index[0, 0, 0, 0] == 0
    assert index[0, 1, 4, 4] == 17


def test_old_poolings_are_the_new_one_with_less() -> None:
    x = np.random.default_rng(1).normal(size=(1, 2, 7, 7)).astype(np.float32)
    window: dict[str, Any] = {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]}
    for op, opset, outputs, more in (
        ("AveragePool", 7, 1, {"count_include_pad": 1}),
        ("AveragePool", 10, 1, {"ceil_mode": 1}),
        ("MaxPool", 7, 1, {}),
        ("MaxPool", 8, 2, {"storage_order": 1}),
    ):
        got = compute(op, x, opset=opset, **window, **more)
        assert_all_same(got, by_runtime(op, x, outputs=outputs, opset=opset, **window, **more))
    assert_all_same(
        compute("AveragePool", x, opset=6, **window), list(compute("AveragePool", x, **window))
    )


@pytest.mark.parametrize(
    ("shape", "kernel", "settings"),
    [
        ((2, 2, 61, 67), (4, 2, 3, 3), {}),
        ((7, 2, 123, 129), (4, 1, 3, 3), {"group": 2}),
        ((1, 2, 50003), (4, 2, 3), {}),
        ((9, 8, 60, 61), (8, 1, 3, 3), {"group": 8}),
        ((1, 3, 97, 201), (5, 3, 7, 7), {"pads": [3, 2, 1, 4], "strides": [2, 3]}),
        ((1, 4, 101, 301), (6, 2, 3, 5), {"pads": [9, 0, 9, 2], "dilations": [4, 2], "group": 2}),
        ((1, 2, 9, 300001), (2, 1, 2, 2), {"pads": [0, 1, 3, 0], "strides": [3, 1], "group": 2}),
        ((3, 90, 55, 57), (90, 1, 3, 3), {"pads": [1] * 4, "group": 90}),
    ],
)
def test_large_convolution_is_the_same_in_blocks(
    shape: tuple[int, ...], kernel: tuple[int, ...], settings: dict[str, Any]
) -> None:
    """Blocks of samples, groups and rows, which need not divide the image, join without a seam.

    Each with what it sees of the padding: all of it, or nothing else.
    """
    rng = np.random.default_rng(2)
    x, w = (rng.normal(size=size).astype(np.float32) for size in (shape, kernel))
    inputs = (x, w, rng.normal(size=kernel[0]).astype(np.float32))
    assert_all_same(compute("Conv", *inputs, **settings), by_runtime("Conv", *inputs, **settings))


def test_half_precision_adds_up_in_single_precision() -> None:
    """4096 ones and one more: float16 would stop at 2048."""
    x = np.ones((1, 1, 4097), np.float16)
    (y,) = compute("Conv", x, x)
    assert y.dtype == np.float16
    assert y.item() == 4096
    (mean,) = compute("AveragePool", x, kernel_shape=[4097])
    assert mean.item() == 1
    (mean,) = compute("GlobalAveragePool", x)
    assert mean.item() == 1


# Interfaces of older opsets

X = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
C3 = tuple(np.array(v, np.float32) for v in ([1, 2, 3], [0, 1, 0], [2, 4, 6], [1, 4, 9]))
I64 = np.array([1, 2], np.int64)

OLD: list[tuple[str, int, tuple[Any, ...], dict[str, Any], int]] = [
    ("GlobalLpPool", 7, (X,), {}, 1),
    ("LpPool", 7, (X,), {"kernel_shape": [2], "pads": [1, 0], "p": 3}, 1),
    ("LpPool", 11, (X,), {"kernel_shape": [3], "auto_pad": "SAME_UPPER", "p": 1}, 1),
    ("MeanVarianceNormalization", 9, (X[..., None],), {}, 1),
    ("Gemm", 7, (X[0], X[0].T.copy(), f32([[1], [2], [3]])), {"alpha": 0.5, "beta": 2.0}, 1),
    ("Gemm", 9, (X[0], X[1], f32([1])), {"transA": 1}, 1),
    ("BatchNormalization", 7, (X, *C3), {"epsilon": 0.01}, 1),
    ("BatchNormalization", 9, (X, *C3), {}, 1),
    ("Reshape", 5, (X, np.array([0, -1, 2])), {}, 1),
    ("Squeeze", 1, (X[:, None, :, :, None].copy(),), {"axes": [1, 4]}, 1),
    ("Squeeze", 1, (X[:, None].copy(),), {}, 1),
    ("Squeeze", 11, (X[:, None].copy(),), {"axes": [-3]}, 1),
    ("Unsqueeze", 1, (X,), {"axes": [0, 4]}, 1),
    ("Unsqueeze", 11, (X,), {"axes": [-1, 1]}, 1),
    ("Slice", 1, (X,), {"starts": [0, -3], "ends": [1, 99], "axes": [0, 2]}, 1),
    ("Slice", 1, (X,), {"starts": [1, 0, 1], "ends": [2, -1, 3]}, 1),
    ("Slice", 10, (X, I64, I64 + 9, np.array([1, 2])), {}, 1),
    ("Split", 2, (X,), {"axis": 2, "split": [1, 3]}, 2),
    ("Split", 11, (X,), {"axis": -1, "split": [2, 2]}, 2),
    ("Split", 13, (X, np.array([2, 1])), {"axis": 1}, 2),
    ("Pad", 2, (X,), {"pads": [0, 1, 2, 0, 0, 1], "value": 1.5}, 1),
    ("Pad", 2, (X,), {"pads": [0, 0, 2, 0, 0, 1], "mode": "reflect"}, 1),
    ("Pad", 11, (X, np.array([0, 1, 0, 1, 0, 2]), np.array(2, np.float32)), {}, 1),
    ("Pad", 13, (X, np.array([0, 1, 0, 1, 0, 2])), {"mode": "edge"}, 1),
    (
        "DepthToSpace",
        7,
        (np.arange(48.0, dtype=np.float32).reshape(1, 8, 2, 3),),
        {"blocksize": 2},
        1,
    ),
    (
        "SpaceToDepth",
        7,
        (np.arange(48.0, dtype=np.float32).reshape(1, 2, 4, 6),),
        {"blocksize": 2},
        1,
    ),
    ("GatherND", 11, (X, np.array([[0, 1], [-1, 2]])), {}, 1),
    ("OneHot", 9, (np.array([0, 2, 4]), np.array(3), f32([1, 2])), {"axis": 0}, 1),
    ("Range", 11, (np.array(10), np.array(4), np.array(-2)), {}, 1),
    ("Range", 11, tuple(map(f32, (1, 2, 0.1))), {}, 1),
]


@pytest.mark.parametrize(
    ("op", "opset", "inputs", "attributes", "outputs"),
    OLD,
    ids=[f"{op}-{opset}-{i}" for i, (op, opset, *_) in enumerate(OLD)],
)
def test_older_interfaces_are_onnx_runtime_s(
    op: str, opset: int, inputs: tuple[Any, ...], attributes: dict[str, Any], outputs: int
) -> None:
    assert_all_same(
        compute(op, *inputs, opset=opset, **attributes),
        by_runtime(op, *inputs, outputs=outputs, opset=opset, **attributes),
    )


def test_batch_normalization_of_each_element() -> None:
    """``spatial=0`` (opset 7 and 8): one mean, variance, scale and offset for each element."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(4, 3, 2)).astype(np.float32)
    scale, b, mean, var = rng.uniform(1, 2, size=(4, 3, 2)).astype(np.float32)
    (y,) = compute("BatchNormalization", x, scale, b, mean, var, opset=7, spatial=0)
    onnx_cases.assert_same(
        y, scale * (x - mean) / np.sqrt(var + f32(1e-5)) + b, rtol=1e-5, atol=1e-6
    )


def test_opset_6() -> None:
    """Gemm and batch normalization of opset 6 differ by attributes that inference fixes."""
    c = f32([1, 2, 3])
    assert_all_same(
        compute("Gemm", X[0], X[0], c, opset=6, transB=1, broadcast=1),
        list(compute("Gemm", X[0], X[0], c, opset=7, transB=1)),
    )
    assert_all_same(
        compute("BatchNormalization", X, *C3, opset=6, is_test=1),
        list(compute("BatchNormalization", X, *C3, opset=9)),
    )
    with pytest.raises(UnsupportedOpError, match="is_test=1"):
        compute("BatchNormalization", X, *C3, opset=6)


# Settings that ONNX's node tests leave out

FURTHER: list[tuple[str, int, tuple[Any, ...], dict[str, Any], int]] = [
    ("MatMul", 13, (X, np.arange(8.0, dtype=np.float32).reshape(4, 2)), {}, 1),
    ("MatMul", 13, (X[0, 0], X[0, 1]), {}, 1),
    ("MatMul", 13, (X[0].astype(np.int32), X[1].T.astype(np.int32)), {}, 1),
    ("Gemm", 13, (X[0], X[1], f32(3)), {"transB": 1, "beta": 0.5}, 1),
    (
        "Gemm",
        13,
        (X[0].astype(np.float64), X[1].astype(np.float64)),
        {"transB": 1, "alpha": 2.0},
        1,
    ),
    (
        "Slice",
        13,
        (X, np.array([-99, 3]), np.array([-9, -99]), np.array([1, 2]), np.array([-1, -2])),
        {},
        1,
    ),
    ("Slice", 13, (X, np.array([9]), np.array([-(2**63)]), np.array([-1]), np.array([-3])), {}, 1),
    ("Slice", 13, (X, np.array([3]), np.array([1]), np.array([2])), {}, 1),
    ("Gather", 13, (X, np.array(-1)), {"axis": -1}, 1),
    ("Gather", 13, (X[0, 0], np.array(2)), {}, 1),
    ("Gather", 13, (X, np.zeros((0, 2), np.int64)), {"axis": 1}, 1),
    ("GatherElements", 13, (X, np.array([[[2, -1]]])), {"axis": 1}, 1),
    ("GatherND", 13, (X, np.array([[[0], [2]], [[1], [-1]]])), {"batch_dims": 1}, 1),
    ("GatherND", 13, (X, np.array([1, 2, 3])), {}, 1),
    ("Pad", 18, (X, np.array([1, 2]), None, np.array([-1])), {"mode": "reflect"}, 1),
    ("Pad", 18, (X, np.array([-1, 2, 1, -1]), np.array(7, np.float32), np.array([2, 1])), {}, 1),
    ("Pad", 18, (X, np.array([0, -1, 2, 0, 0, -1])), {"mode": "edge"}, 1),
    ("Pad", 19, (X, np.array([0, 1, 2, 0, 2, 3])), {"mode": "wrap"}, 1),
    ("Pad", 18, (X > 4, np.array([0, 0, 1, 0, 0, 1])), {}, 1),
    ("Expand", 13, (X[:, :1], np.array([3, 1])), {}, 1),
    ("Expand", 13, (X, np.array([2, 1, 1, 1])), {}, 1),
    ("Expand", 13, (np.array(2.5), np.array([2, 3])), {}, 1),
    ("Expand", 13, (X[:, :1], np.array([0, 4])), {}, 1),
    ("Tile", 13, (X, np.array([1, 0, 2])), {}, 1),
    ("Split", 18, (X,), {"axis": -2, "num_outputs": 2}, 2),
    ("Split", 18, (X, np.array([0, 3])), {"axis": 1}, 2),
    ("Reshape", 14, (X[:0], np.array([3, 0])), {"allowzero": 1}, 1),
    ("Reshape", 14, (X[:1, :1, :1], np.zeros(0, np.int64)), {}, 1),
    ("Flatten", 13, (X,), {"axis": -1}, 1),
    ("Flatten", 13, (X[:0],), {}, 1),
    ("Flatten", 13, (X[:, :, :0],), {"axis": 2}, 1),
    ("Flatten", 13, (np.array(1.5, np.float32),), {"axis": 0}, 1),
    ("Transpose", 13, (X,), {}, 1),
    ("Concat", 13, (X, X[:, :0], X[:, 1:]), {"axis": -2}, 1),
    ("Concat", 13, (X,), {"axis": 0}, 1),
    ("Trilu", 14, (X, np.array(-1)), {"upper": 0}, 1),
    ("ConstantOfShape", 9, (np.zeros(0, np.int64),), {}, 1),
    ("Range", 11, tuple(np.array(v, np.int16) for v in (0, 10, 3)), {}, 1),
    ("Range", 11, tuple(map(f32, (5, 1, 1))), {}, 1),
    ("LRN", 13, (X[..., None],), {"size": 3, "alpha": 0.5, "bias": 2.0}, 1),
    ("LRN", 13, (X[..., None],), {"size": 9, "beta": 0.5}, 1),
    ("LpNormalization", 1, (X + 1,), {"axis": 1, "p": 1}, 1),
    ("InstanceNormalization", 6, (X, C3[0], C3[1]), {"epsilon": 0.1}, 1),
    ("LayerNormalization", 17, (X, f32([1, 2, 3, 4])), {}, 3),
    ("LayerNormalization", 17, (X, X[0], X[1]), {"axis": 1, "epsilon": 0.1}, 3),
    ("MeanVarianceNormalization", 13, (X,), {"axes": [0, -1]}, 1),
    ("RMSNormalization", 23, (X, C3[2][:1]), {}, 1),
    ("RMSNormalization", 23, (X, X[0]), {"axis": 1, "epsilon": 0.1}, 1),
    ("GlobalMaxPool", 1, (X,), {}, 1),
    ("GlobalLpPool", 2, (X[..., None],), {"p": 3}, 1),
    ("LpPool", 18, (X[..., None] - 9,), {"kernel_shape": [2, 1], "dilations": [2, 1], "p": 3}, 1),
    ("LpPool", 18, (X,), {"kernel_shape": [2], "ceil_mode": 1, "strides": [3]}, 1),
    ("GlobalAveragePool", 1, (X[:, :, :, None, None],), {}, 1),
    ("Conv", 11, (X[:0], np.ones((2, 3, 2), np.float32)), {}, 1),
    ("MaxPool", 12, (X[:0],), {"kernel_shape": [2]}, 2),
    ("AveragePool", 11, (X[:0],), {"kernel_shape": [2]}, 1),
]


@pytest.mark.parametrize(
    ("op", "opset", "inputs", "attributes", "outputs"),
    FURTHER,
    ids=[f"{op}-{opset}-{i}" for i, (op, opset, *_) in enumerate(FURTHER)],
)
def test_further_settings_are_onnx_runtime_s(
    op: str, opset: int, inputs: tuple[Any, ...], attributes: dict[str, Any], outputs: int
) -> None:
    assert_all_same(
        compute(op, *inputs, opset=opset, **attributes),
        by_runtime(op, *inputs, outputs=outputs, opset=opset, **attributes),
    )


def test_same_padding_counts_the_dilation() -> None:
    """With stride 1 and three taps, that is one dilation on either side."""
    x = np.random.default_rng(4).normal(size=(1, 2, 9)).astype(np.float32)
    for op, inputs, attributes in (
        ("Conv", (x, np.ones((2, 2, 3), np.float32)), {}),
        ("MaxPool", (x,), {"kernel_shape": [3]}),
        ("AveragePool", (x,), {"kernel_shape": [3]}),
    ):
        got = compute(op, *inputs, opset=19, auto_pad="SAME_UPPER", dilations=[2], **attributes)
        expected = compute(op, *inputs, opset=19, pads=[2, 2], dilations=[2], **attributes)
        assert_all_same(got, list(expected))


def test_valid_padding_has_no_use_for_ceil_mode() -> None:
    """ONNX: VALID has ceil((input - kernel + 1) / stride) steps, with and without ceil_mode."""
    y, _ = compute("MaxPool", X, kernel_shape=[3], strides=[2], auto_pad="VALID", ceil_mode=1)
    assert y.shape == (2, 3, 1)


def test_local_response_of_an_even_size_looks_further_ahead() -> None:
    """Two channels: this one and the next; of the last, itself. Runtime takes odd sizes only."""
    x = f32([[[1], [2], [3]]])
    (y,) = compute("LRN", x, size=2, alpha=2.0, beta=1.0)
    onnx_cases.assert_same(y, x / f32([[[6], [14], [10]]]), rtol=1e-6)


def test_groups_of_channels_are_normalized_as_by_torch() -> None:
    """In half precision too, whose statistics are in single precision."""
    rng = np.random.default_rng(5)
    x = (rng.normal(size=(2, 6, 3, 2)) * 3 + 5).astype(np.float32)
    scale, bias = rng.normal(size=(2, 6)).astype(np.float32)
    for groups in (1, 2, 6):
        expected = torch.nn.functional.group_norm(
            *map(torch.from_numpy, (x,)), groups, *map(torch.from_numpy, (scale, bias)), 0.01
        ).numpy()
        settings = {"num_groups": groups, "epsilon": 0.01, "opset": 21}
        (y,) = compute("GroupNormalization", x, scale, bias, **settings)
        onnx_cases.assert_same(y, expected, rtol=1e-5, atol=1e-5)
        half = tuple(v.astype(np.float16) for v in (x, scale, bias))
        (y,) = compute("GroupNormalization", *half, **settings)
        onnx_cases.assert_same(y, expected.astype(np.float16), rtol=2e-2, atol=2e-2)
    with pytest.raises(ValueError, match="do not split into 4 groups"):
        compute("GroupNormalization", x, scale, bias, opset=21, num_groups=4)


# Laws that hold for all of them


def samples() -> list[tuple[str, int, tuple[Any, ...], dict[str, Any]]]:
    own = [(c.op_type, c.opset, c.inputs, c.attributes) for c in onnx_cases.cases(*OPS)]
    window = {"kernel_shape": [2]}
    rest: list[Any] = [
        ("Gemm", 6, (X[0], X[0], f32([1, 2, 3])), {"transB": 1, "broadcast": 1}),
        ("BatchNormalization", 6, (X, *C3), {"is_test": 1}),
        *(("AveragePool", opset, (X,), window) for opset in (6, 7, 10)),
        *(("MaxPool", opset, (X,), window) for opset in (7, 8, 10)),
        *(setting[:4] for setting in (*OLD, *FURTHER)),
    ]
    return [*rest, *own]


@pytest.mark.parametrize(
    "row", IMPLEMENTATIONS, ids=[f"{op}-{version}" for op, version, _ in IMPLEMENTATIONS]
)
def test_no_function_modifies_its_inputs(row: tuple[str, int, Callable[..., Any]]) -> None:
    op_type, _, function = row
    used = 0
    for op, opset, inputs, attributes in samples():
        if op != op_type:
            continue
        if onnx_cases.implementation_for(IMPLEMENTATIONS, op, opset) is not function:
            continue
        arrays: list[Any] = [None if value is None else np.array(value) for value in inputs]
        before: list[Any] = [None if value is None else value.copy() for value in arrays]
        try:
            function(*arrays, **attributes)
        except ModelError:
            continue  # those of EXCLUDED
        used += 1
        for was, now in zip(before, arrays, strict=True):
            np.testing.assert_array_equal(was, now)
    assert used, "no sample runs this function"


class Batch(int):
    """A symbolic batch size: it can be passed on, and nothing may be computed from it."""

    def _refuse(self, *_: Any) -> Any:
        raise AssertionError("computed with the batch size")

    __mul__ = __rmul__ = __add__ = __radd__ = __sub__ = __floordiv__ = __neg__ = _refuse


class Symbolic:
    """A tensor that the compiler could trace: it is no array, and knows these functions alone."""

    KNOWN = (
        np.broadcast_to,
        np.concatenate,
        np.expand_dims,
        np.pad,
        np.reshape,
        np.squeeze,
        np.take,
        np.tile,
        np.transpose,
    )

    def __init__(self, array: Any) -> None:
        self.array = array

    @property
    def ndim(self) -> int:
        return int(self.array.ndim)

    @property
    def shape(self) -> tuple[int, ...]:
        return (Batch(self.array.shape[0]), *self.array.shape[1:])

    def __getitem__(self, key: Any) -> Symbolic:
        parts = key if isinstance(key, tuple) else (key,)
        assert all(isinstance(part, slice) for part in parts)
        return Symbolic(self.array[key])

    def __array__(self, *_: Any) -> Any:
        raise AssertionError("turned into an array")

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        assert function in self.KNOWN, f"{function.__name__} is not one that the compiler knows"

        def plain(value: Any) -> Any:
            if isinstance(value, tuple | list):
                return type(value)(map(plain, value))
            return value.array if isinstance(value, Symbolic) else value

        return Symbolic(function(*plain(args), **{k: plain(v) for k, v in kwargs.items()}))


X4 = np.arange(2 * 4 * 2 * 6, dtype=np.float32).reshape(2, 4, 2, 6)

TRACED: list[tuple[str, int, tuple[Any, ...], dict[str, Any]]] = [
    ("Flatten", 13, (), {}),
    ("Flatten", 13, (), {"axis": 3}),
    ("Flatten", 13, (), {"axis": 0}),
    ("Reshape", 5, (np.array([0, -1]),), {}),
    ("Reshape", 14, (np.array([-1, 8, 6]),), {}),
    ("Transpose", 13, (), {"perm": [0, 2, 3, 1]}),
    ("Unsqueeze", 11, (), {"axes": [1]}),
    ("Unsqueeze", 13, (np.array([-1]),), {}),
    ("Slice", 1, (), {"starts": [1], "ends": [9], "axes": [1]}),
    ("Slice", 13, (np.array([-1]), np.array([-9]), np.array([3]), np.array([-2])), {}),
    ("Gather", 13, (np.array([[0, -1]]),), {"axis": 1}),
    ("Pad", 2, (), {"pads": [0, 0, 1, 1, 0, 0, 2, 0], "value": 1.5}),
    ("Pad", 18, (np.array([1, -1]), None, np.array([3])), {}),
    ("Expand", 13, (np.array([3, 1, 1, 1, 1]),), {}),
    ("Expand", 13, (np.array([2, 1]),), {}),
    ("Tile", 13, (np.array([1, 2, 1, 3]),), {}),
    ("Split", 2, (), {"axis": 1, "split": [1, 3]}),
    ("Split", 13, (np.array([1, 5]),), {"axis": -1}),
    ("Split", 18, (), {"axis": 3, "num_outputs": 4}),
    ("DepthToSpace", 13, (), {"blocksize": 2}),
    ("DepthToSpace", 13, (), {"blocksize": 2, "mode": "CRD"}),
    ("SpaceToDepth", 13, (), {"blocksize": 2}),
    ("SpaceToDepth", 28, (), {"blocksize": 2, "mode": "CRD"}),
]


@pytest.mark.parametrize(
    ("op", "opset", "rest", "attributes"),
    TRACED,
    ids=[f"{op}-{opset}-{i}" for i, (op, opset, *_) in enumerate(TRACED)],
)
def test_layout_ops_can_be_traced(
    op: str, opset: int, rest: tuple[Any, ...], attributes: dict[str, Any]
) -> None:
    """On a tensor that is no array and whose batch size is symbolic, the result is the same."""
    traced = compute(op, Symbolic(X4), *rest, opset=opset, **attributes)
    expected = compute(op, X4, *rest, opset=opset, **attributes)
    assert_all_same(tuple(part.array for part in traced), list(expected))


def test_squeeze_and_concat_can_be_traced() -> None:
    x = X4[:, :1]
    for opset, rest, attributes in ((11, (), {"axes": [1]}), (13, (np.array([-3]),), {})):
        (y,) = compute("Squeeze", Symbolic(x), *rest, opset=opset, **attributes)
        onnx_cases.assert_same(y.array, x[:, 0])
    (y,) = compute("Concat", Symbolic(x), Symbolic(X4), axis=1)
    onnx_cases.assert_same(y.array, np.concatenate([x, X4], 1))


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "message"),
    [
        ("Conv", (X, X), {"group": 2}, "do not fit each other"),
        ("Conv", (X, X), {"kernel_shape": [3]}, "kernel_shape contradicts w"),
        ("Conv", (X, np.ones((2, 3, 5), np.float32)), {}, "larger than the padded input"),
        ("Conv", (X, X), {"auto_pad": "FULL"}, "auto_pad is not one"),
        ("Conv", (X, X), {"pads": [1]}, "pads does not fit .*expected: 2 values"),
        ("MaxPool", (X,), {"kernel_shape": [2, 2]}, "kernel_shape does not fit"),
        ("Pad", (X, np.ones(6, int)), {"mode": "mirror"}, "mode is not one"),
        ("Split", (X, None), {"axis": 1}, "sizes of the parts are missing"),
        ("Split", (X, np.array([1, 1])), {"axis": 1}, "do not add up.*a sum of 3"),
        ("LayerNormalization", (X, X), {"stash_type": 16}, "stash_type=1"),
        ("LpPool", (X,), {"kernel_shape": [2, 2]}, "kernel_shape does not fit"),
    ],
)
def test_what_is_no_valid_node_says_so(
    op: str, inputs: tuple[Any, ...], attributes: dict[str, Any], message: str
) -> None:
    with pytest.raises(FheError, match=message):
        compute(op, *inputs, **attributes)


def test_every_parameter_follows_the_convention() -> None:
    """Inputs by position, attributes by keyword; a function is named after its op."""
    for op, _, function in IMPLEMENTATIONS:
        name = function.__name__.rstrip("0123456789").rstrip("_")
        assert name.replace("_", "") == op.lower()
        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
                assert parameter.default is None
