"""``fhe-ops explain OP``: signature, versions, suppliers, fusion."""

from __future__ import annotations

import functools
import math
from typing import Any

import pytest

import fhe_core

from .conftest import Site, cli, refused, relu

pytestmark = pytest.mark.usefixtures("mine")


def test_signature_suppliers_files_and_fusion_are_told(mine: Site) -> None:
    answer = cli("explain", "Shift")
    assert (answer.code, answer.err) == (0, "")
    file = mine.folder / "mine_ops.py"
    line = (
        file.read_text()
        .splitlines()
        .index('def shift(x, by, /, scale=None, *, offset, mode="up"):')
        + 1
    )
    expected = [
        "Shift of com.example",
        "",
        "opsets 1+",
        "  inputs      x, by",
        "  optional    scale",
        "  attributes  offset, required",
        "              mode = 'up'",
        "  float       pack mine, mine_ops:shift",
        f"              {file}:{line}",
        "  quantized   pack other, other_ops:QuantizedShift",
    ]
    assert answer.out.splitlines()[: len(expected)] == expected
    assert "  fusion      conditional: its place in the graph decides" in answer.out


def test_each_range_of_opsets_has_a_paragraph() -> None:
    out = cli("explain", "Double").out
    assert out.index("opsets 1-3") < out.index("none: it runs in the clear only")
    assert out.index("none: it runs") < out.index("opsets 4+") < out.index("always: it becomes")
    narrowed = cli("explain", "Double", "--opset", "5").out
    assert "opsets 4+" in narrowed
    assert "opsets 1-3" not in narrowed


def test_onnx_is_quoted_for_its_own_ops() -> None:
    out = cli("explain", "Concat").out
    assert out.startswith("Concat of ai.onnx\nConcatenate a list of tensors into a single tensor")
    assert "opsets 13+, ONNX's version 13\n" in out
    assert "  inputs      any number of inputs\n  attributes  axis, required\n" in out


def test_what_is_shadowed_is_shown() -> None:
    with fhe_core.registered(impls=[("Double", relu, {"domain": "com.example"})]):
        out = cli("explain", "Double", "--opset", "2").out
    assert "pack <registered>" in out
    assert "shadowed    float of pack mine, mine_ops:double, opsets 1-3" in out


def test_functions_of_c_have_a_name_and_no_file() -> None:
    with fhe_core.registered(impls=[("Tanh", math.tanh, {"domain": "com.example"})]):
        out = cli("explain", "Tanh").out
    assert "  float       pack <registered>, math:tanh\n  quantized   none" in out


def test_decorated_and_partial_functions_are_seen_through() -> None:
    @functools.wraps(relu)
    def traced(*args: Any) -> Any:
        return relu(*args)

    options = {"domain": "com.example"}
    impls = [("Relu", traced), ("Elu", functools.partial(elu, shift=1), options)]
    with fhe_core.registered(impls=impls):
        assert f"pack <registered>, {relu.__module__}:relu\n" in cli("explain", "Relu").out
        assert f"pack <registered>, {__name__}:elu\n" in cli("explain", "Elu").out


def elu(x: Any, /, *, alpha: float = 1.0, shift: int = 0) -> Any:
    return x


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("concat",), ("concat", "'Concat'", "fix: run `fhe-ops explain Concat`")),
        (("Qqqqq",), ("Qqqqq", "no such operator", "fhe-ops list")),
        (("Conv",), ("Conv", "fhe-ops-std")),
        (("Scaler",), ("ai.onnx.ml.Scaler", "fhe-ops-contrib")),
        (("Concat", "--opset", "4"), ("Concat", "opset 4", "opset 13")),
        (("Concat", "--opset", "99"), ("opset 99", "newest known opset")),
        (("Concat", "--domain", "com.example"), ("com.example.Concat", "no loaded pack")),
    ],
)
def test_an_op_that_is_not_served_is_a_no(
    arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    refused(cli("explain", *arguments), 1, *words)


def test_no_op_is_wrong_use() -> None:
    refused(cli("explain"), 2, "'OP'", "fhe-ops explain --help")
