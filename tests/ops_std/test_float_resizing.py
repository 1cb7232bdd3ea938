"""Resize and Upsample are what ONNX, ONNX Runtime and PyTorch compute, at every version."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from fhe_core.errors import FheError

from fhe_ops_std import resizing

from . import onnx_cases
from .oracles import assert_all_same, by_module, by_reference, by_runtime


@pytest.mark.parametrize("case", onnx_cases.parameters("Resize", "Upsample"))
def test_onnx_s_own_cases(case: Any) -> None:
    case.check(resizing.IMPLEMENTATIONS)


def compute(op: str, *inputs: Any, opset: int = 19, **attributes: Any) -> tuple[Any, ...]:
    function = onnx_cases.implementation_for(resizing.IMPLEMENTATIONS, op, opset)
    return onnx_cases.run(function, inputs, attributes)


def f32(value: Any) -> Any:
    return np.array(value, np.float32)


X = np.random.default_rng(0).normal(size=(2, 3, 5, 8)).astype(np.float32)
PLACES = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric")
NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
SIZES = ([2, 3, 7, 11], [2, 3, 3, 5], [2, 3, 9, 3], [2, 3, 1, 8])


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("sizes", SIZES)
def test_every_place_and_mode_is_onnx_s(place: str, sizes: list[int]) -> None:
    """As ONNX Runtime; but nearest neighbours as ONNX's reference, which rounds places alike."""
    settings: list[dict[str, Any]] = [
        *({"mode": "nearest", "nearest_mode": mode} for mode in NEAREST),
        {"mode": "linear"},
        {"mode": "cubic"},
        {"mode": "cubic", "cubic_coeff_a": -0.5, "exclude_outside": 1},
    ]
    for attributes in settings:
        inputs = (X, None, None, np.array(sizes, np.int64))
        common = {"coordinate_transformation_mode": place, **attributes}
        got = compute("Resize", *inputs, **common)
        oracle = by_reference if attributes["mode"] == "nearest" else by_runtime
        assert_all_same(got, oracle("Resize", *inputs, opset=19, **common), rtol=1e-4)


@pytest.mark.parametrize("opset", [11, 13, 18, 19])
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_scales_are_onnx_runtime_s_at_every_version(opset: int, mode: str) -> None:
    """With an empty roi, which opset 11 requires."""
    for scales in ([1, 1, 2, 3], [1, 1, 0.6, 1.7], [1, 1, 1, 0.65]):
        inputs = (X, f32([]), f32(scales))
        common: dict[str, Any] = {"opset": opset, "mode": mode}
        got = compute("Resize", *inputs, **common)
        assert_all_same(got, by_runtime("Resize", *inputs, **common), rtol=1e-4)


def test_opset_11_s_place_for_nearest_neighbours_of_tensorflow() -> None:
    inputs = (X, f32([]), f32([1, 1, 2, 0.6]))
    common: dict[str, Any] = {"coordinate_transformation_mode": "tf_half_pixel_for_nn", "opset": 11}
    common["nearest_mode"] = "floor"
    assert_all_same(compute("Resize", *inputs, **common), by_runtime("Resize", *inputs, **common))


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_opset_10_and_upsample_are_onnx_runtime_s(mode: str) -> None:
    for scales in ([1, 1, 2, 3], [1, 1, 1.5, 1], [1, 1, 1.3, 2.6], [1, 1, 0.6, 0.5]):
        got = compute("Resize", X, f32(scales), opset=10, mode=mode)
        assert_all_same(got, by_runtime("Resize", X, f32(scales), opset=10, mode=mode))
        if min(scales) < 1:
            continue
        got = compute("Upsample", X, f32(scales), opset=9, mode=mode)
        assert_all_same(got, by_runtime("Upsample", X, f32(scales), opset=9, mode=mode))
        old = compute("Upsample", X, opset=7, mode=mode, scales=scales)
        assert_all_same(
            old, by_runtime("Upsample", X, opset=7, mode=mode, scales=f32(scales).tolist())
        )
        named = {"height_scale": float(scales[2]), "width_scale": float(scales[3])}
        mode_1 = {"linear": "bilinear"}.get(mode, mode)
        assert_all_same(compute("Upsample", X, opset=6, mode=mode_1, **named), list(old))


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_crops_are_onnx_runtime_s(mode: str) -> None:
    """Of part of the image, and of more than it, where the value for the outside counts."""
    for region in ([0, 0, 0.2, 0.4, 1, 1, 0.9, 0.8], [0, 0, -0.3, 0, 1, 1, 1, 1.4]):
        inputs = (X, f32(region), None, np.array([2, 3, 4, 6], np.int64))
        common: dict[str, Any] = {
            "coordinate_transformation_mode": "tf_crop_and_resize",
            "extrapolation_value": 7.5,
            "mode": mode,
        }
        got = compute("Resize", *inputs, **common)
        if mode == "cubic":
            # ONNX Runtime's cubic mode knows no outside.
            assert_all_same(got, by_reference("Resize", *inputs, opset=19, **common), rtol=1e-4)
        else:
            assert_all_same(got, by_runtime("Resize", *inputs, opset=19, **common), rtol=1e-4)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("size", [[3, 4], [2, 5], [9, 3], [1, 1]])
def test_antialiasing_is_torch_s(mode: str, size: list[int]) -> None:
    name = {"linear": "bilinear", "cubic": "bicubic"}[mode]
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(X), size, mode=name, antialias=True, align_corners=False
    ).numpy()
    (y,) = compute(
        "Resize", X, None, None, np.array(size), mode=mode, antialias=1, axes=[2, 3],
        cubic_coeff_a=-0.5, exclude_outside=1,
    )  # fmt: skip
    onnx_cases.assert_same(y, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("policy", ["stretch", "not_larger", "not_smaller"])
@pytest.mark.parametrize("axes", [[2, 3], [3, 2], [-1, 1]])
def test_axes_and_aspect_ratio_are_onnx_s_reference_s(policy: str, axes: list[int]) -> None:
    inputs = (X, None, None, np.array([4, 11]))
    common: dict[str, Any] = {"axes": axes, "keep_aspect_ratio_policy": policy, "mode": "linear"}
    got = compute("Resize", *inputs, **common)
    positive = {**common, "axes": [axis % 4 for axis in axes]}  # the reference knows no others
    assert_all_same(got, by_reference("Resize", *inputs, opset=19, **positive), rtol=1e-5)


def test_integers_are_rounded_and_stay_in_range() -> None:
    x = np.array([[[0, 255, 0, 255]]], np.uint8)
    (y,) = compute("Resize", x, None, f32([1, 1, 3]), mode="cubic")
    assert y.dtype == np.uint8
    assert y.min() == 0
    assert y.max() == 255
    (y,) = compute("Resize", x, None, f32([1, 1, 2]), mode="nearest")
    assert y.ravel().tolist() == [0, 0, 255, 255, 0, 0, 255, 255]


def test_lengths_are_the_product_in_single_precision() -> None:
    """0.7 in single precision is less than 0.7, and 10 times that, exactly, is less than 7."""
    x = np.zeros((1, 1, 10), np.float32)
    inputs = (x, None, f32([1, 1, 0.7]))
    assert_all_same(compute("Resize", *inputs), by_runtime("Resize", *inputs, opset=19))


@pytest.mark.parametrize(
    ("inputs", "attributes", "message"),
    [
        ((X,), {}, "either scales or sizes"),
        ((X, None, f32([1, 2])), {}, "of 4 axes"),
        ((X, None, f32([1, 1, 0, 1])), {}, "scales are positive"),
        ((X, None, f32([1, 1, 2, 2])), {"mode": "area"}, "mode 'area'"),
        ((X, None, f32([1, 1, 2, 2])), {"nearest_mode": "up"}, "nearest_mode 'up'"),
        ((X, None, f32([1, 1, 2, 2])), {"coordinate_transformation_mode": "corner"}, "'corner'"),
        (
            (X, None, f32([1, 1, 2, 2])),
            {"coordinate_transformation_mode": "tf_crop_and_resize"},
            "takes a roi of 8",
        ),
    ],
)
def test_settings_that_onnx_does_not_know_are_errors(
    inputs: tuple[Any, ...], attributes: dict[str, Any], message: str
) -> None:
    with pytest.raises(FheError, match=f"(?s){message}"):
        by_module("Resize", *inputs, opset=19, **attributes)
