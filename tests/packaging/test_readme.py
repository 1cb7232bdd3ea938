"""The README's code runs as it stands, in order, beside the digits example's files."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")


def blocks(text: str, language: str) -> list[str]:
    return [code for found, code in FENCE.findall(text) if found == language]


@pytest.fixture
def digits(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("digits_mlp.onnx", "digits.npz"):
        shutil.copy(root / "docs" / "examples" / "digits" / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.fhe
def test_python_blocks_run(root: Path, digits: Path) -> None:
    codes = blocks((root / "README.md").read_text(encoding="utf-8"), "python")
    assert codes
    namespace: dict[str, object] = {"__name__": "readme"}
    for number, code in enumerate(codes, start=1):
        exec(compile(code, f"README.md, Python block {number}", "exec"), namespace)


def test_commands_run(root: Path, digits: Path) -> None:
    text = (root / "README.md").read_text(encoding="utf-8")
    lines = "".join(blocks(text, "sh")).splitlines()
    commands = [line for line in lines if line.startswith("fhe-ops ")]
    assert commands
    for command in commands:
        tool, *arguments = shlex.split(command, comments=True)
        tool = str(Path(sys.executable).with_name(tool))
        done = subprocess.run([tool, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        assert done.stdout.strip()


def test_links_lead_somewhere(root: Path) -> None:
    pages = [root / "README.md", *(root / "docs").rglob("*.md")]
    broken = [
        f"{page.relative_to(root)}: {target}"
        for page in pages
        for target in LINK.findall(page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert not broken


def test_makefile_has_the_readmes_targets(root: Path) -> None:
    text = (root / "README.md").read_text(encoding="utf-8")
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"\bmake ([a-z]+)`", text))
    assert {"demo", "test"} <= named
    assert named <= set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    assert "make test" in (root / ".ci" / "run").read_text(encoding="utf-8")
