"""The default ONNX domain: NumPy implementations and quantized operators, grouped by mathematics."""

from __future__ import annotations

from typing import Any

import fhe_core

__all__ = ["fhe_register_ops", "fhe_register_passes"]


@fhe_core.hookimpl
def fhe_register_ops(registry: Any) -> None:
    """Register every implementation, and every quantized class."""
    from fhe_ops_std import (
        activations,
        arithmetic,
        attention,
        bits,
        control,
        conversion,
        cumulative,
        detection,
        einsum,
        indexing,
        integer_linear,
        layout,
        linear,
        linear_attention,
        logic,
        ngrams,
        normalization,
        pooling,
        quantized,
        quantizing,
        recurrent,
        reduction,
        regions,
        resizing,
        sampling,
        scattering,
        signal,
        sorting,
        transposed,
    )

    for module in (
        activations,
        arithmetic,
        attention,
        bits,
        control,
        conversion,
        cumulative,
        detection,
        einsum,
        indexing,
        integer_linear,
        layout,
        linear,
        linear_attention,
        logic,
        ngrams,
        normalization,
        pooling,
        quantizing,
        recurrent,
        reduction,
        regions,
        resizing,
        sampling,
        scattering,
        signal,
        sorting,
        transposed,
    ):
        for op_type, since_version, function in module.IMPLEMENTATIONS:
            registry.impl(op_type, function, since_version=since_version)
    for operator in quantized.CLASSES:
        registry.quantized(operator)


@fhe_core.hookimpl
def fhe_register_passes(passes: Any) -> None:
    """Register every graph pass, reduction and alternative."""
    from fhe_ops_std.composing import composed
    from fhe_ops_std.equalizing import equalize_features
    from fhe_ops_std.passes import PASSES
    from fhe_ops_std.reductions import joined_channels
    from fhe_ops_std.splitting import split_activations
    from fhe_ops_std.unrolling import unroll

    for each in PASSES:
        passes.add(each)
    passes.add(equalize_features, last=True, samples=True)
    # Other packs may know what a loop computes.
    passes.add(unroll, last=True)
    passes.add_reduction(joined_channels)
    passes.add_alternative(composed)
    passes.add_alternative(split_activations)
