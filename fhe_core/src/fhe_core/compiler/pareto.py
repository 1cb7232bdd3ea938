"""The Pareto front of a search: for each score, the cheapest circuit that reaches it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Point:
    """A candidate whose circuit has a price.

    Attributes:
        score: on the samples of the search.
        complexity: of its circuit.
        within: whether it passed every check, so that it could have been chosen.
        on_front: no other is both cheaper and better, or one of the two and equal in the other.
        says: its widths.
    """

    score: float
    complexity: float
    within: bool
    on_front: bool
    says: str


def points(candidates: Iterable[Any]) -> list[Point]:
    """All candidates that have a cost, the cheapest first, equal ones once.

    Args:
        candidates: with ``settings``, ``score``, ``cost`` (None where nobody asked Concrete) and ``checked``
            (by how much it is better than it has to be; negative for what is not within tolerance).
    """
    priced = [each for each in candidates if each.cost is not None]
    priced.sort(key=lambda each: (each.cost.complexity, -each.score))
    found: dict[tuple[float, float], Point] = {}
    best = float("-inf")
    for each in priced:
        key = (float(each.cost.complexity), float(each.score))
        if key not in found:
            within = bool(each.checked >= 0)
            found[key] = Point(key[1], key[0], within, each.score > best, describe(each))
            best = max(best, each.score)
    return list(found.values())


def front(found: Sequence[Point]) -> list[Point]:
    """Those that no other dominates, the cheapest first."""
    return [point for point in found if point.on_front]


def describe(candidate: Any) -> str:
    """The widths of a candidate in a phrase."""
    own = getattr(candidate, "describe", None)
    if own is not None:
        return str(own())
    settings = candidate.settings
    phrase = (
        f"{settings.op_inputs}-bit activations, {settings.op_weights}-bit weights, "
        f"rounded to {settings.kept_bits}"
    )
    changed = len(settings.roundings) + len(settings.nodes)
    phrase += f", {changed} single change{'s' * (changed > 1)}" if changed else ""
    return phrase + (", tuned" if settings.tuning else "")
