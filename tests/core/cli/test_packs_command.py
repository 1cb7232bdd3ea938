"""``fhe-ops packs``: what is installed, and what became of it."""

from __future__ import annotations

import json

import pytest

from .conftest import COMMAND, Site, cli


@pytest.fixture(autouse=True)
def only_ours(mine: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    mine.add("stale", "pass", requires="fhe-core>=99")
    monkeypatch.setenv("FHE_PACKS_BLOCK", "fhe-core,std,contrib,other")


def ours(text: str) -> list[str]:
    return [
        line
        for line in text.splitlines()
        if not line.startswith(("optimization", "std", "contrib"))
    ]


def test_failed_and_blocked_packs_are_listed_with_their_reason(mine: Site) -> None:
    answer = cli("packs")
    assert (answer.code, answer.err) == (1, "")
    rows = [line.split() for line in ours(answer.out)[:4]]
    assert rows == [
        ["pack", "distribution", "version", "status", "ops"],
        ["mine", "mine-ops", "1.0", "loaded", "3"],
        ["other", "other-ops", "1.0", "blocked", "0"],
        ["stale", "stale-ops", "1.0", "failed", "0"],
    ]
    file = mine.folder / "mine_ops.py"
    assert f"mine: hooks fhe_register_ops; entry point mine_ops; {file}" in answer.out
    assert "other: FHE_PACKS_BLOCK names it; entry point other_ops; " in answer.out
    assert "stale: it needs fhe-core>=99" in answer.out


def test_json_is_a_list_of_objects() -> None:
    records = json.loads(cli("packs", "--format", "json").out)
    (stale,) = (record for record in records if record["name"] == "stale")
    assert stale.pop("reason").startswith("it needs fhe-core>=99")
    assert stale.pop("path").endswith("stale_ops.py")
    assert stale == {
        "name": "stale",
        "distribution": "stale-ops",
        "version": "1.0",
        "entry_point": "stale_ops",
        "status": "failed",
        "ops": 0,
        "hooks": [],
        "file": None,
        "line": None,
        "overrides": [],
    }


def test_markdown_has_the_table_and_the_reasons() -> None:
    out = cli("packs", "--format", "md").out
    assert "| stale | stale-ops | 1.0 | failed | 0 |" in out
    assert "- stale: it needs fhe-core>=99" in out


@pytest.mark.parametrize("strict", ["0", "1"])
def test_a_failed_pack_is_a_no_that_strict_mode_does_not_hide(
    strict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FHE_PACKS_STRICT", strict)
    answer = cli("packs")
    assert answer.code == 1
    assert "failed" in answer.out


@pytest.mark.parametrize(
    ("value", "code"), [("1", 1), ("true", 1), ("0", 0), ("False", 0), ("no", 0)]
)
def test_strict_mode_is_switched_on_and_off_in_words_too(
    value: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FHE_PACKS_STRICT", value)
    assert cli("list").code == code


def test_packs_and_list_say_the_same_of_a_pack(site: Site) -> None:
    """They load packs in one way: what is refused to one is refused to the other."""
    site.add("nested", "fhe_core.get_registry()")
    said = "get_registry() was called while the packs were being loaded"
    assert f"nested: {said}" in cli("packs").out
    assert said in cli("list").err


def test_the_line_is_named_where_a_pack_fails(site: Site) -> None:
    helper = "def helper(known):\n    return known['missing']"
    (site.folder / "aid.py").write_text(helper)
    site.add("deep", "import aid\naid.helper({})")
    site.add("wrong", "registry.impl('Relu')")
    (site.folder / "syntax_ops.py").write_text("x = 1\ndef (")
    info = site.folder / "syntax_ops-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: syntax-ops\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[fhe_core.packs]\nsyntax = syntax_ops\n")
    answer = site.run(COMMAND, "packs", "--verbose")
    lines = (site.folder / "deep_ops.py").read_text().splitlines()
    called = next(number for number, line in enumerate(lines, 1) if "aid.helper" in line)
    assert f"KeyError: 'missing'; at {site.folder / 'deep_ops.py'}:{called}; " in answer.stdout
    assert f"at {site.folder / 'syntax_ops.py'}:2; " in answer.stdout
    assert "argument: 'fn'; at " in answer.stdout
    assert "deep:\nTraceback" in answer.stderr
    assert "aid.py" in answer.stderr
    assert "Traceback" not in cli("packs").err


def test_the_hooks_of_each_pack_are_shown_and_who_overrides_whom(site: Site) -> None:
    shared = 'registry.impl("Double", double, domain="com.example"'
    site.add(
        "acme",
        f"{shared}, override=True)\nregistry.impl('Concat', join, since_version=13, override=True)",
    )
    (site.folder / "passes_ops.py").write_text(
        "import fhe_core\n@fhe_core.hookimpl\ndef fhe_register_passes(passes):\n"
        "    passes.add(lambda graph: graph, name='nothing')\n"
    )
    info = site.folder / "passes_ops-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: passes-ops\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[fhe_core.packs]\npasses = passes_ops\n")
    out = cli("packs").out
    assert "passes: hooks fhe_register_passes; entry point passes_ops" in out
    assert "acme overrides mine: impl of ai.onnx.Concat, impl of com.example.Double" in out
    records = json.loads(cli("packs", "--format", "json").out)
    (acme,) = (record for record in records if record["name"] == "acme")
    place = {"pack": "mine", "slot": "impl"}
    assert acme["overrides"] == [
        {**place, "domain": "", "op": "Concat"},
        {**place, "domain": "com.example", "op": "Double"},
    ]


@pytest.mark.parametrize("variable", ["FHE_PACKS", "FHE_PACKS_BLOCK"])
def test_a_name_that_nothing_installed_has_is_reported(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FHE_PACKS_BLOCK", "fhe-core,std,contrib")
    monkeypatch.setenv(variable, "std,contrib,OTHR,mine")
    said = f"{variable} names it, but no installed distribution provides it; perhaps 'other'"
    assert f"OTHR: {said}" in cli("packs").out
    assert said in cli("list").err


@pytest.mark.parametrize("command", ["packs", "list"])
def test_what_a_pack_prints_stays_out_of_the_answer(command: str, site: Site) -> None:
    site.add(
        "loud",
        "import os\nprint('hello')\nos.system('echo below')\nregistry.impl('Abs', double, domain='d')",
    )
    said = site.run(COMMAND, command, "--format", "json")
    assert {record["status"] for record in json.loads(said.stdout)} >= {
        "active"
    } or command == "packs"
    assert "hello" in said.stderr
    assert "below" in said.stderr


def test_without_packs_it_says_what_to_install(no_packs: None) -> None:
    answer = cli("packs")
    assert (answer.code, answer.out) == (0, "")
    assert "pip install fhe-ops-std" in answer.err
    assert cli("packs", "--format", "json").out == "[]\n"
