"""Loads the installed packs, each on its own: what goes wrong in one leaves the others alone.

pluggy's own loader gives up at the first entry point that fails, loses the second of two
distributions with one entry-point name, accepts a mistyped hook and ignores requirements. Hence
this one.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Literal

import pluggy

import fhe_core
from fhe_core.errors import FheError
from fhe_core.registry import hooks
from fhe_core.registry.discovery import FoundPack, find_packs
from fhe_core.registry.registrar import Registrar, Registration
from fhe_core.registry.requirement import canonical_name, unmet
from fhe_core.registry.versions import did_you_mean

ALLOW = "FHE_PACKS"
BLOCK = "FHE_PACKS_BLOCK"
STRICT = "FHE_PACKS_STRICT"

Status = Literal["loaded", "failed", "blocked"]


@dataclass(frozen=True)
class PackInfo:
    """A pack that is installed, and what became of it.

    Attributes:
        name: the name of its entry point.
        distribution: the distribution that it comes from; None if its metadata is unreadable.
        version: of the distribution.
        path: the file that Python imports, None if it cannot be told.
        status: "loaded", "failed" or "blocked".
        reason: why it is not loaded, one sentence without a full stop; None if it is.
    """

    name: str
    distribution: str | None
    version: str | None
    path: str | None
    status: Status
    reason: str | None = None

    def __str__(self) -> str:
        origin = f" ({self.distribution} {self.version})" if self.distribution else ""
        return f"pack {self.name!r}{origin}"


@dataclass(frozen=True)
class LoadedPack:
    """A pack with what it registered: nothing unless its status is "loaded"."""

    info: PackInfo
    registrations: tuple[Registration, ...] = ()
    error: BaseException | None = None

    def failed(self, reason: str) -> LoadedPack:
        """The same pack, without its operators."""
        return LoadedPack(replace(self.info, status="failed", reason=reason))


class _Refused(Exception):
    """Why a pack is not loaded, as a sentence about it."""


def load_packs() -> tuple[LoadedPack, ...]:
    """Finds, checks and imports every installed pack, and runs its hook. A bad one never raises."""
    allowed, blocked = _names(ALLOW), _names(BLOCK)
    loaded: list[LoadedPack] = []
    owners: dict[str, FoundPack] = {}
    found = find_packs()
    for pack in found:
        if allowed and not _is_among(pack, allowed):
            loaded.append(LoadedPack(_info(pack, "blocked", f"{ALLOW} does not name it")))
        elif _is_among(pack, blocked):
            loaded.append(LoadedPack(_info(pack, "blocked", f"{BLOCK} names it")))
        elif pack.name in owners:
            loaded.append(LoadedPack(_info(pack, "failed", _taken(pack, owners[pack.name]))))
        else:
            owners[pack.name] = pack
            loaded.append(_load(pack))
    for name in sorted(n for n in allowed if not any(_is_among(pack, {n}) for pack in found)):
        reason = f"{ALLOW} names it, but no installed distribution provides it"
        loaded.append(LoadedPack(PackInfo(name, None, None, None, "failed", reason)))
    return tuple(loaded)


def is_strict() -> bool:
    """Whether the user wants a failed pack to be an error."""
    return os.environ.get(STRICT, "") not in ("", "0")


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


def _load(pack: FoundPack) -> LoadedPack:
    try:
        if pack.problem:
            raise _Refused(pack.problem)
        reason = unmet(pack.requires, fhe_core.__version__, pack.distribution)
        if reason:
            raise _Refused(reason)
        plugin = _import(pack)
        registrations = _register(pack, plugin)
    except _Refused as refusal:
        return LoadedPack(_info(pack, "failed", str(refusal)), error=refusal.__cause__)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - __dir__, __getattr__: anybody's code
        return LoadedPack(
            _info(pack, "failed", f"loading it raised {_one_line(error)}"), error=error
        )
    return LoadedPack(_info(pack, "loaded"), registrations)


def _import(pack: FoundPack) -> object:
    entry_point = pack.entry_point
    if entry_point is None or entry_point.pattern.match(entry_point.value) is None:
        value = entry_point.value if entry_point else ""
        raise _Refused(f"its entry point {value!r} is not written 'module' or 'module:object'")
    try:
        return entry_point.load()
    except (Exception, SystemExit) as error:
        raise _Refused(f"importing {entry_point.value} raised {_one_line(error)}") from error


def _register(pack: FoundPack, plugin: object) -> tuple[Registration, ...]:
    # A manager of its own: in a shared one, a hook that raises loses what others would register.
    manager = pluggy.PluginManager(hooks.PROJECT)
    manager.add_hookspecs(hooks)
    _check_hooks(pack, plugin, manager)
    registrar = Registrar(pack.name)
    try:
        manager.hook.fhe_register_ops(registry=registrar)
    except FheError as error:
        # It names the op and what to do, and says more than that a hook raised.
        raise _Refused(" ".join(str(error).split())) from error
    except (Exception, SystemExit) as error:
        raise _Refused(f"its hook fhe_register_ops raised {_one_line(error)}") from error
    finally:
        registrations = registrar.close()
    if not registrations:
        raise _Refused(
            "it registers no operators; define fhe_register_ops(registry), marked "
            "@fhe_core.hookimpl, in the object that its entry point names"
        )
    return registrations


def _check_hooks(pack: FoundPack, plugin: object, manager: pluggy.PluginManager) -> None:
    """Registers the plugin with its manager, and refuses what pluggy passes over or says badly."""
    for name, function in _functions(plugin):
        options = manager.parse_hookimpl_opts(plugin, name)
        hook = (options and options.get("specname")) or name
        if hook not in hooks.HOOKS and (options is not None or _is_own(function, plugin)):
            hint = did_you_mean(hook, hooks.HOOKS) or f"the hooks are {', '.join(hooks.HOOKS)}"
            raise _Refused(f"it defines {name}, but fhe_core has no hook {hook!r}; {hint}")
        if options is None and hook in hooks.HOOKS:
            raise _Refused(f"its {name} is not marked; put @fhe_core.hookimpl above it")
    try:
        manager.register(plugin, name=pack.name)
    except pluggy.PluginValidationError as error:
        expected = ", ".join(
            f"{hook}({', '.join(inspect.signature(getattr(hooks, hook)).parameters)})"
            for hook in hooks.HOOKS
        )
        # pluggy names plugin, hook and definition on lines of their own, and the fault on the last.
        fault = str(error).splitlines()[-1]
        raise _Refused(
            f"its hook does not take what it is called with: {fault}; write {expected}"
        ) from error


def _functions(plugin: object) -> Iterator[tuple[str, object]]:
    """The functions of a pack's module or object that are, or look like, hooks."""
    marked = f"{hooks.PROJECT}_impl"
    for name in dir(plugin):
        # getattr_static: a property or a lazy module attribute must not run.
        value = inspect.getattr_static(plugin, name, None)
        function = getattr(value, "__func__", value)
        if inspect.isfunction(function) and (
            name.startswith(hooks.PREFIX) or hasattr(function, marked)
        ):
            yield name, function


def _is_own(function: object, plugin: object) -> bool:
    """Whether a function was written in the pack, not imported into it from elsewhere."""
    module = plugin.__name__ if isinstance(plugin, ModuleType) else type(plugin).__module__
    return getattr(function, "__module__", "").partition(".")[0] == module.partition(".")[0]


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _info(pack: FoundPack, status: Status, reason: str | None = None) -> PackInfo:
    return PackInfo(pack.name, pack.distribution, pack.version, _path(pack), status, reason)


def _path(pack: FoundPack) -> str | None:
    """The file of the pack's module, found without importing anything if it is not imported."""
    from importlib.util import find_spec

    if pack.entry_point is None or pack.entry_point.pattern.match(pack.entry_point.value) is None:
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
