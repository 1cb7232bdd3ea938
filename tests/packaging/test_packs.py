"""Packs that pip built and installed are found by another process, the good and the bad ones."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PACKS = Path(__file__).parents[1] / "packs"

LIST = """
import json, warnings
import fhe_core
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    registry = fhe_core.get_registry()
print(json.dumps({
    "packs": {pack.name: vars(pack) for pack in registry.packs()},
    "ops": [[spec.op_type, spec.impl_pack] for spec in registry.ops(domain="com.example")],
    "double": registry.resolve("Double", "com.example", opset=1).impl(5, times=2),
    "warnings": [str(warning.message) for warning in caught],
}))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the packs, each built from its source."""
    # Built from a copy: a build must leave nothing in the repository.
    sources = shutil.copytree(PACKS, tmp_path_factory.mktemp("sources") / "packs")
    folder = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--no-index", "--no-deps", "--no-build-isolation", "--target", str(folder)]
    names = ("good", "broken", "stale", "clash", "future")
    result = subprocess.run(
        [*command, *(str(sources / name) for name in names)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return folder


def run(folder: Path, code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH")))),
        # The real packs, if they are installed, are not what is tested here.
        "FHE_PACKS_BLOCK": "fhe-ops-std,fhe-ops-contrib",
        **environment,
    }
    for name in ("FHE_PACKS", "FHE_PACKS_STRICT"):
        if name not in environment:
            variables.pop(name, None)
    return subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def listing(installed: Path) -> dict[str, Any]:
    """What a fresh process says of the installed packs."""
    result = run(installed, LIST)
    assert result.returncode == 0, result.stderr
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


def test_the_good_pack_is_loaded_with_its_provenance(
    installed: Path, listing: dict[str, Any]
) -> None:
    assert listing["packs"]["good"] == {
        "name": "good",
        "distribution": "fhe-pack-good",
        "version": "1.0",
        "path": str(installed / "fhe_pack_good" / "__init__.py"),
        "status": "loaded",
        "reason": None,
    }
    assert listing["ops"] == [["Double", "good"]]
    assert listing["double"] == 20


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("broken", "importing fhe_pack_broken raised ModuleNotFoundError"),
        ("stale", "it needs fhe-core<0.1,>=0.0.1, but fhe-core"),
        ("future", "it needs fhe-core>=99, but fhe-core"),
        ("rival", "packs 'good' and 'rival' both register impl of com.example.Double"),
    ],
)
def test_a_bad_pack_is_reported_and_warned_of(
    name: str, reason: str, listing: dict[str, Any]
) -> None:
    pack = listing["packs"][name]
    assert pack["status"] == "failed"
    assert reason in pack["reason"]
    assert [pack["reason"] in warning for warning in listing["warnings"]].count(True) == 1


def test_the_user_can_prefer_one_of_two_that_clash(installed: Path) -> None:
    code = """
import fhe_core
registry = fhe_core.get_registry(prefer={"Double": "rival"})
print([(spec.op_type, spec.impl_pack) for spec in registry.ops(domain="com.example")])
"""
    result = run(installed, code, FHE_PACKS="good,rival")
    assert result.stdout.strip() == "[('Double', 'rival'), ('Triple', 'rival')]", result.stderr


def test_strict_mode_stops_at_a_bad_pack(installed: Path) -> None:
    code = "import fhe_core; fhe_core.get_registry()"
    result = run(installed, code, FHE_PACKS="broken,good", FHE_PACKS_STRICT="1")
    assert result.returncode != 0
    assert "PackError: pack 'broken'" in result.stderr


def test_an_uninstalled_pack_takes_its_ops_with_it(installed: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(installed, tmp_path / "installed")
    shutil.rmtree(folder / "fhe_pack_good")
    shutil.rmtree(folder / "fhe_pack_good-1.0.dist-info")
    code = """
import fhe_core
print([(spec.op_type, spec.impl_pack) for spec in fhe_core.get_registry().ops("com.example")])
"""
    result = run(folder, code)
    assert result.stdout.strip() == "[('Double', 'rival'), ('Triple', 'rival')]", result.stderr
