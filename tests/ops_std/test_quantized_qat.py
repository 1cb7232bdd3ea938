"""Models that were trained for integers, in QDQ form and with QLinear ops: their own numbers are computed.

ONNX Runtime, without its optimizations, says what a model computes. Where scales are powers of two and
biases are on the grid, floats hold every number of it exactly, and so the results are equal.
"""

from __future__ import annotations

import io
import warnings
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from fhe_core.errors import CompilationError, PlanError, UnsupportedOpError
from hypothesis import given, settings
from hypothesis import strategies as st

import fhe_core
from tests.core.quantization.building import model, normal

X = normal(300, 6)
MODES = ("disable", "simulate")

#: Wider than any accumulator here: nothing is rounded away.
ALL_BITS = 16


def integers(*shape: int, seed: int = 0, low: int = -7, high: int = 8, dtype: Any = np.int8) -> Any:
    return np.random.default_rng(seed).integers(low, high, shape).astype(dtype)


def powers(*shape: int, seed: int = 0) -> Any:
    """Scales from 1/64 to 1/8."""
    return np.exp2(np.random.default_rng(seed).integers(-6, -2, shape)).astype(np.float32)


def quantized(net: onnx.ModelProto, data: Any = X, **options: Any) -> Any:
    """Quantized to other widths than the training's, which are to be ignored."""
    return fhe_core.quantize(
        net, data, **{"n_bits": 3, "rounding": ALL_BITS, "rounding_method": "exact", **options}
    )


def by_runtime(net: onnx.ModelProto, **inputs: Any) -> Any:
    options = onnxruntime.SessionOptions()
    # Its own fusions of QDQ round at other places.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(net.SerializeToString(), options)
    return session.run(None, inputs)[0]


SCALES = {
    "s": np.float32(0.0625),
    "z": np.uint8(130),
    "w": integers(6, 5, seed=1),
    "ws": powers(5, seed=2),
    "wz": np.zeros(5, np.int8),
    "b": integers(5, seed=3, low=-50, high=50, dtype=np.float32) / 256,
    "s2": np.float32(0.03125),
    "z2": np.uint8(3),
    "w2": integers(5, 3, seed=4),
    "ws2": np.float32(0.03125),
    "wz2": np.int8(1),
}
MLP = """
    xq = QuantizeLinear(x, s, z)
    xd = DequantizeLinear(xq, s, z)
    wd = DequantizeLinear(w, ws, wz)
    h0 = MatMul(xd, wd)
    h1 = Add(h0, b)
    h2 = Relu(h1)
    hq = QuantizeLinear(h2, s2, z2)
    hd = DequantizeLinear(hq, s2, z2)
    wd2 = DequantizeLinear(w2, ws2, wz2)
    y = MatMul(hd, wd2)
"""


def mlp(**changes: Any) -> onnx.ModelProto:
    return model(MLP, {"x": ("N", 6)}, "y", {**SCALES, **changes})


@pytest.mark.parametrize("opset", [13, 17, 21])
@pytest.mark.parametrize("mode", MODES)
def test_a_qdq_mlp_gives_its_own_numbers(mode: str, opset: int) -> None:
    """QuantizeLinear and DequantizeLinear around activations and on weights, as exporters write them."""
    net = model(MLP, {"x": ("N", 6)}, "y", SCALES, opset=opset)
    assert np.array_equal(quantized(net).forward(X, fhe=mode), by_runtime(net, x=X))


def test_the_plan_holds_the_trained_scales_whatever_bits_are_asked_for() -> None:
    plan = quantized(mlp()).plan
    activation, hidden = plan.tensors["xd"], plan.tensors["hd"]
    assert (activation.scale, activation.zero_point, activation.bits) == (0.0625, 130, 8)
    assert (hidden.scale, hidden.zero_point, hidden.low) == (0.03125, 3, 0)
    for name, scales in (("wd", SCALES["ws"]), ("wd2", SCALES["ws2"])):
        (weight,) = (entry for key, entry in plan.weights.items() if key.startswith(f"{name}@"))
        ratio = np.ravel(weight.scale) / scales
        # All integers of a channel may have a common factor, which then belongs to the scale.
        assert weight.trained
        assert np.array_equal(ratio, np.rint(ratio))


def test_a_plan_that_was_saved_keeps_them() -> None:
    first = quantized(mlp())
    again = fhe_core.quantize(mlp(), X, plan=fhe_core.Plan.from_json(first.plan.to_json()))
    assert np.array_equal(again(X), first(X))


def test_rounding_accumulators_costs_no_more_than_what_it_drops() -> None:
    """Of an accumulator's b bits r are kept. The look-up then sees it as one of the 2^(b-r) integers that
    are merged, and its result is rounded to the trained grid: 2^(b-r) units and one step."""
    qm = quantized(mlp(), rounding=None)
    accumulator = qm.plan.accumulators["h0"]
    merged = 2.0 ** (accumulator.bits - accumulator.rounding)
    assert merged > 1
    (weight,) = (entry for name, entry in qm.plan.weights.items() if name.startswith("wd@"))
    hidden = merged * SCALES["s"] * np.ravel(weight.scale) + SCALES["s2"]
    last = np.abs((SCALES["w2"].astype(float) - SCALES["wz2"]) * SCALES["ws2"])
    error = np.abs(qm(X) - by_runtime(mlp(), x=X))
    assert (error <= hidden @ last).all()


def test_weights_stay_on_their_grid_while_channels_are_fitted_to_a_width() -> None:
    """A rounding to few bits scales channels up: by whole numbers, so that the weights are what they are."""
    plan = quantized(mlp(), rounding=4).plan
    weight = next(entry for name, entry in plan.weights.items() if name.startswith("wd@"))
    real = SCALES["w"] * SCALES["ws"]
    assert np.array_equal(np.rint(real / weight.scale) * weight.scale, real)
    assert (weight.scale < SCALES["ws"]).any()


CNN = """
    xq = QuantizeLinear(x, s, z)
    xd = DequantizeLinear(xq, s, z)
    wd = DequantizeLinear <axis = 0> (w, ws, wz)
    h0 = Conv <pads = [1, 1, 1, 1]> (xd, wd, b)
    h1 = BatchNormalization <epsilon = 0.0> (h0, gamma, beta, mean, var)
    h2 = Relu(h1)
    hq = QuantizeLinear(h2, s2, z2)
    hd = DequantizeLinear(hq, s2, z2)
    p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (hd)
    f = Flatten(p)
    vd = DequantizeLinear <axis = 0> (v, vs, vz)
    y = Gemm <transB = 1> (f, vd)
"""


def test_a_qdq_cnn_with_batch_norm_gives_its_own_numbers() -> None:
    """Weights keep their grid when a normalization is folded into them; pooling and layout keep the scale."""
    constants = {
        "s": np.float32(0.125),
        "z": np.int8(2),
        "w": integers(4, 2, 3, 3, seed=1),
        "ws": powers(4, seed=2),
        "wz": np.zeros(4, np.int8),
        "b": np.zeros(4, np.float32),
        "gamma": np.array([1, 2, -1, 0.5], np.float32),
        "beta": np.array([0.5, 0, 0.25, 1], np.float32),
        "mean": np.zeros(4, np.float32),
        "var": np.array([1, 4, 0.25, 1], np.float32),
        "s2": np.float32(0.25),
        "z2": np.int8(-128),
        "v": integers(3, 16, seed=3),
        "vs": powers(3, seed=4),
        "vz": np.zeros(3, np.int8),
    }
    net = model(CNN, {"x": ("N", 2, 4, 4)}, "y", constants)
    x = normal(100, 2, 4, 4)
    qm = quantized(net, x, n_bits=5)
    assert qm.plan.tensors["hd"].scale == 0.25
    assert np.array_equal(qm.forward(x, fhe="simulate"), by_runtime(net, x=x))


class FakeQuantized(torch.nn.Module):
    """A multilayer perceptron that is trained with the rounding of 8-bit integers in it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = torch.nn.Linear(6, 8), torch.nn.Linear(8, 3)
        self.steps = {"x": 0.03, "hidden": 0.017}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.fake_quantize_per_tensor_affine(x, self.steps["x"], 0, -128, 127)
        hidden = torch.relu(self._linear(self.first, x))
        hidden = torch.fake_quantize_per_tensor_affine(hidden, self.steps["hidden"], 5, 0, 255)
        return self._linear(self.last, hidden)

    def _linear(self, layer: torch.nn.Linear, x: torch.Tensor) -> torch.Tensor:
        scales = torch.full((len(layer.weight),), 0.011) * (1 + torch.arange(len(layer.weight)) / 9)
        zeros = torch.zeros(len(scales), dtype=torch.int32)
        weight = torch.fake_quantize_per_channel_affine(layer.weight, scales, zeros, 0, -128, 127)
        return torch.nn.functional.linear(x, weight, layer.bias)


def trained() -> FakeQuantized:
    torch.manual_seed(0)
    net, x = FakeQuantized(), torch.from_numpy(X)
    target = torch.sin(x[:, :3]) + x[:, 3:]
    optimizer = torch.optim.Adam(net.parameters(), 0.02)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(net(x), target).backward()
        optimizer.step()
    return net.eval()


def exported(net: torch.nn.Module) -> bytes:
    file: Any = io.BytesIO()
    names: Any = {"input_names": ["x"], "output_names": ["y"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's about itself
        torch.onnx.export(
            net,
            (torch.from_numpy(X[:1]),),
            file,
            opset_version=13,
            dynamo=False,
            dynamic_axes={"x": {0: "N"}, "y": {0: "N"}},
            **names,
        )
    return bytes(file.getvalue())


def test_a_net_that_torch_trained_for_integers_gives_torch_s_results() -> None:
    """Up to the order of torch's float sums: where that moves a hidden value across the boundary between
    two integers, by a step of it; elsewhere not at all."""
    net = trained()
    qm = quantized(exported(net))
    with torch.no_grad():
        expected = net(torch.from_numpy(X)).numpy()
        x = torch.fake_quantize_per_tensor_affine(torch.from_numpy(X), net.steps["x"], 0, -128, 127)
        hidden = torch.relu(net._linear(net.first, x)).double().numpy() / net.steps["hidden"]
        last = np.abs(net._linear(net.last, torch.eye(8)).numpy() - net.last.bias.numpy())
    near = np.abs(hidden - np.floor(hidden) - 0.5) < 1e-3
    allowed = net.steps["hidden"] * near @ last + 2.0**-18 * np.abs(expected).max()
    error = np.abs(qm.forward(X, fhe="simulate") - expected)
    assert (error <= allowed).all()
    assert near.any(axis=1).mean() < 0.2  # most samples are held to equality
    steps = sorted(tensor.scale for tensor in qm.plan.tensors.values())
    assert np.allclose(steps[0], net.steps["hidden"], rtol=1e-7)


@settings(max_examples=20, deadline=None)
@given(
    scale=st.floats(2.0**-10, 8, width=32),
    factor=st.floats(0.25, 4, width=32),
    bits=st.integers(2, 8),
    seed=st.integers(0, 99),
)
def test_any_grid_of_weights_is_found_again(
    scale: float, factor: float, bits: int, seed: int
) -> None:
    """Also if the weights have been multiplied once more, as by a normalization that is folded."""
    most = 2 ** (bits - 1) - 1
    w = integers(6, 3, seed=seed, low=-most, high=most + 1)
    scales = np.float32(scale) * np.array([1, 1.5, 0.3], np.float32)
    factors = np.float32(factor) * np.array([1, -1, 2], np.float32)
    nodes = """
        xq = QuantizeLinear(x, s, z)
        xd = DequantizeLinear(xq, s, z)
        wd = DequantizeLinear(w, ws, wz)
        h = MatMul(xd, wd)
        y = Mul(h, f)
    """
    constants = {"s": SCALES["s"], "z": SCALES["z"], "w": w, "ws": scales, "f": factors}
    net = model(nodes, {"x": ("N", 6)}, "y", {**constants, "wz": np.zeros(3, np.int8)})
    (weight,) = quantized(net, X[:40]).plan.weights.values()
    real = w.astype(np.float64) * scales * factors
    levels = real / weight.scale
    assert weight.trained
    assert np.abs(levels - np.rint(levels)).max() < 2.0**-12
    assert np.abs(levels).max() < 2**bits


def test_weights_of_an_ordinary_model_are_quantized_as_asked() -> None:
    """That they happen to lie on a grid says nothing where nothing else was trained for integers."""
    net = model("y = MatMul(x, w)", {"x": ("N", 6)}, "y", {"w": SCALES["w"].astype(np.float32)})
    (weight,) = quantized(net).plan.weights.values()
    assert (weight.trained, weight.bits) == (False, 3)


QLINEAR = """
    c = QLinearConv <pads = [1, 1, 0, 0], strides = [2, 2]> (x, s, z, w, ws, wz, s2, z2, b)
    f = Flatten(c)
    m = QLinearMatMul(f, s2, z2, v, vs, vz, s3, z3)
    y = DequantizeLinear(m, s3, z3)
"""


@pytest.mark.parametrize("mode", MODES)
def test_a_qlinear_net_gives_its_own_numbers(mode: str) -> None:
    constants = {
        "s": np.float32(0.125),
        "z": np.uint8(7),
        "w": integers(4, 2, 3, 3, seed=1),
        "ws": powers(4, seed=2),
        "wz": np.zeros(4, np.int8),
        "b": integers(4, seed=3, low=-99, high=99, dtype=np.int32),
        "s2": np.float32(0.25),
        "z2": np.uint8(100),
        "v": integers(16, 3, seed=4),
        "vs": np.float32(0.0625),
        "vz": np.int8(1),
        "s3": np.float32(0.5),
        "z3": np.uint8(128),
    }
    net = model(QLINEAR, {"x": ("N", 2, 4, 4)}, "y", constants, opset=13)
    net.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    x = integers(80, 2, 4, 4, low=0, high=16, dtype=np.uint8)
    qm = quantized(net, x, n_bits=4)
    assert np.array_equal(qm.forward(x, fhe=mode), by_runtime(net, x=x))


def test_two_encrypted_matrices_of_integers_are_multiplied() -> None:
    constants = {"s": np.float32(0.5), "z": np.uint8(2), "s2": np.float32(2), "z2": np.uint8(9)}
    nodes = "q = QLinearMatMul(a, s, z, b, s, z, s2, z2)\ny = DequantizeLinear(q, s2, z2)"
    net = model(nodes, dict.fromkeys("ab", ("N", 3, 3)), "y", constants)
    for given_input in net.graph.input:
        given_input.type.tensor_type.elem_type = onnx.TensorProto.UINT8
    a, b = (integers(40, 3, 3, seed=i, low=0, high=8, dtype=np.uint8) for i in range(2))
    qm = quantized(net, (a, b), n_bits=4)
    assert np.array_equal(qm.forward(a, b, fhe="simulate"), by_runtime(net, a=a, b=b))
    with pytest.raises(PlanError, match="zero point lies between the integers"):
        quantized(net, (a, b), n_bits=2)


def test_a_scale_that_depends_on_the_data_is_refused() -> None:
    """DynamicQuantizeLinear looks at all values of all samples before it rounds one."""
    net = model(
        "q, s, z = DynamicQuantizeLinear(x)\ny = DequantizeLinear(q, s, z)", {"x": ("N", 6)}
    )
    with pytest.raises((UnsupportedOpError, CompilationError)):
        fhe_core.quantize(net, X, client_side="minimal")


@pytest.mark.fhe
def test_encrypted_a_trained_net_gives_its_own_numbers() -> None:
    constants = {
        "s": np.float32(1),
        "z": np.zeros((), ml_dtypes.int4),
        "w": integers(3, 2, seed=1, low=-1, high=2),
        "ws": np.array([0.5, 0.25], np.float32),
        "wz": np.zeros(2, np.int8),
        "b": np.array([0.25, -0.5], np.float32),
        "s2": np.float32(1),
        "z2": np.zeros((), ml_dtypes.uint4),
        "w2": integers(2, 2, seed=2, low=-1, high=2),
        "ws2": np.float32(0.5),
        "wz2": np.int8(0),
    }
    net = model(MLP, {"x": ("N", 3)}, "y", constants, opset=21)
    x = normal(60, 3)
    qm = fhe_core.compile(net, x, n_bits=2, rounding=6)
    assert qm.plan.accumulators["h0"].bits <= 6  # nothing is rounded away
    assert np.array_equal(qm.forward(x[:3], fhe="execute"), by_runtime(net, x=x[:3]))
