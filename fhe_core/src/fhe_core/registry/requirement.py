"""Does a pack's requirement on fhe-core allow the core that runs?

pip checks this when it installs, and lets a later upgrade of one of the two break it.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet

CORE = "fhe-core"

# What nearly every pack writes: bounds by plain releases, without a marker. Reading that here saves
# the import of packaging, a fifth of the time that listing operators takes.
_RELEASE = r"\d+(?:\.\d+)*"
_BOUND = rf"(>=|<=|>|<)\s*({_RELEASE})"
_PLAIN = re.compile(rf"\s*[\w.-]+\s*\(?\s*({_BOUND}(?:\s*,\s*{_BOUND})*)\s*\)?\s*", re.ASCII)
_OPERATORS: Mapping[str, Any] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}

# The operators of a version specifier that ask for at least some version.
_LOWER_BOUNDS = (">=", ">", "~=", "==")


def canonical_name(distribution: str) -> str:
    """Fhe_Ops.Std and fhe-ops-std are one distribution (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def unmet(requires: Iterable[str], version: str, distribution: str | None) -> str | None:
    """Why a core of this version does not do for a distribution, or None if it does.

    Args:
        requires: the ``Requires-Dist`` of the distribution.
        version: of the core.
        distribution: its name, for the advice.
    """
    for text in requires:
        # Most requirements are on something else.
        if canonical_name(text).startswith(CORE) and not _plainly_met(text, version):
            reason = _unmet(text, version, distribution)
            if reason:
                return reason
    return None


def _plainly_met(text: str, version: str) -> bool:
    """True if the requirement is met for certain; False if packaging has to tell."""
    if not re.fullmatch(_RELEASE, version, re.ASCII) or not _PLAIN.fullmatch(text):
        return False
    return all(
        _OPERATORS[symbol](_release(version), _release(bound))
        for symbol, bound in re.findall(_BOUND, text, re.ASCII)
    )


def _release(text: str) -> tuple[int, ...]:
    """The numbers of a release, without the zeros at its end: 1.0 and 1.0.0 are the same."""
    numbers = [int(part) for part in text.split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _unmet(text: str, version: str, distribution: str | None) -> str | None:
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        return f"its requirement {text!r} is malformed"
    if canonical_name(requirement.name) != CORE:
        return None
    if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
        return None
    if requirement.specifier.contains(version, prereleases=True):
        return None
    advice = (
        f"upgrade {CORE}"
        if _asks_for_more(requirement.specifier, version)
        else f"install another version of {distribution}"
    )
    return f"it needs {CORE}{requirement.specifier}, but {CORE} {version} is installed; {advice}"


def _asks_for_more(specifiers: SpecifierSet, version: str) -> bool:
    """Whether the requirement is unmet because the core is too old, rather than the pack."""
    from packaging.version import Version

    wanted = [s.version.removesuffix(".*") for s in specifiers if s.operator in _LOWER_BOUNDS]
    return any(Version(bound) > Version(version) for bound in wanted)
