"""Columns of a table, each in a unit of its own, that the client prepares and joins before encryption."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

import fhe_core
from tests.ops_contrib.models import ml, model

RNG = np.random.default_rng(0)
#: An income, an age, a rate and a category.
X = np.stack(
    [
        RNG.lognormal(10, 0.5, 300),
        RNG.integers(18, 90, 300),
        RNG.normal(0, 1e-3, 300),
        RNG.integers(0, 4, 300),
    ],
    axis=1,
).astype(np.float32)
PARTS = [
    ml("ArrayFeatureExtractor", "x i", "income"),
    ml("ArrayFeatureExtractor", "x j", "others"),
    ml("ArrayFeatureExtractor", "x k", "kind"),
    ml("OneHotEncoder", "kind", "hot", cats_int64s=[0, 1, 2, 3]),
    helper.make_node("Reshape", ["hot", "flat"], ["kinds"]),
    helper.make_node("Concat", ["income", "others", "kinds"], ["table"], axis=1),
]
CHOICES = {
    "i": np.array([0]),
    "j": np.array([1, 2]),
    "k": np.array([3]),
    "flat": np.array([-1, 4]),
}
COLUMNS = 7


def tree(cuts: dict[int, float]) -> Any:
    """Adds up 2^n for each n-th of these features that is above its cut."""
    nodes: dict[str, list[Any]] = {"treeids": [], "nodeids": [], "featureids": [], "values": []}
    for number, (feature, cut) in enumerate(cuts.items()):
        nodes["treeids"] += [number] * 3
        nodes["nodeids"] += [0, 1, 2]
        nodes["featureids"] += [feature, 0, 0]
        nodes["values"] += [cut, 0.0, 0.0]
    count = len(cuts)
    return ml(
        "TreeEnsembleRegressor",
        "table",
        "y",
        **{f"nodes_{name}": given for name, given in nodes.items()},
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"] * count,
        nodes_truenodeids=[1, 0, 0] * count,
        nodes_falsenodeids=[2, 0, 0] * count,
        target_treeids=np.repeat(np.arange(count), 2).tolist(),
        target_nodeids=[1, 2] * count,
        target_ids=[0, 0] * count,
        target_weights=np.ravel([[0.0, 2.0**n] for n in range(count)]).tolist(),
        n_targets=1,
    )


def run(nodes: list[Any], **constants: Any) -> tuple[Any, Any, Any]:
    proto = model(nodes, {"x": X}, {"y": TensorProto.FLOAT}, {**CHOICES, **constants})
    module = fhe_core.quantize(proto, X, n_bits=8)
    return module, module.forward(X), fhe_core.NumpyModule(proto)(X)


def test_trees_of_joined_columns_are_exact() -> None:
    """Each column is compared with its own thresholds before encryption."""
    middle = {0: float(np.median(X[:, 0])), 1: 50.5, 2: 1e-4, 4: 0.5}
    _, found, wanted = run([*PARTS, tree(middle)])
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("last", ["linear", "standardized"])
def test_weights_take_up_the_units_of_joined_columns(last: str) -> None:
    scale = np.float32([1e-4, 0.03, 1e3, 1, 1, 1, 1])
    weights = np.float32([1, -0.5, 0.7, 0.2, -0.3, 0.4, 0.1])
    if last == "linear":
        ends = [ml("LinearRegressor", "table", "y", coefficients=(weights * scale).tolist())]
        module, found, wanted = run([*PARTS, *ends])
    else:
        ends = [
            helper.make_node("Mul", ["table", "scale"], ["z"]),
            helper.make_node("Tanh", ["z"], ["t"]),
            helper.make_node("MatMul", ["t", "w"], ["y"]),
        ]
        module, found, wanted = run([*PARTS, *ends], scale=scale, w=weights[:, None])
    assert 1 - np.square(found - wanted).sum() / np.square(wanted - wanted.mean()).sum() > 0.995
    assert not any("far from" in notice for notice in module.notices)


def test_where_the_client_is_to_know_little_columns_are_joined_on_the_server() -> None:
    proto = model(
        [
            *PARTS[:2],
            helper.make_node("Concat", ["income", "others"], ["table"], axis=1),
            tree({0: 2e4}),
        ],
        {"x": X},
        {"y": TensorProto.FLOAT},
        {name: CHOICES[name] for name in "ij"},
    )
    assert fhe_core.quantize(proto, X, client_side="minimal").encoder_names
