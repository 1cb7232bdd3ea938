"""Each check of a quantized operator finds the one that is wrong in its way, and no other check does."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from fhe_core.quantization.module import QuantizedModule
from fhe_core.testing import Sample, run_checks
from fhe_core.testing.attempts import attempt_of
from fhe_core.testing.checks import accuracy, execution, fusion, integers, joins, persistence
from fhe_core.testing.running import Outcome, plan

from fhe_core import QuantizedOp
from tests.core.testing.quantized_packs import RIGHT, WRONG, X, registry_of, total

FAMILIES = (accuracy, joins, integers, fusion, execution, persistence)
CHECKS = tuple(check for family in FAMILIES for check in family.CHECKS)
CLEAR = tuple(check for check in CHECKS if not check.encrypts)
WRONG_OPS = [(check, *op) for check, ops in WRONG.items() for op in ops]
OTHER = np.roll(X, 1, axis=0)


def run(*ops: tuple[Any, type[QuantizedOp]], checks: Sequence[Any] = CLEAR) -> list[Outcome]:
    samples = {
        op._impl_for_op_named: [Sample(*((X, OTHER) if op._impl_for_op_named == "Join" else (X,)))]
        for _, op in ops
    }
    return run_checks("acme", registry=registry_of(*ops), samples=samples, checks=checks)


def messages(outcomes: list[Outcome]) -> dict[str, str]:
    return {outcome.check: outcome.message for outcome in outcomes if not outcome.passed}


def test_right_ops_of_all_three_cases_pass_every_check() -> None:
    outcomes = run(*RIGHT)
    assert messages(outcomes) == {}
    ran = {(outcome.check, outcome.op) for outcome in outcomes if not outcome.skipped}
    names = {check.name for check in CLEAR}
    alone = {(name, op._impl_for_op_named) for name in names - {"joins"} for _, op in RIGHT[:3]}
    assert ran >= alone | {("joins", "Join")}
    # What runs on the client has nothing encrypted to look at.
    assert names - {c for c, op in ran if op == "Share"} == {"can-fuse", "integers", "joins"}


@pytest.mark.parametrize(
    ("check", "function", "quantized"), WRONG_OPS, ids=[op.__name__ for *_, op in WRONG_OPS]
)
def test_a_wrong_op_fails_exactly_the_check_that_looks_for_it(
    check: str, function: Any, quantized: type[QuantizedOp]
) -> None:
    assert set(messages(run((function, quantized)))) == {check}


def test_every_check_has_a_wrong_op_or_stands_on_the_core_alone() -> None:
    """No op can make simulation or encryption differ: they read one recorded program, of checked shapes."""
    alone = {"batch", "shapes", "simulate", "encrypted"}
    assert {check.name for check in CHECKS} - set(WRONG) == alone


def test_a_simulation_that_differs_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = QuantizedModule.forward

    def off_by_one(self: Any, *arrays: Any, fhe: str = "disable", **named: Any) -> Any:
        return forward(self, *arrays, fhe=fhe, **named) + (fhe == "simulate")

    monkeypatch.setattr(QuantizedModule, "forward", off_by_one)
    assert set(messages(run(RIGHT[1]))) == {"simulate"}


def test_a_failure_tells_the_error_the_bound_and_what_to_compare() -> None:
    (check, function, quantized), *_ = WRONG_OPS
    text = messages(run((function, quantized)))[check]
    assert "with 4 bits" in text
    assert "an error of at most" in text
    assert "rounding the inputs and weights makes" in text
    assert "compare q_impl with the float op" in text


def test_an_op_that_no_sample_reaches_has_no_cases_and_a_refused_sample_fails_accuracy() -> None:
    assert run_checks("acme", registry=registry_of(RIGHT[1]), checks=CLEAR) == []
    flat = {"Total": [Sample(X[:, 0])]}  # there is nothing to sum over but the batch
    outcomes = run_checks("acme", registry=registry_of(RIGHT[1]), samples=flat, checks=CLEAR)
    assert set(messages(outcomes)) == {"accuracy"}
    assert "the sample cannot be quantized" in messages(outcomes)["accuracy"]


def test_a_sample_of_what_cannot_be_encrypted_is_left_to_the_float_checks() -> None:
    holes = {"Total": [Sample(np.where(X > 1, np.float32(np.nan), X))]}
    assert run_checks("acme", registry=registry_of(RIGHT[1]), samples=holes, checks=CLEAR) == []


def test_an_exception_raised_by_an_op_is_a_failure_and_not_a_refusal() -> None:
    class Broken(QuantizedOp):
        _impl_for_op_named = "Total"

        def q_impl(self, *q_inputs: Any, **attrs: Any) -> Any:
            raise ZeroDivisionError("a mistake")

    text = messages(run((total, Broken)))["accuracy"]
    assert "ZeroDivisionError: a mistake" in text


def test_without_concrete_the_encrypted_run_is_skipped_and_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (outcome,) = run(RIGHT[0], checks=[execution.ENCRYPTED])
    assert outcome.skipped
    assert "pip install 'fhe-core[concrete]'" in outcome.message


def test_every_op_that_computes_on_integers_is_encrypted_where_it_does() -> None:
    """Of an op that sometimes fuses, not where it does; of those that always do, one."""
    samples = {name: [Sample(X)] for name in ("Ramp", "Total", "Share")}
    samples["Join"] = [Sample(X, OTHER)]
    trials = plan(
        "acme", registry=registry_of(*RIGHT), samples=samples, checks=[execution.ENCRYPTED]
    )
    found = {t.subject.op: attempt_of(t.subject, t.case).net for t in trials}
    assert set(found) == {"Ramp", "Total", "Join"}
    assert {op for op, net in found.items() if net and net.placed.fused} == {"Ramp"}
    assert {trial.subject.op for trial in trials if trial.subject.saved} == {
        "Ramp",
        "Total",
        "Join",
    }


@pytest.mark.fhe
def test_one_op_of_each_kind_of_fusion_runs_encrypted() -> None:
    outcomes = run(*RIGHT, checks=[execution.ENCRYPTED])
    assert messages(outcomes) == {}
    assert {outcome.op for outcome in outcomes} >= {"Ramp", "Total", "Join"}
