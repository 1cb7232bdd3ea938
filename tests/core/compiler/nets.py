"""Small nets and their data, for the tests of the compiler."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from tests.core.quantization.building import model, normal

Array = NDArray[Any]

WEIGHTS = {"w": normal(4, 6, seed=1), "b": normal(6, seed=2), "v": normal(6, 3, seed=3)}
#: Few bits, roundings, the least of real encryption.
FAST: dict[str, Any] = {"n_bits": 3, "rounding": 3}


def samples(*shape: int) -> Array:
    """Calibration data that no test leaves: 200 seeded samples."""
    return normal(200, *shape, seed=9)


def mlp() -> onnx.ModelProto:
    """4-6-3, with Relu between."""
    return model(
        "h = Gemm(x, w, b)\n r = Relu(h)\n y = Gemm(r, v)",
        {"x": ("N", 4)},
        constants=WEIGHTS,
    )


def client_sided() -> onnx.ModelProto:
    """Ops that run before encryption and after decryption around an MLP of two outputs."""
    return model(
        "d = Div(x, three)\n h = Gemm(d, w, b)\n r = Relu(h)\n g = Gemm(r, v)\n y = Softmax(g)",
        {"x": ("N", 4)},
        "y r",
        {**WEIGHTS, "three": np.float32(3)},
    )


def cnn() -> onnx.ModelProto:
    """A padded convolution, a pooling, and a residual addition."""
    constants = {"k": normal(1, 1, 2, 2, seed=4), "u": normal(4, 4, seed=6)}
    return model(
        """c = Conv <pads = [1, 1, 0, 0]> (x, k)
        a = Relu(c)
        p = MaxPool <kernel_shape = [2, 2], strides = [1, 1]> (a)
        f = Flatten(p)
        g = Gemm(f, u)
        s = Relu(g)
        y = Add(f, s)""",
        {"x": ("N", 1, 3, 3)},
        constants=constants,
    )
