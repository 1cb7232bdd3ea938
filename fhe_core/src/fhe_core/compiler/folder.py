"""Folders of files with a manifest of hashes, written whole or not at all.

A circuit's archive holds native code, so nothing of a folder is read before every file's SHA-256 agrees
with the manifest. The manifest is not signed: it finds damage and careless edits. Who can write the folder
can write the manifest too, so load only from places you trust.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import math
import os
import zipfile
import zlib
from collections.abc import Container, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.errors import ArtifactError
from fhe_core.exchange import present, put, scratch_beside
from fhe_core.files import open_regular

FORMAT = 1
MANIFEST = "manifest.json"
#: What a folder may hold, and what its arrays may take in memory.
MOST_BYTES = 8 << 30
#: The same of a client's, which has no weights.
MOST_CLIENT_BYTES = 512 << 20
MOST_MANIFEST = 16 << 20
#: How often a folder is read that others replace meanwhile.
_TRIES = 100


def arrays_to_bytes(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Arrays as an .npz, without pickle."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **dict(arrays))
    return buffer.getvalue()


def arrays_from_bytes(data: bytes, *, most: int = MOST_BYTES) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz. Pickled objects are refused.

    Args:
        most: bytes that they may take in all: headers say so before anything is unpacked.

    Raises:
        ArtifactError: they would take more, or the file holds something else.
    """
    arrays: dict[str, NDArray[Any]] = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for member in archive.infolist():
            with archive.open(member) as file:
                most -= _declared(file, member)
                if most < 0:
                    raise ArtifactError(
                        f"the arrays would take more memory than a saved model's may, {member.filename!r} "
                        "among them",
                        got=f"{member.file_size} bytes there",
                        fix="do not load this folder",
                    )
            with archive.open(member) as file:
                array = np.lib.format.read_array(file, allow_pickle=False)
            arrays[member.filename.removesuffix(".npy")] = array
    return arrays


def _declared(file: IO[bytes], member: zipfile.ZipInfo) -> int:
    """The bytes that an .npy file says that its array has, which are those that it holds."""
    version = np.lib.format.read_magic(file)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in read:
        raise ValueError(f"{member.filename!r} is of an unknown version of .npy, {version}")
    shape, _, dtype = read[version](file)
    size = math.prod(shape) * dtype.itemsize
    if dtype.hasobject or min(shape, default=0) < 0 or size != member.file_size - file.tell():
        raise ValueError(f"{member.filename!r} does not hold the array that its header describes")
    return size


def manifest_of(kind: str, files: Mapping[str, bytes], details: Mapping[str, Any]) -> bytes:
    """A manifest: format, kind, hashes of the files and of itself, and anything else."""
    document = {
        "format": FORMAT,
        "kind": kind,
        **details,
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())},
    }
    return json.dumps({**document, "manifest": digest_of(document)}, indent=2).encode()


def digest_of(document: Mapping[str, Any]) -> str:
    """The SHA-256 of a manifest without its own."""
    rest = {name: value for name, value in document.items() if name != "manifest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def check_place(path: str | os.PathLike[str]) -> Path:
    """Where ``write_folder`` would write, links followed.

    Raises:
        ArtifactError: the place holds something that this package did not write.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not _replaceable(target):
        raise ArtifactError(
            f"{str(target)!r} exists and is no saved model, or holds other files too",
            expected="a new or empty folder, or one saved before",
            fix="choose another folder, or remove that one",
        )
    return target


def write_folder(path: str | os.PathLike[str], files: Mapping[str, bytes]) -> None:
    """Write all files beside the folder, then exchange the two: nobody sees half of them, or none.

    Raises:
        ArtifactError: see ``check_place``; or the place cannot be written.
    """
    try:
        target = check_place(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with scratch_beside(target) as scratch:
            fresh = scratch / "new"
            for name, data in files.items():
                place = fresh / name
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(data)
            put(fresh, target, scratch)
    except OSError as error:
        raise ArtifactError(
            f"{os.fspath(path)!r} cannot be written: {error.strerror or error}",
            fix="choose a folder that can be written",
        ) from error


def _replaceable(target: Path) -> bool:
    """An empty folder, or a saved model and nothing else. Stops at the first other thing."""
    if not target.is_dir():
        return False
    try:
        known: set[str] = set()
        if os.path.lexists(target / MANIFEST):
            document = json.loads(_contents(target / MANIFEST, MOST_MANIFEST))
            known = {MANIFEST, *document["files"]} if document["kind"] == "model" else set()
        folders = {str(parent) for name in known for parent in PurePosixPath(name).parents} | {"."}
        return all(
            entry.relative_to(target).as_posix() in (folders if is_folder else known)
            for entry, is_folder in _entries(target, folders)
        )
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return False


def _entries(target: Path, folders: Container[str]) -> Iterator[tuple[Path, bool]]:
    """What lies in a folder, and in those of its folders that are expected; and whether it is one."""
    left = [target]
    while left:
        with os.scandir(left.pop()) as found:
            for entry in found:
                path, is_folder = Path(entry.path), entry.is_dir(follow_symlinks=False)
                yield path, is_folder
                if is_folder and path.relative_to(target).as_posix() in folders:
                    left.append(path)


def _contents(place: Path, most: int) -> bytes:
    """A regular file's bytes.

    Raises:
        OSError: it is none, or longer than ``most`` bytes.
    """
    with open_regular(place) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise OSError(errno.EFBIG, f"it has {size} bytes, more than {most}", str(place))
        return file.read()


#: Which function loads which kind of folder.
_LOADERS = {
    "model": "fhe_core.load",
    "client": "fhe_core.load_client",
    "server": "fhe_core.load_server",
}


def read_folder(path: str | os.PathLike[str], kind: str) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The manifest and the verified files of a folder; read again if it is replaced meanwhile.

    Raises:
        ArtifactError: it is missing, of another kind or version, incomplete or changed.
    """
    folder = Path(path)
    for _ in range(_TRIES):
        before = _identity(folder)
        try:
            return _read(folder, kind)
        except ArtifactError as error:
            refusal = error
            if _identity(folder) == before:
                break
    raise refusal


def _identity(folder: Path) -> tuple[int, ...]:
    """What tells a folder from one that takes its place."""
    try:
        found = present(folder).stat()
    except (OSError, ValueError):
        return ()
    return found.st_dev, found.st_ino, found.st_ctime_ns


def _read(folder: Path, kind: str) -> tuple[dict[str, Any], dict[str, bytes]]:
    try:
        text = _contents(present(folder) / MANIFEST, MOST_MANIFEST)
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{str(folder)!r} is no saved {kind}: its {MANIFEST} cannot be read",
            expected=f"a folder written by save(), with {MANIFEST}",
            got=getattr(error, "strerror", None) or type(error).__name__,
            fix="give the folder that save() wrote",
        ) from error
    try:
        manifest = json.loads(text)
        version, found, files = manifest["format"], manifest["kind"], manifest["files"].items()
        if not isinstance(found, str) or not all(isinstance(digest, str) for _, digest in files):
            raise TypeError("its kind and the files' hashes are no strings")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ArtifactError(
            f"the {MANIFEST} in {str(folder)!r} is damaged",
            got=f"{type(error).__name__}: {error}",
            fix="copy the folder again, or save the model again",
        ) from error
    if version != FORMAT:
        raise ArtifactError(
            f"{str(folder)!r} has an unknown format",
            expected=f"format {FORMAT}",
            got=f"format {version!r}",
            fix="load it with the version of fhe-core that saved it, or save the model again",
        )
    if manifest.get("manifest") != digest_of(manifest):
        raise ArtifactError(
            f"the {MANIFEST} in {str(folder)!r} was changed after it was saved",
            fix="copy the folder again, or save the model again",
        )
    if found != kind:
        inside = f", or give its {kind}/ folder" if found == "model" else ""
        raise ArtifactError(
            f"{str(folder)!r} is a saved {found}, not a {kind}",
            expected=kind,
            got=str(found),
            fix=f"use {_LOADERS.get(found, 'another version of fhe-core')}{inside}",
        )
    left = MOST_BYTES if kind != "client" else MOST_CLIENT_BYTES
    verified: dict[str, bytes] = {}
    for name, digest in files:
        verified[name] = _verified(folder, name, digest, left)
        left -= len(verified[name])
    return manifest, verified


def _verified(folder: Path, name: str, digest: str, most: int) -> bytes:
    place = present(folder) / name
    if ".." in Path(name).parts or Path(name).is_absolute() or _leads_out(place, present(folder)):
        raise ArtifactError(
            f"the {MANIFEST} in {str(folder)!r} names {name!r}, which lies outside the folder",
            fix="do not load this folder",
        )
    try:
        data = _contents(place, most)
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{str(folder / name)!r} is missing or unreadable",
            got=getattr(error, "strerror", None) or str(error),
            fix="copy the whole folder, or save the model again",
        ) from error
    if hashlib.sha256(data).hexdigest() != digest:
        raise ArtifactError(
            f"{str(folder / name)!r} was changed after it was saved",
            expected=f"SHA-256 {str(digest)[:12]}...",
            got=f"{hashlib.sha256(data).hexdigest()[:12]}...",
            fix="copy the folder again, or save the model again; do not load files of unknown origin",
        )
    return data


def _leads_out(place: Path, folder: Path) -> bool:
    """Whether a link leads from inside a folder to somewhere else."""
    try:
        return not place.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):
        return False  # then it cannot be read either


def checked_zip(data: bytes, name: str) -> bytes:
    """``data``, if it is a whole zip archive whose members stay inside.

    Raises:
        ArtifactError: it is not.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
            size = sum(member.file_size for member in archive.infolist())
            broken = size > MOST_BYTES or archive.testzip()
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        RuntimeError,
        ValueError,
        OSError,
        zlib.error,
    ) as error:
        raise ArtifactError(
            f"{name!r} is no zip archive, or damaged", got=str(error), fix="save the model again"
        ) from error
    if broken or any(".." in Path(n).parts or Path(n).is_absolute() for n in names):
        raise ArtifactError(f"{name!r} is damaged", fix="save the model again")
    return data
