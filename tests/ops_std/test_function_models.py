"""A model whose layers are functions is the same model as one without: run, checked, quantized."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.inliner
import onnx.parser
import onnxruntime
import pytest

import fhe_core

TEXT = """<ir_version: 8, opset_import: ["": 17, "net": 1]>
agraph (float[N, 3] x) => (float[N, 2] y)
  <float[3, 3] w = {1, -2, 0.5, 3, 1, -1, 0.25, 2, -0.5}, float[3, 2] v = {1, 2, -1, 0.5, 0.5, -2}> {
    h = net.Layer <slope = 0.1> (x, w)
    y = net.Layer(h, v)
}
<domain: "net", opset_import: ["": 17, "net": 1]>
Layer <slope: float = 0.0> (a, weight) => (b) {
    product = MatMul(a, weight)
    b = net.Activation <slope: float = @slope> (product)
}
<domain: "net", opset_import: ["": 16]>
Activation <slope: float = 0.5> (a) => (b) {
    b = LeakyRelu <alpha: float = @slope> (a)
}"""


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    proto = onnx.parser.parse_model(TEXT)
    # onnx.inliner leaves functions of another opset alone; the text means the same at 17.
    proto.functions[1].opset_import[0].version = 17
    return proto


@pytest.fixture(scope="module")
def data() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)


def test_it_runs_as_in_onnxruntime(model: onnx.ModelProto, data: np.ndarray) -> None:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (expected,) = session.run(None, {"x": data})
    np.testing.assert_allclose(fhe_core.NumpyModule(model)(data), expected, rtol=1e-5)


def test_it_is_checked_and_quantized_as_if_it_were_inlined(
    model: onnx.ModelProto, data: np.ndarray
) -> None:
    # onnx.inliner forgets that a function's attributes have defaults: here they are given.
    given = onnx.ModelProto()
    given.CopyFrom(model)
    given.graph.node[1].attribute.append(onnx.helper.make_attribute("slope", 0.0))
    inlined = onnx.inliner.inline_local_functions(given)
    assert not inlined.functions
    reports = [fhe_core.check(proto) for proto in (model, inlined)]
    assert [[node.status for node in report.nodes] for report in reports] == [
        ["encrypted", "fused", "encrypted", "fused"]
    ] * 2
    results = [
        fhe_core.quantize(proto, data, n_bits=6).forward(data, fhe="disable")
        for proto in (model, inlined)
    ]
    np.testing.assert_array_equal(*results)
