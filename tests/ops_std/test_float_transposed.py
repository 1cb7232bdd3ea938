"""ConvTranspose, Col2Im and MaxUnpool are what ONNX, ONNX Runtime and PyTorch compute."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from fhe_core.errors import FheError

from fhe_ops_std import linear, pooling, transposed

from . import onnx_cases
from .oracles import assert_all_same, by_module, by_reference, by_runtime

OPS = ("ConvTranspose", "Col2Im", "MaxUnpool")


@pytest.mark.parametrize("case", onnx_cases.parameters(*OPS))
def test_onnx_s_own_cases(case: Any) -> None:
    case.check(transposed.IMPLEMENTATIONS)


def compute(op: str, *inputs: Any, opset: int = 22, **attributes: Any) -> tuple[Any, ...]:
    rows = (*transposed.IMPLEMENTATIONS, *linear.IMPLEMENTATIONS, *pooling.IMPLEMENTATIONS)
    return onnx_cases.run(onnx_cases.implementation_for(rows, op, opset), inputs, attributes)


def random_settings(rng: np.random.Generator, rank: int) -> dict[str, Any]:
    kernel, strides, dilations = (rng.integers(1, high, rank) for high in (4, 4, 3))
    kind = rng.choice(["pads", "none", "SAME_UPPER", "SAME_LOWER", "VALID", "output_shape"])
    settings: dict[str, Any] = {}
    if kind == "pads":
        settings["pads"] = rng.integers(0, 2, 2 * rank).tolist()
        settings["output_padding"] = rng.integers(0, strides).tolist()
    elif kind == "output_shape":
        # Not larger than everything that the windows reach.
        settings["output_shape"] = (4 * strides + 1).tolist()
        kernel = np.maximum(kernel, 2)
    elif kind != "none":
        settings["auto_pad"] = str(kind)
        if kind.startswith("SAME"):
            # ONNX Runtime moves the image where a stride leaves gaps between the windows.
            kernel = np.maximum(kernel, strides)
    return settings | {
        "kernel_shape": kernel.tolist(),
        "strides": strides.tolist(),
        "dilations": dilations.tolist(),
    }


@pytest.mark.parametrize(
    ("rank", "seed"), [(rank, seed) for rank in (1, 2, 3) for seed in range(25)]
)
def test_conv_transpose_is_onnx_runtime_s(rank: int, seed: int) -> None:
    rng = np.random.default_rng((rank, seed))
    group = int(rng.choice([1, 1, 2, 3]))
    depth, maps = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    settings = random_settings(rng, rank) | {"group": group}
    x = rng.normal(size=(2, group * depth, *rng.integers(5, 8, rank))).astype(np.float32)
    w = rng.normal(size=(group * depth, maps, *settings["kernel_shape"])).astype(np.float32)
    inputs = (x, w, rng.normal(size=group * maps).astype(np.float32))[: int(rng.integers(2, 4))]
    for opset in (6, 11, 22):
        got = compute("ConvTranspose", *inputs, opset=opset, **settings)
        expected = by_runtime("ConvTranspose", *inputs, opset=max(opset, 7), **settings)
        assert_all_same(got, expected)


@pytest.mark.parametrize("seed", range(10))
def test_conv_transpose_is_the_adjoint_of_conv(seed: int) -> None:
    """<conv(x), y> = <x, conv_transpose(y)>, also in several blocks of rows."""
    rng = np.random.default_rng(seed)
    strides, dilations = (rng.integers(1, 3, 2).tolist() for _ in range(2))
    pads, group = rng.integers(0, 2, 4).tolist(), int(rng.choice([1, 2, 4]))
    common = {"strides": strides, "dilations": dilations, "pads": pads, "group": group}
    x = rng.normal(size=(1, 4, 90, 70))
    w = rng.normal(size=(8, 4 // group, 3, 2))
    (y,) = compute("Conv", x, w, **common)
    other = rng.normal(size=y.shape)
    reach = [
        (y.shape[i + 2] - 1) * strides[i] + (w.shape[i + 2] - 1) * dilations[i] + 1
        for i in range(2)
    ]
    extra = [x.shape[i + 2] + pads[i] + pads[i + 2] - reach[i] for i in range(2)]
    (back,) = compute("ConvTranspose", other, w, output_padding=extra, **common)
    assert back.shape == x.shape
    np.testing.assert_allclose(np.sum(y * other), np.sum(x * back), rtol=1e-9)


def test_half_precision_adds_up_in_single_precision() -> None:
    x, w = np.ones((1, 4097, 1), np.float16), np.ones((4097, 1, 1), np.float16)
    assert compute("ConvTranspose", x, w)[0].item() == 4096


@pytest.mark.parametrize("seed", range(8))
def test_col2im_is_torch_s_fold(seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = rng.integers(6, 9, 2).tolist()
    block, stride, dilation = (rng.integers(1, 3, 2).tolist() for _ in range(3))
    pad = rng.integers(0, 2, 2).tolist()
    unfold = {"kernel_size": block, "dilation": dilation, "padding": pad, "stride": stride}
    places = torch.nn.functional.unfold(torch.zeros(1, 3, *image), **unfold).shape[2]
    x = rng.normal(size=(2, 3 * block[0] * block[1], places)).astype(np.float32)
    expected = torch.nn.functional.fold(torch.from_numpy(x), image, **unfold).numpy()
    (y,) = compute(
        "Col2Im", x, np.array(image), np.array(block),
        dilations=dilation, pads=[*pad, *pad], strides=stride,
    )  # fmt: skip
    onnx_cases.assert_same(y, expected, rtol=1e-5, atol=1e-6)
    whole = np.rint(x * 10).astype(np.int32)
    (y,) = compute("Col2Im", whole, np.array(image), np.array(block), dilations=dilation,
                   pads=[*pad, *pad], strides=stride)  # fmt: skip
    assert y.dtype == np.int32
    assert y.sum() <= np.abs(whole).sum()


@pytest.mark.parametrize("opset", [9, 11, 22])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_max_unpool_is_onnx_runtime_s_and_pools_back(opset: int, rank: int) -> None:
    x = np.random.default_rng(rank).normal(size=(2, 3, *(6, 8, 4)[:rank])).astype(np.float32)
    window: dict[str, Any] = {"kernel_shape": [2] * rank, "strides": [2] * rank}
    y, index = compute("MaxPool", x, **window)
    (back,) = compute("MaxUnpool", np.maximum(y, 0), index, opset=opset, **window)
    assert_all_same([back], by_runtime("MaxUnpool", np.maximum(y, 0), index, opset=opset, **window))
    onnx_cases.assert_same(compute("MaxPool", back, **window)[0], np.maximum(y, 0))


def test_a_larger_image_than_needed_is_filled_up_with_zeros() -> None:
    """The indices count in the smaller one, as ONNX's reference has it."""
    x, index = np.array([[[[3.0, 4], [5, 6]]]]), np.array([[[[0, 2], [8, 15]]]])
    window = {"kernel_shape": [2, 2], "strides": [2, 2]}
    inputs = (x, index, np.array([1, 1, 5, 6]))
    assert_all_same(
        compute("MaxUnpool", *inputs, **window),
        by_reference("MaxUnpool", *inputs, opset=11, **window),
    )


ONES = np.ones((1, 2, 3), np.float32)


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "message"),
    [
        ("ConvTranspose", (ONES, ONES), {}, "do not fit each other"),
        ("ConvTranspose", (ONES, np.ones((2, 1, 2), np.float32)), {"strides": [1, 1]}, "strides"),
        (
            "ConvTranspose",
            (ONES, np.ones((2, 1, 2), np.float32)),
            {"pads": [4, 4]},
            "are more than",
        ),
        (
            "ConvTranspose",
            (ONES, np.ones((2, 1, 2), np.float32)),
            {"kernel_shape": [3]},
            "contradicts",
        ),
        ("Col2Im", (ONES, np.array([3, 3]), np.array([2, 2])), {}, "is not 4 blocks"),
        ("MaxUnpool", (ONES, np.full(ONES.shape, 99)), {"kernel_shape": [2]}, "lies outside"),
        ("MaxUnpool", (ONES, np.zeros((1, 2), int)), {"kernel_shape": [2]}, "one index for each"),
    ],
)
def test_what_does_not_fit_is_an_error_that_names_the_node(
    op: str, inputs: tuple[Any, ...], attributes: dict[str, Any], message: str
) -> None:
    with pytest.raises(FheError, match=f"(?s){message}.*{op}|{op}.*{message}"):
        by_module(op, *inputs, opset=18, **attributes)
