"""ONNX's own node tests, as cases that call a NumPy implementation directly.

``onnx.backend.test`` holds, for almost every op, small one-node models with inputs and expected
outputs. They are the nearest thing to an executable specification, so every NumPy implementation is
held to them:

    @pytest.mark.parametrize("case", parameters("Relu", "Elu", exclude={"test_elu": "why"}))
    def test_onnx_case(case):
        case.check(IMPLEMENTATIONS)
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from fhe_core.registry.stateful import as_function
from fhe_core.testing.onnx_cases import all_cases

Implementations = Iterable[tuple[str, int, Callable[..., Any]]]


@dataclass(frozen=True)
class Case:
    """One node, its inputs (None: left out) and expected outputs (None: not asked for)."""

    name: str
    op_type: str
    domain: str
    opset: int
    attributes: Mapping[str, Any]
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    rtol: float
    atol: float

    def check(self, implementations: Implementations) -> None:
        """Run the function that ``implementations`` has for this opset, compare all outputs."""
        function = implementation_for(implementations, self.op_type, self.opset)
        actual = run(function, self.inputs, self.attributes)
        assert len(actual) >= len(self.outputs), f"{len(actual)} outputs"
        for got, expected in zip(actual, self.outputs, strict=False):
            if expected is not None:
                assert_same(got, expected, rtol=self.rtol, atol=self.atol)


def implementation_for(
    implementations: Implementations, op_type: str, opset: int
) -> Callable[..., Any]:
    """The function with the highest since_version that is not above ``opset``."""
    served = {since: fn for op, since, fn in implementations if op == op_type and since <= opset}
    assert served, f"no implementation of {op_type} for opset {opset}"
    return served[max(served)]


def run(
    function: Callable[..., Any], inputs: Iterable[Any], attributes: Mapping[str, Any]
) -> tuple[Any, ...]:
    """Call ``function`` as the graph runner does, except that its inputs cannot be written to.

    Division by zero and invalid operations are silent, as they are in the graph runner. Overflow
    is not: a function that meets it on the way to a finite result is not numerically stable.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="warn"):
        result = as_function(function)(*map(read_only, inputs), **attributes)
    return result if isinstance(result, tuple) else (result,)


def read_only(value: Any) -> Any:
    """A copy of an array that raises on any attempt to modify it; anything else as it is."""
    if not isinstance(value, np.ndarray):
        return value
    copy = value.copy()
    copy.flags.writeable = False
    return copy


def assert_same(got: Any, expected: Any, *, rtol: float = 0.0, atol: float = 0.0) -> None:
    """The same dtype, the same shape, and values within the tolerance (exact unless floating)."""
    if isinstance(expected, list):
        assert isinstance(got, list | tuple)
        assert len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            assert_same(one, other, rtol=rtol, atol=atol)
        return
    assert isinstance(got, np.ndarray | np.generic), f"{type(got)} is not an array"
    assert got.dtype == expected.dtype, f"dtype {got.dtype}, expected {expected.dtype}"
    assert got.shape == expected.shape, f"shape {got.shape}, expected {expected.shape}"
    if expected.dtype.kind in "fc" or expected.dtype.name == "bfloat16":
        # float16 is compared in float32, where its tolerance does not underflow. ONNX's own runner
        # allows bfloat16, whose digits are fewer than every tolerance, 2⁻⁶.
        wide = np.result_type(expected.dtype, np.float32)
        rtol = max(rtol, 2**-6) if expected.dtype.name == "bfloat16" and rtol else rtol
        np.testing.assert_allclose(
            np.asarray(got, wide), np.asarray(expected, wide), rtol=rtol, atol=atol
        )
    elif expected.dtype.kind == "V":  # of ml_dtypes: all in float32, where NaN is NaN
        np.testing.assert_array_equal(got.astype(np.float32), expected.astype(np.float32))
    else:
        np.testing.assert_array_equal(got, expected)


def cases(*op_types: str, domain: str = "") -> list[Case]:
    """ONNX's one-node cases for these ops, by name, without the function-expanded variants."""
    return [case for case in _collect() if case.domain == domain and case.op_type in op_types]


def parameters(*op_types: str, exclude: Mapping[str, str] | None = None, domain: str = "") -> list:
    """``cases`` as pytest parameters. An excluded case is run, and has to fail.

    Args:
        op_types: ONNX's op names.
        exclude: the reason by case name. A name that is no case is an error.
        domain: the ops' domain.
    """
    exclude = dict(exclude or {})
    result = []
    for case in cases(*op_types, domain=domain):
        reason = exclude.pop(case.name, None)
        marks = [pytest.mark.xfail(reason=reason, strict=True)] if reason else []
        result.append(pytest.param(case, id=case.name, marks=marks))
    assert not exclude, f"excluded, but not collected: {sorted(exclude)}"
    return result


@functools.cache
def onnx_tests(kind: str) -> tuple[Any, ...]:
    """ONNX's ``TestCase``s of a kind: node, simple, pytorch-converted or pytorch-operator."""
    # ONNX computes its cases while it is imported, with warnings and with NumPy's global generator:
    # the warnings are not ours, and the generator is seeded so that two runs see the same data.
    state = np.random.get_state()  # noqa: NPY002
    try:
        np.random.seed(0)  # noqa: NPY002
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            from onnx.backend.test.loader import load_model_tests

            return tuple(load_model_tests(kind=kind))
    finally:
        np.random.set_state(state)  # noqa: NPY002


@functools.cache
def _collect() -> tuple[Case, ...]:
    return tuple(
        Case(
            name=case.name,
            op_type=case.op_type,
            domain=case.domain,
            opset=case.opset,
            attributes=case.attributes,
            inputs=case.inputs,
            outputs=case.outputs,
            rtol=case.rtol,
            atol=case.atol,
        )
        for case in all_cases()
    )
