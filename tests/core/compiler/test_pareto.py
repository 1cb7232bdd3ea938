"""The front of a search holds what no other candidate dominates."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from fhe_core.compiler.pareto import describe, front, points
from fhe_core.quantization.planning import Settings
from hypothesis import given
from hypothesis import strategies as st

SETTINGS = Settings.of(4, 3)


def candidate(score: float, complexity: float | None, checked: float = 0.0) -> Any:
    cost = None if complexity is None else SimpleNamespace(complexity=complexity)
    return SimpleNamespace(settings=SETTINGS, score=score, cost=cost, checked=checked)


#: Few values, so that equal ones occur.
_PAIRS = st.lists(st.tuples(st.integers(0, 5), st.none() | st.integers(1, 5)), max_size=12)


@given(_PAIRS)
def test_no_candidate_is_cheaper_and_at_least_as_good(
    pairs: list[tuple[int, int | None]],
) -> None:
    found = points([candidate(*pair) for pair in pairs])
    priced = {(score, cost) for score, cost in pairs if cost is not None}
    assert {(point.score, point.complexity) for point in found} == priced
    for point in found:
        dominated = any(
            score >= point.score
            and cost <= point.complexity
            and (score, cost) != (point.score, point.complexity)
            for score, cost in priced
        )
        assert point.on_front == (not dominated)


@given(_PAIRS)
def test_along_the_front_a_better_score_costs_more(pairs: list[tuple[int, int | None]]) -> None:
    best = front(points([candidate(*pair) for pair in pairs]))
    scores, costs = ([p.score for p in best], [p.complexity for p in best])
    assert scores == sorted(set(scores))
    assert costs == sorted(set(costs))


def test_what_failed_a_check_is_not_within_tolerance() -> None:
    (good,) = points([candidate(1, 1, 0.0)])
    (bad,) = points([candidate(1, 1, -0.01)])
    assert (good.within, bad.within) == (True, False)


def test_a_candidate_is_described_by_its_widths_or_in_its_own_words() -> None:
    assert describe(candidate(1, 1)) == "4-bit activations, 4-bit weights, rounded to 3"
    assert describe(SimpleNamespace(describe=lambda: "as I say")) == "as I say"
