"""Networks as torch exports them, at each opset that matters, keep their answers at 7 bits."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import fhe_core
from tests.core.quantization.building import normal, relative_error

OPSETS = (9, 11, 13, 15, 18)
SAMPLES = 200


def exported(net: nn.Module, x: torch.Tensor, opset: int, *, static: bool = False) -> bytes:
    """The net in torch's older exporter, which is the one that knows these opsets."""
    file: Any = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's about itself
        torch.onnx.export(
            net.eval(),
            (x[:1],),
            file,
            opset_version=opset,
            dynamo=False,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes=None if static else {"x": {0: "N"}, "y": {0: "N"}},
        )
    return bytes(file.getvalue())


class Residual(nn.Module):
    """Two convolutions around which the input goes, as it is or through a convolution of its own."""

    def __init__(self, channels: int, wider: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, wider, 3, padding=1),
            nn.BatchNorm2d(wider),
            nn.ReLU(),
            nn.Conv2d(wider, wider, 3, padding=1),
            nn.BatchNorm2d(wider),
        )
        self.side = nn.Conv2d(channels, wider, 1) if wider != channels else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.side(x))


class Do(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


def mlp(activation: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Linear(12, 16), activation, nn.Linear(16, 16), activation, nn.Linear(16, 4)
    )


ACTIVATIONS: dict[str, nn.Module] = {
    "relu": nn.ReLU(),
    "relu6": nn.ReLU6(),
    "leaky relu": nn.LeakyReLU(0.1),
    "prelu": nn.PReLU(16),
    "sigmoid": nn.Sigmoid(),
    "tanh": nn.Tanh(),
    "elu": nn.ELU(),
    "selu": nn.SELU(),
    "celu": nn.CELU(),
    "softplus": nn.Softplus(),
    "softsign": nn.Softsign(),
    "gelu": nn.GELU(),
    "gelu tanh": nn.GELU(approximate="tanh"),
    "silu": nn.SiLU(),
    "mish": nn.Mish(),
    "hard sigmoid": nn.Hardsigmoid(),
    "hard swish": nn.Hardswish(),
    "hard tanh": nn.Hardtanh(),
    "log sigmoid": nn.LogSigmoid(),
    "tanhshrink": nn.Tanhshrink(),
    "abs": Do(torch.abs),
    "neg exp": Do(lambda x: torch.exp(-x)),
    "log": Do(lambda x: torch.log(torch.abs(x) + 1)),
    "sqrt": Do(lambda x: torch.sqrt(torch.abs(x) + 1)),
    "square": Do(lambda x: x**2),
    "erf": Do(torch.erf),
    "clamp": Do(lambda x: torch.clamp(x, min=-0.5)),
    "where": Do(lambda x: torch.where(x > 0, x, 0.1 * x)),
}


def networks() -> Iterator[tuple[str, nn.Module, tuple[int, ...]]]:
    image = (2, 8, 8)
    yield "mlp", mlp(nn.ReLU()), (12,)
    yield (
        "mlp with dropout and batch norm",
        nn.Sequential(
            nn.Linear(12, 16),
            nn.BatchNorm1d(16),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(16, 4),
            nn.Softmax(dim=1),
        ),
        (12,),
    )
    yield (
        "cnn",
        nn.Sequential(
            nn.Conv2d(2, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 8, 3, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(8, 4),
        ),
        image,
    )
    yield (
        "depthwise cnn",
        nn.Sequential(
            nn.Conv2d(2, 4, 1),
            nn.ReLU6(),
            nn.Conv2d(4, 4, 3, padding=1, groups=4),
            nn.BatchNorm2d(4),
            nn.ReLU6(),
            nn.Conv2d(4, 8, 1, dilation=1),
            nn.Hardswish(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 4),
        ),
        image,
    )
    yield (
        "residual cnn",
        nn.Sequential(
            Residual(2, 4),
            Residual(4, 4),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(64, 4),
        ),
        image,
    )
    yield (
        "max pool with padding and average pool",
        nn.Sequential(
            nn.Conv2d(2, 4, 3),
            nn.Tanh(),
            nn.MaxPool2d(3, stride=2, padding=1),
            nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False),
            nn.Flatten(),
            nn.Linear(36, 4),
        ),
        image,
    )
    yield (
        "1-D cnn",
        nn.Sequential(
            nn.Conv1d(3, 6, 3, padding=1, dilation=1),
            nn.ReLU(),
            nn.MaxPool1d(2),
            nn.Conv1d(6, 6, 3, padding=2, dilation=2),
            nn.ReLU(),
            nn.AvgPool1d(2),
            nn.Flatten(),
            nn.Linear(12, 4),
        ),
        (3, 8),
    )
    for name, move, size in (
        ("view", lambda x: x.view(x.size(0), -1), 256),
        (
            "view of sizes",
            lambda x: x.view(x.shape[0], x.shape[1] * x.shape[2], x.shape[3]).flatten(1),
            256,
        ),
        ("reshape", lambda x: x.reshape(-1, 256), 256),
        ("flatten", lambda x: torch.flatten(x, 1), 256),
        ("permute", lambda x: x.permute(0, 2, 3, 1).reshape(x.size(0), -1), 256),
        ("transpose", lambda x: x.transpose(1, 2).flatten(1), 256),
        ("cat", lambda x: torch.cat([x, torch.relu(x)], dim=1).flatten(1), 512),
        ("slice", lambda x: x[:, 1:3, :, -4:].flatten(1), 64),
        ("index", lambda x: x[:, 2].flatten(1), 64),
        ("chunk", lambda x: torch.cat(torch.chunk(x, 2, dim=1)[::-1], dim=1).flatten(1), 256),
        ("unsqueeze", lambda x: x.unsqueeze(2).squeeze(2).flatten(1), 256),
        ("pad", lambda x: nn.functional.pad(x, (1, 1, 0, 2), value=0.5).flatten(1), 400),
        ("reflect", lambda x: nn.functional.pad(x, (1, 1, 1, 1), mode="reflect").flatten(1), 400),
        ("mean", lambda x: x.mean(dim=(2, 3)), 4),
        ("sum", lambda x: x.sum(dim=3).flatten(1), 32),
        ("expand", lambda x: x[:, :, :1].expand(-1, -1, 3, -1).flatten(1), 96),
        ("repeat", lambda x: x[:, :, :1].repeat(1, 1, 2, 1).flatten(1), 64),
        ("stack", lambda x: torch.stack([x[:, 0], x[:, 3]], dim=1).flatten(1), 128),
        ("maximum", lambda x: torch.maximum(x[:, :2], x[:, 2:]).flatten(1), 128),
        ("product", lambda x: (x[:, :2] * torch.sigmoid(x[:, 2:])).flatten(1), 128),
        ("pixel shuffle", lambda x: nn.functional.pixel_shuffle(x, 2).flatten(1), 256),
    ):
        net = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), Do(move), nn.Linear(size, 4))
        yield name, net, image


#: A rounding to 7 bits costs a product of two encrypted values, each of 7, more than a sum.
WITHIN = {"product": 0.12}

NETWORKS = {name: (net, shape) for name, net, shape in networks()}


def calibrated(net: nn.Module, shape: tuple[int, ...]) -> tuple[nn.Module, Any]:
    """The net with seeded weights and running statistics of its data, and the data."""
    torch.manual_seed(1)
    for module in net.modules():
        reset: Any = getattr(module, "reset_parameters", None)
        if reset:
            reset()
    x = torch.from_numpy(normal(SAMPLES, *shape, seed=2))
    with torch.no_grad():
        net.train()
        for _ in range(20):
            net(x)
    return net.eval(), x


def check(onnx_model: bytes, net: nn.Module, x: torch.Tensor, within: float) -> None:
    qm = fhe_core.quantize(onnx_model, x.numpy(), n_bits=7, rounding=7)
    with torch.no_grad():
        expected = net(x).numpy()
    clear = qm.forward(x.numpy())
    assert relative_error(clear, expected) < within
    assert np.mean(clear.argmax(axis=1) == expected.argmax(axis=1)) > 0.9
    assert relative_error(qm.forward(x.numpy(), fhe="simulate"), expected) < 1.5 * within


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_mlp_with_this_activation_keeps_its_answers(name: str) -> None:
    net, x = calibrated(mlp(ACTIVATIONS[name]), (12,))
    check(exported(net, x, 17), net, x, within=WITHIN.get(name, 0.08))


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_keeps_its_answers(name: str, opset: int) -> None:
    net, x = calibrated(*NETWORKS[name])
    check(exported(net, x, opset), net, x, within=WITHIN.get(name, 0.08))


@pytest.mark.parametrize("name", ["mlp", "cnn", "residual cnn", "view", "cat"])
def test_a_static_batch_of_one_runs_on_batches(name: str) -> None:
    net, x = calibrated(*NETWORKS[name])
    check(exported(net, x, 13, static=True), net, x, within=WITHIN.get(name, 0.08))
