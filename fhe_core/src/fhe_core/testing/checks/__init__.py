"""What the kit checks, a file for each family; `checks.all` has the list.

A `Check` is a law with a name. It says to which subjects it applies, into which cases it falls there,
and raises `CheckFailed` where the law does not hold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from fhe_core.testing.subject import Subject


class CheckFailed(AssertionError):
    """A law does not hold. The runner of the checks adds which law, and of which op and case.

    Args:
        problem: what is wrong, one sentence without a full stop.
        expected: what would have been right.
        got: what came instead.
        fix: what to change, an imperative sentence without a full stop.
    """

    def __init__(
        self,
        problem: str,
        *,
        expected: str | None = None,
        got: str | None = None,
        fix: str | None = None,
    ) -> None:
        self.problem = problem
        self.expected = expected
        self.got = got
        self.fix = fix
        parts = (("expected", expected), ("got", got), ("to do", fix))
        lines = [problem, *(f"  {label + ':':<10}{text}" for label, text in parts if text)]
        super().__init__("\n".join(lines))


class CheckSkipped(Exception):
    """A law cannot be checked here; the text says why."""


def _always(subject: Subject) -> bool:
    return True


def _one_case(subject: Subject) -> Sequence[str]:
    return ("",)


@dataclass(frozen=True)
class Check:
    """A law that a pack, or each of its operators, has to keep.

    Attributes:
        name: lower case with hyphens; it stands in test ids and in ``exceptions``.
        law: the law, one sentence.
        run: ``run(subject, case)`` raises CheckFailed where the law is broken, CheckSkipped where it
            cannot be checked. Any other exception counts as a failure of the pack.
        applies: whether the law concerns a subject; asked before ``cases``.
        cases: the names of the cases of a subject, in a fixed order. One nameless case by default.
        scope: "op": asked for each operator of the pack; "pack": once, for all of it.
        judges: the slot whose results are compared with another's by this check, "impl" or
            "quantized": every registered operator must have a case of a check that judges it.
        encrypts: it works with real keys: its tests bear the mark ``fhe``.
    """

    name: str
    law: str
    run: Callable[[Subject, str], None]
    applies: Callable[[Subject], bool] = _always
    cases: Callable[[Subject], Sequence[str]] = _one_case
    scope: Literal["op", "pack"] = "op"
    judges: Literal["impl", "quantized"] | None = None
    encrypts: bool = False
