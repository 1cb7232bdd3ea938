"""``fhe-ops explain OP``: signature, versions, suppliers, fusion."""

from __future__ import annotations

import functools
import json
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
        "  float       mine_ops:shift",
        f"              {file}:{line}",
        "              pack mine, mine-ops 1.0, entry point mine_ops",
        "  quantized   other_ops:QuantizedShift",
    ]
    assert answer.out.splitlines()[: len(expected)] == expected
    assert "              pack other, other-ops 1.0, entry point other_ops\n" in answer.out
    assert "  fusion      conditional: its place in the graph decides" in answer.out


def test_each_range_of_opsets_has_a_paragraph() -> None:
    out = cli("explain", "Double").out
    assert out.index("opsets 1-3") < out.index("none: it runs in the clear only")
    assert out.index("none: it runs") < out.index("opsets 4+") < out.index("always: it becomes")
    narrowed = cli("explain", "Double", "--opset", "5").out
    assert "opsets 4+" in narrowed
    assert "opsets 1-3" not in narrowed


def test_onnx_is_quoted_for_its_own_ops_and_docstrings_for_others() -> None:
    out = cli("explain", "Concat").out
    assert out.startswith("Concat of ai.onnx\nConcatenate a list of tensors into a single tensor")
    assert "\nhttps://onnx.ai/onnx/operators/onnx__Concat.html\n" in out
    assert cli("explain", "Double").out.startswith("Double of com.example\nTwice.\n\nopsets 1-3\n")
    assert "opsets 13+, ONNX's version 13\n" in out
    assert "  inputs      any number of inputs\n  attributes  axis, required\n" in out


def test_what_is_shadowed_is_shown() -> None:
    with fhe_core.registered(impls=[("Double", relu, {"domain": "com.example"})]):
        out = cli("explain", "Double", "--opset", "2").out
    assert "pack <registered>\n" in out
    assert "shadowed    float mine_ops:double, opsets 1-3\n" in out
    assert out.rstrip().endswith("pack mine, mine-ops 1.0, entry point mine_ops")


def test_what_waits_to_be_chosen_is_shown(mine: Site) -> None:
    mine.add(
        "rival",
        'registry.quantized(QuantizedShift, domain="com.example", alternative=True)',
    )
    out = cli("explain", "Shift").out
    assert "  alternative quantized rival_ops:QuantizedShift, opsets 1+\n" in out
    assert "pack rival, rival-ops 1.0, entry point rival_ops\n" in out


def test_markdown_is_a_section_with_a_list_for_each_range_of_opsets() -> None:
    out = cli("explain", "Concat", "--format", "md").out
    assert out.startswith("## Concat of ai.onnx\n\nConcatenate a list of tensors")
    assert "\n\n[ONNX's page](https://onnx.ai/onnx/operators/onnx__Concat.html)\n" in out
    assert "\n\n### Opsets 13+, ONNX's version 13\n\n- inputs: any number of inputs\n" in out
    assert "\n- float: mine_ops:join\n  - /" in out


def test_json_has_the_signature_and_every_supplier(mine: Site) -> None:
    mine.add(
        "rival",
        'registry.quantized(QuantizedShift, domain="com.example", alternative=True)',
    )
    (shift,) = json.loads(cli("explain", "Shift", "--format", "json").out)
    assert (shift["op"], shift["domain"], shift["url"]) == ("Shift", "com.example", None)
    (row,) = shift["rows"]
    assert (row["inputs"], row["optional_inputs"], row["variadic"]) == (
        ["x", "by"],
        ["scale"],
        None,
    )
    assert row["attributes"] == [
        {"name": "offset", "required": True, "default": None},
        {"name": "mode", "required": False, "default": "up"},
    ]
    assert {
        key: row["impl"][key] for key in ("pack", "distribution", "version", "entry_point")
    } == {
        "pack": "mine",
        "distribution": "mine-ops",
        "version": "1.0",
        "entry_point": "mine_ops",
    }
    assert row["quantized"]["target"] == "other_ops:QuantizedShift"
    (other,) = row["others"]
    assert (other["slot"], other["status"], other["pack"]) == ("quantized", "alternative", "rival")


def test_defaults_that_json_lacks_are_written_as_python_would() -> None:
    def clip(x: Any, /, *, most: float = math.inf, steps: tuple[int, ...] = (1, 2)) -> Any:
        return x

    with fhe_core.registered(impls=[("Clamp", clip, {"domain": "com.example"})]):
        (clamp,) = json.loads(cli("explain", "Clamp", "--format", "json").out)
    defaults = [attribute["default"] for attribute in clamp["rows"][0]["attributes"]]
    assert defaults == ["inf", [1, 2]]


def test_of_two_domains_with_one_name_the_one_that_has_the_opset_is_explained() -> None:
    with fhe_core.registered(impls=[("Concat", relu, {"domain": "com.example", "until": 3})]):
        assert cli("explain", "Concat").out.count("Concat of ") == 2
        assert cli("explain", "Concat", "--opset", "13").out.startswith("Concat of ai.onnx\n")
        assert cli("explain", "Concat", "--opset", "2").out.startswith("Concat of com.example\n")


def test_functions_of_c_have_a_name_and_no_file() -> None:
    with fhe_core.registered(impls=[("Tanh", math.tanh, {"domain": "com.example"})]):
        out = cli("explain", "Tanh").out
    assert "  float       math:tanh\n              pack <registered>\n  quantized   none" in out


def test_decorated_and_partial_functions_are_seen_through() -> None:
    @functools.wraps(relu)
    def traced(*args: Any) -> Any:
        return relu(*args)

    options = {"domain": "com.example"}
    impls = [("Relu", traced), ("Elu", functools.partial(elu, shift=1), options)]
    with fhe_core.registered(impls=impls):
        assert f"float       {relu.__module__}:relu\n" in cli("explain", "Relu").out
        assert f"float       {__name__}:elu\n" in cli("explain", "Elu").out


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
