"""``fhe-ops new-pack NAME``: a whole distribution, or a refusal and nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from fhe_core.cli import new_pack
from packaging.requirements import Requirement

import fhe_core

from .conftest import Site, cli, refused

FILES = {
    ".github/workflows/test.yml",
    ".gitignore",
    "LICENSE",
    "README.md",
    "pyproject.toml",
    "src/rings/__init__.py",
    "src/rings/ops.py",
    "src/rings/py.typed",
    "src/rings/quantized.py",
    "tests/test_pack.py",
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, empty."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}


def test_a_whole_distribution_is_written_and_what_comes_next_is_said(here: Path) -> None:
    answer = cli("new-pack", "rings")
    assert (answer.code, answer.err) == (0, "")
    assert files(here / "rings") == FILES
    assert {path.name for path in here.iterdir()} == {"rings"}
    assert answer.out.splitlines() == [
        "Wrote rings: three operators of the domain rings, with tests. Next:",
        "  cd rings",
        "  python -m pip install -e '.[dev]'",
        "  python -m pytest",
        "  fhe-ops list --pack rings",
    ]


def test_the_distribution_has_dashes_and_a_bounded_requirement(here: Path) -> None:
    assert cli("new-pack", "my_rings", "--output", "deep/folder").code == 0
    text = (here / "deep" / "folder" / "pyproject.toml").read_text(encoding="utf-8")
    assert 'name = "my-rings"' in text
    assert 'my_rings = "my_rings"' in text
    (line,) = (line for line in text.splitlines() if line.startswith("dependencies = "))
    requirement = Requirement(line.split('"')[1])
    assert requirement.name == "fhe-core"
    assert requirement.specifier.contains(fhe_core.__version__)
    assert not requirement.specifier.contains("99")


@pytest.mark.parametrize(
    ("version", "requirement"),
    [("0.1.0", ">=0.1,<0.2"), ("1.4.2", ">=1.4,<2"), ("2.0.0rc1", ">=2.0.0rc1,<3")],
)
def test_a_core_asks_for_itself_and_what_stays_compatible(version: str, requirement: str) -> None:
    assert new_pack.core_requirement(version) == requirement


def test_no_file_keeps_a_mark_of_its_template(here: Path) -> None:
    cli("new-pack", "rings")
    for name in FILES - {".github/workflows/test.yml"}:
        text = (here / "rings" / name).read_text(encoding="utf-8")
        assert "{{" not in text
        assert "{%" not in text
    assert "{%" not in (here / "rings" / ".github" / "workflows" / "test.yml").read_text()


def passes(source: Path, *tool: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *tool], cwd=source, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


# The longest name moves line breaks, if anything does.
@pytest.mark.parametrize("name", ["q", "rings", "a_pack_of_operators_with_quite_a_long_name"])
def test_the_code_is_formatted_and_clean(name: str, here: Path) -> None:
    cli("new-pack", name)
    passes(here / name, "ruff", "format", "--isolated", "--check", ".")
    passes(here / name, "ruff", "check", "--isolated", ".")


def test_the_code_is_typed(here: Path) -> None:
    cli("new-pack", "rings")
    passes(here / "rings", "mypy", "--strict", "--cache-dir", str(here), "src", "tests")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("my-rings", ("no Python identifier", "fix: call it my_rings")),
        ("my rings", ("no Python identifier", "fix: call it my_rings")),
        ("3rings", ("no Python identifier", "fix: call it ops_3rings")),
        ("", ("no Python identifier", "fix: call it my_pack")),
        ("../rings", ("no Python identifier", "fix: call it rings")),
        ("lambda", ("keyword of Python", "fix: call it lambda_ops")),
        ("_rings", ("name of a distribution", "fix: call it rings")),
        ("größe", ("name of a distribution", "fix: call it my_pack")),
        ("json", ("standard library", "fix: call it json_ops")),
        ("numpy", ("installed distribution numpy",)),
        ("Fhe_Core", ("installed distribution fhe-core",)),
        ("test", ("an installed module",)),
    ],
)
def test_a_name_that_cannot_be_or_is_taken_is_refused(
    name: str, words: tuple[str, ...], here: Path
) -> None:
    refused(cli("new-pack", name), 2, repr(name), *words)
    assert not list(here.iterdir())


def test_the_name_of_an_installed_pack_is_refused(mine: Site, here: Path) -> None:
    refused(cli("new-pack", "mine"), 2, "'mine' is taken by the installed pack of mine-ops")


@pytest.mark.parametrize("kind", ["folder", "full folder", "file", "dangling link"])
def test_nothing_is_overwritten(kind: str, here: Path) -> None:
    place = here / "rings"
    if "folder" in kind:
        place.mkdir()
        if kind == "full folder":
            (place / "mine.txt").write_text("mine")
    elif kind == "file":
        place.write_text("mine")
    else:
        place.symlink_to(here / "nowhere")
    before = files(here)
    for arguments in (("rings",), ("bells", "--output", "rings")):
        refused(cli("new-pack", *arguments), 2, "'rings' exists already", "--output")
    assert files(here) == before


def test_a_place_that_cannot_be_written_is_refused(here: Path) -> None:
    (here / "file").write_text("")
    refused(cli("new-pack", "rings", "--output", "file/rings"), 2, "is not a folder")
    assert files(here) == {"file"}


def test_what_fails_half_way_leaves_nothing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Path.write_text

    def full(path: Path, *arguments: str, **options: str) -> int:
        if path.name == "ops.py":
            raise OSError(28, "No space left on device", str(path))
        return write(path, *arguments, **options)

    monkeypatch.setattr(Path, "write_text", full)
    refused(cli("new-pack", "rings"), 2, "No space left on device")
    assert not list(here.iterdir())
