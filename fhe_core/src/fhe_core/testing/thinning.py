"""Fewer trials that still bring every pair of operator and law, and of case and some law, together.

An operator with five samples and nine laws about each makes 45 trials. What such a law finds, it finds on the
operator, hardly ever on one sample alone: so each law takes the samples in turn, beginning with another one for
each operator.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING
from zlib import crc32

if TYPE_CHECKING:
    from fhe_core.testing.running import Trial


def thinned(trials: Iterable[Trial]) -> list[Trial]:
    """Those to keep, in their order.

    Kept are all trials of checks that compare results with another's (``judges``), that encrypt, or that are
    expected to fail; of the others, checks that have the same cases of an operator share these among them.
    """
    trials = list(trials)
    kept: set[int] = set()
    cases: dict[tuple[str, str], dict[str, int]] = {}
    for index, trial in enumerate(trials):
        if trial.check.judges or trial.check.encrypts or trial.reason is not None:
            kept.add(index)
        else:
            cases.setdefault((trial.subject.op, trial.check.name), {})[trial.case] = index
    sharing: dict[tuple[str, tuple[str, ...]], list[Sequence[int]]] = {}
    for (op, _), places in cases.items():
        sharing.setdefault((op, tuple(places)), []).append(tuple(places.values()))
    for (op, names), checks in sharing.items():
        first = crc32(op.encode())
        for turn in range(max(len(checks), len(names))):
            kept.add(checks[turn % len(checks)][(first + turn) % len(names)])
    return [trial for index, trial in enumerate(trials) if index in kept]
