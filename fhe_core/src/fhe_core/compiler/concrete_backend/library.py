"""What keeps a shared library from being loaded, tried in another process: a damaged one may end it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_OPEN = "import ctypes, sys; ctypes.CDLL(sys.argv[1])"
_SECONDS = 60


def library_problem(path: Path) -> str:
    """What is wrong with a shared library; nothing if it can be loaded, or nobody can tell."""
    try:
        tried = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _OPEN, str(path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return ""  # no other process can be started here
    if tried.returncode == 0:
        return ""
    lines = tried.stderr.decode(errors="replace").strip().splitlines()
    said = lines[-1].replace(str(path), path.name) if lines else f"exit code {tried.returncode}"
    return f"{path.name} is no shared library, or damaged ({said[:200]})"
