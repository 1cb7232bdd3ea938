"""A plan is a file that people edit: every value of it is checked before it is used, and it decides."""

from __future__ import annotations

import json
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fhe_core.quantization.plan import (
    AccumulatorPlan,
    ReductionPlan,
    TensorPlan,
    WeightPlan,
)
from fhe_core.quantization.plan_schema import ENTRIES, SETTINGS
from fhe_core.quantization.planning import Settings
from fhe_core.quantization.session import Session

import fhe_core
from fhe_core import FheError, Plan, PlanError
from tests.core.quantization.building import model, normal
from tests.fuzz.plans import mutated

Document = dict[str, Any]

X = normal(50, 4)
NET = model(
    "h = MatMul(x, w) \n r = Relu(h) \n s = Add(r, x) \n a = Abs(s) \n y = MatMul(a, v)",
    {"x": ("N", 4)},
    "y r",
    {"w": normal(4, 4, seed=1), "v": normal(4, 2, seed=2)},
)


@pytest.fixture(scope="module")
def session() -> Session:
    return Session(NET, X)


@pytest.fixture(scope="module")
def base(session: Session) -> Document:
    """A plan with something in every part that such a net has, tuned integers among it."""
    document: Document = json.loads(session.build(Settings.of(4, 3, tuning=5)).plan.to_json())
    assert document["kernels"]
    return document


def edited(base: Document, *path: Any, value: Any) -> Document:
    document: Document = json.loads(json.dumps(base))
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return document


# -- the schema


def test_every_field_and_every_setting_has_a_rule() -> None:
    kinds = {
        "tensors": TensorPlan,
        "weights": WeightPlan,
        "accumulators": AccumulatorPlan,
        "reductions": ReductionPlan,
    }
    for part, kind in kinds.items():
        assert set(ENTRIES[part]) == {field.name for field in fields(kind)}
    assert set(Settings.of(4, 3).describe()) <= set(SETTINGS)


def test_a_setting_that_is_left_out_has_its_default_and_that_is_one_it_may_have() -> None:
    for name, setting in SETTINGS.items():
        assert Plan().setting(name) == setting.default
        Plan(settings={name: setting.default}).validate()


@pytest.mark.parametrize("value", [31, 1, 0.5, 0, -1, float("nan"), True, "x", [], None, 10**400])
def test_a_probability_that_is_none_never_reaches_the_compiler(
    value: Any, base: Document, session: Session
) -> None:
    """Concrete ends the process on it."""
    for plan in (
        edited(base, "settings", "p_error", value=value),
        Plan(settings={"p_error": value}),
    ):
        with pytest.raises(PlanError, match="p_error cannot be"):
            fhe_core.quantize(NET, X, plan=plan)
    module = session.rebuild(Plan.of(base))
    module.plan.settings["p_error"] = value
    with pytest.raises(PlanError, match="p_error cannot be"):
        module.forward(X, fhe="simulate")


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (
            ("settings", "weight_bits"),
            "input",
            "weight_bits of the plan's settings cannot be 'input'",
        ),
        (("settings", "weight_bits"), {"h": "4"}, r"weight_bits\['h'\] .* cannot have '4' bits"),
        (("settings", "overflow"), "never", "overflow of the plan's settings cannot be 'never'"),
        (("settings", "overflow"), ["calibrated"], "overflow of the plan's settings cannot be"),
        (("settings", "exact"), 1, "exact of the plan's settings cannot be 1"),
        (("settings", "headroom"), -0.1, "headroom of the plan's settings cannot be -0.1"),
        (("settings", "tuning"), 0.5, "tuning of the plan's settings cannot be 0.5"),
        (("settings", "colour"), 1, "settings of the plan name 'colour', which is none"),
        (("settings",), [1], "'settings' of the plan is not understood"),
        (("colours",), {}, "'colours' of the plan is not understood"),
        (("tensors", "x", "zero_point"), 0.5, "zero_point of tensor 'x' cannot be 0.5"),
        (("tensors", "x", "low"), 2**54, "low of tensor 'x' cannot be"),
        (("tensors", "x", "scale"), 1e300, "tensor 'x' has an impossible scale"),
        (("tensors", "x", "scale"), [1.0], "tensor 'x' has an impossible scale"),
        (("tensors", "x", "zero_point"), [1, 2, 3], r"tensors\['x'\] .* does not fit the model"),
        (("tensors", "x1"), {"bits": 4, "scale": 1}, "tensors of the plan name 'x1'"),
        (("weights", "w@MatMul_0", "scale"), ["a"], "weights 'w@MatMul_0' has an impossible scale"),
        (("weights", "w@MatMul_0", "scale"), [1, 2, 3], r"weights\['w@MatMul_0'\] .* does not fit"),
        (("weights", "w@MatMul_0", "zero_point"), [[[0]]], r"weights\['w@MatMul_0'\] .* not fit"),
        (
            ("weights", "w@MatMul_0", "symmetric"),
            "no",
            "symmetric of weights 'w@MatMul_0' cannot be",
        ),
        (("weights", "w"), {"bits": 4, "scale": 1}, "weights of the plan name 'w'"),
        (("accumulators", "h", "offset"), [], "offset of accumulator 'h' cannot be"),
        (("accumulators", "h", "offset"), [1, 2, 3], r"accumulators\['h'\] .* does not fit"),
        (("accumulators", "h", "shift"), [[1], [2]], r"accumulators\['h'\] .* does not fit"),
        (("accumulators", "h", "headroom"), {}, "headroom of accumulator 'h' cannot be {}"),
        (("accumulators", "h", "low"), -0.5, "low of accumulator 'h' cannot be"),
        (("accumulators", "h", "high"), 10**30, "high of accumulator 'h' cannot be"),
        (("accumulators", "h", "antiperiodic"), None, "antiperiodic of accumulator 'h' cannot be"),
        (("accumulators", "h", "antiperiodic"), True, "which is an output too"),
        (("accumulators", "z"), {"low": 0, "high": 1}, "accumulators of the plan name 'z'"),
        (("kernels", "h"), [[1, 2], [3]], r"kernels\['h'\] of the plan holds no integers"),
        (("kernels", "h"), [[0.5]], r"kernels\['h'\] of the plan holds no integers"),
        (("kernels", "h"), [[1]], r"kernels\['h'\] of the plan does not fit"),
        (("kernels", "z"), [[1]], "kernels of the plan name 'z'"),
        (("constants", "x"), 1, "constants of the plan name 'x', which is no constant input"),
        (("constants", "MatMul_9:1"), 1, "constants of the plan name 'MatMul_9:1'"),
        (("constants", "MatMul_0:1"), None, r"constants\['MatMul_0:1'\] of the plan cannot be"),
        (("alternatives",), [1], "alternatives of the plan cannot be"),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_what_a_plan_cannot_hold_is_named(
    path: tuple[Any, ...], value: Any, says: str, base: Document, session: Session
) -> None:
    with pytest.raises(PlanError, match=says) as caught:
        session.rebuild(Plan.of(edited(base, *path, value=value)))
    assert caught.value.fix


def test_an_output_that_leaves_as_an_accumulator_has_no_half_of_a_period(
    base: Document, session: Session
) -> None:
    plan = Plan.of(edited(base, "accumulators", "y", "antiperiodic", value=True))
    with pytest.raises(PlanError, match=r"half of the period of 'y', which no look-up reads"):
        session.rebuild(plan)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.filterwarnings("ignore::fhe_core.WrapAroundWarning")
def test_a_damaged_plan_is_used_as_it_is_or_refused(
    seed: int, base: Document, session: Session
) -> None:
    """A hundred a seed; what is accepted gives finite results and can be given again."""

    def used(number: int) -> bool:
        rng = np.random.default_rng([seed, number])
        try:
            found = session.rebuild(Plan.of(mutated(base, rng)))
        except FheError:
            return False
        assert all(np.isfinite(part).all() for part in found.forward(X[:3])), number
        Plan.from_json(found.plan.to_json())
        return True

    assert 0 < sum(map(used, range(100))) < 50


def test_a_plan_guarantees_no_more_than_its_ranges_hold(session: Session) -> None:
    """Bounds hold for any input: a range that was narrowed by hand would wrap in silence."""
    document = json.loads(session.build(Settings.of(4, 3, overflow="guaranteed")).plan.to_json())
    session.rebuild(Plan.of(document))
    narrowed = edited(document, "accumulators", "h", "high", value=0)
    with pytest.raises(PlanError, match=r"guarantees that nothing wraps, and 'h' is wider"):
        session.rebuild(Plan.of(narrowed))
    calibrated = edited(narrowed, "settings", "overflow", value="calibrated")
    session.rebuild(Plan.of(calibrated))


# -- where it comes from


@pytest.mark.parametrize("opening", ["[", '{"version": 1, "settings": ', '{"a":'])
def test_a_plan_that_is_nested_without_end_is_refused(opening: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(opening * 100_000)
    with pytest.raises(PlanError, match=r"(no|not) JSON|no parsed JSON"):
        Plan.of(path)


def test_what_is_no_plan_at_all_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    endless: list[Any] = []
    endless.append(endless)
    for given in (
        *(5, True, 1.5, b"{}", [], object(), np.zeros(3), "a\0b", "", "/dev/zero"),
        *(tmp_path, tmp_path / "pipe", tmp_path / "absent"),
        *({"version": 1, "settings": object()}, {"version": 1, "settings": endless}),
    ):
        with pytest.raises(PlanError) as caught:
            Plan.of(given)  # type: ignore[arg-type]
        assert caught.value.fix


def test_a_plan_object_is_checked_like_a_file(base: Document) -> None:
    """It is edited in place, and may hold what no JSON can."""
    for part, entry in (
        ("tensors", {"x": 4}),
        ("accumulators", {"h": AccumulatorPlan("0", "1")}),  # type: ignore[arg-type]
        ("kernels", {"h": [[1]]}),
        ("kernels", {"h": np.zeros((4, 4))}),
        ("constants", {"h": np.array(["a"])}),
        ("alternatives", "std.x"),
        ("settings", {"rounding": object()}),
        ("settings", 3),
    ):
        plan = Plan.of(base)
        setattr(plan, part, entry)
        with pytest.raises(PlanError):
            fhe_core.quantize(NET, X, plan=plan)


# -- it decides


@pytest.mark.parametrize(
    "given",
    [
        {"p_error": 1e-3},
        {"n_bits": 6},
        {"rounding": 3},
        {"overflow": "guaranteed"},
        {"rounding_method": "exact"},
        {"ranges": "minmax"},
        {"weight_scheme": "affine"},
        {"weight_granularity": "per-tensor"},
        {"savings": "none"},
    ],
    ids=lambda given: next(iter(given)),
)
def test_what_the_plan_would_overrule_is_an_error(given: dict[str, Any], base: Document) -> None:
    ((name, value),) = given.items()
    for function in (fhe_core.quantize, fhe_core.compile):
        with pytest.raises(
            PlanError, match=rf"the plan decides {name}, and {name}={value!r}"
        ) as caught:
            function(NET, X, plan=base, **given)
        assert caught.value.fix == f"leave {name}= out, or change the plan"


@pytest.mark.parametrize("name", ["labels", "score", "tolerance"])
def test_with_a_plan_there_is_no_search_to_guide(name: str, base: Document) -> None:
    given: Any = {"labels": np.zeros(50, int), "score": lambda a, b: 1.0, "tolerance": 0.1}[name]
    with pytest.raises(PlanError, match=f"the plan decides {name}"):
        fhe_core.compile(NET, X, plan=base, **{name: given})


def test_saying_again_what_the_plan_says_is_no_contradiction(base: Document) -> None:
    settings = base["settings"]
    names = ("overflow", "ranges", "weight_scheme", "weight_granularity", "savings", "p_error")
    same = {name: settings[name] for name in names}
    qm = fhe_core.quantize(
        NET, X, plan=base, rounding_method="approximate", rounding=None, seed=3, **same
    )
    assert qm.plan.to_json() == Plan.of(base).to_json()


def test_the_signature_shows_the_defaults_that_hold_without_a_plan() -> None:
    import inspect

    parameters = inspect.signature(fhe_core.compile).parameters
    assert (parameters["n_bits"].default, parameters["p_error"].default) == ("auto", 2.0**-40)


def test_a_plan_is_shown_with_every_tensor_and_accumulator() -> None:
    nodes = "h = MatMul(x, w) \n r = Relu(h) \n y = MatMul(r, v)"
    constants = {"w": normal(4, 3), "v": normal(3, 2, seed=1)}
    net = model(nodes, {"x": ("N", 4)}, constants=constants)
    plan = fhe_core.quantize(net, normal(60, 4, seed=2)).plan
    text = str(plan)
    for name in (*plan.tensors, *plan.accumulators):
        assert f"\n{name[:38]}" in text
