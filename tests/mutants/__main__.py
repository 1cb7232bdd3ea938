"""``python -m tests.mutants``: a fixed sample of small faults, each put into a copy of the code and tested.

The mutations are cosmic-ray's. One run of all tests with coverage tells which of them reach which line, so that
a mutant meets those alone. Exit code 1 if fewer are noticed than promised.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import click
from cosmic_ray.mutating import mutate_and_test
from cosmic_ray.work_item import MutationSpec, TestOutcome, WorkResult
from coverage import CoverageData
from rich.console import Console

from tests.mutants.choosing import Tests, sample

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [f"{name}/src" for name in ("fhe_core", "fhe_ops_std", "fhe_ops_contrib")]
CORE = Path("fhe_core/src/fhe_core")
AREAS = {
    "program": ["program/**/*.py"],
    "registry": ["registry/*.py"],
    "quantization": ["quantization/*.py"],
    "search": [
        f"compiler/{name}.py" for name in ("search", "scoring", "judging", "building", "students")
    ],
}
#: What cannot tell anything of these areas, or takes minutes.
IGNORED = [
    "tests/packaging",
    "tests/ops_std/test_networks.py",
    "tests/ops_std/test_onnx_suite.py",
    "tests/ops_contrib",
]
PROMISED = 0.85

console = Console(soft_wrap=True)


@click.command()
@click.option("--count", default=60, show_default=True, help="How many mutants.")
@click.option("--seed", default=0, show_default=True, help="Another seed is another sample.")
@click.option("--jobs", default=os.cpu_count(), show_default=True, help="How many at once.")
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    default=ROOT / "build" / "mutants",
    help="Where the copies lie.",
)
def main(count: int, seed: int, jobs: int, work: Path) -> None:
    """Put COUNT small faults into copies of the code, one at a time, and see whether the tests notice."""
    os.chdir(ROOT)
    areas = {
        area: sorted(file for pattern in patterns for file in Path().glob(str(CORE / pattern)))
        for area, patterns in AREAS.items()
    }
    mutations = sample(areas, count, seed)
    copies = [_copy(work / str(number)) for number in range(jobs)]
    tests = _record(copies[0], work, jobs)
    free: SimpleQueue[Path] = SimpleQueue()
    for copy in copies:
        free.put(copy)

    def tried(mutation: MutationSpec) -> tuple[MutationSpec, WorkResult | None]:
        copy = free.get()
        try:
            return mutation, _try(mutation, copy, tests)
        finally:
            free.put(copy)

    killed = 0
    with ThreadPoolExecutor(jobs) as pool:
        for mutation, result in pool.map(tried, mutations):
            noticed = result is not None and result.test_outcome is not TestOutcome.SURVIVED
            killed += noticed
            _tell(mutation, result, noticed)
    console.print(
        f"{killed} of {len(mutations)} mutants were noticed ({killed / len(mutations):.0%})"
    )
    sys.exit(killed < PROMISED * len(mutations))


def _copy(place: Path) -> Path:
    """The files that git knows, or would add, as they are now."""
    shutil.rmtree(place, ignore_errors=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        check=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if Path(name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(name, place / name)
    return place


def _environment(copy: Path) -> dict[str, str]:
    """One thread each, and the copy's code before the installed."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    path = os.pathsep.join(str(copy / source) for source in SOURCES)
    return {**os.environ, **threads, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}


def _record(copy: Path, work: Path, jobs: int) -> Tests:
    """Runs all tests once on the unchanged code."""
    console.print("Running the tests with coverage, to see which of them reach which line")
    data, times = work / "coverage", work / "times.json"
    command = [
        sys.executable, "-m", "pytest", "-q", "-p", "tests.mutants.recording", "-m", "not fhe",
        f"--numprocesses={jobs}",
        "-p", "no:cacheprovider", "--cov", "--cov-context=test", "--cov-report=", "--cov-fail-under=0",
        *(f"--ignore={path}" for path in IGNORED),
    ]  # fmt: skip
    environment = {**_environment(copy), "COVERAGE_FILE": str(data), "MUTANTS_TIMES": str(times)}
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
    if done.returncode not in (0, 1) or not times.exists():
        console.print(done.stdout[-3000:], done.stderr[-3000:])
        sys.exit(2)
    coverage = CoverageData(str(data))
    coverage.read()
    return Tests(coverage, json.loads(times.read_text()))


def _try(mutation: MutationSpec, copy: Path, tests: Tests) -> WorkResult | None:
    """None where no test reaches the line."""
    chosen = tests.reaching(mutation)
    if not chosen:
        return None
    listed = copy / "build" / "tests.txt"
    listed.parent.mkdir(exist_ok=True)
    listed.write_text("\n".join(chosen))
    variables = {k: v for k, v in _environment(copy).items() if os.environ.get(k) != v}
    command = ["env", "-C", str(copy), *(f"{key}={value}" for key, value in variables.items())]
    command += [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"@{listed}"]
    placed = MutationSpec(
        copy / mutation.module_path,
        mutation.operator_name,
        mutation.occurrence,
        mutation.start_pos,
        mutation.end_pos,
    )
    return mutate_and_test([placed], shlex.join(command), timeout=60 + 4 * tests.expected(chosen))


def _tell(mutation: MutationSpec, result: WorkResult | None, noticed: bool) -> None:
    place = f"{mutation.module_path}:{mutation.start_pos[0]}"
    verdict = "noticed " if noticed else "no test " if result is None else "SURVIVED"
    console.print(f"{verdict} {place} {mutation.operator_name}", highlight=False)
    if result is not None and not noticed:
        changed = [
            line
            for line in (result.diff or "").splitlines()
            if line[:1] in "+-" and line[:3] not in ("+++", "---")
        ]
        console.print(
            "\n".join(f"         {line}" for line in changed), highlight=False, markup=False
        )


if __name__ == "__main__":
    main()
