"""Reduced models: constants are trained in place of what is left out, and the plan says all of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fhe_core.quantization.distillation import distilled
from fhe_core.quantization.plan import ReductionPlan
from fhe_core.quantization.planning import Settings
from fhe_core.quantization.session import Session
from fhe_core.quantization.tuning import divergence

from fhe_core import Plan, PlanError
from tests.core.quantization.building import model, normal

X = normal(400, 8, seed=5)
#: Half of the channels of the first activation, at zero.
LIVE = np.arange(12).reshape(1, 12) % 2 == 0
HALF = {"Relu_1": ReductionPlan(LIVE, np.zeros((1, 12)), np.zeros((1, 12)))}
LINE = {"Relu_3": ReductionPlan(np.zeros((1, 10), bool), np.full((1, 10), 0.5), np.ones((1, 10)))}


def net() -> Any:
    constants = {
        "w": normal(8, 12, seed=1) / np.float32(3),
        "b": normal(12, seed=2),
        "v": normal(12, 10, seed=3) / np.float32(4),
        "c": normal(10, seed=4),
        "u": normal(10, 3, seed=6) / np.float32(3),
    }
    nodes = """
        h = Gemm(x, w, b)
        r = Relu(h)
        g = Gemm(r, v, c)
        s = Relu(g)
        y = Gemm(s, u)
    """
    return model(nodes, {"x": ("N", 8)}, "y", constants)


@pytest.fixture(scope="module")
def session() -> Session:
    return Session(net(), X)


def reduced(session: Session, *arguments: Any) -> Session:
    found = session.reduced(*arguments)
    assert found is not None
    return found


def test_a_reduction_takes_the_place_of_what_is_not_live(session: Session) -> None:
    found = reduced(session, HALF)
    whole = session.net.run({"x": X}, fetch=["r"])["r"]
    np.testing.assert_allclose(
        found.net.run({"x": X}, fetch=["r"])["r"], np.where(LIVE, whole, 0), rtol=1e-6
    )


def test_an_affine_activation_leaves_one_product_and_no_look_up(session: Session) -> None:
    found = reduced(session, LINE)
    assert [node.op_type for node in found.graph.nodes] == ["Gemm", "Relu", "Gemm"]
    assert sum(np.prod(n.shape[1:]) for n in found.build(Settings.of(6, 5)).program.lookups) <= 12


@pytest.mark.parametrize("reductions", [HALF, LINE], ids=["channels", "activation"])
def test_training_makes_up_for_most_of_what_is_left_out(session: Session, reductions: Any) -> None:
    """Half of the divergence at least, on data that training has not seen."""
    unseen = normal(400, 8, seed=7)
    wanted = session.net(unseen)
    found = reduced(session, reductions)
    trained = distilled(found, None, steps=800, seed=0)
    after = reduced(session, reductions, trained)
    assert divergence(after.net(unseen), wanted) < divergence(found.net(unseen), wanted) / 2


def test_a_plan_says_all_that_makes_the_model(session: Session) -> None:
    """Rebuilt from JSON, from the model as it came, it gives the same integers."""
    found = reduced(session, HALF)
    found = reduced(
        session, HALF, distilled(found, None, steps=50, seed=0), ["std.split_activations"]
    )
    module = found.build(Settings.of(6, 3))
    again = session.rebuild(Plan.from_json(module.plan.to_json()))
    np.testing.assert_array_equal(again.forward(X), module.forward(X))
    assert again.plan.alternatives == ["std.split_activations"]
    assert list(again.plan.reductions) == ["Relu_1"]


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("reductions", {"Relu_9": ReductionPlan(1, 0, 0)}, "no node of the model"),
        ("constants", {"Gemm_0:1": np.zeros((3, 3))}, "does not fit the model"),
        ("alternatives", ["acme.unheard"], "no installed pack has"),
    ],
)
def test_a_plan_for_another_model_is_refused(
    session: Session, field: str, value: Any, problem: str
) -> None:
    plan = session.build(Settings.of(4, 4)).plan
    setattr(plan, field, value)
    with pytest.raises(PlanError, match=problem):
        session.rebuild(plan)


@pytest.mark.parametrize(
    ("field", "value"),
    [("constants", {"a:1": ["x"]}), ("constants", {"a:1": [[1], [1, 2]]}), ("alternatives", "a")],
)
def test_a_plan_that_is_not_understood_is_refused(field: str, value: Any) -> None:
    with pytest.raises(PlanError, match=field):
        Plan.of({"version": 1, field: value})


#: Of another rank, of other channels, of more samples than one, of more dimensions.
MISFITS = [np.zeros((10,)), np.zeros((1, 11)), np.zeros((2, 12)), np.zeros((1, 1, 12))]


@pytest.mark.parametrize("part", ["live", "slope", "offset"])
@pytest.mark.parametrize("misfit", MISFITS, ids=lambda array: str(array.shape))
def test_a_reduction_has_arrays_that_broadcast_to_its_activation(
    part: str, misfit: Any, session: Session
) -> None:
    entry = replace(HALF["Relu_1"], **{part: misfit})
    plan = session.build(Settings.of(4, 4)).plan
    plan.reductions = {"Relu_1": entry}
    with pytest.raises(PlanError, match=r"reductions\['Relu_1'\] of the plan") as caught:
        session.rebuild(plan)
    assert "broadcast" in str(caught.value.expected)


def test_a_reduction_takes_the_place_of_a_function_of_one_tensor() -> None:
    """What has two that vary, or several outputs, is no activation."""
    two = model(
        "h = Gemm(x, w) \n r = Relu(h) \n y = Add(h, r)",
        {"x": ("N", 4)},
        "y",
        {"w": normal(4, 4, seed=1)},
    )
    session = Session(two, normal(50, 4))
    plan = session.build(Settings.of(4, 4)).plan
    plan.reductions = {"Add_2": ReductionPlan(0, 1.0, 0.0)}
    with pytest.raises(PlanError, match=r"reductions\['Add_2'\].*got: 2 tensors"):
        session.rebuild(plan)


@pytest.mark.parametrize(
    "entry",
    [
        ReductionPlan(0.5, 0, 0),
        ReductionPlan(-1, 0, 0),
        ReductionPlan([], 0, 0),
        ReductionPlan(LIVE, np.ones((1, 12)), 0),
        ReductionPlan(0, np.nan, 0),
        ReductionPlan(0, 0, np.inf),
        ReductionPlan("x", 0, 0),
        ReductionPlan(None, 0, 0),
        ReductionPlan([[1], [1, 2]], 0, 0),
    ],
    ids=["half", "negative", "empty", "slope", "nan", "inf", "text", "none", "ragged"],
)
def test_a_reduction_is_of_numbers_and_has_no_slope_where_some_channels_live(entry: Any) -> None:
    with pytest.raises(PlanError, match="Relu_1"):
        Plan(reductions={"Relu_1": entry}).validate()


def test_constants_of_a_plan_without_reductions_are_used(session: Session) -> None:
    """And they are not looked for again in what they were put into."""
    zeros = {"Gemm_4:1": np.zeros((10, 3), np.float32)}
    module = reduced(session, {}, zeros).build(Settings.of(4, 4))
    assert not session.rebuild(module.plan).forward(X).any()
