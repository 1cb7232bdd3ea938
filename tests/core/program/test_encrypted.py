"""The interpreter computes what the circuit computes, integer for integer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from fhe_core.compiler.concrete_backend import compile_program
from fhe_core.program.interpreter import Interpreter
from fhe_core.program.nodes import BATCH, Node
from numpy.typing import NDArray

from .programs import encrypted, entry, fixed, linear, looked_up, program, rounded, widened

pytest.importorskip("concrete.fhe", reason="needs fhe-core[concrete]")
pytestmark = pytest.mark.fhe

Array = NDArray[Any]

ONES = np.ones((3, 1), dtype=np.int64)
#: Minus any entry is an integer of the output's width too.
TABLE = np.arange(16) - 7


@dataclass(frozen=True)
class Wrapping:
    """Sums of three integers, each read in every way, that leave their width."""

    totals: dict[str, Array]
    clear: dict[str, Array]
    hidden: dict[str, Array]


def _sums(totals: range, low: int, high: int) -> Array:
    """Rows of three numbers between ``low`` and ``high`` that add up to each of ``totals``."""
    rows = []
    for total in totals:
        first = int(np.clip(total - low, low, high))
        second = int(np.clip(total - first, low, high))
        rows.append((first, second, total - first - second))
    array = np.array(rows)
    assert array.min() >= low
    assert array.max() <= high
    return array


@pytest.fixture(scope="module")
def wrapping() -> Wrapping:
    """One circuit for all of them: most of the time goes into keys."""
    values = {
        "signed": _sums(range(-24, 22, 3), -8, 7),
        "unsigned": _sums(range(0, 46, 3), 0, 15),
        "rounded": _sums(range(-40, 40, 5), -32, 31),
    }
    outputs: dict[str, Node] = {}
    for name in ("signed", "unsigned"):
        x = entry(name, 3, 4, signed=name == "signed")
        total = linear("matmul", x, weights=ONES, left=False)
        tripled = linear("scale", total, factor=np.array([3]))
        fixed(4, total, tripled, signed=name == "signed")
        outputs[name] = looked_up(total, [TABLE])
        outputs[f"{name} output"] = tripled
    x = entry("rounded", 3, 6)
    # Multiples of 4 lie in the middle of their level: approximate rounding is exact there, to 2^-40.
    total = linear("matmul", x, weights=4 * ONES, left=False)
    fixed(6, total)
    outputs["exact"] = looked_up(rounded(total, 4, exact=True), [TABLE])
    outputs["approximate"] = looked_up(rounded(total, 4, exact=False), [TABLE])
    made = program(*outputs.values())
    clear, hidden = Interpreter(made)(values), encrypted(made, values)
    return Wrapping(
        {name: array.sum(axis=1) for name, array in values.items()},
        dict(zip(outputs, clear, strict=True)),
        dict(zip(outputs, hidden, strict=True)),
    )


@pytest.mark.parametrize(
    "reading",
    ["signed", "unsigned", "signed output", "unsigned output", "exact", "approximate"],
)
def test_what_leaves_its_width_is_read_alike(wrapping: Wrapping, reading: str) -> None:
    np.testing.assert_array_equal(wrapping.hidden[reading], wrapping.clear[reading])


@pytest.mark.parametrize(("reading", "first"), [("signed", -8), ("unsigned", 0)])
def test_a_look_up_beyond_its_width_gives_minus_the_entry_that_it_wraps_to(
    wrapping: Wrapping, reading: str, first: int
) -> None:
    turns, index = np.divmod(wrapping.totals[reading] - first, 16)
    assert {0, 1} < set(turns)
    expected = np.where(turns % 2, -1, 1) * TABLE[index]
    np.testing.assert_array_equal(wrapping.hidden[reading][:, 0], expected)


def test_offsets_of_any_size_cost_nothing() -> None:
    """They are added modulo twice the width, where one is as good as another."""
    costs, values = set(), {"x": np.arange(-8, 8)[:, None].repeat(3, axis=1)}
    for offsets in ((1, -2, 3), (100, -77, 16)):
        x = entry("x", 3, 4)
        shifted = linear("shift", x, offset=np.array(offsets))
        fixed(4, shifted)
        made = program(looked_up(shifted, [TABLE]), shifted)
        costs.add(compile_program(made, 2.0**-40).cost)
    assert len(costs) == 1
    for clear, hidden in zip(Interpreter(made)(values), encrypted(made, values), strict=True):
        np.testing.assert_array_equal(hidden, clear)


LAYOUTS: dict[str, dict[str, Any]] = {
    "reshape": {"target": (BATCH, 3, 1)},
    "transpose": {"axes": (0, 1)},
    "broadcast": {"target": (BATCH, 3)},
    "index": {"key": (slice(None), slice(None, None, -1))},
    "take": {"indices": np.array([2, 0]), "axis": 1},
    "pad": {"widths": ((0, 0), (1, 2)), "value": np.zeros((1, 1), int)},
    "sum": {"axes": (1,), "keepdims": True},
}


@pytest.mark.parametrize("signed", [True, False], ids=["signed", "unsigned"])
def test_a_layout_node_and_its_input_need_not_be_signed_alike(signed: bool) -> None:
    """A slice of a signed accumulator may hold no negative value, and an offset may shift it."""
    x = entry("x", 3, 4, signed=signed)
    nodes = {name: linear(name, x, **attributes) for name, attributes in LAYOUTS.items()}
    nodes["concatenate"] = linear("concatenate", x, x, axis=1)
    nodes["ellipsis"] = linear("index", x, key=(..., slice(0, 2)))
    nodes["new axis"] = linear("index", x, key=(slice(None), None, slice(1, 3)))
    fixed(4, *nodes.values(), signed=not signed)
    made = program(*nodes.values())
    values = {"x": np.array([[0, 1, 2], [1, 2, 3], [7, 5, 6]])}
    pairs = zip(Interpreter(made)(values), encrypted(made, values), strict=True)
    for name, (clear, hidden) in zip(nodes, pairs, strict=True):
        np.testing.assert_array_equal(hidden, clear, err_msg=name)


def _random_linear(rng: np.random.Generator, nodes: list[Node]) -> Node:
    """A linear or layout node on some of ``nodes``, all of two dimensions."""
    source = nodes[rng.integers(len(nodes))]
    size = source.shape[1]
    alike = [node for node in nodes if node.shape == source.shape]
    other = alike[rng.integers(len(alike))]

    def some(low: int, high: int, *shape: int) -> Array:
        return rng.integers(low, high + 1, shape)

    make = {
        "add": lambda: linear("add", source, other),
        "subtract": lambda: linear("subtract", source, other),
        "negative": lambda: linear("negative", source),
        "shift": lambda: linear("shift", source, offset=some(-5, 5, size)),
        "scale": lambda: linear("scale", source, factor=some(-2, 2, size)),
        "matmul": lambda: linear("matmul", source, weights=some(-2, 2, size, 2), left=False),
        "sum": lambda: linear("sum", source, axes=(1,), keepdims=True),
        "take": lambda: linear("take", source, indices=some(0, size - 1, 2), axis=1),
        "index": lambda: linear("index", source, key=(slice(None), slice(None, None, -1))),
        "concatenate": lambda: linear("concatenate", source, other, axis=1),
        "pad": lambda: linear("pad", source, widths=((0, 0), (1, 0)), value=some(-3, 3, 1, 1)),
    }
    return make[str(rng.choice(sorted(make)))]()


def _random_look_up(rng: np.random.Generator, source: Node) -> Node:
    kept = int(rng.integers(2, 4))
    if source.width > kept and (source.width > 4 or rng.random() < 0.7):
        source = rounded(source, kept, exact=True)
    many = rng.random() < 0.5
    size = (source.shape[1] if many else 1, 1 << source.width)
    return looked_up(source, rng.integers(-4 if rng.random() < 0.5 else 0, 4, size))


def _random_outputs(rng: np.random.Generator, name: str) -> list[Node]:
    """Linear nodes, look-ups, again, and sums: with accumulators of at most 6 bits."""
    layer = [entry(f"{name}0", 3, 3, signed=bool(rng.integers(2))), entry(f"{name}1", 2, 2)]
    for _ in range(2):
        grown = list(layer)
        for _ in range(5):
            node = _random_linear(rng, grown)
            if max(map(abs, node.bounds)) < 24 and node.shape[1] <= 3:
                grown.append(node)
        widened(grown)
        layer = [_random_look_up(rng, node) for node in grown[-2:]]
    ends = [linear("add", node, node) for node in layer]
    widened([*layer, *ends])
    return ends


def test_random_programs_execute_to_the_interpreters_integers_under_exact_rounding() -> None:
    """Six programs side by side in one circuit: most of the time goes into keys."""
    rng = np.random.default_rng(1)
    made = program(*(node for name in "abcdef" for node in _random_outputs(rng, name)))
    inputs = {
        node.name: rng.integers(node.bounds[0], node.bounds[1] + 1, (2, *node.shape[1:]))
        for node in made.inputs
    }
    for clear, hidden in zip(Interpreter(made)(inputs), encrypted(made, inputs), strict=True):
        np.testing.assert_array_equal(hidden, clear)
