"""Between the library and the shell: every error becomes a message and an exit code.

Nothing that a user can do ends in a traceback; ``FHE_TRACEBACK=1`` shows it to pack authors.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn, TextIO

import click

from fhe_core.arguments import is_on
from fhe_core.cli import forgiving, text
from fhe_core.errors import (
    CompilationError,
    FheError,
    PackError,
    SignatureError,
    UnsupportedOpError,
)

TRACEBACK = "FHE_TRACEBACK"

DONE = 0
NO = 1
MISUSE = 2
DEFECT = 70  # EX_SOFTWARE of sysexits.h: a crash is not an answer, and scripts must see that
INTERRUPTED = 130  # 128 + SIGINT, as shells have it

# The question was well put, and the answer is no. Every other FheError is about what was given.
ANSWERS = (CompilationError, PackError, SignatureError, UnsupportedOpError)


@dataclass(frozen=True)
class Failure:
    """What is printed of an error, and the exit code."""

    problem: str
    code: int
    details: tuple[tuple[str, str], ...] = ()


class Program(click.Group):
    """A click group whose every failure goes through `failure_of`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which they are written, which is that of a user's first day."""
        return list(self.commands)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        def run() -> Any:
            return super(Program, self).main(
                args=args,
                prog_name=prog_name or self.name,
                complete_var=complete_var,
                standalone_mode=False,
                windows_expand_args=windows_expand_args,
                **extra,
            )

        if not standalone_mode:
            return run()
        forgiving.install()
        try:
            with _plain_warnings():
                code = run()
        except Exception as error:  # noqa: BLE001 - a pack's code can raise anything
            _stop(error)
        sys.exit(code if isinstance(code, int) else DONE)


def failure_of(error: Exception) -> Failure:
    """What to tell the user about an error."""
    if isinstance(error, FheError):
        place = str(error.where)
        details = (("expected", error.expected), ("got", error.got), ("fix", error.fix))
        return Failure(
            f"{place}: {error.problem}" if place else error.problem,
            NO if isinstance(error, ANSWERS) else MISUSE,
            tuple((label, detail) for label, detail in details if detail),
        )
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else ""
        fix = (("fix", f"see `{command} --help`"),) if command else ()
        return Failure(_sentence(error.format_message()), MISUSE, fix)
    if isinstance(error, click.ClickException):
        return Failure(_sentence(error.format_message()), MISUSE)
    if isinstance(error, click.Abort):
        return Failure("interrupted", INTERRUPTED)
    if isinstance(error, OSError):
        path = f"{error.filename}: " if error.filename else ""
        return Failure(
            f"{path}{error.strerror or error}",
            MISUSE,
            (("fix", "check the path, its permissions and the free space"),),
        )
    name = type(error).__name__
    return Failure(
        f"unexpected {name}: {error}" if str(error) else f"unexpected {name}",
        DEFECT,
        (("fix", f"run it again with {TRACEBACK}=1 and report what it prints"),),
    )


def _stop(error: Exception) -> NoReturn:
    if is_on(TRACEBACK):
        traceback.print_exception(error)
    failure = failure_of(error)
    echo_labelled("error", "red", failure.problem)
    for label, detail in failure.details:
        echo_labelled(f"  {label}", None, detail)
    sys.exit(failure.code)


def echo_labelled(label: str, color: str | None, message: str) -> None:
    """One line, or paragraph on a terminal, of standard error: ``label: message``."""
    # Whitespace of every kind is joined: a message may quote another with line breaks.
    line = f"{label}: {' '.join(message.split())}"
    indent = " " * (len(label) - len(label.lstrip()) + 2)
    shown = text.wrapped(line, sys.stderr, indent=indent)
    if color and not os.environ.get("NO_COLOR"):
        shown = click.style(label, fg=color, bold=True) + shown[len(label) :]
    click.echo(shown, err=True)


@contextmanager
def packs_aside() -> Iterator[None]:
    """What packs print in the body goes to standard error: standard output is for the answer alone.

    Their libraries may write without Python, so the file descriptor is moved too.
    """
    out = None
    with contextlib.suppress(OSError):  # one of the two may be closed
        sys.stdout.flush()
        out = os.dup(1)
        os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        if out is not None:
            os.dup2(out, 1)
            os.close(out)


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Warnings meant for users are a line each; those meant for programmers are not shown."""

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        echo_labelled("warning", "yellow", str(message))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = show
        yield


def _sentence(message: str) -> str:
    """click's message without its capital and full stop, as this project writes them."""
    message = message.strip().rstrip(".")
    return message[:1].lower() + message[1:]
