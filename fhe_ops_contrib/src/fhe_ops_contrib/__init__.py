"""Operators of ``ai.onnx.ml``: NumPy implementations and quantized operators."""

from __future__ import annotations

from typing import Any

import fhe_core

__all__ = ["fhe_register_ops"]


@fhe_core.hookimpl
def fhe_register_ops(registry: Any) -> None:
    """Register every implementation, and every quantized class."""
    from fhe_ops_contrib import linear, preprocessing, quantized
    from fhe_ops_contrib._checks import DOMAIN

    for module in (preprocessing, linear):
        for op_type, since_version, function in module.IMPLEMENTATIONS:
            registry.impl(op_type, function, domain=DOMAIN, since_version=since_version)
    for operator in quantized.CLASSES:
        registry.quantized(operator, domain=DOMAIN)
