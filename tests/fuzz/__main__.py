"""Runs many cases in processes of their own: ``python -m tests.fuzz --cases 100000``.

Exit code 1 if any case failed; each is printed with the arguments that repeat it.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

import fhe_core
from tests.fuzz.cases import KINDS, SECONDS, Case, Verdict, bound_memory, judge, module_of

_BATCH = 200  # cases of one process: what leaks, or what a case breaks, ends with it
_PATIENCE = 15 * SECONDS  # of wall time, for what neither ends nor computes


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=100_000, help="over all kinds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=KINDS, action="append", help="this kind alone")
    parser.add_argument("--only", type=int, help="the one case of this number")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args(arguments)
    kinds = given.kind or KINDS
    if given.only is not None:
        cases = [Case(given.seed, kind, given.only) for kind in kinds]
    else:
        cases = list(_spread(given.seed, kinds, given.cases))
    outcomes: dict[str, Counter[str]] = {kind: Counter() for kind in kinds}
    slowest: dict[str, tuple[float, Case]] = {}
    failures = 0
    begun = time.monotonic()
    for done, (case, verdict) in enumerate(_judged(cases, given.jobs), 1):
        outcomes[case.kind][verdict.outcome] += 1
        slowest[case.kind] = max(
            slowest.get(case.kind, (0.0, case)), (verdict.seconds, case), key=lambda pair: pair[0]
        )
        if verdict.failure:
            failures += 1
            print(f"{case}: {verdict.outcome}: {verdict.failure}", flush=True)
        if done % 1000 == 0:
            print(f"{done} cases, {failures} failed, {time.monotonic() - begun:.0f} s", flush=True)
    for kind, counted in outcomes.items():
        listed = ", ".join(f"{count} {outcome}" for outcome, count in counted.most_common())
        print(f"{kind}: {listed or 'none'}")
        if kind in slowest:
            seconds, case = slowest[kind]
            print(f"  slowest: {seconds:.1f} s of processor time, {case}")
    print(f"{len(cases)} cases, {failures} failed")
    return 1 if failures else 0


def _spread(seed: int, kinds: Iterable[str], total: int) -> Iterator[Case]:
    """Cases of all kinds by their shares, in batches of one kind."""
    for name in fhe_core.__all__:
        getattr(fhe_core, name)  # loads what is behind it
    modules = {kind: module_of(kind) for kind in kinds}
    for module in modules.values():
        # Before processes part: what a kind needs is loaded once.
        getattr(module, "prepare", lambda: None)()
    shares = {kind: module.SHARE for kind, module in modules.items()}
    whole = sum(shares.values())
    for kind, share in shares.items():
        yield from (Case(seed, kind, number) for number in range(-(-total * share // whole)))


def _judged(cases: Sequence[Case], jobs: int) -> Iterator[tuple[Case, Verdict]]:
    """Every case with its verdict, as they come. A process that dies is a verdict on its case."""
    waiting = iter([cases[i : i + _BATCH] for i in range(0, len(cases), _BATCH)])
    left: list[Sequence[Case]] = []  # of batches whose process has died
    working: dict[Connection, _Worker] = {}
    while True:
        while len(working) < jobs:
            batch = left.pop() if left else next(waiting, None)
            if batch is None:
                break
            worker = _Worker(batch)
            working[worker.pipe] = worker
        if not working:
            return
        for ready in wait(list(working), timeout=1.0):
            worker = working[ready]  # type: ignore[index]
            try:
                yield worker.receive()
            except EOFError:
                del working[worker.pipe]
                if worker.case is not None:
                    yield worker.case, worker.death()
                    left.append(worker.rest)
        for worker in working.values():
            worker.end_if_stuck()


class _Worker:
    """A process that judges a batch of cases, and where it is in them."""

    def __init__(self, batch: Sequence[Case]) -> None:
        self.pipe, inner = multiprocessing.Pipe(duplex=False)
        self._process = multiprocessing.get_context("fork").Process(
            target=_judge_all, args=(batch, inner)
        )
        self._process.start()
        inner.close()
        self._batch, self._done, self._begun, self._stuck = batch, 0, time.monotonic(), False

    @property
    def case(self) -> Case | None:
        """The case that it is at; None at the end."""
        return next(itertools.islice(self._batch, self._done, None), None)

    @property
    def rest(self) -> Sequence[Case]:
        """What comes after that."""
        return self._batch[self._done + 1 :]

    def receive(self) -> tuple[Case, Verdict]:
        verdict = self.pipe.recv()
        case = self._batch[self._done]
        self._done, self._begun = self._done + 1, time.monotonic()
        return case, verdict

    def death(self) -> Verdict:
        self._process.join()
        if self._stuck:
            return Verdict("hung", f"no end within {_PATIENCE} s, and no signal reached it")
        return Verdict("died", f"the process ended with exit code {self._process.exitcode}")

    def end_if_stuck(self) -> None:
        if time.monotonic() - self._begun > _PATIENCE:
            self._stuck = True
            self._process.kill()


def _judge_all(batch: Sequence[Case], pipe: Any) -> None:
    bound_memory()
    # What a case prints would be mixed with what is printed of it.
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    for case in batch:
        pipe.send(judge(case))


if __name__ == "__main__":
    sys.exit(main())
