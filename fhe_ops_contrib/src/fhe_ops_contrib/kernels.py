"""The kernels of support vector machines: how similar samples are to support vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fhe_ops_contrib._checks import Array, misfit


@dataclass(frozen=True)
class Kernel:
    """One of ONNX's four kernels.

    Attributes:
        name: LINEAR ``x·v``, POLY ``(gamma x·v + coef0)^degree``, SIGMOID ``tanh(gamma x·v + coef0)`` or
            RBF ``exp(-gamma |x - v|²)``.
    """

    name: str
    gamma: float = 0.0
    coef0: float = 0.0
    degree: float = 0.0

    def __call__(self, rows: Array, vectors: Array) -> Array:
        """(N, vectors) from rows: (N, F) and vectors: (vectors, F), float64."""
        rows = rows.astype(np.float64)
        if self.name == "RBF":
            return self.of_distances(squared_distances(rows, vectors))
        return self.of_products(rows @ vectors.T)

    def of_products(self, products: Array) -> Array:
        """The kernel from x·v, for all but RBF."""
        return _OF_PRODUCTS[self.name](self, products)

    def of_distances(self, distances: Array) -> Array:
        """The kernel RBF from |x - v|²."""
        return np.exp(distances * -self.gamma)


def squared_distances(rows: Array, vectors: Array) -> Array:
    """|x - v|² in float64: (N, vectors)."""
    rows, vectors = rows.astype(np.float64), vectors.astype(np.float64)
    # Around a vector's value, not around 0: the expansion cancels less.
    rows, vectors = rows - vectors.mean(axis=0), vectors - vectors.mean(axis=0)
    squares = np.sum(rows * rows, axis=1, keepdims=True) + np.sum(vectors * vectors, axis=1)
    return np.maximum(squares - 2 * (rows @ vectors.T), 0)


_OF_PRODUCTS: dict[str, Callable[[Kernel, Array], Array]] = {
    "LINEAR": lambda kernel, products: products,
    "POLY": lambda kernel, products: _power(products * kernel.gamma + kernel.coef0, kernel.degree),
    "SIGMOID": lambda kernel, products: np.tanh(products * kernel.gamma + kernel.coef0),
}
_KERNELS = (*_OF_PRODUCTS, "RBF")


def _power(base: Array, degree: float) -> Array:
    # As an integer where it is one: then negative bases have a power.
    return base ** (int(degree) if float(degree).is_integer() else degree)


def kernel_of(name: str, params: Sequence[float] | None, op: str) -> Kernel:
    """The kernel that the attributes ``kernel_type`` and ``kernel_params`` describe.

    Raises:
        ModelError: there is no such kernel, or not three parameters (or none, which are zeros).
    """
    if name not in _KERNELS:
        raise misfit(
            op,
            "the attribute 'kernel_type' names no kernel",
            expected=", ".join(_KERNELS),
            got=repr(name),
            fix="correct 'kernel_type'",
        )
    if params and len(params) != 3:
        raise misfit(
            op,
            "the attribute 'kernel_params' has the wrong length",
            expected="gamma, coef0 and degree, or nothing",
            got=f"{len(params)} values",
            fix="correct 'kernel_params'",
        )
    return Kernel(name, *(params or ()))


def as_vectors(values: Sequence[float] | None, count: int, *, op: str, told_by: str) -> Array:
    """The attribute ``support_vectors`` as (count, features), float64.

    Args:
        told_by: the attribute that gives their number.

    Raises:
        ModelError: it cannot be divided into as many.
    """
    given = len(values or ())
    if given == 0 or given % count:
        raise misfit(
            op,
            f"the attribute 'support_vectors' does not fit {told_by!r}",
            expected=f"a multiple of {count} values",
            got=f"{given}",
            fix=f"correct 'support_vectors' or {told_by!r}",
        )
    return np.asarray(values, np.float64).reshape(count, -1)


def check_features(features: int, expected: int, op: str, attribute: str) -> None:
    """Raises ModelError unless the input has as many features as the model was trained on."""
    if features != expected:
        raise misfit(
            op,
            f"the attribute {attribute!r} does not fit the input",
            expected=f"an input of {expected} features",
            got=f"{features} features",
            fix=f"correct {attribute!r}, or give the features that the model was trained on",
        )


def check_length(op: str, attribute: str, values: Sequence[Any] | None, expected: int) -> None:
    """Raises ModelError unless ``values`` has ``expected`` elements."""
    given = len(values or ())
    if given != expected:
        raise misfit(
            op,
            f"the attribute {attribute!r} has the wrong length",
            expected=f"{expected} value{'s' * (expected != 1)}",
            got=f"{given}",
            fix=f"correct {attribute!r}",
        )
