"""Which values an attribute can have, as the annotation of its parameter says."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from types import NoneType
from typing import Any, Literal, get_args, get_origin

#: Annotations, as written, that say nothing of values: most are among these.
_OPEN = frozenset({"int", "float", "str", "Any", "int | None", "float | None", "str | None"})


def allowed_values(fn: Callable[..., Any], annotation: Any) -> tuple[Any, ...] | None:
    """All values that an annotation of ``fn`` allows, or allows as elements; None where it allows all.

    What cannot be evaluated, such as names that exist for type checkers alone, says nothing.
    """
    if isinstance(annotation, str):
        if annotation in _OPEN:
            return None
        try:
            annotation = eval(annotation, _names(inspect.unwrap(fn)))
        except Exception:  # noqa: BLE001 - whatever somebody else's annotation raises
            return None
    return _values(annotation)


def _names(fn: Callable[..., Any]) -> dict[str, Any]:
    """The names that the module of a function, or class, can use."""
    own: dict[str, Any] | None = getattr(fn, "__globals__", None)
    return vars(sys.modules[fn.__module__]) if own is None else own


def _values(annotation: Any) -> tuple[Any, ...] | None:
    if annotation is bool:
        return (0, 1)  # ONNX has one type for integers and truth values
    arguments = get_args(annotation)
    if get_origin(annotation) is Literal:
        return arguments
    # A list of literals, or literals or None: each part says something, or nothing is said.
    parts = [_values(part) for part in arguments if part not in (NoneType, Ellipsis)]
    known = [part for part in parts if part is not None]
    if not parts or len(known) < len(parts):
        return None
    return tuple(value for part in known for value in part)
