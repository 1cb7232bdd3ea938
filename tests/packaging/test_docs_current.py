"""The pages that the tools write are what the tools would write now."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

# The recipe in the Makefile: its environment, and the command's arguments.
RECIPE = re.compile(r"^\t@((?:\w+=\S+ )*)\$\(BIN\)/fhe-ops (.*) >build/ops\.md$", re.MULTILINE)


@pytest.fixture(scope="module")
def recipe(root: Path) -> tuple[dict[str, str], list[str]]:
    (found,) = RECIPE.findall((root / "Makefile").read_text(encoding="utf-8"))
    variables = dict(assignment.split("=", 1) for assignment in found[0].split())
    return variables, found[1].split()


def fhe_ops(variables: dict[str, str], *arguments: str) -> str:
    command = [sys.executable, "-c", "from fhe_core.cli import main; main()", *arguments]
    done = subprocess.run(
        command, env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_list_of_operators_is_current(
    root: Path, recipe: tuple[dict[str, str], list[str]]
) -> None:
    variables, arguments = recipe
    page = (root / "docs" / "ops.md").read_text(encoding="utf-8")
    assert page == fhe_ops(variables, *arguments), "docs/ops.md is out of date: run `make docs`"


def test_the_list_of_operators_fits_80_columns(recipe: tuple[dict[str, str], list[str]]) -> None:
    lines = fhe_ops(recipe[0], "list").splitlines()
    assert max(map(len, lines)) <= 80
