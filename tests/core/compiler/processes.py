"""Other Python processes, in which some packages cannot be imported."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
"""
PACKS = ("fhe_ops_std", "fhe_ops_contrib")


@contextmanager
def started(
    code: str, folder: Path, *, blocked: tuple[str, ...] = ()
) -> Iterator[subprocess.Popen[str]]:
    """A process that runs ``code`` in ``folder``. It is gone when the body ends."""
    environment = {**os.environ, "FHE_PACKS_BLOCK": "std,contrib" if blocked == PACKS else ""}
    with subprocess.Popen(
        [sys.executable, "-c", _BLOCKED.format(blocked=blocked) + code],
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[str], last_words: str = "") -> None:
    """Wait until the process is done, without complaint."""
    _, complaints = process.communicate(last_words, timeout=120)
    assert process.returncode == 0, complaints
    assert not complaints, complaints


def run(code: str, folder: Path, *, blocked: tuple[str, ...] = ()) -> None:
    """Run ``code`` in ``folder`` to its end."""
    with started(code, folder, blocked=blocked) as process:
        ended(process)
