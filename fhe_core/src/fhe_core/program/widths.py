"""From what was recorded to what can run: names, ranges, bit widths, roundings and tables.

The circuit gives one bit width to everything that linear and layout operations connect; a look-up ends
such a component. The width of a component follows from the range that each of its integers takes.

A rounding to r bits of a k-bit accumulator drops l = k - r bits. It stays inside r bits as long as no
value rounds up to 2^k (unsigned) or 2^(k-1) (signed): max <= 2^k - 2^(l-1) - 1, or
max <= 2^(k-1) - 2^(l-1) - 1. Beyond that the padding bit flips and the table's entry comes out negated,
so an accumulator whose range does not keep the bound gets one more bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.errors import CompilationError
from fhe_core.program.groups import tabulate
from fhe_core.program.nodes import Node, ordered
from fhe_core.program.program import Program
from fhe_core.program.rules import RULES

#: The widest integer that a table look-up takes (Concrete 2.11).
MOST_LOOKUP_BITS = 16
#: The widest accumulator that was seen to compile, rounded before its look-up.
MOST_ACCUMULATOR_BITS = 20

Range = tuple[int, int]


@dataclass(frozen=True)
class Rounding:
    """How an accumulator is rounded before its look-up: ``bits`` kept, exactly or approximately."""

    bits: int
    exact: bool = False


def bits_of(low: int, high: int, rounding: int | None = None) -> int:
    """The fewest bits that hold [low, high], in two's complement where ``low`` is negative.

    With ``rounding``, the fewest that also let every value be rounded to that many bits.
    """
    width = max(int(high).bit_length() + (low < 0), int(-low - 1).bit_length() + 1 if low < 0 else 1)
    if rounding is not None and width > rounding:
        half = 1 << (width - rounding - 1)
        top = (1 << (width - 1 if low < 0 else width)) - half - 1
        if high > top:
            width += 1
    return max(width, 1)


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
        name, count = base, 1
        while name in named:
            count += 1
            name = f"{base}#{count}"
        source.name = name
        named[name] = source
    return named


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
    rounding: Callable[[Node], Rounding | None],
) -> Program:
    """Decide widths, insert roundings, evaluate tables.

    Args:
        outputs: recorded integer tensors.
        ranges: planned (low, high) of each recorded node, by ``id``.
        rounding: what the plan says of an accumulator that a look-up reads.

    Raises:
        CompilationError: an accumulator or a look-up is wider than any circuit can be.
    """
    recorded = [n for n in ordered(outputs) if isinstance(n, Node)]
    name_accumulators(recorded)
    looked_up = {id(n.inputs[0]): rounding(n.inputs[0]) for n in recorded if n.op == "lookup"}
    widths = _widths(recorded, ranges, looked_up)
    done: dict[int, Node] = {}
    rounded: dict[int, Node] = {}
    for node in recorded:
        inputs = tuple(done[id(source)] for source in node.inputs)
        low, high = ranges[id(node)]
        width = widths[id(node)]
        if node.op == "lookup":
            (source,) = node.inputs
            kept = looked_up[id(source)]
            if id(source) not in rounded:
                rounded[id(source)] = _rounded(inputs[0], kept)
            made = _tabulated(node, rounded[id(source)], width)
        else:
            made = replace(node, inputs=inputs, attributes=dict(node.attributes))
            made.width, made.signed = width, low < 0
            made.low, made.high = node.low, node.high
        done[id(node)] = made
    return Program.of([done[id(output)] for output in outputs])


def _widths(
    nodes: Sequence[Node],
    ranges: Mapping[int, Range],
    looked_up: Mapping[int, Rounding | None],
) -> dict[int, int]:
    component = components(nodes)
    width: dict[int, int] = {}
    for node in nodes:
        kept = looked_up.get(id(node))
        needed = bits_of(*ranges[id(node)], rounding=kept.bits if kept else None)
        key = component[id(node)]
        width[key] = max(width.get(key, 1), needed)
    for node in nodes:
        # One more bit of a shared width is one more bit to drop: look again at each bound.
        key = component[id(node)]
        kept = looked_up.get(id(node))
        if kept and bits_of(*ranges[id(node)], rounding=None) <= width[key]:
            low, high = ranges[id(node)]
            dropped = width[key] - kept.bits
            limit = (1 << (width[key] - (low < 0))) - (1 << max(dropped - 1, 0)) - 1
            if dropped > 0 and high > limit:
                width[key] += 1
    result = {id(node): width[component[id(node)]] for node in nodes}
    for node in nodes:
        kept = looked_up.get(id(node))
        bits = result[id(node)]
        looked = min(bits, kept.bits) if kept else bits
        if bits > MOST_ACCUMULATOR_BITS or (id(node) in looked_up and looked > MOST_LOOKUP_BITS):
            raise CompilationError(
                f"an accumulator needs {bits} bits",
                where=node.where,
                expected=f"at most {MOST_ACCUMULATOR_BITS} bits, and at most {MOST_LOOKUP_BITS} "
                "after rounding where a table look-up follows",
                got=f"values from {ranges[id(node)][0]} to {ranges[id(node)][1]}",
                fix="use fewer bits for the activations or weights (n_bits), or round (rounding=)",
            )
    return result


def _rounded(source: Node, kept: Rounding | None) -> Node:
    """The node that a look-up reads: the accumulator, or its rounding in levels of 2^dropped."""
    dropped = source.width - kept.bits if kept else 0
    if kept is None or dropped <= 0:
        return source
    half = 1 << (kept.bits - 1)
    low, high = (-half, half - 1) if source.signed else (0, 2 * half - 1)
    node = Node(
        "round",
        (source,),
        source.shape,
        np.asarray(low),
        np.asarray(high),
        {"dropped": dropped, "exact": kept.exact},
        origin=source.origin,
        name=source.name,
    )
    node.width, node.signed = kept.bits, source.signed
    return node


def _tabulated(node: Node, source: Node, width: int) -> Node:
    dropped = source.attributes["dropped"] if source.op == "round" else 0
    half = 1 << (source.width - 1)
    first = -half if source.signed else 0
    levels = (first + np.arange(2 * half, dtype=np.int64)) << dropped
    tables, which = tabulate(node, levels)
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
