"""What the operators of ``ai.onnx.ml`` check alike, and how they say what is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core import InputError, ModelError, Where

Array = NDArray[Any]

DOMAIN = "ai.onnx.ml"
#: Of operators that no exporter writes: this pack's graph passes put them into models.
OWN_DOMAIN = "fhe_ops_contrib"


def misfit(op: str, what: str, *, expected: str, got: str, fix: str) -> ModelError:
    """The error for an attribute or input of ``op`` that cannot be used."""
    return ModelError(what, where=Where(op=op, domain=DOMAIN), expected=expected, got=got, fix=fix)


def unusable(op: str, what: str, *, expected: str, got: str, fix: str) -> InputError:
    """The error for data that ``op`` cannot take, where the model is sound."""
    return InputError(what, where=Where(op=op, domain=DOMAIN), expected=expected, got=got, fix=fix)


def as_matrix(x: Array, op: str) -> Array:
    """``x``: (N, F), or (F,) as the one row of a matrix.

    Raises:
        ModelError: it has another rank.
    """
    if x.ndim == 2:
        return x
    if x.ndim == 1:
        return x.reshape(1, -1)
    raise misfit(
        op,
        f"the input has {x.ndim} dimensions",
        expected="(N, F) or (F,)",
        got=f"shape {x.shape}",
        fix="flatten the features of a sample before this node",
    )


def per_feature(values: Sequence[float], x: Array, dtype: Any, *, op: str, attribute: str) -> Array:
    """An attribute with one value, or one for each feature (the last dimension of ``x``).

    Raises:
        ModelError: it has another length.
    """
    features = x.shape[-1] if x.ndim else 1
    if len(values) not in (1, features):
        raise misfit(
            op,
            f"the attribute {attribute!r} fits neither one feature nor all",
            expected=f"1 or {features} values" if features != 1 else "1 value",
            got=f"{len(values)} values for an input of shape {x.shape}",
            fix=f"correct {attribute!r}",
        )
    # A length of 1 applies "regardless of dimension count": a scalar's rank stays as it is.
    return np.asarray(values[0] if len(values) == 1 else values, dtype)


def real(x: Array) -> Any:
    """The floating type to compute with: ``x``'s own, double for integers."""
    return np.result_type(x.dtype, np.float32)
