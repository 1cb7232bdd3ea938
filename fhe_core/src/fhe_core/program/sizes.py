"""How large the result of a step of the client's program may be: known from shapes, before it is computed.

A client's program comes from whoever offers a model, and few bytes may ask for many: an array of any shape, or
one that two short ones stretch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

#: Elements that all steps together may compute for a sample: half a gibibyte of float64.
MOST_ELEMENTS = 2**26

#: Functions whose result has a shape that an argument spells out.
_SPELT_OUT = {"broadcast_to", "reshape", "zeros_like", "ones_like", "full_like"}


def most_elements(function: str, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> int:
    """An upper bound of the elements in a result.

    Args:
        function: of ``host.FUNCTIONS``.

    Raises:
        ValueError, TypeError, IndexError: no such call can be made.
    """
    given = [*arguments, *keywords.values()]
    if function in _SPELT_OUT:
        shapes = [np.atleast_1d(each).tolist() for each in given[1:] if _is_shape(each)]
        spelt = [math.prod(map(abs, shape)) for shape in shapes]
        return max([_size(arguments[0]), *spelt])
    if function == "pad":
        shape, widths = np.shape(arguments[0]), arguments[1]
        return math.prod(n + sum(map(abs, pair)) for n, pair in zip(shape, widths, strict=True))
    if function == "concatenate":
        return sum(map(_size, arguments[0]))
    if function == "take":
        shape, axis = np.shape(arguments[0]), given[2]
        return math.prod(shape) // max(shape[axis], 1) * _size(arguments[1])
    if function == "index":
        return _picked(np.shape(arguments[0]), arguments[1])
    if function in ("select", "rows"):
        values, places = (arguments[1], arguments[0]) if function == "select" else arguments
        return _size(places) * math.prod(np.shape(values)[1:])
    if function == "matmul":
        one, other = np.shape(arguments[0]), np.shape(arguments[1])
        stack = np.broadcast_shapes(one[:-2], other[:-2])
        return math.prod(stack) * math.prod(one[-2:-1]) * math.prod(other[-1:])
    if function == "sized":
        base, _, axes, batch = arguments
        return math.prod(batch if i in axes else n for i, n in enumerate(np.shape(base)))
    if function == "take_along_axis" and given[2] is not None:
        ends, axis = list(np.shape(arguments[0])), given[2]
        ends[axis] = 1
        return math.prod(np.broadcast_shapes(tuple(ends), np.shape(arguments[1])))
    if function == "lookup":
        given = [arguments[0], arguments[2]]
    # Functions of each element stretch their arguments to each other's shape; the rest makes nothing larger.
    arrays = [each for each in given if isinstance(each, (np.ndarray, np.generic))]
    try:
        return math.prod(np.broadcast_shapes(*map(np.shape, arrays)))
    except (
        ValueError
    ):  # the function itself says so, unless they are something else than its operands
        return max(map(_size, arrays))


def _is_shape(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) or (
        isinstance(value, (tuple, list, np.ndarray))
        and np.ndim(value) == 1
        and all(isinstance(n, (int, np.integer)) for n in value)
    )


def _size(value: Any) -> int:
    return math.prod(np.shape(value))


def _picked(shape: tuple[int, ...], key: Any) -> int:
    """The elements that an index picks; slices pick all at most."""
    parts = key if isinstance(key, tuple) else (key,)
    arrays, size = [], math.prod(shape)
    places = [part for part in parts if part is not None and part is not Ellipsis]
    gap = parts.index(Ellipsis) if any(part is Ellipsis for part in parts) else len(parts)
    before = sum(part is not None for part in parts[:gap])
    for number, part in enumerate(places):
        axis = number if number < before else len(shape) - len(places) + number
        if not isinstance(part, slice) and np.ndim(part):
            arrays.append(np.shape(part))
            size //= max(shape[axis], 1)
    return size * math.prod(np.broadcast_shapes(*arrays))
