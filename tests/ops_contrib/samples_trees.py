"""Samples of the tree operators for the conformance kit.

Each feature is compared with one threshold: the kit looks at what stays on the server, where a feature is an
integer, and a single threshold is one of its steps.
"""

from __future__ import annotations

import itertools

import numpy as np
from fhe_core.testing import Sample
from onnx.numpy_helper import from_array

from tests.ops_contrib.tree_models import flattened, samples

X = samples(0, 60)
TREE = (
    "BRANCH_LEQ",
    0,
    0.25,
    ("BRANCH_LT", 1, -0.5, None, None),
    ("BRANCH_GT", 2, 0.0, None, ("BRANCH_GTE", 3, 1.0, None, None)),
)
STUMPS = (TREE, ("BRANCH_LEQ", 0, 0.25, None, None))


_vote = itertools.cycle([0.0, 0.5, 0.5]).__next__
_value = itertools.cycle([-1.0, 0.25, 2.0, 0.5, 1.5]).__next__

SAMPLES = {
    "TreeEnsembleClassifier": [
        Sample(
            X,
            attributes={**flattened(STUMPS, "class", [0], _vote), "classlabels_int64s": [0, 1]},
            outputs=2,
            opset=3,
            name="binary",
        ),
    ],
    "TreeEnsembleRegressor": [
        Sample(
            X,
            attributes={**flattened([TREE], "target", [0], _value), "n_targets": 1},
            opset=3,
            name="one",
        ),
        Sample(
            X,
            attributes={
                **flattened(STUMPS, "target", [0, 1], _value),
                "n_targets": 2,
                "aggregate_function": "AVERAGE",
            },
            opset=3,
            name="two-targets",
        ),
    ],
    "TreeEnsemble": [
        Sample(
            X,
            attributes={
                "nodes_featureids": [0, 1],
                "nodes_modes": from_array(np.array([0, 3], np.uint8)),
                "nodes_splits": from_array(np.array([0.25, -0.5], np.float32)),
                "nodes_truenodeids": [1, 1],
                "nodes_trueleafs": [0, 1],
                "nodes_falsenodeids": [0, 2],
                "nodes_falseleafs": [1, 1],
                "leaf_targetids": [0, 0, 0],
                "leaf_weights": from_array(np.array([-1.0, 0.5, 2.0], np.float32)),
                "n_targets": 1,
                "tree_roots": [0],
            },
            opset=5,
        )
    ],
}
