"""Categories in NumPy float: values mapped to other values, or to a one for the category they are.

Numbers are mapped by whole-array functions, which the compiler can trace; text, which cannot be
encrypted, through a dictionary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fhe_ops_contrib._checks import Array, misfit, unusable
from fhe_ops_contrib._domains import Flag


def label_encoder_1(
    x: Array,
    /,
    *,
    classes_strings: Sequence[str] | None = None,
    default_int64: int = -1,
    default_string: str = "_Unused",
) -> Array:
    """Text to its place in ``classes_strings``, int64, or places to text; x's shape.

    Raises:
        ModelError: there are no classes.
    """
    if not classes_strings:
        raise _missing("LabelEncoder", "'classes_strings'")
    names, places = np.asarray(classes_strings, object), np.arange(len(classes_strings))
    if x.dtype == object:
        return mapped(x, names, places, default_int64)
    return mapped(x, places, names, default_string)


def label_encoder_2(
    x: Array,
    /,
    *,
    default_float: float = -0.0,
    default_int64: int = -1,
    default_string: str = "_Unused",
    keys_floats: Sequence[float] | None = None,
    keys_int64s: Sequence[int] | None = None,
    keys_strings: Sequence[str] | None = None,
    values_floats: Sequence[float] | None = None,
    values_int64s: Sequence[int] | None = None,
    values_strings: Sequence[str] | None = None,
) -> Array:
    """Each element equal to a key becomes the value beside it, any other the default; x's shape.

    NaN equals NaN. Of equal keys the first counts, as in ONNX Runtime.

    Raises:
        ModelError: not one attribute of keys and one of values, of one length, the keys of x's type.
    """
    keys = _one_of(floats=keys_floats, int64s=keys_int64s, strings=keys_strings, what="keys")
    values = _one_of(
        floats=values_floats, int64s=values_int64s, strings=values_strings, what="values"
    )
    defaults = {"f": default_float, "i": default_int64, "O": default_string}
    _check_pairs(x, keys, values)
    return mapped(x, keys[::-1], values[::-1], defaults[values.dtype.kind])


def label_encoder_4(
    x: Array,
    /,
    *,
    default_float: float = -0.0,
    default_int64: int = -1,
    default_string: str = "_Unused",
    default_tensor: Array | None = None,
    keys_floats: Sequence[float] | None = None,
    keys_int64s: Sequence[int] | None = None,
    keys_strings: Sequence[str] | None = None,
    keys_tensor: Array | None = None,
    values_floats: Sequence[float] | None = None,
    values_int64s: Sequence[int] | None = None,
    values_strings: Sequence[str] | None = None,
    values_tensor: Array | None = None,
) -> Array:
    """As version 2, with keys, values and the default as tensors too.

    Of equal keys the last counts, as ONNX has it since this version (Runtime takes the first).

    Raises:
        ModelError: as version 2; or a default that is not one element of the values' type.
    """
    keys = _one_of(
        floats=keys_floats,
        int64s=keys_int64s,
        strings=keys_strings,
        tensor=keys_tensor,
        what="keys",
    )
    values = _one_of(
        floats=values_floats,
        int64s=values_int64s,
        strings=values_strings,
        tensor=values_tensor,
        what="values",
    )
    defaults = {"f": default_float, "i": default_int64, "O": default_string}
    _check_pairs(x, keys, values)
    default = defaults[values.dtype.kind]
    if default_tensor is not None:
        if default_tensor.size != 1 or default_tensor.dtype.kind != values.dtype.kind:
            raise misfit(
                "LabelEncoder",
                "the attribute 'default_tensor' does not fit the values",
                expected=f"one element of {_type(values)}",
                got=f"{default_tensor.size} of {_type(default_tensor)}",
                fix="correct 'default_tensor'",
            )
        default = default_tensor.reshape(-1)[0]
    return mapped(x, keys, values, default)


def category_mapper(
    x: Array,
    /,
    *,
    cats_int64s: Sequence[int] | None = None,
    cats_strings: Sequence[str] | None = None,
    default_int64: int = -1,
    default_string: str = "_Unused",
) -> Array:
    """Text to the integer beside it, or integers to text; x's shape.

    Raises:
        ModelError: the two attributes are missing, or differ in length.
    """
    if not cats_int64s or not cats_strings:
        raise _missing("CategoryMapper", "'cats_int64s' and 'cats_strings'")
    _check_lengths("CategoryMapper", cats_int64s=cats_int64s, cats_strings=cats_strings)
    integers, names = np.asarray(cats_int64s, np.int64), np.asarray(cats_strings, object)
    if x.dtype == object:
        return mapped(x, names, integers, default_int64)
    return mapped(x, integers, names, default_string)


def one_hot_encoder(
    x: Array,
    /,
    *,
    cats_int64s: Sequence[int] | None = None,
    cats_strings: Sequence[str] | None = None,
    zeros: Flag = 1,
) -> Array:
    """A one at the place of each element's category: (...) to (..., categories), float32.

    Floats lose their fraction first. Of equal categories the last has the one. Other elements give
    zeros, or with ``zeros=0`` an error.

    Raises:
        ModelError: not one attribute of categories, or text for numbers.
        InputError: with ``zeros=0``, an element that is no category.
    """
    marks = one_hot(x, categories(x, cats_int64s, cats_strings))
    if not zeros:
        found = np.max(marks, axis=-1) > 0
        if not found.all():
            raise unusable(
                "OneHotEncoder",
                "an element of the input is none of the categories, and 'zeros' is 0",
                expected=f"elements of the {marks.shape[-1]} categories",
                got=repr(x[~found].flat[0]),
                fix="leave such samples out, or export the encoder to ignore what it does not know",
            )
    return marks


def categories(x: Array, integers: Sequence[int] | None, strings: Sequence[str] | None) -> Array:
    """The encoder's categories, which x: its input, can be compared with.

    Raises:
        ModelError: there are none, or of both kinds, or of another kind than x.
    """
    if bool(integers) == bool(strings):
        raise _missing(
            "OneHotEncoder", "either 'cats_int64s' or 'cats_strings'", both=bool(strings)
        )
    found = np.asarray(integers, np.int64) if integers else np.asarray(strings, object)
    if (x.dtype == object) != bool(strings):
        raise misfit(
            "OneHotEncoder",
            "the categories are of another type than the input",
            expected=f"categories for {_type(x)}",
            got="'cats_int64s'" if integers else "'cats_strings'",
            fix="give the categories in the attribute for this type",
        )
    return found


def one_hot(x: Array, cats: Array) -> Array:
    """float32 (..., categories) from x: (...); zeros where it is none of them."""
    whole = np.trunc(x) if x.dtype.kind == "f" else x
    last = np.array([cat not in cats[place + 1 :] for place, cat in enumerate(cats)])
    marks = np.logical_and(np.equal(np.expand_dims(whole, -1), cats), last)
    return marks.astype(np.float32)


# -- a value for each key


def mapped(x: Array, keys: Array, values: Array, default: Any) -> Array:
    """``values`` in place of the ``keys``, of which the last of equal ones counts; else ``default``."""
    if isinstance(x, np.ndarray) and x.dtype == object:
        table = dict(zip(keys.tolist(), values.tolist(), strict=True))
        found = [table.get(element, default) for element in x.reshape(-1).tolist()]
        return np.array(found, values.dtype).reshape(x.shape)
    text = values.dtype == object
    choices = np.asarray([*values, default], np.str_) if text else values
    result = choices[-1] if text else np.asarray(default, values.dtype)
    for key, value in zip(keys, choices, strict=False):
        same = np.isnan(x) if key != key else np.equal(x, key)
        result = np.where(same, value, result)
    return result.astype(object) if text else result


def _one_of(*, what: str, **given: Any) -> Array:
    """The one attribute of keys or values that is set, one-dimensional."""
    found = {name: value for name, value in given.items() if value is not None and len(value)}
    if len(found) != 1:
        listed = ", ".join(f"'{what}_{name}'" for name in given)
        got = ", ".join(f"'{what}_{name}'" for name in found)
        raise misfit(
            "LabelEncoder",
            f"the {what} are not in one attribute",
            expected=f"one of {listed}",
            got=got or "none",
            fix="set one and leave the others out",
        )
    ((name, value),) = found.items()
    if name == "tensor":
        return np.asarray(value).reshape(-1)
    kinds = {"floats": np.float32, "int64s": np.int64, "strings": object}
    return np.asarray(value, kinds[name])


def _check_pairs(x: Array, keys: Array, values: Array) -> None:
    _check_lengths("LabelEncoder", keys=keys, values=values)
    # Integers may be held as floats where they are computed; text and numbers are never the same.
    if (x.dtype == object) != (keys.dtype == object):
        raise misfit(
            "LabelEncoder",
            "the keys are of another type than the input",
            expected=f"keys of {_type(x)}",
            got=_type(keys),
            fix="give the keys in the attribute for this type",
        )


def _check_lengths(op: str, **sides: Sequence[Any] | Array) -> None:
    (one, first), (other, second) = sides.items()
    if len(first) != len(second):
        raise misfit(
            op,
            f"{one!r} and {other!r} differ in length",
            expected="as many of both",
            got=f"{len(first)} and {len(second)}",
            fix=f"make {one!r} and {other!r} equally long",
        )


def _missing(op: str, what: str, *, both: bool = False) -> Exception:
    return misfit(
        op,
        "there is nothing to map to" if not both else "there are two lists of categories",
        expected=f"the attribute {what}",
        got="both" if both else "none",
        fix=f"set {what}",
    )


def _type(array: Array) -> str:
    return "text" if array.dtype == object else array.dtype.name


IMPLEMENTATIONS: tuple[tuple[str, int, Callable[..., Any]], ...] = (
    ("LabelEncoder", 1, label_encoder_1),
    ("LabelEncoder", 2, label_encoder_2),
    ("LabelEncoder", 4, label_encoder_4),
    ("CategoryMapper", 1, category_mapper),
    ("OneHotEncoder", 1, one_hot_encoder),
)
