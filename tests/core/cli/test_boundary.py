"""Every failure is a message and an exit code; no traceback reaches a user."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from fhe_core.cli import main
from fhe_core.cli.boundary import failure_of

import fhe_core
from fhe_core import errors

from .conftest import Site, cli, refused


def test_help_is_readable_at_80_columns() -> None:
    for command in ((), *((name,) for name in main.commands)):
        for flag in ("-h", "--help"):
            answer = cli(*command, flag)
            assert answer.code == 0
            assert max(map(len, answer.out.splitlines())) <= 80
            assert answer.out.startswith("Usage: ")


def test_the_help_names_every_command_and_exit_code() -> None:
    out = " ".join(cli("--help").out.split())
    for word in ("list", "packs", "explain", "check", "compile", "run", "Exit codes: 0 done"):
        assert word in out


def test_the_version_is_that_of_the_core() -> None:
    assert cli("--version") == (0, f"fhe-ops {fhe_core.__version__}\n", "")


def test_no_command_is_wrong_use_and_shows_the_help() -> None:
    answer = cli()
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("Usage: fhe-ops ")


@pytest.mark.parametrize("arguments", [("lsit",), ("--lost",)])
def test_a_command_that_does_not_exist_is_wrong_use(arguments: tuple[str, ...]) -> None:
    refused(cli(*arguments), 2, arguments[0], "see `fhe-ops --help`")


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("FheError", 2),
        ("ModelError", 2),
        ("UnsupportedOpError", 1),
        ("PackError", 1),
        ("SignatureError", 1),
        ("CalibrationError", 2),
        ("InputError", 2),
        ("PlanError", 2),
        ("CompilationError", 1),
        ("ArtifactError", 2),
        ("ProcessError", 2),
        ("ResourceError", 2),
    ],
)
def test_every_typed_error_has_a_code_and_keeps_its_parts(name: str, code: int) -> None:
    cls: type[errors.FheError] = getattr(errors, name)
    where = errors.Where(node="conv_1", op="Conv", opset=17)
    error = cls("it is wrong", where=where, expected="right", got="wrong", fix="do better")
    failure = failure_of(error)
    assert failure.code == code
    assert failure.problem == "node 'conv_1', op Conv, opset 17: it is wrong"
    assert failure.details == (("expected", "right"), ("got", "wrong"), ("fix", "do better"))


def test_a_defect_is_told_as_one_and_its_traceback_kept_for_those_who_ask(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken() -> None:
        raise KeyError("x")

    monkeypatch.setitem(vars(fhe_core), "get_registry", broken)
    answer = cli("list")
    refused(answer, 70, "unexpected KeyError: 'x'", "FHE_TRACEBACK=1")
    monkeypatch.setenv("FHE_TRACEBACK", "1")
    result = CliRunner().invoke(main, ["list"])
    assert result.exit_code == 70
    assert "Traceback" in result.stderr
    assert 'raise KeyError("x")' in result.stderr


def test_warnings_cannot_become_errors(mine: Site) -> None:
    # These tests run with every warning an error; so may a user's PYTHONWARNINGS.
    mine.add("stale", "pass", requires="fhe-core>=99")
    answer = cli("list", "--format", "json")
    assert answer.code == 0
    assert json.loads(answer.out)
    assert answer.err.startswith("warning: pack 'stale'")
