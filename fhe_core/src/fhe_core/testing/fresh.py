"""Python code in a process of its own, which sees the same packages as this one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from fhe_core.registry.packs import STRICT
from fhe_core.testing.checks import CheckFailed

_PREFACE = (
    "import json, sys\narguments = json.loads(sys.argv[1])\nsys.path[:] = arguments['path']\n"
)


def run_fresh(code: str, *, environment: dict[str, str] | None = None, **arguments: Any) -> Any:
    """What a fresh process says.

    Args:
        code: it finds ``arguments``, a dict, and prints one line of JSON, its last.
        environment: variables to set in it. What stops it at a failed pack is never set.
        arguments: what JSON can hold.

    Raises:
        CheckFailed: the process failed; with the end of what it said.
    """
    inherited = {name: value for name, value in os.environ.items() if name != STRICT}
    given = json.dumps({"path": sys.path, **arguments})
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _PREFACE + code, given],
        env={**inherited, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise CheckFailed(
            "a fresh process that loads the packs failed",
            got=" / ".join(result.stderr.strip().splitlines()[-3:]),
            fix="run `fhe-ops packs` in a terminal to see why",
        )
    return json.loads(result.stdout.strip().splitlines()[-1])
