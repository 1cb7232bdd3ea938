"""Tables: drawn on a terminal, aligned on a pipe, as JSON, or as Markdown."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import click

from fhe_core.cli import text

FORMATS = ("table", "json", "md")


@dataclass(frozen=True)
class Table:
    """Rows of text under titles.

    ``numbers`` are the titles of columns that align to the right. An empty cell is shown as "-".
    """

    titles: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    numbers: frozenset[str] = field(default=frozenset())


def show(table: Table, records: Any, fmt: str) -> None:
    """Prints a table, or its records, in the format that the user chose."""
    if fmt == "json":
        click.echo(to_json(records))
    elif fmt == "md":
        click.echo(to_markdown(table))
    elif sys.stdout.isatty():
        draw(table)
    else:
        click.echo(to_text(table))


@dataclass(frozen=True)
class Section:
    """A table under a heading."""

    heading: str
    table: Table


def show_sections(
    sections: Sequence[Section], records: Any, fmt: str, *, title: str, lead: str
) -> None:
    """Prints tables under headings, or their records; Markdown is a page with a title and lead."""
    if fmt == "json":
        click.echo(to_json(records))
        return
    if fmt == "md":
        click.echo(f"# {title}\n\n{lead}")
    for number, section in enumerate(sections):
        if number or fmt == "md":
            click.echo()
        if fmt == "md":
            click.echo(f"## {section.heading}\n")
        else:
            click.secho(text.wrapped(section.heading, sys.stdout), bold=True)
        show(section.table, None, fmt)


def notes(lines: Sequence[str], fmt: str) -> None:
    """Prints what goes below a table, a paragraph or a list item each."""
    if lines:
        click.echo()
    for line in lines:
        bullet = "- " if fmt == "md" else ""
        click.echo(text.wrapped(bullet + line, sys.stdout, indent="  "))


def to_json(records: Any) -> str:
    """What other programs read."""
    return json.dumps(records, indent=2)


def to_markdown(table: Table) -> str:
    """A GitHub table."""
    rules = ["-:" if title in table.numbers else "-" for title in table.titles]
    rows = [[cell.replace("|", "\\|") or "-" for cell in row] for row in table.rows]
    lines = [f"| {' | '.join(row)} |" for row in (table.titles, *rows)]
    lines.insert(1, f"|{'|'.join(rules)}|")
    return "\n".join(lines)


def to_text(table: Table) -> str:
    """Aligned columns, two spaces apart, as wide as they need to be."""
    rows = [table.titles, *([cell or "-" for cell in row] for row in table.rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if title in table.numbers else cell.ljust(width)
            for title, width, cell in zip(table.titles, widths, row, strict=True)
        )
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def draw(table: Table) -> None:
    """A table on the terminal: what does not fit a column goes on below."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as Drawing
    from rich.text import Text

    drawing = Drawing(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        header_style="bold",
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for title in table.titles:
        is_number = title in table.numbers
        drawing.add_column(title, justify="right" if is_number else "left", overflow="fold")
    for row in table.rows:
        # Text, not str: a cell in brackets is no markup.
        drawing.add_row(*(Text(cell or "-") for cell in row))
    Console(width=text.width_of(sys.stdout)).print(drawing)
