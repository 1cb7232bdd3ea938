"""Runs the checks, without pytest."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fhe_core.registry import Registry
from fhe_core.testing.checks import Check, CheckFailed, CheckSkipped
from fhe_core.testing.sample import Sample
from fhe_core.testing.subject import (
    BITS,
    Subject,
    find_pack,
    operators,
    registry_for,
    whole_pack,
)
from fhe_core.testing.thinning import thinned

_OURS = str(Path(__file__).resolve().parents[1])

# As many lines of a traceback as show where in a pack something came up.
_SHOWN_FRAMES = 4


@dataclass(frozen=True)
class Outcome:
    """What became of one case of one check.

    Attributes:
        check: the name of the check.
        op: the operator; "" where the check is about the pack.
        case: the case; "" where the check has one alone.
        passed: the law holds, or is broken as an exception declares.
        message: what is wrong; why it was skipped or excused; "" for a plain pass.
        skipped: it could not be checked here.
    """

    check: str
    op: str
    case: str
    passed: bool
    message: str = ""
    skipped: bool = False

    @property
    def id(self) -> str:
        """``CHECK/OP/CASE``, as in ``exceptions``."""
        return "/".join(filter(None, (self.check, self.op, self.case)))


@dataclass(frozen=True)
class Trial:
    """One case of one check of one subject, yet to be run.

    ``reason`` is why it is expected to fail; None if it is expected to pass.
    """

    check: Check
    subject: Subject
    case: str
    reason: str | None = None

    @property
    def label(self) -> str:
        """``OP/CASE``; the check's own name where it has neither."""
        return "/".join(filter(None, (self.subject.op, self.case))) or self.check.name

    @property
    def exception_keys(self) -> tuple[str, ...]:
        """What may stand in ``exceptions`` for this trial, the narrowest first."""
        parts = [part for part in (self.check.name, self.subject.op, self.case) if part]
        shortest = 2 if self.subject.op else 1
        return tuple("/".join(parts[:end]) for end in range(len(parts), shortest - 1, -1))

    def run(self) -> None:
        """Runs the check.

        Raises:
            CheckFailed: with the op, the pack, the case and the law before what is wrong.
            CheckSkipped: as the check raised it.
        """
        try:
            self.check.run(self.subject, self.case)
        except CheckSkipped:
            raise
        except CheckFailed as failure:
            raise CheckFailed(f"{self._place()}\n{failure}") from failure.__cause__
        except Exception as error:
            raised = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            lines = [self._place(), f"it raised {raised}", *_frames(error)]
            raise CheckFailed("\n".join(lines)) from error

    def _place(self) -> str:
        op = f"{self.subject.op} of " if self.subject.op else ""
        case = f", {self.case}" if self.case else ""
        return f"{op}{self.subject.pack}{case}: {self.check.law}"


def _frames(error: Exception) -> list[str]:
    """Where in the pack's own files the error came up, innermost last; nothing of this package."""
    frames = traceback.extract_tb(error.__traceback__)
    return [
        f"  at {frame.filename}:{frame.lineno}, in {frame.name}: {frame.line}"
        for frame in frames
        if not str(Path(frame.filename).resolve()).startswith(_OURS)
    ][-_SHOWN_FRAMES:]


def plan(
    pack: str,
    *,
    samples: Mapping[str, Sequence[Sample]] | None = None,
    bits: Sequence[int] = BITS,
    encrypted: Sequence[str] | None = None,
    checks: Iterable[Check] | None = None,
    exceptions: Mapping[str, str] | None = None,
    registry: Registry | None = None,
    thin: bool = False,
) -> list[Trial]:
    """Every case of every check of a pack, in order; arguments and errors as for `run_checks`.

    Args:
        thin: not every check on every sample: see `testing.thinning`.
    """
    from fhe_core.testing.checks.all import CHECKS

    registry = registry_for(pack) if registry is None else registry
    info = find_pack(registry, pack)
    whole = whole_pack(registry, info)
    ops = operators(registry, info, samples=samples, bits=bits, encrypted=encrypted)
    chosen = CHECKS if checks is None else tuple(checks)
    declared = dict(exceptions or {})
    used = set()
    trials = []
    for check in chosen:
        for subject in (whole,) if check.scope == "pack" else ops:
            for case in check.cases(subject) if check.applies(subject) else ():
                trial = Trial(check, subject, case)
                key = next((key for key in trial.exception_keys if key in declared), None)
                used.add(key)
                trials.append(replace(trial, reason=declared[key]) if key else trial)
    if thin:
        trials = thinned(trials)
    left_out = {check.name for check in CHECKS} - {check.name for check in chosen}
    unused = [key for key in declared if key not in used and key.split("/")[0] not in left_out]
    if info.status == "loaded":  # where it is not, its operators are not there to be excused
        trials += [Trial(UNUSED_EXCEPTION, whole, key) for key in unused]
    return trials


def _refuse_exception(subject: Subject, case: str) -> None:
    raise CheckFailed(
        f"the exception {case!r} is declared, and there is no such case",
        expected="CHECK/OP or CHECK/OP/CASE, as in the ids of the tests",
        fix="correct or remove it",
    )


#: Not among the checks of a pack: it stands for a mistake in the list of exceptions.
UNUSED_EXCEPTION = Check(
    "exceptions", "every declared exception is one that exists.", _refuse_exception, scope="pack"
)


def run_checks(
    pack: str,
    *,
    samples: Mapping[str, Sequence[Sample]] | None = None,
    bits: Sequence[int] = BITS,
    encrypted: Sequence[str] | None = None,
    checks: Iterable[Check] | None = None,
    exceptions: Mapping[str, str] | None = None,
    registry: Registry | None = None,
) -> list[Outcome]:
    """Runs the checks on a pack.

    Args:
        pack: the name of its entry point.
        samples: inputs by operator, for custom domains and where ONNX's own cases are too few.
        bits: the widths, in bits, at which quantized operators are tried.
        encrypted: the operators of the encrypted run; by default every one that computes on integers, and
            one that never does.
        checks: all by default.
        exceptions: ``CHECK/OP`` or ``CHECK/OP/CASE`` to the reason why it is expected to fail. One
            that passes all the same, or that fits nothing, is a failure.
        registry: where the pack is looked for; that of `fhe_core.get_registry` by default.

    Raises:
        PackError: no such pack is installed; or ``samples``, ``encrypted`` name an op that it lacks.
    """
    trials = plan(
        pack,
        samples=samples,
        bits=bits,
        encrypted=encrypted,
        checks=checks,
        exceptions=exceptions,
        registry=registry,
    )
    return [_outcome(trial) for trial in trials]


def _outcome(trial: Trial) -> Outcome:
    place = trial.check.name, trial.subject.op, trial.case
    try:
        trial.run()
    except CheckSkipped as skip:
        return Outcome(*place, True, str(skip), skipped=True)
    except CheckFailed as failure:
        return Outcome(*place, trial.reason is not None, trial.reason or str(failure))
    if trial.reason is None:
        return Outcome(*place, True)
    return Outcome(*place, False, f"it passes; an exception says that it fails: {trial.reason}")
