"""How long ``import fhe_core`` and ``fhe-ops list`` take, and what they import."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from printing import heading, note, show
from results import Target, at_most, keep

RUNS = 7
IMPORT_SECONDS = 0.15
LIST_SECONDS = 0.6
#: What costs most to import. The first two must never be; the others are worth knowing.
HEAVY = ("concrete", "torch", "onnx", "numpy")
FORBIDDEN = ("concrete", "torch")

# The command line tool stands beside the interpreter that runs this.
FHE_OPS = str(Path(sys.executable).with_name("fhe-ops"))
COMMANDS: dict[str, list[str]] = {
    "python -c pass": ["-c", "pass"],
    "python -c 'import fhe_core'": ["-c", "import fhe_core"],
    "fhe-ops list": [FHE_OPS, "list"],
}


def main() -> None:
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        # In turn, so that what else the machine does falls on all of them. The first round warms up.
        rounds = [
            [_seconds(arguments, folder) for arguments in COMMANDS.values()]
            for _ in range(RUNS + 1)
        ]
        heavy = {name: _heavy_imports(COMMANDS[name], folder) for name in list(COMMANDS)[1:]}
    seconds = dict(zip(COMMANDS, zip(*rounds[1:], strict=True), strict=True))
    bare, imported, listed = (median(times) for times in seconds.values())

    heading("Starting")
    show(
        ("command", "median", "least", "most", "imports"),
        [
            (
                name,
                f"{median(times):.3f} s",
                f"{min(times):.3f} s",
                f"{max(times):.3f} s",
                ", ".join(heavy.get(name, ())) or "-",
            )
            for name, times in seconds.items()
        ],
        left=("imports",),
    )
    note(
        f"Whole processes, {RUNS} runs each, of which the target for fhe_core leaves out bare "
        f"Python. Imports: of {', '.join(HEAVY)}. Load before: {load:.1f} on "
        f"{os.cpu_count()} CPUs."
    )

    targets = [
        at_most("import fhe_core", imported - bare, IMPORT_SECONDS, "{:.3f} s"),
        at_most("fhe-ops list", listed, LIST_SECONDS, "{:.3f} s"),
        _light(heavy),
    ]
    figures = {"seconds": seconds, "heavy_imports": heavy, "load_before": load}
    keep("import", targets, figures)


def _seconds(arguments: list[str], folder: str) -> float:
    """Wall time of a whole process."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True, cwd=folder)
    return time.perf_counter() - start


def _heavy_imports(arguments: list[str], folder: str) -> list[str]:
    """Which of the heavy packages a process imports."""
    run = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments],
        check=True,
        capture_output=True,
        text=True,
        cwd=folder,
    )
    modules = re.findall(r"^import time:\s+\d+ \|\s+\d+ \|\s+(\S+)$", run.stderr, re.MULTILINE)
    if "fhe_core" not in modules:
        raise RuntimeError(f"{arguments} did not tell what it imports: {run.stderr[-500:]}")
    packages = {module.partition(".")[0] for module in modules}
    return [name for name in HEAVY if name in packages]


def _light(heavy: dict[str, list[str]]) -> Target:
    guilty = {name: sorted({*found} & {*FORBIDDEN}) for name, found in heavy.items()}
    imported = "; ".join(f"{', '.join(found)} by {name}" for name, found in guilty.items() if found)
    what = f"imports of {' and '.join(FORBIDDEN)}"
    return Target(what, "none", imported or "none", "imported" if imported else "")


if __name__ == "__main__":
    main()
