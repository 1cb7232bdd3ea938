"""Optimisation passes over finished integer programs: in what order they run, and that they change no result.

Packs register the passes (`PassRegistrar.add_program`), each at a stage:

    exact       every input keeps its result. Repeated until none of them finds anything more
    calibrated  inputs keep their result where they do what the calibration data did
    final       every input keeps its result; run once, after all others
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.errors import PackError, Where
from fhe_core.program.interpreter import Interpreter
from fhe_core.program.nodes import Node
from fhe_core.program.program import Program
from fhe_core.program.remarks import Remark, lookups, place
from fhe_core.program.rewriting import rewritten

if TYPE_CHECKING:
    from fhe_core.registry import ProgramPass

#: What a caller may ask for: passes of all stages, those that are exact, or none.
CHOICES = ("all", "exact", "none")
#: One pass makes room for another; a few rounds were enough for every model that was seen.
_ROUNDS = 4
#: Samples on which a pass's results are compared.
_COMPARED = 32


@dataclass(frozen=True)
class PassContext:
    """What a pass over an integer program is told beside the program.

    Attributes:
        samples: integers of the calibration data for each input of the program, by its name: arrays
            shaped as the inputs, samples along the batch dimension.
    """

    samples: Mapping[str, NDArray[Any]]

    @staticmethod
    def rewrite(program: Program, change: Callable[[Node, Node], Node]) -> Program:
        """The program with other nodes; itself where none changes.

        Args:
            change: given a node of the program, and the same reading what became of its inputs, says what
                takes its place: an equal tensor, of its shape, width and signedness.
        """
        return rewritten(program, change)


def optimized(
    program: Program,
    passes: Iterable[ProgramPass],
    samples: Mapping[str, NDArray[Any]],
    *,
    calibrated: bool = True,
) -> tuple[Program, tuple[Remark, ...]]:
    """The program as the passes leave it, and their remarks.

    Args:
        program: complete, with widths and tables. It stays as it is.
        samples: integers of the calibration data, by input.
        calibrated: whether passes may rely on what holds on the calibration data, and perhaps not elsewhere.

    Raises:
        PackError: a pass fails, returns something else than a program and remarks, or changes a result.
    """
    by_stage: dict[str, list[ProgramPass]] = {}
    for each in passes:
        by_stage.setdefault(each.stage, []).append(each)
    run = _Run(program, PassContext(samples))
    run.until_settled(by_stage.get("exact", ()))
    for each in by_stage.get("calibrated", ()) if calibrated else ():
        if run.apply(each, exact=False):
            # Exact by itself, what follows from an assumption is not.
            run.until_settled(by_stage.get("exact", ()), exact=False)
    for each in by_stage.get("final", ()):
        run.apply(each)
    run.check_results()
    return run.program, tuple(run.remarks)


class _Run:
    """One run of the passes: the program so far, and what was remarked."""

    def __init__(self, program: Program, context: PassContext) -> None:
        self.program = program
        self.remarks: list[Remark] = []
        self._context = context
        self._steps: list[tuple[ProgramPass, Program, Program]] = []

    def until_settled(self, passes: Sequence[ProgramPass], *, exact: bool = True) -> None:
        for _ in range(_ROUNDS):
            found = len(self.remarks)
            for each in passes:
                self.apply(each, exact=exact)
            if len(self.remarks) == found:
                return

    def apply(self, each: ProgramPass, *, exact: bool = True) -> bool:
        """Runs one pass; whether it remarked anything."""
        before = self.program
        self.program, remarks = _checked(each, _called(each, before, self._context))
        if self.program is not before:
            self._steps.append((each, before, self.program))
        remarks = [*remarks, *_unreported(before, self.program, remarks)]
        self.remarks += remarks if exact else [replace(r, exact=False) for r in remarks]
        return bool(remarks)

    def check_results(self) -> None:
        """Compares results before and after all passes; where they differ, finds the pass."""
        if not self._steps or not self._context.samples:
            return
        first = self._steps[0][1]
        # Every tenth or so, not the first: data is often sorted.
        count = len(next(iter(self._context.samples.values())))
        step = max(1, count // _COMPARED)
        samples = {name: values[::step] for name, values in self._context.samples.items()}
        if _same(first, self.program, samples):
            return
        for each, before, after in self._steps:
            if not _same(before, after, samples):
                raise _error(each, "changes results of the integer program on calibration data")


def _same(before: Program, after: Program, samples: Mapping[str, NDArray[Any]]) -> bool:
    results = []
    for program in (before, after):
        names = [node.name for node in program.inputs]
        results.append(Interpreter(program)({name: samples[name] for name in names}))
    return all(np.array_equal(one, other) for one, other in zip(*results, strict=True))


def _called(each: ProgramPass, program: Program, context: PassContext) -> Any:
    try:
        return each.run(program, context)
    except Exception as error:
        text = " ".join(str(error).split())
        raise _error(each, f"raised {type(error).__name__}: {text}") from error


def _checked(each: ProgramPass, answer: Any) -> tuple[Program, list[Remark]]:
    if isinstance(answer, tuple) and len(answer) == 2:
        program, remarks = answer
        if isinstance(program, Program) and all(isinstance(r, Remark) for r in remarks):
            return program, list(remarks)
    raise _error(each, f"returned {type(answer).__name__}, not a program and its remarks")


def _error(each: ProgramPass, problem: str) -> PackError:
    return PackError(
        f"its pass {each.name!r} {problem}",
        where=Where(pack=each.origin.name),
        fix="report it to the pack's authors, or block the pack with FHE_PACKS_BLOCK",
    )


def _unreported(before: Program, after: Program, remarks: Sequence[Remark]) -> list[Remark]:
    """Look-ups that nothing reads any more since a pass left out others, and that went without a word."""
    if after is before:
        return []
    count = lookups(before) - lookups(after) - sum(remark.lookups for remark in remarks)
    if not count:
        return []
    left = Counter(place(node) for node in after.lookups)
    gone = Counter(place(node) for node in before.lookups) - left
    says = f"{count} look-ups are read by nothing any more"
    exact = all(remark.exact for remark in remarks)
    return [Remark("dead-code elimination", ", ".join(gone), count, says, exact)]
