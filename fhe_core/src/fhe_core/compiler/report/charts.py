"""Bars of cost, and the front of a search, as geometry for pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WIDTH, HEIGHT = 640, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 24, 16, 48


@dataclass(frozen=True)
class Dot:
    """A candidate of a search. ``kind``: ``found``, ``front``, ``within`` or ``beyond`` tolerance."""

    x: float
    y: float
    kind: str
    title: str


@dataclass(frozen=True)
class Tick:
    at: float
    text: str


@dataclass(frozen=True)
class Chart:
    """Score over complexity, the latter on a logarithmic axis.

    Attributes:
        line: through the front, as the points of an SVG polyline.
        wanted: the height of the least score within tolerance, where that is known.
    """

    dots: tuple[Dot, ...]
    line: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    wanted: float | None
    left: float = _LEFT
    right: float = WIDTH - _RIGHT
    top: float = _TOP
    bottom: float = HEIGHT - _BOTTOM


def front_chart(report: Mapping[str, Any]) -> Chart | None:
    """The candidates of a report's search; None without any that has a price."""
    points = report["search"]["points"] if report["search"] else []
    if not points:
        return None
    least = least_score(report["search"])
    scores = [p["score"] for p in points] + ([least] if least is not None else [])
    low, high = _padded(min(scores), max(scores))
    costs = [math.log10(max(p["complexity"], 1.0)) for p in points]
    left, right = _padded(min(costs), max(costs))
    chart = Chart((), "", (), (), None)

    def x(complexity: float) -> float:
        share = (math.log10(max(complexity, 1.0)) - left) / (right - left)
        return chart.left + share * (chart.right - chart.left)

    def y(score: float) -> float:
        return chart.bottom - (score - low) / (high - low) * (chart.bottom - chart.top)

    dots = [
        Dot(
            x(p["complexity"]),
            y(p["score"]),
            kind_of(p, report),
            f"{p['score']:.4f} at {compact(p['complexity'])}: {p['says']}",
        )
        for p in points
    ]
    # Those that matter are drawn last, over the others.
    dots.sort(key=lambda dot: ("beyond", "within", "front", "found").index(dot.kind))
    best = [p for p in points if p["on_front"]]
    return Chart(
        tuple(dots),
        " ".join(f"{x(p['complexity']):.1f},{y(p['score']):.1f}" for p in best),
        tuple(Tick(x(value), compact(value)) for value in _decades(left, right)),
        tuple(Tick(y(value), f"{value:.3g}") for value in _steps(low, high)),
        None if least is None else y(least),
    )


def least_score(search: Mapping[str, Any]) -> float | None:
    """The least score within tolerance; None if that is unknown."""
    if search["float_score"] is None or search["tolerance"] is None:
        return None
    return float(search["float_score"] - search["tolerance"])


def kind_of(point: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    """What a point of a report's search is: what was compiled, on the front, or what it is besides."""
    cost, score = report["cost"], report["search"]["score"]
    as_dear = cost and math.isclose(point["complexity"], cost["complexity"])
    if as_dear and point["within"] and score in (None, point["score"]):
        return "found"
    return "front" if point["on_front"] else "within" if point["within"] else "beyond"


def _padded(low: float, high: float) -> tuple[float, float]:
    spare = (high - low) * 0.06 or max(abs(high), 1.0) * 0.05
    return low - spare, high + spare


def _decades(left: float, right: float) -> list[float]:
    """Round complexities between two logarithms: 1, 2 and 5 of each decade; more where there are few."""
    for factors in (
        (1,),
        (1, 2, 5),
        (1, 1.5, 2, 3, 4, 5, 6, 8),
        tuple(i / 10 for i in range(10, 100)),
    ):
        decades = range(math.floor(left), math.ceil(right) + 1)
        found = [f * 10.0**d for d in decades for f in factors]
        found = [value for value in found if left <= math.log10(value) <= right]
        if len(found) >= 3:
            break
    return found[:: max(1, len(found) // 7)]


def _steps(low: float, high: float) -> list[float]:
    """Round numbers in a range, about five."""
    rough = (high - low) / 5
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
    first = math.ceil(low / step)
    return [round(i * step, 12) for i in range(first, math.floor(high / step) + 1)]


@dataclass(frozen=True)
class Bar:
    """One layer's share of the cost."""

    name: str
    percent: float
    text: str


def cost_bars(layers: Sequence[Mapping[str, Any]]) -> list[Bar]:
    """A bar for each layer that costs anything."""
    return [
        Bar(
            layer["name"],
            100 * layer["share"],
            f"{layer['share']:.1%}, {compact(layer['complexity'])}",
        )
        for layer in layers
        if layer["share"]
    ]


def compact(number: float) -> str:
    """``8.1 G``, ``227 M``, ``768``: three digits at the most."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return (
                f"{number / size:.3g} {unit}"
                if number < 1000 * size
                else f"{number / size:,.0f} {unit}"
            )
    return f"{number:.3g}"
