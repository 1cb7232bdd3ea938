"""Features in units of their own enter a linear model scaled, so that each keeps its levels."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LinearRegression, LogisticRegression, SGDClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

import fhe_core

RNG = np.random.default_rng(0)
UNITS = np.float32([1, 1000, 0.02, 40])
X = np.concatenate(
    [RNG.normal(size=(300, 4)) * UNITS, RNG.poisson(5, (300, 1)), RNG.integers(0, 3, (300, 1))],
    axis=1,
).astype(np.float32)
Y = X[:, :4] @ (1 / UNITS) + 0.3 * X[:, 4] + 0.5 * (X[:, 5] == 2)
CLASSES = (np.digitize(Y, [0.5, 2.5])).astype(np.int64)
COLUMNS = ColumnTransformer(
    [
        ("numbers", "passthrough", [0, 1, 2, 3]),
        ("count", "passthrough", [4]),
        ("kind", OneHotEncoder(), [5]),
    ]
)


@pytest.mark.filterwarnings("ignore:lbfgs failed")
@pytest.mark.parametrize(
    ("estimator", "wanted"),
    [
        (LinearRegression(), Y),
        (LogisticRegression(), CLASSES),
        (LogisticRegression(), CLASSES > 0),
        (SGDClassifier(random_state=0), CLASSES),
        (make_pipeline(COLUMNS, LogisticRegression()), CLASSES),
        (make_pipeline(COLUMNS, LinearRegression()), Y),
    ],
    ids=["regression", "classes", "two-classes", "sgd", "columns", "columns-regression"],
)
def test_a_linear_model_of_raw_features_is_right(estimator: Any, wanted: Any) -> None:
    skl2onnx = pytest.importorskip("skl2onnx")
    estimator.fit(X, wanted)
    kind = skl2onnx.common.data_types.FloatTensorType([None, X.shape[1]])
    options = None if wanted is Y else {id(estimator): {"zipmap": False}}
    proto = skl2onnx.convert_sklearn(
        estimator,
        initial_types=[("X", kind)],
        options=options,
        target_opset={"": 17, "ai.onnx.ml": 3},
    )
    expected = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"X": X})
    found = fhe_core.quantize(proto, X, n_bits=8)(X)
    results = found if isinstance(found, tuple) else (found,)
    for result, float_one in zip(results, expected, strict=True):
        if float_one.dtype.kind in "iu":
            assert np.mean(result.ravel() == float_one.ravel()) > 0.97
        else:
            missed = np.square(np.float64(result) - float_one).mean()
            assert missed < 0.005 * np.var(float_one, axis=0).mean()
