"""``fhe-ops list``: every operator, whose it is, and how it runs."""

from __future__ import annotations

import json

import pytest

from .conftest import Site, cli, refused

pytestmark = pytest.mark.usefixtures("mine")


def test_a_row_says_versions_form_fusion_and_pack() -> None:
    answer = cli("list")
    assert answer.code == 0
    assert answer.err == ""
    assert answer.out.splitlines() == [
        "ai.onnx: 1 operator, 0 with a quantized form",
        "op      since  opsets  form        fusion  pack",
        "Concat     13  13+     float only  -       mine 1.0",
        "",
        "com.example: 2 operators, 2 with a quantized form",
        "op      since  opsets  form        fusion       pack",
        "Double      1  1-3     float only  -            mine 1.0",
        "Double      4  4+      quantized   always       mine 1.0",
        "Shift       1  1+      quantized   conditional  mine 1.0, quantized: other 1.0",
    ]


def test_what_is_shadowed_or_waits_to_be_chosen_is_shown_if_asked(mine: Site) -> None:
    mine.add(
        "rival",
        """
        registry.impl("Double", double, domain="com.example", since_version=4, override=True)
        registry.quantized(QuantizedShift, domain="com.example", alternative=True)
        """,
    )
    out = cli("list", "--shadowed", "--domain", "com.example").out
    assert out.splitlines() == [
        "com.example: 2 operators, 2 with a quantized form",
        "op      since  opsets  form        fusion       pack                            status",
        "Double      1  1-3     float only  -            mine 1.0                        active",
        "Double      4  4+      quantized   always       rival 1.0, quantized: mine 1.0  active",
        "Double      4  4+      float       -            mine 1.0                        shadowed",
        "Shift       1  1+      quantized   conditional  mine 1.0, quantized: other 1.0  active",
        "Shift       1  1+      quantized   conditional  rival 1.0                       alternative",
    ]
    assert "shadowed" not in cli("list", "--domain", "com.example").out
    records = json.loads(cli("list", "--shadowed", "--pack", "rival", "--format", "json").out)
    assert [(record["op"], record["status"]) for record in records] == [
        ("Double", "active"),
        ("Shift", "alternative"),
    ]


def test_json_is_a_list_of_objects() -> None:
    records = json.loads(cli("list", "--format", "json").out)
    assert records[-1] == {
        "op": "Shift",
        "domain": "com.example",
        "since_version": 1,
        "until": None,
        "quantized": True,
        "fusion": "conditional",
        "status": "active",
        "impl_pack": "mine",
        "impl_distribution": "mine-ops",
        "impl_version": "1.0",
        "quantized_pack": "other",
        "quantized_distribution": "other-ops",
        "quantized_version": "1.0",
        "signature": "(x, by, /, scale=None, *, offset, mode='up')",
    }
    assert records[0]["domain"] == ""
    assert (records[1]["until"], records[1]["fusion"], records[1]["quantized_pack"]) == (
        3,
        None,
        None,
    )


def test_markdown_is_a_page_with_a_table_for_each_domain() -> None:
    lines = cli("list", "--format", "md").out.splitlines()
    assert lines[:3] == ["# Operators", "", "3 operators, 2 with a quantized form."]
    assert lines[6:12] == [
        "## ai.onnx: 1 operator, 0 with a quantized form",
        "",
        "| op | since | opsets | form | fusion | pack |",
        "|-|-:|-|-|-|-|",
        "| Concat | 13 | 13+ | float only | - | mine 1.0 |",
        "",
    ]
    assert lines[12] == "## com.example: 2 operators, 2 with a quantized form"


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


def test_a_pack_whose_operators_all_wait_to_be_chosen_is_a_no_with_a_hint(mine: Site) -> None:
    mine.add("rival", 'registry.impl("Shift", shift, domain="com.example", alternative=True)')
    answer = cli("list", "--pack", "rival")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err == "No operator matches. With --shadowed, some do.\n"
    assert cli("list", "--pack", "rival", "--shadowed").code == 0


@pytest.mark.parametrize(
    ("filters", "words"),
    [
        (("--pack", "mien"), ("'mien'", "mine, other", "fix: use 'mine'")),
        (("--pack", "zzzz"), ("'zzzz'", "mine, other", "fhe-ops packs")),
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


def test_packs_without_operators_are_no_packs_that_are_missing(
    mine: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pack may have passes alone."""
    mine.add("passes", "pass")
    with (mine.folder / "passes_ops.py").open("a") as module:
        module.write(
            "\n@fhe_core.hookimpl\ndef fhe_register_passes(passes):\n"
            "    passes.add(lambda graph: graph, name='nothing')\n"
        )
    monkeypatch.setenv("FHE_PACKS", "passes")
    answer = cli("list")
    refused(answer, 1, "the loaded packs have no operators", "mine-ops 1.0) is blocked")


def test_with_all_packs_blocked_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FHE_PACKS_BLOCK", "mine,other,fhe-core,std,contrib")
    refused(cli("list"), 1, "no operator pack is loaded", "FHE_PACKS_BLOCK", "fhe-ops packs")
