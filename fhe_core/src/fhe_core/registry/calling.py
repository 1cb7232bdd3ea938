"""Calling what packs implement of a hook: one at a time, so that a fault has an owner.

pluggy calls all implementations in one go: one that raises loses what the others say, and nothing tells
whose it was. Here each is called by itself, in the order in which packs were loaded (``tryfirst`` and
``trylast`` as pluggy has them).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pluggy

from fhe_core.errors import FheError, PackError, Where
from fhe_core.registry import hooks
from fhe_core.registry.provenance import PackInfo, to_mend


@dataclass(frozen=True, eq=False)
class Plugin:
    """A loaded pack's module or object.

    Attributes:
        specs: modules or classes with specifications of hooks that it brings.
    """

    origin: PackInfo
    target: object
    specs: tuple[object, ...] = ()


def hook_manager(specs: Sequence[Any] = ()) -> pluggy.PluginManager:
    """A manager that knows the hooks of the core and those of ``specs``, and no plug-in.

    Raises:
        ValueError: one of them specifies no hook.
    """
    manager = pluggy.PluginManager(hooks.PROJECT)
    for spec in (hooks, *specs):
        manager.add_hookspecs(spec)
    return manager


def hook_names(manager: pluggy.PluginManager) -> tuple[str, ...]:
    """The names of all hooks that a manager has a specification of, the core's own first."""
    return tuple(name for name, caller in vars(manager.hook).items() if _spec(caller) is not None)


def hook_arguments(manager: pluggy.PluginManager, name: str) -> tuple[str, ...]:
    """The names of the arguments that a hook is called with."""
    return tuple(_spec(getattr(manager.hook, name)).argnames)


def _spec(caller: Any) -> Any:
    return getattr(caller, "spec", None)


class Hooks:
    """The hooks of all loaded packs, to be called by name.

    Args:
        plugins: in the order in which they were loaded.
    """

    def __init__(self, plugins: Sequence[Plugin] = ()) -> None:
        self.plugins = tuple(plugins)
        self._manager = hook_manager([spec for plugin in plugins for spec in plugin.specs])
        self._origins = {id(plugin.target): plugin.origin for plugin in plugins}
        # pluggy calls first what was registered last.
        for plugin in reversed(self.plugins):
            self._manager.register(plugin.target)

    def has(self, name: str) -> bool:
        """Whether any pack implements a hook."""
        return bool(self._implementations(name))

    def each(
        self, name: str, where: Where | None = None, /, **arguments: Any
    ) -> Iterator[tuple[PackInfo, Any]]:
        """What each pack answers, with the pack; those that answer None are passed over.

        Args:
            where: what the hook is called about, for errors.

        Raises:
            PackError: there is no such hook, or an implementation raised something else than an FheError.
        """
        for implementation in self._implementations(name):
            origin = self._origins[id(implementation.plugin)]
            given = {key: arguments[key] for key in implementation.argnames}
            try:
                answer = implementation.function(**given)
            except FheError:
                raise
            except (Exception, SystemExit) as error:
                text = " ".join(str(error).split())
                raise PackError(
                    f"its hook {name} raised {type(error).__name__}: {text}",
                    where=replace(where or Where(), pack=origin.name),
                    fix=to_mend(origin, optional=True),
                ) from error
            if answer is not None:
                yield origin, answer

    def first(self, name: str, where: Where | None = None, /, **arguments: Any) -> Any:
        """The first answer of a pack that is not None; None where nobody answers. Raises as `each`."""
        return next((answer for _, answer in self.each(name, where, **arguments)), None)

    def _implementations(self, name: str) -> list[Any]:
        caller: Any = getattr(self._manager.hook, name, None)
        if _spec(caller) is None:
            raise PackError(
                f"there is no hook {name!r}",
                expected=f"one of {', '.join(hook_names(self._manager))}",
                got=repr(name),
                fix="correct the name, or load the pack that specifies the hook",
            )
        return list(reversed(caller.get_hookimpls()))
