"""What a NumPy function computes: ONNX's own results, or its author's; and nothing else happens."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import numpy as np

from fhe_core.errors import FheError
from fhe_core.testing.calls import Call, calls_of, onnx_calls, sample_calls
from fhe_core.testing.checks import Check, CheckFailed
from fhe_core.testing.comparing import require_same
from fhe_core.testing.subject import Subject

Calls = Callable[[Subject], Sequence[Call]]


def names_of(calls: Calls) -> Callable[[Subject], Sequence[str]]:
    """A check's cases: a name for each call."""
    return lambda subject: tuple(call.name for call in calls(subject))


def call_named(calls: Sequence[Call], name: str) -> Call:
    """The call behind a case."""
    return next(call for call in calls if call.name == name)


def _onnx_cases(subject: Subject, case: str) -> None:
    _require_expected(subject, call_named(onnx_calls(subject), case), "ONNX's own test")


def _with_expected(subject: Subject) -> Sequence[Call]:
    return tuple(call for call in sample_calls(subject) if call.expected is not None)


def _expected(subject: Subject, case: str) -> None:
    _require_expected(subject, call_named(_with_expected(subject), case), "the sample")


def _require_expected(subject: Subject, call: Call, by: str) -> None:
    require_same(
        call.run(subject.registry),
        call.expected or (),
        rtol=call.rtol,
        atol=call.atol,
        of=f"{call.node.op_type} at opset {call.opset}",
        by=by,
    )


def _inputs_untouched(subject: Subject, case: str) -> None:
    call = call_named(calls_of(subject), case)
    step = call.step(subject.registry)
    if step.bodies:
        return  # a subgraph reaches the function through the runner alone, which locks the inputs
    arrays = [None if value is None else value.copy() for value in call.inputs]
    with np.errstate(all="ignore"):
        step.impl(*arrays, **step.arguments)
    for position, (before, after) in enumerate(zip(call.inputs, arrays, strict=True)):
        if before is not None and after is not None and not _same_bits(before, after):
            raise CheckFailed(
                f"the function changes its input {position}",
                expected="every input as it was: other nodes read the same array",
                fix="compute a new array: `x = x + 1` in place of `x += 1`, and no `out=x`",
            )


def _repeatable(subject: Subject, case: str) -> None:
    call = call_named(calls_of(subject), case)
    first = call.run(subject.registry)
    _require_again(first, call.run(subject.registry))
    backwards = (
        None if value is None else value[::-1].copy() if value.ndim else value
        for value in call.inputs
    )
    with contextlib.suppress(FheError):  # these inputs need not make sense to the op
        call.on(*backwards).run(subject.registry)
    _require_again(first, call.run(subject.registry))


def _require_again(first: Sequence[np.ndarray], again: Sequence[np.ndarray]) -> None:
    for position, (one, other) in enumerate(zip(first, again, strict=True)):
        if not _same_bits(one, other):
            raise CheckFailed(
                f"a later call answers something else than the first (output {position})",
                expected="the same bits for the same inputs",
                fix="keep no state between calls, and draw no random numbers",
            )


def _same_bits(one: np.ndarray, other: np.ndarray) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    if one.dtype.kind == "O":
        return bool(np.array_equal(one, other))
    return one.tobytes() == other.tobytes()


def _is_deterministic(subject: Subject) -> bool:
    """ONNX gives a ``seed`` to every operator that draws random numbers, and to no other."""
    signature = subject.rows[-1].signature
    return subject.has_impl and not (signature and "seed" in signature.attributes)


ONNX_CASES = Check(
    "onnx-cases",
    "the NumPy function computes what ONNX's own node tests expect.",
    _onnx_cases,
    applies=lambda subject: subject.has_impl,
    cases=names_of(onnx_calls),
    judges="impl",
)
EXPECTED = Check(
    "expected",
    "the NumPy function computes what the author's samples expect.",
    _expected,
    applies=lambda subject: subject.has_impl,
    cases=names_of(_with_expected),
    judges="impl",
)
INPUTS_UNTOUCHED = Check(
    "inputs-untouched",
    "the NumPy function leaves its inputs as they are, also where it could write into them.",
    _inputs_untouched,
    applies=lambda subject: subject.has_impl,
    cases=names_of(calls_of),
)
REPEATABLE = Check(
    "repeatable",
    "the NumPy function answers the same bits to the same inputs, whatever came between.",
    _repeatable,
    applies=_is_deterministic,
    cases=names_of(calls_of),
)

CHECKS = (ONNX_CASES, EXPECTED, INPUTS_UNTOUCHED, REPEATABLE)
