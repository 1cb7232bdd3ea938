"""The report as one web page that needs nothing else: no network, no script, no fonts of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fhe_core.compiler.report import charts, sections
from fhe_core.compiler.report.drawing import BOX_HEIGHT, BOX_WIDTH, CONTOUR, drawn

_TEMPLATES = Path(__file__).parent / "templates"


def page(report: Mapping[str, Any], title: str) -> str:
    """HTML. Everything that comes from the model is escaped.

    Args:
        title: what to call the model.
    """
    return _rendered(
        "page.html.jinja",
        title=title,
        notices=report["notices"],
        chart=charts.front_chart(report),
        headline=sections.headline(report),
        parts=sections.parts(report),
        drawing=drawn(report),
        box={"width": BOX_WIDTH, "height": BOX_HEIGHT, "contour": CONTOUR},
        bars=charts.cost_bars(report["layers"]),
        standalone=False,
    )


def front(report: Mapping[str, Any], title: str) -> str:
    """The front of the model's search alone, as an SVG picture. The search has priced candidates."""
    return _rendered(
        "front.svg.jinja", title=title, chart=charts.front_chart(report), standalone=True
    )


def _rendered(template: str, **values: Any) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    values |= {"width": charts.WIDTH, "height": charts.HEIGHT}
    return environment.get_template(template).render(**values)
