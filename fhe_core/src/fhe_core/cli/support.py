"""``fhe-ops check MODEL``: what becomes of each node, and what is in the way."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import click

from fhe_core.cli import text
from fhe_core.cli.render import Table, show, to_json, to_markdown

if TYPE_CHECKING:
    from fhe_core.graph.support import Problem, SupportReport


def print_report(report: SupportReport, fmt: str) -> None:
    """Prints a verdict, the nodes by what becomes of them, and every problem."""
    if fmt == "json":
        click.echo(to_json(report.to_dict()))
        return
    markdown = fmt == "md"
    click.echo(_verdict(report))
    if report.nodes:
        click.echo()
        show(_summary(report), None, fmt)
    in_float = _float_only(report)
    if in_float:
        click.echo()
        click.echo(text.wrapped(in_float, sys.stdout))
    if report.problems:
        click.echo()
        click.echo(to_markdown(_problems(report)) if markdown else _paragraphs(report))


def _verdict(report: SupportReport) -> str:
    if report.ok:
        return "This model compiles."
    return f"This model does not compile: {text.count(len(report.problems), 'problem')}."


def _summary(report: SupportReport) -> Table:
    """How many nodes there are of each status, and of which ops."""
    ops: dict[str, Counter[str]] = defaultdict(Counter)
    for node in report.nodes:
        ops[node.status][node.op] += 1
    rows = [
        (
            status,
            str(counts.total()),
            ", ".join(f"{op} x{count}" if count > 1 else op for op, count in counts.items()),
        )
        for status, counts in ops.items()
    ]
    return Table(("status", "nodes", "ops"), rows, frozenset({"nodes"}))


def _float_only(report: SupportReport) -> str:
    """The ops that run in the clear because nobody has a quantized form, and when they run."""
    places: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for node in report.nodes:
        if not node.quantized and node.status in ("after decryption", "float only"):
            places[node.op][node.status].append(node.node)
    if not places:
        return ""
    ops = ", ".join(
        f"{op} ({'; '.join(_place(status, nodes) for status, nodes in statuses.items())})"
        for op, statuses in places.items()
    )
    return f"In float only, as no installed pack has a quantized form: {ops}."


def _place(status: str, nodes: list[str]) -> str:
    named = ", ".join(nodes)
    return named if status == "float only" else f"{named}, {status}"


def _problems(report: SupportReport) -> Table:
    rows = [(p.node, p.op, p.reason, p.fix, p.pack) for p in report.problems]
    return Table(("node", "op", "reason", "fix", "pack"), rows)


def _paragraphs(report: SupportReport) -> str:
    """One paragraph for all nodes of one op that have the same problem, the fix on its own line."""
    groups: dict[tuple[str, str, str, str], list[Problem]] = defaultdict(list)
    for problem in report.problems:
        groups[problem.op, problem.pack, problem.reason, problem.fix].append(problem)
    lines = []
    for (op, pack, reason, fix), problems in groups.items():
        nodes = ", ".join(problem.node for problem in problems if problem.node)
        whose = f"{op}, pack {pack}" if op and pack else op
        place = f"{nodes} ({whose})" if nodes and whose else nodes or whose
        line = f"- {place}: {reason}" if place else f"- {reason}"
        lines.append(text.wrapped(line, sys.stdout, indent="  "))
        if fix:
            lines.append(text.wrapped(f"  fix: {fix}", sys.stdout, indent="    "))
    return "\n".join(lines)
