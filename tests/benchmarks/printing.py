"""Tables of 80 columns: drawn on a terminal, plain text on a pipe."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

COLUMNS = 80
STYLES = {"met": "green", "missed": "bold red"}

console = Console(width=COLUMNS, highlight=False)


def heading(text: str) -> None:
    console.print(Text(f"\n{text}", style="bold"))


def note(text: str) -> None:
    console.print(Text(text, style="dim"))


def show(titles: Sequence[str], rows: Iterable[Sequence[str]], *, left: Sequence[str] = ()) -> None:
    """Print a table. Only its first and last column are folded.

    The first column and those in ``left`` hold words, all others numbers.
    """
    table = Table(
        box=box.SIMPLE_HEAD if console.is_terminal else None,
        header_style="bold",
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0) if console.is_terminal else (0, 2, 0, 0),
    )
    for i, title in enumerate(titles):
        words = i == 0 or title in left
        inner = 0 < i < len(titles) - 1
        table.add_column(
            title, justify="left" if words else "right", overflow="fold", no_wrap=inner
        )
    for row in rows:
        table.add_row(*(Text(cell, style=_style(cell)) for cell in row))
    with console.capture() as drawn:
        console.print(table)
    # Cells are filled up with spaces, the last ones too.
    print("\n".join(line.rstrip() for line in drawn.get().splitlines()))


def _style(cell: str) -> str:
    return next((style for word, style in STYLES.items() if cell.startswith(word)), "")
