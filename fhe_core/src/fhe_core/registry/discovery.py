"""Finds the installed packs: distributions with an entry point in the group ``fhe_core.packs``.

`importlib.metadata.entry_points` would do, were it not that one unreadable entry_points.txt
anywhere in the environment makes it raise, and every pack is lost. Here each distribution is read
on its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint, distributions

from fhe_core.registry.requirement import canonical_name

GROUP = "fhe_core.packs"

CORE = "fhe-core"

# The packs of this project come first: a stranger that clashes with one is then the one to fail.
FIRST = (CORE, "fhe-ops-std", "fhe-ops-contrib")


@dataclass(frozen=True)
class FoundPack:
    """A pack that is installed, not yet imported.

    ``problem`` says why its metadata cannot be used; then the rest may be missing.
    """

    name: str
    distribution: str | None
    version: str | None
    requires: tuple[str, ...]
    entry_point: EntryPoint | None
    problem: str | None = None

    @property
    def is_built_in(self) -> bool:
        """Whether it comes with the core: then a list of packs need not name it, only block it."""
        return canonical_name(self.distribution or "") == CORE


def find_packs() -> list[FoundPack]:
    """Every installed pack, in the order in which they load: this project's own, then by name."""
    by_distribution: dict[str, list[FoundPack]] = {}
    for distribution in distributions():
        packs = _read(distribution)
        if packs:
            # The first of several copies on sys.path is the one that Python imports.
            by_distribution.setdefault(packs[0].distribution or packs[0].name, packs)
    return sorted((pack for packs in by_distribution.values() for pack in packs), key=_load_order)


def _load_order(pack: FoundPack) -> tuple[int, str, str]:
    distribution = canonical_name(pack.distribution or "")
    first = FIRST.index(distribution) if distribution in FIRST else len(FIRST)
    return first, pack.name, distribution


def _read(distribution: Distribution) -> list[FoundPack]:
    """The packs of one distribution; most have none, and then only one small file is read."""
    try:
        if GROUP not in (distribution.read_text("entry_points.txt") or ""):
            return []
    except (OSError, UnicodeDecodeError):
        return []
    name = version = None
    try:
        metadata = distribution.metadata
        name, version = metadata["Name"], metadata["Version"]
        if not name:
            raise ValueError("it has no Name")
        requires = tuple(distribution.requires or ())
        return [
            FoundPack(entry_point.name, name, version, requires, entry_point)
            for entry_point in distribution.entry_points
            if entry_point.group == GROUP
        ]
    except Exception as error:  # noqa: BLE001 - metadata can be broken in any way
        problem = f"its installed metadata is unreadable ({type(error).__name__}: {error})"
        folder = str(distribution.locate_file(""))
        return [FoundPack(name or folder, name, version, (), None, problem)]
