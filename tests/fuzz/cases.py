"""One damaged input, and what may become of it: an answer or a typed error, in bounded time and memory.

A kind is a module of this folder, named in `KINDS`::

    SHARE = 4                    # of all cases, relative to the other kinds
    def prepare(): ...           # optional: what is loaded once, before processes part
    def case(rng, folder): ...   # makes one case, and gives it to the library

``case`` draws everything from ``rng`` and writes only into ``folder``, which is empty. It may return,
or raise an FheError; what it may not is raise anything else, take longer than `SECONDS` or more memory
than `BYTES`, or end its process. What is wrong otherwise it says by an AssertionError.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import resource
import signal
import tempfile
import traceback
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from fhe_core import FheError

SECONDS = 20  # of processor time
BYTES = 6 << 30

#: The kinds, each a module here.
KINDS = ("structure", "meaning", "octets", "arguments", "plans", "artifacts", "messages", "saving")


@dataclass(frozen=True)
class Case:
    """The seed, the kind and the number of a case: they decide everything in it."""

    seed: int
    kind: str
    number: int

    def __str__(self) -> str:
        return f"--seed {self.seed} --kind {self.kind} --only {self.number}"


@dataclass(frozen=True)
class Verdict:
    """What became of a case: a label to count by; and if that was wrong, what happened."""

    outcome: str
    failure: str = ""
    seconds: float = 0.0


class OutOfTime(BaseException):
    """Not an Exception: nothing between the case and here may take it for a failure of its own."""


def module_of(kind: str) -> ModuleType:
    """The module of a kind."""
    return importlib.import_module(f"tests.fuzz.{kind}")


def judge(case: Case) -> Verdict:
    """Runs a case in this process."""
    rng = np.random.default_rng([case.seed, zlib.crc32(case.kind.encode()), case.number])
    begun = _processor_time()

    def verdict(outcome: str, failure: str = "") -> Verdict:
        return Verdict(outcome, failure, _processor_time() - begun)

    try:
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder, _inside(Path(folder)):
            # Loaded outside the time of the case: the first of a kind would pay for all.
            run = module_of(case.kind).case
            with _limited():
                run(rng, Path(folder))
    except FheError as error:
        return _typed(error, verdict)
    except OutOfTime as error:
        return verdict("out of time", _last_calls(error))
    except BaseException as error:  # noqa: BLE001 - that is what is looked for
        return verdict(f"UNTYPED {type(error).__name__}", _last_calls(error))
    return verdict("returned")


def _typed(error: FheError, verdict: Any) -> Verdict:
    text = str(error)
    if "\n" in text or "Traceback" in text:
        return verdict("message of several lines", repr(text))
    return verdict(type(error).__name__)


def bound_memory() -> None:
    """Limits what this process may take, for good."""
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        os.chdir(before)


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    def stop(number: int, frame: Any) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _processor_time() -> float:
    times = os.times()
    return times.user + times.system


def _last_calls(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    where = " > ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in frames)
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]} at {where}"
