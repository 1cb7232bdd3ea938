"""Folders of files with a manifest of hashes, written whole or not at all.

A circuit's archive holds native code, so nothing of a folder is read before every file's SHA-256 agrees
with the manifest. The manifest is not signed: it finds damage and careless edits. Who can write the folder
can write the manifest too, so load only from places you trust.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.errors import ArtifactError

FORMAT = 1
MANIFEST = "manifest.json"


def arrays_to_bytes(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Arrays as an .npz, without pickle."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **dict(arrays))
    return buffer.getvalue()


def arrays_from_bytes(data: bytes) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz. Pickled objects are refused."""
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


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
    """Write all files beside the folder, then rename: nobody sees half of them.

    A folder written before is moved away first, and back if anything fails.

    Raises:
        ArtifactError: see ``check_place``; or the place cannot be written.
    """
    target = check_place(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as beside:
            fresh = Path(beside) / "new"
            for name, data in files.items():
                place = fresh / name
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(data)
            _swap(fresh, target, Path(beside) / "old")
    except OSError as error:
        raise ArtifactError(
            f"{str(target)!r} cannot be written: {error.strerror or error}",
            fix="choose a folder that can be written",
        ) from error


def _replaceable(target: Path) -> bool:
    """Whether ``target`` is an empty folder, or a saved model and nothing else."""
    if not target.is_dir():
        return False
    found = {
        place.relative_to(target).as_posix()
        for place in target.rglob("*")
        if place.is_symlink() or not place.is_dir()
    }
    if not found:
        return True
    try:
        document = json.loads((target / MANIFEST).read_text(encoding="utf-8"))
        return bool(document["kind"] == "model" and found <= {MANIFEST, *document["files"]})
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return False


def _swap(fresh: Path, target: Path, old: Path) -> None:
    if not target.exists():
        fresh.rename(target)
        return
    target.rename(old)
    try:
        fresh.rename(target)
    except BaseException:
        old.rename(target)
        raise


#: Which function loads which kind of folder.
_LOADERS = {
    "model": "fhe_core.load",
    "client": "fhe_core.load_client",
    "server": "fhe_core.load_server",
}


def read_folder(path: str | os.PathLike[str], kind: str) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The manifest and the verified files of a folder.

    Raises:
        ArtifactError: it is missing, of another kind or version, incomplete or changed.
    """
    folder = Path(path)
    try:
        text = (folder / MANIFEST).read_text(encoding="utf-8")
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
    return manifest, {name: _verified(folder, name, digest) for name, digest in files}


def _verified(folder: Path, name: str, digest: str) -> bytes:
    place = folder / name
    if ".." in Path(name).parts or Path(name).is_absolute():
        raise ArtifactError(
            f"the {MANIFEST} in {str(folder)!r} names {name!r}, which lies outside the folder",
            fix="do not load this folder",
        )
    try:
        data = place.read_bytes()
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{str(place)!r} is missing or unreadable",
            got=getattr(error, "strerror", None) or str(error),
            fix="copy the whole folder, or save the model again",
        ) from error
    if hashlib.sha256(data).hexdigest() != digest:
        raise ArtifactError(
            f"{str(place)!r} was changed after it was saved",
            expected=f"SHA-256 {str(digest)[:12]}...",
            got=f"{hashlib.sha256(data).hexdigest()[:12]}...",
            fix="copy the folder again, or save the model again; do not load files of unknown origin",
        )
    return data


def checked_zip(data: bytes, name: str) -> bytes:
    """``data``, if it is a whole zip archive whose members stay inside.

    Raises:
        ArtifactError: it is not.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
            broken = archive.testzip()
    except zipfile.BadZipFile as error:
        raise ArtifactError(f"{name!r} is no zip archive", fix="save the model again") from error
    if broken or any(".." in Path(n).parts or Path(n).is_absolute() for n in names):
        raise ArtifactError(f"{name!r} is damaged", fix="save the model again")
    return data
