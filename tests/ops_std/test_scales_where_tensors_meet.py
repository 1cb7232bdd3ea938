"""Where tensors meet each keeps the precision that it needs, whatever the others are like."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from fhe_core.quantization.module import QuantizedModule
from numpy.typing import NDArray

import fhe_core
from tests.core.quantization.building import model, normal

SIZE = 6
X = np.clip(normal(300, SIZE, seed=1), -3, 3)
CONSTANTS: dict[str, Any] = {
    "a": normal(SIZE, SIZE, seed=2) / 3,
    "b": normal(SIZE, SIZE, seed=3) / 3,
    "w": normal(SIZE, 4, seed=4),
    "v": normal(2 * SIZE, 4, seed=5),
    "u": np.ones((1, 2), np.float32),
    "zero": np.float32(0),
    "half": np.float32(0.5),
    "one": np.float32(1),
    "two": np.float32(2),
    "forty": np.float32(40),
    "thousand": np.float32(1000),
    "mask": np.arange(SIZE) % 2 == 0,
    "ones": np.ones((1, SIZE), np.float32),
    "axis": np.array([1]),
}
#: p, between 0 and 1, and t, between -1 and 1, of accumulators of their own.
BRANCHES = "h = MatMul(x, a) \n p = Sigmoid(h) \n g = MatMul(x, b) \n t = Tanh(g)"
JOINS = {
    "Add": "j = Add(p, q)",
    "Sub": "j = Sub(q, p)",
    "Sum": "j = Sum(p, q, p)",
    "Mean": "j = Mean(p, q)",
    "Where": "j = Where(mask, p, q)",
    "Concat": "j = Concat <axis = 1> (p, q)",
}


def built(nodes: str, outputs: str = "y", **how: Any) -> tuple[QuantizedModule, Any, Any]:
    """A module at eight bits, its results, and those of ONNX Runtime."""
    words = set(nodes.replace(",", " ").replace("(", " ").replace(")", " ").split())
    used = {name: value for name, value in CONSTANTS.items() if name in words}
    proto = model(nodes, {"x": ("N", SIZE)}, outputs, used)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options)
    module = fhe_core.quantize(proto, X, **(how or {"n_bits": 8}))
    wanted = session.run(None, {"x": X})
    found = module(X)
    return module, found if isinstance(found, tuple) else (found,), wanted


def r2(found: NDArray[Any], wanted: NDArray[Any]) -> float:
    missed = np.square(np.float64(found) - wanted).sum()
    return float(1 - missed / np.square(wanted - wanted.mean(axis=0)).sum())


def weighted(join: str) -> str:
    return f"y = MatMul(j, {'v' if 'Concat' in join else 'w'})"


@pytest.mark.parametrize("constant", ["zero", "one", "forty"])
@pytest.mark.parametrize("join", JOINS.values(), ids=list(JOINS))
def test_a_branch_that_is_constant_on_the_calibration_data_has_no_say(
    join: str, constant: str
) -> None:
    """Computed from encrypted values, so that nothing but the data tells that it is constant."""
    nodes = f"{BRANCHES} \n k = Mul(t, zero) \n q = Add(k, {constant}) \n {join}"
    module, (found,), (wanted,) = built(f"{nodes} \n {weighted(join)}")
    (p,) = (
        module.plan.tensors[name] for name in ("p", "p.equalized") if name in module.plan.tensors
    )
    assert p.scale < 0.005
    # Weights are rounded: what they make of the constant is the same for all samples, and no variance.
    assert r2(found - found.mean(axis=0), wanted - wanted.mean(axis=0)) > 0.998


@pytest.mark.parametrize("join", JOINS.values(), ids=list(JOINS))
@pytest.mark.parametrize(
    "operand",
    [
        "k = Greater(g, zero) \n q = Cast <to = 1> (k)",
        "k = Less(g, thousand) \n q = Cast <to = 1> (k)",
        "k = Mul(t, two) \n q = Floor(k)",
        "k = Sign(t) \n l = Abs(k) \n m = ReduceSum(l, axis) \n n = Mul(m, ones) \n q = Div(n, two)",
    ],
    ids=["truth", "always-true", "floor", "constant-count"],
)
def test_truth_values_and_counts_leave_what_they_meet_its_precision(
    join: str, operand: str
) -> None:
    _, (found,), (wanted,) = built(f"{BRANCHES} \n {operand} \n {join} \n {weighted(join)}")
    # Near zero a truth value of rounded numbers may be the other one.
    assert r2(found, wanted) > 0.98


def test_a_tensor_keeps_its_own_scale_for_its_other_readers() -> None:
    """p is read by a product, too, which must not see it in steps of the thousand that it is added to."""
    join = "q = Mul(t, thousand) \n j = Add(p, q) \n y = MatMul(j, w) \n z = MatMul(p, w)"
    module, found, wanted = built(f"{BRANCHES} \n {join}", "y z")
    assert module.plan.tensors["p"].scale < 0.005
    assert min(map(r2, found, wanted)) > 0.998


@pytest.mark.parametrize(("join", "factor"), [("Min", "thousand"), ("Max", "thousand")])
def test_the_lesser_of_two_is_as_fine_as_its_own_range(join: str, factor: str) -> None:
    """Beyond what the result can be, an operand may saturate."""
    sign = "Neg(p)" if join == "Max" else "Identity(p)"
    nodes = f"{BRANCHES} \n s = {sign} \n q = Div(s, {factor}) \n l = Abs(t) \n m = Add(l, one)"
    last = "n = Neg(m) \n j = Max(n, q)" if join == "Max" else "j = Min(m, q)"
    _, (found,), (wanted,) = built(f"{nodes} \n {last} \n y = MatMul(j, w)")
    assert r2(found, wanted) > 0.99


@pytest.mark.parametrize("join", ["Add", "Sub", "Where(mask,", "Concat"])
def test_whole_numbers_stay_exact_where_they_meet_fractions(join: str) -> None:
    """Then what compares them afterwards is right: no 1 has become 0.996."""
    counts = "k = Greater(x, half) \n c = Cast <to = 1> (k) \n d = Mul(c, two)"
    apart = {
        "Add": "z = Mul(p, zero) \n j = Add(d, z)",
        "Sub": "z = Mul(p, zero) \n j = Sub(d, z)",
        "Where(mask,": "j = Where(mask, d, d)",
        "Concat": "i = Concat <axis = 1> (d, p) \n e = Constant <value_ints = [6]> () "
        "\n s = Constant <value_ints = [0]> () \n j = Slice(i, s, e, axis)",
    }[join]
    end = "l = GreaterOrEqual(j, two) \n y = Cast <to = 1> (l)"
    _, (found,), (wanted,) = built(f"{BRANCHES} \n {counts} \n {apart} \n {end}")
    # Where x itself is rounded across the half, the float model decides otherwise.
    sure = np.abs(X - 0.5) > 0.03
    assert np.array_equal(found[sure], wanted[sure])


def test_bins_are_found_as_skl2onnx_writes_them() -> None:
    """KBinsDiscretizer: the first of the comparisons with the edges that holds, and one that always does."""
    edges = np.array([-0.7, 0, 0.7], np.float32)
    nodes = """
        l = Less(x, edges)
        c = Cast <to = 1> (l)
        z = Mul(x, zero)
        o = Add(z, one)
        cc = Concat <axis = 1> (c, o)
        i = ArgMax <axis = 1> (cc)
        y = Cast <to = 1> (i)
    """
    x = normal(300, 1)
    constants = {"edges": edges, "zero": np.float32([0]), "one": np.float32([1])}
    proto = model(nodes, {"x": ("N", 1)}, constants=constants)
    for more in ("", "\n w = MatMul(y, k)"):
        if more:
            proto = model(nodes + more, {"x": ("N", 1)}, "w", {**constants, "k": np.float32([[1]])})
        found = np.rint(fhe_core.quantize(proto, x, n_bits=8)(x)).ravel()
        sure = np.abs(x - edges).min(axis=1) > 0.02
        assert np.array_equal(found[sure], np.searchsorted(edges, x[:, 0], "right")[sure])


def test_a_plan_with_a_second_scale_is_read_back() -> None:
    join = "q = Mul(t, thousand) \n j = Add(p, q) \n y = MatMul(j, w) \n z = MatMul(p, w)"
    module, found, _ = built(f"{BRANCHES} \n {join}", "y z")
    again, repeated, _ = built(f"{BRANCHES} \n {join}", "y z", plan=module.plan)
    assert any(name.startswith("p@") for name in again.plan.tensors)
    for one, other in zip(found, repeated, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "count",
    [
        "k = Cast <to = 1> (c) \n s = ReduceSum(k, axis)",
        "f = Cast <to = 1> (c) \n k = Concat <axis = 1> (f, f) \n s = ReduceSum(k, axis)",
        "k = Cast <to = 7> (c) \n i = ReduceSum(k, axis) \n s = Cast <to = 1> (i)",
        "k = Cast <to = 1> (c) \n l = Neg(k) \n n = ReduceSum(l, axis) \n s = Neg(n)",
    ],
    ids=["sum", "twice", "integers", "negative"],
)
def test_a_count_is_exact_however_many_are_counted(count: str) -> None:
    """A sum of truth values that is rounded would be no count: what equals two would be none."""
    nodes = f"c = Greater(x, half) \n {count} \n e = Equal(s, two) \n z = Cast <to = 1> (e) \n y = MatMul(z, u)"
    module, (found,), (wanted,) = built(nodes)
    sure = (np.abs(X - 0.5) > 0.03).all(axis=1)
    np.testing.assert_allclose(found[sure], wanted[sure], atol=0.02)
    assert max(node.inputs[0].width for node in module.program.lookups) <= 8


def test_a_count_beside_what_measures_has_steps_as_fine() -> None:
    """Its own step would be the other's, too."""
    nodes = "c = Greater(x, half) \n k = Cast <to = 1> (c) \n h = MatMul(x, a) \n p = Sigmoid(h)"
    for join in ("j = Add(p, k)", "j = Mul(p, k)", "d = Sub(k, p) \n j = Abs(d)"):
        _, (found,), (wanted,) = built(f"{nodes} \n {join} \n y = MatMul(j, w)")
        assert r2(found, wanted) > 0.98
