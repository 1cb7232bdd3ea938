"""What becomes of an op depends on its place: in a look-up, on the client, or on integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fhe_core.errors import CompilationError, PlanError, UnsupportedOpError
from fhe_core.quantization.module import QuantizedModule
from fhe_core.quantization.plan import Plan

import fhe_core
from tests.core.quantization.building import model, normal, relative_error

X = normal(300, 6, seed=1)
IMAGES = normal(200, 3, 6, 6, seed=2)
A, B, C = normal(6, 6), normal(6, 3, seed=3), normal(6, 6, seed=4)
KERNEL = normal(4, 3, 3, 3, seed=5)


def built(
    nodes: str, data: Any = X, outputs: str = "y", opset: int = 17, **constants: Any
) -> tuple[QuantizedModule, Any]:
    """At 8 bits, and what float makes of the data."""
    proto = model(nodes, {"x": ("N", *data.shape[1:])}, outputs, constants, opset=opset)
    qm = fhe_core.quantize(proto, data, n_bits=8, rounding=10)
    return qm, fhe_core.NumpyModule(proto)(data)


def modes(qm: QuantizedModule) -> list[str]:
    return [f"{row.op} {row.mode}" for row in qm.fusion]


# -- after decryption


@pytest.mark.parametrize(
    ("nodes", "opset"),
    [
        ("h = MatMul(x, b) \n y = Softmax <axis = 1> (h)", 17),
        ("h = MatMul(x, b) \n y = Softmax(h)", 9),
        ("h = MatMul(x, b) \n y = LogSoftmax <axis = 1> (h)", 17),
        ("h = MatMul(x, b) \n y = Sigmoid(h)", 17),
        ("h = MatMul(x, b) \n r = Relu(h) \n y = Softmax <axis = 1> (r)", 17),
        ("h = MatMul(x, b) \n y = ReduceMax <axes = [1]> (h)", 17),
    ],
)
def test_what_only_shapes_the_output_runs_after_decryption(nodes: str, opset: int) -> None:
    qm, expected = built(nodes, b=B, opset=opset)
    assert not qm.program.lookups
    assert {mode.split()[1] for mode in modes(qm)[1:]} == {"client"}
    assert relative_error(qm(X), expected) < 0.02


def test_argmax_runs_after_decryption() -> None:
    qm, expected = built("h = MatMul(x, b) \n y = ArgMax <axis = 1, keepdims = 0> (h)", b=B)
    assert not qm.program.lookups
    assert qm(X).dtype == np.int64
    assert np.mean(qm(X) == expected) > 0.98


def test_with_a_minimal_client_the_last_activation_stays_on_the_server() -> None:
    proto = model("h = MatMul(x, b) \n y = Sigmoid(h)", {"x": ("N", 6)}, constants={"b": B})
    qm = fhe_core.quantize(proto, X, n_bits=8, rounding=10, client_side="minimal")
    assert len(qm.program.lookups) == 1
    assert modes(qm) == ["MatMul mixed", "Sigmoid float"]
    assert relative_error(qm(X), fhe_core.NumpyModule(proto)(X)) < 0.03


@pytest.mark.parametrize(
    ("first", "second", "opset"),
    [
        ("ReduceMax <axes = [1], keepdims = 0>", "ReduceMax <axes = [1, 2], keepdims = 0>", 17),
        ("Softmax <axis = 1>", "Softmax <axis = 2>", 17),
        ("ReduceMin <axes = [1]>", "ReduceMin <axes = [2]>", 13),
        ("LogSoftmax <axis = 1>", "LogSoftmax <axis = 2>", 13),
        ("ReduceLogSumExp <axes = [1]>", "ReduceLogSumExp <axes = [2]>", 13),
    ],
)
def test_outputs_that_differ_in_attributes_alone_are_computed_each_with_its_own(
    first: str, second: str, opset: int
) -> None:
    rows = normal(200, 4, 6, seed=6)
    qm, expected = built(
        f"h = MatMul(x, a) \n y = {first} (h) \n z = {second} (h)", rows, "y z", opset, a=A
    )
    assert not qm.program.lookups
    for got, wanted in zip(qm(rows), expected, strict=True):
        assert got.shape == wanted.shape
        assert relative_error(got, wanted) < 0.02


@pytest.mark.parametrize(
    "equation",
    [
        *("bld,bmd->blm", "bld,bld->bl", "bld,bmd->bld", "bld,bme->blmde", "bld,bmd->b"),
        *("...ld,...md->...lm", "bld,bmd,bme->ble"),
    ],
)
def test_sums_of_products_of_encrypted_values_run_after_decryption(equation: str) -> None:
    rows, encrypted = normal(200, 4, 6, seed=6), equation.count(",") + 1
    operands = ", ".join(["h", "t", "h"][:encrypted])
    qm, expected = built(
        f'h = MatMul(x, a) \n t = Tanh(h) \n y = Einsum <equation = "{equation}"> ({operands})',
        rows,
        a=A,
    )
    assert not qm.program.lookups
    assert qm(rows).shape == expected.shape
    assert relative_error(qm(rows), expected) < 0.04


# -- before encryption


def test_what_comes_before_the_first_product_runs_before_encryption() -> None:
    qm, expected = built("s = Sub(x, m) \n t = Tanh(s) \n y = MatMul(t, b)", m=normal(6), b=B)
    assert modes(qm) == ["Sub client", "Tanh client", "MatMul mixed"]
    assert not qm.program.lookups
    assert relative_error(qm(X), expected) < 0.02


def test_a_function_that_ends_where_the_data_does_meets_nothing_beyond() -> None:
    """Inputs saturate before the logarithm, whose table knows no negative number."""
    positive = abs(X) + np.float32(0.1)
    proto = model("l = Log(x) \n y = MatMul(l, b)", {"x": ("N", 6)}, constants={"b": B})
    qm = fhe_core.quantize(proto, positive, n_bits=8)
    with pytest.warns(UserWarning, match="saturate"):
        beyond = qm(-positive)
    assert np.array_equal(beyond, qm(np.full_like(positive, positive.min())))


def test_with_a_minimal_client_the_input_is_encrypted_as_it_is() -> None:
    proto = model("t = Tanh(x) \n y = MatMul(t, b)", {"x": ("N", 6)}, constants={"b": B})
    qm = fhe_core.quantize(proto, X, n_bits=8, rounding=10, client_side="minimal")
    assert len(qm.program.lookups) == 1
    assert modes(qm) == ["Tanh float", "MatMul mixed"]
    assert relative_error(qm(X), fhe_core.NumpyModule(proto)(X)) < 0.03


# -- in one look-up


def test_a_chain_of_functions_is_one_look_up() -> None:
    chain = "h = MatMul(x, a) \n i = Mul(h, s) \n j = Add(i, t) \n k = Tanh(j) \n y = MatMul(k, b)"
    qm, expected = built(chain, a=A, s=normal(6), t=normal(6, seed=1), b=B)
    assert len(qm.program.lookups) == 1
    assert relative_error(qm(X), expected) < 0.03


def test_batch_normalization_after_a_convolution_is_part_of_its_look_up() -> None:
    statistics: dict[str, Any] = {"s": normal(4), "m": normal(4, seed=1), "v": abs(normal(4)) + 1}
    nodes = """
        c = Conv(x, k)
        n = BatchNormalization(c, s, m, m, v)
        r = Relu(n)
        f = Flatten(r)
        y = MatMul(f, w)
    """
    qm, expected = built(nodes, IMAGES, k=KERNEL, w=normal(64, 3), **statistics)
    assert len(qm.program.lookups) == 1
    assert relative_error(qm(IMAGES), expected) < 0.03


def test_layout_between_an_accumulator_and_its_function_costs_nothing() -> None:
    """The look-up is on whichever side has fewer elements: the cut here, the source of an expansion."""
    cut = "c = Conv(x, k) \n s = Slice(c, one, two, one) \n r = Relu(s) \n f = Flatten(r) \n y = MatMul(f, w)"
    qm, expected = built(
        cut, IMAGES, k=KERNEL, one=np.array([1]), two=np.array([2]), w=normal(16, 3)
    )
    assert [np.prod(node.shape[1:]) for node in qm.program.lookups] == [16]
    assert relative_error(qm(IMAGES), expected) < 0.03
    grown = "h = MatMul(x, a) \n u = Unsqueeze(h, one) \n e = Expand(u, to) \n r = Relu(e) \n y = MatMul(r, b)"
    qm, expected = built(grown, a=A, b=B, one=np.array([1]), to=np.array([1, 5, 1]))
    assert [np.prod(node.shape[1:]) for node in qm.program.lookups] == [6]
    assert relative_error(qm(X), expected) < 0.03


def test_tables_hold_what_is_nearest_where_a_function_is_not_defined() -> None:
    """An accumulator has levels that the data never reach, and the logarithm there is no number."""
    positive = abs(X) + np.float32(0.5)
    nodes = "h = MatMul(x, a) \n l = Log(h) \n y = MatMul(l, b)"
    qm, expected = built(nodes, positive, a=abs(A), b=B)
    assert relative_error(qm(positive), expected) < 0.05
    assert np.isfinite(qm.forward(positive, fhe="simulate")).all()


# -- several inputs and outputs


def test_outputs_may_be_a_look_up_an_accumulator_and_what_both_lead_to() -> None:
    nodes = "h = MatMul(x, a) \n r = Relu(h) \n y = MatMul(r, b)"
    qm, expected = built(nodes, outputs="y r h", a=A, b=B)
    results = qm(X)
    assert len(results) == 3
    for result, wanted in zip(results, expected, strict=True):
        assert relative_error(result, wanted) < 0.03


def test_inputs_may_come_by_position_or_by_name() -> None:
    proto = model(
        "h = MatMul(x, a) \n i = MatMul(z, c) \n s = Add(h, i) \n r = Relu(s) \n y = MatMul(r, b)",
        {"x": ("N", 6), "z": ("N", 6)},
        constants={"a": A, "b": B, "c": C},
    )
    z = normal(300, 6, seed=6)
    qm = fhe_core.quantize(proto, (X, z), n_bits=8, rounding=10)
    expected = fhe_core.NumpyModule(proto)(X, z)
    assert relative_error(qm(X, z), expected) < 0.03
    assert np.array_equal(qm(z=z, x=X), qm(X, z))
    assert len(qm.program.lookups) == 3  # of both products, at one scale, and of their sum


def test_an_input_that_enters_in_parts_is_several_inputs_of_the_circuit() -> None:
    parts = "p, q = Split <axis = 1> (x, s) \n h = MatMul(p, a) \n i = MatMul(q, a)"
    nodes = f"{parts} \n y = Concat <axis = 1> (h, i)"
    qm, expected = built(nodes, s=np.array([3, 3]), a=normal(3, 2))
    assert [node.name for node in qm.program.inputs] == ["x", "x#2"]
    assert relative_error(qm(X), expected) < 0.03


# -- joins


def test_branches_that_join_share_a_scale_so_that_joining_costs_nothing() -> None:
    nodes = "h = MatMul(x, a) \n r = Relu(h) \n i = MatMul(x, c) \n t = Tanh(i) \n {} \n y = MatMul(j, {})"
    for join, size in (("j = Add(r, t)", 6), ("j = Concat <axis = 1> (r, t)", 12)):
        qm, expected = built(nodes.format(join, "b"), a=A, c=C, b=normal(size, 3))
        assert len(qm.program.lookups) == 2
        scales = {qm.plan.tensors[name].scale for name in "rt"}
        assert len(scales) == 1
        assert relative_error(qm(X), expected) < 0.03


def test_joined_tensors_with_scales_of_their_own_are_requantized() -> None:
    """Where a plan was edited so: correct all the same, in the look-up that quantizes them."""
    branches = "h = MatMul(x, a) \n r = Relu(h) \n i = MatMul(x, c) \n t = Tanh(i)"
    nodes = f"{branches} \n j = Add(r, t) \n y = MatMul(j, b)"
    proto = model(nodes, {"x": ("N", 6)}, constants={"a": A, "c": C, "b": B})
    first = fhe_core.quantize(proto, X, n_bits=8, rounding=10)
    plan = Plan.from_json(first.plan.to_json())
    plan.tensors["t"].scale /= 2
    edited = fhe_core.quantize(proto, X, plan=plan)
    assert len(edited.program.lookups) == len(first.program.lookups)
    assert relative_error(edited(X), fhe_core.NumpyModule(proto)(X)) < 0.05
    plan.tensors["t"].scale *= 1e9
    with pytest.raises(PlanError, match="scales too far apart"):
        fhe_core.quantize(proto, X, plan=plan)


def test_a_maximum_keeps_its_bits_in_front_of_a_wide_product() -> None:
    """They share their width with the product's accumulator, of which a rounding keeps the top alone."""
    nodes = "c = Conv(x, k) \n p = MaxPool <kernel_shape = [2, 2]> (c) \n f = Flatten(p) \n y = MatMul(f, w)"
    proto = model(nodes, {"x": ("N", 3, 6, 6)}, constants={"k": KERNEL, "w": normal(36, 3)})
    qm = fhe_core.quantize(proto, IMAGES, n_bits=6, rounding=7)
    widths = {entry.bits for name, entry in qm.plan.accumulators.items() if name.startswith("p")}
    assert min(widths) > 10
    assert relative_error(qm(IMAGES), fhe_core.NumpyModule(proto)(IMAGES)) < 0.1


# -- what cannot be


@pytest.mark.parametrize(
    ("nodes", "constants", "says"),
    [
        (
            "h = MatMul(x, a) \n m = Reshape(h, square) \n d = Det(m) \n f = Unsqueeze(d, one) \n "
            "y = MatMul(f, b)",
            {"a": normal(6, 4), "square": np.array([-1, 2, 2]), "one": np.array([1]), "b": B[:1]},
            "runs in float only",
        ),
        (
            "h = MatMul(x, a) \n i = MatMul(x, c) \n p = PRelu(h, i) \n y = MatMul(p, b)",
            {"a": A, "b": B, "c": C},
            "one input",
        ),
        ("y, i = MaxPool <kernel_shape = [2]> (x)", {}, "indices of encrypted maxima"),
        (
            "h = MatMul(x, a) \n w = Unsqueeze(h, two) \n y = Conv(q, w)",
            {"a": A, "q": normal(1, 6, 8), "two": np.array([2])},
            "'w' is encrypted",
        ),
    ],
)
def test_what_has_no_encrypted_form_is_refused(nodes: str, constants: Any, says: str) -> None:
    shape = (2, 6) if "MaxPool" in nodes else (6,)
    outputs = "y i" if "MaxPool" in nodes else "y"
    with pytest.raises((CompilationError, UnsupportedOpError), match=says) as caught:
        built(nodes, normal(50, *shape), outputs, **constants)
    assert caught.value.where.node
    assert caught.value.fix
