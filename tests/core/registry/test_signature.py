"""A function's signature is read by the convention, or refused with what to change."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from fhe_core.registry import REQUIRED

from fhe_core import OpSignature, SignatureError


def conv(X: Any, W: Any, /, B: Any = None, *, auto_pad: str = "NOTSET", group: int = 1) -> Any: ...
def concat(*inputs: Any, axis: int) -> Any: ...
def loop(M: Any = None, cond: Any = None, *v_initial: Any, body: Any) -> Any: ...


def test_inputs_come_before_the_star_and_attributes_after_it() -> None:
    signature = OpSignature.from_callable(conv)
    assert signature.inputs == ("X", "W")
    assert signature.optional_inputs == ("B",)
    assert signature.input_names == ("X", "W", "B")
    assert signature.variadic is None
    assert dict(signature.attributes) == {"auto_pad": "NOTSET", "group": 1}


def test_an_attribute_without_a_default_is_required() -> None:
    signature = OpSignature.from_callable(concat)
    assert signature.variadic == "inputs"
    assert signature.attributes["axis"] is REQUIRED


def test_variadic_inputs_may_follow_optional_ones() -> None:
    signature = OpSignature.from_callable(loop)
    assert (signature.optional_inputs, signature.variadic) == (("M", "cond"), "v_initial")


def test_a_signature_prints_as_python_writes_it() -> None:
    text = str(OpSignature.from_callable(conv))
    assert text == "(X, W, /, B=None, *, auto_pad='NOTSET', group=1)"
    assert str(OpSignature.from_callable(loop)) == "(M=None, cond=None, *v_initial, body)"


def test_a_signature_is_a_value() -> None:
    """Equal, hashable, read-only, and itself again after a pickle or a copy."""
    signature = OpSignature.from_callable(concat)
    for twin in (pickle.loads(pickle.dumps(signature)), copy.deepcopy(signature)):
        assert twin == signature
        assert hash(twin) == hash(signature)
        assert twin.attributes["axis"] is REQUIRED
    with pytest.raises(TypeError):
        signature.attributes["axis"] = 0  # type: ignore[index]


def swallows(X: Any, /, **attributes: Any) -> Any: ...
def unmarked(X: Any) -> Any: ...
def half_marked(X: Any, /, Y: Any) -> Any: ...
def loose(X: Any, /, alpha: float = 1.0) -> Any: ...
def shut(X: Any, B: Any = None, /) -> Any: ...


@pytest.mark.parametrize(
    ("function", "parameter", "fix"),
    [
        (swallows, "attributes", "keyword-only parameter for each attribute"),
        (unmarked, "X", "Put `/` after X"),
        (half_marked, "Y", "Put `/` after Y"),
        (loose, "alpha", "Put `*` before alpha"),
        (shut, "B", "Move `/` before B"),
    ],
)
def test_a_breach_names_the_function_the_parameter_and_the_remedy(
    function: Callable[..., Any], parameter: str, fix: str
) -> None:
    with pytest.raises(SignatureError) as caught:
        OpSignature.from_callable(function)
    for part in (function.__name__, repr(parameter), fix):
        assert part in str(caught.value)


def test_a_callable_without_a_readable_signature_is_to_be_wrapped() -> None:
    with pytest.raises(SignatureError, match=r"dict has no signature .*Wrap it in a function"):
        OpSignature.from_callable(dict)
