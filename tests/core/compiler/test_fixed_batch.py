"""A model that was exported for batches of one size, as torch does, compiles from any number of samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx.parser
import pytest
from fhe_core.compiler.students import _channels
from fhe_core.quantization.calibration import batches, float_values
from fhe_core.quantization.session import Session
from onnx import numpy_helper

import fhe_core

RNG = np.random.default_rng(0)
WEIGHTS = {
    "w": RNG.normal(size=(5, 2)).astype(np.float32),
    "v": RNG.normal(size=(2, 3)).astype(np.float32) / 3,
    "s": np.array([-1, 2]),
}
X = RNG.normal(size=(24, 5)).astype(np.float32)


def model(batch: int) -> onnx.ModelProto:
    proto = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g (float[{batch}, 5] x) => (float[{batch}, 3] y)'
        "{ h = MatMul(x, w)  r = Relu(h)  f = Reshape(r, s)  y = MatMul(f, v) }"
    )
    proto.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in WEIGHTS.items())
    return proto


def expected(x: Any) -> Any:
    return np.maximum(x @ WEIGHTS["w"], 0) @ WEIGHTS["v"]


@pytest.mark.parametrize("batch", [1, 4])
def test_every_mode_takes_any_number_of_samples(batch: int) -> None:
    module = fhe_core.quantize(model(batch), X, n_bits=6)
    for samples in (X[:1], X[:7], X):
        for mode in ("disable", "simulate"):
            y = module.forward(samples, fhe=mode)
            assert np.square(y - expected(samples)).mean() < 0.15 * expected(X).var()


@pytest.mark.fhe
def test_it_runs_encrypted() -> None:
    module = fhe_core.compile(model(1), X, n_bits=2)
    y = module.forward(X[:2], fhe="execute")
    assert np.allclose(y, module.forward(X[:2], fhe="simulate"), atol=1)


@pytest.mark.parametrize("batch", [1, 4])
def test_the_search_weighs_channels_on_whole_batches(batch: int) -> None:
    session = Session(model(batch), X[:10] if batch == 1 else X[:12])
    (placed,) = (op for op in session.placement.ops if op.node.op_type == "Relu")
    assert len(list(_channels(session, placed))) == 2


def test_the_float_model_runs_on_samples_that_fill_no_batch() -> None:
    net = fhe_core.NumpyModule(model(4))
    parts = [len(part["x"]) for part in batches(net.graph, {"x": X[:10]})]
    assert parts == [4, 4, 4]
    assert np.allclose(float_values(net, {"x": X[:10]}, ["y"])["y"], expected(X[:10]), atol=1e-5)
