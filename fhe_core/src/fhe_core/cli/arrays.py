"""Arrays in ``.npy`` and ``.npz`` files: read without trust, written whole or not at all."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from fhe_core.cli.outputs import beside
from fhe_core.errors import FheError
from fhe_core.files import open_regular

Array = NDArray[Any]

_WRITE_AGAIN = "write it again with numpy.save or numpy.savez"


def read_arrays(given: str, error: type[FheError], what: str) -> dict[str, Array]:
    """The arrays of a file by name; that of an ``.npy`` file has the name "".

    The content decides what the file is, not its name. Pickled objects are refused: to load them is
    to run code.

    Args:
        given: a path; or ``FILE.npz:NAME`` for one array of several, which is then called "".
        error: what to raise.
        what: the file's part in this, such as "the calibration data".

    Raises:
        error: missing, unreadable, empty, truncated, of another format, or with pickled objects.
    """
    path, wanted = _split(given)
    try:
        with open_regular(path) as file:
            magic = file.read(6)
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise error(
            f"{what} {str(path)!r} cannot be read: {reason}",
            expected="a NumPy .npy or .npz file",
            fix="check the path",
        ) from problem
    if not magic.startswith((npy.MAGIC_PREFIX, b"PK")):
        raise error(
            f"{what} {str(path)!r} is not a NumPy file",
            expected="a .npy or .npz file",
            got=_looks(path),
            fix="convert it with numpy.save or numpy.savez",
        )
    try:
        arrays = _load(path)
    except Exception as problem:  # a damaged header can raise anything
        pickled = "pickle" in str(problem)
        raise error(
            f"{what} {str(path)!r} holds Python objects"
            if pickled
            else f"{what} {str(path)!r} is truncated or damaged",
            expected="plain numbers" if pickled else "a whole .npy or .npz file",
            got=None if pickled else f"{type(problem).__name__}: {problem}",
            fix="convert it to a numeric dtype, as in x.astype('float32'), and save it again"
            if pickled
            else _WRITE_AGAIN,
        ) from problem
    if not arrays:
        raise error(f"{what} {str(path)!r} holds no arrays", fix=_WRITE_AGAIN)
    if not wanted:
        return arrays
    if wanted not in arrays:
        raise error(
            f"{what} {str(path)!r} holds no array called {wanted!r}",
            expected=", ".join(map(repr, arrays)),
            fix="choose one of them",
        )
    return {"": arrays[wanted]}


def read_one(given: str, error: type[FheError], what: str) -> Array:
    """The only array of a file.

    Raises:
        error: as for `read_arrays`, or the file holds several.
    """
    arrays = read_arrays(given, error, what)
    if len(arrays) > 1:
        raise error(
            f"{what} {given!r} holds {len(arrays)} arrays",
            expected="one array",
            got=", ".join(map(repr, arrays)),
            fix=f"choose one, as in {given}:{next(iter(arrays))}",
        )
    return next(iter(arrays.values()))


def positional(arrays: Mapping[str, Array]) -> tuple[Array, ...] | None:
    """The arrays in order where their names say nothing: one alone, or numpy.savez's arr_0, ..."""
    unnamed = [f"arr_{number}" for number in range(len(arrays))]
    if len(arrays) == 1:
        return tuple(arrays.values())
    return tuple(arrays[name] for name in unnamed) if set(unnamed) == set(arrays) else None


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Writes an ``.npz`` file, in the place of one that was there, whole or not at all."""
    with beside(path) as temporary, zipfile.ZipFile(temporary, "x") as archive:
        # Not numpy.savez: an output may be called "file", which is that function's own argument.
        for name, array in arrays.items():
            plain = array.astype(str) if array.dtype == object else array
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                npy.write_array(member, np.asanyarray(plain), allow_pickle=False)


def _split(given: str) -> tuple[Path, str]:
    """A path, and the name after ``.npz:`` unless there is such a file."""
    match = re.fullmatch(r"(.+\.npz):(.+)", given, re.DOTALL)
    if match is None or os.path.exists(given):
        return Path(given), ""
    return Path(match[1]), match[2]


def _load(path: Path) -> dict[str, Array]:
    # Opened here: numpy.load leaves a file open that turns out to be no archive.
    with open_regular(path) as file:
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"": loaded}
        with loaded:
            arrays = {name: loaded[name] for name in loaded.files}
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):  # another kind of zip: NumPy hands out its bytes
            raise ValueError(f"the member {name!r} is no array")
    return arrays


def _looks(path: Path) -> str:
    with open_regular(path) as file:
        head = file.read(64)
    if not head:
        return "an empty file"
    if head[0] == 0x80 and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "a Python pickle"
    return "text" if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head) else "binary data"
