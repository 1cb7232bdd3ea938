"""A model takes what it declares and what converts to it; the rest is refused by name."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from fhe_core import InputError, NumpyModule


@pytest.fixture
def take(build: Any) -> Any:
    """What a model with one input of this type and shape makes of a value."""

    def take(value: Any, dtype: int = TensorProto.FLOAT, shape: Any = ("N", 2)) -> Any:
        return NumpyModule(build("y = Same(x)", inputs={"x": (dtype, shape)}))(value)

    return take


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i1", "i8", "u1", "u8", "?"])
def test_a_declared_float_takes_floats_integers_and_booleans(dtype: str, take: Any) -> None:
    result = take(np.array([[0, 1]], dtype))
    assert result.dtype == np.float32
    assert result.tolist() == [[0, 1]]


def test_a_list_is_an_array(take: Any) -> None:
    assert take([[1, 2.5]]).tolist() == [[1, 2.5]]


@pytest.mark.parametrize("value", [[[0, 255]], np.array([[0, 1]], "?"), np.array([[3, 4]], "i8")])
def test_a_declared_integer_takes_integers_that_fit(value: Any, take: Any) -> None:
    result = take(value, TensorProto.UINT8)
    assert result.dtype == np.uint8
    assert result.tolist() == np.asarray(value).tolist()


@pytest.mark.parametrize(
    ("value", "dtype", "shown"),
    [
        ([[0, 256]], TensorProto.UINT8, "256, which uint8"),
        ([[0, -1]], TensorProto.UINT64, "-1, which uint64"),
        (np.array([[0, 2**63]], "u8"), TensorProto.INT64, f"{2**63}, which int64"),
        ([[0, 1e39]], TensorProto.FLOAT, "1e+39, which float32"),
        ([[0, 70000]], TensorProto.FLOAT16, "70000, which float16"),
    ],
)
def test_a_value_that_does_not_fit_is_named(value: Any, dtype: int, shown: str, take: Any) -> None:
    with pytest.raises(InputError, match=re.escape(f"'x' holds {shown} cannot hold")):
        take(value, dtype)


@pytest.mark.parametrize(
    ("value", "kind", "shown"),
    [
        ([[0, 8]], "INT4", "8, which int4"),
        ([[0, -1]], "UINT4", "-1, which uint4"),
        ([[0, 100]], "FLOAT4E2M1", "100, which float4_e2m1fn"),
        ([[0, 1e39]], "BFLOAT16", "1e+39, which bfloat16"),
        ([[0, np.inf]], "FLOAT8E4M3FN", "inf, which float8_e4m3fn"),
    ],
)
def test_the_narrow_types_take_what_they_hold(value: Any, kind: str, shown: str, take: Any) -> None:
    dtype = getattr(TensorProto, kind)
    assert take([[0, 1]], dtype).astype(float).tolist() == [[0, 1]]
    with pytest.raises(InputError, match=re.escape(f"'x' holds {shown} cannot hold")):
        take(value, dtype)


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (np.array([["a", "b"]]), TensorProto.FLOAT),
        (np.array([[1.0, None]], object), TensorProto.FLOAT),
        (np.array([[1j, 2]]), TensorProto.FLOAT),
        (None, TensorProto.FLOAT),
        (np.array([[1.0, 2.0]]), TensorProto.INT64),
        (np.array([[1, 2]]), TensorProto.BOOL),
        (np.array([[1.0, 2.0]]), TensorProto.STRING),
    ],
)
def test_a_value_of_another_kind_is_refused_with_its_type(
    value: Any, dtype: int, take: Any
) -> None:
    with pytest.raises(InputError, match=f"'x' is of type {np.asarray(value).dtype.name}"):
        take(value, dtype)


def test_a_declared_string_takes_strings(take: Any) -> None:
    assert take(np.array(["a", "bc"]), TensorProto.STRING, [2]).tolist() == ["a", "bc"]


def test_what_is_no_array_is_refused(take: Any) -> None:
    with pytest.raises(InputError, match="'x' is not an array"):
        take([[1, 2], [3]])


@pytest.mark.parametrize(
    ("shape", "given", "parts"),
    [
        (["N", 2], (2,), ["'x' has 1 dimension, not 2", "float32[N, 2]", "(2,)", "x[None]"]),
        (["N", 2], (1, 1, 2), ["'x' has 3 dimensions, not 2", "Reshape"]),
        (["N", 2], (5, 3), ["dimension 1 of the input 'x' is 3, not 2", "(5, 3)"]),
        ([4, 2], (5, 2), ["dimension 0 of the input 'x' is 5, not 4", "4 samples at a time"]),
        ([], (1,), ["'x' has 1 dimension, not 0"]),
    ],
)
def test_a_wrong_shape_is_named_by_its_dimension(
    shape: Any, given: Any, parts: list[str], take: Any
) -> None:
    with pytest.raises(InputError) as info:
        take(np.zeros(given, np.float32), shape=shape)
    for part in parts:
        assert part in str(info.value)


@pytest.mark.parametrize("shape", [["N", 2], [None, 2], [0, 2], None, [4, 2]])
def test_a_symbolic_batch_takes_any_and_a_static_one_its_own(shape: Any, take: Any) -> None:
    assert take(np.zeros((4, 2)), shape=shape).shape == (4, 2)


def test_missing_unknown_and_doubled_inputs_are_named(build: Any) -> None:
    net = NumpyModule(build("y = Plus(left, right)", inputs={"left": [2], "right": [2]}))
    x = np.zeros(2, np.float32)
    with pytest.raises(InputError, match=r"'right' is missing .*expected: 'left', 'right'"):
        net(x)
    with pytest.raises(InputError, match=r"'left', 'right' is missing .*no inputs"):
        net()
    with pytest.raises(InputError, match=r"no input named 'rigth'.*Use 'right'"):
        net(left=x, rigth=x)
    with pytest.raises(InputError, match="'left' was given by position and by name"):
        net(x, left=x)
    with pytest.raises(InputError, match="3 arrays were given to a model with 2 inputs"):
        net(x, x, x)
    with pytest.raises(InputError, match="no input named 'y'"):
        net.run({"left": x, "right": x, "y": x})


def test_an_input_may_be_called_self(build: Any) -> None:
    net = NumpyModule(build("y = Double(self)", inputs={"self": [1]}))
    assert net(self=np.ones(1)).tolist() == [2]
