"""What callers give as settings, checked before anything is done with it."""

from __future__ import annotations

import operator
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fhe_core.errors import FheError

_SHOWN = 60  # characters of a value in a message


def shown(value: object) -> str:
    """A value for a message, in one line of bounded length."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # noqa: BLE001 - somebody else's class
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def is_on(variable: str) -> bool:
    """Whether an environment variable switches something on: set, and not to 0, false, no or off."""
    return os.environ.get(variable, "").strip().lower() not in ("", "0", "false", "no", "off")


def one_of(value: Any, name: str, allowed: Sequence[str], error: type[FheError]) -> str:
    """A setting that is one of some words.

    Raises:
        error: it is none of them.
    """
    # Not `in` alone: an array compares with each, element by element.
    if isinstance(value, str) and value in allowed:
        return value
    raise error(
        f"{name} cannot be {shown(value)}",
        expected=" or ".join(allowed),
        got=shown(value),
        fix=f"choose one of {', '.join(allowed)}",
    )


def seed_of(value: Any, error: type[FheError], name: str = "seed") -> int:
    """The seed of random choices: a whole number of at least 0.

    Raises:
        error: it is anything else.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    if number >= 0 and not isinstance(value, bool):
        return number
    raise error(
        f"{name} cannot be {shown(value)}",
        expected="a whole number of at least 0",
        got=shown(value),
        fix=f"use {name}=0",
    )


def path_of(value: Any, what: str, error: type[FheError], fix: str) -> Path:
    """A path as users give one.

    Args:
        what: what is there, with its article.
        fix: the path to give.

    Raises:
        error: it is no path, or none that a file can have.
    """
    path = os.fsdecode(value) if isinstance(value, str | os.PathLike) else None
    if path is not None and "\0" not in path:
        return Path(path)
    raise error(
        f"{shown(value) if path is None else repr(path)} is no path to {what}",
        expected="a string or a pathlib.Path",
        got=type(value).__name__ if path is None else "a path that holds a NUL",
        fix=fix,
    )


def names_of(value: Any, name: str, error: type[FheError]) -> list[str]:
    """Names, given as a list of some kind, or one alone.

    Raises:
        error: it is anything else.
    """
    if isinstance(value, str):
        return [value]
    try:
        given = None if isinstance(value, bytes) else list(value)
    except TypeError:  # it has no elements, or is an array without dimensions
        given = None
    if given is not None and all(isinstance(item, str) for item in given):
        return [str(item) for item in given]
    raise error(
        f"{name} cannot be {shown(value)}",
        expected="a list of names",
        got=shown(value),
        fix=f"give {name} names, as in {name}=['x']",
    )
