"""Support vector machines on integers do what they do in float, as far as their bits allow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fhe_core.errors import ModelError
from fhe_ops_contrib.passes import split_machines
from onnx import TensorProto

import fhe_core
from tests.ops_contrib.models import ml, model

INT64, FLOAT = TensorProto.INT64, TensorProto.FLOAT
RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 3)).astype(np.float32)
VECTORS = RNG.normal(size=(6, 3)).astype(np.float32)
DUAL = RNG.normal(size=12).astype(np.float32)
CLASSIFIED = {"label": INT64, "scores": FLOAT}


def classifier(kernel: str, classes: int = 3, **others: Any) -> Any:
    node = ml(
        "SVMClassifier",
        "x",
        "label scores",
        classlabels_ints=[7, 3, 5][:classes],
        coefficients=DUAL[: 6 * (classes - 1)].tolist(),
        kernel_params=[0.3, 0.5, 2.0],
        kernel_type=kernel,
        rho=[0.1, -0.2, 0.05][: classes * (classes - 1) // 2],
        support_vectors=VECTORS.reshape(-1).tolist(),
        vectors_per_class=[6 // classes] * classes,
        **others,
    )
    return model([node], {"x": X}, CLASSIFIED)


def regressor(kernel: str, **others: Any) -> Any:
    node = ml(
        "SVMRegressor",
        "x",
        "y",
        coefficients=DUAL[:6].tolist(),
        kernel_params=[0.3, 0.5, 2.0],
        kernel_type=kernel,
        n_supports=6,
        rho=[0.25],
        support_vectors=VECTORS.reshape(-1).tolist(),
        **others,
    )
    return model([node], {"x": X}, {"y": FLOAT})


def lookups(qm: Any) -> int:
    """Elements that one sample looks up."""
    return sum(int(np.prod(node.shape[1:])) for node in qm.program.lookups)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_linear_kernel_needs_no_look_up(classes: int) -> None:
    proto = classifier("LINEAR", classes)
    qm = fhe_core.quantize(proto, X, n_bits=10)
    (label, scores), (wanted, exact) = qm.forward(X), fhe_core.NumpyModule(proto)(X)
    assert np.mean(label == wanted) >= 0.99
    np.testing.assert_allclose(scores, exact, atol=0.03)
    assert lookups(qm) == 0


@pytest.mark.parametrize("kernel", ["POLY", "RBF", "SIGMOID"])
@pytest.mark.parametrize("classes", [2, 3])
def test_any_other_kernel_takes_one_look_up_a_support_vector(kernel: str, classes: int) -> None:
    """However many pairs of classes read it; the squares of RBF are the client's."""
    proto = classifier(kernel, classes)
    qm = fhe_core.quantize(proto, X, n_bits=8)
    (label, _), (wanted, _) = qm.forward(X), fhe_core.NumpyModule(proto)(X)
    assert np.mean(label == wanted) >= 0.95
    assert lookups(qm) == len(VECTORS)


@pytest.mark.parametrize("kernel", ["LINEAR", "POLY", "RBF", "SIGMOID"])
def test_a_regressor_is_as_near_as_its_bits(kernel: str) -> None:
    proto = regressor(kernel)
    exact = fhe_core.NumpyModule(proto)(X)
    errors = [
        np.abs(fhe_core.quantize(proto, X, n_bits=bits).forward(X) - exact).std() for bits in (4, 8)
    ]
    assert errors[1] < 0.04 * exact.std()
    assert errors[1] < errors[0] / 4


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("transform", ["NONE", "SOFTMAX"])
def test_votes_and_probabilities_run_after_decryption(classes: int, transform: str) -> None:
    pairs = classes * (classes - 1) // 2
    odds = {"prob_a": [-2.0] * pairs, "prob_b": [0.1] * pairs}
    proto = classifier("LINEAR", classes, post_transform=transform, **odds)
    qm = fhe_core.quantize(proto, X, n_bits=10)
    (label, found), (wanted, exact) = qm.forward(X), fhe_core.NumpyModule(proto)(X)
    assert np.mean(label == wanted) >= 0.99
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(found, exact, atol=0.02)
    assert lookups(qm) == 0


def test_an_anomaly_is_told_by_the_sign_after_decryption() -> None:
    proto = regressor("RBF", one_class=1)
    qm = fhe_core.quantize(proto, X, n_bits=8)
    assert np.mean(qm.forward(X) == fhe_core.NumpyModule(proto)(X)) >= 0.97
    assert lookups(qm) == len(VECTORS)


def test_machines_without_support_vectors_are_linear_models() -> None:
    given: dict[str, Any] = {"rho": [0.1], "kernel_params": [0.0] * 3, "kernel_type": "LINEAR"}
    one = ml("SVMRegressor", "x", "y", coefficients=[0.5, -1.0, 2.0], **given)
    two = ml(
        "SVMClassifier",
        "x",
        "label scores",
        coefficients=DUAL[:9].tolist(),
        classlabels_ints=[1, 2, 3],
        post_transform="LOGISTIC",
        **given,
    )
    proto = model([one, two], {"x": X}, {"y": FLOAT, **CLASSIFIED})
    qm = fhe_core.quantize(proto, X, n_bits=10)
    (y, label, scores), expected = qm.forward(X), fhe_core.NumpyModule(proto)(X)
    np.testing.assert_allclose(y, expected[0], atol=0.03)
    assert np.mean(label == expected[1]) >= 0.99
    np.testing.assert_allclose(scores, expected[2], atol=0.02)
    assert lookups(qm) == 0


def test_all_on_the_server_the_kernels_are_looked_up_there() -> None:
    proto = regressor("RBF")
    qm = fhe_core.quantize(proto, X, n_bits=6, client_side="minimal")
    exact = fhe_core.NumpyModule(proto)(X)
    assert np.corrcoef(qm.forward(X).ravel(), exact.ravel())[0, 1] > 0.95


@pytest.mark.fhe
def test_an_encrypted_machine_separates_what_it_was_trained_to() -> None:
    """Two rings, which no linear model separates."""
    angle, radius = RNG.uniform(0, 2 * np.pi, 200), RNG.choice([0.5, 2.0], 200)
    x = (np.stack([np.cos(angle), np.sin(angle)], axis=1) * radius[:, None]).astype(np.float32)
    node = ml(
        "SVMClassifier",
        "x",
        "label scores",
        classlabels_ints=[0, 1],
        coefficients=[-1.0] * 4,
        kernel_params=[1.0, 0.0, 0.0],
        kernel_type="RBF",
        rho=[1.25],
        support_vectors=[0.5, 0.0, 0.0, 0.5, -0.5, 0.0, 0.0, -0.5],
        vectors_per_class=[2, 2],
    )
    proto = model([node], {"x": x}, CLASSIFIED)
    qm = fhe_core.compile(proto, x, n_bits=4, rounding=4)
    wanted = fhe_core.NumpyModule(proto)(x)[0]
    assert set(wanted.tolist()) == {0, 1}
    np.testing.assert_array_equal(wanted, np.where(radius > 1, 0, 1))
    assert qm.cost.pbs_count == 4
    np.testing.assert_array_equal(qm.forward(x[:4], fhe="execute")[0], wanted[:4])


def test_a_machine_that_contradicts_itself_is_left_for_its_implementation_to_refuse() -> None:
    proto = regressor("RBF")
    del proto.graph.node[0].attribute[:1]
    with pytest.raises(ModelError, match=r"SVMRegressor.*'coefficients'"):
        fhe_core.quantize(proto, X)


def test_a_model_without_machines_is_passed_on_as_it_is() -> None:
    node = ml("Scaler", "x", "y", offset=[0.5], scale=[2.0])
    graph = fhe_core.NumpyModule(model([node], {"x": X}, {"y": FLOAT})).graph
    assert split_machines(graph) is graph
