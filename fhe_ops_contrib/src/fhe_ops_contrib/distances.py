"""Distances of samples to the rows of a matrix, as ONNX Runtime's own operator has them.

skl2onnx writes it for nearest neighbours (its option ``optim="cdist"``), where the matrix is the
training data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fhe_core import ModelError, Where
from fhe_ops_contrib._checks import Array
from fhe_ops_contrib.kernels import squared_distances

DOMAIN = "com.microsoft"
METRICS = ("euclidean", "sqeuclidean")


def cdist(A: Array, B: Array, /, *, metric: str = "sqeuclidean") -> Array:
    """(N, M): how far each row of A: (N, F) is from each of B: (M, F), squared or not; A's type.

    Raises:
        ModelError: an unknown metric, or matrices that do not fit together.
    """
    check_metric(metric)
    if A.ndim != 2 or B.ndim != 2 or A.shape[1] != B.shape[1]:
        raise _misfit(
            "the inputs are no matrices of equally many columns",
            expected="(N, F) and (M, F)",
            got=f"{A.shape} and {B.shape}",
            fix="correct the shapes",
        )
    squares = squared_distances(A, B)
    return (squares if metric == "sqeuclidean" else np.sqrt(squares)).astype(A.dtype)


def check_metric(metric: str) -> None:
    """Raises ModelError unless the attribute ``metric`` is one of the two."""
    if metric not in METRICS:
        raise _misfit(
            "the attribute 'metric' names no metric",
            expected=" or ".join(METRICS),
            got=repr(metric),
            fix="correct 'metric'",
        )


def _misfit(what: str, *, expected: str, got: str, fix: str) -> ModelError:
    where = Where(op="CDist", domain=DOMAIN)
    return ModelError(what, where=where, expected=expected, got=got, fix=fix)


IMPLEMENTATIONS: tuple[tuple[str, int, Callable[..., Any]], ...] = (("CDist", 1, cdist),)
