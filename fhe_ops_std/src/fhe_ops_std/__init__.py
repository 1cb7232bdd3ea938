"""The default ONNX domain: NumPy implementations and quantized operators, grouped by mathematics."""

from __future__ import annotations

from typing import Any

import fhe_core

__all__ = ["fhe_register_ops"]


@fhe_core.hookimpl
def fhe_register_ops(registry: Any) -> None:
    """Register every implementation, and every quantized class."""
    from fhe_ops_std import (
        activations,
        arithmetic,
        conversion,
        indexing,
        layout,
        linear,
        logic,
        normalization,
        pooling,
        quantized,
        reduction,
    )

    for module in (
        activations,
        arithmetic,
        conversion,
        indexing,
        layout,
        linear,
        logic,
        normalization,
        pooling,
        reduction,
    ):
        for op_type, since_version, function in module.IMPLEMENTATIONS:
            registry.impl(op_type, function, since_version=since_version)
    for operator in quantized.CLASSES:
        registry.quantized(operator)
