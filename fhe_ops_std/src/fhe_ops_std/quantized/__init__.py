"""Quantized forms of the operators, grouped as their NumPy implementations are."""

from __future__ import annotations

from fhe_core import QuantizedOp
from fhe_ops_std.quantized import (
    arithmetic,
    bits,
    einsum,
    extrema,
    fixed,
    integer_linear,
    layout,
    linear,
    logic,
    normalization,
    norms,
    pooling,
    qlinear,
    quantizing,
    rearranging,
    reduction,
    resampling,
    transposed,
    univariate,
)

CLASSES: tuple[type[QuantizedOp], ...] = (
    *univariate.CLASSES,
    *arithmetic.CLASSES,
    *logic.CLASSES,
    *linear.CLASSES,
    *pooling.CLASSES,
    *reduction.CLASSES,
    *extrema.CLASSES,
    *normalization.CLASSES,
    *norms.CLASSES,
    *layout.CLASSES,
    *rearranging.CLASSES,
    *fixed.CLASSES,
    *resampling.CLASSES,
    *transposed.CLASSES,
    *einsum.CLASSES,
    *integer_linear.CLASSES,
    *quantizing.CLASSES,
    *qlinear.CLASSES,
    *bits.CLASSES,
)
