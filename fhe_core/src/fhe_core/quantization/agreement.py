"""Whether what quantization made of a model still agrees with it, on some of the calibration data."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from fhe_core.errors import WrapAroundWarning
from fhe_core.quantization.calibration import float_values, static_batch
from fhe_core.quantization.module import QuantizedModule

#: Samples that both are run on.
_SAMPLES = 64
#: Share of the answers, or of the variance of numbers, below which a user is told.
_LEAST = 0.8


def disagreements(module: QuantizedModule) -> tuple[str, ...]:
    """A sentence on each output that is far from the float model's, for a module that was just made."""
    evidence = module.evidence
    if evidence is None:
        return ()
    count = len(next(iter(evidence.data.values())))
    batch = static_batch(evidence.graph) or 1
    firsts = np.linspace(0, count // batch - 1, min(count // batch, -(-_SAMPLES // batch)))
    chosen = (firsts.astype(np.intp)[:, None] * batch + np.arange(batch)).reshape(-1)
    data = {name: array[chosen] for name, array in evidence.data.items()}
    names = evidence.graph.output_names
    wanted = float_values(evidence.net, data, names)
    with warnings.catch_warnings():
        # Of the samples that later calls are made with, these say it.
        warnings.simplefilter("ignore", WrapAroundWarning)
        found = module.forward(*data.values())
    outputs = found if isinstance(found, tuple) else (found,)
    return tuple(
        f"on the calibration data, {label!r} {words}: give more bits, scale inputs whose units lie far apart, "
        "or look in the report for the layer whose error is largest"
        for label, name, output in zip(module.output_names, names, outputs, strict=True)
        if (words := _far(output, wanted[name]))
    )


def _far(found: Any, wanted: Any) -> str:
    """How far an output is from what it should be; nothing where it is near, or cannot be compared."""
    if not isinstance(found, np.ndarray) or not isinstance(wanted, np.ndarray):
        return ""
    if found.shape != wanted.shape or not wanted.size or not wanted.ndim:
        return ""
    if wanted.dtype.kind != "f":
        share = float(np.mean(found == wanted))
        return f"equals the float model's for {share:.0%} of the values" if share < _LEAST else ""
    exact = wanted.astype(np.float64)
    spread = np.square(exact - exact.mean(axis=0)).sum()
    # What never varies says nothing, nor does the rounding of floats.
    if not np.isfinite(exact).all() or spread <= 1e-12 * np.square(exact).sum():
        return ""
    r2 = 1 - float(np.square(found.astype(np.float64) - exact).sum() / spread)
    return f"is far from the float model's (R2 = {r2:.2g})" if not r2 >= _LEAST else ""
