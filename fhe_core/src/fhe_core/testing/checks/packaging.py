"""A pack as a distribution: it is found, says which core it needs, and leaves nothing behind."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, requires

import fhe_core
from fhe_core.registry.requirement import CORE, canonical_name
from fhe_core.registry.signature import function_name
from fhe_core.testing.checks import Check, CheckFailed
from fhe_core.testing.fresh import run_fresh
from fhe_core.testing.subject import Subject

# The operators of a version specifier that refuse some later version.
_UPPER_BOUNDS = ("<", "<=", "==", "===", "~=")


def is_loaded(subject: Subject) -> bool:
    """Whether there is anything to look at; where not, `ENTRY_POINT` alone says so."""
    return subject.pack.status == "loaded"


def _entry_point(subject: Subject, case: str) -> None:
    pack = subject.pack
    if pack.status != "loaded":
        raise CheckFailed(
            f"the pack is not loaded, it is {pack.status}: {pack.reason}",
            expected="an entry point in the group fhe_core.packs that resolves, and hooks that run",
            fix="repair what the reason names"
            if pack.status == "failed"
            else "unset FHE_PACKS and FHE_PACKS_BLOCK, or have them allow the pack",
        )


def _requirement(subject: Subject, case: str) -> None:
    from packaging.requirements import InvalidRequirement, Requirement

    distribution = subject.pack.distribution or ""
    fix = f'write `dependencies = ["{_bounded()}"]` into its pyproject.toml, and install it again'
    bounds = []
    for text in _requires(distribution):
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        if canonical_name(requirement.name) == CORE and (
            requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        ):
            bounds.append(requirement.specifier)
    if not bounds:
        raise CheckFailed(f"{distribution} declares no requirement on {CORE}", fix=fix)
    if not any(spec.operator in _UPPER_BOUNDS for bound in bounds for spec in bound):
        raise CheckFailed(
            f"{distribution} takes any later {CORE}, also one that it does not work with",
            expected=f"an upper bound, as in {_bounded()}",
            got=f"{CORE}{bounds[0]}",
            fix=fix,
        )


def _requires(distribution: str) -> list[str]:
    try:
        return requires(distribution) or []
    except PackageNotFoundError:
        raise CheckFailed(
            f"no installed distribution is called {distribution!r}", fix="install the pack again"
        ) from None


def _bounded() -> str:
    """A requirement on this core up to the next release that may break a pack."""
    major, minor = fhe_core.__version__.split(".")[:2]
    following = f"0.{int(minor) + 1}" if major == "0" else str(int(major) + 1)
    return f"{CORE}>={major}.{minor},<{following}"


_REMAINING = """
import importlib.metadata as metadata
import re
installed = metadata.distributions
def others(**options):
    for distribution in installed(**options):
        name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"] or "").lower()
        if name != arguments["distribution"]:
            yield distribution
metadata.distributions = others  # before fhe_core takes it
import fhe_core
from fhe_core.registry.signature import function_name
print(json.dumps([
    [row.domain, row.op_type, function_name(target), pack]
    for row in fhe_core.get_registry().ops(shadowed=True)
    for target, pack in ((row.impl, row.impl_pack), (row.quantized, row.quantized_pack))
    if target is not None
]))
"""


def _uninstall(subject: Subject, case: str) -> None:
    own = {
        (row.domain, row.op_type, function_name(target))
        for row in subject.rows
        for target, pack in ((row.impl, row.impl_pack), (row.quantized, row.quantized_pack))
        if pack == subject.pack.name
    }
    remaining = run_fresh(_REMAINING, distribution=canonical_name(subject.pack.distribution or ""))
    left = [row for row in remaining if tuple(row[:3]) in own]
    if left:
        ops = ", ".join(sorted({op for _, op, _, _ in left})[:5])
        packs = " and ".join(sorted({repr(pack) for *_, pack in left}))
        raise CheckFailed(
            f"without {subject.pack.distribution} its functions still serve {ops}, as pack {packs}",
            expected="nothing of it in the registry once it is uninstalled",
            fix="uninstall the other distribution whose entry point names the same module, "
            "perhaps one left over from before a change of name",
        )


ENTRY_POINT = Check(
    "entry-point",
    "the pack's entry point resolves, and what it names registers without an error.",
    _entry_point,
    scope="pack",
)
REQUIREMENT = Check(
    "requirement",
    "the distribution says which versions of fhe-core it works with, up to a bound.",
    _requirement,
    applies=lambda subject: subject.pack.distribution is not None,
    scope="pack",
)
UNINSTALL = Check(
    "uninstall",
    "uninstalling the distribution takes all of its operators out of the registry.",
    _uninstall,
    applies=lambda subject: is_loaded(subject) and subject.pack.distribution is not None,
    scope="pack",
)

CHECKS = (ENTRY_POINT, REQUIREMENT, UNINSTALL)
