"""Fresh virtual environments, as a user has them, without the network.

pip takes this project's distributions from wheels that were built for the session. What they depend on,
numpy for one, is linked into the environment out of the one that runs the tests: only what the wheels'
metadata asks for, so a dependency that nobody declared is missing here, as it would be for a user.
This project's own distributions are never linked: each is there once, from its wheel, or not at all.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterable
from importlib.metadata import (
    Distribution,
    PackageNotFoundError,
    PathDistribution,
    distribution,
)
from pathlib import Path
from zipfile import Path as ZipPath

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

#: The folders of this project's distributions.
DISTRIBUTIONS = ("fhe_core", "fhe_ops_std", "fhe_ops_contrib")
#: A user's own tools: pip, and what building a pack in place takes.
TOOLS = ("pip", "hatchling", "editables", "build")
#: Tools that a user runs by name.
COMMANDS = ("pip", "pytest")
#: Extras of our wheels whose requirements an environment offers.
EXTRAS = ("", "concrete", "testing")


def build(source: Path, outcome: Path) -> Path:
    """The wheel of a source folder, built offline from its source archive: that is complete too."""
    # Built from a copy: a build must leave nothing in the repository.
    ignore = shutil.ignore_patterns("__pycache__", ".*_cache", "dist")
    copy = shutil.copytree(source, outcome / "sources" / source.name, ignore=ignore)
    folder = outcome / source.name
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel


def metadata(wheel: Path) -> PathDistribution:
    """What a wheel says of itself."""
    (info,) = (path for path in ZipPath(wheel).iterdir() if path.name.endswith(".dist-info"))
    return PathDistribution(info)  # type: ignore[arg-type]


def link_dependencies(wheels: Iterable[Path], folder: Path) -> Path:
    """Links everything that the wheels depend on into a folder, from the running environment."""
    ours = [metadata(wheel) for wheel in wheels]
    own_names = {canonicalize_name(dist.metadata["Name"]) for dist in ours}
    wanted = [Requirement(tool) for tool in TOOLS]
    wanted += [requirement for dist in ours for requirement in _requires(dist, EXTRAS)]
    seen: set[tuple[str, frozenset[str]]] = set()
    while wanted:
        requirement = wanted.pop()
        key = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if key in seen or key[0] in own_names:
            continue
        seen.add(key)
        try:
            dist = distribution(requirement.name)
        except PackageNotFoundError:
            continue  # without concrete-python, say, there is only less to test
        wanted += _requires(dist, ("", *requirement.extras))
        for top in {file.parts[0] for file in dist.files or ()} - {"..", "__pycache__"}:
            link = folder / top
            if not link.exists():
                link.symlink_to(Path(str(dist.locate_file(top))).resolve())
    return folder


def _requires(dist: Distribution, extras: Iterable[str]) -> list[Requirement]:
    """The requirements of a distribution that hold here, with some of its extras."""
    return [
        requirement
        for requirement in map(Requirement, dist.requires or ())
        if not requirement.marker
        or any(requirement.marker.evaluate({"extra": extra}) for extra in extras)
    ]


class Environment:
    """A virtual environment with Python, pip and the dependencies, but no pack and no fhe-core.

    Args:
        folder: a new folder for it.
        wheelhouse: where pip finds this project's wheels by their names.
        dependencies: from `link_dependencies`.
    """

    def __init__(self, folder: Path, wheelhouse: Path, dependencies: Path) -> None:
        self.folder = folder
        venv.create(folder, symlinks=True)
        self.scripts = folder / "bin"
        self.python = self.scripts / "python"
        base = {"base": str(folder), "platbase": str(folder)}
        self.packages = Path(sysconfig.get_path("purelib", "venv", base))
        # Behind site-packages on sys.path, and its own .pth files are not read: nothing editable.
        (self.packages / "dependencies.pth").write_text(f"{dependencies}\n", encoding="utf-8")
        for command in COMMANDS:
            script = self.scripts / command
            script.write_text(f'#!/bin/sh\nexec "{self.python}" -m {command} "$@"\n')
            script.chmod(0o755)
        home = folder / "home"
        home.mkdir()
        self.variables = {
            "PATH": os.pathsep.join([str(self.scripts), "/usr/bin", "/bin"]),
            "HOME": str(home),
            "LC_ALL": "C.UTF-8",
            "COLUMNS": "80",
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(wheelhouse),
            "PIP_NO_BUILD_ISOLATION": "0",  # pip reads it as a value for --build-isolation
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_NO_CACHE_DIR": "1",
            "PIP_ROOT_USER_ACTION": "ignore",
        }

    def run(
        self, *command: str, cwd: Path | None = None, check: bool = True, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command of the environment, ``python`` or ``pip`` or another, in a clean process.

        Args:
            cwd: the working folder; the environment's own by default.
            check: fail the test unless the exit code is 0.
            variables: environment variables of this run, such as ``FHE_PACKS="std"``.
        """
        done = subprocess.run(
            [shutil.which(command[0], path=self.variables["PATH"]) or command[0], *command[1:]],
            cwd=cwd or self.folder,
            env={**self.variables, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if check:
            assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
        return done

    def install(self, *requirements: str) -> None:
        """pip installs wheels by their names, or source folders."""
        self.run("pip", "install", "--quiet", *requirements)

    def uninstall(self, *names: str) -> None:
        """pip uninstalls distributions."""
        self.run("pip", "uninstall", "--quiet", "--yes", *names)
