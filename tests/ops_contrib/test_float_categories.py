"""Ops that map categories give what ONNX defines, and where it is silent what Runtime does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fhe_core.errors import InputError, ModelError
from onnx import TensorProto, numpy_helper

import fhe_core
from fhe_ops_contrib import categories
from tests.ops_contrib.models import by_runtime, ml, model, single
from tests.ops_std import onnx_cases

DOMAIN = "ai.onnx.ml"
INT64, FLOAT, STRING = TensorProto.INT64, TensorProto.FLOAT, TensorProto.STRING
NAN = float("nan")


def text(*values: Any) -> Any:
    return np.array(values, object)


def compute(op: str, x: Any, *, version: int = 4, **attributes: Any) -> Any:
    function = onnx_cases.implementation_for(categories.IMPLEMENTATIONS, op, version)
    return onnx_cases.run(function, [x], attributes)[0]


def agree(op: str, x: Any, kind: int, *, version: int = 4, **attributes: Any) -> Any:
    """The op's output, after comparing it with Runtime's."""
    got = compute(op, x, version=version, **attributes)
    (expected,) = by_runtime(single(op, x, outputs=(kind,), version=version, **attributes), x)
    onnx_cases.assert_same(got, expected)
    return got


@pytest.mark.parametrize("case", onnx_cases.parameters("LabelEncoder", domain=DOMAIN))
def test_onnx_s_own_cases(case: Any) -> None:
    case.check(categories.IMPLEMENTATIONS)


def test_onnx_has_cases_for_label_encoders() -> None:
    """A collection that breaks must not pass as an empty one."""
    assert len(onnx_cases.cases("LabelEncoder", domain=DOMAIN)) == 4


# -- LabelEncoder


def test_the_first_version_maps_text_to_places_and_back() -> None:
    given = {"classes_strings": ["b", "a", "é"], "version": 1}
    agree("LabelEncoder", text("a", "é", "", "B"), INT64, **given)
    agree("LabelEncoder", np.array([[0, 1], [-1, 3]]), STRING, **given)
    agree("LabelEncoder", text("x"), INT64, default_int64=9, **given)
    agree("LabelEncoder", np.array([7]), STRING, default_string="none", **given)


KEYS: dict[str, tuple[list[Any], Any]] = {
    "floats": ([1.5, -2.0, 0.0], np.array([[1.5, 2], [-2, -0.0]], np.float32)),
    "int64s": ([3, -1, 7], np.array([[3, 0], [7, -1]])),
    "strings": (["a", "", "é"], text("a", "", "A", "é").reshape(2, 2)),
}
VALUES: dict[str, tuple[list[Any], int]] = {
    "floats": ([0.5, 1.25, -3.0], FLOAT),
    "int64s": ([5, -6, 7], INT64),
    "strings": (["x", "", "yes, indeed"], STRING),
}


@pytest.mark.parametrize("version", [2, 4])
@pytest.mark.parametrize("keys", KEYS)
@pytest.mark.parametrize("values", VALUES)
def test_later_versions_map_each_type_to_each(version: int, keys: str, values: str) -> None:
    given = {f"keys_{keys}": KEYS[keys][0], f"values_{values}": VALUES[values][0]}
    agree("LabelEncoder", KEYS[keys][1], VALUES[values][1], version=version, **given)


def test_a_scalar_stays_one() -> None:
    got = compute("LabelEncoder", np.array(3), keys_int64s=[3], values_floats=[0.5])
    onnx_cases.assert_same(np.asarray(got), np.array(0.5, np.float32))


def test_nan_is_a_key_as_any_other() -> None:
    x = np.array([NAN, 1, 2], np.float32)
    given = {"keys_floats": [NAN, 1.0], "values_int64s": [5, 6]}
    assert agree("LabelEncoder", x, INT64, **given).tolist() == [5, 6, -1]
    assert compute("LabelEncoder", x, version=2, **given).tolist() == [5, 6, -1]


def test_of_equal_keys_the_first_counts_in_version_2_and_the_last_in_version_4() -> None:
    for x, keys in (
        (np.array([1]), {"keys_int64s": [1, 1]}),
        (text("a"), {"keys_strings": ["a"] * 2}),
    ):
        given = {**keys, "values_int64s": [5, 6]}
        assert agree("LabelEncoder", x, INT64, version=2, **given).tolist() == [5]
        # Runtime takes the first here too, against ONNX's words.
        assert compute("LabelEncoder", x, version=4, **given).tolist() == [6]


@pytest.mark.parametrize("kind", [np.int16, np.int32, np.int64, np.float32, np.float64])
def test_keys_values_and_the_default_may_be_tensors(kind: Any) -> None:
    x = np.array([1, 2, 3], kind)
    got = compute(
        "LabelEncoder",
        x,
        keys_tensor=np.array([1, 2], kind),
        values_tensor=np.array([10, 20], kind),
        default_tensor=np.array([7], kind),
    )
    onnx_cases.assert_same(got, np.array([10, 20, 7], kind))


def test_a_model_gives_its_tensors_to_the_op() -> None:
    tensors = {
        name: numpy_helper.from_array(value)
        for name, value in {
            "keys_tensor": np.array([1, 2]),
            "values_tensor": np.array([0.5, 1.5]),
            "default_tensor": np.array([-1.0]),
        }.items()
    }
    x = np.array([[2, 1], [0, 2]])
    proto = single("LabelEncoder", x, outputs=(TensorProto.DOUBLE,), version=4, **tensors)
    onnx_cases.assert_same(fhe_core.NumpyModule(proto)(x), by_runtime(proto, x)[0])


def test_versions_are_told_apart_by_the_model_s_import() -> None:
    specs = fhe_core.get_registry().ops(domain=DOMAIN)
    found = [(s.since_version, s.until) for s in specs if s.op_type == "LabelEncoder"]
    assert sorted(found, key=str) == [(1, 1), (2, 3), (4, None)]


# -- CategoryMapper


def test_a_category_mapper_goes_both_ways() -> None:
    given = {"cats_int64s": [5, 7, -1], "cats_strings": ["a", "", "é"]}
    agree("CategoryMapper", text("a", "é", "x", ""), INT64, version=1, **given)
    agree("CategoryMapper", np.array([[5, -1], [6, 7]]), STRING, version=1, **given)
    agree("CategoryMapper", text("x"), INT64, version=1, default_int64=4, **given)
    agree("CategoryMapper", np.array([0]), STRING, version=1, default_string="?", **given)


# -- OneHotEncoder


@pytest.mark.parametrize("shape", [(4,), (2, 2), (2, 1, 2)])
def test_one_hot_adds_a_dimension_with_a_one_at_the_category(shape: tuple[int, ...]) -> None:
    """Numbers lose their fraction, and what is no category gives zeros."""
    x = np.array([1.9, 3, -1.9, 8]).reshape(shape)
    for kind in (np.float32, np.float64, np.int64):
        got = agree("OneHotEncoder", x.astype(kind), FLOAT, version=1, cats_int64s=[1, -1, 3])
        assert got.shape == (*shape, 3)
    narrow = compute("OneHotEncoder", x.astype(np.int32), cats_int64s=[1, -1, 3])
    onnx_cases.assert_same(narrow, got)
    names = text("a", "é", "", "b").reshape(shape)
    agree("OneHotEncoder", names, FLOAT, version=1, cats_strings=["b", "a", ""])


def test_of_equal_categories_the_last_has_the_one() -> None:
    agree("OneHotEncoder", np.array([[1], [3]]), FLOAT, version=1, cats_int64s=[1, 1, 3])


def test_nan_is_no_category() -> None:
    x = np.array([NAN, np.inf, 1], np.float32)
    got = compute("OneHotEncoder", x, cats_int64s=[1, 2])
    assert got.tolist() == [[0, 0], [0, 0], [1, 0]]


def test_without_zeros_an_unknown_category_is_an_input_error() -> None:
    given: dict[str, Any] = {"cats_int64s": [1, 2], "zeros": 0}
    agree("OneHotEncoder", np.array([[2], [1]]), FLOAT, version=1, **given)
    proto = model([ml("OneHotEncoder", "x", "y", **given)], {"x": np.ones((1, 1))}, {"y": FLOAT})
    with pytest.raises(
        InputError, match=r"OneHotEncoder.*none of the categories.*got: .*5"
    ) as raised:
        fhe_core.NumpyModule(proto)(np.array([[1.0], [5.0]]))
    assert raised.value.where.node == "OneHotEncoder"


# -- attributes that contradict the input or each other

NUMBERS, TENSOR = np.array([1, 2]), np.array([1, 2])
WRONG: tuple[tuple[str, int, Any, dict[str, Any], str], ...] = (
    ("LabelEncoder", 1, NUMBERS, {}, "classes_strings"),
    ("LabelEncoder", 2, NUMBERS, {"values_int64s": [1]}, "keys_int64s"),
    ("LabelEncoder", 2, NUMBERS, {"keys_int64s": [1]}, "values_floats"),
    ("LabelEncoder", 2, NUMBERS, {"keys_int64s": [1], "values_int64s": [1, 2]}, "values"),
    (
        "LabelEncoder",
        2,
        NUMBERS,
        {"keys_int64s": [1], "keys_floats": [1.0], "values_int64s": [1]},
        "keys_floats",
    ),
    ("LabelEncoder", 2, NUMBERS, {"keys_strings": ["a"], "values_int64s": [1]}, "keys of int64"),
    (
        "LabelEncoder",
        4,
        text("a"),
        {"keys_tensor": TENSOR, "values_tensor": TENSOR},
        "keys of text",
    ),
    (
        "LabelEncoder",
        4,
        NUMBERS,
        {"keys_tensor": TENSOR, "values_tensor": TENSOR, "default_tensor": np.array([1.0])},
        "default_tensor",
    ),
    (
        "LabelEncoder",
        4,
        NUMBERS,
        {"keys_tensor": TENSOR, "values_tensor": TENSOR, "default_tensor": TENSOR},
        "default_tensor",
    ),
    ("CategoryMapper", 1, NUMBERS, {"cats_int64s": [1]}, "cats_strings"),
    (
        "CategoryMapper",
        1,
        NUMBERS,
        {"cats_int64s": [1], "cats_strings": ["a", "b"]},
        "cats_strings",
    ),
    ("OneHotEncoder", 1, NUMBERS, {}, "cats_int64s"),
    ("OneHotEncoder", 1, NUMBERS, {"cats_int64s": [1], "cats_strings": ["a"]}, "cats_strings"),
    ("OneHotEncoder", 1, NUMBERS, {"cats_strings": ["a"]}, "cats_strings"),
    ("OneHotEncoder", 1, text("a"), {"cats_int64s": [1]}, "cats_int64s"),
)


@pytest.mark.parametrize(("op", "version", "x", "attributes", "named"), WRONG)
def test_a_wrong_attribute_is_a_model_error_naming_op_and_attribute(
    op: str, version: int, x: Any, attributes: dict[str, Any], named: str
) -> None:
    with pytest.raises(ModelError) as raised:
        compute(op, x, version=version, **attributes)
    error = raised.value
    assert (error.where.op, error.where.domain) == (op, DOMAIN)
    assert named in str(error)
    assert error.expected
    assert error.fix
