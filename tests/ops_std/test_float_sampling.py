"""Sampling at computed places, and pooling of regions, are ONNX's, ONNX Runtime's and PyTorch's."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from fhe_core.errors import FheError

from fhe_ops_std import linear, regions, sampling

from . import onnx_cases
from .oracles import assert_all_same, by_module, by_runtime

IMPLEMENTATIONS = (*sampling.IMPLEMENTATIONS, *regions.IMPLEMENTATIONS, *linear.IMPLEMENTATIONS)
OPS = ("GridSample", "AffineGrid", "DeformConv", "RoiAlign", "MaxRoiPool")


@pytest.mark.parametrize("case", onnx_cases.parameters(*OPS))
def test_onnx_s_own_cases(case: Any) -> None:
    case.check(IMPLEMENTATIONS)


def compute(op: str, *inputs: Any, opset: int = 22, **attributes: Any) -> tuple[Any, ...]:
    function = onnx_cases.implementation_for(IMPLEMENTATIONS, op, opset)
    return onnx_cases.run(function, inputs, attributes)


def normal(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


# GridSample

IMAGE = normal(2, 3, 5, 6)
GRID = np.random.default_rng(0).uniform(-1.8, 1.8, (2, 4, 7, 2)).astype(np.float32)
VOLUME = normal(2, 3, 4, 5, 6)
GRID3 = np.random.default_rng(1).uniform(-1.8, 1.8, (2, 3, 4, 5, 3)).astype(np.float32)


@pytest.mark.parametrize("align", [0, 1])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_grid_sample_is_onnx_runtime_s(mode: str, padding: str, align: int) -> None:
    common = {"padding_mode": padding, "align_corners": align}
    got = compute("GridSample", IMAGE, GRID, mode=mode, **common)
    expected = by_runtime("GridSample", IMAGE, GRID, opset=20, mode=mode, **common)
    assert_all_same(got, expected, rtol=1e-4)
    older = {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode)
    got = compute("GridSample", IMAGE, GRID, opset=16, mode=older, **common)
    assert_all_same(got, expected, rtol=1e-4)


@pytest.mark.parametrize("align", [0, 1])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_grid_sample_of_volumes_is_torch_s(mode: str, padding: str, align: int) -> None:
    common = {"padding_mode": padding, "align_corners": bool(align)}
    expected = torch.nn.functional.grid_sample(
        torch.from_numpy(VOLUME),
        torch.from_numpy(GRID3),
        mode={"linear": "bilinear"}.get(mode, mode),
        **common,
    ).numpy()
    (y,) = compute(
        "GridSample", VOLUME, GRID3, mode=mode, padding_mode=padding, align_corners=align
    )
    onnx_cases.assert_same(y, expected, rtol=1e-4, atol=1e-5)


def test_nearest_elements_of_integers_are_those() -> None:
    x = np.arange(30, dtype=np.int16).reshape(1, 1, 5, 6)
    rows, columns = np.meshgrid(np.linspace(-1, 1, 5), np.linspace(-1, 1, 6), indexing="ij")
    grid = np.stack([columns, rows], -1)[None].astype(np.float32)
    (y,) = compute("GridSample", x, grid, mode="nearest", align_corners=1)
    onnx_cases.assert_same(y, x)
    with pytest.raises(NotImplementedError, match="names no rounding"):
        compute("GridSample", x, grid)


def test_a_single_element_can_be_reflected() -> None:
    x, grid = np.full((1, 1, 1, 1), 3.0, np.float32), GRID[:1]
    for align in (0, 1):
        (y,) = compute("GridSample", x, grid, padding_mode="reflection", align_corners=align)
        onnx_cases.assert_same(y, np.full(y.shape, 3, np.float32), rtol=1e-6)


# AffineGrid


@pytest.mark.parametrize("align", [0, 1])
@pytest.mark.parametrize("size", [(2, 3, 4, 5), (2, 3, 4, 5, 6), (2, 1, 1, 3), (2, 1, 1, 1)])
def test_affine_grid_is_torch_s(size: tuple[int, ...], align: int) -> None:
    rank = len(size) - 2
    theta = normal(2, rank, rank + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a single element, which PyTorch once placed elsewhere
        expected = torch.nn.functional.affine_grid(
            torch.from_numpy(theta), list(size), align_corners=bool(align)
        ).numpy()
    (y,) = compute("AffineGrid", theta, np.array(size), align_corners=align)
    onnx_cases.assert_same(y, expected, rtol=1e-5, atol=1e-6)


# DeformConv

SETTINGS: list[dict[str, Any]] = [
    {},
    {"pads": [1, 0, 2, 1]},
    {"strides": [2, 1], "dilations": [1, 2]},
    {"group": 2},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("offsets", [1, 2])
def test_a_deformable_convolution_is_onnx_runtime_s(settings: dict[str, Any], offsets: int) -> None:
    x, w = normal(2, 4, 7, 8), normal(6, 4 // settings.get("group", 1), 3, 2)
    out = compute("Conv", x, w, **settings)[0].shape[2:]
    offset = normal(2, offsets * 12, *out) * 2
    mask = np.abs(normal(2, offsets * 6, *out))
    bias = normal(6)
    common = {"offset_group": offsets, **settings}
    for inputs in ((x, w, offset), (x, w, offset, bias, mask), (x, w, offset, None, mask)):
        got = compute("DeformConv", *inputs, **common)
        assert_all_same(got, by_runtime("DeformConv", *inputs, opset=19, **common), rtol=1e-4)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_without_offsets_it_is_conv_on_any_number_of_axes(rank: int) -> None:
    x, w = normal(2, 4, *(7, 6, 5)[:rank]), normal(4, 2, *(3, 2, 2)[:rank])
    common: dict[str, Any] = {"group": 2, "pads": [1] * 2 * rank, "strides": [2] * rank}
    (expected,) = compute("Conv", x, w, **common)
    taps = w[0, 0].size
    offset = np.zeros((2, taps * rank, *expected.shape[2:]), np.float32)
    (y,) = compute("DeformConv", x, w, offset, **common)
    onnx_cases.assert_same(y, expected, rtol=1e-4, atol=1e-5)


# Regions

FEATURES = normal(3, 4, 12, 15)
BOXES = np.array(
    [[1, 2, 9, 10], [0, 0, 14, 11], [3.3, 4.7, 5.2, 4.9], [-4, -3, 30, 25], [12, 9, 20, 18]],
    np.float32,
)
SAMPLES = np.array([0, 2, 1, 0, 2], np.int64)


@pytest.mark.parametrize("opset", [10, 16, 22])
@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_roi_align_is_onnx_runtime_s(opset: int, ratio: int, scale: float) -> None:
    common: dict[str, Any] = {
        "output_height": 3,
        "output_width": 2,
        "sampling_ratio": ratio,
        "spatial_scale": scale,
    }
    modes = ("half_pixel", "output_half_pixel") if opset >= 16 else (None,)
    for place in modes:
        named = {"coordinate_transformation_mode": place} if place else {}
        for mode in ("avg", "max"):
            attributes = {**common, **named, "mode": mode}
            got = compute("RoiAlign", FEATURES, BOXES, SAMPLES, opset=opset, **attributes)
            expected = by_runtime(
                "RoiAlign", FEATURES, BOXES, SAMPLES, opset=min(opset, 16), **attributes
            )
            assert_all_same(got, expected, rtol=1e-4)


@pytest.mark.parametrize("opset", [7, 22])
@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_max_roi_pool_is_onnx_runtime_s(opset: int, scale: float) -> None:
    rois = np.concatenate([SAMPLES[:, None].astype(np.float32), BOXES], axis=1)
    common: dict[str, Any] = {"pooled_shape": [3, 2], "spatial_scale": scale}
    got = compute("MaxRoiPool", FEATURES, rois, opset=opset, **common)
    assert_all_same(got, by_runtime("MaxRoiPool", FEATURES, rois, opset=7, **common))


def test_there_may_be_no_box() -> None:
    y = compute("RoiAlign", FEATURES, BOXES[:0], SAMPLES[:0], output_height=2, output_width=3)[0]
    assert y.shape == (0, 4, 2, 3)
    y = compute("MaxRoiPool", FEATURES, np.zeros((0, 5), np.float32), pooled_shape=[2, 3])[0]
    assert y.shape == (0, 4, 2, 3)


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "message"),
    [
        ("GridSample", (IMAGE, GRID[..., :1]), {}, "does not fit an image"),
        ("GridSample", (IMAGE, GRID), {"padding_mode": "wrap"}, "cannot have"),
        ("AffineGrid", (normal(2, 2, 3), np.array([2, 3, 4, 5, 6])), {}, "does not fit the size"),
        ("DeformConv", (normal(1, 2, 4, 4), normal(2, 2, 2, 2), normal(1, 7, 3, 3)), {}, "offset"),
        ("RoiAlign", (FEATURES, BOXES, SAMPLES + 2), {}, "on none of the 3 samples"),
        ("RoiAlign", (FEATURES, BOXES, SAMPLES), {"mode": "min"}, "'avg' or 'max'"),
        ("MaxRoiPool", (FEATURES, BOXES), {"pooled_shape": [2, 2]}, "of 5 columns"),
    ],
)
def test_what_does_not_fit_is_an_error_that_names_the_node(
    op: str, inputs: tuple[Any, ...], attributes: dict[str, Any], message: str
) -> None:
    with pytest.raises(FheError, match=f"(?s){message}.*{op}|{op}.*{message}"):
        by_module(op, *inputs, opset=20, **attributes)
