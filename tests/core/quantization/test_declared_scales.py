"""Scales that nobody calibrates: those that an op declares, and those of integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from fhe_core.quantization.quantizers import QuantizationParameters

import fhe_core
from fhe_core import QuantizedOp
from tests.core.quantization.building import model, normal

X = normal(200, 4)
DOMAIN = "test.declared"


def stepped(x: Any, /, *, step: float = 0.5) -> Any:
    """Multiples of ``step``, from -8 to 7 of them."""
    return np.clip(np.rint(x / step), -8, 7) * np.float32(step)


class QuantizedStepped(QuantizedOp):
    _impl_for_op_named = "Stepped"

    def output_quantization(self, index: int = 0) -> QuantizationParameters | None:
        return QuantizationParameters(self.attrs["step"], 0, -8, 7)


@pytest.fixture(name="registry", autouse=True)
def _registry() -> Any:
    options = {"domain": DOMAIN}
    with fhe_core.registered([("Stepped", stepped, options)], [(QuantizedStepped, options)]):
        yield


def net(nodes: str, **constants: Any) -> onnx.ModelProto:
    return model(nodes, {"x": ("N", 4)}, "y", constants, domains={DOMAIN: 1})


@pytest.mark.parametrize("n_bits", [2, 3, 6])
def test_the_plan_keeps_what_an_op_declares(n_bits: int) -> None:
    proto = net(f"s = {DOMAIN}.Stepped(x)\ny = MatMul(s, w)", w=np.eye(4, dtype=np.float32))
    qm = fhe_core.quantize(proto, X, n_bits=n_bits, rounding=16)
    entry = qm.plan.tensors["s"]
    assert (entry.scale, entry.zero_point, entry.low, entry.bits) == (0.5, 0, -8, 4)
    assert np.array_equal(qm(X), stepped(X))


def test_a_declared_scale_beats_one_that_is_shared() -> None:
    """An addition whose branches declare different scales requantizes one: by half of its step at most."""
    nodes = f"""
        a = {DOMAIN}.Stepped <step = 0.5> (x)
        b = MatMul(x, w)
        c = {DOMAIN}.Stepped <step = 0.25> (b)
        d = Add(a, c)
        y = MatMul(d, v)
    """
    proto = net(nodes, w=normal(4, 4, seed=1), v=np.eye(4, dtype=np.float32))
    qm = fhe_core.quantize(
        proto, X, n_bits=6, rounding=16, rounding_method="exact", ranges="minmax"
    )
    assert qm.plan.tensors["a"].scale == 0.5
    # Weights are rounded, which may move c by a step more; then come half a step of a and one of d.
    error = np.abs(qm(X) - fhe_core.NumpyModule(proto)(X))
    weights = next(entry for name, entry in qm.plan.weights.items() if name.startswith("w@"))
    moved = np.abs(X).max() * 4 * np.max(weights.scale) / 2
    assert error.max() <= moved + 0.25 + 0.5 / 2 + qm.plan.tensors["d"].scale


@pytest.mark.parametrize(("low", "high"), [(0, 13), (-5, 6), (100, 112)])
def test_integers_that_fit_their_bits_are_their_own(low: int, high: int) -> None:
    """A tensor of an integer type, and with few enough values, is encrypted as it is."""
    proto = net("f = Cast <to = 1> (x)\ny = MatMul(f, w)", w=np.eye(4, dtype=np.float32))
    proto.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
    x = np.random.default_rng(0).integers(low, high + 1, (100, 4))
    qm = fhe_core.quantize(
        proto,
        x,
        n_bits={"model_inputs": 4, "op_inputs": 4, "op_weights": 4},
        client_side="minimal",
        rounding=16,
    )
    assert qm.plan.tensors["x"].scale == 1
