"""A registered function takes what ONNX says that its operator takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fhe_core import SignatureError, registered


def register(op_type: str, fn: Callable[..., Any], **options: Any) -> None:
    with registered(impls=[(op_type, fn, options)]):
        pass


def test_names_agree_whatever_their_case_and_underscores() -> None:
    def batch_normalization(
        x, scale, b, inputmean, input_var_, /, *, epsilon=1e-5, momentum=0.9, training_mode=0
    ): ...

    register("BatchNormalization", batch_normalization, since_version=15)


def test_a_function_may_take_as_optional_what_onnx_requires() -> None:
    register("Relu", lambda X=None: X)


def test_default_floats_agree_as_the_32_bits_that_onnx_stores() -> None:
    register("LeakyRelu", lambda X, /, *, alpha=0.009999999776482582: X, since_version=6)


@pytest.mark.parametrize("axes", [(0, 2, 3), [0, 2, 3]])
def test_default_lists_and_tuples_agree(axes: Any) -> None:
    register("MeanVarianceNormalization", lambda X, /, *, axes=axes: X, since_version=9)


@pytest.mark.parametrize(
    ("op_type", "version", "fn", "expected", "got"),
    [
        ("Relu", 14, lambda: 0, "input 'X' at position 1", "none"),
        ("Relu", 14, lambda X, Y, /: X, "1 inputs by name", "one more, 'Y'"),
        ("Relu", 14, lambda data, /: data, "input 'X' at position 1", "'data'"),
        ("Sub", 14, lambda B, A, /: A, "input 'A' at position 1", "'B'"),
        ("Clip", 13, lambda input, min, /, max=None: 0, "input 'min' to be optional", "required"),
        ("Concat", 13, lambda inputs, /, *, axis: 0, "0 inputs by name", "'inputs'"),
        ("Concat", 13, lambda *, axis: 0, "any number of inputs, `*inputs`", "a fixed number"),
        ("Relu", 14, lambda X, /, *more: X, "1 inputs", "any number, `*more`"),
        ("Elu", 22, lambda X, /: X, "attributes alpha", "no alpha"),
        ("Elu", 22, lambda X, /, *, alpha=1.0, beta=2.0: X, "attributes alpha", "beta too"),
        ("Elu", 22, lambda X, /, *, alpha=2.0: X, "alpha=1.0", "alpha=2.0"),
        ("Elu", 22, lambda X, /, *, alpha: X, "alpha=1.0", "'alpha' without a default"),
        ("Concat", 13, lambda *i, axis=1: 0, "'axis' without a default", "axis=1"),
        ("Transpose", 13, lambda data, /, *, perm=(): 0, "perm=None", "perm=()"),
        ("MeanVarianceNormalization", 9, lambda X, /, *, axes=(0, 2): X, "(0, 2, 3)", "(0, 2)"),
        ("Softmax", 13, lambda input, /, *, axis=-1.0: 0, "axis=-1", "axis=-1.0"),
    ],
)
def test_a_contradiction_names_op_version_what_was_expected_and_what_came(
    op_type: str, version: int, fn: Callable[..., Any], expected: str, got: str
) -> None:
    with pytest.raises(SignatureError) as caught:
        register(op_type, fn, since_version=version)
    error = caught.value
    assert error.where.op == op_type
    assert f"{op_type}-{version}" in error.problem
    assert error.expected is not None
    assert expected in error.expected
    assert error.got is not None
    assert got in error.got
    assert error.fix


def test_an_error_says_which_version_the_function_does_fit() -> None:
    with pytest.raises(SignatureError, match="Register it with since_version=13, which it fits"):
        register("Softmax", lambda input, /, *, axis=-1: input)


def test_an_op_that_onnx_does_not_have_is_refused_in_its_domains() -> None:
    with pytest.raises(SignatureError, match=r"no operator 'Rleu' .*Perhaps 'Relu'"):
        register("Rleu", lambda X, /: X)


def test_a_domain_of_ones_own_is_not_checked() -> None:
    register("Rleu", lambda anything, /, *, goes=1: anything, domain="com.example", since_version=3)


def test_the_convention_holds_in_every_domain() -> None:
    with pytest.raises(SignatureError, match="breaks the signature convention"):
        register("Mine", lambda x: x, domain="com.example")


def test_an_error_in_a_pack_names_the_pack() -> None:
    with pytest.raises(SignatureError, match="pack '<registered>'"):
        register("Relu", lambda data, /: data)
