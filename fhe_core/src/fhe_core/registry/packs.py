"""Loads the installed packs, each on its own: what goes wrong in one leaves the others alone.

pluggy's own loader gives up at the first entry point that fails, loses the second of two
distributions with one entry-point name, and ignores requirements. Hence this one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, TypeGuard, TypeVar

import fhe_core
from fhe_core.arguments import is_on
from fhe_core.registry.calling import hook_manager
from fhe_core.registry.discovery import FoundPack, find_packs
from fhe_core.registry.location import Location, location_of, location_of_function
from fhe_core.registry.plugin import (
    Contribution,
    Refused,
    contribution,
    hooks_of,
    one_line,
    specifications,
)
from fhe_core.registry.provenance import PackInfo, Status
from fhe_core.registry.requirement import canonical_name, unmet
from fhe_core.registry.versions import did_you_mean

if TYPE_CHECKING:
    from pluggy import PluginManager

T = TypeVar("T")

ALLOW = "FHE_PACKS"
BLOCK = "FHE_PACKS_BLOCK"
STRICT = "FHE_PACKS_STRICT"


@dataclass(frozen=True)
class LoadedPack:
    """A pack with what it takes part with: nothing unless its status is "loaded"."""

    info: PackInfo
    given: Contribution = field(default_factory=Contribution)
    error: BaseException | None = None

    def failed(self, reason: str) -> LoadedPack:
        """The same pack, without its operators, rewritings and choices."""
        return LoadedPack(replace(self.info, status="failed", reason=reason))


def load_packs() -> tuple[LoadedPack, ...]:
    """Finds, checks and imports every installed pack, and runs its hooks. A bad one never raises.

    All are imported before any registers, as one may implement a hook that another specifies.
    """
    allowed, blocked = _names(ALLOW), _names(BLOCK)
    packs: list[LoadedPack | _Imported] = []
    owners: dict[str, FoundPack] = {}
    found = find_packs()
    manager = hook_manager()
    for pack in found:
        if allowed and not _is_among(pack, allowed) and not pack.is_built_in:
            packs.append(LoadedPack(_info(pack, "blocked", f"{ALLOW} does not name it")))
        elif _is_among(pack, blocked):
            packs.append(LoadedPack(_info(pack, "blocked", f"{BLOCK} names it")))
        elif pack.name in owners:
            packs.append(LoadedPack(_info(pack, "failed", _taken(pack, owners[pack.name]))))
        else:
            owners[pack.name] = pack
            packs.append(_imported(pack, manager))
    manager = hook_manager([s for each in packs if isinstance(each, _Imported) for s in each.specs])
    loaded = [_loaded(each, manager) if isinstance(each, _Imported) else each for each in packs]
    loaded += _unknown(allowed, ALLOW, "failed", found)
    loaded += _unknown(blocked, BLOCK, "blocked", found)
    return tuple(loaded)


def is_strict() -> bool:
    """Whether the user wants a failed pack to be an error."""
    return is_on(STRICT)


def _unknown(
    names: Iterable[str], variable: str, status: Status, found: Sequence[FoundPack]
) -> list[LoadedPack]:
    """The names in a variable that nothing installed has: misspelt ones, mostly."""
    known = [name for pack in found for name in (pack.name, pack.distribution) if name]
    packs = []
    for name in sorted(n for n in names if not any(_is_among(pack, {n}) for pack in found)):
        reason = f"{variable} names it, but no installed distribution provides it"
        reason = "; ".join(filter(None, (reason, did_you_mean(name, known))))
        packs.append(LoadedPack(PackInfo(name, status=status, reason=reason)))
    return packs


def _names(variable: str) -> frozenset[str]:
    """The comma-separated pack or distribution names of an environment variable."""
    return frozenset(filter(None, map(str.strip, os.environ.get(variable, "").split(","))))


def _is_among(pack: FoundPack, names: Iterable[str]) -> bool:
    """Whether a pack is named, by its own name or, as that may be taken, its distribution's."""
    distribution = canonical_name(pack.distribution or "")
    return any(name == pack.name or canonical_name(name) == distribution for name in names)


def _taken(pack: FoundPack, owner: FoundPack) -> str:
    return (
        f"{pack.distribution} and {owner.distribution} both have a pack of the name {pack.name!r}, "
        f"and {owner.distribution} came first; uninstall one, or put its distribution into {BLOCK}"
    )


@dataclass(frozen=True)
class _Imported:
    """A pack whose module is imported, and whose hooks have yet to run."""

    pack: FoundPack
    target: object
    specs: tuple[object, ...]


def _imported(pack: FoundPack, manager: PluginManager) -> _Imported | LoadedPack:
    """
    Args:
        manager: that knows the core's hooks alone.
    """

    def run() -> _Imported:
        if pack.problem:
            raise Refused(pack.problem)
        reason = unmet(pack.requires, fhe_core.__version__, pack.distribution)
        if reason:
            raise Refused(reason)
        target = _import(pack)
        return _Imported(pack, target, specifications(_info(pack, "loaded"), target, manager))

    return _unless_it_fails(pack, run)


def _loaded(each: _Imported, manager: PluginManager) -> LoadedPack:
    """
    Args:
        manager: that knows the hooks of all packs.
    """

    def run() -> LoadedPack:
        info = replace(_info(each.pack, "loaded"), hooks=hooks_of(each.target, manager))
        return LoadedPack(info, contribution(info, each.target, each.specs, manager))

    return _unless_it_fails(each.pack, run)


def _unless_it_fails(pack: FoundPack, run: Callable[[], T]) -> T | LoadedPack:
    try:
        return run()
    except Refused as refusal:
        where = location_of_function(refusal.at) if refusal.at else None
        return _failed(pack, str(refusal), refusal.__cause__, where)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - __dir__, __getattr__: anybody's code
        return _failed(pack, f"loading it raised {one_line(error)}", error)


def _failed(
    pack: FoundPack, reason: str, error: BaseException | None, where: Location | None = None
) -> LoadedPack:
    module = pack.entry_point.module if _is_readable(pack.entry_point) else ""
    file, line = where or location_of(error, module) or (None, None)
    info = replace(_info(pack, "failed", reason), file=file, line=line)
    return LoadedPack(info, error=error)


def _import(pack: FoundPack) -> object:
    entry_point = pack.entry_point
    if not _is_readable(entry_point):
        value = entry_point.value if entry_point else ""
        raise Refused(f"its entry point {value!r} is not written 'module' or 'module:object'")
    try:
        return entry_point.load()
    except (Exception, SystemExit) as error:
        raise Refused(f"importing {entry_point.value} raised {one_line(error)}") from error


def _info(pack: FoundPack, status: Status, reason: str | None = None) -> PackInfo:
    entry_point = pack.entry_point.value if pack.entry_point else None
    return PackInfo(
        pack.name, pack.distribution, pack.version, _path(pack), entry_point, status, reason
    )


def _is_readable(entry_point: EntryPoint | None) -> TypeGuard[EntryPoint]:
    return entry_point is not None and bool(entry_point.pattern.match(entry_point.value))


def _path(pack: FoundPack) -> str | None:
    """The file of the pack's module, found without importing anything if it is not imported."""
    from importlib.util import find_spec

    if not _is_readable(pack.entry_point):
        return None
    name = pack.entry_point.module
    module = sys.modules.get(name)
    if module is not None:
        return getattr(module, "__file__", None)
    try:
        # Of the topmost package alone: to find a submodule is to import its parents.
        spec = find_spec(name.partition(".")[0])
    except (ImportError, AttributeError, ValueError):
        return None
    return spec.origin if spec else None
