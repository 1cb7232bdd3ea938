"""The levels that a look-up reads, and its entry for each."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.program.antiperiodic import half_tables
from fhe_core.program.nodes import Node
from fhe_core.program.tabulation import tabulate

#: Values of a rounded accumulator, of those that become one level, at which a table is evaluated.
_CELL = 8


def tabulated(node: Node, source: Node, width: int, offset: Any, *, antiperiodic: bool) -> Node:
    """The look-up with its tables.

    A level stands for as many values of the accumulator as the rounding merges. Its entry is the mean of the
    function over them, which is closer to each than the function of the middle one is.

    What leaves the width is answered as at the end that it leaves by, and not as at the other end: a function
    that saturates at both ends does so beyond them too, for as far as the other end is flat.

    Args:
        node: as it was recorded.
        source: what it reads, with its width; rounded or not.
        width: of the results.
        offset: what was added to the accumulator.
        antiperiodic: whether half a table does.
    """
    rounding = source.attributes if source.op == "round" else {"dropped": 0, "raised": 0}
    dropped = rounding["dropped"] - rounding["raised"]
    half = 1 << (source.width - 1)
    first = -half if source.signed else 0
    levels = (first + np.arange(2 * half, dtype=np.int64)) << dropped
    size = 1 << dropped
    step = max(1, size // _CELL)
    cell = np.arange(step // 2 - size // 2, size - size // 2, step) if dropped else np.zeros(1, int)
    attributes: dict[str, Any] = {"first": first}
    constant = None
    if antiperiodic:
        attributes["antiperiodic"] = True
        tables, which, constant = half_tables(node, levels, cell.astype(np.int64), offset)
    else:
        tables, which = tabulate(node, levels, cell.astype(np.int64), offset)
        # What leaves the width is answered with minus the entry at the other end. With what is halfway
        # between both ends taken from the entries, and added to the answers, that is the entry at this end.
        middle = (tables[:, 0] + tables[:, -1]) // 2
        tables, constant = tables - middle[:, None], middle[which] if middle.any() else None
    # Of half a table minus any entry is an answer too.
    answers = np.concatenate([tables, -tables], axis=1) if antiperiodic else tables
    low, high = answers.min(axis=1)[which], answers.max(axis=1)[which]
    made = Node(
        "lookup",
        (source,),
        node.shape,
        low,
        high,
        {"tables": tables, "which": which, **attributes},
        origin=node.origin,
        name=node.name,
    )
    made.width, made.signed = width, bool(low.min(initial=0) < 0)
    return made if constant is None else _added(made, constant)


def _added(looked_up: Node, constant: NDArray[np.int64]) -> Node:
    """A look-up's results plus constants, unnamed: no accumulator of the plan."""
    low, high = looked_up.low + constant, looked_up.high + constant
    node = Node("shift", (looked_up,), looked_up.shape, low, high, {"offset": constant})
    node.origin, node.width = looked_up.origin, looked_up.width
    node.signed = bool(low.min(initial=0) < 0)
    return node
