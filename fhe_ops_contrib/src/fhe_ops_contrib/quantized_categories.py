"""Quantized forms of the ops that map categories."""

from __future__ import annotations

from typing import Any

import numpy as np

from fhe_core import QuantizedArray, QuantizedOp
from fhe_ops_contrib import categories

#: Numbers that are whole in the model may be off by a rounding of their scale.
_DECIMALS = 6


class OfNumbers(QuantizedOp):
    """A function of each element that is a number."""

    def can_fuse(self) -> bool:
        return True

    def reads_exactly(self, index: int) -> bool:
        return True

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        (x,) = q_inputs
        return self.quantized(self.mapped(_exact(x.values), **attrs))

    def mapped(self, x: Any, **attrs: Any) -> Any:
        """The real results."""
        return self.call_impl(x, **attrs)


class QuantizedLabelEncoder(OfNumbers):
    """LabelEncoder of numbers: before encryption, after decryption, or part of a table look-up."""

    _impl_for_op_named = "LabelEncoder"

    def told_apart(self, index: int) -> Any:
        return _numbers(self.attrs, "keys_floats", "keys_int64s", "keys_tensor")


class QuantizedCategoryMapper(OfNumbers):
    """CategoryMapper of numbers, likewise."""

    _impl_for_op_named = "CategoryMapper"

    def told_apart(self, index: int) -> Any:
        return _numbers(self.attrs, "cats_int64s")


class QuantizedOneHotEncoder(OfNumbers):
    """OneHotEncoder: before encryption, or one look-up an element and category.

    With ``zeros=0`` ONNX wants an error for what is no category; where nobody sees the element it gives
    zeros all the same.
    """

    _impl_for_op_named = "OneHotEncoder"

    def told_apart(self, index: int) -> Any:
        return _numbers(self.attrs, "cats_int64s")

    def mapped(self, x: Any, **attrs: Any) -> Any:
        cats = categories.categories(x, attrs["cats_int64s"], attrs["cats_strings"])
        # Step by step, not as one call: it adds a dimension, which look-ups are moved around.
        return categories.one_hot(x, cats)


def _numbers(attributes: dict[str, Any], *names: str) -> Any:
    """The first of some attributes that holds numbers, the finite ones; None where none does."""
    for name in names:
        given = np.asarray(attributes.get(name, ()))
        if given.size and given.dtype.kind in "fiu":
            return given[np.isfinite(given)]
    return None


def _exact(values: Any) -> Any:
    return np.round(values, _DECIMALS) if values.dtype.kind == "f" else values


CLASSES: tuple[type[QuantizedOp], ...] = (
    QuantizedLabelEncoder,
    QuantizedCategoryMapper,
    QuantizedOneHotEncoder,
)
