"""Probabilities are normalized where they are read: after decryption, all of the normalization together."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import onnxruntime
import pytest
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.mixture import GaussianMixture
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import BernoulliNB, GaussianNB, MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import fhe_core
from tests.core.quantization.building import model, normal

SIZE = 6
RNG = np.random.default_rng(0)
CENTRES = RNG.normal(size=(3, SIZE)) * 2
CLASSES = np.arange(300) % 3
X = (CENTRES[CLASSES] + RNG.normal(size=(300, SIZE))).astype(np.float32)
COUNTS = RNG.poisson(2 + CLASSES[:, None] * np.arange(SIZE) % 3).astype(np.float32)
ESTIMATORS: dict[str, tuple[Any, Any]] = {
    "gaussian": (GaussianNB(), X),
    "multinomial": (MultinomialNB(), COUNTS),
    "bernoulli": (BernoulliNB(binarize=2.5), COUNTS),
    "mixture": (GaussianMixture(3, random_state=0), X),
    "one-vs-rest": (OneVsRestClassifier(LogisticRegression()), X),
    "sgd": (make_pipeline(StandardScaler(), SGDClassifier(loss="log_loss", random_state=0)), X),
}


@functools.cache
def exported(name: str) -> bytes:
    skl2onnx = pytest.importorskip("skl2onnx")
    estimator, x = ESTIMATORS[name]
    estimator.fit(x, CLASSES)
    kind = skl2onnx.common.data_types.FloatTensorType([None, SIZE])
    mixture = isinstance(estimator, GaussianMixture)
    found = skl2onnx.convert_sklearn(
        estimator,
        initial_types=[("X", kind)],
        options=None if mixture else {id(estimator): {"zipmap": False}},
        target_opset={"": 17, "ai.onnx.ml": 3},
    )
    return bytes(found.SerializeToString())


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("n_bits", [4, 8])
def test_probabilities_are_between_0_and_1_and_sum_to_1(name: str, n_bits: int) -> None:
    """At any width, as in the float model."""
    proto, x = exported(name), ESTIMATORS[name][1]
    assert fhe_core.check(proto).ok
    module = fhe_core.quantize(proto, x, n_bits=n_bits)
    for mode in ("disable", "simulate"):
        found = module.forward(x, fhe=mode)[1]
        assert found.min() >= 0
        assert found.max() <= 1 + 1e-6
        np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    if n_bits == 8:
        session = onnxruntime.InferenceSession(proto)
        labels, wanted = session.run(None, {"X": x})
        assert np.mean(module(x)[0].ravel() == np.ravel(labels)) > 0.96
        assert np.abs(module(x)[1] - wanted).mean() < 0.02


DECOMPOSED = {
    "softmax": "e = Exp(h) \n s = ReduceSum(e, axis) \n y = Div(e, s)",
    "stable": "m = ReduceMax <axes = [1]> (h) \n d = Sub(h, m) \n e = Exp(d) "
    "\n s = ReduceSum(e, axis) \n y = Div(e, s)",
    "log-sum-exp": "l = ReduceLogSumExp <axes = [1]> (h) \n d = Sub(h, l) \n y = Exp(d)",
    "logarithm": "e = Exp(h) \n s = ReduceSum(e, axis) \n l = Log(s) \n d = Sub(h, l) \n y = Exp(d)",
    "sigmoids": "p = Sigmoid(h) \n s = ReduceSum(p, axis) \n y = Div(p, s)",
    "norm": "p = Sigmoid(h) \n y = LpNormalization <axis = 1, p = 1> (p)",
    "log-softmax": "l = LogSoftmax(h) \n y = Exp(l)",
}


@pytest.mark.parametrize("nodes", DECOMPOSED.values(), ids=list(DECOMPOSED))
def test_a_normalization_in_parts_stays_together(nodes: str) -> None:
    """None of it is looked up under encryption, and the sum is of the numbers that it divides."""
    constants = {"w": normal(SIZE, 4), "axis": np.array([1])}
    used = {k: v for k, v in constants.items() if k == "w" or "axis)" in nodes}
    proto = model(f"h = MatMul(x, w) \n {nodes}", {"x": ("N", SIZE)}, constants=used)
    module = fhe_core.quantize(proto, X / 3, n_bits=5)
    assert len(module.program.lookups) == 0
    np.testing.assert_allclose(module(X / 3).sum(axis=1), 1, atol=1e-5)


LAST = {
    "of sums": "a = ReduceSumSquare <axes = [1]> (h) \n y = ReduceLogSumExp <axes = [1]> (a)",
    "of a concatenation": "a = ReduceSumSquare <axes = [1]> (h) \n c = Concat <axis = 1> (a, a) "
    "\n y = ReduceLogSumExp <axes = [1]> (c)",
    "of a softmax": "d = Softmax(h) \n y = ReduceLogSumExp <axes = [1]> (d)",
    "of a product": "d = Softmax(h) \n e = Mul(d, half) \n y = ReduceLogSumExp <axes = [1]> (e)",
    "in pieces": "r = Relu(h) \n l = ReduceLogSumExp <axes = [1]> (r) \n y = Sub(r, l)",
    "norm of norms": "d = LpNormalization <axis = 1> (h) \n y = LpNormalization <axis = 1, p = 1> (d)",
}


@pytest.mark.parametrize("nodes", LAST.values(), ids=list(LAST))
def test_the_client_computes_logarithms_of_sums_and_norms(nodes: str) -> None:
    """Also where they read what it has computed itself."""
    constants = {"w": normal(SIZE, 4) / 3, "half": np.float32(-0.5)}
    used = {k: v for k, v in constants.items() if k == "w" or "half" in nodes}
    proto = model(f"h = MatMul(x, w) \n {nodes}", {"x": ("N", SIZE)}, constants=used)
    found, wanted = fhe_core.quantize(proto, X, n_bits=8)(X), fhe_core.NumpyModule(proto)(X)
    assert np.abs(found - wanted).max() < 0.05 * max(np.ptp(wanted), 1)
