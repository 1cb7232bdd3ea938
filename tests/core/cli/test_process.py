"""``fhe-ops`` as users run it: a process, with a pipe or a terminal at its end."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from .conftest import COMMAND, Site, save_model

pytestmark = [
    pytest.mark.usefixtures("mine"),
    pytest.mark.skipif(not COMMAND.exists(), reason="fhe-core is not installed, only on the path"),
]

LONG = "AnOperatorWithAVeryLongNameThatHardlyFitsIntoAnyColumn"
ANSI = "\x1b["


@pytest.fixture(autouse=True)
def long_name(mine: Site) -> None:
    mine.add("long", f'registry.impl("{LONG}", double, domain="com.example.of.a.long.name")')


def test_a_pipe_gets_plain_text_and_whole_words(mine: Site) -> None:
    result = mine.run(COMMAND, "list")
    assert (result.returncode, result.stderr) == (0, "")
    assert ANSI not in result.stdout
    rows = result.stdout.splitlines()
    assert any(row.startswith(LONG) and row.endswith("  long 1.0") for row in rows)
    for domain in result.stdout.split("\n\n"):
        columns = {row.find("float only") for row in domain.splitlines() if "float only" in row}
        assert len(columns) <= 1


def test_a_terminal_gets_a_table_that_fits_and_loses_nothing(mine: Site) -> None:
    result = mine.run(COMMAND, "list", pty=True)
    assert result.returncode == 0
    assert ANSI in result.stdout
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", result.stdout)
    lines = plain.splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in plain
    # The long name goes on in the next line of its column.
    start = next(number for number, line in enumerate(lines) if line.startswith(LONG[:10]))
    pieces = (line.split(" ")[0] for line in lines[start:])
    assert "".join(pieces).startswith(LONG)


@pytest.mark.parametrize(
    "command",
    [("packs",), ("explain", "Shift"), ("explain", "Nothing"), ("list", "--pack", "x"), ("-h",)],
)
def test_every_output_fits_80_columns(command: tuple[str, ...], mine: Site) -> None:
    shown = mine.run(COMMAND, *command, pty=True).stdout
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
    # A path is left whole, to be copied: the terminal itself breaks it.
    lines = [line for line in plain.splitlines() if str(mine.folder) not in line]
    assert lines
    assert max(map(len, lines)) <= 80


def test_colours_can_be_turned_off(mine: Site) -> None:
    shown = mine.run(COMMAND, "list", "--pack", "x", pty=True, NO_COLOR="1").stdout
    assert "error: no installed pack" in shown


def test_listing_imports_neither_onnx_nor_a_compiler(mine: Site) -> None:
    code = """
import json, sys
from fhe_core.cli import main
try:
    main(["list", "--format", "json"])
finally:
    heavy = {"onnx", "concrete", "torch", "rich", "google", "scipy"}
    print(json.dumps(sorted(heavy & set(sys.modules))), file=sys.stderr)
"""
    result = mine.run(sys.executable, "-c", code)
    assert result.returncode == 0
    assert {record["op"] for record in json.loads(result.stdout)} >= {"Double", LONG}
    assert json.loads(result.stderr.splitlines()[-1]) == []


def test_exit_codes_and_messages_reach_the_shell(mine: Site) -> None:
    model = save_model(mine.folder / "m.onnx", "Concat")
    for command, code in (
        (("explain", "Shift"), 0),
        (("check", model), 1),
        (("explain", "Nothing"), 1),
        (("check", "missing.onnx"), 2),
        (("compile", model, "--calibration", "missing.npy", "-o", "out"), 2),
        (("nothing",), 2),
    ):
        result = mine.run(COMMAND, *command)
        assert result.returncode == code, (command, result)
        assert "Traceback" not in result.stderr
        assert ANSI not in result.stdout + result.stderr
        if code == 2:
            assert result.stderr.startswith("error: ")
            assert result.stdout == ""
    assert not (mine.folder / "out").exists()


def test_a_reader_that_stops_early_is_no_error(mine: Site) -> None:
    process = subprocess.Popen(
        [COMMAND, "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr:
        assert "Traceback" not in process.stderr.read()
    process.wait(timeout=60)
