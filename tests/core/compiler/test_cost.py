"""The cost of a circuit is Concrete's own, repeatable, and falls with what is kept."""

from __future__ import annotations

import pytest

import fhe_core

from .nets import mlp, samples

pytest.importorskip("concrete.fhe", reason="needs fhe-core[concrete]")


def test_p_error_is_passed_on() -> None:
    """One look-up fails with p_error, so any of n with n times that, or less: parameters are discrete."""
    costs = []
    for p_error in (2.0**-20, 2.0**-40):
        qm = fhe_core.compile(mlp(), samples(4), n_bits=3, rounding=3, p_error=p_error)
        assert qm.p_error == qm.cost.p_error == p_error
        assert 0 < qm.cost.global_p_error <= 1.01 * p_error * qm.cost.pbs_count
        costs.append(qm.cost)
    assert costs[0].complexity < costs[1].complexity
    assert costs[1].global_p_error < costs[0].global_p_error


def test_complexity_falls_with_every_bit_that_is_not_kept() -> None:
    costs = [
        fhe_core.compile(mlp(), samples(4), n_bits=4, rounding=kept).cost for kept in (2, 3, 4, 5)
    ]
    complexities = [cost.complexity for cost in costs]
    assert complexities == sorted(set(complexities))
    assert {cost.pbs_count for cost in costs} == {6}


def test_exact_roundings_take_one_more_look_up_for_each_bit_dropped() -> None:
    kinds = {
        method: fhe_core.compile(mlp(), samples(4), n_bits=3, rounding=3, rounding_method=method)
        for method in ("approximate", "exact")
    }
    dropped = kinds["exact"].plan.accumulators["h"].bits - 3
    assert kinds["approximate"].cost.pbs_count == 6
    assert kinds["exact"].cost.pbs_count == 6 * (1 + dropped)


def test_cost_is_deterministic() -> None:
    first, second = (
        fhe_core.compile(mlp(), samples(4), n_bits=3, rounding=3).cost for _ in range(2)
    )
    assert first == second


def test_widths_are_those_of_the_program() -> None:
    qm = fhe_core.compile(mlp(), samples(4), n_bits=3, rounding=3)
    assert qm.cost.max_bit_width == max(entry.bits for entry in qm.plan.accumulators.values())


@pytest.mark.parametrize("p_error", [0.0, 1.0, 2.0**-129, -1, "2^-40", float("nan")])
def test_impossible_p_errors_are_refused(p_error: object) -> None:
    with pytest.raises(fhe_core.PlanError, match=r"p_error cannot be.*Use 2\*\*-40"):
        fhe_core.compile(mlp(), samples(4), n_bits=3, p_error=p_error)  # type: ignore[arg-type]


def test_accumulators_too_wide_for_any_circuit_are_named() -> None:
    with pytest.raises(fhe_core.CompilationError) as caught:
        fhe_core.compile(mlp(), samples(4), n_bits=10, rounding=16)
    assert caught.value.where.op == "Gemm"
    assert "n_bits" in str(caught.value)
