"""scikit-learn's pipelines, as skl2onnx exports them: in float as ONNX Runtime, and on integers near that.

What prepares features runs before encryption, what is linear takes no look-up, and what only shapes results
runs after decryption.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from skl2onnx import to_onnx
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_diabetes, load_iris
from sklearn.decomposition import PCA
from sklearn.feature_selection import SelectKBest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    PolynomialFeatures,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import SVC, SVR, LinearSVR, NuSVC, OneClassSVM

import fhe_core
from tests.ops_contrib.models import by_runtime
from tests.ops_std.onnx_cases import assert_same

Make = Callable[[], Any]


def iris() -> tuple[Any, Any]:
    x, y = load_iris(return_X_y=True)
    return x.astype(np.float32), y


def with_codes() -> tuple[Any, Any]:
    """Iris with two columns of categories."""
    x, y = iris()
    codes = np.random.default_rng(0).integers(0, 3, (len(x), 2))
    return np.concatenate([x, codes], axis=1).astype(np.float32), y


def named() -> tuple[Any, Any]:
    x, y = iris()
    return x, np.array(["setosa", "versicolor", "virginica"])[y]


def diabetes() -> tuple[Any, Any]:
    x, y = load_diabetes(return_X_y=True)
    return x[:200].astype(np.float32), y[:200] / 100


def linear(*steps: Any) -> Any:
    return make_pipeline(*steps, LogisticRegression(max_iter=500))


def columns() -> Any:
    return ColumnTransformer(
        [
            ("numbers", StandardScaler(), [0, 1, 2, 3]),
            ("codes", OneHotEncoder(handle_unknown="ignore"), [4, 5]),
        ]
    )


PREPARED: dict[str, tuple[Make, Make]] = {
    "standard scaler": (lambda: linear(StandardScaler()), iris),
    "text labels": (lambda: linear(StandardScaler()), named),
    "robust scaler": (lambda: linear(RobustScaler()), iris),
    "largest magnitude": (lambda: linear(MaxAbsScaler()), iris),
    "normalizer": (lambda: linear(Normalizer()), iris),
    "binarizer": (lambda: linear(Binarizer(threshold=2.5)), iris),
    "imputer": (lambda: linear(SimpleImputer()), iris),
    "selection": (lambda: linear(SelectKBest(k=2), StandardScaler()), iris),
    "polynomial": (lambda: linear(StandardScaler(), PolynomialFeatures(2)), iris),
    "components": (lambda: linear(StandardScaler(), PCA(2)), iris),
    "columns": (lambda: linear(columns()), with_codes),
    "linear machine": (lambda: make_pipeline(StandardScaler(), SVC(kernel="linear")), iris),
    "one against the rest": (lambda: make_pipeline(StandardScaler(), SGDClassifier()), iris),
}
"""Linear classifiers behind all kinds of preparation: no look-up at all."""

LAYERED: dict[str, tuple[Make, Make, int]] = {
    "radial machine": (lambda: make_pipeline(StandardScaler(), SVC()), iris, 8),
    "polynomial machine": (lambda: NuSVC(kernel="poly", degree=2), iris, 8),
    "network": (
        lambda: make_pipeline(StandardScaler(), MLPClassifier((8,), tol=0.01, max_iter=500)),
        iris,
        8,
    ),
}
"""Classifiers with one layer of look-ups."""

SQUARED = {"loss": "squared_epsilon_insensitive", "dual": False}
NUMERIC: dict[str, tuple[Make, float]] = {
    "ridge": (lambda: make_pipeline(MinMaxScaler(), Ridge()), 0.999),
    "linear machine": (lambda: make_pipeline(StandardScaler(), LinearSVR(**SQUARED)), 0.999),
    "radial machine": (lambda: make_pipeline(StandardScaler(), SVR(C=0.1, epsilon=0.6)), 0.95),
    "neighbours": (lambda: KNeighborsRegressor(3), 0.95),
}
"""Regressors, and how much of the float model's variance eight bits keep."""


@cache
def exported(make: Make, data: Make) -> tuple[Any, Any]:
    """The fitted model as ONNX, and the samples."""
    x, y = data()
    estimator = make()
    estimator.fit(x, y)
    with warnings.catch_warnings():
        # skl2onnx reads attributes of machines that scikit-learn is about to remove.
        warnings.simplefilter("ignore", FutureWarning)
        return to_onnx(estimator, x[:1], target_opset={"": 17, "ai.onnx.ml": 3}), x


def outputs(result: Any) -> tuple[Any, ...]:
    return result if isinstance(result, tuple) else (result,)


def statuses(proto: Any, op: str) -> set[str]:
    return {node.status for node in fhe_core.check(proto).nodes if node.op == op}


EVERY = [(make, data) for make, data, *_ in (*PREPARED.values(), *LAYERED.values())]
EVERY += [(make, diabetes) for make, _ in NUMERIC.values()]


@pytest.mark.parametrize(("make", "data"), EVERY, ids=[*PREPARED, *LAYERED, *NUMERIC])
def test_in_float_a_pipeline_gives_runtime_s_results(make: Make, data: Make) -> None:
    proto, x = exported(make, data)
    for got, expected in zip(
        outputs(fhe_core.NumpyModule(proto)(x)), by_runtime(proto, x), strict=True
    ):
        if isinstance(expected, list):
            assert [list(row) for row in got] == [list(row) for row in expected]
            got, expected = (np.array([list(row.values()) for row in y]) for y in (got, expected))
        assert_same(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("make", "data"), PREPARED.values(), ids=list(PREPARED))
def test_linear_classifiers_take_no_look_up_whatever_prepares_their_features(
    make: Make, data: Make
) -> None:
    proto, x = exported(make, data)
    qm = fhe_core.quantize(proto, x, n_bits=8)
    label, expected = outputs(qm.forward(x))[0], outputs(fhe_core.NumpyModule(proto)(x))[0]
    assert label.dtype == expected.dtype
    assert np.mean(label == expected) >= 0.97
    assert len(qm.program.lookups) == 0


@pytest.mark.parametrize(("make", "data", "bits"), LAYERED.values(), ids=list(LAYERED))
def test_other_classifiers_take_one_layer_of_look_ups(make: Make, data: Make, bits: int) -> None:
    proto, x = exported(make, data)
    qm = fhe_core.quantize(proto, x, n_bits=bits)
    label, expected = outputs(qm.forward(x))[0], outputs(fhe_core.NumpyModule(proto)(x))[0]
    assert np.mean(label == expected) >= 0.95
    assert len(qm.program.lookups) == 1


@pytest.mark.parametrize(("make", "kept"), NUMERIC.values(), ids=list(NUMERIC))
def test_regressors_keep_the_variance_of_the_float_model(make: Make, kept: float) -> None:
    proto, x = exported(make, diabetes)
    qm = fhe_core.quantize(proto, x, n_bits=8)
    (got,), (expected,) = outputs(qm.forward(x)), outputs(fhe_core.NumpyModule(proto)(x))
    assert 1 - np.var(got - expected) / np.var(expected) >= kept


@pytest.mark.parametrize("options", [{}, {"optim": "cdist"}])
def test_neighbours_vote_after_decryption_on_distances_that_take_no_look_up(options: Any) -> None:
    x, y = iris()
    estimator = KNeighborsClassifier(3).fit(x, y)
    proto = to_onnx(
        estimator, x[:1], target_opset=17, options={id(estimator): {"zipmap": False, **options}}
    )
    qm = fhe_core.quantize(proto, x, n_bits=8)
    (label, shares), expected = qm.forward(x), by_runtime(proto, x)
    assert np.mean(label == expected[0]) >= 0.97
    assert np.mean(np.isclose(shares, expected[1])) >= 0.95
    assert len(qm.program.lookups) == 0


def test_the_nearest_of_k_means_is_chosen_after_decryption() -> None:
    x, _ = iris()
    estimator = make_pipeline(StandardScaler(), KMeans(3, n_init=2, random_state=0)).fit(x)
    proto = to_onnx(estimator, x[:1], target_opset=17)
    qm = fhe_core.quantize(proto, x, n_bits=8)
    (label, distances), expected = qm.forward(x), by_runtime(proto, x)
    assert np.mean(label == expected[0]) >= 0.97
    np.testing.assert_allclose(distances, expected[1], atol=0.05)
    assert len(qm.program.lookups) == 0


def test_anomalies_are_told_from_a_sum_of_kernels() -> None:
    x, _ = iris()
    proto = to_onnx(OneClassSVM(nu=0.2).fit(x), x[:1], target_opset=17)
    qm = fhe_core.quantize(proto, x, n_bits=8)
    assert np.mean(qm.forward(x)[0] == fhe_core.NumpyModule(proto)(x)[0]) >= 0.9


def test_what_no_look_up_computes_is_the_client_s_also_where_all_else_stays_on_the_server() -> None:
    """The scaler is one look-up a feature then; the label is still the place of a maximum."""
    proto, x = exported(*PREPARED["standard scaler"])
    qm = fhe_core.quantize(proto, x, n_bits=8, client_side="minimal")
    (label, maps), expected = qm.forward(x), fhe_core.NumpyModule(proto)(x)
    assert np.mean(label == expected[0]) >= 0.97
    assert list(maps[0]) == list(expected[1][0])
    assert len(qm.program.lookups) == 1


def test_the_report_says_where_each_step_runs() -> None:
    proto, _ = exported(*PREPARED["standard scaler"])
    assert fhe_core.check(proto).ok
    assert statuses(proto, "Scaler") == {"before encryption"}
    assert statuses(proto, "LinearClassifier") == {"encrypted"}
    assert statuses(proto, "Normalizer") == statuses(proto, "ZipMap") == {"after decryption"}
    proto, _ = exported(*PREPARED["columns"])
    assert statuses(proto, "OneHotEncoder") == {"before encryption"}
    proto, _ = exported(*LAYERED["radial machine"][:2])
    assert statuses(proto, "SVMClassifier") == {"rewritten"}
    assert statuses(proto, "SVMKernel") == statuses(proto, "LinearRegressor") == {"encrypted"}
    assert statuses(proto, "SVMVotes") == {"after decryption"}


@pytest.mark.fhe
def test_an_encrypted_pipeline_labels_as_in_the_clear() -> None:
    proto, x = exported(*PREPARED["columns"])
    qm = fhe_core.compile(proto, x, n_bits=6)
    assert qm.cost.pbs_count == 0
    label, maps = qm.forward(x[::50], fhe="execute")
    expected = qm.forward(x[::50])
    np.testing.assert_array_equal(label, expected[0])
    assert maps == expected[1]
