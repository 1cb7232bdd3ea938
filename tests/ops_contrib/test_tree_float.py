"""Tree ensembles compute in float what ONNX defines, and where it is silent what Runtime does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fhe_core.errors import ModelError
from fhe_core.registry.stateful import as_function
from fhe_ops_contrib.tree_masks import Masks
from fhe_ops_contrib.tree_scores import Targets
from onnx import TensorProto, helper, numpy_helper

import fhe_core
from fhe_core import OpSignature
from fhe_ops_contrib import tree_masks, trees
from tests.ops_contrib.models import by_runtime, single
from tests.ops_contrib.tree_models import MODES, listed, numbered, samples
from tests.ops_std import onnx_cases

OPS = ("TreeEnsembleClassifier", "TreeEnsembleRegressor", "TreeEnsemble")
INTS = (TensorProto.INT64, TensorProto.FLOAT)
DEFAULTS = OpSignature.from_callable(as_function(trees.TreeEnsembleRegressor)).attributes
TRANSFORMS = ("NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO", "PROBIT")


def tree_model(op: str, x: Any, *, version: int = 3, **attributes: Any) -> Any:
    outputs = INTS if op.endswith("Classifier") else None
    if "classlabels_strings" in attributes:
        outputs = (TensorProto.STRING, TensorProto.FLOAT)
    if version == 5:
        outputs = (helper.np_dtype_to_tensor_dtype(x.dtype),)
    model = single(op, x, outputs=outputs, **attributes)
    model.opset_import[1].version = version
    return model


def agree(op: str, x: Any, *, version: int = 3, **attributes: Any) -> tuple[Any, ...]:
    """The outputs of the pack, after comparing them with Runtime's."""
    model = tree_model(op, x, version=version, **attributes)
    got = fhe_core.NumpyModule(model)(x)
    got = got if isinstance(got, tuple) else (got,)
    for one, other in zip(got, by_runtime(model, x), strict=True):
        onnx_cases.assert_same(one, other, rtol=2e-4, atol=2e-5)
    return got


@pytest.mark.parametrize("case", onnx_cases.parameters(*OPS, domain="ai.onnx.ml"))
def test_onnx_s_own_cases(case: Any) -> None:
    case.check(trees.IMPLEMENTATIONS)


def test_onnx_has_cases_for_trees() -> None:
    """A collection that breaks must not pass as an empty one."""
    assert len(list(onnx_cases.cases(*OPS, domain="ai.onnx.ml"))) >= 2


@pytest.mark.parametrize("mode", [*MODES, None])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_regressors_branch_as_runtime_for_every_mode_and_send_nan_where_its_track_leads(
    mode: str | None, kind: Any
) -> None:
    modes = (mode,) if mode else MODES
    x = samples(1, kind=kind)
    x[::7, 1] = np.nan
    agree(
        "TreeEnsembleRegressor",
        x,
        **numbered(2, "target", [0], modes=modes, tracks=True),
        n_targets=1,
    )


@pytest.mark.parametrize("aggregate", ["SUM", "AVERAGE", "MIN", "MAX"])
@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("targets", [1, 3])
def test_regressors_aggregate_and_transform_as_runtime(
    aggregate: str, transform: str, targets: int
) -> None:
    agree(
        "TreeEnsembleRegressor",
        samples(3),
        **numbered(4, "target", range(targets), positive=transform == "PROBIT"),
        n_targets=targets,
        aggregate_function=aggregate,
        post_transform=transform,
        base_values=[0.25, -0.5, 0.125][:targets],
    )


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64, np.int32])
@pytest.mark.parametrize("transform", TRANSFORMS[:4])
def test_classifiers_of_several_classes_label_and_score_as_runtime(
    kind: Any, transform: str
) -> None:
    given = numbered(5, "class", range(3))
    labels = {"classlabels_strings": ["a", "b", "c"]}
    agree(
        "TreeEnsembleClassifier", samples(6, kind=kind), **given, **labels, post_transform=transform
    )


@pytest.mark.parametrize("transform", TRANSFORMS[:4])
@pytest.mark.parametrize("positive", [True, False])
@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("base", [None, [0.25]])
def test_one_score_tells_two_classes_apart_as_in_runtime(
    transform: str, positive: bool, place: int, base: Any
) -> None:
    given = numbered(7, "class", [place], positive=positive)
    extra = {} if base is None else {"base_values": base}
    agree(
        "TreeEnsembleClassifier",
        samples(8),
        **given,
        **extra,
        classlabels_int64s=[10, 20],
        post_transform=transform,
    )


def test_the_larger_of_two_scores_is_the_label() -> None:
    """As in ONNX's reference. Runtime returns 0 or 1, whatever the labels are."""
    attributes = numbered(9, "class", [0, 1])
    model = tree_model(
        "TreeEnsembleClassifier", samples(10), **attributes, classlabels_int64s=[5, 6]
    )
    label, scores = fhe_core.NumpyModule(model)(samples(10))
    np.testing.assert_array_equal(label, 5 + np.argmax(scores, axis=1))
    np.testing.assert_allclose(scores, by_runtime(model, samples(10))[1], rtol=1e-5)


@pytest.mark.parametrize("aggregate", range(4))
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_the_newest_op_has_sets_and_one_list_of_nodes(aggregate: int, kind: Any) -> None:
    attributes = listed(11, kind=kind)
    agree(
        "TreeEnsemble",
        samples(12, kind=kind),
        version=5,
        **attributes,
        aggregate_function=aggregate,
    )


def test_weights_and_thresholds_may_be_tensors_of_doubles() -> None:
    attributes = numbered(13, "target", [0])
    for name in ("nodes_values", "target_weights"):
        values = np.array(attributes.pop(name), np.float64) + 1e-9
        attributes[f"{name}_as_tensor"] = numpy_helper.from_array(values)
    agree("TreeEnsembleRegressor", samples(14, kind=np.float64), **attributes, n_targets=1)


def test_even_votes_round_once() -> None:
    """Ten votes of 0.05 in float32 are 0.5: no more, in whichever order they come."""
    count = 20
    weights = np.full(count, 0.05, np.float32)
    attributes = {
        "nodes_treeids": [t for t in range(count) for _ in range(3)],
        "nodes_nodeids": [0, 1, 2] * count,
        "nodes_featureids": [0] * (3 * count),
        "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"] * count,
        "nodes_values": [float(t) for t in range(count) for _ in range(3)],
        "nodes_truenodeids": [1, 0, 0] * count,
        "nodes_falsenodeids": [2, 0, 0] * count,
        "class_ids": [0] * (2 * count),
        "class_nodeids": [1, 2] * count,
        "class_treeids": [t for t in range(count) for _ in range(2)],
        "class_weights": [w for each in weights.tolist() for w in (0.0, each)],
        "classlabels_int64s": [0, 1],
    }
    x = np.array([[9.5], [10.5]], np.float32)
    label, scores = fhe_core.NumpyModule(tree_model("TreeEnsembleClassifier", x, **attributes))(x)
    assert scores[0].tolist() == [0.5, 0.5]
    assert label.tolist() == [0, 1]


# -- bad input


def _broken(**changes: Any) -> dict[str, Any]:
    """One stump with leaves 1 and 2, and something wrong with it."""
    stump = {
        "nodes_treeids": [0, 0, 0],
        "nodes_nodeids": [0, 1, 2],
        "nodes_featureids": [0, 0, 0],
        "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
        "nodes_values": [0.0, 0.0, 0.0],
        "nodes_truenodeids": [1, 0, 0],
        "nodes_falsenodeids": [2, 0, 0],
        "target_ids": [0, 0],
        "target_nodeids": [1, 2],
        "target_treeids": [0, 0],
        "target_weights": [1.0, 2.0],
        "n_targets": 1,
    }
    return {**stump, **changes}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"nodes_values": [0.0]}, "nodes_values"),
        ({"nodes_modes": ["BRANCH_LEQ", "LEAF"]}, "nodes_modes"),
        ({"nodes_modes": ["BRANCH_NEAR", "LEAF", "LEAF"]}, "BRANCH_NEAR"),
        ({"nodes_nodeids": [0, 1, 1]}, "nodes_nodeids"),
        ({"nodes_truenodeids": [7, 0, 0]}, "nodes_truenodeids"),
        ({"nodes_truenodeids": [2, 0, 0]}, "several roots"),
        (
            {"nodes_modes": ["BRANCH_LEQ", "BRANCH_LEQ", "LEAF"], "nodes_falsenodeids": [2, 2, 0]},
            "a cycle and no root",
        ),
        ({"nodes_featureids": [3, 0, 0]}, "nodes_featureids"),
        ({"nodes_featureids": [-1, 0, 0]}, "nodes_featureids"),
        ({"target_weights": [1.0]}, "target_ids"),
        ({"target_nodeids": [1, 5]}, "target_nodeids"),
        ({"target_treeids": [0, 4]}, "target_nodeids"),
        ({"target_ids": [0, 2]}, "target_ids"),
        ({"base_values": [1.0, 2.0, 3.0]}, "base_values"),
        ({"nodes_missing_value_tracks_true": [1]}, "nodes_missing_value_tracks_true"),
        ({"aggregate_function": "MEDIAN"}, "aggregate_function"),
        ({"post_transform": "TANH", "target_ids": [0, 1], "n_targets": 2}, "post_transform"),
        ({"nodes_nodeids": []}, "nodes_nodeids"),
    ],
)
def test_attributes_that_contradict_each_other_are_named(
    changes: dict[str, Any], named: str
) -> None:
    x = samples(0, 3, 2)
    with pytest.raises(ModelError, match=named) as caught:
        trees.TreeEnsembleRegressor(**_broken(**changes))(x)
    assert caught.value.where.op == "TreeEnsembleRegressor"


def test_a_cycle_below_a_root_is_found() -> None:
    changes = {
        "nodes_treeids": [0] * 4,
        "nodes_nodeids": [0, 1, 2, 3],
        "nodes_featureids": [0] * 4,
        "nodes_modes": ["BRANCH_LEQ", "LEAF", "BRANCH_LEQ", "BRANCH_LEQ"],
        "nodes_values": [0.0] * 4,
        "nodes_truenodeids": [1, 0, 3, 2],
        "nodes_falsenodeids": [1, 0, 3, 2],
        "target_ids": [0],
        "target_nodeids": [1],
        "target_treeids": [0],
        "target_weights": [1.0],
    }
    with pytest.raises(ModelError, match="cycle"):
        trees.TreeEnsembleRegressor(**_broken(**changes))


def test_the_newest_op_names_its_attributes_too() -> None:
    given = {n: _array(v) for n, v in listed(15).items()}
    for name, value, named in (
        ("nodes_modes", np.full(len(given["nodes_modes"]), 9), "nodes_modes"),
        ("membership_values", np.zeros(0), "membership_values"),
        ("tree_roots", [999], "tree_roots"),
        ("leaf_targetids", [5] * len(given["leaf_weights"]), "leaf_targetids"),
        ("nodes_truenodeids", [999] * len(given["nodes_modes"]), "nodes_truenodeids"),
        ("aggregate_function", 7, "aggregate_function"),
    ):
        with pytest.raises(ModelError, match=named):
            trees.TreeEnsemble(**{**given, name: value})


def _array(value: Any) -> Any:
    return numpy_helper.to_array(value) if isinstance(value, TensorProto) else value


# --- how


@pytest.mark.parametrize("depth", [3, 6, 8])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("modes", [("BRANCH_LEQ",), ("BRANCH_LT", "BRANCH_GTE"), MODES])
def test_looked_up_leaves_are_those_that_a_walk_ends_in(
    depth: int, kind: Any, modes: tuple[str, ...]
) -> None:
    """In batches of all sizes, with values at thresholds, NaN and infinities among them."""
    attributes = numbered(depth, "target", (0,), trees=9, depth=depth, modes=modes, tracks=True)
    ensemble = Targets.of_regressor({**DEFAULTS, **attributes}).ensemble
    masks = Masks.of(ensemble, kind)
    assert masks is not None
    x = samples(1, count=300, kind=kind)
    x[::7, 1], x[::5, 2], x[::11, 0], x[::13, 3] = np.nan, np.inf, -np.inf, -0.0
    for count in (1, 3, 33, 300):
        np.testing.assert_array_equal(masks.find(x[:count]), ensemble.walk(x[:count]))


def test_nodes_that_trees_share_are_walked_and_sets_are_looked_up() -> None:
    given = {n: _array(v) for n, v in listed(15).items()}
    attributes = {**OpSignature.from_callable(as_function(trees.TreeEnsemble)).attributes, **given}
    ensemble = Targets.of_ensemble(attributes).ensemble
    masks = Masks.of(ensemble, np.float32)
    assert masks is not None
    np.testing.assert_array_equal(masks.find(samples(0)), ensemble.walk(samples(0)))
    assert Masks.of(replace(ensemble, roots=ensemble.roots.repeat(2)), np.float32) is None


def test_trees_too_large_to_be_looked_up_are_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    attributes = numbered(0, "target", (0, 1), trees=5)
    x = samples(2)
    looked_up = trees.TreeEnsembleRegressor(n_targets=2, **attributes)(x)
    monkeypatch.setattr(tree_masks, "_LARGEST", 0)
    np.testing.assert_array_equal(
        trees.TreeEnsembleRegressor(n_targets=2, **attributes)(x), looked_up
    )


@pytest.mark.parametrize("how", ["SUM", "AVERAGE", "MIN", "MAX"])
@pytest.mark.parametrize("ids", [(0,), (0, 1), (1,)])
def test_a_score_is_the_same_in_batches_of_all_sizes(how: str, ids: tuple[int, ...]) -> None:
    """To the last bit: the weights of the trees are added one by one."""
    given = numbered(7, "target", ids, trees=40)
    regressor = trees.TreeEnsembleRegressor(n_targets=2, aggregate_function=how, **given)
    x = samples(3, count=60)
    np.testing.assert_array_equal(regressor(x), np.concatenate([regressor(row[None]) for row in x]))


def test_a_model_s_trees_are_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = []
    original = Targets.of_regressor

    def counted(attributes: Any) -> Any:
        parsed.append(attributes)
        return original(attributes)

    monkeypatch.setattr(Targets, "of_regressor", counted)
    x = samples(1)
    net = fhe_core.NumpyModule(
        tree_model("TreeEnsembleRegressor", x, n_targets=1, **numbered(1, "target", (0,)))
    )
    for _ in range(3):
        net(x)
    assert len(parsed) == 1
