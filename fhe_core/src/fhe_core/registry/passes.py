"""What a pack is handed to register its graph passes with."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fhe_core.errors import PackError, Where
from fhe_core.registry.provenance import PackInfo

if TYPE_CHECKING:
    # The graph package builds on this one, and needs numpy.
    from fhe_core.graph.ir import Graph


@dataclass(frozen=True)
class GraphPass:
    """A function that rewrites graphs, and whose it is."""

    name: str
    run: Callable[[Graph], Graph]
    origin: PackInfo

    def __str__(self) -> str:
        return f"{self.origin.name}.{self.name}"


class PassRegistrar:
    """Registers graph passes in the name of one pack, while its hook runs."""

    def __init__(self, origin: PackInfo) -> None:
        self._origin = origin
        self._passes: dict[str, GraphPass] = {}
        self._closed = False

    @property
    def pack(self) -> str:
        """The name of the pack that this registrar is bound to."""
        return self._origin.name

    def add(self, fn: Callable[[Graph], Graph], *, name: str | None = None) -> None:
        """Registers a pass.

        Args:
            fn: takes a `fhe_core.Graph`, whose constants are folded, and returns one of the same
                inputs and outputs that computes the same; the very graph that it was given if there
                is nothing to do. Tensors that remain keep their names.
            name: of the pass, unique in the pack; the function's own by default.

        Raises:
            PackError: an argument is of a wrong kind, the name is taken, or the hook has already
                returned.
        """
        where = Where(pack=self.pack)
        if self._closed:
            raise PackError(
                "passes can be registered only while `fhe_register_passes` runs",
                where=where,
                got=repr(name or fn),
                fix="register in the hook, or use `fhe_core.registered(passes=...)` for the body "
                "of a `with`",
            )
        if not _takes_one_argument(fn):
            raise PackError(
                "the pass is no function of one graph",
                where=where,
                got=repr(fn),
                fix="pass a function such as `def fold(graph): ...`",
            )
        # What has no name of its own, such as a functools.partial, needs one.
        name = getattr(fn, "__name__", None) if name is None else name
        if not isinstance(name, str) or not name:
            raise PackError(
                "the pass's name is no text",
                where=where,
                got=repr(name),
                fix="give it a name, as in `passes.add(fn, name='fold')`",
            )
        if name in self._passes:
            raise PackError(
                f"the pack registers two passes named {name!r}",
                where=where,
                fix="drop one, or pass `name`",
            )
        self._passes[name] = GraphPass(name, fn, self._origin)

    def close(self) -> tuple[GraphPass, ...]:
        """Ends registration; returns the passes in the order in which they were added."""
        self._closed = True
        return tuple(self._passes.values())


def _takes_one_argument(fn: object) -> bool:
    if not callable(fn):
        return False
    try:
        inspect.signature(fn).bind(None)
    except ValueError:  # a function of C may have no signature to look at
        return True
    except TypeError:
        return False
    return True
