"""Puts a file or folder in its place at once: whoever looks finds the old one or the new one, whole.

What is new is made in a hidden folder beside the place, which its process holds a lock on. A process that was
killed holds none: what it left is removed by the next.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has none: nothing is locked there, and nothing taken for left
    fcntl = None  # type: ignore[assignment]

_SUFFIX = ".saving"
#: What had the place is moved here where two names cannot be exchanged at once.
_OLD = "old"
#: Of renameat2(2): the directory of relative names, and the flag to exchange two names.
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@contextmanager
def scratch_beside(place: Path) -> Iterator[Path]:
    """A new hidden folder, in the file system of ``place``. It is gone at the end.

    Raises:
        OSError: none can be made there.
    """
    _remove_left(place)
    scratch, lock = _locked(place)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        os.close(lock)


def put(fresh: Path, place: Path, scratch: Path) -> None:
    """Gives ``fresh``, which is in ``scratch``, the name ``place``. What had it is left in ``scratch``.

    Raises:
        OSError: it could not be done; then what was there still is.
    """
    if not os.path.lexists(place):
        fresh.rename(place)
    elif not _exchanged(fresh, place):
        old = scratch / _OLD
        place.rename(old)
        try:
            fresh.rename(place)
        except BaseException:
            old.rename(place)
            raise


def present(place: Path) -> Path:
    """Where what belongs at a place is.

    There; or moved away, with its folder perhaps, by a process that is about to replace it or was killed then.
    """
    if not os.path.lexists(place):
        for moved in (place, place.parent):
            for scratch in _scratches(moved):
                found = scratch / _OLD / place.relative_to(moved)
                if os.path.lexists(found):
                    return found
    return place


def _exchanged(one: Path, other: Path) -> bool:
    """Swaps two names, where the system can."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, TypeError):  # another system, or an old one
        return False
    names = (os.fsencode(one), os.fsencode(other))
    if rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):  # a file system that cannot
        return False
    raise OSError(number, os.strerror(number), str(other))


def _locked(place: Path) -> tuple[Path, int]:
    """A new scratch folder and the descriptor that its lock belongs to."""
    while True:
        made = tempfile.mkdtemp(prefix=f".{place.name}-", suffix=_SUFFIX, dir=place.parent)
        lock = os.open(made, os.O_RDONLY)
        if fcntl is not None:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(lock, fcntl.LOCK_EX)
        # Somebody may have taken it for left before it was locked.
        if os.path.isdir(made):
            return Path(made), lock
        os.close(lock)


def _scratches(place: Path) -> list[Path]:
    prefix = f".{place.name}-"
    try:
        names = os.listdir(place.parent)
    except OSError:
        return []
    return [place.parent / n for n in names if n.startswith(prefix) and n.endswith(_SUFFIX)]


def _remove_left(place: Path) -> None:
    """Removes the scratch folders of processes that are gone; what had the place goes back to it."""
    for scratch in _scratches(place):
        if fcntl is None or scratch.is_symlink():
            continue
        try:
            lock = os.open(scratch, os.O_RDONLY)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.lexists(place) and os.path.lexists(scratch / _OLD):
                (scratch / _OLD).rename(place)
            shutil.rmtree(scratch, ignore_errors=True)
        except OSError:
            pass  # somebody is at work in it, or this file system has no locks
        finally:
            os.close(lock)
