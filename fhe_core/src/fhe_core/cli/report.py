"""``fhe-ops report DIR``, and the picture of a search that ``fhe-ops compile --pareto`` draws."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from fhe_core.cli import render
from fhe_core.cli.outputs import beside, check_replaceable
from fhe_core.errors import ArtifactError, CompilationError, InputError

PICTURES = (".png", ".svg")


def print_report(folder: Path, fmt: str, page: Path | None) -> None:
    """Prints the report of a saved model, or writes it as a web page."""
    from fhe_core.compiler.report.page import page as rendered
    from fhe_core.compiler.report.reading import read_report

    if page is not None:
        check_replaceable(page)
    report = read_report(folder)
    name = Path(os.path.realpath(folder)).name
    try:
        drawn = None if page is None else rendered(report, name).encode()
        if drawn is None:
            _print(report, name, fmt)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"the report of the model in {str(folder)!r} cannot be understood",
            got=f"{type(error).__name__}: {error}",
            fix="have the model saved again with this version of fhe-core",
        ) from error
    if page is not None and drawn is not None:
        _write(page, drawn)
        click.echo(f"Saved to {page}")


def _print(report: Mapping[str, Any], name: str, fmt: str) -> None:
    from fhe_core.compiler.report.sections import headline, parts

    tables = parts(report)
    shown = [
        render.Section(part.heading, render.Table(part.titles, part.rows, part.numbers))
        for part in tables
    ]
    lead = f"{headline(report)[:1].upper()}{headline(report)[1:]}."
    if fmt == "table":
        click.echo(f"{name}, {headline(report)}\n")
    render.show_sections(shown, report, fmt, title=name, lead=lead)
    if fmt != "json":
        render.notes([*report["notices"], *(part.note for part in tables if part.note)], fmt)


def check_picture(path: Path, settings: Mapping[str, Any]) -> None:
    """Raises before the work begins what would keep the front of a search from being drawn.

    Raises:
        InputError: another suffix, a place that cannot be written, or nothing is searched for.
        CompilationError: matplotlib is missing, which draws .png.
    """
    if path.suffix not in PICTURES:
        raise InputError(
            f"the picture {str(path)!r} is neither .png nor .svg",
            expected="the name of a .png or .svg file",
            fix=f"call it {str(path.with_suffix('.svg'))!r}" if path.name else "give it a name",
        )
    if settings.get("plan") is not None or settings.get("n_bits") not in (None, "auto"):
        raise InputError(
            "there is no front to draw where nothing is searched for",
            expected="--n-bits auto, and no --plan",
            fix="leave out --pareto, or what fixes the widths",
        )
    if path.suffix == ".png":
        _matplotlib()
    check_replaceable(path)


def draw_front(path: Path, report: Mapping[str, Any], title: str) -> None:
    """Draws what a search looked at: by matplotlib where the picture is a .png.

    Raises:
        CompilationError: the search had no candidate with a price.
    """
    from fhe_core.compiler.report.page import front

    if not (report["search"] and report["search"]["points"]):
        raise CompilationError(
            "the search priced no candidate, so there is no front to draw",
            fix="leave out --pareto",
        )
    if path.suffix == ".svg":
        _write(path, front(report, title).encode())
    else:
        _plot(path, report, title)


#: How matplotlib draws each kind of point, those that matter last.
_MARKS = {
    "beyond": {"color": "lightgrey", "s": 18, "label": "did not pass every check"},
    "within": {"color": "dimgrey", "s": 18, "label": "within tolerance"},
    "front": {"color": "tab:blue", "s": 26, "label": "front"},
    "found": {"color": "tab:red", "s": 60, "label": "compiled"},
}


def _plot(path: Path, report: Mapping[str, Any], title: str) -> None:
    from fhe_core.compiler.report.charts import kind_of, least_score

    figure, axes = _matplotlib().subplots(figsize=(7, 4.5), layout="constrained")
    points = report["search"]["points"]
    best = [(point["complexity"], point["score"]) for point in points if point["on_front"]]
    axes.plot(*zip(*best, strict=True), color="tab:blue", linewidth=1.2)
    for order, (kind, mark) in enumerate(_MARKS.items(), 3):
        part = [p for p in points if kind_of(p, report) == kind]
        if part:
            costs, scores = [p["complexity"] for p in part], [p["score"] for p in part]
            axes.scatter(costs, scores, zorder=order, **mark)
    least = least_score(report["search"])
    if least is not None:
        label = "least score within tolerance"
        axes.axhline(least, color="tab:red", linestyle="--", linewidth=1, label=label)
    axes.set(xscale="log", xlabel="complexity", ylabel="score", title=title)
    axes.legend(frameon=False, fontsize=8)
    with beside(path) as temporary:
        figure.savefig(temporary, dpi=150)


def _matplotlib() -> Any:
    """``matplotlib.pyplot``, drawing to files.

    Raises:
        CompilationError: it is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise CompilationError(
            "a .png of the front is drawn by matplotlib, which is not installed",
            expected="matplotlib, or a picture called .svg",
            fix="run: pip install 'fhe-core[plot]', or call the picture .svg",
        ) from error
    matplotlib.use("agg")
    import matplotlib.pyplot

    return matplotlib.pyplot


def _write(path: Path, data: bytes) -> None:
    with beside(path) as temporary:
        temporary.write_bytes(data)
