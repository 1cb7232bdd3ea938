"""``fhe-ops new-pack NAME``: a distribution to start a pack from, written whole or not at all."""

from __future__ import annotations

import keyword
import os
import re
import shlex
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

import click

import fhe_core
from fhe_core.cli.outputs import check_writable, folder_beside
from fhe_core.errors import InputError
from fhe_core.registry.discovery import find_packs
from fhe_core.registry.requirement import canonical_name

TEMPLATES = Path(__file__).with_name("templates") / "pack"

# Where each template goes; {module} is the pack's name.
PLACES = {
    "pyproject.toml.jinja": "pyproject.toml",
    "README.md.jinja": "README.md",
    "LICENSE": "LICENSE",
    "gitignore": ".gitignore",
    "workflow.yml.jinja": ".github/workflows/test.yml",
    "__init__.py.jinja": "src/{module}/__init__.py",
    "ops.py.jinja": "src/{module}/ops.py",
    "quantized.py.jinja": "src/{module}/quantized.py",
    "py.typed": "src/{module}/py.typed",
    "test_pack.py.jinja": "tests/test_pack.py",
}

EXAMPLE = "my_pack"


def new_pack(name: str, output: Path | None) -> None:
    """Writes the distribution of a new pack, and prints what to do next.

    Args:
        name: of the pack and its module; the distribution has dashes for underscores.
        output: the folder to make; by default one called like the pack, here.

    Raises:
        InputError: the name cannot be a pack's, or the folder exists or cannot be made.
    """
    check_name(name)
    folder = Path(name) if output is None else output
    _check_folder(folder, name)
    _check_free(name)
    with folder_beside(folder) as temporary:
        for place, content in _rendered(name).items():
            path = temporary / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
    click.echo(f"Wrote {folder}: three operators of the domain {name}, with tests. Next:")
    for command in (
        f"cd {shlex.quote(str(folder))}",
        "python -m pip install -e '.[dev]'",
        "python -m pytest",
        f"fhe-ops list --pack {name}",
    ):
        click.echo(f"  {command}")


def check_name(name: str) -> None:
    """Refuses what is no name for a Python module, a distribution and an entry point in one.

    Raises:
        InputError: it is no identifier of ASCII letters, or a keyword.
    """
    reason = None
    if not name.isidentifier():
        reason = "is no Python identifier"
    elif keyword.iskeyword(name):
        reason = "is a keyword of Python"
    elif not name.isascii() or name.strip("_") != name:
        reason = "cannot be the name of a distribution"
    if reason:
        raise InputError(
            f"a pack cannot be called {name!r}: that {reason}",
            expected="a Python identifier of ASCII letters, digits and inner underscores",
            fix=f"call it {_suggestion(name)}, for example",
        )


def core_requirement(version: str) -> str:
    """This core and what stays compatible: before 1.0 its minor version, then its major one."""
    from packaging.version import Version

    core = Version(version)
    lower = core.public if core.is_prerelease else f"{core.major}.{core.minor}"
    upper = f"{core.major + 1}" if core.major else f"0.{core.minor + 1}"
    return f">={lower},<{upper}"


def _suggestion(name: str) -> str:
    joined = "_".join(re.findall(r"[a-z0-9]+", name.lower()))
    if not joined or not name.isascii():
        return EXAMPLE
    if joined[0].isdigit():
        return f"ops_{joined}"
    return f"{joined}_ops" if keyword.iskeyword(joined) else joined


def _check_folder(folder: Path, name: str) -> None:
    if os.path.lexists(folder):
        inside = f", such as {folder / name}" if folder.is_dir() else ""
        raise InputError(
            f"{str(folder)!r} exists already, and nothing is overwritten",
            expected="the name of a folder to make",
            fix=f"name a new folder with --output{inside}",
        )
    check_writable(folder, InputError)


def _check_free(name: str) -> None:
    """Refuses a name by which something else is imported, installed or listed.

    Raises:
        InputError: naming what has it.
    """
    owner = _owner(name)
    if owner:
        raise InputError(
            f"{name!r} is taken by {owner}",
            expected="a name that nothing else has: one of the two would hide the other",
            fix=f"call it {name}_ops, for example",
        )


def _owner(name: str) -> str | None:
    if name in sys.stdlib_module_names:
        return "a module of Python's standard library"
    own = canonical_name(name)
    pack = next((pack for pack in find_packs() if pack.name == name), None)
    if pack is not None:
        return f"the installed pack of {pack.distribution}"
    try:
        return f"the installed distribution {distribution(own).metadata['Name']}"
    except PackageNotFoundError:
        return "an installed module" if find_spec(name) else None


def _rendered(name: str) -> Mapping[str, str]:
    """The content of every file, by its place in the distribution."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    # A name that a template misspells is an error, not a gap in what it writes.
    templates = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, keep_trailing_newline=True
    )
    values = {
        "module": name,
        "distribution": canonical_name(name),
        "requirement": core_requirement(fhe_core.__version__),
    }
    return {
        place.format(module=name): templates.get_template(template).render(values)
        for template, place in PLACES.items()
    }
