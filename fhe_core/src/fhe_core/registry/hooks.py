"""The hooks by which a pack takes part: a specification each, and the marks for both sides."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from fhe_core.registry.registrar import Registrar

PROJECT = "fhe_core"

# Every hook starts with this: a function that does and is none was probably meant to be one.
PREFIX = "fhe_"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def fhe_register_ops(registry: Registrar) -> None:
    """Registers the pack's operators.

    Called once, when the packs are loaded. Nothing that it registers stays if it raises.

    Args:
        registry: a registrar bound to this pack; it accepts nothing after the hook has returned.
    """


HOOKS = (fhe_register_ops.__name__,)
