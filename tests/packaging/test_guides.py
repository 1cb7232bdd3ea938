"""Everything that the README and the guides show is run, in a fresh environment, and does what they say.

How blocks are told apart is said in `pages`.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from . import pages
from .environments import DISTRIBUTIONS, Environment

ROOT = Path(__file__).resolve().parents[2]

#: Generated pages and references, whose own tests keep them current.
REFERENCES = ("json.md", "ops.md")
PAGES = [
    ROOT / "README.md",
    *(page for page in sorted((ROOT / "docs").glob("*.md")) if page.name not in REFERENCES),
]
#: How many blocks of a page need what no test has, such as an account at an index.
NOT_RUN = {"publishing.md": 1}

_LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def _parameters() -> list[object]:
    return [
        pytest.param(
            page,
            id=page.stem if page.parent != ROOT else "the README",
            marks=[pytest.mark.fhe] if "execute" in page.read_text(encoding="utf-8") else [],
        )
        for page in PAGES
        if any(pages.blocks(page))
    ]


@pytest.fixture
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Where a page's reader is: in a clone of this project for the README, else in an empty folder."""
    if request.getfixturevalue("page").parent == ROOT:
        ignore = shutil.ignore_patterns("__pycache__")
        for name in (*DISTRIBUTIONS, "docs/examples"):
            shutil.copytree(ROOT / name, tmp_path / name, ignore=ignore)
    return tmp_path


@pytest.mark.parametrize("page", _parameters())
def test_a_page_does_what_it_shows(
    page: Path, folder: Path, new_environment: Callable[..., Environment]
) -> None:
    pages.run(page, new_environment(), folder)


def test_nearly_every_block_is_run() -> None:
    skipped = {
        page.name: [block for block in pages.blocks(page) if block.skipped] for page in PAGES
    }
    assert {name: len(found) for name, found in skipped.items() if found} == NOT_RUN


def test_the_guide_to_custom_domains_makes_the_pack_that_is_tested() -> None:
    pack = ROOT / "tests" / "packs" / "custom-domain"
    files = {
        block.path: block.text
        for block in pages.blocks(ROOT / "docs" / "custom-domain.md")
        if block.path
    }
    assert files == {name: (pack / name).read_text(encoding="utf-8") for name in files}
    assert {pack / name for name in files} == {*pack.rglob("*.py"), *pack.rglob("*.toml")}


def test_output_is_compared_but_for_dots() -> None:
    assert pages.matches("a ... d\nz\n", "a b c d\n\nz")
    assert pages.matches("...\nz", "z")
    assert pages.matches("in .../x.py", "in\n  /a/b/x.py\n")
    assert not pages.matches("a ... d", "a b c")
    assert not pages.matches("a", "a b")
    assert not pages.matches("a.c", "abc")


def test_links_lead_somewhere() -> None:
    everything = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    broken = [
        f"{page.relative_to(ROOT)}: {target}#{heading}"
        for page in everything
        for target, heading in _LINK.findall(page.read_text(encoding="utf-8"))
        if not _leads_somewhere(page.parent / target if target else page, heading)
    ]
    assert not broken


def _leads_somewhere(target: Path, heading: str) -> bool:
    if not target.exists() or not heading:
        return target.exists()
    titles = _HEADING.findall(target.read_text(encoding="utf-8"))
    # As GitHub does it: lower case, punctuation dropped, spaces to hyphens.
    return heading in [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]


def test_the_index_leads_to_every_guide() -> None:
    text = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    linked = {target for target, _ in _LINK.findall(text)}
    assert {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"} <= linked


def test_makefile_has_the_readmes_targets() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"\bmake ([a-z]+)`", text))
    assert {"demo", "test"} <= named
    assert named <= set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
