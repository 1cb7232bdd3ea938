"""A thinned suite leaves no operator without a law, no sample untried, and no comparison out."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from fhe_core.registry import get_registry
from fhe_core.testing.checks import Check
from fhe_core.testing.running import Trial
from fhe_core.testing.subject import find_pack, whole_pack
from fhe_core.testing.thinning import thinned


def trials(ops: int, checks: int, cases: int, **more: Any) -> list[Trial]:
    """Each check on each case of each operator."""
    registry = get_registry()
    whole = whole_pack(registry, find_pack(registry, "std"))
    laws = [
        Check(f"law {i}", "it holds.", lambda subject, case: None, **more) for i in range(checks)
    ]
    return [
        Trial(law, replace(whole, op=f"Op{op}"), f"case {case}")
        for law, op, case in product(laws, range(ops), range(cases))
    ]


@pytest.mark.parametrize(("checks", "cases"), [(9, 4), (4, 9), (9, 1), (1, 9), (3, 3)])
def test_each_operator_meets_each_check_and_each_of_its_cases(checks: int, cases: int) -> None:
    before, after = trials(5, checks, cases), thinned(trials(5, checks, cases))
    for pair in (lambda t: (t.subject.op, t.check.name), lambda t: (t.subject.op, t.case)):
        assert {pair(trial) for trial in after} == {pair(trial) for trial in before}
    assert len(after) == 5 * max(checks, cases)


def test_the_trials_that_stay_keep_their_order() -> None:
    before, after = trials(5, 4, 3), thinned(trials(5, 4, 3))
    places = [(trial.check.name, trial.subject.op, trial.case) for trial in before]
    kept = [(trial.check.name, trial.subject.op, trial.case) for trial in after]
    assert kept == [place for place in places if place in kept]


def test_over_many_operators_every_check_meets_every_place_among_the_cases() -> None:
    after = thinned(trials(100, 4, 4))
    assert {(trial.check.name, trial.case) for trial in after} == set(
        product((f"law {i}" for i in range(4)), (f"case {i}" for i in range(4)))
    )


@pytest.mark.parametrize("kind", [{"judges": "impl"}, {"judges": "quantized"}, {"encrypts": True}])
def test_what_compares_results_or_encrypts_stays_whole(kind: dict[str, Any]) -> None:
    assert len(thinned(trials(2, 3, 4, **kind))) == 2 * 3 * 4


def test_what_is_expected_to_fail_stays() -> None:
    excused = [replace(trial, reason="known") for trial in trials(2, 3, 4)]
    assert len(thinned(excused)) == len(excused)
