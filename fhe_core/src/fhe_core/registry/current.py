"""The registry that is in force: the installed packs, and what `registered` adds for a while."""

from __future__ import annotations

import inspect
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from fhe_core.arguments import shown
from fhe_core.errors import PackError, Where
from fhe_core.registry.calling import Plugin
from fhe_core.registry.packs import BLOCK, STRICT, LoadedPack, is_strict, load_packs
from fhe_core.registry.passes import PassRegistrar, Rewritings
from fhe_core.registry.plugin import plugin_of
from fhe_core.registry.provenance import REGISTERED
from fhe_core.registry.registrar import Registrar, Registration
from fhe_core.registry.registry import Registry

Preference = frozenset[tuple[str, str]]


class _Layer:
    """What one `registered` body adds to what is around it."""

    def __init__(
        self,
        registrations: tuple[Registration, ...],
        rewritings: Rewritings,
        plugins: tuple[Plugin, ...],
        below: _Layer | None,
    ) -> None:
        self.depth: int = below.depth + 1 if below else 1
        self._registrations = registrations
        self._rewritings = rewritings
        self._plugins = plugins
        self._below = below
        self._registries: dict[Preference, Registry] = {}

    def on(self, base: Registry, preference: Preference) -> Registry:
        registry = self._registries.get(preference)
        if registry is None:
            below = self._below.on(base, preference) if self._below else base
            registry = below.with_more(self._registrations, self._rewritings, self._plugins)
            registry = self._registries.setdefault(preference, registry)
        return registry


_lock = threading.RLock()
_loading = False
_packs: tuple[LoadedPack, ...] | None = None
_registries: dict[Preference, Registry] = {}
_warned: set[tuple[str, str | None]] = set()
_layer: ContextVar[_Layer | None] = ContextVar("fhe_core_registered", default=None)


def get_registry(*, prefer: Mapping[str, str] | None = None) -> Registry:
    """The registry of the installed packs, loaded once for the process, and what `registered` adds.

    Packs are found by their entry points; ``FHE_PACKS`` allows (comma-separated names of packs or
    distributions), ``FHE_PACKS_BLOCK`` blocks, ``FHE_PACKS_STRICT=1`` turns a failed pack into an
    error. Otherwise each failed pack is warned of once. The environment is read at the first call.

    Args:
        prefer: operator type to the name of the pack that shall supply it.

    Raises:
        PackError: a preferred pack is not loaded or has no such operator, or ``prefer`` maps no names to
            names; a pack failed and ``FHE_PACKS_STRICT`` is set; or a pack calls this while it is being
            loaded.
    """
    preference: Preference = frozenset(_preferences(prefer).items())
    base = _registries.get(preference) or _build(preference)
    layer = _layer.get()
    return layer.on(base, preference) if layer else base


def load_registry(*, prefer: Mapping[str, str] | None = None) -> Registry:
    """Finds and loads the installed packs anew; `get_registry` neither uses the result nor changes.

    For tests of packs: what Python has imported stays imported, so a changed pack needs a new
    process.

    Raises:
        PackError: as for `get_registry`.
    """
    return _checked(Registry(_load(), prefer=_preferences(prefer)))


def survey_registry() -> Registry:
    """The registry of `get_registry`, whatever became of the packs: it warns of none, and is never strict.

    For listing packs, where the failed ones are the answer.
    """
    global _packs
    with _lock:
        if _packs is None:
            _packs = _load()
        return Registry(_packs)


def _preferences(given: object) -> Mapping[str, str]:
    if given is None:
        return {}
    if isinstance(given, Mapping) and all(
        isinstance(part, str) for item in given.items() for part in item
    ):
        return given
    raise PackError(
        f"prefer cannot be {shown(given)}",
        expected="a dict of operator types to names of packs",
        got=type(given).__name__,
        fix="prefer a pack as in prefer={'Conv': 'std'}",
    )


@contextmanager
def registered(
    impls: Iterable[tuple[Any, ...]] = (),
    quantized: Iterable[Any] = (),
    passes: Iterable[Any] = (),
    reductions: Iterable[Any] = (),
    alternatives: Iterable[Any] = (),
    program_passes: Iterable[Any] = (),
    plugins: Iterable[Any] = (),
) -> Iterator[Registry]:
    """Adds operators for the body alone, before all packs; for notebooks and tests.

    Only code that runs in the body's own context sees them: another thread does not. Bodies nest,
    and the inner one comes first. Their pack is shown as "<registered>". Passes, reductions and
    alternatives come after those of the packs, the outer body's first. Also usable as a decorator.

    Args:
        impls: ``(op_type, fn)`` or ``(op_type, fn, options)``, options as in `Registrar.impl`.
        quantized: classes, or ``(cls, options)``, options as in `Registrar.quantized`.
        passes: functions of a graph, or ``(fn, name)``, as in `PassRegistrar.add`.
        reductions: functions, or ``(fn, name)``, as in `PassRegistrar.add_reduction`.
        alternatives: functions, or ``(fn, name)``, as in `PassRegistrar.add_alternative`.
        program_passes: functions, or ``(fn, name)``, as in `PassRegistrar.add_program`, of stage "exact".
        plugins: modules or objects with hooks that are called after loading; they are asked first.

    Yields:
        the registry of the body, as `get_registry` returns it there.

    Raises:
        SignatureError: a signature breaks the convention or contradicts the ONNX schema.
        PackError: an item is malformed, or registered twice.
    """
    below = _layer.get()
    registrar = Registrar(REGISTERED, layer=below.depth + 1 if below else 1)
    rewriting = PassRegistrar(REGISTERED)
    for item in impls:
        _register(registrar.impl, 2, item, "(op_type, fn) or (op_type, fn, options)")
    for item in quantized:
        parts = item if isinstance(item, tuple) else (item,)
        _register(registrar.quantized, 1, parts, "a class or (cls, options)")
    for item in passes:
        _add(rewriting.add, item)
    for item in reductions:
        _add(rewriting.add_reduction, item)
    for item in alternatives:
        _add(rewriting.add_alternative, item)
    for item in program_passes:
        _add(rewriting.add_program, item)
    targets = tuple(plugin_of(REGISTERED, target) for target in plugins)
    token = _layer.set(_Layer(registrar.close(), rewriting.close(), targets, below))
    try:
        yield get_registry()
    finally:
        _layer.reset(token)


def _register(register: Callable[..., None], required: int, item: Any, expected: str) -> None:
    """Calls a registrar's method with an item: ``required`` values, and maybe a dict of options."""
    if not isinstance(item, tuple) or len(item) not in (required, required + 1):
        raise _malformed(item, expected)
    options = item[required] if len(item) > required else {}
    known = inspect.getfullargspec(register).kwonlyargs
    if not isinstance(options, Mapping) or not options.keys() <= set(known):
        raise PackError(
            "an item to register has unknown options",
            where=Where(op=str(item[0]), pack=REGISTERED.name),
            expected=f"a dict with some of {', '.join(known)}",
            got=repr(options),
            fix="correct the last part of the item",
        )
    register(*item[:required], **options)


def _add(add: Callable[..., None], item: Any) -> None:
    if not isinstance(item, tuple):
        add(item)
    elif len(item) == 2:
        add(item[0], name=item[1])
    else:
        raise _malformed(item, "a function or (fn, name)")


def _malformed(item: Any, expected: str) -> PackError:
    return PackError(
        "an item to register is malformed",
        expected=expected,
        got=repr(item),
        fix="pass a list of such items",
    )


def _load() -> tuple[LoadedPack, ...]:
    """The packs, loaded anew; what they load for themselves in the meantime is an error of theirs."""
    global _loading
    with _lock:
        if _loading:
            raise PackError(
                "get_registry() was called while the packs were being loaded",
                fix="call it inside a function, not when the pack is imported or its hook runs",
            )
        _loading = True
        try:
            return load_packs()
        finally:
            _loading = False


def _build(preference: Preference) -> Registry:
    global _packs
    with _lock:
        if preference in _registries:
            return _registries[preference]
        if _packs is None:
            _packs = _load()
        registry = _checked(Registry(_packs, prefer=dict(preference)))
        _registries[preference] = registry
    _warn(registry)
    return registry


def _checked(registry: Registry) -> Registry:
    """The registry, unless packs failed and the user wants that to be an error."""
    failures = registry.failures()
    if failures and is_strict():
        first, *others = failures
        more = f", and {len(others)} more" if others else ""
        raise PackError(
            f"{first.info} failed to load: {first.info.reason}{more}",
            where=Where(pack=first.info.name),
            fix=f"repair or uninstall it, or block it with {BLOCK}, or unset {STRICT}",
        ) from first.error
    return registry


def _warn(registry: Registry) -> None:
    for pack in registry.packs():
        # What is blocked and not there is a misspelt name: another pack is loaded for it.
        is_unknown = pack.status == "blocked" and pack.distribution is None
        identity = pack.name, pack.distribution
        with _lock:
            new = identity not in _warned and (pack.status == "failed" or is_unknown)
            _warned.update([identity] if new else ())
        if new:
            what = "is blocked" if is_unknown else "failed to load"
            warnings.warn(f"{pack} {what}: {pack.reason}", stacklevel=4)
