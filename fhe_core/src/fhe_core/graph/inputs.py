"""The arrays that a model is given, checked against what it declares."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fhe_core.arguments import shown
from fhe_core.errors import InputError
from fhe_core.graph.ir import ValueInfo
from fhe_core.graph.tensors import kind, largest


def gather(
    inputs: Sequence[ValueInfo], arrays: Sequence[Any], named: Mapping[str, Any]
) -> dict[str, Any]:
    """Arrays by position and by name as one dict by name.

    Raises:
        InputError: too many arrays, or one input given twice.
    """
    names = [info.name for info in inputs]
    if len(arrays) > len(names):
        raise InputError(
            f"{len(arrays)} arrays were given to a model with {_count(len(names), 'input')}",
            expected=_listed(names),
            fix="give one array for each input",
        )
    feeds = dict(zip(names, arrays, strict=False))
    twice = [name for name in feeds if name in named]
    if twice:
        raise InputError(
            f"the input {_listed(twice)} was given by position and by name",
            fix="give it once",
        )
    return {**feeds, **named}


def prepare(inputs: Sequence[ValueInfo], feeds: Mapping[str, Any]) -> list[Any]:
    """One read-only array for each input, of the declared type and shape, in order.

    Raises:
        InputError: a name that is missing or unknown, or a value that does not fit its declaration.
    """
    if not isinstance(feeds, Mapping):
        raise InputError(
            f"the inputs cannot be {shown(feeds)}",
            expected="a dict of arrays by input name",
            got=type(feeds).__name__,
            fix="give run() a dict, or call the module itself with arrays",
        )
    names = [info.name for info in inputs]
    unknown = [name for name in feeds if name not in names]
    if unknown:
        raise InputError(
            f"the model has no input named {_listed(unknown)}",
            expected=_listed(names),
            fix=suggestion(str(unknown[0]), names) or "use the model's input names",
        )
    missing = [name for name in names if name not in feeds]
    if missing:
        raise InputError(
            f"the input {_listed(missing)} is missing",
            expected=_listed(names),
            got=_listed(feeds) or "no inputs",
            fix="give an array for every input",
        )
    return [prepare_one(info, feeds[info.name]) for info in inputs]


def prepare_one(info: ValueInfo, value: Any) -> np.ndarray:
    """A read-only array of the declared type and shape: the caller's, viewed, where it fits.

    Raises:
        InputError: the value is no array, or of a type, rank or dimension that was not declared.
    """
    if is_masked(value):
        raise InputError(
            f"the input {info.name!r} is a masked array",
            expected=str(info),
            got="values that are said not to be there",
            fix="fill them yourself, as in x.filled(0), if the model is meant to see them",
        )
    try:
        array = np.asarray(value)
    except Exception as error:
        raise InputError(
            f"the input {info.name!r} is not an array: {error}",
            expected=str(info),
            got=type(value).__name__,
            fix="give a NumPy array",
        ) from error
    _check_kind(info, array)
    _check_shape(info, array)
    array = _cast(info, array).view()
    array.setflags(write=False)
    return array


def is_masked(value: Any) -> bool:
    """Whether an array, or one in a list, has a mask: NumPy would drop it, and compute with what is
    beneath."""
    if isinstance(value, list | tuple):
        return any(map(is_masked, value))
    return isinstance(value, np.ma.MaskedArray)


# Kinds of array that each kind of declared type accepts.
_CASTS: Mapping[str, str] = {"f": "fiub", "i": "iub", "u": "iub", "b": "b"}


def _check_kind(info: ValueInfo, array: np.ndarray) -> None:
    accepted = "USO" if info.dtype is None else _CASTS[kind(info.dtype)]
    if kind(array.dtype) in accepted:
        return
    raise InputError(
        f"the input {info.name!r} is of type {array.dtype.name}",
        expected=str(info),
        got=f"the shape {array.shape}",
        fix="give an array of strings"
        if info.dtype is None
        else f"convert it yourself, as in x.astype({info.dtype.name!r}), if that is meant",
    )


def _check_shape(info: ValueInfo, array: np.ndarray) -> None:
    if info.shape is None:
        return
    if array.ndim != len(info.shape):
        raise InputError(
            f"the input {info.name!r} has {_count(array.ndim, 'dimension')}, not {len(info.shape)}",
            expected=str(info),
            got=f"the shape {array.shape}",
            fix=_rank_fix(info.shape, array.shape),
        )
    for i, (declared, actual) in enumerate(zip(info.shape, array.shape, strict=True)):
        if isinstance(declared, int) and declared != actual:
            raise InputError(
                f"dimension {i} of the input {info.name!r} is {actual}, not {declared}",
                expected=str(info),
                got=f"the shape {array.shape}",
                fix=f"run the model on {_count(declared, 'sample')} at a time, or export it with "
                "a symbolic batch size"
                if i == 0
                else "give data of the shape that the model was exported for",
            )


def _rank_fix(declared: tuple[int | str | None, ...], actual: tuple[int, ...]) -> str:
    if len(actual) + 1 == len(declared):
        return "add the batch dimension, as in x[None]"
    return "reshape the array"


def _cast(info: ValueInfo, array: np.ndarray) -> np.ndarray:
    """The array in the declared type. Floats may be rounded; no other value may change."""
    if info.dtype is None:
        return array.astype(object)
    if array.dtype == info.dtype:
        return array
    declared = kind(info.dtype)
    with np.errstate(all="ignore"):
        cast = array.astype(info.dtype)
    survives = _only_rounded(cast, array) if declared == "f" else cast == array
    if declared in "iu":
        # uint64 and int64 compare as float64, which is not exact: the signs decide too.
        survives = survives & ((cast < 0) == (array < 0))
    if not np.all(survives):
        first = array[~survives].flat[0]
        raise InputError(
            f"the input {info.name!r} holds {first}, which {info.dtype.name} cannot hold",
            expected=str(info),
            got=f"{array.dtype.name} of shape {array.shape}",
            fix="scale the data, or export the model with a wider input type",
        )
    return cast


def _only_rounded(cast: np.ndarray, array: np.ndarray) -> np.ndarray:
    """Where a float stayed finite, infinite or NaN, and below the largest of its type."""
    same = (np.isnan(cast) == np.isnan(array)) & (np.isinf(cast) == np.isinf(array))
    # The narrowest floats have no infinity: what is too large becomes their largest value, or NaN.
    return same & (~np.isfinite(array) | (np.abs(array) <= largest(cast.dtype)))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))


def suggestion(name: str, known: Iterable[str]) -> str | None:
    """The imperative that leads from a mistyped name to the right one, None if nothing is near."""
    matches = difflib.get_close_matches(name, list(known), n=1)
    return f"use {matches[0]!r}" if matches else None
