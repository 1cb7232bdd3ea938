"""Quantized forms of the operators, grouped as their NumPy implementations are."""

from __future__ import annotations

from fhe_core import QuantizedOp
from fhe_ops_std.quantized import arithmetic, layout, linear, pooling, reduction, univariate

CLASSES: tuple[type[QuantizedOp], ...] = (
    *univariate.CLASSES,
    *arithmetic.CLASSES,
    *linear.CLASSES,
    *pooling.CLASSES,
    *reduction.CLASSES,
    *layout.CLASSES,
)
