"""The suite as pytest shows it: ids, marks, strict exceptions, and nothing that passes unseen."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from tests.core.testing.packs import CUSTOM, HALF_MORE, KNOWN, RIGHT, WRONG

SUITE = """
import numpy as np
from fhe_core.testing import PackSuite, Sample

X = np.linspace(-1, 1, 48, dtype=np.float32).reshape(16, 3)


class TestAcme(PackSuite):
    pack = "acme"
    bits = (4,)
    exceptions = {exceptions}

    def samples(self):
        sample = Sample(X, attributes={{"by": 3.0}}, expected=3 * X, name="thrice")
        return {{"Scale": [sample]}}
"""
# What a strict project may have, and nothing that is this kit's.
STRICT = "[pytest]\nxfail_strict = true\nfilterwarnings = error\nempty_parameter_set_mark = fail_at_collect\n"


class Project:
    """Somebody's repository, with one test file, in an environment that has the pack."""

    def __init__(self, folder: Path, site: Any) -> None:
        self.folder = folder
        self.site = site

    def write(self, exceptions: Mapping[str, str] | None = None, ini: str = STRICT) -> None:
        (self.folder / "pytest.ini").write_text(ini)
        text = SUITE.format(exceptions=dict(exceptions or {}))
        (self.folder / "test_acme.py").write_text(text)

    def pytest(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join(filter(None, (str(self.site.folder), os.environ.get("PYTHONPATH"))))
        return subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-p",
                "no:cacheprovider",
                "--strict-markers",
                *arguments,
            ],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": path, "PYTEST_ADDOPTS": ""},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def project(tmp_path: Path, site: Any) -> Project:
    folder = tmp_path / "project"
    folder.mkdir()
    return Project(folder, site)


def test_a_right_pack_is_green_in_a_strict_project(project: Project) -> None:
    project.site.add("acme", source=RIGHT)
    project.write()
    result = project.pytest("-q", "-m", "not fhe")
    assert result.returncode == 0, result.stdout
    assert " passed" in result.stdout
    assert "failed" not in result.stdout
    assert "warning" not in result.stdout


def test_ids_are_the_checks_with_op_and_case(project: Project) -> None:
    project.site.add("acme", source=RIGHT)
    project.write()
    ids = project.pytest("-q", "--collect-only").stdout.splitlines()
    prefix = "test_acme.py::TestAcme::test_"
    assert {
        f"{prefix}entry_point[entry-point]",
        f"{prefix}onnx_cases[Relu/test_relu]",
        f"{prefix}reference[Add/opset-7]",
        f"{prefix}signature[Relu/14]",
        f"{prefix}expected[Scale/thrice]",
        f"{prefix}refusals[Scale/attribute-type]",
        f"{prefix}collected[Scale]",
        f"{prefix}exceptions[none]",
    } <= set(ids)


def test_the_encrypted_runs_and_they_alone_bear_the_mark(project: Project) -> None:
    project.site.add("acme", source=CUSTOM)
    project.write()
    marked = project.pytest("-q", "--collect-only", "-m", "fhe").stdout
    unmarked = project.pytest("-q", "--collect-only", "-m", "not fhe").stdout
    lines = [line for line in marked.splitlines() if "::" in line]
    assert lines
    assert all("::test_encrypted[" in line for line in lines)
    assert "::test_encrypted[" not in unmarked


def test_a_failure_is_the_message_alone(project: Project) -> None:
    project.site.add("acme", source=HALF_MORE)
    project.write()
    result = project.pytest("-q", "-k", "test_expected")
    assert result.returncode == 1
    assert "Scale at opset 2: the result is wrong in 48 of 48 elements" in result.stdout
    assert "1 failed" in result.stdout
    assert "Traceback" not in result.stdout
    assert "running.py" not in result.stdout


def test_an_exception_is_a_strict_xfail(project: Project) -> None:
    project.site.add("acme", source=HALF_MORE)
    project.write({"expected/Scale/thrice": "half more"})
    result = project.pytest("-q", "-rx", "-k", "test_expected or test_exceptions")
    assert result.returncode == 0, result.stdout
    assert "1 xfailed" in result.stdout
    assert "half more" in result.stdout


def test_an_exception_that_is_not_needed_fails_even_where_xfail_is_not_strict(
    project: Project,
) -> None:
    project.site.add("acme", source=CUSTOM)
    project.write({"expected/Scale": "half more"}, ini="[pytest]\n")
    result = project.pytest("-q", "-k", "test_expected")
    assert result.returncode == 1
    assert "[XPASS(strict)] half more" in result.stdout


def test_an_exception_that_fits_no_test_fails(project: Project) -> None:
    project.site.add("acme", source=CUSTOM)
    project.write({"expected/Shift": "not there"})
    result = project.pytest("-q", "-k", "test_exceptions")
    assert result.returncode == 1
    assert "the exception 'expected/Shift' is declared, and there is no such case" in result.stdout


@pytest.mark.parametrize(
    ("suite", "said"),
    [
        ("class TestNothing(PackSuite): ...", "TestNothing does not name its pack: set `pack`"),
        (
            "class TestNothing(PackSuite):\n    pack = 'acne'",
            "TestNothing: pack 'acne': no such pack is installed here",
        ),
    ],
)
def test_a_suite_that_would_collect_nothing_fails(suite: str, said: str, project: Project) -> None:
    project.site.add("acme", source=CUSTOM)
    text = f"from fhe_core.testing import PackSuite\n\n{suite}\n"
    (project.folder / "test_nothing.py").write_text(text)
    result = project.pytest("-q")
    assert result.returncode != 0
    assert said in result.stdout
    assert "Traceback" not in result.stdout


def test_a_pack_that_does_not_load_fails_with_the_reason(project: Project) -> None:
    project.site.add("acme", **WRONG["entry-point"])
    project.write()
    result = project.pytest("-q")
    assert result.returncode == 1
    assert "1 failed" in result.stdout
    assert (
        "the pack is not loaded, it is failed: importing acme_ops:no_such_object" in result.stdout
    )


ONE_COMMAND = ("-p", "fhe_core.testing.plugin", "--pyargs", "fhe_core.testing.conformance")


def test_one_command_tests_an_installed_pack_from_anywhere(project: Project) -> None:
    project.site.add("acme", source=KNOWN)
    result = project.pytest("-q", *ONE_COMMAND, "--pack", "acme", "-m", "not fhe", "-W", "error")
    assert result.returncode == 0, result.stdout
    assert " passed" in result.stdout


def test_one_command_without_a_pack_says_how_to_name_one(project: Project) -> None:
    result = project.pytest("-q", *ONE_COMMAND)
    assert result.returncode != 0
    assert (
        "no pack is named: run `python -m pytest -p fhe_core.testing.plugin --pack" in result.stdout
    )
    without = project.pytest("-q", "--pyargs", "fhe_core.testing.conformance")
    assert without.returncode != 0
    assert "no pack is named" in without.stdout


def test_the_kit_is_no_entry_point_of_pytest(project: Project) -> None:
    """One would be imported before coverage measures, in every project of the environment."""
    code = dedent(
        """
        from importlib.metadata import distribution
        print([e.group for e in distribution("fhe-core").entry_points])
        """
    )
    assert "pytest11" not in project.site.run(code)
