"""Interfaces of older versions, derived from the newest one's signature.

Where a newer version of an op only has more inputs or attributes, whose defaults are what the older
one did, one function computes both. The signature is the specification, so it is what differs.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any


def older(function: Callable[..., Any], *without: str, **plus: Any) -> Callable[..., Any]:
    """``function`` as an older version is called: without some of its parameters, which are then
    their defaults, and with attributes (name and default) that change nothing that it computes."""

    @functools.wraps(function)
    def interface(*inputs: Any, **attributes: Any) -> Any:
        for name in plus:
            attributes.pop(name, None)
        return function(*inputs, **attributes)

    signature = inspect.signature(function)
    kept = [p for name, p in signature.parameters.items() if name not in without]
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
        for name, default in plus.items()
    ]
    interface.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*kept, *more]
    )
    return interface
