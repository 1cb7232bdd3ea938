"""``fhe-ops list``: every operator, whose it is, and how it runs."""

from __future__ import annotations

import json
import re

import pytest

from .conftest import Site, cli, refused

pytestmark = pytest.mark.usefixtures("mine")


def test_a_row_says_versions_form_fusion_and_pack() -> None:
    answer = cli("list")
    assert answer.code == 0
    assert answer.err == ""
    assert answer.out.splitlines() == [
        "op      domain       opsets  form        fusion       pack",
        "Concat  ai.onnx      13+     float only  -            mine",
        "Double  com.example  1-3     float only  -            mine",
        "Double  com.example  4+      quantized   always       mine",
        "Shift   com.example  1+      quantized   conditional  mine, quantized: other",
    ]


def test_json_is_a_list_of_objects_with_the_documented_keys() -> None:
    records = json.loads(cli("list", "--format", "json").out)
    assert records[-1] == {
        "op": "Shift",
        "domain": "com.example",
        "since_version": 1,
        "until": None,
        "quantized": True,
        "fusion": "conditional",
        "impl_pack": "mine",
        "quantized_pack": "other",
        "signature": "(x, by, /, scale=None, *, offset, mode='up')",
    }
    assert records[0]["domain"] == ""
    assert (records[1]["until"], records[1]["fusion"], records[1]["quantized_pack"]) == (
        3,
        None,
        None,
    )
    documented = " ".join(cli("list", "--help").out.split())
    assert all(re.search(rf"\b{key}\b", documented) for key in records[0])


def test_markdown_is_a_table() -> None:
    lines = cli("list", "--format", "md", "--domain", "ai.onnx").out.splitlines()
    assert lines == [
        "| op | domain | opsets | form | fusion | pack |",
        "|-|-|-|-|-|-|",
        "| Concat | ai.onnx | 13+ | float only | - | mine |",
    ]


@pytest.mark.parametrize(
    ("filters", "ops"),
    [
        (("--domain", "com.example"), ["Double", "Double", "Shift"]),
        (("--domain", ""), ["Concat"]),
        (("--pack", "other"), ["Shift"]),
        (("--opset", "2"), ["Double", "Shift"]),
        (("--opset", "17"), ["Concat", "Double", "Shift"]),
        (("--opset", "17", "--pack", "other"), ["Shift"]),
    ],
)
def test_filters_narrow_the_list(filters: tuple[str, ...], ops: list[str]) -> None:
    records = json.loads(cli("list", *filters, "--format", "json").out)
    assert [record["op"] for record in records] == ops


def test_nothing_that_matches_is_a_no() -> None:
    answer = cli("list", "--domain", "ai.onnx", "--opset", "3")
    assert (answer.code, answer.out, answer.err) == (1, "", "No operator matches.\n")
    answer = cli("list", "--domain", "ai.onnx", "--opset", "3", "--format", "json")
    assert (answer.code, answer.out) == (1, "[]\n")


@pytest.mark.parametrize(
    ("filters", "words"),
    [
        (("--pack", "mien"), ("'mien'", "mine, other", "fix: use 'mine'")),
        (("--pack", "zzzz"), ("'zzzz'", "pip install fhe-ops-std")),
        (("--domain", "com.exmple"), ("'com.exmple'", "ai.onnx, com.example", "'com.example'")),
        (("--opset", "99", "--domain", "ai.onnx"), ("opset 99", "at most")),
        (("--opset", "0"), ("--opset", "fhe-ops list --help")),
        (("--opset", "x"), ("--opset", "fhe-ops list --help")),
        (("--format", "xml"), ("'xml'", "'table', 'json', 'md'")),
        (("--pakc", "mine"), ("--pakc",)),
        (("Conv",), ("Conv",)),
    ],
)
def test_a_filter_that_nobody_knows_is_wrong_use(
    filters: tuple[str, ...], words: tuple[str, ...]
) -> None:
    refused(cli("list", *filters), 2, *words)


def test_a_failed_pack_is_warned_of_once_and_explains_its_absence(mine: Site) -> None:
    mine.add("stale", "pass", requires="fhe-core>=99")
    answer = cli("list")
    assert answer.code == 0
    assert answer.err.count("warning: pack 'stale' (stale-ops 1.0) failed to load: it needs") == 1
    refused_answer = cli("list", "--pack", "stale")
    refused(refused_answer, 1, "pack 'stale'", "fhe-core>=99", "fhe-ops packs")


def test_strict_mode_turns_a_failed_pack_into_a_no(
    mine: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine.add("stale", "pass", requires="fhe-core>=99")
    monkeypatch.setenv("FHE_PACKS_STRICT", "1")
    refused(cli("list"), 1, "pack 'stale'", "FHE_PACKS_STRICT")


@pytest.mark.parametrize("fmt", ["table", "json", "md"])
def test_without_packs_it_says_what_to_install(no_packs: None, fmt: str) -> None:
    refused(cli("list", "--format", fmt), 1, "no operator pack", "pip install fhe-ops-std")


def test_with_all_packs_blocked_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FHE_PACKS_BLOCK", "mine,other,std,contrib")
    refused(cli("list"), 1, "no operator pack is loaded", "FHE_PACKS_BLOCK", "fhe-ops packs")
