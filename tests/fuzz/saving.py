"""Saves that are killed at some moment: the model before is there, or the one that was being saved."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
from fhe_core.compiler.folder import MANIFEST, manifest_of, read_folder, write_folder

from fhe_core import exchange

SHARE = 1

_EXCHANGED = exchange._exchanged


def case(rng: np.random.Generator, folder: Path) -> None:
    """Kills a process that saves again and again, reads what is there, and saves over it."""
    place, parts = folder / "model", int(rng.integers(1, 6))
    write_folder(place, _files(0, parts))
    exchange._exchanged = _EXCHANGED if rng.random() < 0.7 else _cannot
    saver = os.fork()
    if saver == 0:
        number = 0
        while True:
            number += 1
            write_folder(place, _files(number, parts))
    time.sleep(float(rng.uniform(0, 0.02)))
    for _ in range(3):
        assert len(set(read_folder(place, "model")[1].values())) == 1, "read during a save"
    os.kill(saver, signal.SIGKILL)
    os.waitpid(saver, 0)
    assert len(set(read_folder(place, "model")[1].values())) == 1, "after the kill"
    write_folder(place, _files(0, parts))
    assert os.listdir(folder) == ["model"], "what was left"


def _files(number: int, parts: int) -> dict[str, bytes]:
    files = {f"part{i}/file": bytes([number % 256]) * 1000 for i in range(parts)}
    return {**files, MANIFEST: manifest_of("model", files, {})}


def _cannot(one: Path, other: Path) -> bool:
    """A file system that does not exchange two names."""
    return False
