"""From what was recorded to what can run: names, ranges, bit widths, roundings and tables.

The circuit gives one bit width to everything that linear and layout operations connect; a look-up ends
such a component. Linear operations compute modulo twice the width, so only what a look-up or the client
reads has to fit: an accumulator that leaves its width on the way, and is shifted back into it by a constant,
costs nothing. Hence the offsets, which centre each channel of an accumulator in its width.

A rounding to r bits of a k-bit accumulator drops l = k - r bits. It stays inside r bits as long as no
value rounds up to 2^k (unsigned) or 2^(k-1) (signed): max <= 2^k - 2^(l-1) - 1, or
max <= 2^(k-1) - 2^(l-1) - 1. Beyond that the padding bit flips and the table's entry comes out negated,
so an accumulator whose range does not keep the bound gets one more bit.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.errors import CompilationError
from fhe_core.program.nodes import Node, ordered
from fhe_core.program.program import Program
from fhe_core.program.pruning import without_constant_tables
from fhe_core.program.rules import RULES
from fhe_core.program.tabulation import tabulate

#: The widest integer that a table look-up takes (Concrete 2.11).
MOST_LOOKUP_BITS = 16
#: The widest accumulator that was seen to compile, rounded before its look-up.
MOST_ACCUMULATOR_BITS = 20

Range = tuple[int, int]


@dataclass(frozen=True)
class Reading:
    """How a look-up reads an accumulator.

    Attributes:
        bits: kept by the rounding; None: all.
        exact: whether the rounding is exact.
        offset: added before the rounding; a scalar, or one for each channel, that broadcasts.
        shift: added too; the table's function, or the client, sees it as part of the value.
    """

    bits: int | None = None
    exact: bool = False
    offset: Any = 0
    shift: Any = 0


def bits_of(low: int, high: int) -> int:
    """The fewest bits that hold [low, high], in two's complement where ``low`` is negative."""
    if low >= 0:
        return max(int(high).bit_length(), 1)
    return max(int(high).bit_length(), int(-low - 1).bit_length()) + 1


def name_accumulators(nodes: Sequence[Node]) -> dict[str, Node]:
    """Name each integer tensor that a look-up reads, after the ONNX output that it computes."""
    named: dict[str, Node] = {}
    for node in nodes:
        if node.op != "lookup":
            continue
        (source,) = node.inputs
        if source.name and named.get(source.name) is source:
            continue
        base = source.name or (source.origin.output if source.origin else source.op)
        source.name = free_name(base, named)
        named[source.name] = source
    return named


def free_name(base: str, taken: Container[str]) -> str:
    """``base``, or with the first number that makes it new: ``base#2``."""
    numbered = (f"{base}#{count}" for count in itertools.count(2))
    return next(name for name in itertools.chain([base], numbered) if name not in taken)


def components(nodes: Sequence[Node]) -> dict[int, int]:
    """For each node, by ``id``, the number of the component that shares its bit width."""
    parent: dict[int, int] = {id(node): id(node) for node in nodes}

    def find(key: int) -> int:
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    for node in nodes:
        if node.op in RULES and RULES[node.op].linear:
            for source in node.inputs:
                parent[find(id(source))] = find(id(node))
    return {id(node): find(id(node)) for node in nodes}


def concretize(
    outputs: Sequence[Node],
    ranges: Mapping[int, Range],
    reading: Callable[[Node], Reading],
    ends: Mapping[int, Reading] | None = None,
) -> Program:
    """Decide widths, insert offsets and roundings, evaluate tables.

    Args:
        outputs: recorded integer tensors.
        ranges: planned (low, high) of each recorded node, by ``id``; with the offset where it has one.
        reading: what the plan says of an accumulator that a look-up reads.
        ends: offset and shift of outputs that no look-up reads, by ``id``.

    Raises:
        CompilationError: an accumulator or a look-up is wider than any circuit can be.
    """
    recorded = [n for n in ordered(outputs) if isinstance(n, Node)]
    name_accumulators(recorded)
    readings = {id(n.inputs[0]): reading(n.inputs[0]) for n in recorded if n.op == "lookup"}
    widths = _widths(recorded, ranges, readings, {id(node) for node in outputs})
    done: dict[int, Node] = {}
    # What look-ups and outputs read: the accumulator, shifted where it has an offset.
    centred: dict[int, Node] = {}
    read: dict[int, Node] = {}

    def centre(source: Node, reading: Reading) -> Node:
        if id(source) not in centred:
            total = np.asarray(reading.offset) + np.asarray(reading.shift)
            centred[id(source)] = _shifted(done[id(source)], total, ranges[id(source)])
        return centred[id(source)]

    for node in recorded:
        inputs = tuple(done[id(source)] for source in node.inputs)
        width = widths[id(node)]
        if node.op == "lookup":
            (source,) = node.inputs
            if id(source) not in read:
                reading_of = readings[id(source)]
                centred_source = centre(source, reading_of)
                read[id(source)] = _rounded(centred_source, reading_of, ranges[id(source)])
            made = without_constant_tables(
                _tabulated(node, read[id(source)], width, readings[id(source)])
            )
        else:
            made = replace(node, inputs=inputs, attributes=dict(node.attributes))
            made.width, made.signed = width, ranges[id(node)][0] < 0
        done[id(node)] = made
    read_by = [
        (readings.get(id(node)) or (ends or {}).get(id(node)) or Reading()) for node in outputs
    ]
    ready = [centre(node, reading) for node, reading in zip(outputs, read_by, strict=True)]
    return Program.of(ready, [reading.offset for reading in read_by])


def _widths(
    nodes: Sequence[Node],
    ranges: Mapping[int, Range],
    readings: Mapping[int, Reading],
    ends: set[int],
) -> dict[int, int]:
    component = components(nodes)
    fixed = [
        node for node in nodes if id(node) in ends | set(readings) or node.op in ("input", "lookup")
    ]
    width: dict[int, int] = {}
    for node in fixed:
        key = component[id(node)]
        # An unsigned output is decrypted with its padding bit: it has one bit more than its width.
        # An input is encrypted without.
        leaves = id(node) in ends and id(node) not in readings and node.op != "input"
        spare = leaves and ranges[id(node)][0] >= 0
        width[key] = max(width.get(key, 1), bits_of(*ranges[id(node)]) - spare)
    for node in fixed:
        key = component[id(node)]
        kept = readings[id(node)].bits if id(node) in readings else None
        while kept is not None and not _rounds_inside(ranges[id(node)], width[key], kept):
            width[key] += 1
    result = {id(node): width[component[id(node)]] for node in nodes}
    for node in fixed:
        kept = readings[id(node)].bits if id(node) in readings else None
        bits = result[id(node)]
        looked = min(bits, kept) if kept else bits
        if bits > MOST_ACCUMULATOR_BITS or (id(node) in readings and looked > MOST_LOOKUP_BITS):
            raise CompilationError(
                f"an accumulator needs {bits} bits",
                where=node.where,
                expected=f"at most {MOST_ACCUMULATOR_BITS} bits, and at most {MOST_LOOKUP_BITS} "
                "after rounding where a table look-up follows",
                got=f"values from {ranges[id(node)][0]} to {ranges[id(node)][1]}",
                fix="use fewer bits for the activations or weights (n_bits), or round (rounding=)",
            )
    return result


def _rounds_inside(values: Range, width: int, kept: int) -> bool:
    """Whether no value rounds up to beyond the width."""
    low, high = values
    dropped = width - kept
    return dropped <= 0 or high <= (1 << (width - (low < 0))) - (1 << (dropped - 1)) - 1


def _shifted(source: Node, offset: Any, values: Range) -> Node:
    """``source`` plus constants that centre it in its width; itself where there are none."""
    if not np.any(offset):
        return source
    offset = np.asarray(offset, dtype=np.int64)
    node = Node(
        "shift",
        (source,),
        source.shape,
        source.low + offset,
        source.high + offset,
        {"offset": offset},
        origin=source.origin,
        name=source.name,
    )
    node.width, node.signed = source.width, values[0] < 0
    # One signedness for the whole accumulator: its encoding is modular either way.
    source.signed = node.signed
    return node


def _rounded(node: Node, reading: Reading, values: Range) -> Node:
    """What a look-up reads: the centred accumulator, raised to the top of its width and rounded there.

    A width is shared by all that linear operations connect. What needs less of it, such as a difference
    whose maximum goes on to a convolution, would lose its own bits to the rounding: it is multiplied by
    a power of two first, which is free.
    """
    if reading.bits is None or node.width <= reading.bits:
        return node
    needed = next(
        bits
        for bits in range(bits_of(*values), node.width + 1)
        if _rounds_inside(values, bits, reading.bits)
    )
    raised = node.width - needed
    dropped = node.width - min(reading.bits, needed)
    node = _raised(node, raised)
    half = 1 << (node.width - dropped - 1)
    low, high = (-half, half - 1) if node.signed else (0, 2 * half - 1)
    rounded = Node(
        "round",
        (node,),
        node.shape,
        np.asarray(low),
        np.asarray(high),
        {"dropped": dropped, "exact": reading.exact, "raised": raised},
        origin=node.origin,
        name=node.name,
    )
    rounded.width, rounded.signed = node.width - dropped, node.signed
    return rounded


def _raised(source: Node, bits: int) -> Node:
    if not bits:
        return source
    factor = np.asarray(1 << bits)
    node = Node(
        "scale",
        (source,),
        source.shape,
        source.low * factor,
        source.high * factor,
        {"factor": factor},
        origin=source.origin,
        name=source.name,
    )
    node.width, node.signed = source.width, source.signed
    return node


#: Values of a rounded accumulator, of those that become one level, at which a table is evaluated.
_CELL = 8


def _tabulated(node: Node, source: Node, width: int, reading: Reading) -> Node:
    """The look-up with its tables.

    A level stands for as many values of the accumulator as the rounding merges. Its entry is the mean of the
    function over them, which is closer to each than the function of the middle one is.
    """
    rounding = source.attributes if source.op == "round" else {"dropped": 0, "raised": 0}
    dropped = rounding["dropped"] - rounding["raised"]
    half = 1 << (source.width - 1)
    first = -half if source.signed else 0
    levels = (first + np.arange(2 * half, dtype=np.int64)) << dropped
    size = 1 << dropped
    step = max(1, size // _CELL)
    cell = np.arange(step // 2 - size // 2, size - size // 2, step) if dropped else np.zeros(1, int)
    tables, which = tabulate(node, levels, cell.astype(np.int64), reading.offset)
    low, high = _table_bounds(tables, which)
    made = Node(
        "lookup",
        (source,),
        node.shape,
        low,
        high,
        {"tables": tables, "which": which, "first": first},
        origin=node.origin,
        name=node.name,
    )
    made.width, made.signed = width, bool(low.min(initial=0) < 0)
    return made


def _table_bounds(
    tables: NDArray[Any], which: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return tables.min(axis=1)[which], tables.max(axis=1)[which]
