"""The precision that an op computes in, where its tensors have less."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def precise(x: Array) -> Array:
    """x in single precision if it is a float of fewer bits, else x itself."""
    if x.dtype.kind in "biucO":
        return x
    return x.astype(np.promote_types(x.dtype, np.float32), copy=False)


def rounded(x: Array, dtype: np.dtype[Any]) -> Array:
    """x in ``dtype``; what that cannot hold becomes infinite, without a warning."""
    with np.errstate(over="ignore"):
        return x.astype(dtype, copy=False)
