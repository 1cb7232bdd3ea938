"""Tuned weights come nearer to the float model at the same widths, and are part of the plan."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fhe_core.quantization.planning import Settings
from fhe_core.quantization.session import Session
from fhe_core.quantization.tuning import divergence

import fhe_core
from fhe_core import Plan, PlanError, QuantizedModule
from tests.core.quantization.building import model, normal

NODES = """
    h = Gemm(x, w, b)
    r = Relu(h)
    y = Gemm(r, v, c)
"""
ROUNDING = 3
STEPS = 1000


def net() -> Any:
    constants = {
        "w": normal(12, 16, seed=1) / np.float32(3),
        "b": normal(16, seed=2),
        "v": normal(16, 4, seed=3) / np.float32(3),
        "c": normal(4, seed=4),
    }
    return model(NODES, {"x": ("N", 12)}, "y", constants)


@pytest.fixture(scope="module")
def session() -> Session:
    return Session(net(), normal(400, 12, seed=5))


def settings(steps: int) -> Settings:
    widths = {"op_inputs": 5, "op_weights": 4, "model_inputs": 5, "model_outputs": 6}
    return replace(Settings.of(widths, ROUNDING), tuning=steps)


@pytest.fixture(scope="module")
def tuned(session: Session) -> QuantizedModule:
    return session.build(settings(STEPS))


def test_tuning_brings_the_outputs_nearer_to_the_float_model(
    session: Session, tuned: QuantizedModule
) -> None:
    """By a tenth at least, on samples that neither calibration nor tuning has seen, over ten draws of noise."""
    unseen = np.clip(normal(400, 12, seed=6), -3, 3)
    wanted = session.net(unseen)

    def distance(module: QuantizedModule) -> float:
        runs = [module.forward(unseen, fhe="simulate", seed=seed) for seed in range(10)]
        return float(np.mean([divergence(run, wanted) for run in runs]))

    assert distance(tuned) < 0.9 * distance(session.build(settings(0)))


def test_tuning_changes_no_width_and_no_look_up(session: Session, tuned: QuantizedModule) -> None:
    plain = session.build(settings(0))
    looked_up = [
        [(node.shape, node.inputs[0].width) for node in module.program.lookups]
        for module in (plain, tuned)
    ]
    assert looked_up[0] == looked_up[1]


def test_the_same_seed_tunes_to_the_same_integers(tuned: QuantizedModule) -> None:
    again = Session(net(), normal(400, 12, seed=5)).build(settings(STEPS))
    assert again.plan.to_json() == tuned.plan.to_json()


def test_a_tuned_plan_is_whole(session: Session, tuned: QuantizedModule) -> None:
    """Read again from its JSON it builds the same module, without tuning."""
    x = normal(50, 12, seed=7) * np.float32(0.5)
    rebuilt = fhe_core.quantize(
        net(), normal(400, 12, seed=5), plan=Plan.from_json(tuned.plan.to_json())
    )
    np.testing.assert_array_equal(rebuilt.forward(x), tuned.forward(x))


def test_a_tuned_module_is_saved_and_loaded(tuned: QuantizedModule, tmp_path: Path) -> None:
    x = normal(50, 12, seed=7) * np.float32(0.5)
    tuned.save(tmp_path / "module")
    loaded = fhe_core.load(tmp_path / "module")
    np.testing.assert_array_equal(loaded.forward(x), tuned.forward(x))
    assert loaded.plan.to_json() == tuned.plan.to_json()


def test_integers_of_another_shape_are_refused(tuned: QuantizedModule) -> None:
    plan = Plan.from_json(tuned.plan.to_json())
    plan.kernels["h"] = plan.kernels["h"][:-1]
    with pytest.raises(PlanError, match="does not fit the model") as error:
        fhe_core.quantize(net(), normal(400, 12, seed=5), plan=plan)
    assert error.value.where.op == "Gemm"


@pytest.mark.parametrize("rows", [[[1, 2], [3]], [[0.5, 1.0]], [], "integers"])
def test_a_plan_with_something_else_than_integers_is_refused(
    tuned: QuantizedModule, rows: Any
) -> None:
    import json

    document = json.loads(tuned.plan.to_json())
    document["kernels"]["h"] = rows
    with pytest.raises(PlanError, match="holds no integers"):
        Plan.of(document)


def test_equal_outputs_have_no_divergence() -> None:
    scores = normal(30, 5, seed=8)
    assert divergence(scores, scores) == 0
    assert divergence(scores[:, :1], scores[:, :1]) == 0
    assert divergence(scores + 0.1 * normal(30, 5, seed=9), scores) > 0


def test_guaranteed_accumulators_are_not_tuned(session: Session) -> None:
    """Their widths are bounds over all inputs, which follow from the weights."""
    asked = replace(settings(STEPS), overflow="guaranteed")
    assert session.build(asked).plan.kernels == {}
