"""Which samples of a run had values that left their accumulator and were answered wrongly.

Beyond its width a look-up answers as at the end that was left, for as long as its table is flat at the
other end (``levels``). That is saturation. What is counted is farther away: there the answers turn back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.program.nodes import BATCH, Node

Array = NDArray[Any]

#: How far from the entry at the end that was left an answer may be, as a share of what the tables span.
NEAR = 1 / 8
#: How far from the end of half a period a value may be where that is answered on the way back.
TURNED = 1


class Wraps:
    """Counts of one run.

    Args:
        strict: whether what saturates counts too.

    Attributes:
        samples: how many ran.
        wrong: how many of them were answered wrongly by any node.
        nodes: how many by each, by its name.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self.strict = strict
        self.samples = self.wrong = 0
        self.nodes: dict[str, int] = {}
        self._marks: dict[str, NDArray[np.bool_]] = {}

    def mark(self, node: Node, wrong: NDArray[np.bool_]) -> None:
        """Takes in which elements of a node are wrong."""
        others = tuple(i for i, n in enumerate(node.shape) if n != BATCH)
        marks = wrong.any(axis=others)
        if marks.any():
            source = node.inputs[0] if node.op == "lookup" else node
            name = source.name or (node.origin.output if node.origin else node.op)
            self._marks[name] = self._marks.get(name, False) | marks

    def finish(self, batch: int) -> None:
        """The end of a batch: counts what was marked."""
        self.samples += batch
        for name, marks in self._marks.items():
            self.nodes[name] = self.nodes.get(name, 0) + int(marks.sum())
        if self._marks:
            self.wrong += int(np.logical_or.reduce(list(self._marks.values())).sum())
        self._marks = {}

    def __str__(self) -> str:
        places = ", ".join(
            f"{name!r} ({count / self.samples:.2%})"
            for name, count in sorted(self.nodes.items(), key=lambda each: -each[1])
        )
        share = self.wrong / self.samples
        beyond = f"values leave {places} farther than look-ups saturate"
        return f"{share:.2%} of the answers wrap around, because {beyond}"


def strays(looked_up: Node) -> Callable[[Array, Array], NDArray[np.bool_]]:
    """For a look-up's indices, of which some are beyond its tables, and its answers: which ones are wrong."""
    tables = looked_up.attributes["tables"]
    length, which = tables.shape[1], looked_up.attributes["which"]
    if looked_up.attributes.get("antiperiodic"):
        # Half of the period lies beyond the tables. Where it ends the answers turn back as much as they should
        # go on: slowly.
        reach = length // 2 + int(TURNED * length)
        return lambda index, answers: (index < -reach) | (index >= length + reach)
    first, last = tables[:, 0][which], tables[:, -1][which]
    near = NEAR * np.ptp(tables, axis=1).max()

    def wrong(index: Array, answers: Array) -> NDArray[np.bool_]:
        below = (index < 0) & (np.abs(answers - first) > near)
        return below | ((index >= length) & (np.abs(answers - last) > near))

    return wrong
