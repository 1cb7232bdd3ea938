"""Damaged and forged folders: bytes, files, and documents whose hashes were made anew."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from fhe_core.cli.report import print_report
from fhe_core.compiler.folder import MANIFEST, digest_of

import fhe_core
from tests.fuzz.plans import mutated
from tests.fuzz.saved import X, saved

SHARE = 1

_DOCUMENTS = {
    "": ("model.json", "plan.json", "report.json"),
    "client": ("client.json", "specs.json"),
    "server": (),
}


def prepare() -> None:
    """What all cases share is made once."""
    saved()


def case(rng: np.random.Generator, folder: Path) -> None:
    """Loads a folder, and uses what it gives."""
    place = shutil.copytree(saved() / "model", folder / "model")
    part = ("", "client", "client", "client", "server")[rng.integers(5)]
    inside = place / part
    draw = rng.random()
    if _DOCUMENTS[part] and draw < 0.6:
        name = _DOCUMENTS[part][rng.integers(len(_DOCUMENTS[part]))]
        document = mutated(json.loads((inside / name).read_text()), rng)
        _sealed(inside, name, json.dumps(document).encode())
    else:
        files = sorted(path for path in inside.rglob("*") if path.is_file())
        file = files[rng.integers(len(files))]
        _damage(rng, file)
        if draw < 0.85 and file.is_file() and file.name != MANIFEST:
            _sealed(inside, file.relative_to(inside).as_posix(), file.read_bytes())
    _use(part, inside)


def _use(part: str, inside: Path) -> None:
    if part == "server":
        fhe_core.load_server(inside)
    elif part == "client":
        client = fhe_core.load_client(inside)
        client.load_keys((saved() / "secret_keys").read_bytes())
        client.encrypt(X[:2])
        client.decrypt((saved() / "results").read_bytes())
    else:
        print_report(inside, "table", None)
        print_report(inside, "md", inside.parent / "page.html")
        module = fhe_core.load(inside)
        module.forward(X[:2])
        module.forward(X[:2], fhe="simulate")
        module.save(inside.parent / "again")


def _sealed(inside: Path, name: str, data: bytes) -> None:
    """Writes a file, and the manifest as if it had been so when it was saved."""
    (inside / name).write_bytes(data)
    manifest: dict[str, Any] = json.loads((inside / MANIFEST).read_text())
    manifest["files"][name] = hashlib.sha256(data).hexdigest()
    manifest["manifest"] = digest_of(manifest)
    (inside / MANIFEST).write_text(json.dumps(manifest))


def _damage(rng: np.random.Generator, file: Path) -> None:
    data = bytearray(file.read_bytes())
    draw = rng.random()
    if draw < 0.1:
        file.unlink()
        (os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero"))[rng.integers(3)](file)
        return
    for _ in range(int(rng.integers(1, 4))):
        place = int(rng.integers(len(data) + 1))
        if draw < 0.6:
            data[place : place + 1] = bytes([int(rng.integers(256))])
        elif draw < 0.8:
            del data[place:]
        else:
            data[place:place] = rng.bytes(int(rng.integers(1, 100)))
    file.write_bytes(bytes(data))
