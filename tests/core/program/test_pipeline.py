"""Passes over integer programs: any pack may bring some, at a stage, and none may change a result."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fhe_core.program.interpreter import Interpreter
from fhe_core.program.pipeline import PassContext, optimized
from fhe_core.program.program import Program
from fhe_core.program.remarks import Remark, place
from fhe_core.registry import PackInfo, ProgramPass
from fhe_core.registry.passes import Stage

import fhe_core
from fhe_core import PackError
from tests.core.quantization.building import model, normal

from .programs import entry, fixed, linear, looked_up, program

X = {"x": np.random.default_rng(0).integers(-4, 4, (100, 2))}
MINE = PackInfo("mine")


def made() -> Program:
    """Two inputs of three bits, each looked up."""
    total = linear("matmul", entry("x", 2, 3), weights=np.eye(2, dtype=int), left=False)
    fixed(3, total)
    return program(looked_up(total, [np.maximum(np.arange(-4, 4), 0)]))


def with_table(whole: Program, change: Any) -> Program:
    """The program with other entries in its one look-up."""
    (node,) = whole.lookups
    attributes = {**node.attributes, "tables": change(node.attributes["tables"])}
    return Program.of([replace(node, attributes=attributes)])


def run(*passes: Any, calibrated: bool = True, stage: Stage = "exact") -> Any:
    named = [ProgramPass(each.__name__, each, MINE, stage) for each in passes]
    return optimized(made(), named, X, calibrated=calibrated)


def remark(whole: Program, says: str = "done") -> Remark:
    return Remark("mine", place(whole.lookups[0]), 0, says)


def test_exact_passes_are_repeated_until_none_remarks_anything() -> None:
    calls = []

    def twice(whole: Program, context: PassContext) -> Any:
        calls.append(len(context.samples["x"]))
        return whole, [remark(whole)] if len(calls) < 3 else []

    _, remarks = run(twice)
    assert calls == [100, 100, 100]
    assert [each.exact for each in remarks] == [True, True]


def test_what_follows_from_an_assumption_is_not_exact_and_needs_leave() -> None:
    def assumes(whole: Program, context: PassContext) -> Any:
        return whole, [remark(whole)]

    assert [each.exact for each in run(assumes, stage="calibrated")[1]] == [False]
    assert run(assumes, stage="calibrated", calibrated=False)[1] == ()


@pytest.mark.parametrize("stage", ["exact", "calibrated", "final"])
def test_a_pass_that_changes_a_result_is_named_with_its_pack(stage: Stage) -> None:
    def right(whole: Program, context: PassContext) -> Any:
        return with_table(whole, np.copy), []

    def wrong(whole: Program, context: PassContext) -> Any:
        return with_table(whole, lambda tables: tables + 1), []

    assert run(right, stage=stage)[0].lookups
    with pytest.raises(PackError, match="pack 'mine': its pass 'wrong' changes results"):
        run(right, wrong, stage=stage)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda whole: whole, "returned Program, not a program and its remarks"),
        (lambda whole: (whole, ["a text"]), "returned tuple, not a program and its remarks"),
        (lambda whole: 1 / 0, "raised ZeroDivisionError: division by zero"),
    ],
)
def test_a_pass_that_does_not_do_what_passes_do_is_named(answer: Any, says: str) -> None:
    def odd(whole: Program, context: PassContext) -> Any:
        return answer(whole)

    with pytest.raises(PackError, match=f"pack 'mine': its pass 'odd' {says}"):
        run(odd)


def test_a_stranger_s_pass_runs_whenever_a_module_is_built_unless_none_is_wanted() -> None:
    seen = []

    def count(whole: Program, context: PassContext) -> Any:
        seen.append(len(whole.nodes))
        return whole, [remark(whole, f"{len(whole.nodes)} nodes")] if len(seen) == 1 else []

    net = model("h = MatMul(x, w) \n r = Relu(h) \n y = MatMul(r, v)", {"x": ("N", 4)},
                constants={"w": normal(4, 3), "v": normal(3, 2, seed=1)})  # fmt: skip
    x = normal(60, 4, seed=2)
    with fhe_core.registered(program_passes=[count]):
        qm = fhe_core.quantize(net, x)
        assert seen
        assert f"{seen[0]} nodes" in {each.says for each in qm.savings}
        before = len(seen)
        fhe_core.quantize(net, x, savings="none")
        assert len(seen) == before


def test_the_built_in_passes_change_no_result_on_samples() -> None:
    passes = fhe_core.get_registry().program_passes()
    less, _ = optimized(made(), passes, X)
    np.testing.assert_array_equal(Interpreter(less)(X)[0], Interpreter(made())(X)[0])
