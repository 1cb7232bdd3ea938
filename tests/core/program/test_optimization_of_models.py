"""What look-ups a model is spared: by passes over its program, and by how it is recorded."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from fhe_core.program.remarks import lookups
from fhe_core.quantization.planning import Settings
from fhe_core.quantization.session import Session
from fhe_ops_std.composing import compose_linear

import fhe_core
from fhe_core import NumpyModule, PlanError
from tests.core.quantization.building import model, normal, relative_error

X = normal(400, 4, seed=1)
W, V = normal(4, 6, seed=2), normal(6, 3, seed=3)
#: Two neurons that are far from positive, and one that is not positive on the calibration data.
BIAS = np.array([-40, -40, 0, 0, 0, -8], np.float32)
#: Accumulators of one scale, which not every neuron fills.
OPTIONS: dict[str, Any] = {"n_bits": 6, "weight_granularity": "per-tensor"}
NET = "h = Gemm(x, w, b) \n r = Relu(h) \n y = Gemm(r, v)"


def net(nodes: str = NET, **constants: Any) -> Any:
    given = {"w": W, "v": V, "b": BIAS, **constants}
    used = {name: value for name, value in given.items() if f" {name}" in nodes.replace("(", " ")}
    return model(nodes, {"x": ("N", 4)}, constants=used)


def count(nodes: str, **constants: Any) -> int:
    """Look-ups that one inference takes."""
    return lookups(fhe_core.quantize(net(nodes, **constants), X, n_bits=6).program)


# -- passes over the program


def test_savings_are_listed_and_can_be_turned_off() -> None:
    modules = {
        choice: fhe_core.quantize(net(), X, savings=choice, **OPTIONS)
        for choice in ("none", "exact", "all")
    }
    found = {choice: lookups(qm.program) for choice, qm in modules.items()}
    assert found == {"none": 6, "exact": 4, "all": 3}
    for choice, qm in modules.items():
        assert sum(saving.lookups for saving in qm.savings) == 6 - found[choice]
        assert all(saving.exact for saving in qm.savings) == (choice != "all")
        np.testing.assert_array_equal(qm(X), modules["none"](X))
    assert "Gemm_0" in {saving.node for saving in modules["all"].savings}


def test_there_are_no_other_choices() -> None:
    with pytest.raises(PlanError, match="savings cannot be 'some'"):
        fhe_core.quantize(net(), X, savings="some")


def test_a_plan_repeats_what_it_was_allowed() -> None:
    session = Session(net(), X)
    for choice in ("none", "exact", "all"):
        qm = session.build(Settings.of(6, None, savings=choice))
        again = session.rebuild(qm.plan)
        assert again.savings == qm.savings
        assert lookups(again.program) == lookups(qm.program)


def test_guaranteed_accumulators_assume_nothing_of_the_data() -> None:
    qm = fhe_core.quantize(net(), X, n_bits=6, overflow="guaranteed")
    assert qm.savings
    assert all(saving.exact for saving in qm.savings)


def test_weights_are_tuned_whole_and_lose_what_is_not_read_afterwards() -> None:
    session = Session(net(), X)
    tuned = session.build(dataclasses.replace(Settings.of(5, 4), tuning=30))
    assert {name: kernel.shape for name, kernel in tuned.plan.kernels.items()} == {
        "h": (4, 6),
        "y": (6, 3),
    }
    products = [node for node in tuned.program.nodes if node.op == "matmul"]
    assert products[0].attributes["weights"].shape[1] < 6
    again = session.rebuild(tuned.plan)
    np.testing.assert_array_equal(again(X), tuned(X))


def test_a_saved_model_has_lost_its_look_ups_too(tmp_path: Any) -> None:
    qm = fhe_core.quantize(net(), X, savings="all", **OPTIONS)
    qm.save(tmp_path / "model")
    loaded = fhe_core.load(tmp_path / "model")
    assert lookups(loaded.program) == lookups(qm.program) == 3
    np.testing.assert_array_equal(loaded(X), qm(X))


# -- how a model is recorded


def test_functions_that_follow_each_other_are_one_look_up() -> None:
    one = count("h = MatMul(x, w) \n r = Relu(h) \n y = MatMul(r, v)")
    three = "h = MatMul(x, w) \n r = Relu(h) \n s = Tanh(r) \n t = Mul(s, c) \n y = MatMul(t, v)"
    assert count(three, c=np.float32(3)) == one == 6


def test_what_only_shapes_outputs_takes_no_look_up() -> None:
    """It runs after decryption."""
    plain = count("h = MatMul(x, w) \n r = Relu(h) \n y = MatMul(r, v)")
    shaped = "h = MatMul(x, w) \n r = Relu(h) \n s = MatMul(r, v) \n y = Softmax(s)"
    assert count(shaped) == plain == 6


@pytest.mark.parametrize(
    ("layout", "needed"),
    [
        ("s = Slice(r, zero, two, one)", 2),
        ("s = Gather <axis = 1> (r, picked)", 2),
        ("q = Unsqueeze(r, one) \n e = Expand(q, shape) \n s = Flatten(e)", 6),
        ("q = Unsqueeze(r, one) \n t = Transpose <perm = [0, 2, 1]> (q) \n s = Flatten(t)", 6),
        ("s = Concat <axis = 1> (r, r)", 6),
        ("s = Pad(r, edges)", 6),
    ],
    ids=["slice", "gather", "expand", "transpose", "concat", "pad"],
)  # fmt: skip
def test_layout_moves_past_a_look_up_to_where_there_are_fewer_elements(
    layout: str, needed: int
) -> None:
    widths = {"Slice": 2, "Gather": 3, "Expand": 30, "Concat": 12, "Pad": 8, "Transpose": 6}
    size = next(width for name, width in widths.items() if name in layout)
    constants = {
        "zero": np.array([0]),
        "one": np.array([1]),
        "two": np.array([2]),
        "picked": np.array([4, 1, 4]),
        "shape": np.array([1, 5, 6]),
        "edges": np.array([0, 1, 0, 1]),
        "v": normal(size, 3, seed=3),
    }
    nodes = f"h = MatMul(x, w) \n r = Relu(h) \n {layout} \n y = MatMul(s, v)"
    assert count(nodes, **constants) == needed


@pytest.mark.parametrize(
    ("inner", "apart", "joined"),
    [("p = {pool} (h) \n r = Relu(p)", 40, 8), ("q = Relu(h) \n r = {pool} (q)", 40, 32)],
    ids=["after a product", "before a product"],
)
def test_an_average_that_joins_a_product_takes_no_look_up(
    inner: str, apart: int, joined: int
) -> None:
    """The packs' alternatives propose it, and the search takes what is cheaper."""
    pool = "AveragePool <kernel_shape = [2, 2], strides = [2, 2]>"
    nodes = f"h = Conv(x, k) \n {inner.format(pool=pool)} \n f = Flatten(r) \n y = MatMul(f, u)"
    constants = {"k": normal(2, 1, 3, 3, seed=4), "u": normal(8, 3, seed=5)}
    proto = model(nodes, {"x": ("N", 1, 6, 6)}, constants=constants)
    images = normal(50, 1, 6, 6, seed=6)
    assert lookups(fhe_core.quantize(proto, images, n_bits=4, savings="none").program) == apart
    with fhe_core.registered(passes=[compose_linear]):
        qm = fhe_core.quantize(proto, images, n_bits=4, savings="none")
    assert lookups(qm.program) == joined


def test_a_model_with_savings_keeps_its_answers() -> None:
    test = normal(1000, 4, seed=9)
    qm = fhe_core.quantize(net(), X, n_bits=8)
    assert relative_error(qm(test), NumpyModule(net())(test)) < 0.05
