"""Files that are what their names promise: no pipe that never ends, no device that is replaced."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


def open_regular(path: Path) -> BinaryIO:
    """A file, opened for reading in binary.

    A pipe without a writer would keep its reader waiting for ever, and a device need have no end.

    Raises:
        OSError: it does not exist, may not be read, or is no regular file; the class for a folder
            is IsADirectoryError.
        ValueError: no file can have that name.
    """
    # O_NONBLOCK: a pipe is opened at once, and seen to be one.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, f"it is {_kind(mode)}, not a regular file", str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def irregular(path: Path) -> str | None:
    """What a path is if it is there and neither a regular file nor a folder: ``a pipe``, ``a device``.

    Links are followed.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return None  # nothing is there, or nothing can be
    return None if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else _kind(mode)


def _kind(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "a pipe"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"
