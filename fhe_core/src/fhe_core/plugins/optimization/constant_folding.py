"""Look-ups whose answer needs no look-up: it is known, or an affine function, or nobody reads it.

A neuron that is never positive has one answer behind its ReLU. One that is never negative passes its
integers on, which an unrounded accumulator of the same width may do itself. (A rounded one may not: its
levels are a staircase of the accumulator, and no integer multiple of it.) And what only zero weights,
other known answers or nothing read need not be looked up at all.

Everything holds where accumulators stay inside their widths. Beyond, where a look-up returns minus some
other entry, a known answer remains what it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fhe_core.program.adjoints import operand_gradients
from fhe_core.program.antiperiodic import whole_tables
from fhe_core.program.nodes import BATCH, Node
from fhe_core.program.program import Program
from fhe_core.program.remarks import Remark, each_costs, elements, place
from fhe_core.program.rewriting import (
    Array,
    added,
    bounds,
    computed_by,
    derived,
    rewritten,
    sample_shape,
)
from fhe_core.program.rules import RULES


@dataclass(frozen=True)
class Lines:
    """Where a look-up is an affine function of its level, on the levels that occur.

    Attributes:
        found: whether it is, for each element of a sample.
        factor, offset: the function there; 0 elsewhere.
    """

    found: NDArray[np.bool_]
    factor: NDArray[np.int64]
    offset: NDArray[np.int64]

    @property
    def constant(self) -> NDArray[np.bool_]:
        """Where it is a constant."""
        return self.found & (self.factor == 0)


def without_known_answers(program: Program) -> tuple[Program, list[Remark]]:
    """The program without look-ups whose answer is known, affine or unread for any input."""
    lines = {id(node): lines_of(node, *guaranteed_levels(node)) for node in program.lookups}
    return without_lines(program, lines)


def guaranteed_levels(looked_up: Node) -> tuple[Array, Array]:
    """Least and largest level that an input can make occur, as intervals show: of each element."""
    (source,) = looked_up.inputs
    if source.op != "round":
        return bounds(source)
    low, high = bounds(source.inputs[0])
    size = 1 << source.attributes["dropped"]
    # An accumulator halfway between two levels goes up, whichever way it is rounded.
    return (low + size // 2) // size, (high + size // 2) // size


def without_lines(program: Program, lines: Mapping[int, Lines]) -> tuple[Program, list[Remark]]:
    """The program without the look-ups that are constant or affine, and those that are not read then.

    Args:
        lines: for each look-up by ``id``.
    """
    shared = shared_roundings(program)
    lines = {
        id(node): _remaining(lines[id(node)])
        for node in program.lookups
        if node.shape[0] == BATCH and id(node.inputs[0]) not in shared
    }
    read = read_elements(program, lines)
    found: list[Remark] = []

    def change(node: Node, moved: Node) -> Node:
        if id(node) not in lines:
            return moved
        own = lines[id(node)]
        result, live = _cut(moved, own, read[id(node)])
        masks = {
            "constant folding": read[id(node)] & own.constant,
            "affine look-up folding": read[id(node)] & own.found & ~own.constant,
            "dead-code elimination": ~read[id(node)],
        }
        counts = {name: int((mask & ~live).sum()) for name, mask in masks.items()}
        found.extend(_spared(name, node, count) for name, count in counts.items() if count)
        return result

    result = rewritten(program, change)
    return (program, []) if result is program else (result, found)


_WHY = {
    "constant folding": "have one answer at every level: it is added as a constant",
    "affine look-up folding": "are affine in what they read, which takes their place",
    "dead-code elimination": "are read by nothing",
}


def _spared(name: str, looked_up: Node, count: int) -> Remark:
    says = f"{count} of {elements(looked_up)} look-ups {_WHY[name]}"
    return Remark(name, place(looked_up), count * each_costs(looked_up), says)


def shared_roundings(program: Program) -> set[int]:
    """Exact roundings that several look-ups read, by ``id``: each bootstrap there serves all of them."""
    read = [node.inputs[0] for node in program.lookups]
    counts = Counter(map(id, read))
    return {id(s) for s in read if s.op == "round" and s.attributes["exact"] and counts[id(s)] > 1}


def _remaining(lines: Lines) -> Lines:
    """The lines, but one where all are constants: a circuit cannot compute with those alone."""
    if not lines.found.all() or lines.factor.any():
        return lines
    found = lines.found.copy()
    found.flat[0] = False
    return replace(lines, found=found)


def _cut(looked_up: Node, lines: Lines, read: NDArray[np.bool_]) -> tuple[Node, NDArray[np.bool_]]:
    """The look-up of what has to be looked up, with the rest in its place; and what is looked up."""
    live = read & ~lines.found
    factor = np.where(read, lines.factor, 0)
    if not live.any() and not factor.any():
        # Something has to remain: what nobody reads. What is known may rest on elements that are gone.
        live.flat[np.argmin(read)] = True
    if live.all():
        return looked_up, live
    offset = np.where(read & ~live, lines.offset, 0)
    result: Node | None = None
    if live.any():
        own = np.arange(live.size).reshape(live.shape)
        result = computed_by(looked_up, np.where(live, own, -1))
    if factor.any():
        (source,) = looked_up.inputs
        line = derived("scale", source, looked_up.shape, factor=factor)
        line.origin, line.signed = looked_up.origin, looked_up.signed
        result = line if result is None else added(result, line)
    assert result is not None  # noqa: S101  # something is live, or a factor is not 0
    if offset.any():
        result = derived("shift", result, looked_up.shape, offset=offset)
    return result, live


# -- which look-ups are lines


def lines_of(looked_up: Node, low: Array, high: Array) -> Lines:
    """Where a look-up is affine on the levels from ``low`` to ``high``, and that spares it.

    Args:
        low, high: arrays of the shape of one sample.
    """
    tables, first = whole_tables(looked_up)
    shape = sample_shape(looked_up)
    which = np.broadcast_to(looked_up.attributes["which"], shape)
    last = tables.shape[1] - 1
    antiperiodic = looked_up.attributes.get("antiperiodic", False)
    start, end = (np.clip(np.broadcast_to(x, shape) - first, 0, last) for x in (low, high))
    steps = np.diff(tables, axis=1, append=tables[:, -1:])
    # The steps from start to end - 1 have to be one: there the run of equal steps ends no earlier.
    found = (end <= start) | (_run_ends(steps[:, :-1])[which, start] >= end - 1)
    if antiperiodic:
        # Levels beyond its width are meant to occur, and those beyond its period are elsewhere in it.
        found &= (low >= first) & (high <= first + last)
    factor = np.where(found & (end > start), steps[which, start], 0)
    (source,) = looked_up.inputs
    if antiperiodic or source.op == "round" or source.width != looked_up.width:
        # Other widths: a line would force the wider one on both of its ends.
        found, factor = found & (factor == 0), np.zeros_like(factor)
    offset = np.where(found, tables[which, start] - factor * (start + first), 0)
    return Lines(found, factor, offset)


def _run_ends(steps: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each place in each row the last place up to which all are equal: (rows, columns + 1)."""
    rows, count = steps.shape
    last = np.full((rows, count + 1), count - 1)
    places = np.where(steps[:, :-1] != steps[:, 1:], np.arange(count - 1), count - 1)
    last[:, : count - 1] = np.minimum.accumulate(places[:, ::-1], axis=1)[:, ::-1]
    return last


# -- what is read


def read_elements(program: Program, lines: Mapping[int, Lines]) -> dict[int, NDArray[np.bool_]]:
    """Which elements of each node an output depends on, of the shape of one sample; by ``id``.

    The adjoint of an operation carries gradients back to what a result depends on. With magnitudes in place
    of weights nothing cancels.
    """
    read = {id(node): np.zeros(sample_shape(node), bool) for node in program.nodes}
    for node in program.outputs:
        read[id(node)][...] = True
    for node in reversed(program.nodes):
        wanted = read[id(node)]
        for source, part in zip(node.inputs, _read_by(node, wanted, lines), strict=True):
            read[id(source)] |= part
    return read


def _read_by(
    node: Node, wanted: NDArray[np.bool_], lines: Mapping[int, Lines]
) -> list[NDArray[np.bool_]]:
    if node.op == "input":
        return []
    if node.op == "lookup":
        own = lines.get(id(node))
        return [wanted if own is None else wanted & ~own.constant]
    if node.op not in RULES:
        return [wanted]
    attributes = dict(node.attributes)
    for name in ("weights", "factor"):
        if name in attributes:
            attributes[name] = attributes[name] != 0
    operands = [np.zeros(sample_shape(source), np.float32) for source in node.inputs]
    parts = operand_gradients(node.op, wanted.astype(np.float32), operands, attributes)
    return [part != 0 for part in parts]
