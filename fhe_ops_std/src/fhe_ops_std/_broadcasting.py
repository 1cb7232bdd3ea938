"""Broadcasting as it was before opset 7: asked for, and of the second operand alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_ops_std._domains import Flag

Array = NDArray[Any]


def limited(function: Callable[[Array, Array], Array], version: str) -> Callable[..., Array]:
    """The binary ``function`` as it was called before opset 7, at a ``version`` such as Add-6; see
    `aligned`."""

    def operator(a: Array, b: Array, /, *, axis: int | None = None, broadcast: Flag = 0) -> Array:
        return function(a, aligned(a, b, axis, broadcast))

    operator.__name__ = operator.__qualname__ = version.lower().replace("-", "_")
    operator.__doc__ = f"ONNX {version}: as `{function.__name__}`, with limited broadcasting."
    return operator


def aligned(a: Array, b: Array, axis: int | None, broadcast: int) -> Array:
    """b with axes of 1 where NumPy's rules need them to do what the rules before opset 7 say.

    Without ``broadcast`` both operands have one shape. With it b is a single element, or its shape
    is a run of a's dimensions, from ``axis`` on, or the last ones without ``axis``. A dimension of
    1 broadcasts too, which the page leaves out and ONNX's own models of that time expect.

    Source: ONNX Add-6.

    Raises:
        ValueError: the shapes do not fit each other.
    """
    if not broadcast:
        if a.shape != b.shape:
            raise ValueError(f"shapes {a.shape} and {b.shape} differ, and broadcast is 0")
        return b
    if b.size == 1:
        return np.reshape(b, ())
    start = a.ndim - b.ndim if axis is None else axis + a.ndim * (axis < 0)
    places = a.shape[max(start, 0) : max(start, 0) + b.ndim]
    if (
        start < 0
        or len(places) < b.ndim
        or any(m not in (1, n) for m, n in zip(b.shape, places, strict=False))
    ):
        raise ValueError(f"shape {b.shape} does not fit into {a.shape} from axis {start} on")
    return np.reshape(b, (*b.shape, *(1,) * (a.ndim - start - b.ndim)))
