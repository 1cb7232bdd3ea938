"""The pages that the tools write are what the tools would write now."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ops_std.onnx_suite import TALLY, tally
from tests.ops_std.ops_page import with_cases

# The recipe in the Makefile: its environment, and the command's arguments.
VARIABLE = re.compile(r"^docs: export (\w+) = (\S+)$", re.MULTILINE)
COMMAND = re.compile(r"^\t@\$\(BIN\)/fhe-ops (.*) >build/list\.md$", re.MULTILINE)


@pytest.fixture(scope="module")
def recipe(root: Path) -> tuple[dict[str, str], list[str]]:
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    (command,) = COMMAND.findall(makefile)
    return dict(VARIABLE.findall(makefile)), command.split()


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
    kept = json.loads(TALLY.read_text(encoding="utf-8"))
    current = with_cases(fhe_ops(variables, *arguments), kept)
    assert page == current, "docs/ops.md is out of date: run `make docs`"


def test_the_count_of_onnx_s_cases_is_current() -> None:
    kept = json.loads(TALLY.read_text(encoding="utf-8"))
    assert kept == tally(), f"docs/{TALLY.name} is out of date: run `make docs`"


def test_the_list_of_operators_fits_80_columns(recipe: tuple[dict[str, str], list[str]]) -> None:
    lines = fhe_ops(recipe[0], "list").splitlines()
    assert max(map(len, lines)) <= 80
