"""Standard streams that nobody reads, or that are closed, do not change the answer.

``fhe-ops check MODEL | head -1`` is asked for its exit code too, and that tells of the model, not of
the pipe.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Any, TextIO

_STREAMS = ((1, "stdout"), (2, "stderr"))


class _Writer(io.FileIO):
    """A file whose reader may go away: what is written then is lost, as it would be anyway.

    What keeps it from being written otherwise, such as a full disk, is said once.
    """

    _lost = False

    def write(self, data: Any) -> int:
        if not self._lost:
            try:
                return super().write(data)
            except BrokenPipeError:
                self._lost = True
            except OSError:
                self._lost = True  # Python writes what is left again when it ends.
                raise
        return memoryview(data).nbytes


def install() -> None:
    """Makes the process's own standard output and error forgiving; what replaced them is left alone."""
    for descriptor, name in _STREAMS:
        stream = getattr(sys, name)
        if stream is None:
            # Closed by the shell. The next file opened would take the number, and be printed into.
            _open_nothing(descriptor)
            setattr(sys, name, _text(descriptor, "utf-8", "replace", False))
        elif stream is getattr(sys, f"__{name}__") and isinstance(stream, io.TextIOWrapper):
            stream.flush()
            kept = stream.encoding, stream.errors or "strict", stream.line_buffering
            setattr(sys, name, _text(descriptor, *kept))


def _text(descriptor: int, encoding: str, errors: str, line_buffering: bool) -> TextIO:
    raw = io.BufferedWriter(_Writer(descriptor, "wb", closefd=False))
    return io.TextIOWrapper(raw, encoding, errors, line_buffering=line_buffering)


def _open_nothing(descriptor: int) -> None:
    found = os.open(os.devnull, os.O_WRONLY)
    if found != descriptor:
        os.dup2(found, descriptor)
        os.close(found)
