"""Ops that work on integers where they could have been part of a look-up.

``can_fuse`` may say False by mistake, or because nobody wrote it. That computes the right results at a needless
cost, so it is reported and not refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.errors import FheError
from fhe_core.graph.runner import NumpyModule
from fhe_core.graph.steps import Step
from fhe_core.quantization.calibration import static_batch
from fhe_core.quantization.placement import PlacedOp, Placement

Array = NDArray[Any]

#: Samples on either side of an exchange, where the batch size is free.
_SAMPLES = 2
_EXCHANGES = 4


def unfused(
    net: NumpyModule, placement: Placement, data: Mapping[str, Array], seed: int
) -> list[str]:
    """A sentence about each op that could have been fused.

    Tried on the float model: where random elements of one tensor are exchanged for those of other samples,
    the same elements of a function of each element change places, and no others.

    Args:
        data: samples by input name, at least two; of fewer nothing is known.
    """
    count = static_batch(placement.graph) or _SAMPLES
    if len(next(iter(data.values()))) < 2 * count:
        return []
    steps = {step.node.name: step for step in net.steps}
    tried = [op for op in placement.ops if _is_doubtful(op)]
    names = {name for op in tried for name in (*op.variable, *op.node.writes, *op.sources)}
    if not tried:
        return []
    try:
        first, second = (
            net.run({name: array[part] for name, array in data.items()}, fetch=sorted(names))
            for part in (slice(count), slice(count, 2 * count))
        )
    except FheError:
        return []  # constants that are made for another batch
    rng = np.random.default_rng(seed)
    return [
        _said(op)
        for op in tried
        if _exchanges(op, steps[op.node.name], placement, first, second, rng)
    ]


def _said(op: PlacedOp) -> str:
    (source,) = op.sources
    return (
        f"{op.node.name!r} ({op.node.op_type}, pack {op.pack!r}) works on integers, and is a function of "
        f"each element of {source!r} alone: if its can_fuse() returned True here, it would be part of a "
        "look-up"
    )


def _is_doubtful(op: PlacedOp) -> bool:
    """Whether an op that computes on the integers of one tensor was not fused."""
    return not op.is_float and len(op.sources) == 1


def _exchanges(
    op: PlacedOp,
    step: Step,
    placement: Placement,
    first: Mapping[str, Array],
    second: Mapping[str, Array],
    rng: np.random.Generator,
) -> bool:
    """Whether exchanging elements of what the op is computed from exchanges those of its results."""
    (source,) = op.sources
    shape = np.shape(first[source])
    writes = op.node.writes
    if len(shape) < 2 or np.prod(shape[1:]) < 2 or any(np.shape(first[n]) != shape for n in writes):
        return False
    if all(np.array_equal(first[n], second[n]) or _is_moved(first, source, n) for n in writes):
        return False
    for _ in range(_EXCHANGES):
        taken = rng.random(shape) < 0.5
        try:
            mixed = {
                name: np.where(np.broadcast_to(taken, first[name].shape), second[name], first[name])
                for name in op.variable
            }
            results = _run(op, step, placement, mixed)
        except (ValueError, FheError):
            return False  # of other shapes: no function of each element
        for name, result in zip(op.node.outputs, results, strict=False):
            if name and not _close(result, np.where(taken, second[name], first[name])):
                return False
    return True


def _is_moved(values: Mapping[str, Array], source: str, name: str) -> bool:
    """Whether elements stay what they are, which costs nothing on integers."""
    return np.array_equal(values[source], values[name])


def _run(
    op: PlacedOp, step: Step, placement: Placement, given: Mapping[str, Array]
) -> tuple[Any, ...]:
    count = len(next(iter(given.values())))
    inputs = [given[n] if n in given else placement.constant(n, count) for n in op.node.inputs]
    with np.errstate(all="ignore"):
        result = step.impl(*inputs, **step.arguments)
    return result if isinstance(result, tuple) else (result,)


def _close(a: Any, b: Array) -> bool:
    a = np.asarray(a)
    if a.shape != b.shape:
        return False
    largest = np.abs(np.where(np.isfinite(b), b, 0)).max(initial=0)
    return bool(np.allclose(a, b, rtol=1e-4, atol=1e-5 * float(largest), equal_nan=True))
