"""Around calls into Concrete: what its threads and its handling of signals do to the process."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fhe_core.compiler.concrete_backend.installation import concrete
from fhe_core.compiler.concrete_backend.interrupts import interrupts_kept_back
from fhe_core.errors import ProcessError


class _Process:
    """This process: whether Concrete's threads were started in it, and whether it has lost them."""

    started = False
    orphaned = False


def _parted() -> None:
    # A fork has the memory of its parent and none of its threads: what waits for one waits for ever.
    _Process.orphaned |= _Process.started


os.register_at_fork(after_in_child=_parted)


@contextmanager
def native(*, threads: bool = False) -> Iterator[Any]:
    """``concrete.fhe``, for a call into it.

    An interrupt (Ctrl-C) is kept back until the call is over: see ``interrupts``. Threads that Concrete starts
    meanwhile keep it back for good, so that it reaches one of Python's.

    Args:
        threads: the call starts threads, unless an earlier one has.

    Raises:
        ProcessError: this process was forked from one in which there are such threads.
        CompilationError: concrete-python is not installed, or does not load.
    """
    if _Process.orphaned:
        raise ProcessError(
            "this process was forked from one that had made keys or run a circuit: Concrete's threads are not "
            "in it, and it would wait for them for ever",
            expected="a process of its own, or one that was forked before",
            got=f"process {os.getpid()}, forked from {os.getppid()}",
            fix="use multiprocessing.get_context('spawn'), or fork before the first key",
        )
    fhe = concrete()
    with interrupts_kept_back():
        _Process.started |= threads
        yield fhe


class Folders:
    """The temporary folders that Concrete makes for circuits, and leaves."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    def belong_to(self, server: Any) -> None:
        """Remove them when a circuit goes, and not before."""
        for path in self.paths:
            weakref.finalize(server, shutil.rmtree, path, ignore_errors=True)
        self.paths.clear()


class _Making(threading.local):
    """Those that are made in this thread, as long as somebody asks."""

    folders: Folders | None = None


_making = _Making()


class _Tempfile:
    """The module ``tempfile``, as far as Concrete's server uses it."""

    TemporaryDirectory = tempfile.TemporaryDirectory

    @staticmethod
    def mkdtemp(*arguments: Any, **keywords: Any) -> str:
        path = tempfile.mkdtemp(*arguments, **keywords)
        if _making.folders is not None:
            _making.folders.paths.append(path)
        return path


@contextmanager
def made_folders() -> Iterator[Folders]:
    """Removes the folders that Concrete makes meanwhile, unless they belong to a circuit by then."""
    from concrete.fhe.compilation import server

    server.tempfile = _Tempfile
    _making.folders = folders = Folders()
    try:
        yield folders
    finally:
        _making.folders = None
        for path in folders.paths:
            shutil.rmtree(path, ignore_errors=True)
