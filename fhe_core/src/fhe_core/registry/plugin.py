"""A pack's module or object, once it is imported: its hooks checked, then run.

pluggy accepts a mistyped hook and one that is not marked, and says what is wrong with the others in
terms of its own. Hence the checks here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pluggy

from fhe_core.arguments import shown
from fhe_core.errors import FheError, PackError, Where
from fhe_core.registry import hooks
from fhe_core.registry.calling import Plugin, hook_arguments, hook_manager, hook_names
from fhe_core.registry.passes import PassRegistrar, Rewritings
from fhe_core.registry.provenance import PackInfo
from fhe_core.registry.registrar import Registrar, Registration
from fhe_core.registry.versions import did_you_mean


class Refused(Exception):
    """Why a pack is not loaded, as a sentence about it.

    Args:
        at: the function of the pack that it is about, if it is about one.
    """

    def __init__(self, reason: str, at: Callable[..., Any] | None = None) -> None:
        super().__init__(reason)
        self.at = at


class HookRegistrar:
    """Registers specifications of hooks for one pack, while its `fhe_register_hooks` runs."""

    def __init__(self, origin: PackInfo) -> None:
        self._origin = origin
        self._specs: list[object] = []
        self._closed = False

    def add(self, spec: object) -> None:
        """Registers a module, class or object whose functions are marked ``@fhe_core.hookspec``.

        Raises:
            PackError: none of its functions is, or the hook has already returned.
        """
        where = Where(pack=self._origin.name)
        if self._closed:
            raise PackError(
                "hooks can be registered only while `fhe_register_hooks` runs",
                where=where,
                fix="register in the hook",
            )
        try:
            hook_manager([spec])
        except ValueError:
            raise PackError(
                f"{shown(spec)} specifies no hook",
                where=where,
                expected="a module or class with functions marked @fhe_core.hookspec",
                fix="mark them, or pass what holds them",
            ) from None
        self._specs.append(spec)

    def close(self) -> tuple[object, ...]:
        self._closed = True
        return tuple(self._specs)


@dataclass(frozen=True)
class Contribution:
    """What a pack takes part with."""

    registrations: tuple[Registration, ...] = ()
    rewritings: Rewritings = field(default_factory=Rewritings)
    plugin: Plugin | None = None


def specifications(
    pack: PackInfo, plugin: object, manager: pluggy.PluginManager
) -> tuple[object, ...]:
    """The specifications of hooks that a pack brings, from its `fhe_register_hooks`.

    Args:
        manager: that knows the core's hooks; without plug-ins, before and after.

    Raises:
        Refused: the hook raises, or gives something that specifies no hook.
    """
    if hooks.fhe_register_hooks.__name__ not in hooks_of(plugin, manager):
        return ()
    registrar = HookRegistrar(pack)
    _register(pack, plugin, manager)
    try:
        _run("fhe_register_hooks", manager.hook.fhe_register_hooks, hooks=registrar)
    finally:
        manager.unregister(plugin)
    return registrar.close()


def hooks_of(plugin: object, manager: pluggy.PluginManager) -> tuple[str, ...]:
    """The names of the hooks that a pack's module or object implements."""
    found = set()
    for name, _ in _functions(plugin):
        options = manager.parse_hookimpl_opts(plugin, name)
        found.add(options and (options.get("specname") or name))
    return tuple(name for name in hook_names(manager) if name in found)


def contribution(
    pack: PackInfo, plugin: object, specs: tuple[object, ...], manager: pluggy.PluginManager
) -> Contribution:
    """Runs the hooks with which a pack registers.

    Args:
        plugin: the module or object that its entry point names.
        specs: of the hooks that it brings itself.
        manager: without plugins, before and after: with several in it, a hook that raises would
            lose what others register.

    Raises:
        Refused: a hook is mistyped, takes wrong arguments or raises, or there is none.
    """
    _check_hooks(plugin, manager)
    registrar, passes = Registrar(pack), PassRegistrar(pack)
    try:
        _register(pack, plugin, manager)
        _run("fhe_register_ops", manager.hook.fhe_register_ops, registry=registrar)
        _run("fhe_register_passes", manager.hook.fhe_register_passes, passes=passes)
    finally:
        registrations, rewritings = registrar.close(), passes.close()
        # A plugin that is refused has not been registered, or with an older pluggy in part.
        if manager.is_registered(plugin):
            manager.unregister(plugin)
    called_later = set(pack.hooks) - hooks.REGISTERING
    if not (registrations or rewritings or called_later or specs):
        raise Refused(
            "it registers no operators; define fhe_register_ops(registry), marked "
            "@fhe_core.hookimpl, in the object that its entry point names"
        )
    kept = Plugin(pack, plugin, specs) if called_later or specs else None
    return Contribution(registrations, rewritings, kept)


def plugin_of(pack: PackInfo, target: object) -> Plugin:
    """A plug-in of hooks that are called after loading.

    Raises:
        PackError: its hooks are mistyped, or are those of loading alone.
    """
    manager = hook_manager()
    try:
        _check_hooks(target, manager)
    except Refused as refusal:
        raise PackError(
            f"a plug-in cannot be used: {refusal}", where=Where(pack=pack.name)
        ) from None
    if not set(hooks_of(target, manager)) - hooks.REGISTERING:
        raise PackError(
            f"{shown(target)} has no hook that is called after loading",
            where=Where(pack=pack.name),
            expected=f"one of {', '.join(sorted(set(hook_names(manager)) - hooks.REGISTERING))}",
            fix="mark its functions @fhe_core.hookimpl, or register operators and passes as such",
        )
    return Plugin(pack, target)


def one_line(error: BaseException) -> str:
    """An exception's type and message, for the middle of a sentence."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _run(name: str, hook: Callable[..., Any], **arguments: object) -> None:
    try:
        hook(**arguments)
    except FheError as error:
        # It names the op and what to do, and says more than that a hook raised.
        raise Refused(" ".join(str(error).split())) from error
    except (Exception, SystemExit) as error:
        raise Refused(f"its hook {name} raised {one_line(error)}") from error


def _check_hooks(plugin: object, manager: pluggy.PluginManager) -> None:
    """Refuses what pluggy passes over, or says badly."""
    for name, function in _functions(plugin):
        options = manager.parse_hookimpl_opts(plugin, name)
        hook = (options and options.get("specname")) or name
        known = hook_names(manager)
        if hook not in known:
            if options is not None or _is_own(function, plugin):
                hint = did_you_mean(hook, known) or f"the hooks are {', '.join(known)}"
                raise Refused(
                    f"it defines {name}, but fhe_core has no hook {hook!r}; {hint}", function
                )
        elif options is None:
            raise Refused(f"its {name} is not marked; put @fhe_core.hookimpl above it", function)
        else:
            _check_arguments(hook, getattr(plugin, name), hook_arguments(manager, hook))


def _check_arguments(hook: str, implementation: Callable[..., Any], given: tuple[str, ...]) -> None:
    """Refuses a hook that needs what it is not given; all arguments are given by name."""
    unknown = [
        parameter.name
        for parameter in inspect.signature(implementation).parameters.values()
        if parameter.name not in given and parameter.default is parameter.empty
    ]
    if unknown:
        raise Refused(
            f"its hook {hook} takes {', '.join(unknown)}, which it is not called with; "
            f"write {hook}({', '.join(given)})",
            implementation,
        )


def _register(pack: PackInfo, plugin: object, manager: pluggy.PluginManager) -> None:
    try:
        manager.register(plugin, name=pack.name)
    except pluggy.PluginValidationError as error:
        # pluggy names plugin, hook and definition on lines of their own, and the fault on the last.
        fault = str(error).splitlines()[-1]
        raise Refused(f"one of its hooks is not written as a hook can be: {fault}") from error


def _functions(plugin: object) -> Iterator[tuple[str, Callable[..., Any]]]:
    """The functions of a pack's module or object that are, or look like, hooks."""
    marked = f"{hooks.PROJECT}_impl"
    # getattr_static: a property or a lazy module attribute must not run. It takes its time.
    names = vars(plugin) if isinstance(plugin, ModuleType) else None
    for name in dir(plugin):
        value = names.get(name) if names else inspect.getattr_static(plugin, name, None)
        function = getattr(value, "__func__", value)
        if inspect.isfunction(function) and (
            name.startswith(hooks.PREFIX) or hasattr(function, marked)
        ):
            yield name, function


def _is_own(function: object, plugin: object) -> bool:
    """Whether a function was written in the pack, not imported into it from elsewhere."""
    module = plugin.__name__ if isinstance(plugin, ModuleType) else type(plugin).__module__
    return getattr(function, "__module__", "").partition(".")[0] == module.partition(".")[0]
