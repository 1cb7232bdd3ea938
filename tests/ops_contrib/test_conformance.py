"""The operators of ai.onnx.ml and of QONNX keep every law of the conformance kit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from fhe_core.testing import PackSuite, Sample

from tests.ops_contrib import samples_qonnx

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3)).astype(np.float32)
HOLES = np.where(RNG.random(X.shape) < 0.2, np.float32(np.nan), X)
COEFFICIENTS = RNG.normal(size=6).astype(np.float32).tolist()


class TestContrib(PackSuite):
    pack = "contrib"

    def samples(self) -> Mapping[str, Sequence[Sample]]:
        """onnx.reference judges what it implements; the rest has its results here."""
        return {
            "FeatureVectorizer": [
                Sample(X, X[:, :2], attributes={"inputdimensions": [3, 2]}, name="two"),
                Sample(X, attributes={"inputdimensions": [3]}, name="one"),
            ],
            "Imputer": [
                Sample(
                    HOLES,
                    attributes={
                        "imputed_value_floats": [0.5, -0.5, 1.0],
                        "replaced_value_float": float("nan"),
                    },
                    name="nan",
                ),
                Sample(
                    np.round(X),
                    attributes={"imputed_value_floats": [9.0], "replaced_value_float": 1.0},
                    name="ones",
                ),
            ],
            "LinearClassifier": [
                Sample(
                    X,
                    attributes={
                        "coefficients": COEFFICIENTS,
                        "intercepts": [0.1, -0.1],
                        "classlabels_ints": [3, 7],
                        "post_transform": transform,
                    },
                    outputs=2,
                    name=transform.lower(),
                )
                for transform in ("NONE", "SOFTMAX", "LOGISTIC")
            ],
            "LinearRegressor": [
                Sample(
                    X,
                    attributes={
                        "coefficients": COEFFICIENTS,
                        "intercepts": [0.25, -1.0],
                        "targets": 2,
                    },
                )
            ],
            "Normalizer": [
                Sample(X, attributes={"norm": norm}, name=norm.lower()) for norm in ("L1", "L2")
            ],
            "Scaler": [
                Sample(X, attributes={"offset": [0.1, 0.2, 0.3], "scale": [2.0, 0.5, 1.5]}),
                Sample(X, attributes={"offset": [0.5], "scale": [3.0]}, name="all"),
            ],
            **samples_qonnx.SAMPLES,
        }
