"""Trained ensembles, exported by skl2onnx and onnxmltools: as Runtime in float, and as float when encrypted."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import fhe_core
from tests.ops_contrib.models import by_runtime

datasets = pytest.importorskip("sklearn.datasets")
ensemble = pytest.importorskip("sklearn.ensemble")
pipeline = pytest.importorskip("sklearn.pipeline")
preprocessing = pytest.importorskip("sklearn.preprocessing")
tree = pytest.importorskip("sklearn.tree")
skl2onnx = pytest.importorskip("skl2onnx")


def loaded(name: str) -> tuple[Any, Any]:
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    return x.astype(np.float32), y


def exported(model: Any, x: Any) -> Any:
    options = {id(model): {"zipmap": False}} if hasattr(model, "classes_") else None
    return skl2onnx.to_onnx(
        model, x[:1], target_opset={"": 17, "ai.onnx.ml": 3}, options=options
    ).SerializeToString()


def random_like(x: Any, count: int = 300) -> Any:
    """Samples with each feature spread evenly over its range."""
    low, high = x.min(axis=0), x.max(axis=0)
    return np.random.default_rng(0).uniform(low, high, (count, x.shape[1])).astype(np.float32)


def compared(proto: Any, x: Any, atol: float) -> Any:
    """The quantized module, after comparing float with Runtime, and quantized with float."""
    import onnx

    model = onnx.load_from_string(proto) if isinstance(proto, bytes) else proto
    net = fhe_core.NumpyModule(model)
    qm = fhe_core.quantize(model, x, n_bits=4)
    for data in (x, random_like(x)):
        exact = net(data)
        exact = exact if isinstance(exact, tuple) else (exact,)
        got = qm.forward(data)
        got = got if isinstance(got, tuple) else (got,)
        for one, two, three in zip(by_runtime(model, data), exact, got, strict=True):
            if two.dtype.kind == "f":
                np.testing.assert_allclose(two, one.reshape(two.shape), rtol=1e-4, atol=1e-5)
                np.testing.assert_allclose(three, two, rtol=0, atol=atol)
            else:
                np.testing.assert_array_equal(two, one)
                np.testing.assert_array_equal(three, two)
    return qm


@pytest.mark.parametrize(
    ("model", "data", "atol"),
    [
        (tree.DecisionTreeClassifier(max_depth=6, random_state=0), "digits", 0),
        (ensemble.RandomForestClassifier(10, max_depth=4, random_state=0), "breast_cancer", 2e-3),
        (ensemble.RandomForestClassifier(10, random_state=0), "breast_cancer", 1e-6),
        (ensemble.RandomForestClassifier(5, max_depth=4, random_state=0), "iris", 0),
        (ensemble.ExtraTreesClassifier(5, max_depth=4, random_state=0), "wine", 0),
        (ensemble.GradientBoostingClassifier(n_estimators=4, max_depth=2), "iris", 2e-3),
        (ensemble.GradientBoostingRegressor(n_estimators=10, max_depth=3), "diabetes", 0.2),
        (ensemble.ExtraTreesRegressor(5, max_depth=4, random_state=0), "diabetes", 0.3),
    ],
    ids=lambda value: type(value).__name__ if hasattr(value, "fit") else str(value),
)
def test_scikit_learn_s_ensembles_keep_their_predictions(
    model: Any, data: str, atol: float
) -> None:
    """All labels, on random data too; regressions within a step of their leaves' weights for each tree."""
    x, y = loaded(data)
    compared(exported(model.fit(x, y), x), x, atol)


def test_a_scaled_forest_is_scaled_by_the_client() -> None:
    x, y = loaded("iris")
    model = pipeline.make_pipeline(
        preprocessing.StandardScaler(), tree.DecisionTreeClassifier(max_depth=3, random_state=0)
    )
    compared(exported(model.fit(x, y), x), x, 0)


def test_boosted_trees_of_xgboost_and_lightgbm_keep_their_labels() -> None:
    convert = pytest.importorskip("onnxmltools.convert")
    from onnxmltools.convert.common.data_types import FloatTensorType

    x, y = loaded("breast_cancer")
    kinds = [("initial", FloatTensorType([None, x.shape[1]]))]
    models = []
    with warnings.catch_warnings():
        # Their own affairs: deprecations of libraries that they use.
        warnings.simplefilter("ignore")
        xgboost = pytest.importorskip("xgboost")
        lightgbm = pytest.importorskip("lightgbm")
        boosted = xgboost.XGBClassifier(n_estimators=5, max_depth=3).fit(x, y)
        models.append(convert.convert_xgboost(boosted, initial_types=kinds, target_opset=15))
        leafwise = lightgbm.LGBMClassifier(n_estimators=5, num_leaves=8, verbose=-1).fit(x, y)
        models.append(
            convert.convert_lightgbm(leafwise, initial_types=kinds, target_opset=15, zipmap=False)
        )
    for proto in models:
        compared(proto, x, 5e-3)
