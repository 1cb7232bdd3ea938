"""How far integers reach where look-ups round what they read.

Bounds are recorded before it is known what is rounded. Those of a look-up hold all the same: its table is
clipped to them. But the greater of two integers, b + relu(a - b), is between both only where the difference
is read exactly: if l of its bits are dropped, it may be 2^l more or less.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.program.nodes import Node
from fhe_core.program.rules import RULES
from fhe_core.program.widths import Reading

Array = NDArray[Any]

#: Of K errors of either sign the sum is hardly ever more than this times sqrt(K) of the largest: roundings
#: are off by half of what they may be, uniformly, and four deviations of their sum are enough.
_SUMMED = 4 / 12**0.5


def widen_choices(
    nodes: Iterable[Node], kept: Callable[[Node], int | None]
) -> dict[int, tuple[Array, Array]]:
    """Widens the bounds of recorded integers by what roundings add to choices between two.

    Args:
        nodes: each after its inputs; their bounds are changed.
        kept: how many bits the rounding of an accumulator keeps; None where there is none.

    Returns:
        By how much each element may be below and above what it would be without roundings, by ``id``: as far
        as there is no look-up in between.
    """
    before: dict[int, tuple[Array, Array]] = {}
    added: dict[int, tuple[Array, Array]] = {}
    shares: dict[int, float] = {}
    for node in nodes:
        if node.op not in RULES:
            continue
        own = node.low, node.high
        if node.choice is not None:
            _widen(node, kept)
        elif any(id(source) in before for source in node.inputs):
            old = [before.get(id(s), (s.low, s.high)) for s in node.inputs]
            new = [(s.low, s.high) for s in node.inputs]
            low, high = RULES[node.op].interval(old, node.attributes)
            wider = RULES[node.op].interval(new, node.attributes)
            # Bounds that an op knows, and intervals do not show, grow by as much as intervals do.
            node.low = node.low - np.maximum(low - wider[0], 0)
            node.high = node.high + np.maximum(wider[1] - high, 0)
        if (node.low < own[0]).any() or (node.high > own[1]).any():
            before[id(node)] = own
            share = max((shares.get(id(source), 0.0) for source in node.inputs), default=1.0)
            share = 1.0 if node.choice is not None else share * _summed(node)
            shares[id(node)] = share
            added[id(node)] = share * (own[0] - node.low), share * (node.high - own[1])
    return added


def _summed(node: Node) -> float:
    """How far a sum of products is off, as a share of what all its errors together would be."""
    weights = node.attributes.get("weights")
    if weights is None or not weights.size:
        return 1.0
    outputs = weights.shape[0 if node.op == "conv" or node.attributes.get("left") else -1]
    return float(min(1.0, _SUMMED / (weights.size / outputs) ** 0.5))


def _widen(node: Node, kept: Callable[[Node], int | None]) -> None:
    choice = node.choice
    assert choice is not None  # noqa: S101  # the caller has looked
    off = _off(choice.part, kept)
    first, second = choice.first, choice.second
    if choice.greater:
        node.low = np.maximum(first.low - off, second.low)
        node.high = np.maximum(first.high, second.high) + off
    else:
        node.low = np.minimum(first.low, second.low) - off
        node.high = np.minimum(first.high + off, second.high)


def _off(part: Node, kept: Callable[[Node], int | None]) -> int:
    """How far a look-up's answer may be from that for what it read."""
    while part.op in RULES and len(part.inputs) == 1:
        (part,) = part.inputs
    if part.op != "lookup":
        return 0
    (source,) = part.inputs
    bits = kept(source)
    if bits is None:
        return 0
    dropped = Reading(bits).bits_for(source.bounds) - bits
    # A level is off by one at most, and its entry is the mean of what it stands for.
    return (1 << dropped) + 1 if dropped > 0 else 0
