"""Operators of ``ai.onnx.ml`` and of QONNX: NumPy implementations and quantized operators."""

from __future__ import annotations

from typing import Any

import fhe_core

__all__ = ["fhe_register_ops"]


@fhe_core.hookimpl
def fhe_register_ops(registry: Any) -> None:
    """Register every implementation, and every quantized class."""
    from fhe_ops_contrib import linear, preprocessing, qonnx, quantized, quantized_qonnx
    from fhe_ops_contrib._checks import DOMAIN

    for module in (preprocessing, linear):
        for op_type, since_version, function in module.IMPLEMENTATIONS:
            registry.impl(op_type, function, domain=DOMAIN, since_version=since_version)
    for operator in quantized.CLASSES:
        registry.quantized(operator, domain=DOMAIN)
    for domain in qonnx.DOMAINS:
        for op_type, since_version, function in qonnx.IMPLEMENTATIONS:
            registry.impl(op_type, function, domain=domain, since_version=since_version)
        for operator in quantized_qonnx.CLASSES:
            registry.quantized(operator, domain=domain)
