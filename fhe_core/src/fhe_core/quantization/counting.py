"""Tensors that count: floats that are whole numbers for any input, by what the ops say that compute them.

Sums of truth values, places, rounded numbers. They keep the step of one, where they have bits enough, so that
they stay exact, and so does what compares them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from fhe_core.quantization.calibration import TensorStats
from fhe_core.quantization.placement import PlacedOp, Placement


def with_counts(placement: Placement, stats: Mapping[str, TensorStats]) -> dict[str, TensorStats]:
    """The statistics, with the tensors marked that count."""
    whole = {name for name, entry in stats.items() if entry.is_whole or entry.is_truth}
    for placed in placement.ops:
        if placed.op.gives_whole_numbers([_is_whole(placed, i, whole) for i in _inputs(placed)]):
            whole.update(placed.node.writes)
    among = _among_their_like(placement, whole)
    return {
        name: replace(entry, counts=name in among and entry.is_integral)
        for name, entry in stats.items()
    }


def _among_their_like(placement: Placement, whole: set[str]) -> set[str]:
    """Those of ``whole`` that meet nothing but whole numbers on integers.

    Beside what measures they need steps as fine as that, of which one is a multiple.
    """
    outputs = set(placement.graph.output_names)
    found = whole - outputs
    for placed in reversed(placement.ops):
        results, variable = set(placed.node.writes), set(placed.variable)
        shares = placed.op.shares_scale
        if placed.late or placed.early or (placed.fused and not placed.op.keeps_scale):
            continue
        passes_on = (shares or placed.op.keeps_scale) and not results <= found
        if not results <= whole or passes_on or (shares and not variable <= whole):
            found -= variable
    return found


def _inputs(placed: PlacedOp) -> range:
    return range(len(placed.node.inputs))


def _is_whole(placed: PlacedOp, index: int, whole: set[str]) -> bool:
    """Whether an input consists of whole numbers; one that is left out does."""
    name = placed.node.inputs[index]
    array = placed.op.constant(index) if name else 0
    if array is None:
        return name in whole
    values = np.asarray(array)
    return values.dtype.kind in "biu" or (
        values.dtype.kind == "f"
        and bool(np.isfinite(values).all() and np.array_equal(values, np.rint(values)))
    )
