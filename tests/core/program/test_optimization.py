"""Each saving by its name: what it leaves out of a program, what that spares, and where it keeps off."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from fhe_core.plugins.optimization.common_subexpressions import fingerprints
from fhe_core.program.interpreter import Interpreter
from fhe_core.program.nodes import BATCH, Node
from fhe_core.program.program import Program
from fhe_core.program.remarks import Remark, lookups
from fhe_core.program.storage import program_from_document, program_to_document

from .programs import entry, fixed, linear, looked_up, program, rounded, saved, widened

X = np.random.default_rng(1).integers(-4, 4, (200, 4))
EYE = np.eye(4, dtype=int)
WEIGHTS = np.array([[1, -1, 1, 0], [0, 1, 0, 1], [1, 0, 1, -1], [-1, 1, -1, 1]])
#: Of four signed bits.
LEVELS = np.arange(-8, 8)
RELU = np.maximum(LEVELS, 0)
RANDOM = np.random.default_rng(2).integers(-4, 4, (4, 16))


def accumulator(weights: Any = WEIGHTS) -> Node:
    """Four sums of inputs, in four bits, where they never wrap."""
    made = linear("matmul", entry("x", 4, 3), weights=weights, left=False)
    made.low, made.high = np.maximum(made.low, -8), np.minimum(made.high, 7)
    fixed(4, made)
    return made


def _image(*shape: int) -> Node:
    """An input of unsigned integers of two bits, in three."""
    low, high = np.zeros((1, *shape), int), np.full((1, *shape), 3)
    made = Node("input", (), (BATCH, *shape), low, high, {"encrypted": True})
    made.name, made.width = "x", 3
    return made


def spared(made: Program, samples: Any = None) -> tuple[Program, dict[str, int]]:
    """The program with what can be left out of it, and look-ups saved, by name; the integers are equal."""
    less, savings = saved(made, samples)
    assert sum(saving.lookups for saving in savings) == lookups(made) - lookups(less)
    if samples is None:
        inputs = {node.name: X % (node.bounds[1] + 1) + node.bounds[0] for node in made.inputs}
        for got, wanted in zip(Interpreter(less)(inputs), Interpreter(made)(inputs), strict=True):
            np.testing.assert_array_equal(got, wanted)
    counts: dict[str, int] = {}
    for saving in savings:
        counts[saving.name] = counts.get(saving.name, 0) + saving.lookups
    return less, counts


def tables(*rows: Any) -> Any:
    return np.array([np.broadcast_to(row, 16) for row in rows])


# -- known answers


def test_channels_with_one_answer_are_added_as_constants() -> None:
    made = program(looked_up(accumulator(), tables(RELU, 3, RELU, 0)))
    _, counts = spared(made)
    assert counts["constant folding"] == 2


def test_an_answer_is_known_where_bounds_leave_the_table_one_value() -> None:
    """What is never positive is 0 behind a ReLU."""
    total = linear("matmul", entry("x", 4, 1, signed=False), weights=-EYE, left=False)
    fixed(4, total)
    first = looked_up(total, tables(RELU, LEVELS % 3, LEVELS % 3, LEVELS % 3))
    _, counts = spared(program(first))
    assert counts["constant folding"] == 1


def test_constants_that_were_padded_before_a_look_up_take_none() -> None:
    padded = linear("pad", accumulator(), widths=((0, 0), (1, 1)), value=np.full((1, 1), 2))
    fixed(4, padded)
    _, counts = spared(program(looked_up(padded, [RANDOM[0]])))
    assert counts["constant folding"] == 2


def test_something_is_left_of_a_look_up_whose_answers_are_all_known() -> None:
    less, counts = spared(program(looked_up(accumulator(), tables(1, 2, 3, 4))))
    assert counts["constant folding"] == 3
    assert lookups(less) == 1


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "approximate"])
def test_a_known_answer_spares_the_look_ups_of_an_exact_rounding_too(exact: bool) -> None:
    source = rounded(accumulator(), 2, exact=exact)
    made = program(looked_up(source, np.array([[1] * 4, [0, 1, 2, 3], [0, 0, 1, 1], [3, 2, 1, 1]])))
    _, counts = spared(made)
    assert counts["constant folding"] == (3 if exact else 1)


def test_an_exact_rounding_that_several_look_ups_read_stays_whole() -> None:
    source = rounded(accumulator(), 2, exact=True)
    made = program(
        *(
            looked_up(source, [row, *[[0, 1, 2, c] for c in (3, 4, 5)]])
            for row in ([1] * 4, [2, 2, 3, 3])
        )
    )
    less, _ = spared(made)
    assert len([node for node in less.nodes if node.op == "round"]) == 1


# -- unread elements


def test_what_only_zero_weights_and_known_answers_read_is_not_looked_up() -> None:
    weights = np.array([[1, 1], [0, 2], [0, 0], [1, 2]])
    hidden = looked_up(accumulator(), RANDOM)
    total = linear("matmul", hidden, weights=weights, left=False)
    widened([hidden, total])
    size = 1 << total.width
    made = program(looked_up(total, [np.arange(size) % 5, np.full(size, 2)]))
    _, counts = spared(made)
    assert counts == {
        "dead-code elimination": 2,
        "constant folding": 1,
        "dead-channel elimination": 0,
    }


def test_pixels_that_a_stride_steps_over_are_not_looked_up() -> None:
    image = _image(2, 5, 5)
    pixels = looked_up(image, [[0, 1, 3, 2, 4, 1, 2, 5]])
    kernel = np.ones((1, 2, 1, 1), int)
    conv = linear("conv", pixels, weights=kernel, strides=(2, 2), dilations=(1, 1), group=1)
    widened([pixels, conv])
    less, savings = saved(program(conv))
    assert [(saving.name, saving.lookups) for saving in savings] == [
        ("dead-code elimination", 2 * 16)
    ]
    values = {"x": np.random.default_rng(0).integers(0, 2, (8, 2, 5, 5))}
    np.testing.assert_array_equal(Interpreter(less)(values), Interpreter(program(conv))(values))


def test_elements_that_are_dropped_after_a_look_up_are_dropped_before_it() -> None:
    first = looked_up(accumulator(), RANDOM)
    picked = linear("take", first, indices=np.array([3, 0]), axis=1)
    widened([first, picked])
    _, counts = spared(program(picked))
    assert counts["dead-code elimination"] == 2


# -- affine tables


def test_an_unrounded_look_up_that_is_affine_is_the_accumulator() -> None:
    made = program(looked_up(accumulator(), tables(LEVELS, -LEVELS - 1, RELU, LEVELS)))
    assert made.outputs[0].width == 4
    _, counts = spared(made)
    assert counts["affine look-up folding"] == 3


def test_a_neuron_that_bounds_keep_positive_passes_its_integers_on() -> None:
    total = linear("matmul", entry("x", 4, 1, signed=False), weights=np.abs(WEIGHTS), left=False)
    fixed(4, total, signed=True)
    first = looked_up(total, [RELU])
    fixed(4, first)
    less, counts = spared(program(first))
    assert counts["affine look-up folding"] == 4
    assert not less.lookups


def test_an_affine_look_up_stays_behind_a_rounding_and_between_widths() -> None:
    """A rounded level is no multiple of the accumulator, and one width for both would be the wider one."""
    source = accumulator(EYE)
    staircase = looked_up(rounded(source, 2, exact=False), [[-2, -1, 0, 1]])
    wider = looked_up(source, [LEVELS * 2])
    for made in (staircase, wider):
        _, counts = spared(program(made))
        assert not counts


# -- shared look-ups, roundings and products


def test_channels_of_equal_weights_and_tables_are_looked_up_once() -> None:
    """Columns 0 and 2 of the weights are equal."""
    _, counts = spared(program(looked_up(accumulator(), [RANDOM[0]])))
    assert counts["common-subexpression elimination"] == 1
    _, counts = spared(program(looked_up(accumulator(), RANDOM)))
    assert not counts


def test_what_is_copied_before_a_look_up_is_copied_behind_it() -> None:
    stretched = linear(
        "broadcast",
        linear("reshape", accumulator(EYE), target=(BATCH, 1, 4)),
        target=(BATCH, 5, 4),
    )
    fixed(4, *Program.of([stretched]).nodes[1:])
    _, counts = spared(program(looked_up(stretched, [RANDOM[0]])))
    assert counts["common-subexpression elimination"] == 16


def test_equal_look_ups_of_one_tensor_are_one() -> None:
    source = accumulator(EYE)
    ends = [looked_up(rounded(source, 3, exact=False), [np.arange(8) % 3]) for _ in range(2)]
    total = linear("add", *ends)
    widened([*ends, total])
    _, counts = spared(program(total))
    assert counts["common-subexpression elimination"] == 4


def test_some_look_ups_of_a_tensor_are_among_those_of_another() -> None:
    source = accumulator(EYE)
    first = looked_up(source, [RANDOM[0]])
    turned = linear("take", source, indices=np.array([2, 1, 2]), axis=1)
    fixed(4, turned)
    second = looked_up(turned, [RANDOM[0], RANDOM[1], RANDOM[0]])
    fixed(3, first, second)
    _, counts = spared(program(first, second))
    assert counts["common-subexpression elimination"] == 2


def test_no_element_that_is_read_becomes_one_that_nothing_reads() -> None:
    """What nothing reads may hold anything by then, beyond its bounds too."""
    total = accumulator(EYE)
    first, second = (looked_up(total, [RELU]) for _ in range(2))
    read = np.array([[0], [1], [0], [0]])  # of the first look-up one element
    one = linear("matmul", first, weights=read, left=False)
    other = linear("matmul", second, weights=np.ones((4, 1), int), left=False)
    widened([first, one])
    widened([second, other])
    made = program(one, other)
    numbers = fingerprints(made)
    equal = numbers[id(first)] == numbers[id(second)]
    assert equal.ravel().tolist() == [False, True, False, False]


def test_equal_look_ups_of_two_widths_stay_apart() -> None:
    """Joined, the narrower one's linear operations would get the other's width."""
    source = accumulator(EYE)
    first, second = (looked_up(source, [RANDOM[0]]) for _ in range(2))
    wide = linear("scale", second, factor=np.array([9]))
    widened([second, wide])
    assert first.width != second.width
    _, counts = spared(program(first, wide))
    assert not counts


def test_equal_expressions_are_computed_once() -> None:
    """(a + b) - b is a: the numbers are compared, not the way to them."""
    x, z = entry("x", 4, 3), entry("z", 4, 3)
    again = linear("subtract", linear("add", x, z), z)
    product, other = (linear("matmul", t, weights=WEIGHTS, left=False) for t in (x, again))
    widened([x, z, again.inputs[0], again, product, other])
    ends = [
        looked_up(rounded(t, 3, exact=True), [[0, 1, 2, 3, 2, 1, 0, 1]]) for t in (product, other)
    ]
    less, savings = saved(program(linear("add", *ends), z))
    names = {saving.name for saving in savings}
    assert {"common-subexpression elimination"} <= names
    assert [node.op for node in less.nodes].count("matmul") == 1


# -- unread products


def test_outputs_that_lost_their_look_ups_are_not_multiplied() -> None:
    total = accumulator()
    total.attributes["kernel"] = "h"
    shifted = linear("shift", total, offset=np.array([[1, 0, 0, 1]]))
    fixed(4, shifted)
    made = program(looked_up(shifted, tables(RELU, 3, LEVELS % 5, 0)))
    less, counts = spared(made)
    assert counts["dead-channel elimination"] == 0
    (product,) = (node for node in less.nodes if node.op == "matmul")
    np.testing.assert_array_equal(product.attributes["weights"], WEIGHTS[:, [0, 2]])
    assert "kernel" not in product.attributes


def test_a_product_that_something_else_reads_stays_whole() -> None:
    total = accumulator()
    less, _ = spared(program(looked_up(total, tables(RELU, 3, LEVELS % 5, 0)), total))
    (product,) = (node for node in less.nodes if node.op == "matmul")
    assert product.attributes["weights"].shape == (4, 4)


# -- silent neurons


def silent(samples: Any) -> tuple[Program, tuple[Remark, ...]]:
    return saved(program(looked_up(accumulator(EYE), [RELU])), {"x": samples})


def test_a_neuron_that_was_never_positive_loses_its_look_up() -> None:
    less, savings = silent(np.concatenate([-abs(X[:, :1]) - 3, X[:, 1:]], axis=1))
    (saving,) = (each for each in savings if each.lookups)
    assert (saving.name, saving.lookups, saving.exact) == ("dead-neuron pruning", 1, False)
    assert "0.00% of the other half's samples" in saving.says
    assert lookups(less) == 3


def test_how_often_samples_leave_what_was_assumed_is_measured_on_others() -> None:
    """One sample alone is positive, and not in the half that the assumption is made from."""
    quiet = np.full((200, 4), -4)
    quiet[:, 1:] = X[:, 1:]
    quiet[7, 0] = 3
    _, savings = silent(np.concatenate([quiet, quiet[::2]]))
    assert not [each for each in savings if each.lookups]
    made = program(looked_up(accumulator(EYE), [np.minimum(RELU, 0) + (LEVELS > 1)]))
    both = np.concatenate([quiet[:, :1], np.full((200, 1), -4), X[:, 2:]], axis=1)
    _, savings = saved(made, {"x": both})
    (saving,) = (each for each in savings if each.lookups)
    assert saving.lookups == 1
    assert "1.00% of the other half's samples" in saving.says


def test_a_margin_of_levels_has_to_have_the_same_answer() -> None:
    """The neuron reaches the bend itself: the noise of a rounding would take it over."""
    _, savings = silent(np.concatenate([-abs(X[:, :1]), X[:, 1:]], axis=1))
    assert not savings


def test_a_margin_of_a_tenth_of_the_span_has_to_have_the_same_answer() -> None:
    """Levels from -100 to -2: a table that bends within ten levels above them is still looked up."""
    quiet = np.linspace(-100, -2, 200).astype(int)
    samples = np.stack([quiet, quiet, np.linspace(-100, 100, 200).astype(int)], axis=1)
    total = linear("matmul", entry("x", 3, 8), weights=np.eye(3, dtype=int), left=False)
    fixed(8, total)
    levels = np.arange(-128, 128)
    bends = np.array([np.maximum(levels - bend, 0) for bend in (8, 10, 0)])
    _, savings = saved(program(looked_up(total, bends)), {"x": samples})
    assert sum(each.lookups for each in savings) == 1


def test_few_samples_show_nothing() -> None:
    assert silent(np.full((99, 4), -4))[1] == ()
    assert sum(each.lookups for each in silent(np.full((100, 4), -4))[1]) == 3


# -- all of them


@pytest.fixture(scope="module")
def whole() -> Program:
    """A program in which every exact saving finds something."""
    image = _image(1, 3, 3)
    pixels = looked_up(image, [[1, 0, 2, 3, 0, 0, 0, 0]])
    kernel = np.array([1, 1, -1, 2]).reshape(4, 1, 1, 1)
    conv = linear("conv", pixels, weights=kernel, strides=(2, 2), dilations=(1, 1), group=1)
    widened([pixels, conv], least=4)
    hidden = looked_up(rounded(conv, 3, exact=True), [[0, 0, 0, 0, 0, 1, 1, 1]])
    flat = linear("reshape", hidden, target=(BATCH, 16))
    weights = np.zeros((16, 3), int)
    weights[:7, 0], weights[1:8:2, 1], weights[5, 2] = 1, 1, 1
    total = linear("matmul", flat, weights=weights, left=False)
    widened([hidden, flat, total])
    levels = np.arange(1 << total.width)
    rows = [levels % 3, levels, np.full(len(levels), 3)]
    last = looked_up(total, np.array(rows))
    last.width = total.width
    return program(last)


def test_programs_with_savings_are_stored_as_others_are(whole: Program) -> None:
    less, _ = saved(whole)
    arrays: dict[str, Any] = {}
    document = json.loads(json.dumps(program_to_document(less, arrays)))
    values = {"x": np.random.default_rng(0).integers(0, 4, (50, 1, 3, 3))}
    (again,) = Interpreter(program_from_document(document, arrays))(values)
    np.testing.assert_array_equal(again, Interpreter(whole)(values)[0])


@pytest.mark.fhe
def test_a_circuit_with_savings_computes_the_same_and_costs_less(whole: Program) -> None:
    pytest.importorskip("concrete.fhe", reason="needs fhe-core[concrete]")
    from fhe_core.compiler.concrete_backend import compile_program
    from fhe_core.progress import progress_of

    less, savings = saved(whole)
    names = {saving.name for saving in savings}
    assert names >= {
        "constant folding",
        "dead-code elimination",
        "common-subexpression elimination",
        "affine look-up folding",
    }
    circuit, dearer = (compile_program(made, 2.0**-40) for made in (less, whole))
    assert circuit.cost.complexity < dearer.cost.complexity / 2
    values = {"x": np.random.default_rng(0).integers(0, 4, (3, 1, 3, 3))}
    (got,) = circuit.execute(values, progress_of(None))
    np.testing.assert_array_equal(got, Interpreter(whole)(values)[0])
