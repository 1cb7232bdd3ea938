"""Operators of ``ai.onnx.ml`` and of other domains: NumPy implementations and quantized operators."""

from __future__ import annotations

from typing import Any

import fhe_core

__all__ = ["fhe_register_ops", "fhe_register_passes"]


@fhe_core.hookimpl
def fhe_register_ops(registry: Any) -> None:
    """Register every implementation, and every quantized class."""
    from fhe_ops_contrib import (
        categories,
        dictionaries,
        distances,
        linear,
        machine_ops,
        polynomials,
        preprocessing,
        qonnx,
        quantized,
        quantized_categories,
        quantized_distances,
        quantized_qonnx,
        quantized_svm,
        quantized_trees,
        svm,
        trees,
    )
    from fhe_ops_contrib._checks import DOMAIN, OWN_DOMAIN

    implementations = {
        DOMAIN: (preprocessing, categories, dictionaries, linear, svm, trees),
        distances.DOMAIN: (distances,),
        OWN_DOMAIN: (machine_ops, polynomials),
        **dict.fromkeys(qonnx.DOMAINS, (qonnx,)),
    }
    for domain, modules in implementations.items():
        for module in modules:
            for op_type, since_version, function in module.IMPLEMENTATIONS:
                registry.impl(op_type, function, domain=domain, since_version=since_version)
    classes = {
        DOMAIN: (
            *quantized.CLASSES,
            *quantized_categories.CLASSES,
            *quantized_svm.CLASSES,
            *quantized_trees.CLASSES,
        ),
        distances.DOMAIN: quantized_distances.CLASSES,
        OWN_DOMAIN: (quantized.QuantizedMonomials, *quantized_svm.OWN_CLASSES),
        **dict.fromkeys(qonnx.DOMAINS, quantized_qonnx.CLASSES),
    }
    for domain, operators in classes.items():
        for operator in operators:
            registry.quantized(operator, domain=domain)


@fhe_core.hookimpl
def fhe_register_passes(passes: Any) -> None:
    """Register the rewritings of models on their way to encryption."""
    from fhe_ops_contrib.equalizing import equalize_coefficients
    from fhe_ops_contrib.neighbour_passes import find_distances, find_neighbours
    from fhe_ops_contrib.passes import join_products, split_machines
    from fhe_ops_contrib.polynomials import find_monomials

    rewritings = (find_monomials, join_products, split_machines, find_distances, find_neighbours)
    for rewriting in rewritings:
        passes.add(rewriting)
    passes.add(equalize_coefficients, last=True, samples=True)
