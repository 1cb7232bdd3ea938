"""Wheels built once for the session, and fresh environments to install them into."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from .environments import DISTRIBUTIONS, Environment, build, link_dependencies


@pytest.fixture(scope="session")
def wheels(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheels of this project and of the packs to test with, by the name of their folder."""
    folder = tmp_path_factory.mktemp("wheels")
    packs = sorted(path.parent for path in (root / "tests" / "packs").glob("*/pyproject.toml"))
    sources = [*(root / name for name in DISTRIBUTIONS), *packs]
    return {source.name: build(source, folder) for source in sources}


@pytest.fixture(scope="session")
def wheelhouse(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which pip finds all of them."""
    folder = tmp_path_factory.mktemp("wheelhouse")
    for wheel in wheels.values():
        (folder / wheel.name).symlink_to(wheel)
    return folder


@pytest.fixture(scope="session")
def dependencies(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheels depend on, to be put on an environment's path."""
    return link_dependencies(wheels.values(), tmp_path_factory.mktemp("dependencies"))


@pytest.fixture(scope="session")
def new_environment(
    wheelhouse: Path, dependencies: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Environment]:
    """Makes a fresh environment and installs what is named, such as ``"fhe-ops-std"``."""

    def make(*requirements: str) -> Environment:
        folder = tmp_path_factory.mktemp("environment") / "env"
        environment = Environment(folder, wheelhouse, dependencies)
        if requirements:
            environment.install(*requirements)
        return environment

    return make
