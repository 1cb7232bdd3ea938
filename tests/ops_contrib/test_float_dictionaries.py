"""Ops from and to maps give what ONNX Runtime does; maps are dicts, sequences of them lists."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fhe_core.errors import InputError, ModelError
from onnx import TensorProto

import fhe_core
from fhe_ops_contrib import dictionaries
from tests.ops_contrib.models import by_runtime, mapping, ml, model, single
from tests.ops_std import onnx_cases

INT64, FLOAT, STRING = TensorProto.INT64, TensorProto.FLOAT, TensorProto.STRING
NUMBERS, NAMES = mapping(INT64, FLOAT), mapping(STRING, FLOAT)


def compute(op: str, x: Any, **attributes: Any) -> Any:
    function = onnx_cases.implementation_for(dictionaries.IMPLEMENTATIONS, op, 1)
    return onnx_cases.run(function, [x], attributes)[0]


def agree(op: str, x: Any, given: Any, kind: Any, **attributes: Any) -> Any:
    """What a model of the op gives, after comparing it with Runtime's. ``given``: the map's type."""
    proto = model([ml(op, "x", "y", **attributes)], {"x": given}, {"y": kind})
    got = fhe_core.NumpyModule(proto)(x)
    (expected,) = by_runtime(proto, x)
    onnx_cases.assert_same(got, expected)
    return got


def test_a_dict_vectorizer_orders_values_by_its_vocabulary() -> None:
    given = {"string_vocabulary": ["c", "b", "a"]}
    agree("DictVectorizer", {"a": 1.5, "c": 2.0}, NAMES, FLOAT, **given)
    agree("DictVectorizer", {"a": 1.5, "z": 2.0}, NAMES, FLOAT, **given)
    agree("DictVectorizer", {2: 1.5, -3: 2.0}, NUMBERS, FLOAT, int64_vocabulary=[2, 0, -3])


def test_values_of_a_map_keep_their_type() -> None:
    """Runtime's Python package passes maps of floats alone."""
    for value, kind in ((7, np.int64), (np.float32(7), np.float32), (np.float64(7), np.float64)):
        got = compute("DictVectorizer", {"a": value}, string_vocabulary=["b", "a"])
        onnx_cases.assert_same(got, np.array([[0, 7]], kind))
    got = compute("DictVectorizer", {3: "x"}, int64_vocabulary=[3, 4])
    onnx_cases.assert_same(got, np.array([["x", ""]], object))


@pytest.mark.parametrize("cast", ["TO_FLOAT", "TO_INT64", "TO_STRING"])
@pytest.mark.parametrize("form", ["DENSE", "SPARSE"])
def test_a_cast_map_is_ordered_by_its_keys(cast: str, form: str) -> None:
    kinds = {"TO_FLOAT": FLOAT, "TO_INT64": INT64, "TO_STRING": STRING}
    given = {"cast_to": cast, "map_form": form, "max_map": 6}
    for x in ({3: 1.5, 1: -2.75}, {5: 1e20}, {0: 0.1}) if cast != "TO_INT64" else ({4: -7.9},):
        agree("CastMap", x, NUMBERS, kinds[cast], **given)


def test_a_cast_map_reads_numbers_from_text() -> None:
    """Runtime's Python package passes no such maps."""
    onnx_cases.assert_same(compute("CastMap", {3: "1.5", 1: "2"}), np.array([[2, 1.5]], np.float32))
    got = compute("CastMap", {3: "15"}, cast_to="TO_INT64", map_form="SPARSE", max_map=5)
    onnx_cases.assert_same(got, np.array([[0, 0, 0, 15, 0]]))
    got = compute("CastMap", {3: "x"}, cast_to="TO_STRING")
    onnx_cases.assert_same(got, np.array([["x"]], object))


@pytest.mark.parametrize("x", [[1.0, 2.5], [[1.0, 2.5], [-0.1, 3.0]]])
def test_a_zip_map_makes_a_dict_of_each_row(x: Any) -> None:
    x = np.array(x, np.float32)
    for key, labels in ((INT64, [4, -5]), (STRING, ["a", "é"])):
        name = "classlabels_int64s" if key == INT64 else "classlabels_strings"
        kind = mapping(key, FLOAT, sequence=True)
        proto = single("ZipMap", x, outputs=(kind,), **{name: labels})
        got = fhe_core.NumpyModule(proto)(x)
        assert got == by_runtime(proto, x)[0]
        assert [list(row) for row in got] == [labels] * (x.ndim == 1 or len(x))


# -- maps and attributes that do not fit

MAP = {1: 2.0}
WRONG: tuple[tuple[str, Any, dict[str, Any], str], ...] = (
    ("DictVectorizer", MAP, {}, "int64_vocabulary"),
    ("DictVectorizer", MAP, {"int64_vocabulary": [1], "string_vocabulary": ["a"]}, "string_voc"),
    ("CastMap", MAP, {"cast_to": "FLOAT"}, "cast_to"),
    ("CastMap", MAP, {"map_form": "sparse"}, "map_form"),
    ("ZipMap", np.ones((1, 2), np.float32), {"classlabels_int64s": [1]}, "classlabels_int64s"),
    ("ZipMap", np.ones((1, 2), np.float32), {}, "classlabels_strings"),
    ("ZipMap", np.ones((1, 1, 1), np.float32), {"classlabels_int64s": [1]}, "3 dimensions"),
)


@pytest.mark.parametrize(("op", "x", "attributes", "named"), WRONG)
def test_a_wrong_attribute_is_a_model_error_naming_op_and_attribute(
    op: str, x: Any, attributes: dict[str, Any], named: str
) -> None:
    with pytest.raises(ModelError) as raised:
        compute(op, x, **attributes)
    assert raised.value.where.op == op
    assert named in str(raised.value)
    assert raised.value.fix


BAD_MAPS: tuple[tuple[str, Any, dict[str, Any], str], ...] = (
    ("DictVectorizer", np.ones(3), {"string_vocabulary": ["a"]}, "no map"),
    ("DictVectorizer", {1: 2.0}, {"string_vocabulary": ["a"]}, "keys of type str"),
    ("CastMap", {"a": 2.0}, {}, "keys of type int"),
    ("CastMap", {3: 2.0}, {"map_form": "SPARSE", "max_map": 3}, "keys from 0 to 2"),
    ("CastMap", {-1: 2.0}, {"map_form": "SPARSE", "max_map": 3}, "keys from 0 to 2"),
    ("CastMap", {1: "x"}, {}, "TO_FLOAT"),
)


@pytest.mark.parametrize(("op", "x", "attributes", "named"), BAD_MAPS)
def test_a_map_that_does_not_fit_is_an_input_error(
    op: str, x: Any, attributes: dict[str, Any], named: str
) -> None:
    with pytest.raises(InputError) as raised:
        compute(op, x, **attributes)
    assert raised.value.where.op == op
    assert named in str(raised.value)
    assert raised.value.fix
