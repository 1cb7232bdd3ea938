"""Prints what `explanations` found: paragraphs for people, or their records."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

import click

from fhe_core.cli import text
from fhe_core.cli.explanation import Explanation, Other, Served, Supply, record
from fhe_core.cli.listing import opsets, status_of
from fhe_core.cli.render import to_json
from fhe_core.registry import REQUIRED
from fhe_core.registry.schema import display_domain

FUSION = {
    "always": "always: it becomes part of a table look-up",
    "never": "never: it computes on encrypted integers",
    "conditional": "conditional: its place in the graph decides",
}

Lines = Iterator[tuple[str, str]]  # label, or "" where it goes on with the one before; content


def print_explanations(found: Sequence[Explanation], fmt: str) -> None:
    """Prints each, in the format that the user chose."""
    if fmt == "json":
        click.echo(to_json([record(explanation) for explanation in found]))
        return
    for number, explanation in enumerate(found):
        if number:
            click.echo()
        (_print_markdown if fmt == "md" else _print)(explanation)


def _print(explanation: Explanation) -> None:
    click.secho(_heading(explanation), bold=True)
    if explanation.summary:
        click.echo(text.wrapped(explanation.summary, sys.stdout))
    if explanation.url:
        click.echo(explanation.url)
    for row in explanation.rows:
        click.echo(f"\n{_range(row)}")
        for label, content in _lines(row):
            click.echo(text.wrapped(f"  {label:<12}{content}", sys.stdout, indent=" " * 14))


def _print_markdown(explanation: Explanation) -> None:
    click.echo(f"## {_heading(explanation)}")
    if explanation.summary:
        click.echo(f"\n{explanation.summary}")
    if explanation.url:
        click.echo(f"\n[ONNX's page]({explanation.url})")
    for row in explanation.rows:
        range_ = _range(row)
        click.echo(f"\n### {range_[0].upper()}{range_[1:]}\n")
        for label, content in _lines(row):
            click.echo(f"- {label}: {content}" if label else f"  - {content}")


def _heading(explanation: Explanation) -> str:
    return f"{explanation.op_type} of {display_domain(explanation.domain)}"


def _range(row: Served) -> str:
    """``opsets 7+, ONNX's versions 7, 13, 14``."""
    count = len(row.onnx_versions)
    versions = f", ONNX's version{'s' * (count != 1)} {', '.join(map(str, row.onnx_versions))}"
    return f"opsets {opsets(row.spec)}{versions if count else ''}"


def _lines(row: Served) -> Lines:
    signature = row.signature
    variadic = [f"any number of {signature.variadic}"] if signature.variadic else []
    yield "inputs", ", ".join([*signature.inputs, *variadic]) or "none"
    if signature.optional_inputs:
        yield "optional", ", ".join(signature.optional_inputs)
    label = "attributes"
    for name, default in signature.attributes.items():
        yield label, f"{name}, required" if default is REQUIRED else f"{name} = {default!r}"
        label = ""
    yield "float", row.impl.target
    yield from _origin(row.impl)
    if row.quantized is None:
        yield "quantized", "none: it runs in the clear only"
    else:
        yield "quantized", row.quantized.target
        yield from _origin(row.quantized)
        yield "fusion", FUSION[row.spec.fusion or "conditional"]
    for other in row.others:
        yield from _other(other)


def _other(other: Other) -> Lines:
    """Who else offers it, and does not get to serve."""
    slot = "quantized" if other.slot == "quantized" else "float"
    yield status_of(other.spec), f"{slot} {other.supply.target}, opsets {opsets(other.spec)}"
    yield from _origin(other.supply)


def _origin(supply: Supply) -> Lines:
    if supply.file:
        yield "", f"{supply.file}:{supply.line}" if supply.line else supply.file
    pack = supply.pack
    if pack is not None:
        distribution = f"{pack.distribution} {pack.version}" if pack.distribution else ""
        entry_point = f"entry point {pack.entry_point}" if pack.entry_point else ""
        yield "", ", ".join(filter(None, (f"pack {pack.name}", distribution, entry_point)))
