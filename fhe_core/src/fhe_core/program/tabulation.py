"""Tables: a float computation evaluated at every level of its one integer input."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.errors import CompilationError
from fhe_core.program.nodes import BATCH, Call, Node, Value, convert, evaluate, operands


def results_at(call: Call, root: Node, levels: NDArray[np.int64], offset: Any = 0) -> NDArray[Any]:
    """``call`` at each level minus ``offset``, all elements of its root alike: (levels, elements)."""
    axis = root.shape.index(BATCH)
    shape = tuple(len(levels) if n == BATCH else n for n in root.shape)
    along = [1] * len(shape)
    along[axis] = len(levels)
    every: NDArray[np.int64] = np.broadcast_to(levels.reshape(along), shape)
    # One offset for all has the rank of what is looked up, which layout may have changed since the root.
    offset = np.asarray(offset, dtype=np.int64)
    stacked = every - (offset.reshape(()) if offset.size == 1 else offset)
    results = np.asarray(evaluate(call, {id(root): stacked}, len(levels)))
    if results.dtype.kind == "b":
        results = results.astype(np.int64)  # a truth value is looked up as 0 or 1
    return np.moveaxis(results, call.shape.index(BATCH), 0).reshape(len(levels), -1)


def before_conversion(call: Call) -> Value:
    """What ``call`` converts to integers, which may be NaN where integers cannot; else itself."""
    converts = call.function is convert and call.dtype.kind in "iu"
    return operands(call)[0] if converts else call


def before_rounding(call: Call) -> Value:
    """What a quantizer at the end of ``call`` rounds, in its steps and neither rounded nor saturated.

    ``call`` itself where its integers come from elsewhere.
    """
    value: Value = before_conversion(call)
    if isinstance(value, Call) and value.function is np.clip:
        value = operands(value)[0]
    shifted = value
    if isinstance(value, Call) and value.function in (np.add, np.subtract):
        # The zero point: one of the two is a constant.
        varying = operands(value)
        shifted = varying[0] if len(varying) == 1 else value
    if not isinstance(shifted, Call) or shifted.function is not np.rint:
        return call
    (real,) = operands(shifted)
    if shifted is value:
        return real
    assert isinstance(value, Call)  # noqa: S101  # `shifted` is an operand of it
    return replace(value, arguments=tuple(real if a is shifted else a for a in value.arguments))


def entries_at(
    call: Call, root: Node, levels: NDArray[np.int64], offset: Any = 0
) -> NDArray[np.float64]:
    """``results_at`` as integral floats, NaN where the function is not finite."""
    value = before_conversion(call)
    results = results_at(value if isinstance(value, Call) else call, root, levels, offset)
    finite = np.isfinite(results)
    return np.trunc(results) if finite.all() else np.where(finite, np.trunc(results), np.nan)


def filled(entries: NDArray[np.float64], call: Call) -> NDArray[np.float64]:
    """``entries``: (levels, elements), those that are missing taken from the nearest level.

    The float model was finite on the calibration data, so what is missing lies beyond it: the logarithm of
    what an accumulator could hold and never did.
    """
    present = np.isfinite(entries)
    if present.all():
        return entries
    if not present.any(axis=0).all():
        raise CompilationError(
            "a table would hold NaN or infinity at every level",
            where=call.where,
            fix="clip the input of the function to where it is defined",
        )
    count = len(entries)
    level = np.arange(count)[:, None]
    below = np.maximum.accumulate(np.where(present, level, -count), axis=0)
    above = np.minimum.accumulate(np.where(present, level, 2 * count)[::-1], axis=0)[::-1]
    nearest = np.where(level - below <= above - level, below, above)
    return np.take_along_axis(entries, nearest, axis=0)


def tabulate(
    node: Node,
    levels: NDArray[np.int64],
    cell: NDArray[np.int64],
    offset: Any = 0,
    chunk: int = 2**20,
) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    """The distinct tables of a look-up, and which one each element takes.

    Args:
        levels: the values of the integer input, in the order of the tables' entries.
        cell: an entry is the mean of the function at level + ``cell``, rounded.
        offset: what was added to the integer input before the look-up; broadcasts to it.

    Returns:
        (tables, len(levels)) int64, and the table's number for each element, shape of ``node`` with the
        batch dimension 1.

    Raises:
        CompilationError: the float computation gives no finite number at any level.
    """
    root = node.attributes["root"]
    per_level = max(1, int(np.prod([n for n in root.shape if n != BATCH])))
    step = max(1, chunk // (per_level * len(cell)))
    parts = []
    for i in range(0, len(levels), step):
        points = (levels[i : i + step, None] + cell).reshape(-1)
        results = entries_at(node.attributes["call"], root, points, offset)
        if len(cell) > 1:
            cells = results.reshape(-1, len(cell), results.shape[1])
            present = np.isfinite(cells)
            with np.errstate(invalid="ignore"):
                means = np.where(present, cells, 0).sum(axis=1) / present.sum(axis=1)
            results = np.rint(means)
        parts.append(results)
    values = filled(np.concatenate(parts), node.attributes["call"]).astype(np.int64)
    inverse = node.attributes["inverse"]
    if inverse is not None:
        values = values[:, inverse]
    shape = tuple(1 if n == BATCH else n for n in node.shape)
    # Levels may lie beyond what the bounds were found on.
    low, high = (np.broadcast_to(bound, shape).reshape(-1) for bound in (node.low, node.high))
    return distinct(np.clip(values, low, high), shape)


def distinct(
    values: NDArray[np.int64], shape: tuple[int, ...]
) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    """The distinct columns of (levels, elements) as tables, and the number of each element's, in ``shape``."""
    # numpy.unique would make each table a structure with a field for each entry.
    tables = np.ascontiguousarray(values.T)
    numbers: dict[bytes, int] = {}
    which = np.array([numbers.setdefault(table.tobytes(), len(numbers)) for table in tables])
    _, first = np.unique(which, return_index=True)
    return tables[first], which.reshape(shape)
