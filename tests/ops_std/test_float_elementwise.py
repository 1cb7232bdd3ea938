"""The NumPy implementations of the elementwise ops, the reductions and the conversions are ONNX's.

Held to ONNX's own node tests; where those have no case left, for the interfaces of older opsets, to
ONNX Runtime (ONNX's reference evaluator answers for opset 13 there: no coercion to a matrix in
Softmax-1, say).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime
import pytest
from fhe_core.errors import ModelError, UnsupportedOpError
from fhe_core.registry.conformity import check_conformity, conforms
from fhe_core.registry.schema import history, newest_opset, schema_at
from fhe_core.registry.signature import OpSignature
from onnx import helper

from fhe_ops_std import activations, arithmetic, conversion, logic, reduction

from .onnx_cases import assert_same, cases, implementation_for, parameters, run

MODULES = (activations, arithmetic, logic, reduction, conversion)
IMPLEMENTATIONS = tuple(row for module in MODULES for row in module.IMPLEMENTATIONS)
OPS = tuple(sorted({op for op, _, _ in IMPLEMENTATIONS}))


def compute(op: str, *inputs: Any, opset: int = 21, **attributes: Any) -> Any:
    result = run(implementation_for(IMPLEMENTATIONS, op, opset), inputs, attributes)
    return result if len(result) > 1 else result[0]


def by_runtime(op: str, *inputs: Any, opset: int, **attributes: Any) -> list[Any]:
    """What ONNX Runtime answers for a model of this one node."""
    names = [f"x{i}" for i in range(len(inputs))]
    graph = helper.make_graph(
        [helper.make_node(op, names, ["y"], **attributes)],
        "one_node",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
            for name, x in zip(names, inputs, strict=True)
        ],
        [helper.make_empty_tensor_value_info("y")],
    )
    model = helper.make_model_gen_version(graph, opset_imports=[helper.make_opsetid("", opset)])
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, dict(zip(names, inputs, strict=True)))


# ONNX's own cases


@pytest.mark.parametrize("case", parameters(*OPS))
def test_onnx_case(case: Any) -> None:
    """Values, dtypes and shapes are those of ONNX's node tests; inputs are read-only."""
    case.check(IMPLEMENTATIONS)


def test_onnx_cases_are_all_there() -> None:
    """555 cases with onnx 1.23; a collection that breaks must not pass as an empty one."""
    found = cases(*OPS)
    assert len(found) >= 550
    assert {case.op_type for case in found} == set(OPS)


def test_writing_into_an_input_is_noticed() -> None:
    """So that the cases above prove that no function modifies its inputs."""

    def cheat(x: Any, /) -> Any:
        x += 1
        return x

    with pytest.raises(ValueError, match="read-only"):
        run(cheat, [np.zeros(2)], {})


# The tables


@pytest.mark.parametrize(
    ("op", "since", "function"),
    [pytest.param(*row, id=f"{row[0]}-{row[1]}") for row in IMPLEMENTATIONS],
)
def test_signature_is_the_schema(op: str, since: int, function: Any) -> None:
    schema = schema_at("", op, since)
    assert schema is not None
    assert schema.since_version == since
    check_conformity(OpSignature.from_callable(function), schema, function.__name__)
    assert f"ONNX {op}-" in function.__doc__


@pytest.mark.parametrize("op", OPS)
def test_every_opset_since_7_is_served(op: str) -> None:
    newest = newest_opset("")
    assert newest is not None
    for opset in range(max(7, history("", op)[0].since_version), newest + 1):
        schema = schema_at("", op, opset)
        assert schema is not None
        function = implementation_for(IMPLEMENTATIONS, op, opset)
        assert conforms(OpSignature.from_callable(function), schema), f"opset {opset}"


# Interfaces of older opsets

X = np.random.default_rng(1).normal(size=(2, 3, 4)).astype(np.float32)
REDUCTIONS = [op for op in OPS if op.startswith("Reduce")]

OLD: list[tuple[str, int, Any, Mapping[str, Any]]] = [
    *[("Clip", opset, X, a) for opset in (7, 10) for a in ({}, {"min": -0.5}, {"max": 0.5})],
    *[
        (op, opset, X, a)
        for op in ("Softmax", "LogSoftmax", "Hardmax")
        for opset in (7, 11)
        for a in ({}, {"axis": 0}, {"axis": 1}, {"axis": 2})
    ],
    *[(op, 11, X, {"axis": -2}) for op in ("Softmax", "LogSoftmax", "Hardmax")],
    *[
        (op, opset, np.abs(X), a)
        for op in REDUCTIONS
        for opset in (7, 11)
        for a in ({}, {"axes": [1], "keepdims": 0}, {"axes": [0, 2]}, {"keepdims": 0})
    ],
    *[(op, 11, np.abs(X), {"axes": [-1]}) for op in REDUCTIONS],
    *[(op, 13, np.abs(X), {"axes": [-1, 0]}) for op in REDUCTIONS if op != "ReduceSum"],
    *[
        (op, opset, np.rint(X), a)
        for op in ("ArgMax", "ArgMin")
        for opset in (7, 11)
        for a in ({}, {"axis": 2, "keepdims": 0})
    ],
    *[("Cast", opset, X * 9, {"to": to}) for opset in (7, 9, 13) for to in (6, 7, 9, 10, 11)],
    *[("Dropout", opset, X, a) for opset in (7, 10) for a in ({}, {"ratio": 0.9})],
    *[(op, 7, X, {}) for op in ("Shape", "Size", "Identity", "Elu", "Selu", "HardSigmoid")],
    *[(op, 7, X, {}) for op in ("LeakyRelu", "Sigmoid", "Softplus", "Softsign", "Tanh", "Relu")],
]


@pytest.mark.parametrize(
    ("op", "opset", "x", "attributes"),
    [pytest.param(*row, id=f"{row[0]}-{row[1]}-{row[3]}") for row in OLD],
)
def test_older_interface(op: str, opset: int, x: Any, attributes: dict[str, Any]) -> None:
    got = compute(op, x, opset=opset, **attributes)
    (expected,) = by_runtime(op, x, opset=opset, **attributes)
    assert_same(got[0] if isinstance(got, tuple) else got, expected, rtol=1e-5, atol=1e-6)


def test_dropout_mask_became_boolean_in_opset_10() -> None:
    for opset, attributes, dtype in (
        (6, {"is_test": 1}, np.float32),
        (7, {}, np.float32),
        (10, {}, np.bool_),
    ):
        y, mask = compute("Dropout", X, opset=opset, **attributes)
        assert_same(y, X)
        assert_same(mask, np.ones(X.shape, dtype))


def test_dropout_6_drops_unless_it_is_told_otherwise() -> None:
    y, mask = compute("Dropout", np.ones(1000, np.float32), opset=6, ratio=0.5)
    assert_same(y, 2 * mask)
    assert 300 < mask.sum() < 700


def test_prelu_slope_broadcasts_to_x() -> None:
    slope = np.array([[0.5], [2.0], [-1.0]], np.float32)
    assert_same(compute("PRelu", X, slope, opset=7), np.where(X < 0, slope * X, X))


def test_constant_is_the_one_attribute_given() -> None:
    assert_same(compute("Constant", opset=7, value=X), X)
    assert_same(compute("Constant", opset=11, value=X), X)
    assert_same(compute("Constant", opset=11, sparse_value=X), X)
    with pytest.raises(ModelError, match="no value"):
        compute("Constant", opset=11)
    for name, value, expected in (
        ("value_float", 1.5, np.array(1.5, np.float32)),
        ("value_floats", (), np.zeros(0, np.float32)),
        ("value_int", 0, np.array(0, np.int64)),
        ("value_ints", (1, 2), np.array([1, 2], np.int64)),
        ("value_string", "a", np.array("a", object)),
        ("value_strings", ("a", "bc"), np.array(["a", "bc"], object)),
    ):
        assert_same(compute("Constant", opset=13, **{name: value}), expected)


# Laws

ONE_OPERAND = [
    op
    for op, _, f in IMPLEMENTATIONS
    if OpSignature.from_callable(f).inputs in {("x",), ("input",)}
    and op not in {"Cast", "CastLike", "Not", "IsNaN", "IsInf", "Identity"}
]
TWO_OPERANDS = ["Add", "Sub", "Mul", "Div", "Mod", "Pow", "PRelu", "Sum", "Mean", "Min", "Max"]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(), (1,), (0,), (2, 0, 3), (2, 3)])
@pytest.mark.parametrize("op", sorted({*ONE_OPERAND, *TWO_OPERANDS, "Clip"}))
def test_dtype_and_shape_are_kept(op: str, shape: tuple[int, ...], dtype: Any) -> None:
    """Whatever the rank: Python constants must not widen a 0-d array."""
    x = np.full(shape, 0.75, dtype)
    inputs = {"Clip": (x, dtype(0), dtype(1))}.get(op, (x,) * (1 + (op in TWO_OPERANDS)))
    for opset in (12, 24):
        if history("", op)[0].since_version <= opset and not (op == "Clip" and opset < 11):
            y = compute(op, *inputs, opset=opset)
            assert y.dtype == dtype
            assert y.shape == shape


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("op", REDUCTIONS)
def test_reduction_keeps_the_dtype(op: str, dtype: Any) -> None:
    """Over all axes, one axis, and none; of a 0-d array too."""
    x = np.full((2, 3), 0.75, dtype)
    no_axes = np.zeros(0, np.int64)
    for data, axes, keepdims, noop, shape in (
        (x, None, 0, 0, ()),
        (x, no_axes, 1, 0, (1, 1)),
        (x, np.array([-1]), 0, 0, (2,)),
        (x, np.array([0, 1]), 1, 0, (1, 1)),
        (x, None, 1, 1, (2, 3)),
        (x, no_axes, 0, 1, (2, 3)),
        (x[0, 0], None, 1, 0, ()),
    ):
        y = compute(op, data, axes, keepdims=keepdims, noop_with_empty_axes=noop)
        assert y.dtype == dtype
        assert y.shape == shape


@pytest.mark.parametrize(
    ("op", "expected"),
    [
        ("ReduceSum", 0.0),
        ("ReduceMean", math.nan),
        ("ReduceMax", -math.inf),
        ("ReduceMin", math.inf),
        ("ReduceProd", 1.0),
        ("ReduceL1", 0.0),
        ("ReduceL2", 0.0),
        ("ReduceSumSquare", 0.0),
        ("ReduceLogSum", -math.inf),
        ("ReduceLogSumExp", -math.inf),
    ],
)
def test_empty_reduction_is_the_neutral_element(op: str, expected: float) -> None:
    y = compute(op, np.zeros((2, 0), np.float32), np.array([1]), keepdims=0)
    assert_same(y, np.full(2, expected, np.float32))


@pytest.mark.parametrize("op", REDUCTIONS)
def test_integer_reduction_is_an_integer(op: str) -> None:
    x = np.array([[1, 2, 3], [4, 5, 6]], np.int32)
    y = compute(op, x, np.array([1]), keepdims=0)
    exact = compute(op, x.astype(np.float64), np.array([1]), keepdims=0)
    assert_same(y, np.trunc(exact).astype(np.int32))


def test_half_precision_adds_up_in_single_precision() -> None:
    """4096 ones and one more: float16 would stop at 2048."""
    x = np.ones((4097, 2), np.float16)
    y = compute("ReduceSum", x, np.array([0]), keepdims=0)
    assert_same(y, np.full(2, 4096, np.float16))


EXTREME = np.array([-np.inf, -3e38, -1e4, -90, -1, 0, 1, 90, 1e4, 3e38, np.inf], np.float32)


@pytest.mark.parametrize(
    ("op", "low", "high"),
    [
        ("Sigmoid", 0.0, 1.0),
        ("HardSigmoid", 0.0, 1.0),
        ("Tanh", -1.0, 1.0),
        ("Erf", -1.0, 1.0),
        ("Softplus", 0.0, np.inf),
        ("Elu", -1.0, np.inf),
        ("Celu", -1.0, np.inf),
        ("Relu", 0.0, np.inf),
        ("LeakyRelu", -np.inf, np.inf),
    ],
)
def test_extreme_inputs_reach_the_limits(op: str, low: float, high: float) -> None:
    """Without an overflow on the way, which would be a warning, and so an error here."""
    y = compute(op, EXTREME)
    assert not np.isnan(y).any()
    assert (np.diff(y) >= 0)[np.isfinite(y[:-1])].all()
    assert y[0] == low
    assert y[-1] == high
    assert np.isnan(compute(op, np.array([np.nan], np.float32))).all()


@pytest.mark.parametrize("op", ["Gelu", "Mish", "Swish", "HardSwish"])
def test_x_times_a_gate_is_0_or_x_far_out(op: str) -> None:
    x = np.array([-1e4, 1e4], np.float32)
    assert_same(compute(op, x, opset=24), np.maximum(x, 0))


@pytest.mark.parametrize("op", ["Sigmoid", "Softplus"])
def test_small_results_are_relatively_exact(op: str) -> None:
    """Far to the left both are exp(x), also where 1 + exp(x) is 1."""
    x = np.linspace(-80, -20, 61, dtype=np.float32)
    assert_same(compute(op, x), np.exp(x), rtol=1e-6)


@pytest.mark.parametrize("opset", [11, 13])
def test_softmax_of_huge_values(opset: int) -> None:
    x = np.array([[1e38, 1e38, -1e38], [-1e38, -1e38, -1e38]], np.float32)
    expected = np.array([[1 / 2, 1 / 2, 0], [1 / 3] * 3], np.float32)
    assert_same(compute("Softmax", x, opset=opset), expected, rtol=1e-6)
    y = compute("LogSoftmax", np.array([[1000, 0]], np.float32), opset=opset)
    assert_same(y, np.array([[0, -1000]], np.float32))


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-7), (np.float64, 1e-15)])
def test_erf_is_accurate(dtype: Any, tolerance: float) -> None:
    """Within the tolerance of the standard library's, on a grid and at the seams."""
    seams = [s + d for s in (0.46875, 0.9, 4.0, 6.0) for d in (-1e-7, 0.0, 1e-7)]
    x = np.concatenate([np.linspace(-7, 7, 20_001), seams]).astype(dtype)
    exact = np.array([math.erf(v) for v in x.tolist()])
    assert np.abs(compute("Erf", x).astype(np.float64) - exact).max() <= tolerance


def test_erf_of_integers_is_truncated() -> None:
    assert_same(compute("Erf", np.array([-9, -1, 0, 9], np.int32)), np.int32([-1, 0, 0, 1]))


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64])
def test_integer_division_truncates_toward_zero(dtype: Any) -> None:
    a, b = np.array([[7], [-7], [-128]], dtype), np.array([2, -2, 3, -128], dtype)
    expected = [[int(p / q) for q in b.tolist()] for p in a[:, 0].tolist()]
    assert_same(compute("Div", a, b), np.array(expected, dtype))


def test_division_by_zero_is_infinite() -> None:
    one, zero = np.ones(2, np.float32), np.array([0.0, -0.0], np.float32)
    assert_same(compute("Div", one, zero), np.array([np.inf, -np.inf], np.float32))
    assert_same(compute("Reciprocal", zero), np.array([np.inf, -np.inf], np.float32))


def test_power_has_the_dtype_of_its_base() -> None:
    for base in (np.int32, np.int64, np.float16, np.float32, np.float64):
        for exponent in (np.int32, np.int64, np.uint8, np.float32, np.float64):
            for shape in ((), (3,)):
                y = compute("Pow", np.full(shape, 3, base), np.full((), 2, exponent))
                assert_same(y, np.full(shape, 9, base))


def test_integer_power_of_a_negative_exponent_truncates() -> None:
    x, y = np.array([1, -1, -1, 2, -7, 5], np.int32), np.array([-3, -3, -2, -1, -2, 0], np.int32)
    assert_same(compute("Pow", x, y), np.array([1, -1, 1, 0, 0, 1], np.int32))


def test_one_operand_of_a_variadic_op_is_the_result() -> None:
    for op in ("Sum", "Mean", "Min", "Max"):
        assert_same(compute(op, X), X)


def test_minimum_and_maximum_of_nan_are_nan() -> None:
    x, y = np.array([np.nan, 1.0], np.float32), np.array([1.0, np.nan], np.float32)
    for op in ("Min", "Max"):
        assert np.isnan(compute(op, x, y)).all()


def test_halves_round_to_even() -> None:
    x = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5], np.float32)
    assert_same(compute("Round", x), np.array([-2, -2, 0, 0, 2, 2], np.float32))


def test_clip_6_of_half_precision_has_no_limits_by_default() -> None:
    x = np.array([-np.inf, -65504, 1, np.inf], np.float16)
    assert_same(compute("Clip", x, opset=6), x)


def test_cast_beyond_the_range_is_infinite() -> None:
    x = np.array([1e6, -1e6], np.float32)
    assert_same(compute("Cast", x, to=10), np.array([np.inf, -np.inf], np.float16))


def test_strings_are_not_cast() -> None:
    with pytest.raises(UnsupportedOpError, match="got: 8"):
        compute("Cast", X, to=8)
    with pytest.raises(UnsupportedOpError, match="to object"):
        compute("CastLike", X, np.array("a", object))


def test_infinity_is_detected_by_sign() -> None:
    x = np.array([-np.inf, 0, np.inf, np.nan], np.float32)
    for negative in (0, 1):
        for positive in (0, 1):
            y = compute("IsInf", x, detect_negative=negative, detect_positive=positive)
            assert_same(y, np.array([negative, 0, positive, 0], bool))
