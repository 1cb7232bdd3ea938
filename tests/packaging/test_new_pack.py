"""A pack that ``new-pack`` wrote is green at once, installs from a wheel, and leaves no trace."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from .environments import Environment

FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Written(NamedTuple):
    """An environment with fhe-core alone, and the source of the pack that its command wrote."""

    environment: Environment
    source: Path

    def operators(self) -> list[dict[str, Any]]:
        done = self.environment.run(
            "fhe-ops", "list", "--pack", "new_rings", "--format", "json", check=False
        )
        return [] if done.returncode else json.loads(done.stdout)


@pytest.fixture(scope="module")
def written(
    new_environment: Callable[..., Environment], tmp_path_factory: pytest.TempPathFactory
) -> Written:
    environment = new_environment("fhe-core")
    folder = tmp_path_factory.mktemp("author")
    environment.run("fhe-ops", "new-pack", "new_rings", cwd=folder)
    return Written(environment, folder / "new_rings")


def test_its_wheel_is_listed_tested_and_uninstalled(written: Written) -> None:
    environment, source = written
    environment.run("python", "-m", "build", "--no-isolation", "--wheel", str(source))
    (wheel,) = (source / "dist").glob("new_rings-0.1.0-*.whl")
    assert written.operators() == []

    environment.install(str(wheel))
    rows = {row["op"]: row for row in written.operators()}
    # The three cases of the specification.
    fusion = {"Gaussian": "always", "Correlate": "never", "Distance": "conditional"}
    assert {op: row["fusion"] for op, row in rows.items()} == fusion
    for row in rows.values():
        assert row["domain"] == "new_rings"
        assert row["impl_distribution"] == row["quantized_distribution"] == "new-rings"
        assert row["impl_version"] == "0.1.0"
    tested = environment.run("pytest", "-q", "-p", "no:cacheprovider", cwd=source)
    assert re.search(r"^\d\d+ passed", tested.stdout, re.MULTILINE), tested.stdout

    environment.uninstall("new-rings")
    assert written.operators() == []
    assert not list(environment.packages.glob("new_rings*"))


@pytest.mark.fhe
def test_its_author_goes_from_nothing_to_an_encrypted_run(written: Written) -> None:
    """Editable, as its README has it: the kit, also encrypted, and the README's program."""
    environment, source = written
    environment.install("--editable", str(source))
    tested = environment.run("pytest", "-q", "-p", "no:cacheprovider", "-m", "fhe", cwd=source)
    assert re.search(r"^\d+ passed", tested.stdout, re.MULTILINE), tested.stdout
    (program,) = FENCE.findall((source / "README.md").read_text(encoding="utf-8"))
    answers = environment.run("python", "-c", program).stdout.splitlines()
    encrypted, clear = ([float(word) for word in re.findall(r"\d\.\d+", line)] for line in answers)
    assert encrypted == pytest.approx(clear, abs=0.1)
    environment.uninstall("new-rings")
