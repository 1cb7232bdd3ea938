"""Reduced models: constants are trained in place of what is left out, and the plan says all of it."""

from __future__ import annotations

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
