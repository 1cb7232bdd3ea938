"""ONNX's own backend suite runs through NumpyModule: it passes, or it says that it does not."""

from __future__ import annotations

from typing import Any

import onnx.defs
import pytest

import fhe_core
from fhe_core import FheError, UnsupportedOpError

from .onnx_suite import SuiteCase, cases
from .suite_exclusions import CASES

IN_SCOPE = [case for case in cases() if not case.excluded]
OUT_OF_SCOPE = [case for case in cases() if case.excluded]


def parameters(chosen: list[SuiteCase]) -> list[Any]:
    return [
        pytest.param(
            case,
            id=case.name,
            # A wrong result is no reason: only what the module refuses may fail.
            marks=[pytest.mark.xfail(reason=CASES[case.name], strict=True, raises=FheError)]
            if case.name in CASES
            else [],
        )
        for case in chosen
    ]


@pytest.mark.parametrize("case", parameters(IN_SCOPE))
def test_a_case_computes_what_onnx_says(case: SuiteCase) -> None:
    case.check()


@pytest.mark.parametrize("case", [pytest.param(c, id=c.name) for c in OUT_OF_SCOPE])
def test_a_case_out_of_scope_is_refused(case: SuiteCase) -> None:
    """None is silently wrong: what no pack implements is a typed error that says what to do."""
    with pytest.raises(FheError) as caught:
        case.check()
    assert caught.value.fix


def test_every_excluded_case_exists_and_is_in_scope() -> None:
    assert CASES.keys() <= {case.name for case in IN_SCOPE}


def test_at_least_97_of_100_cases_pass() -> None:
    """Of the node cases in scope; of the models that PyTorch exported, all."""
    node = [case for case in IN_SCOPE if case.kind == "node"]
    assert len([case for case in node if case.name in CASES]) <= 0.03 * len(node)
    assert not {case.name for case in cases() if case.kind.startswith("pytorch")} & CASES.keys()


class Without:
    """The installed packs without one operator."""

    def __init__(self, op_type: str) -> None:
        self._op_type = op_type
        self._registry = fhe_core.get_registry()

    def resolve(self, op_type: str, domain: str = "", *, opset: int) -> Any:
        if op_type == self._op_type and not domain:
            raise UnsupportedOpError("hidden")
        return self._registry.resolve(op_type, domain=domain, opset=opset)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._registry, name)


def defined_by_a_body(case: SuiteCase) -> bool:
    if case.kind != "node" or "_expanded" in case.name or case.name in CASES:
        return False
    domain, name = case.op or ("", "")
    opset = next(e.version for e in case.model.opset_import if e.domain == domain)
    schema = onnx.defs.get_schema(name, opset, domain)
    if schema.has_function:
        return bool(schema.get_function_with_opset_version(opset))
    return bool(schema.has_context_dependent_function)


@pytest.mark.parametrize(
    "case", [pytest.param(c, id=c.name) for c in IN_SCOPE if defined_by_a_body(c)]
)
def test_an_op_that_no_pack_implements_runs_by_its_body(case: SuiteCase) -> None:
    """ONNX defines many of its operators by others: without its own function the op still runs."""
    case.check(Without(case.op[1] if case.op else ""))
