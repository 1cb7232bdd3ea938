"""How long it takes to load many packs: 100 with 10 operators each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from printing import heading, note, show
from results import at_most, keep

PACKS = 100
OPS = 10
RUNS = 7
LOAD_SECONDS = 0.2

# What a pack of one's own looks like: functions with attributes, in a module of their own.
OPERATOR = '''
def op{i}(X, W, /, B=None, *, axis=-1, epsilon=1e-5, mode="same"):
    """Operator {i}."""
    return X * W


'''
HOOK = """
@fhe_core.hookimpl
def fhe_register_ops(registry):
    for function in ({names}):
        registry.impl(f"Bench{number}_{{function.__name__}}", function, domain="com.bench")
"""

# Loading is timed from within, so that it leaves out the interpreter and what the registry imports.
LOAD = """
import json, time
import fhe_core
import fhe_core.registry.packs
import importlib.metadata
start = time.perf_counter()
registry = fhe_core.registry.load_registry()
ops = registry.ops()
seconds = time.perf_counter() - start
print(json.dumps([seconds, len(ops), len(registry.failures())]))
"""


def main() -> None:
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        bare, full = Path(folder, "bare"), Path(folder, "full")
        bare.mkdir()
        for number in range(PACKS):
            _install(full, number)
        # In turn, so that what else the machine does falls on both. The first round warms up.
        rounds = [(_seconds(bare, 0), _seconds(full, PACKS * OPS)) for _ in range(RUNS + 1)]
    without, with_packs = zip(*rounds[1:], strict=True)

    heading("Loading packs")
    show(
        ("packs", "operators", "median", "least", "most"),
        [
            _row(0, 0, without),
            _row(PACKS, PACKS * OPS, with_packs),
        ],
    )
    note(
        f"Finding, importing and registering, then listing, {RUNS} runs each in a process of its "
        f"own; the interpreter and its imports left out. Load before: {load:.1f} on "
        f"{os.cpu_count()} CPUs."
    )
    what = f"{PACKS} packs, {PACKS * OPS:,} operators"
    targets = [at_most(what, median(with_packs), LOAD_SECONDS, "{:.3f} s")]
    keep("registry", targets, {"seconds": {"none": without, "all": with_packs}, "load": load})


def _install(folder: Path, number: int) -> None:
    """Writes a pack as pip would leave it."""
    module = f"bench_pack_{number}"
    package = folder / module
    package.mkdir(parents=True)
    functions = "".join(OPERATOR.format(i=i) for i in range(OPS))
    names = ", ".join(f"op{i}" for i in range(OPS))
    text = "import fhe_core\n\n" + functions + HOOK.format(names=names, number=number)
    (package / "__init__.py").write_text(text)
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    metadata = ("Metadata-Version: 2.1", f"Name: bench-pack-{number}", "Version: 1.0")
    requires = ("Requires-Dist: fhe-core>=0.1,<1", "Requires-Dist: numpy>=1.24")
    (info / "METADATA").write_text("\n".join((*metadata, *requires)) + "\n")
    (info / "entry_points.txt").write_text(f"[fhe_core.packs]\nbench{number} = {module}\n")


def _seconds(folder: Path, expected: int) -> float:
    """How long a fresh process takes to load the packs of a folder, and none besides."""
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    run = subprocess.run(
        [sys.executable, "-c", LOAD],
        env={**os.environ, "PYTHONPATH": path, "FHE_PACKS_BLOCK": "fhe-ops-std,fhe-ops-contrib"},
        check=True,
        capture_output=True,
        text=True,
    )
    seconds, found, failed = json.loads(run.stdout)
    if (found, failed) != (expected, 0):
        raise RuntimeError(f"{found} operators were loaded, and {failed} packs failed")
    return float(seconds)


def _row(packs: int, operators: int, seconds: tuple[float, ...]) -> tuple[str, ...]:
    times = (median(seconds), min(seconds), max(seconds))
    return (str(packs), f"{operators:,}", *(f"{time:.3f} s" for time in times))


if __name__ == "__main__":
    main()
