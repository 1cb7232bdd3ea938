"""What the conformance kit tries the operators of ai.onnx.ml with, and those that stand for parts of them.

onnx.reference judges what it implements; the rest has its results here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from fhe_core.testing import Sample
from scipy.spatial.distance import cdist

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3)).astype(np.float32)
HOLES = np.where(RNG.random(X.shape) < 0.2, np.float32(np.nan), X)
WHOLE = RNG.integers(0, 4, (40, 2))
NAMES = np.array([["a"], ["c"], ["x"]], object)
COEFFICIENTS = RNG.normal(size=6).astype(np.float32).tolist()
VECTORS = RNG.normal(size=(4, 3)).astype(np.float32)
DUAL = RNG.normal(size=4).astype(np.float32)
TARGETS = np.array([3.0, -1.0, 5.0, 2.0], np.float32)


def _distances(metric: str) -> Any:
    return cdist(X.astype(np.float64), VECTORS, metric).astype(np.float32)


def _kernel(name: str) -> Any:
    products = X.astype(np.float64) @ VECTORS.T
    kernels = {
        "RBF": np.exp(-0.3 * _distances("sqeuclidean")),
        "POLY": (0.3 * products + 0.5) ** 2,
        "SIGMOID": np.tanh(0.3 * products + 0.5),
    }
    return kernels[name].astype(np.float32)


KERNELS = [
    Sample(
        X,
        attributes={
            "kernel_params": [0.3, 0.5, 2.0],
            "kernel_type": name,
            "n_supports": 4,
            "support_vectors": VECTORS.reshape(-1).tolist(),
        },
        expected=_kernel(name),
        name=name.lower(),
    )
    for name in ("RBF", "POLY", "SIGMOID")
]

MACHINES = [
    Sample(
        X,
        attributes={
            "coefficients": DUAL.tolist(),
            "kernel_params": [0.3, 0.5, 2.0],
            "kernel_type": name,
            "n_supports": 4,
            "rho": [0.25],
            "support_vectors": VECTORS.reshape(-1).tolist(),
        },
        name=name.lower(),
    )
    for name in ("LINEAR", "RBF", "POLY")
]

VOTES = [
    Sample(
        X,
        attributes={
            "classlabels_ints": [3, 7],
            "coefficients": DUAL.tolist(),
            "kernel_params": [0.3, 0.5, 2.0],
            "kernel_type": name,
            "rho": [0.25],
            "support_vectors": VECTORS.reshape(-1).tolist(),
            "vectors_per_class": [2, 2],
        },
        outputs=2,
        name=name.lower(),
    )
    for name in ("LINEAR", "RBF")
]

SAMPLES: Mapping[str, Sequence[Sample]] = {
    "CDist": [
        Sample(
            X,
            VECTORS,
            constants=[1],
            attributes={"metric": metric},
            expected=_distances(metric),
            name=metric,
        )
        for metric in ("euclidean", "sqeuclidean")
    ],
    "CastMap": [Sample({3: 1.5, 1: 2.0}, expected=np.array([[2.0, 1.5]], np.float32))],
    "CategoryMapper": [
        Sample(
            NAMES,
            attributes={"cats_int64s": [5, 7], "cats_strings": ["a", "c"]},
            expected=np.array([[5], [7], [-1]]),
        )
    ],
    "DictVectorizer": [
        Sample(
            {"a": 1.5},
            attributes={"string_vocabulary": ["b", "a"]},
            expected=np.array([[0.0, 1.5]], np.float32),
        )
    ],
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
    "LabelEncoder": [
        Sample(
            WHOLE,
            attributes={"keys_int64s": [0, 1, 2], "values_floats": [0.5, -1.0, 2.0]},
            expected=np.array([0.5, -1.0, 2.0, -0.0], np.float32)[WHOLE],
            opset=version,
            name=f"version {version}",
        )
        for version in (2, 4)
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
            attributes={"coefficients": COEFFICIENTS, "intercepts": [0.25, -1.0], "targets": 2},
        )
    ],
    "Monomials": [
        Sample(
            X,
            attributes={"degrees": [0, 1, 2], "features": [2, 0, 0]},
            expected=np.stack([np.ones(40, np.float32), X[:, 2], X[:, 0] ** 2], axis=1),
        )
    ],
    "Normalizer": [
        Sample(X, attributes={"norm": norm}, name=norm.lower()) for norm in ("L1", "L2")
    ],
    "OneHotEncoder": [Sample(WHOLE, attributes={"cats_int64s": [0, 1, 3]})],
    "SVMClassifier": VOTES,
    "SVMKernel": KERNELS,
    "SVMRegressor": MACHINES,
    "SVMVotes": [
        Sample(
            X[:, :1],
            attributes={"classlabels_ints": [3, 7]},
            expected=(np.where(X[:, 0] > 0, 3, 7), np.concatenate([-X[:, :1], X[:, :1]], axis=1)),
        )
    ],
    "Scaler": [
        Sample(X, attributes={"offset": [0.1, 0.2, 0.3], "scale": [2.0, 0.5, 1.5]}),
        Sample(X, attributes={"offset": [0.5], "scale": [3.0]}, name="all"),
    ],
    "ZipMap": [
        Sample(
            X[:2],
            attributes={"classlabels_int64s": [1, 2, 3]},
            expected=[dict(zip((1, 2, 3), row, strict=True)) for row in X[:2].tolist()],
        )
    ],
}
