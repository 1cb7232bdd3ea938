"""Branches that meet: at one scale, so that joining them needs no look-up; and when they are requantized."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from fhe_core.quantization.module import QuantizedModule

import fhe_core
from tests.core.quantization.building import model, normal, relative_error

SIZE = 6
X = np.clip(normal(300, SIZE, seed=1), -2, 2)
CONSTANTS: dict[str, Any] = {
    "a": normal(SIZE, SIZE, seed=2) / 2,
    "b": normal(SIZE, SIZE, seed=3) / 2,
    "c": normal(SIZE, SIZE, seed=4) / 2,
    "w": normal(SIZE, 3, seed=5),
    "v": normal(2 * SIZE, 3, seed=6),
    "zero": np.float32(0),
    "mask": np.arange(SIZE) % 2 == 0,
    "rows": np.array([-1, 2, SIZE // 2]),
    "flat": np.array([-1, SIZE]),
}
#: Two branches, r and t, one look-up each, of ranges of their own.
BRANCHES = "h = MatMul(x, a) \n r = Relu(h) \n i = MatMul(x, b) \n t = Tanh(i)"


def built(nodes: str, **how: Any) -> tuple[QuantizedModule, Any]:
    """A module at eight bits, and what ONNX Runtime makes of the data."""
    proto = model(nodes, {"x": ("N", SIZE)}, "y", CONSTANTS)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # no remarks on constants that a net leaves out
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options)
    given = {"n_bits": 8, "rounding": 10, **how}
    return fhe_core.quantize(proto, X, **given), session.run(None, {"x": X})[0]


def looked_up(module: QuantizedModule) -> int:
    """Elements that are looked up for one sample."""
    return sum(int(np.prod(node.shape[1:])) for node in module.program.lookups)


@pytest.mark.parametrize(
    ("join", "own"),
    [
        ("j = Add(r, t)", 0),
        ("j = Sub(r, t)", 0),
        ("j = Sum(r, t, r)", 0),
        ("j = Where(mask, r, t)", 0),
        ("j = Concat <axis = 1> (r, t)", 0),
        (
            "p = Reshape(r, rows) \n q = Reshape(t, rows) \n k = Add(p, q) \n j = Reshape(k, flat)",
            0,
        ),
        # A comparison of the two, and nothing to bring them to one scale.
        ("j = Max(r, t)", 1),
        ("j = Min(r, t)", 1),
        # A half of the sum lies between the integers.
        ("j = Mean(r, t)", 1),
    ],
)
def test_branches_share_a_scale_and_joining_them_costs_no_more_than_it_must(
    join: str, own: int
) -> None:
    """Each branch is one look-up an element at most, the join as many as it computes."""
    weights = "v" if "Concat" in join else "w"
    module, expected = built(f"{BRANCHES} \n {join} \n y = MatMul(j, {weights})")
    joined = {tensor.scale for name, tensor in module.plan.tensors.items() if name in set("rtpq")}
    assert len(joined) == 1
    assert looked_up(module) <= (2 + own) * SIZE
    assert relative_error(module(X), expected) < 0.02


def test_residual_blocks_add_no_look_up_for_their_additions() -> None:
    """A block is one look-up of its product and one of what follows the sum; the sum itself has none."""
    block = "h{0} = MatMul(r{1}, {2}) \n t{0} = Tanh(h{0}) \n s{0} = Add(t{0}, r{1}) \n r{0} = Relu(s{0})"
    blocks = [block.format(i, i - 1, name) for i, name in ((1, "a"), (2, "b"), (3, "c"))]
    nodes = "\n".join(["h0 = MatMul(x, a)", "r0 = Relu(h0)", *blocks, "y = MatMul(r3, w)"])
    module, expected = built(nodes)
    assert looked_up(module) == (1 + 2 * len(blocks)) * SIZE
    assert relative_error(module(X), expected) < 0.04


def test_a_product_that_joins_is_requantized_in_a_look_up_of_its_own() -> None:
    """An accumulator has no scale to share: one look-up brings it to that of the branch which it meets."""
    joined = "h = MatMul(x, a) \n r = Relu(h) \n i = MatMul(x, b) \n j = Add(i, r)"
    module, expected = built(f"{joined} \n k = Relu(j) \n y = MatMul(k, w)")
    assert looked_up(module) == 3 * SIZE
    assert relative_error(module(X), expected) < 0.02


@pytest.mark.parametrize(("terms", "lookups"), [(4, 2), (32, 3)])
def test_a_sum_that_outgrows_its_terms_by_more_than_two_bits_is_requantized(
    terms: int, lookups: int
) -> None:
    """One look-up, so that what reads it afterwards is no wider than the rest of the net."""
    join = f"j = Sum({', '.join('rt'[i % 2] for i in range(terms))})"
    module, expected = built(f"{BRANCHES} \n {join} \n y = MatMul(j, w)")
    assert looked_up(module) == lookups * SIZE
    assert relative_error(module(X), expected) < 0.02


# -- truth values and choices


@pytest.mark.parametrize(
    ("nodes", "lookups"),
    [
        # Both branches, the condition, and one for each branch that the condition keeps or drops.
        ("m = Greater(k, zero) \n j = Where(m, r, t)", 5),
        ("m = Greater(k, zero) \n j = Where(m, r, zero)", 3),
        ("m = Greater(k, zero) \n j = Where(m, zero, t)", 3),
        # The condition and the branch are functions of one tensor, and so the choice is too.
        ("m = Greater(h, zero) \n j = Where(m, r, zero)", 1),
        ("m = Greater(h, zero) \n n = Less(i, zero) \n o = And(m, n) \n j = Cast <to = 1> (o)", 3),
        ("m = Greater(h, zero) \n n = Less(i, zero) \n o = Or(m, n) \n j = Cast <to = 1> (o)", 3),
        ("m = Greater(h, zero) \n n = Less(i, zero) \n o = Xor(m, n) \n j = Cast <to = 1> (o)", 3),
        ("m = Greater(h, zero) \n n = Less(i, zero) \n o = Xor(m, n) \n j = Where(o, r, t)", 7),
    ],
)
def test_encrypted_conditions_choose_between_encrypted_branches(nodes: str, lookups: int) -> None:
    """Rounded conditions err where they are close, for a few samples: by what lies between the branches."""
    module, expected = built(f"{BRANCHES} \n k = MatMul(x, c) \n {nodes} \n y = MatMul(j, w)")
    assert looked_up(module) == lookups * SIZE
    result = module(X)
    assert np.mean(np.abs(result - expected) < 0.1 * expected.std()) > 0.97
    exact, _ = built(
        f"{BRANCHES} \n k = MatMul(x, c) \n {nodes} \n y = MatMul(j, w)", rounding_method="exact"
    )
    assert np.array_equal(exact.forward(X, fhe="simulate"), exact(X))


def test_the_truth_table_of_two_encrypted_values_is_exact() -> None:
    for op, function in (("And", np.logical_and), ("Or", np.logical_or), ("Xor", np.logical_xor)):
        proto = model(f"y = {op}(a, b)", {"a": ("N", 1), "b": ("N", 1)})
        for info in (*proto.graph.input, *proto.graph.output):
            info.type.tensor_type.elem_type = 9  # bool
        a, b = np.array([[0], [0], [1], [1]], bool), np.array([[0], [1], [0], [1]], bool)
        module = fhe_core.quantize(proto, (a, b), n_bits=3)
        for mode in ("disable", "simulate"):
            assert np.array_equal(module.forward(a, b, fhe=mode), function(a, b))


@pytest.mark.parametrize(("low", "high"), [(0, 7), (-8, 7), (-15, -3), (2, 5)])
@pytest.mark.parametrize("branches", ["a, b", "a, five", "five, b"])
def test_a_choice_between_integers_is_exact(low: int, high: int, branches: str) -> None:
    """For every pair of integers and either condition, whatever their signs."""
    numbers = np.arange(low, high + 1)
    a, b, c = (part.reshape(-1, 1) for part in np.meshgrid(numbers, numbers, [False, True]))
    proto = model(
        f"y = Where(c, {branches})",
        {name: ("N", 1) for name in "abc" if name == "c" or name in branches.split(", ")},
        constants={"five": np.int64(5)},
    )
    kinds = {"a": 7, "b": 7, "c": 9, "y": 7}
    for info in (*proto.graph.input, *proto.graph.output):
        info.type.tensor_type.elem_type = kinds[info.name]
    given = {info.name: {"a": a, "b": b, "c": c}[info.name] for info in proto.graph.input}
    module = fhe_core.quantize(proto, given, n_bits=5, rounding=16)
    five = np.full_like(a, 5)
    first, second = ({"a": a, "b": b, "five": five}[name] for name in branches.split(", "))
    for mode in ("disable", "simulate"):
        assert np.array_equal(module.forward(**given, fhe=mode), np.where(c, first, second))


@pytest.mark.fhe
def test_encrypted_a_choice_gives_what_it_gives_in_the_clear() -> None:
    proto = model(
        "m = Greater(x, zero) \n r = MatMul(x, a) \n t = MatMul(x, b) \n y = Where(m, r, t)",
        {"x": ("N", 2)},
        constants={"a": normal(2, 2), "b": normal(2, 2, seed=1), "zero": np.float32(0)},
    )
    x = X[:, :2]
    how: dict[str, Any] = {"rounding_method": "exact", "client_side": "minimal"}
    module = fhe_core.compile(proto, x, n_bits=2, rounding=6, **how)
    np.testing.assert_array_equal(module.forward(x[:2], fhe="execute"), module.forward(x[:2]))
