"""Each distribution builds a wheel with its whole package, its licence and its entry point."""

from __future__ import annotations

import ast
import sys
from configparser import ConfigParser
from dataclasses import dataclass
from email.message import Message
from email.parser import Parser
from importlib.metadata import packages_distributions
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import fhe_core

from .environments import DISTRIBUTIONS

PACKS = {"fhe_ops_std": "std", "fhe_ops_contrib": "contrib"}


@dataclass(frozen=True)
class Wheel:
    package: str
    source: Path
    files: frozenset[str]
    metadata: Message
    entry_points: ConfigParser

    @property
    def requirements(self) -> dict[str, Requirement]:
        lines = self.metadata.get_all("Requires-Dist", [])
        return {canonicalize_name(r.name): r for r in map(Requirement, lines)}


@pytest.fixture(scope="session", params=DISTRIBUTIONS)
def wheel(request: pytest.FixtureRequest, root: Path, wheels: dict[str, Path]) -> Wheel:
    """One of the three, opened."""
    with ZipFile(wheels[request.param]) as opened:
        files = frozenset(opened.namelist())
        (info,) = {name.split("/")[0] for name in files if ".dist-info/" in name}
        entry_points = ConfigParser()
        entry_points.read_string(opened.read(f"{info}/entry_points.txt").decode())
        metadata = Parser().parsestr(opened.read(f"{info}/METADATA").decode())
    return Wheel(request.param, root / request.param / "src", files, metadata, entry_points)


def test_holds_the_package_and_nothing_else(wheel: Wheel) -> None:
    source = {
        path.relative_to(wheel.source).as_posix()
        for path in (wheel.source / wheel.package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in wheel.files if ".dist-info/" not in name} == source
    assert f"{wheel.package}/py.typed" in source


def test_carries_its_licence(wheel: Wheel) -> None:
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel.files)
    assert wheel.metadata["License-Expression"] == "Apache-2.0"


def test_describes_itself(wheel: Wheel) -> None:
    assert wheel.metadata["Summary"]
    assert wheel.metadata["Description-Content-Type"] == "text/markdown"
    assert len(str(wheel.metadata.get_payload()).splitlines()) > 5


def test_has_its_entry_point(wheel: Wheel) -> None:
    if wheel.package in PACKS:
        expected = {"fhe_core.packs": {PACKS[wheel.package]: wheel.package}}
    else:
        expected = {
            "console_scripts": {"fhe-ops": "fhe_core.cli:main"},
            "fhe_core.packs": {"optimization": "fhe_core.plugins.optimization"},
        }
    sections = wheel.entry_points.sections()
    assert {name: dict(wheel.entry_points[name]) for name in sections} == expected


@pytest.mark.parametrize("wheel", PACKS, indirect=True)
def test_a_pack_takes_this_core_and_not_the_next(wheel: Wheel) -> None:
    version = Version(fhe_core.__version__)
    accepts = wheel.requirements["fhe-core"].specifier.contains
    assert accepts(version)
    # Before 1.0 a minor version may break packs, from then on a major one.
    following = f"{version.major + 1}.0" if version.major else f"0.{version.minor + 1}"
    assert not accepts(following)


def test_requires_what_it_imports(wheel: Wheel) -> None:
    """Nothing is imported that only happens to be installed through something else."""
    imported: set[str] = set()
    for path in (wheel.source / wheel.package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                imported.add(node.module.split(".")[0])
    imported -= {wheel.package, *sys.stdlib_module_names}
    # An editable installation does not appear in packages_distributions().
    supplied_by = {**packages_distributions(), "fhe_core": ["fhe-core"]}
    missing = {
        name
        for name in imported
        if not {canonicalize_name(d) for d in supplied_by.get(name, [])} & {*wheel.requirements}
    }
    assert not missing


@pytest.mark.parametrize("wheel", ["fhe_core"], indirect=True)
def test_the_version_is_the_one_that_the_code_says(wheel: Wheel) -> None:
    assert wheel.metadata["Version"] == fhe_core.__version__
