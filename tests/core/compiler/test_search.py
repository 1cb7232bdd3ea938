"""``n_bits="auto"`` finds the cheapest circuit within tolerance, or says how close it came."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fhe_core.compiler import search, students
from fhe_core.compiler.concrete_backend import compile_program
from fhe_core.compiler.judging import judged
from fhe_core.quantization.module import QuantizedModule
from fhe_core.quantization.planning import Settings, widened
from fhe_core.quantization.session import Session
from numpy.typing import NDArray

import fhe_core
from tests.core.quantization.building import model

from .nets import mlp, samples

pytest.importorskip("concrete.fhe", reason="needs fhe-core[concrete]")

Array = NDArray[Any]


def accuracy(outputs: Array, labels: Array) -> float:
    return float((outputs.argmax(axis=1) == labels).mean())


@pytest.fixture(scope="module")
def digits(models: Path) -> dict[str, Array]:
    with np.load(models / "mlp_digits.npz") as data:
        return dict(data)


@pytest.fixture
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search through few candidates: the laws hold of any grid."""
    monkeypatch.setattr(search, "PAIRS", ((6, 6), (4, 4)))
    monkeypatch.setattr(search, "ROUNDINGS", (2, 4, 6))
    monkeypatch.setattr(search, "_TRIAL_STEPS", 200)
    monkeypatch.setattr(search, "_STEPS", 400)
    monkeypatch.setattr(students, "_STEPS", 200)
    monkeypatch.setattr(students, "_SHARES", (1.0, 0.5))


@pytest.fixture(scope="module")
def found(models: Path, digits: dict[str, Array]) -> QuantizedModule:
    return fhe_core.compile(models / "mlp_digits.onnx", digits["x_calib"], labels=digits["y_calib"])


def test_the_result_is_within_tolerance_on_data_that_the_search_never_saw(
    found: QuantizedModule, models: Path, digits: dict[str, Array]
) -> None:
    """To 0.01 on 540 test images: the tolerance of 0.005 is about the mean over all such images."""
    net = fhe_core.NumpyModule(models / "mlp_digits.onnx")
    goal = accuracy(net(digits["x_test"]), digits["y_test"])
    scores = [
        accuracy(found.forward(digits["x_test"], fhe="simulate", seed=seed), digits["y_test"])
        for seed in range(5)
    ]
    assert np.mean(scores) >= goal - 0.01


@pytest.mark.usefixtures("_few")
def test_no_candidate_within_tolerance_is_cheaper_than_the_result() -> None:
    """By more than the two percent within which the better score decides."""
    found = fhe_core.compile(mlp(), samples(4), tolerance=0.05, savings="exact")
    good = [row.cost.complexity for row in found.search if row.cost and row.checked >= 0]
    assert found.cost.complexity <= 1.02 * min(good)
    # Most candidates are not good enough to be compiled at all.
    assert len(good) < len(found.search)


def test_the_plan_compiles_again_without_a_search(
    found: QuantizedModule, models: Path, digits: dict[str, Array], tmp_path: Path
) -> None:
    file = tmp_path / "plan.json"
    file.write_text(found.plan.to_json())
    for plan in (found.plan, file):
        again = fhe_core.compile(models / "mlp_digits.onnx", digits["x_calib"], plan=plan)
        assert not again.search
        assert again.cost == found.cost
        assert again.plan.to_json() == found.plan.to_json()
        np.testing.assert_array_equal(again(digits["x_test"]), found(digits["x_test"]))
        np.testing.assert_array_equal(
            again.forward(digits["x_test"], fhe="simulate", seed=3),
            found.forward(digits["x_test"], fhe="simulate", seed=3),
        )


@pytest.mark.usefixtures("_few")
def test_a_search_is_reproducible_by_its_seed() -> None:
    x = samples(4)
    one, two = (fhe_core.compile(mlp(), x, tolerance=0.05, seed=3) for _ in range(2))
    assert one.plan.to_json() == two.plan.to_json()
    assert one.cost == two.cost
    assert one.search == two.search


@pytest.mark.usefixtures("_few")
def test_a_greater_tolerance_never_costs_more() -> None:
    x = samples(4)
    costs = [fhe_core.compile(mlp(), x, tolerance=t).cost.complexity for t in (0.1, 0.3)]
    assert costs == sorted(costs, reverse=True)


@pytest.mark.usefixtures("_few")
def test_the_score_is_what_the_caller_says() -> None:
    """Higher is better, and it is given the outputs and what is expected of them."""
    x, calls = samples(4), []

    def closeness(outputs: Array, expected: Array) -> float:
        calls.append((outputs.shape, expected.shape))
        return -float(np.abs(outputs - expected).mean())

    loose, tight = (
        fhe_core.compile(mlp(), x, score=closeness, tolerance=tolerance)
        for tolerance in (1.0, 0.25)
    )
    assert all(outputs == expected for outputs, expected in calls)
    assert tight.cost.complexity > loose.cost.complexity
    goal = fhe_core.NumpyModule(mlp())(x)
    # The search checked on half of these samples.
    assert np.abs(tight.forward(x, fhe="simulate") - goal).mean() < 0.3


def test_the_score_is_what_the_result_measures(
    found: QuantizedModule, models: Path, digits: dict[str, Array]
) -> None:
    """Neither an estimate nor that of the circuit before it was tuned again: the mean of simulations."""
    assert found.outcome is not None
    x, y = digits["x_calib"][:2000], digits["y_calib"][:2000]
    scores = [accuracy(found.forward(x, fhe="simulate", seed=seed), y) for seed in range(100, 105)]
    assert found.outcome.score == pytest.approx(np.mean(scores), abs=1e-9)
    net = fhe_core.NumpyModule(models / "mlp_digits.onnx")
    assert found.outcome.float_score == pytest.approx(accuracy(net(x), y), abs=1e-9)
    # What it loses where the float model knows the answers by heart is more than it is expected to lose.
    assert found.outcome.expected_loss <= found.outcome.float_score - found.outcome.score + 1e-9
    assert found.outcome.expected_loss <= found.outcome.tolerance


@pytest.mark.usefixtures("_few")
def test_what_is_tuned_again_is_checked_and_priced_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every module that may be returned is a candidate with a cost of its own."""
    monkeypatch.setattr(
        search.Judge,
        "divergence",
        lambda judge, module, seed: module.plan.settings["tuning"] == 200,
    )
    found = fhe_core.compile(mlp(), samples(4), tolerance=0.05)
    last = found.search[-1]
    assert last.settings.tuning == 400
    assert last.cost is not None
    taken = [
        row for row in found.search if row.cost and row.cost.complexity == found.cost.complexity
    ]
    assert any(
        row.checked >= 0 and row.settings.tuning == found.plan.settings["tuning"] for row in taken
    )


@pytest.mark.parametrize("nodes", ["h = MatMul(x, w)\n y = Relu(h)", "y = MatMul(x, w)"])
@pytest.mark.usefixtures("_few")
def test_a_refusal_names_the_check_that_failed(nodes: str) -> None:
    """With the figures of that check: what came is always less than what was wanted."""
    net = model(nodes, {"x": ("N", 2)}, constants={"w": np.array([[1, 2], [2, 3]], np.float32)})
    with pytest.raises(fhe_core.CompilationError) as caught:
        fhe_core.compile(net, samples(2), tolerance=1e-9)
    assert re.search("R² of 'y' against the float model, on ", caught.value.problem)
    wanted = float(str(caught.value.expected).split()[2])
    assert float(str(caught.value.got).split()[0]) < wanted


@pytest.mark.usefixtures("_few")
@pytest.mark.parametrize(
    "x", [np.zeros((70, 4), np.float32), np.ones((1, 4), np.float32)], ids=["blank", "one"]
)
def test_data_that_tell_nothing_leave_everything_in(x: Array) -> None:
    """What never varies, or is too little, can be had for less: of later data that says nothing."""
    found = fhe_core.compile(mlp(), x)
    assert not found.plan.reductions
    assert any("'x' is " in notice for notice in found.notices)


def test_nothing_on_the_uniform_grid_is_cheaper(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bits by rounding, as a user would try them: whatever else the search looks at, it is no dearer."""
    monkeypatch.setattr(search, "PAIRS", ((3, 3),))
    monkeypatch.setattr(search, "ROUNDINGS", (3, 4, 5))
    monkeypatch.setattr(search, "UNIFORM", (6, 5))
    monkeypatch.setattr(search, "_TRIAL_STEPS", 25)
    monkeypatch.setattr(search, "_STEPS", 25)
    monkeypatch.setattr(search, "_REFINEMENTS", 0)
    found = fhe_core.compile(mlp(), samples(4), tolerance=0.2, savings="none")
    session = Session(mlp(), samples(4))
    session, first, checks, part = judged(session, None, score=None, tolerance=0.2, seed=0)
    good = []
    for bits, kept in itertools.product((6, 5), (3, 4, 5)):
        widths = {"op_inputs": bits, "op_weights": bits, "model_inputs": bits, "model_outputs": 6}
        settings = widened(Settings.of(6, kept, savings="none"), **widths)
        module = session.build(settings, part)
        if all(judge.verdict(module, 0).margin >= 0 for judge in (first, *checks)):
            good.append(compile_program(module.program, module.p_error).cost.complexity)
    assert good
    assert found.cost.complexity <= 1.02 * min(good)


@pytest.mark.usefixtures("_few")
def test_an_impossible_tolerance_says_how_close_the_search_came() -> None:
    """No integers equal real numbers: only the float model scores 1 here."""
    net = model(
        "h = MatMul(x, w)\n y = Exp(h)",
        {"x": ("N", 2)},
        constants={"w": np.array([[1], [2]], np.float32)},
    )
    with pytest.raises(fhe_core.CompilationError) as caught:
        fhe_core.compile(
            net,
            samples(2),
            score=lambda outputs, expected: 1 - float(np.abs(outputs - expected).sum()),
            tolerance=0,
        )
    assert "at least 1.0000" in str(caught.value.expected)
    assert float(str(caught.value.got).split()[0]) < 1
    assert "larger tolerance" in str(caught.value.fix)


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (np.zeros(199, int), "do not belong together"),
        (3, "do not belong together"),
        (np.full(200, np.nan), "NaN"),
    ],
    ids=["too-few", "a-number", "NaN"],
)
def test_labels_that_do_not_fit_are_refused(labels: Any, problem: str) -> None:
    with pytest.raises(fhe_core.CalibrationError, match=problem):
        fhe_core.compile(mlp(), samples(4), labels=labels)


@pytest.mark.parametrize("tolerance", [-0.1, "1%", True])
def test_tolerances_that_are_no_share_are_refused(tolerance: Any) -> None:
    with pytest.raises(fhe_core.PlanError, match="tolerance cannot be"):
        fhe_core.compile(mlp(), samples(4), tolerance=tolerance)


def test_other_words_than_auto_are_refused() -> None:
    with pytest.raises(fhe_core.PlanError, match=r"n_bits cannot be 'best'.*Use n_bits='auto'"):
        fhe_core.compile(mlp(), samples(4), n_bits="best")
