"""Text that fits a terminal, and is left alone on a pipe."""

from __future__ import annotations

import shutil
import textwrap
from typing import TextIO


def width_of(stream: TextIO) -> int | None:
    """The columns of a terminal; None for a pipe or a file."""
    return shutil.get_terminal_size().columns if stream.isatty() else None


def wrapped(line: str, stream: TextIO, *, indent: str = "") -> str:
    """A line broken between words where the terminal ends; ``indent`` starts what follows."""
    width = width_of(stream)
    if width is None:
        return line
    return textwrap.fill(
        line,
        # A line that fills the last column makes some terminals add an empty one.
        max(width - 1, 20),
        subsequent_indent=indent,
        drop_whitespace=True,
        break_long_words=False,  # a path stays whole, to be copied
        break_on_hyphens=False,
    )


def count(number: int, noun: str) -> str:
    """``1 sample``, ``2 samples``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
