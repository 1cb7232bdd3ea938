"""Running out of memory, as an error that says where."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from fhe_core.errors import ResourceError, Where

_P = ParamSpec("_P")
_R = TypeVar("_R")


def out_of_memory(error: MemoryError, where: Where | None = None, given: str = "") -> ResourceError:
    """What is raised for a ``MemoryError``.

    Args:
        given: what was at hand there, for the message.
    """
    said = " ".join(str(error).split())
    return ResourceError(
        f"there is not enough memory{f': {said}' if said else ''}",
        where=where,
        got=f"the inputs {given}" if given else None,
        fix="give fewer samples at a time, or use a machine with more memory",
    )


def within_memory(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """The function, whose ``MemoryError`` is a ``ResourceError``."""

    @wraps(function)
    def typed(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return function(*args, **kwargs)
        except ResourceError:
            raise
        except MemoryError as error:
            raise out_of_memory(error) from error

    return typed
