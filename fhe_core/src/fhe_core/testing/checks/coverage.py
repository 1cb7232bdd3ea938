"""Nothing passes by not being looked at."""

from __future__ import annotations

from fhe_core.testing.checks import Check, CheckFailed
from fhe_core.testing.subject import Subject

_FIX = {
    "impl": "give samples() an entry for it: a Sample with inputs and `expected` results (for an op "
    "that ONNX defines, onnx.reference judges a Sample without them)",
    "quantized": "give samples() an entry for it: a Sample with float inputs, a batch along their "
    "first axis",
}


def _collected(subject: Subject, case: str) -> None:
    from fhe_core.testing.checks.all import CHECKS

    slots = [("impl", subject.has_impl), ("quantized", subject.has_quantized)]
    for slot in (slot for slot, registered in slots if registered):
        judging = [check for check in CHECKS if check.judges == slot]
        cases = sum(len(check.cases(subject)) for check in judging if check.applies(subject))
        if judging and not cases:
            what = "NumPy function" if slot == "impl" else "quantized class"
            raise CheckFailed(
                f"nothing judges what the {what} of {subject.op} computes",
                expected=f"a case of {', '.join(check.name for check in judging)}",
                got="none: ONNX has no test of it, and there is no fitting sample",
                fix=_FIX[slot],
            )


COLLECTED = Check(
    "collected",
    "every registered function and class is judged by at least one case.",
    _collected,
)

CHECKS = (COLLECTED,)
