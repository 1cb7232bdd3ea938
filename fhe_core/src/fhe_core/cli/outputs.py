"""What the command line writes: beside its place, then renamed. Nothing half-written is left."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fhe_core.errors import ArtifactError, FheError, InputError
from fhe_core.exchange import put, scratch_beside
from fhe_core.files import irregular

# A saved model has these; --force replaces such a folder and no other.
PARTS = ("client", "server", "manifest.json")


def check_folder(path: Path, *, force: bool) -> None:
    """Raises before the work begins what would keep a model from being saved.

    Raises:
        ArtifactError: the place is taken, or cannot be written.
    """
    if path.is_mount():
        raise ArtifactError(
            f"{str(path)!r} is a mount point, which cannot be renamed",
            fix=f"choose a folder in it, such as {str(path / 'model')!r}",
        )
    if path.is_dir():
        held = sorted(entry.name for entry in path.iterdir())
        if held and not force:
            raise ArtifactError(
                f"{str(path)!r} is not empty",
                expected="a new or an empty folder",
                got=_some(held),
                fix="choose another folder, or replace this one with --force",
            )
        if held and not set(PARTS) <= set(held):
            raise ArtifactError(
                f"{str(path)!r} is not a saved model, and --force replaces nothing else",
                expected=f"a folder with {', '.join(PARTS)}",
                got=_some(held),
                fix="choose another folder, or empty this one yourself",
            )
    elif os.path.lexists(path):
        raise ArtifactError(f"{str(path)!r} is not a folder", fix="choose another name")
    check_writable(path, ArtifactError)


def check_file(path: Path) -> None:
    """Raises before the work begins what would keep an ``.npz`` file from being written.

    Raises:
        InputError: another suffix, a folder, or a place that cannot be written.
    """
    if path.suffix != ".npz":
        raise InputError(
            f"the output {str(path)!r} is not called .npz",
            expected="the name of an .npz file, which holds an array for each output",
            fix=f"call it {str(path.with_suffix('.npz'))!r}" if path.name else "give it a name",
        )
    check_replaceable(path)


def check_replaceable(path: Path) -> None:
    """Raises before the work begins what would keep a file from being written, or replaced.

    Raises:
        InputError: a folder, a pipe or a device, links in a circle, or a place that cannot be written.
    """
    what = "a folder" if os.path.isdir(path) else irregular(path)
    if what is None and os.path.islink(os.path.realpath(path)):
        what = "a link that leads back to itself"
    if what is not None:
        raise InputError(
            f"the output {str(path)!r} is {what}",
            expected="a new file, or one to replace",
            fix="choose another name",
        )
    check_writable(path, InputError)


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A file's name to write to: it takes the place of ``path`` if the body ends well.

    Raises:
        InputError: see `check_replaceable`. A rename would put a file where a device was.
    """
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    with scratch_beside(path) as scratch:
        temporary = scratch / path.name
        yield temporary
        check_replaceable(path)
        temporary.replace(path)


@contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """A new folder's name: it takes the place of ``path``, and of all in it, if all goes well."""
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    with scratch_beside(path) as scratch:
        temporary = scratch / path.name
        yield temporary
        put(temporary, path, scratch)


def check_writable(path: Path, error: type[FheError]) -> None:
    """Raises ``error`` if nothing can be made at a path."""
    parent = Path(os.path.realpath(path)).parent
    while not os.path.lexists(parent):
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise error(
            f"{str(path)!r} cannot be written: {str(parent)!r} is "
            + ("read-only" if parent.is_dir() else "not a folder"),
            fix="choose another place",
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
