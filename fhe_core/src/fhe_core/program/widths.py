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

from fhe_core.errors import CompilationError, PlanError
from fhe_core.program.levels import tabulated
from fhe_core.program.narrowing import accumulator_name, narrower
from fhe_core.program.nodes import Node, ordered
from fhe_core.program.program import Program
from fhe_core.program.rules import RULES

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
        antiperiodic: the range is the whole period of a function that changes its sign after half of it,
            so it takes one bit less: see ``antiperiodic``.
    """

    bits: int | None = None
    exact: bool = False
    offset: Any = 0
    shift: Any = 0
    antiperiodic: bool = False

    def bits_for(self, values: Range, width: int = 1) -> int:
        """The fewest bits, ``width`` or more, that hold what is in ``values``, and what it is rounded to."""
        bits = max(width, bits_of(*values) - self.antiperiodic)
        if self.bits is not None and not self.antiperiodic:
            while not _rounds_inside(values, bits, self.bits):
                bits += 1
        return bits


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
        PlanError: an accumulator is said to be antiperiodic, and is not.
    """
    recorded = [n for n in ordered(outputs) if isinstance(n, Node)]
    name_accumulators(recorded)
    readings = {id(n.inputs[0]): reading(n.inputs[0]) for n in recorded if n.op == "lookup"}
    for node in outputs:
        if id(node) in readings and readings[id(node)].antiperiodic:
            raise PlanError(
                f"the plan keeps half of the period of {node.name!r}, which is an output too",
                where=node.where,
                fix="set antiperiodic to false for that accumulator",
            )
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
            reading_of = readings[id(source)]
            if id(source) not in read:
                centred_source = centre(source, reading_of)
                read[id(source)] = _rounded(centred_source, reading_of, ranges[id(source)])
            made = tabulated(
                node,
                read[id(source)],
                width,
                reading_of.offset,
                antiperiodic=reading_of.antiperiodic,
            )
        else:
            made = replace(node, inputs=inputs, attributes=dict(node.attributes), choice=None)
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
    given = ends | set(readings)
    fixed = [node for node in nodes if id(node) in given or node.op in ("input", "lookup")]
    width: dict[int, int] = {}
    for node in fixed:
        key = component[id(node)]
        # An unsigned output is decrypted with its padding bit: it has one bit more than its width.
        # An input is encrypted without.
        leaves = id(node) in ends and id(node) not in readings and node.op != "input"
        spare = leaves and ranges[id(node)][0] >= 0
        spare |= id(node) in readings and readings[id(node)].antiperiodic
        width[key] = max(width.get(key, 1), bits_of(*ranges[id(node)]) - spare)
    for node in fixed:
        if id(node) in readings:
            key = component[id(node)]
            width[key] = readings[id(node)].bits_for(ranges[id(node)], width[key])
    result = {id(node): width[component[id(node)]] for node in nodes}
    # The widest first: it is what gave the others their width.
    for node in sorted(fixed, key=lambda node: -bits_of(*ranges[id(node)])):
        kept = readings[id(node)].bits if id(node) in readings else None
        bits = result[id(node)]
        looked = min(bits, kept) if kept else bits
        if id(node) not in readings:
            looked = 0
        if bits > MOST_ACCUMULATOR_BITS or looked > MOST_LOOKUP_BITS:
            raise _too_wide(node, bits, looked, ranges[id(node)])
    return result


def _too_wide(node: Node, bits: int, looked: int, values: Range) -> CompilationError:
    """What is said of an accumulator of ``bits`` bits, of which a look-up reads ``looked``, 0 if none does."""
    ways = [narrower(node)]
    if bits <= MOST_ACCUMULATOR_BITS:
        rounding = {accumulator_name(node): MOST_LOOKUP_BITS // 2}
        ways.insert(0, f"round it before its look-up: rounding={rounding}")
    return CompilationError(
        f"an accumulator needs {bits} bits",
        where=node.where,
        expected=f"at most {MOST_ACCUMULATOR_BITS} bits, and at most {MOST_LOOKUP_BITS} "
        "after rounding where a table look-up follows",
        got=f"values from {values[0]} to {values[1]} in {accumulator_name(node)!r}"
        + (f", of which a look-up reads {looked} bits" if looked else ""),
        fix="; or ".join(filter(None, ways)),
    )


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
    node.width, node.signed, node.exact = source.width, values[0] < 0, source.exact
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
    needed = reading.bits_for(values)
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
