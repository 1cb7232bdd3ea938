"""What the client computes of a net: functions of its inputs, and of decrypted results, a sample at a time."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from fhe_core.errors import CompilationError

import fhe_core
from tests.core.quantization.building import model, normal, relative_error

SIZE = 5
X = np.clip(normal(120, SIZE, seed=1), -0.9, 0.9)
CONSTANTS = {
    "w": normal(SIZE, 3, seed=2),
    "c": normal(SIZE, seed=3),
    "low": np.float32(-0.5),
    "two": np.float32(2),
    "mask": np.arange(SIZE) % 2 == 0,
    "first": np.array([0]),
    "rows": np.array([-1, 1, SIZE]),
    "flat": np.array([-1, SIZE]),
    "one": np.array([1]),
}
BEFORE = (
    *(
        f"y = {op}(x)"
        for op in (
            *("Celu", "Elu", "HardSigmoid", "HardSwish", "LeakyRelu", "Relu", "Selu", "Shrink"),
            *("Sigmoid", "Softplus", "Softsign", "Tanh", "ThresholdedRelu", "Mish"),
            *("Abs", "Acos", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Cos", "Cosh", "Erf", "Exp"),
            *("Floor", "Identity", "Neg", "Round", "Sign", "Sin", "Sinh", "Tan"),
        )
    ),
    *(f"p = Add(x, two) \n y = {op}(p)" for op in ("Acosh", "Log", "Reciprocal", "Sqrt")),
    *(f"y = {op}(x, c)" for op in ("Add", "Div", "Max", "Min", "Mul", "PRelu", "Sub", "Sum")),
    "y = Pow(x, two)",
    "y = Mod <fmod = 1> (x, c)",
    "y = Clip(x, low, two)",
    "y = Where(mask, x, c)",
    "m = Greater(x, c) \n y = Cast <to = 1> (m)",
    "r = Reshape(x, rows) \n t = Trilu(r) \n y = Reshape(t, flat)",
)


@pytest.mark.parametrize("nodes", BEFORE)
def test_every_function_of_elements_may_run_before_encryption(nodes: str) -> None:
    """Where the encrypted product comes after it, there is nothing to look up."""
    proto = model(f"{nodes} \n out = MatMul(y, w)", {"x": ("N", SIZE)}, "out", CONSTANTS, opset=18)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # no remarks on constants that a net leaves out
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options)
    module = fhe_core.quantize(proto, X, n_bits=8)
    assert not module.program.lookups
    assert relative_error(module(X), session.run(None, {"x": X})[0]) < 0.03


def test_a_normalization_in_front_of_the_first_convolution_runs_before_encryption() -> None:
    proto = model(
        "n = BatchNormalization(x, s, b, m, v) \n y = Conv(n, k)",
        {"x": ("N", 2, 4, 4)},
        constants={
            "s": np.array([1, 0.5], np.float32),
            "b": np.array([0.25, -1], np.float32),
            "m": np.array([0.5, -0.25], np.float32),
            "v": np.array([2, 1], np.float32),
            "k": normal(3, 2, 2, 2),
        },
    )
    x = normal(120, 2, 4, 4, seed=1)
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    module = fhe_core.quantize(proto, x, n_bits=8)
    assert not module.program.lookups
    assert relative_error(module(x), session.run(None, {"x": x})[0]) < 0.03


@pytest.mark.parametrize(
    "nodes",
    [
        "y = Trilu(h)",
        "y = ReduceMax(h, first)",
        "y = ReduceL2(h, first)",
        "y = Softmax <axis = 0> (h)",
        "y = LogSoftmax <axis = 0> (h)",
        "y = Hardmax <axis = 0> (h)",
        "y = ArgMax <axis = 0> (h)",
        "y = ArgMin <axis = 0, keepdims = 0> (h)",
        "y, i = TopK <axis = 0> (h, one)",
    ],
)
def test_what_mixes_the_samples_of_a_batch_is_refused_after_decryption_too(nodes: str) -> None:
    """Its result for a sample would depend on what it is sent together with."""
    proto = model(f"h = MatMul(x, w) \n {nodes}", {"x": ("N", SIZE)}, "y", CONSTANTS, opset=18)
    with pytest.raises(CompilationError, match="other samples of its batch") as caught:
        fhe_core.quantize(proto, X)
    assert caught.value.where.op == nodes.split("= ")[1].split("(")[0].split(" ")[0]
    assert caught.value.fix


def test_what_mixes_the_samples_of_a_batch_is_refused_before_encryption_too() -> None:
    proto = model("t = Trilu(x) \n y = MatMul(t, w)", {"x": ("N", SIZE)}, "y", CONSTANTS)
    with pytest.raises(CompilationError, match="other samples of its batch"):
        fhe_core.quantize(proto, X)
