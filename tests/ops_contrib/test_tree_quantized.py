"""Encrypted trees give what float ones give: the same leaves, from bits of passed thresholds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fhe_core.errors import CompilationError, InputError
from onnx import TensorProto

import fhe_core
from tests.ops_contrib.models import ml, model
from tests.ops_contrib.test_tree_float import tree_model
from tests.ops_contrib.tree_models import MODES, listed, numbered, samples

FLOAT = TensorProto.FLOAT


def outputs(result: Any) -> tuple[Any, ...]:
    return result if isinstance(result, tuple) else (result,)


def leaves_alike(proto: Any, x: Any, atol: float = 0.0, **options: Any) -> Any:
    """The module, after comparing it with the float model on x and on what it was not calibrated with."""
    qm = fhe_core.quantize(proto, x[:50], n_bits=4, **options)
    for data in (x, 3 * x):
        exact = outputs(fhe_core.NumpyModule(proto)(data))
        for one, other in zip(outputs(qm.forward(data)), exact, strict=True):
            assert (one.dtype, one.shape) == (other.dtype, other.shape)
            if one.dtype.kind == "f":
                np.testing.assert_allclose(one, other, rtol=0, atol=atol)
            else:
                np.testing.assert_array_equal(one, other)
    return qm


# -- the trained models


@pytest.mark.parametrize(
    ("name", "bound"), [("sk_tree_cancer", 0.0), ("sk_forestreg_diabetes", 0.002)]
)
def test_trained_models_cost_a_third_of_the_peer_at_most(
    models: Path, name: str, bound: float
) -> None:
    """At the float model's predictions; the peer at its cheapest that scores as well."""
    data = np.load(models / f"{name}.npz")
    qm = fhe_core.compile(models / f"{name}.onnx", data["x_calib"], labels=data["y_calib"])
    got = outputs(qm.forward(data["x_test"]))
    if "label_ref" in data:
        np.testing.assert_array_equal(got[0], data["label_ref"])
        score = float(np.mean(got[0] == data["y_test"]))
    else:
        rest = data["y_test"] - got[0][:, 0]
        score = 1 - float(np.sum(rest**2) / np.sum((data["y_test"] - data["y_test"].mean()) ** 2))
    np.testing.assert_allclose(got[-1], data["y_ref"], rtol=0, atol=bound + 1e-6)
    peer = json.loads((models / "peer.json").read_text())[name]
    cheapest = min(row["complexity"] for row in peer if row["score"] >= score - 0.005)
    assert qm.cost.complexity < cheapest / 8


@pytest.mark.fhe
def test_real_ciphertexts_give_what_float_gives() -> None:
    """With gates, and look-ups of two widths."""
    given, x = numbered(41, "target", [0], trees=1, depth=4), samples(36)
    proto = tree_model("TreeEnsembleRegressor", x, **given, n_targets=1)
    qm = fhe_core.compile(proto, x, p_error=2**-17)
    assert len({node.inputs[0].width for node in qm.program.lookups}) > 1
    x = x[:4]
    np.testing.assert_array_equal(qm.forward(x, fhe="execute"), fhe_core.NumpyModule(proto)(x))


# -- every kind of tree


@pytest.mark.parametrize("mode", [*MODES, None])
def test_a_tree_is_exact_for_every_mode(mode: str | None) -> None:
    """All levels of features are met: thresholds, what is between them, and beyond."""
    given = numbered(1, "target", [0], trees=1, depth=5, modes=(mode,) if mode else MODES)
    x = samples(2, 400)
    leaves_alike(tree_model("TreeEnsembleRegressor", x, **given, n_targets=1), x)


@pytest.mark.parametrize("seed", range(8))
def test_trees_of_any_shape_are_exact(seed: int) -> None:
    """Deep and shallow, with many features and with few, so that conditions meet on one feature."""
    depth, features = 3 + seed % 5, 2 + 2 * (seed % 4)
    given = numbered(seed, "target", [0, 1], trees=1, depth=depth, features=features)
    x = samples(seed, 300, features)
    leaves_alike(tree_model("TreeEnsembleRegressor", x, **given, n_targets=2), x)


@pytest.mark.parametrize(
    ("depth", "features", "seed"), [(6, 6, 1), (7, 6, 1), (8, 6, 1), (8, 10, 3)]
)
def test_deep_trees_with_gates_inside_gates_are_exact(depth: int, features: int, seed: int) -> None:
    """What is left of a gate when its sibling is closed is told from the gate around both."""
    given = numbered(seed, "target", [0], trees=1, depth=depth, features=features)
    x = samples(seed, 600, features)
    leaves_alike(tree_model("TreeEnsembleRegressor", x, **given, n_targets=1), x)


@pytest.mark.parametrize("aggregate", ["SUM", "AVERAGE"])
@pytest.mark.parametrize("targets", [1, 2])
def test_sums_of_trees_are_off_by_steps_of_their_weights_alone(
    aggregate: str, targets: int
) -> None:
    given = numbered(3, "target", range(targets), trees=4)
    x = samples(4)
    attributes = {"n_targets": targets, "aggregate_function": aggregate}
    proto = tree_model("TreeEnsembleRegressor", x, **given, **attributes)
    leaves_alike(proto, x, atol=4e-3)


@pytest.mark.parametrize("aggregate", ["MIN", "MAX"])
def test_the_least_and_the_largest_of_trees_are_exact(aggregate: str) -> None:
    given, x = numbered(5, "target", [0, 1]), samples(6)
    attributes = {"n_targets": 2, "aggregate_function": aggregate, "post_transform": "SOFTMAX"}
    leaves_alike(tree_model("TreeEnsembleRegressor", x, **given, **attributes), x)


@pytest.mark.parametrize("seed", range(4))
def test_the_newest_op_is_exact_with_sets(seed: int) -> None:
    x = samples(seed)
    leaves_alike(tree_model("TreeEnsemble", x, version=5, **listed(seed, trees=1, depth=5)), x)


def test_doubles_and_integers_are_compared_as_float_compares_them() -> None:
    for kind in (np.float64, np.int64):
        given, x = numbered(7, "class", range(3), trees=1), samples(8, kind=kind)
        labels = {"classlabels_strings": ["a", "b", "c"]}
        leaves_alike(tree_model("TreeEnsembleClassifier", x, **given, **labels), x)


@pytest.mark.parametrize("transform", ["NONE", "LOGISTIC"])
@pytest.mark.parametrize("positive", [True, False])
def test_labels_of_two_classes_are_those_of_float(transform: str, positive: bool) -> None:
    given = numbered(9, "class", [0], trees=3, depth=3, positive=positive)
    x = samples(10)
    proto = tree_model(
        "TreeEnsembleClassifier", x, **given, classlabels_int64s=[0, 1], post_transform=transform
    )
    leaves_alike(proto, x, atol=2e-3)


def test_a_stump_needs_no_look_up() -> None:
    """A function of one feature is a sum of its bits."""
    given, x = numbered(11, "target", [0], trees=6, depth=1), samples(12)
    qm = leaves_alike(tree_model("TreeEnsembleRegressor", x, **given, n_targets=1), x, atol=3e-3)
    assert not qm.program.lookups


def test_a_tree_that_adds_less_than_a_step_is_left_out() -> None:
    given, x = numbered(40, "target", [0], trees=2, depth=2), samples(39)
    weights = np.array(given["target_weights"])
    weights[np.array(given["target_treeids"]) == 1] *= 1e-7
    given["target_weights"] = weights.tolist()
    proto = tree_model("TreeEnsembleRegressor", x, **given, n_targets=1)
    assert looked_up(leaves_alike(proto, x, atol=1e-3)) <= 2


def test_equal_trees_share_their_look_ups() -> None:
    one = numbered(13, "target", [0], trees=1)
    x, count = samples(14), len(one["nodes_treeids"])
    twice = {
        name: [*values, *([1] * len(values) if "treeids" in name else values)]
        for name, values in one.items()
    }
    proto = tree_model("TreeEnsembleRegressor", x, **twice, n_targets=1)
    qm = leaves_alike(proto, x, atol=1e-3)
    single = fhe_core.quantize(tree_model("TreeEnsembleRegressor", x, **one, n_targets=1), x)
    assert count == len(one["nodes_modes"])
    assert looked_up(qm) <= looked_up(single) + 1


def looked_up(qm: Any) -> int:
    return int(sum(np.prod(node.shape[1:]) for node in qm.program.lookups))


def test_branches_that_nothing_reaches_cost_nothing() -> None:
    """Below x <= 0 nothing is above 1; and where both ways end alike nothing is asked."""
    given = {
        "nodes_treeids": [0] * 7,
        "nodes_nodeids": list(range(7)),
        "nodes_featureids": [0, 0, 0, 0, 1, 0, 0],
        "nodes_modes": ["BRANCH_LEQ", "BRANCH_GT", "LEAF", "LEAF", "BRANCH_LT", "LEAF", "LEAF"],
        "nodes_values": [0.0, 1.0, 0.0, 0.0, 0.5, 0.0, 0.0],
        "nodes_truenodeids": [1, 2, 0, 0, 5, 0, 0],
        "nodes_falsenodeids": [4, 3, 0, 0, 6, 0, 0],
        "target_ids": [0] * 4,
        "target_nodeids": [2, 3, 5, 6],
        "target_treeids": [0] * 4,
        "target_weights": [9.0, 1.0, 2.0, 2.0],
    }
    x = samples(15)
    qm = leaves_alike(tree_model("TreeEnsembleRegressor", x, **given, n_targets=1), x)
    assert not qm.program.lookups


def test_missing_values_go_where_their_tracks_lead() -> None:
    given = numbered(37, "target", [0], trees=1, depth=5, tracks=True)
    x = samples(38, 400)
    x[::3, 0] = x[1::3, 2] = np.nan
    leaves_alike(tree_model("TreeEnsembleRegressor", x, **given, n_targets=1), x)


@pytest.mark.parametrize("seed", range(4))
def test_the_client_says_of_each_feature_whether_it_is_missing(seed: int) -> None:
    """Any of the features, and all of them at once, with and without a track."""
    given = numbered(seed, "target", [0], trees=2, depth=4, tracks=True)
    x = samples(seed, 400)
    x[np.random.default_rng(seed).random(x.shape) < 0.3] = np.nan
    x[7] = np.nan
    tracked = np.array(given["nodes_missing_value_tracks_true"], bool)
    modes, features = np.array(given["nodes_modes"]), np.array(given["nodes_featureids"])
    asked = np.unique(features[tracked & (modes != "LEAF")])
    x[:, [f for f in range(4) if f not in asked]] = 0.5  # where no branch tracks it, NaN is refused
    leaves_alike(tree_model("TreeEnsembleRegressor", x, **given, n_targets=1), x, atol=0.2)


# -- what the client learns


def test_it_is_told_that_the_client_learns_the_thresholds() -> None:
    given, x = numbered(16, "target", [0]), samples(17)
    proto = tree_model("TreeEnsembleRegressor", x, **given, n_targets=1)
    assert any("sorted thresholds" in notice for notice in fhe_core.quantize(proto, x).notices)


def test_minimal_quantizes_each_feature_uniformly_on_the_client_and_compares_on_the_server() -> (
    None
):
    given = numbered(18, "target", [0], trees=1, modes=("BRANCH_LEQ",))
    x = samples(19) + np.float32(0.25)
    proto = tree_model("TreeEnsembleRegressor", x, **given, n_targets=1)
    # Thresholds are multiples of a half, and samples lie in between: 8 bits tell them apart.
    qm = fhe_core.quantize(proto, x, n_bits=8, client_side="minimal")
    assert all("sorted thresholds" not in notice for notice in qm.notices)
    np.testing.assert_array_equal(qm.forward(x), fhe_core.NumpyModule(proto)(x))
    assert looked_up(qm) > looked_up(fhe_core.quantize(proto, x, n_bits=3))


def test_several_classes_are_added_up_where_that_costs_less_and_it_is_told() -> None:
    given, x = numbered(20, "class", range(5), trees=4), samples(21)
    labels = {"classlabels_int64s": list(range(5))}
    proto = tree_model("TreeEnsembleClassifier", x, **given, **labels)
    qm = leaves_alike(proto, x)
    assert any("adds up" in notice for notice in qm.notices)
    kept = fhe_core.quantize(proto, x, n_bits=3, client_side="minimal")
    assert not any("adds up" in notice for notice in kept.notices)


# -- trees among other ops


def test_a_scaler_before_a_tree_runs_before_encryption() -> None:
    given, x = numbered(22, "target", [0], trees=1), samples(23)
    scaler = ml("Scaler", "x", "s", offset=[0.5, 0.0, -0.5, 1.0], scale=[2.0, 1.0, 1.0, 0.5])
    tree = ml("TreeEnsembleRegressor", "s", "y", **given, n_targets=1)
    proto = model([scaler, tree], {"x": x}, {"y": FLOAT})
    qm = fhe_core.quantize(proto, x, n_bits=3)
    np.testing.assert_array_equal(qm.forward(x), fhe_core.NumpyModule(proto)(x))


def test_a_tree_of_what_is_computed_encrypted_compares_there() -> None:
    """As after a projection: exact up to the rounding of what it is asked about."""
    given = numbered(24, "target", [0], trees=1, depth=3, modes=("BRANCH_LEQ",))
    x = np.random.default_rng(25).normal(size=(400, 4)).astype(np.float32)
    linear = ml(
        "LinearRegressor", "x", "p", coefficients=(np.eye(4) + 0.1).ravel().tolist(), targets=4
    )
    tree = ml("TreeEnsembleRegressor", "p", "y", **given, n_targets=1)
    proto = model([linear, tree], {"x": x}, {"y": FLOAT})
    qm = fhe_core.quantize(proto, x, n_bits=8)
    assert np.mean(qm.forward(x) == fhe_core.NumpyModule(proto)(x)) > 0.9


# -- refusals


def test_nan_is_refused_where_no_branch_tracks_it() -> None:
    given, x = numbered(26, "target", [0], trees=1), samples(27)
    qm = fhe_core.quantize(tree_model("TreeEnsembleRegressor", x, **given, n_targets=1), x)
    with pytest.raises(InputError, match="NaN"):
        qm.forward(np.full((1, 4), np.nan, np.float32))


def test_trees_that_are_constant_are_refused_by_name() -> None:
    given, x = numbered(28, "target", [0], trees=1), samples(29)
    given["target_weights"] = [1.0] * len(given["target_weights"])
    with pytest.raises(CompilationError, match="same result for every input") as caught:
        fhe_core.quantize(tree_model("TreeEnsembleRegressor", x, **given, n_targets=1), x)
    assert caught.value.where.node == "TreeEnsembleRegressor"


def test_classes_that_only_some_leaves_score_are_refused() -> None:
    given, x = numbered(30, "class", range(3), trees=1), samples(31)
    for name in ("class_ids", "class_nodeids", "class_treeids", "class_weights"):
        given[name] = given[name][1:]
    proto = tree_model("TreeEnsembleClassifier", x, **given, classlabels_int64s=[0, 1, 2])
    with pytest.raises(CompilationError, match="some leaves score a target"):
        fhe_core.quantize(proto, x)
