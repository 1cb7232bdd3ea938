"""Runs what a page of the documentation shows, block by block, as its reader would.

What a block is for shows in its language and its first line:

- ``python``, ``toml`` or ``yaml`` whose first line is a comment with a path: a file, written below the
  working folder;
- any other ``python``: run, all in one process; ``<!-- new process -->`` above one starts another,
  for Python finds packs once. A ``text`` block after it shows what it prints;
- ``console``: commands after ``$``, run in one shell on a terminal of 80 columns; behind a backslash,
  they go on after ``>``. What they print is compared if any of it is shown; ``...`` stands for
  anything. The exit code must be 0, unless a line that starts with ``error:`` is shown, or the
  command ``echo $?`` comes next.

An HTML comment ``<!-- not run: REASON -->`` above a block keeps it from being run. Both processes
work in one folder: where the shell has gone with ``cd``.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .environments import Environment

COLUMNS, ROWS = 80, 50
SECONDS = 600  # for one command or block

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# ([\w.-]+(?:/[\w.-]+)*\.(?:py|toml|ya?ml))\n")
_SKIP = re.compile(r"<!-- not run: (.+?) -->\s*\Z", re.DOTALL)
_NEW = re.compile(r"<!-- new process -->\s*\Z")
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        skipped: the reason why it is not run, or None.
        new_process: whether its Python starts afresh.
    """

    page: str
    line: int
    language: str
    text: str
    skipped: str | None
    new_process: bool

    def __str__(self) -> str:
        return f"{self.page}, line {self.line}"

    @property
    def path(self) -> str | None:
        """The file that the block shows."""
        match = _FILE.match(self.text)
        return match[1] if match and self.language in ("python", "toml", "yaml") else None

    @property
    def commands(self) -> list[tuple[str, str]]:
        """Of a console: each command, and what is shown of its output."""
        parts = re.split(r"^\$ ", self.text, flags=re.MULTILINE)
        assert not parts[0], f"{self}: a console block starts with a command"
        # As a shell prompts for the rest of a command that ends in a backslash.
        pairs = [part.replace("\\\n> ", "").partition("\n") for part in parts[1:]]
        return [(command, output) for command, _, output in pairs]


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    for match in _BLOCK.finditer(text):
        before = text[: match.start()]
        skip = _SKIP.search(before)
        yield Block(
            page=page.name,
            line=before.count("\n") + 1,
            language=match[1],
            text=match[2],
            skipped=skip[1] if skip else None,
            new_process=bool(_NEW.search(before)),
        )


def run(page: Path, environment: Environment, folder: Path) -> None:
    """Runs a page's blocks in order; fails at the first that does not do what it shows."""
    shell = Shell(environment, folder)
    session: Session | None = None
    printed: str | None = None  # by the Python block just before
    try:
        for block in blocks(page):
            if block.skipped:
                continue
            if block.path:
                file = shell.folder / block.path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(block.text, encoding="utf-8")
                printed = None
            elif block.language == "python":
                if session and block.new_process:
                    session.close()
                    session = None
                session = session or Session(environment, folder)
                printed = session.run(block, shell.folder)
            elif block.language == "text" and printed is not None:
                compare(block.text, printed, str(block))
                printed = None
            elif block.language == "console":
                _run_console(shell, block)
                printed = None
            else:
                raise AssertionError(f"{block}: nobody runs a block in {block.language!r} here")
    finally:
        shell.close()
        if session:
            session.close()


def _run_console(shell: Shell, block: Block) -> None:
    commands = block.commands
    for number, (command, shown) in enumerate(commands):
        printed, code = shell.run(command)
        may_fail = "\nerror:" in f"\n{shown}" or [c for c, _ in commands][number + 1 :][:1] == [
            "echo $?"
        ]
        place = f"{block}: $ {command}"
        assert code == 0 or may_fail, f"{place}\nended with exit code {code}:\n{printed}"
        if shown:
            compare(shown, printed, place)


def compare(shown: str, printed: str, place: str) -> None:
    """Fails unless the output is as it is shown."""
    assert matches(shown, printed), f"{place}\nis shown to print:\n{shown}\nbut prints:\n{printed}"


def matches(shown: str, printed: str) -> bool:
    """Whether words follow each other as they are shown, ``...`` being anything.

    Where a line breaks depends on how long the paths are in it, so that is not compared.
    """
    parts = (r"\s+".join(map(re.escape, part.split())) for part in shown.split("..."))
    return re.fullmatch(r"\s*" + ".*?".join(parts) + r"\s*", printed, re.DOTALL) is not None


class Shell:
    """A shell that keeps its folder and variables from command to command."""

    _MARK = "---the command has ended"

    def __init__(self, environment: Environment, folder: Path) -> None:
        self.folder = folder
        self._output, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self._process = subprocess.Popen(
            ["bash", "--norc", "--noprofile"],
            cwd=folder,
            # A dumb terminal: programs draw their tables, and move no cursor.
            env={**environment.variables, "TERM": "dumb"},
            stdin=subprocess.PIPE,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
        )
        os.close(terminal)

    def run(self, command: str) -> tuple[str, int]:
        """What a command prints, standard output and error as they come, and its exit code."""
        assert self._process.stdin
        # `(exit ...)` hands the exit code on: `$?` asks for that of the command before.
        script = (
            f"(exit ${{code:-0}})\n{{ {command}\n}} </dev/null\ncode=$?\n"
            f"printf '\\n{self._MARK} %s %s\\n' $code \"$PWD\"\n"
        )
        self._process.stdin.write(script.encode())
        self._process.stdin.flush()
        with _TimeLimit(self._process):
            text = ""
            while not (end := re.search(rf"\n{self._MARK} (\d+) (.*)\n", text)):
                try:
                    data = os.read(self._output, 65536)
                except OSError:  # the terminal is gone
                    raise AssertionError(f"$ {command}\nended the shell:\n{text}") from None
                text = (text + data.decode()).replace("\r\n", "\n")
        self.folder = Path(end[2])
        return _CONTROL.sub("", text[: end.start()]), int(end[1])

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(SECONDS)
        os.close(self._output)


class Session:
    """A Python process that runs blocks in one namespace."""

    _DRIVER = """
import contextlib, io, json, os, sys, traceback
namespace = {"__name__": "__main__"}
answers, sys.stdout = sys.stdout, sys.stderr
for line in sys.stdin:
    name, code, folder = json.loads(line)
    os.chdir(folder)
    printed, error = io.StringIO(), None
    try:
        with contextlib.redirect_stdout(printed):
            exec(compile(code, name, "exec"), namespace)
    except BaseException:
        error = traceback.format_exc()
    print(json.dumps([printed.getvalue(), error]), file=answers, flush=True)
"""
    _WARNINGS = ("-W", "error", "-W", "ignore:pkg_resources is deprecated:UserWarning")

    def __init__(self, environment: Environment, folder: Path) -> None:
        self._process = subprocess.Popen(
            [str(environment.python), *self._WARNINGS, "-c", self._DRIVER],
            cwd=folder,
            env=environment.variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, block: Block, folder: Path) -> str:
        """What a block prints. Raises AssertionError if it raises anything."""
        assert self._process.stdin
        assert self._process.stdout
        with _TimeLimit(self._process):
            request = [str(block), block.text, str(folder)]
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        assert answer, f"{block}: the process ended"
        printed, error = json.loads(answer)
        assert error is None, f"{block}:\n{printed}{error}"
        return str(printed)

    def close(self) -> None:
        self._process.communicate()


class _TimeLimit(threading.Timer):
    """Ends a process, and what it started, when a body takes too long."""

    def __init__(self, process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
        super().__init__(SECONDS, lambda: os.killpg(process.pid, signal.SIGKILL))

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *_: object) -> None:
        self.cancel()
