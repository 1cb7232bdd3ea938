"""Running totals along an axis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_ops_std._domains import Flag

from ._precision import precise, rounded
from .layout import ints

Array = NDArray[Any]


def cum_sum(x: Array, axis: Array, /, *, exclusive: Flag = 0, reverse: Flag = 0) -> Array:
    """ONNX CumSum-14: the sum of each element and those before it along ``axis``.

    With ``exclusive`` without the element itself; with ``reverse`` those after it.
    """
    return _running(np.add, x, axis, exclusive, reverse)


def cum_prod(x: Array, axis: Array, /, *, exclusive: Flag = 0, reverse: Flag = 0) -> Array:
    """ONNX CumProd-26: the product of each element and those before it along ``axis``.

    With ``exclusive`` without the element itself; with ``reverse`` those after it.
    """
    return _running(np.multiply, x, axis, exclusive, reverse)


def _running(ufunc: np.ufunc, x: Array, axis: Array, exclusive: int, reverse: int) -> Array:
    (along,) = ints(axis)
    wide = x if x.dtype.kind in "iu" else precise(x)
    # Along the first axis of a view, so that the element before is one slice.
    wide = np.moveaxis(wide, along, 0)[:: -1 if reverse else 1]
    y = np.empty_like(wide)
    if exclusive:
        y[:1] = ufunc.identity
        ufunc.accumulate(wide[:-1], axis=0, out=y[1:])
    else:
        ufunc.accumulate(wide, axis=0, out=y)
    return rounded(np.moveaxis(y[:: -1 if reverse else 1], 0, along), x.dtype)


IMPLEMENTATIONS: tuple[tuple[str, int, Callable[..., Any]], ...] = (
    ("CumSum", 11, cum_sum),
    ("CumProd", 26, cum_prod),
)
