"""A pack's requirement on fhe-core is read as pip reads it."""

from __future__ import annotations

from itertools import product

import pytest
from fhe_core.registry.requirement import unmet
from packaging.requirements import Requirement

VERSIONS = ("0.1", "0.1.0", "0.1.1", "0.2.0", "0.10.0", "1.0", "1.0.0rc1", "1.0.post1", "0.2.dev3")
SPECIFIERS = (
    "",
    ">=0.1",
    ">= 0.1.0, <0.2",
    "<0.1,>=0.0.1",
    "(>=0.1,<1)",
    ">0.1",
    "<=0.2.0",
    "<=0.2,!=0.2.0",
    "~=0.1.0",
    "==0.1.*",
    ">=0.1; python_version >= '3'",
    ">=9; python_version < '3'",
    ">=9; extra == 'all'",
    "[concrete]>=0.1,<0.2",
    ">=1.0rc1",
    ">=00.1",
)


@pytest.mark.parametrize("name", ["fhe-core", "FHE_Core"])
def test_it_agrees_with_packaging(name: str) -> None:
    """Plain bounds are compared without importing packaging; nobody may be able to tell."""
    for specifier, version in product(SPECIFIERS, VERSIONS):
        requirement = Requirement(f"{name}{specifier}")
        applies = not requirement.marker or requirement.marker.evaluate({"extra": ""})
        met = not applies or requirement.specifier.contains(version, prereleases=True)
        assert (unmet([f"{name}{specifier}"], version, "a-pack") is None) == met, (
            specifier,
            version,
        )


def test_requirements_on_anything_else_do_not_matter() -> None:
    assert unmet(["numpy>=99", "fhe-core-tools>=99"], "0.1.0", "a-pack") is None
    assert unmet([], "0.1.0", "a-pack") is None


@pytest.mark.parametrize(
    ("specifier", "advice"),
    [
        (">=99", "upgrade fhe-core"),
        ("==2.*", "upgrade fhe-core"),
        ("~=0.0.5", "install another version of a-pack"),
        ("<0.1", "install another version of a-pack"),
    ],
)
def test_an_unmet_requirement_says_which_of_the_two_has_to_move(
    specifier: str, advice: str
) -> None:
    reason = unmet([f"fhe-core{specifier}"], "0.1.0", "a-pack")
    assert reason == f"it needs fhe-core{specifier}, but fhe-core 0.1.0 is installed; {advice}"
