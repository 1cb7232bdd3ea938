"""``fhe-ops packs``: what is installed, and what became of it."""

from __future__ import annotations

import json

import pytest

from .conftest import Site, cli


@pytest.fixture(autouse=True)
def only_ours(mine: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    mine.add("stale", "pass", requires="fhe-core>=99")
    monkeypatch.setenv("FHE_PACKS_BLOCK", "std,contrib,other")


def ours(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith(("std", "contrib"))]


def test_failed_and_blocked_packs_are_listed_with_their_reason(mine: Site) -> None:
    answer = cli("packs")
    assert (answer.code, answer.err) == (0, "")
    rows = [line.split() for line in ours(answer.out)[:4]]
    assert rows == [
        ["pack", "distribution", "version", "status", "ops"],
        ["mine", "mine-ops", "1.0", "loaded", "3"],
        ["other", "other-ops", "1.0", "blocked", "0"],
        ["stale", "stale-ops", "1.0", "failed", "0"],
    ]
    assert f"mine: entry point mine_ops; {mine.folder / 'mine_ops.py'}" in answer.out
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
    }


def test_markdown_has_the_table_and_the_reasons() -> None:
    out = cli("packs", "--format", "md").out
    assert "| stale | stale-ops | 1.0 | failed | 0 |" in out
    assert "- stale: it needs fhe-core>=99" in out


def test_strict_mode_does_not_hide_what_it_complains_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FHE_PACKS_STRICT", "1")
    answer = cli("packs")
    assert answer.code == 0
    assert "failed" in answer.out


def test_without_packs_it_says_what_to_install(no_packs: None) -> None:
    answer = cli("packs")
    assert (answer.code, answer.out) == (0, "")
    assert "pip install fhe-ops-std" in answer.err
    assert cli("packs", "--format", "json").out == "[]\n"
