"""Ops from and to maps, which are Python dicts here: a feature's name or number to its value."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from fhe_core import primitives
from fhe_ops_contrib._checks import Array, as_matrix, misfit, unusable
from fhe_ops_contrib.labels import class_labels


def dict_vectorizer(
    x: Any,
    /,
    *,
    int64_vocabulary: Sequence[int] | None = None,
    string_vocabulary: Sequence[str] | None = None,
) -> Array:
    """The map's values in the order of the vocabulary, 0 or "" where it has none: (1, words).

    Keys outside the vocabulary are left out, as ONNX Runtime and scikit-learn do. Integers become
    int64, text objects, other values float32, or float64 if NumPy's.

    Raises:
        ModelError: not one vocabulary.
        InputError: x is no map, or one with keys of another type.
    """
    op = "DictVectorizer"
    if bool(int64_vocabulary) == bool(string_vocabulary):
        raise misfit(
            op,
            "the vocabulary is not in one attribute",
            expected="either 'int64_vocabulary' or 'string_vocabulary'",
            got="both" if string_vocabulary else "neither",
            fix="set one and leave the other out",
        )
    found = _as_map(x, op, str if string_vocabulary else int)
    dtype = _value_type(found.values())
    empty: Any = "" if dtype is object else 0
    words: Sequence[Any] = string_vocabulary or int64_vocabulary or ()
    return np.array([[found.get(word, empty) for word in words]], dtype)


def cast_map(
    x: Any,
    /,
    *,
    cast_to: Literal["TO_FLOAT", "TO_STRING", "TO_INT64"] = "TO_FLOAT",
    map_form: Literal["DENSE", "SPARSE"] = "DENSE",
    max_map: int = 1,
) -> Array:
    """The values of a map with integer keys, by ascending key (DENSE), or each at the place of its key
    in ``max_map`` places (SPARSE): (1, values).

    Floats become text with six decimals and integers without their fraction; the places that SPARSE
    leaves are 0, or as text "0.f": all as ONNX Runtime has it.

    Raises:
        ModelError: an attribute that names no form or type.
        InputError: x is no map, has other keys, keys beyond the places, or text that is no number.
    """
    op = "CastMap"
    if cast_to not in _CASTS:
        raise _no_choice("cast_to", _CASTS, cast_to)
    if map_form not in _FORMS:
        raise _no_choice("map_form", _FORMS, map_form)
    found = _as_map(x, op, int)
    convert, dtype, empty = _CASTS[cast_to]
    try:
        values = {key: convert(found[key]) for key in sorted(found)}
    except ValueError as error:
        raise unusable(
            op,
            f"a value of the map is not what 'cast_to' asks for: {error}",
            expected=f"values that {cast_to} can convert",
            got=", ".join(map(repr, found.values())),
            fix="correct the map",
        ) from error
    if map_form == "DENSE":
        return np.array([list(values.values())], dtype)
    beyond = [key for key in values if not 0 <= key < max_map]
    if beyond:
        raise unusable(
            op,
            "a key of the map lies beyond its places",
            expected=f"keys from 0 to {max_map - 1}",
            got=", ".join(map(str, beyond)),
            fix="leave such keys out, or correct 'max_map'",
        )
    return np.array([[values.get(place, empty) for place in range(max_map)]], dtype)


def _number_as_text(value: Any) -> str:
    return value if isinstance(value, str) else f"{np.float32(value):.6f}"


def _whole(value: Any) -> int:
    return int(value)


_FORMS = ("DENSE", "SPARSE")
_CASTS: Mapping[str, tuple[Callable[[Any], Any], Any, Any]] = {
    "TO_FLOAT": (float, np.float32, 0.0),
    "TO_STRING": (_number_as_text, object, "0.f"),
    "TO_INT64": (_whole, np.int64, 0),
}


def zip_map(
    x: Array,
    /,
    *,
    classlabels_int64s: Sequence[int] | None = None,
    classlabels_strings: Sequence[str] | None = None,
) -> list[dict[Any, float]]:
    """For each row of x: (N, C) or (C,), a dict from the C labels to its elements.

    Raises:
        ModelError: not one attribute of labels, or not one label for each column.
    """
    rows = as_matrix(x, "ZipMap")
    labels, attribute = class_labels(
        classlabels_int64s, classlabels_strings, op="ZipMap", ints_name="classlabels_int64s"
    )
    if len(labels) != rows.shape[1]:
        raise misfit(
            "ZipMap",
            f"the attribute {attribute!r} does not fit the input",
            expected=f"{rows.shape[1]} labels, one for each column",
            got=f"{len(labels)}",
            fix=f"correct {attribute!r}",
        )
    maps: list[dict[Any, float]] = primitives.maps(rows, labels.tolist())
    return maps


def _as_map(x: Any, op: str, key: type) -> Mapping[Any, Any]:
    """The map, which reaches a model's first op as an array of one object."""
    held = x.item() if isinstance(x, np.ndarray) and x.size == 1 else x
    if not isinstance(held, Mapping):
        got = f"an array of shape {x.shape}" if isinstance(x, np.ndarray) else type(x).__name__
        raise unusable(
            op,
            "the input is no map",
            expected="one dict",
            got=got,
            fix="give a dict, for one sample",
        )
    kinds = (int, np.integer) if key is int else (str,)
    wrong = [name for name in held if not isinstance(name, kinds)]
    if wrong:
        raise unusable(
            op,
            "a key of the map has the wrong type",
            expected=f"keys of type {key.__name__}",
            got=", ".join(map(repr, wrong[:3])),
            fix="convert the keys",
        )
    return held


def _value_type(values: Any) -> Any:
    kinds = {type(value) for value in values}
    if str in kinds:
        return object
    if kinds and all(issubclass(kind, (int, np.integer)) for kind in kinds):
        return np.int64
    return np.float64 if np.float64 in kinds else np.float32


def _no_choice(attribute: str, known: Any, got: str) -> Exception:
    return misfit(
        "CastMap",
        f"the attribute {attribute!r} names nothing known",
        expected=", ".join(known),
        got=repr(got),
        fix=f"correct {attribute!r}",
    )


IMPLEMENTATIONS: tuple[tuple[str, int, Callable[..., Any]], ...] = (
    ("DictVectorizer", 1, dict_vectorizer),
    ("CastMap", 1, cast_map),
    ("ZipMap", 1, zip_map),
)
