"""Whatever the program: exact savings leave its integers as they are, and never add a look-up."""

from __future__ import annotations

from typing import Any

import numpy as np
from fhe_core.program.interpreter import Interpreter
from fhe_core.program.nodes import BATCH, Node
from fhe_core.program.program import Program
from fhe_core.program.remarks import lookups
from fhe_core.program.widths import bits_of
from hypothesis import given, settings
from hypothesis import strategies as st

from .programs import entry, fixed, linear, looked_up, program, rounded, saved, widened

#: A table of more bits would be long; and accumulators that are too wide are left unread.
_MOST_BITS = 7


class Random:
    """Programs of layers, with what savings look for: zero and equal weights, simple tables, copies."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def some(self, low: int, high: int, *shape: int) -> Any:
        return self.rng.integers(low, high + 1, shape)

    def one_of(self, choices: Any) -> Any:
        return choices[self.rng.integers(len(choices))]

    def weights(self, *shape: int) -> Any:
        """Few different output channels, the last axis; some are zero."""
        channels = self.some(-1, 1, *shape[:-1], 3) * self.some(0, 1, 3)
        return channels[..., self.some(0, 2, shape[-1])]

    def linear(self, nodes: list[Node]) -> Node:
        """A linear or layout node on some of ``nodes``, of as many axes."""
        source = self.one_of(nodes)
        size, rank = source.shape[1], len(source.shape)
        other = self.one_of([node for node in nodes if node.shape == source.shape])
        column = (1, size, *[1] * (rank - 2))
        edge = ((0, 0), (1, 1), *[(0, 0)] * (rank - 2))
        make = {
            "add": lambda: linear("add", source, other),
            "subtract": lambda: linear("subtract", source, other),
            "negative": lambda: linear("negative", source),
            "shift": lambda: linear("shift", source, offset=self.some(-3, 3, *column)),
            "scale": lambda: linear("scale", source, factor=self.some(-1, 1, *column)),
            "take": lambda: linear("take", source, indices=self.some(0, size - 1, 4), axis=1),
            "index": lambda: linear("index", source, key=(slice(None), slice(None, None, -2))),
            "concatenate": lambda: linear("concatenate", source, other, axis=1),
            "pad": lambda: linear("pad", source, widths=edge, value=self.some(-2, 2, *[1] * rank)),
            "product": lambda: self.product(source),
        }
        return make[self.one_of(sorted(make))]()

    def product(self, source: Node) -> Node:
        size = source.shape[1]
        if len(source.shape) == 2:
            return linear("matmul", source, weights=self.weights(size, 4), left=False)
        kernel = self.weights(size, min(2, source.shape[2]), 1, 4).transpose(3, 0, 1, 2)
        return linear("conv", source, weights=kernel, strides=(1, 1), dilations=(1, 1), group=1)

    def look_up(self, source: Node) -> Node:
        if source.width > 2 and self.rng.random() < 0.5:
            kept = int(self.some(1, source.width - 1))
            # No value may round up beyond the width, where look-ups wrap around.
            top = (1 << (source.width - source.signed)) - (1 << (source.width - kept - 1))
            if source.bounds[1] < top:
                source = rounded(source, kept, exact=bool(self.some(0, 1)))
        levels = np.arange(1 << source.width) - (1 << source.width) // 2 * source.signed
        kinds = (
            lambda: np.maximum(levels, self.some(-4, 4)),
            lambda: np.full(len(levels), self.some(-2, 2)),
            lambda: levels * self.some(-1, 1) + self.some(-2, 2),
            lambda: self.some(-3, 3, len(levels)),
        )
        count = source.shape[1] if self.some(0, 1) else 1
        tables = [np.clip(self.one_of(kinds)(), -4, 4) for _ in range(count)]
        return _by_channel(source, tables)

    def layer(self, nodes: list[Node]) -> list[Node]:
        """Look-ups of what linear operations make of ``nodes``."""
        grown = list(nodes)
        for _ in range(5):
            node = self.linear(grown)
            if max(map(abs, node.bounds)) < 1 << (_MOST_BITS - 1):
                grown.append(node)
        widened(grown, least=2)
        return [self.look_up(self.one_of(grown)) for _ in range(3)]

    def program(self) -> Program:
        shape = (3, 2, 2) if self.some(0, 1) else (3,)
        nodes = [_entry("x", *shape), _entry("z", *shape)]
        for _ in range(3):
            nodes = self.layer(nodes)
        ends = [self.linear(nodes), *nodes[: self.some(0, 2)]]
        widened([*nodes, *ends])
        return program(*ends)


def _entry(name: str, *shape: int) -> Node:
    node = entry(name, shape[0], 3)
    node.shape = (BATCH, *shape)
    node.low, node.high = (np.full((1, *shape), bound) for bound in node.bounds)
    return node


def _by_channel(source: Node, tables: list[Any]) -> Node:
    """A look-up of one table, or one for each channel: the axis behind the batch."""
    node = looked_up(source, tables[:1])
    entries = np.asarray(tables)
    column = np.arange(len(tables)).reshape(1, -1, *[1] * (len(source.shape) - 2))
    which = np.broadcast_to(column, (1, *source.shape[1:]))
    node.attributes.update(tables=entries, which=which)
    node.low, node.high = entries.min(axis=1)[which], entries.max(axis=1)[which]
    node.width, node.signed = bits_of(*node.bounds), node.bounds[0] < 0
    return node


def inputs_of(made: Program, rng: np.random.Generator, count: int) -> dict[str, Any]:
    return {
        node.name: rng.integers(node.bounds[0], node.bounds[1] + 1, (count, *node.shape[1:]))
        for node in made.inputs
    }


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_exact_savings_change_no_integer(seed: int) -> None:
    made = Random(seed).program()
    less, savings = saved(made)
    inputs = inputs_of(made, np.random.default_rng(seed), 32)
    for expected, got in zip(Interpreter(made)(inputs), Interpreter(less)(inputs), strict=True):
        np.testing.assert_array_equal(got, expected)
    assert all(saving.exact and saving.lookups >= 0 for saving in savings)
    assert sum(saving.lookups for saving in savings) == lookups(made) - lookups(less)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_so_it_is_where_look_ups_use_the_padding_bit(seed: int) -> None:
    """Their accumulators leave the width on purpose: minus an entry is an answer too."""
    random = Random(seed)
    total = linear("matmul", entry("x", 3, 2), weights=random.weights(3, 4), left=False)
    shifted = linear("shift", total, offset=random.some(-2, 2, 1, 4))
    fixed(3, total, shifted)
    tables = np.array([random.some(-2, 2, 8) * random.some(0, 1, 8), np.zeros(8), np.full(8, 2)])
    first = looked_up(shifted, tables.astype(int)[random.some(0, 2, 4)])
    first.attributes["antiperiodic"] = True
    first.high = np.maximum(first.high, -first.low)
    first.low, first.width, first.signed = -first.high, 3, True
    last = linear("matmul", first, weights=random.weights(4, 2), left=False)
    widened([first, last])
    made = program(looked_up(last, [np.maximum(np.arange(1 << last.width), 5)]))
    less, _ = saved(made)
    inputs = inputs_of(made, random.rng, 32)
    for expected, got in zip(Interpreter(made)(inputs), Interpreter(less)(inputs), strict=True):
        np.testing.assert_array_equal(got, expected)
