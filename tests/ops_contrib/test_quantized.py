"""The quantized forms compute what the float ones do, as far as their bits allow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fhe_core.errors import CompilationError
from onnx import TensorProto

import fhe_core
from tests.ops_contrib.models import ml, model

FLOAT = TensorProto.FLOAT
CLASSIFIED = {"label": TensorProto.STRING, "scores": FLOAT}
TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO")


@pytest.fixture
def x() -> Any:
    return np.random.default_rng(0).normal(size=(400, 4)).astype(np.float32)


def floats(seed: int, count: int) -> list[float]:
    return np.random.default_rng(seed).normal(size=count).astype(np.float32).tolist()


def classifier(source: str, rows: int = 3, **attributes: Any) -> Any:
    names = ["no", "maybe", "yes"][: max(rows, 2)]
    given = {"intercepts": floats(2, rows), "post_transform": "SOFTMAX", **attributes}
    return ml(
        "LinearClassifier",
        source,
        "label scores",
        coefficients=floats(1, 4 * rows),
        classlabels_strings=names,
        **{name: value for name, value in given.items() if value is not None},
    )


def both(
    proto: Any, n_bits: int = 10, **feeds: Any
) -> tuple[Any, tuple[Any, ...], tuple[Any, ...]]:
    """The quantized module, its outputs and the float model's, with types and shapes compared."""
    qm = fhe_core.quantize(proto, feeds, n_bits=n_bits)
    got, expected = qm.forward(**feeds), fhe_core.NumpyModule(proto)(**feeds)
    got, expected = (y if isinstance(y, tuple) else (y,) for y in (got, expected))
    for one, other in zip(got, expected, strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
    return qm, got, expected


def assert_classified_alike(
    got: tuple[Any, ...], expected: tuple[Any, ...], atol: float = 0.02
) -> None:
    assert np.mean(got[0] == expected[0]) >= 0.98
    np.testing.assert_allclose(got[1], expected[1], atol=atol)


# -- linear models


def test_five_bits_label_a_trained_model_as_float_does_without_a_look_up(models: Path) -> None:
    data, path = np.load(models / "sk_logreg_cancer.npz"), models / "sk_logreg_cancer.onnx"
    qm = fhe_core.quantize(path, data["x_calib"], n_bits=5)
    # Saturating is part of the law; that it is told is tested with the core.
    low, high = qm.input_ranges["X"]
    label, probabilities = qm.forward(np.clip(data["x_test"], low, high))
    assert np.mean(label == data["label_ref"]) >= 0.98
    assert label.dtype == np.int64
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert len(qm.program.lookups) == 0


@pytest.mark.fhe
def test_encrypted_labels_and_probabilities_are_those_in_the_clear(models: Path) -> None:
    data, path = np.load(models / "sk_logreg_cancer.npz"), models / "sk_logreg_cancer.onnx"
    qm = fhe_core.compile(path, data["x_calib"], n_bits=5)
    x = data["x_calib"][:2]
    for one, other in zip(qm.forward(x, fhe="execute"), qm.forward(x), strict=True):
        np.testing.assert_array_equal(one, other)
    assert qm.cost.pbs_count == 0


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("intercepts", [True, False])
def test_transforms_and_labels_of_a_classifier_run_after_decryption(
    x: Any, transform: str, rows: int, intercepts: bool
) -> None:
    left_out = {} if intercepts else {"intercepts": None}
    node = classifier("x", rows, post_transform=transform, **left_out)
    qm, got, expected = both(model([node], {"x": x}, CLASSIFIED), x=x)
    assert_classified_alike(got, expected)
    assert len(qm.program.lookups) == 0


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("targets", [1, 3])
def test_a_regressor_needs_no_look_up(x: Any, transform: str, targets: int) -> None:
    node = ml(
        "LinearRegressor",
        "x",
        "y",
        coefficients=floats(3, 4 * targets),
        intercepts=floats(4, targets),
        targets=targets,
        post_transform=transform,
    )
    qm, (got,), (expected,) = both(model([node], {"x": x}, {"y": FLOAT}), x=x)
    np.testing.assert_allclose(got, expected, atol=0.02)
    assert len(qm.program.lookups) == 0


def test_the_plan_has_a_scale_for_each_column_of_coefficients(x: Any) -> None:
    """Under the node's name; a module built again from that plan computes the same."""
    proto = model([classifier("x")], {"x": x}, CLASSIFIED)
    qm = fhe_core.quantize(proto, x, n_bits=6)
    assert np.shape(qm.plan.weights["coefficients@LinearClassifier"].scale) == (1, 3)
    again = fhe_core.quantize(proto, x, plan=qm.plan)
    for one, other in zip(qm.forward(x), again.forward(x), strict=True):
        np.testing.assert_array_equal(one, other)


def test_between_two_linear_models_the_scores_are_looked_up(x: Any) -> None:
    """Binarizer and Scaler join that look-up, and the first model's columns fill its width."""
    first = ml("LinearRegressor", "x", "a", coefficients=floats(5, 16), targets=4)
    last = ml("LinearRegressor", "b", "y", coefficients=floats(6, 4), intercepts=[0.5])
    scaled = ml("Scaler", "a", "b", offset=floats(7, 4), scale=floats(8, 4))
    qm, (got,), (expected,) = both(model([first, scaled, last], {"x": x}, {"y": FLOAT}), 8, x=x)
    assert np.corrcoef(got[:, 0], expected[:, 0])[0, 1] > 0.99
    assert len(qm.program.lookups) == 1
    assert np.shape(qm.plan.weights["coefficients@LinearRegressor"].scale) == (1, 4)

    cut = ml("Binarizer", "a", "b", threshold=0.25)
    qm, (got,), (expected,) = both(model([first, cut, last], {"x": x}, {"y": FLOAT}), 8, x=x)
    assert np.mean(np.isclose(got, expected, atol=0.05)) > 0.9
    assert len(qm.program.lookups) == 1


# -- what runs before encryption

BEFORE = (
    ml("Scaler", "x", "s", offset=[0.5, 0.0, -0.5, 0.1], scale=[1.0, 2.0, 0.5, 1.0]),
    ml("Binarizer", "x", "s", threshold=0.25),
    ml("Imputer", "x", "s", imputed_value_floats=[0.5], replaced_value_float=-1.0),
    ml("Normalizer", "x", "s", norm="L2"),
    ml("Normalizer", "x", "s", norm="L1"),
    ml("Normalizer", "x", "s", norm="MAX"),
)


@pytest.mark.parametrize("node", BEFORE, ids=lambda node: node.op_type)
def test_preparation_runs_before_encryption(x: Any, node: Any) -> None:
    x = np.round(np.abs(x) if node.op_type == "Normalizer" else x, 1)
    qm, got, expected = both(model([node, classifier("s")], {"x": x}, CLASSIFIED), x=x)
    assert_classified_alike(got, expected)
    assert len(qm.program.lookups) == 0


def test_one_input_may_be_prepared_in_several_ways_before_encryption(x: Any) -> None:
    """By one operator too, with other attributes each time."""
    nodes = [
        ml("Scaler", "x", "a", offset=[0.5], scale=[0.5]),
        ml("Scaler", "x", "b", offset=[-1.5], scale=[0.25]),
        ml("FeatureVectorizer", "a b", "s", inputdimensions=[2, 2]),
        classifier("s"),
    ]
    x = x[:, :2]
    qm, got, expected = both(model(nodes, {"x": x}, CLASSIFIED), x=x)
    assert_classified_alike(got, expected)
    assert len(qm.encoder_names) == 1


def test_integers_are_imputed_before_encryption() -> None:
    x = np.random.default_rng(0).integers(-3, 4, (300, 4))
    nodes = [
        ml("Imputer", "x", "i", imputed_value_int64s=[1, 2, 3, 4], replaced_value_int64=-3),
        ml("Scaler", "i", "s", offset=[0.5], scale=[0.5]),
        classifier("s"),
    ]
    _, got, expected = both(model(nodes, {"x": x}, CLASSIFIED), x=x)
    assert_classified_alike(got, expected)


def test_integers_are_binarized_before_encryption() -> None:
    x = np.random.default_rng(0).integers(-3, 4, (300, 4))
    nodes = [
        ml("Binarizer", "x", "b", threshold=-1.5),
        ml("Scaler", "b", "s", offset=[0.5], scale=[2.0]),
        classifier("s"),
    ]
    _, got, expected = both(model(nodes, {"x": x}, CLASSIFIED), x=x)
    assert_classified_alike(got, expected)


def test_inputs_are_joined_before_encryption_and_encrypted_as_one(x: Any) -> None:
    parts = {"a": x[:, :1], "b": x[:, 1:4]}
    nodes = [ml("FeatureVectorizer", "a b", "s", inputdimensions=[1, 3]), classifier("s")]
    qm, got, expected = both(model(nodes, parts, CLASSIFIED), **parts)
    assert_classified_alike(got, expected)
    assert len(qm.encoder_names) == 1


def test_features_are_picked_without_a_look_up(x: Any) -> None:
    nodes = [ml("ArrayFeatureExtractor", "x places", "s"), classifier("s")]
    constants = {"places": np.array([3, 0, 0, 1])}
    qm, got, expected = both(model(nodes, {"x": x}, CLASSIFIED, constants), x=x)
    assert_classified_alike(got, expected)
    assert len(qm.program.lookups) == 0


@pytest.mark.parametrize("node", BEFORE[:3], ids=lambda node: node.op_type)
def test_functions_of_each_feature_can_stay_on_the_server(x: Any, node: Any) -> None:
    proto = model([node, classifier("s")], {"x": x}, CLASSIFIED)
    qm = fhe_core.quantize(proto, x, n_bits=10, client_side="minimal")
    got, expected = qm.forward(x), fhe_core.NumpyModule(proto)(x)
    assert np.mean(got[0] == expected[0]) >= 0.98


# -- what runs after decryption, and what cannot run in between


def test_a_norm_is_taken_after_decryption_but_not_between_two_linear_models(x: Any) -> None:
    first = ml("LinearRegressor", "x", "a", coefficients=floats(5, 16), targets=4)
    norm = ml("Normalizer", "a", "b", norm="L1")
    qm, (got,), (expected,) = both(model([first, norm], {"x": x}, {"b": FLOAT}), x=x)
    np.testing.assert_allclose(got, expected, atol=0.02)
    assert len(qm.program.lookups) == 0

    last = ml("LinearRegressor", "b", "y", coefficients=floats(6, 4))
    with pytest.raises(CompilationError, match=r"ai\.onnx\.ml\.Normalizer.*'contrib'.*mixes"):
        fhe_core.quantize(model([first, norm, last], {"x": x}, {"y": FLOAT}), x)


def test_encrypted_indices_are_refused(x: Any) -> None:
    places = np.zeros((len(x), 1), np.int64)
    nodes = [ml("ArrayFeatureExtractor", "x places", "s")]
    proto = model(nodes, {"x": x, "places": places}, {"s": FLOAT})
    with pytest.raises(CompilationError, match=r"ArrayFeatureExtractor.*indices.*encrypted"):
        fhe_core.quantize(proto, {"x": x, "places": places})
