"""Each check of the float side and of packaging finds the pack that is wrong in its way, alone."""

from __future__ import annotations

import ast
from typing import Any

import pytest
from fhe_core.testing import run_checks
from fhe_core.testing.checks import CheckFailed
from fhe_core.testing.checks.all import CHECKS
from fhe_core.testing.running import Outcome

from fhe_core import PackError
from tests.core.testing.packs import RIGHT, WRONG, X, replaced, samples


def run(site: Any, wrong: dict[str, Any] | None = None, **options: Any) -> list[Outcome]:
    """The outcomes of all checks on an installed pack."""
    install = {"source": RIGHT, **(wrong or {})}
    options = {"samples": install.pop("samples", samples()), **options}
    site.add("acme", **install)
    return run_checks("acme", **options)


def failed(outcomes: list[Outcome]) -> set[str]:
    return {outcome.check for outcome in outcomes if not outcome.passed}


def message(outcomes: list[Outcome]) -> str:
    return next(outcome.message for outcome in outcomes if not outcome.passed)


def test_a_right_pack_passes_every_check(site: Any) -> None:
    outcomes = run(site)
    assert [outcome for outcome in outcomes if not outcome.passed] == []
    passed = {outcome.check for outcome in outcomes if not outcome.skipped}
    assert {*WRONG, "uninstall"} <= passed


@pytest.mark.parametrize("check", WRONG)
def test_a_wrong_pack_fails_exactly_the_check_that_looks_for_it(check: str, site: Any) -> None:
    assert failed(run(site, WRONG[check])) == {check}


def test_a_second_distribution_of_the_same_module_fails_uninstall_alone(site: Any) -> None:
    """As after a change of the distribution's name, with the old one still installed."""
    old = site.folder / "acme_former-1.0.dist-info"
    old.mkdir()
    (old / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-former\nVersion: 1.0\n")
    (old / "entry_points.txt").write_text("[fhe_core.packs]\nformer = acme_ops\n")
    outcomes = run(site)
    assert failed(outcomes) == {"uninstall"}
    assert "as pack 'former'" in message(outcomes)


def test_every_check_has_a_name_of_its_own_and_a_law_in_one_sentence() -> None:
    names = [check.name for check in CHECKS]
    assert len(set(names)) == len(names)
    for check in CHECKS:
        assert check.name == check.name.lower().replace("_", "-")
        assert check.law.endswith(".")
        assert "\n" not in check.law


def test_a_failure_names_the_op_the_pack_the_law_and_what_to_do(site: Any) -> None:
    (outcome,) = (
        outcome
        for outcome in run(site, WRONG["expected"], checks=named("expected"))
        if not outcome.passed
    )
    assert outcome.id == "expected/Scale/thrice"
    assert outcome.message.split("\n") == [
        "Scale of pack 'acme' (acme-ops 1.0), thrice: "
        "the NumPy function computes what the author's samples expect.",
        "Scale at opset 2: the result is wrong in 48 of 48 elements",
        "  expected: -3.0 at [0, 0], says the sample (rtol=0.001, atol=1e-06)",
        "  got:      -3.5",
        "  to do:    compare the function with the op's page",
    ]


def test_a_function_that_raises_is_shown_where_it_does(site: Any) -> None:
    source = replaced("return x * x.dtype.type(by)", "return x * undefined")
    said = message(run(site, {"source": source}, checks=named("inputs-untouched")))
    assert "it raised NameError: name 'undefined' is not defined" in said
    assert "acme_ops.py:24, in scale: return x * undefined" in said


def named(*names: str) -> list[Any]:
    return [check for check in CHECKS if check.name in names]


# Exceptions


def test_an_exception_excuses_what_it_names_and_keeps_its_reason(site: Any) -> None:
    outcomes = run(site, WRONG["expected"], exceptions={"expected/Scale": "half more"})
    assert failed(outcomes) == set()
    assert [o.message for o in outcomes if o.id == "expected/Scale/thrice"] == ["half more"]


def test_the_narrower_exception_counts(site: Any) -> None:
    exceptions = {"expected/Scale/thrice": "this one", "expected/Scale": "all"}
    outcomes = run(site, WRONG["expected"], exceptions=exceptions, checks=named("expected"))
    assert [outcome.message for outcome in outcomes if outcome.passed] == ["this one"]
    assert "'expected/Scale' is declared, and there is no such case" in message(outcomes)


def test_an_exception_of_what_passes_is_a_failure(site: Any) -> None:
    outcomes = run(site, exceptions={"expected/Scale": "half more"})
    assert failed(outcomes) == {"expected"}
    assert message(outcomes) == "it passes; an exception says that it fails: half more"


@pytest.mark.parametrize("key", ["expected/Shift", "exacted/Scale", "expected", "expected/Scale/2"])
def test_an_exception_that_fits_nothing_is_a_failure(key: str, site: Any) -> None:
    outcomes = run(site, exceptions={key: "gone"}, checks=named("expected", "requirement"))
    assert failed(outcomes) == {"exceptions"}
    assert f"the exception {key!r} is declared, and there is no such case" in message(outcomes)


def test_an_exception_of_a_check_that_is_left_out_is_no_failure(site: Any) -> None:
    exceptions = {"refusals/Scale": "lenient"}
    assert failed(run(site, exceptions=exceptions, checks=named("expected"))) == set()


# What cannot be run


def test_a_pack_that_is_not_installed_is_an_error_that_names_those_that_are(site: Any) -> None:
    site.add("acme", source=RIGHT)
    with pytest.raises(PackError, match=r"'acne': no such pack is installed.*acme"):
        run_checks("acne")


def test_samples_of_an_op_that_the_pack_lacks_are_an_error(site: Any) -> None:
    from fhe_core.testing import Sample

    with pytest.raises(PackError, match=r"samples\(\) names 'Shift'.*one of Add, Relu, Scale"):
        run(site, samples={"Shift": [Sample(X)]})
    with pytest.raises(PackError, match="two samples named 'x'"):
        run_checks("acme", samples={"Scale": [Sample(X, name="x"), Sample(X, name="x")]})


def test_a_sample_that_onnx_can_judge_needs_no_result(site: Any) -> None:
    from fhe_core.testing import Sample

    outcomes = run(
        site,
        samples={**samples(), "Relu": [Sample(X, name="mine")]},
        checks=named("reference"),
    )
    assert [o.case for o in outcomes if o.op == "Relu"] == ["opset-6", "opset-13", "mine"]
    assert failed(outcomes) == set()


def test_ops_that_another_pack_hides_are_checked_all_the_same(site: Any) -> None:
    site.add(
        "bold",
        "registry.impl('Relu', lambda X, /: 0 * X, since_version=6, override=True)",
    )
    outcomes = run(site, checks=named("onnx-cases"))
    assert {outcome.op for outcome in outcomes} == {"Add", "Relu"}
    assert failed(outcomes) == set()


def test_the_kit_is_imported_without_pytest_numpy_and_onnx(site: Any) -> None:
    printed = site.run(
        """
        import sys
        import fhe_core.testing
        print([name for name in ("pytest", "numpy", "onnx") if name in sys.modules])
        fhe_core.testing.run_checks
        print("pytest" in sys.modules)
        """
    )
    assert [ast.literal_eval(line) for line in printed.splitlines()] == [[], False]


def test_a_check_that_fails_says_so_in_parts() -> None:
    failure = CheckFailed("it is wrong", expected="this", got="that", fix="mend it")
    assert (failure.problem, failure.expected, failure.got, failure.fix) == (
        "it is wrong",
        "this",
        "that",
        "mend it",
    )
    assert isinstance(failure, AssertionError)
