"""The ends of tensors, beyond which their values make no difference to the model's results.

A mask of -infinity, or of some very low number, chooses elements: what it adds or puts in is no number to be
quantized. An op such as a softmax says from where on it ignores its input, a join what follows from that for
its operands; so ranges come from what is not masked, and masks saturate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.errors import CompilationError, FheError
from fhe_core.graph.runner import NumpyModule
from fhe_core.quantization.calibration import BATCH_SIZE, TensorStats, static_batch
from fhe_core.quantization.op import QuantizedOp
from fhe_core.quantization.placement import PlacedOp, Placement

Array = NDArray[Any]
Ends = tuple[float, float]

#: Nothing is ignored.
EVERYTHING: Ends = (-np.inf, np.inf)
#: Ranges are cut where they are this many times as wide as what matters: a few values of a tail may stay.
_WIDER = 4
#: Numbers in single precision that a range has to have: those of twelve bits.
_STEPS = 2**12


def ends_that_matter(
    placement: Placement,
    net: NumpyModule,
    data: Mapping[str, Array],
    stats: Mapping[str, TensorStats],
) -> dict[str, Ends]:
    """The ends of the tensors for which some op has said more than `EVERYTHING`.

    Args:
        data: samples by input name, of which the first are looked at.
    """
    reaching = [placed for placed in placement.ops if _says_its_reach(placed, placement)]
    if not reaching and not any(placed.op.saturates_inputs for placed in placement.ops):
        return {}
    names = sorted({placed.variable[0] for placed in reaching})
    count = static_batch(placement.graph) or BATCH_SIZE
    few = {name: array[:count] for name, array in data.items()}
    values = net.run(few, fetch=names) if names else {}
    outputs = set(placement.graph.output_names)
    ends: dict[str, Ends] = {}

    def said(placed: PlacedOp, index: int) -> Ends:
        if placed in reaching:
            return _reach(placed, values[placed.variable[0]])
        result = _union(ends.get(name, EVERYTHING) for name in placed.node.writes)
        if placed.op.saturates_inputs and placed.node.outputs[0] in stats:
            seen = stats[placed.node.outputs[0]]
            result = max(result[0], seen.minimum), min(result[1], seen.maximum)
        if result == EVERYTHING:
            return EVERYTHING
        return placed.op.input_ends(index, result, _ranges(placed, stats))

    for placed in reversed(placement.ops):
        for name in placed.node.writes:
            _reader_by_reader(name, placement, said, ends, outputs)
    for name in placement.graph.input_names:
        _reader_by_reader(name, placement, said, ends, outputs)
    return ends


def _reach(placed: PlacedOp, x: Array) -> Ends:
    try:
        return placed.op.reach(x)
    except FheError:
        return EVERYTHING  # what it refuses there it refuses when it is recorded, too
    except Exception as error:
        raise CompilationError(
            f"{type(placed.op).__name__}.reach failed: {type(error).__name__}: {error}",
            where=placed.op.where,
            fix=placed.fix,
        ) from error


def _reader_by_reader(
    name: str,
    placement: Placement,
    said: Callable[[PlacedOp, int], Ends],
    ends: dict[str, Ends],
    outputs: set[str],
) -> None:
    uses = placement.consumers.get(name, ())
    if name in outputs or not uses:
        return
    found = _union(said(placed, index) for placed, index in uses)
    if found != EVERYTHING and found[0] <= found[1]:
        ends[name] = found


def _union(ends: Iterable[Ends]) -> Ends:
    lows, highs = zip(*ends, strict=True)
    return min(lows), max(highs)


def _says_its_reach(placed: PlacedOp, placement: Placement) -> bool:
    """Whether an op knows from where on it ignores its input. What becomes part of a longer function does not:
    that function's results may differ all the same."""
    if type(placed.op).reach is QuantizedOp.reach or len(placed.variable) != 1:
        return False
    readers = [use for name in placed.node.writes for use, _ in placement.consumers.get(name, ())]
    return not (placed.fused and (not readers or any(reader.is_float for reader in readers)))


def _ranges(placed: PlacedOp, stats: Mapping[str, TensorStats]) -> list[Ends]:
    """The finite ends of each input of an op as it was calibrated, or as it is constant."""
    found = []
    for index, name in enumerate(placed.node.inputs):
        if name in stats:
            found.append((stats[name].minimum, stats[name].maximum))
            continue
        array = np.asarray(placed.op.constant(index))
        known = array[np.isfinite(array)] if array.dtype.kind in "fiu" else np.zeros(0)
        found.append((float(known.min()), float(known.max())) if known.size else EVERYTHING)
    return found


def within(stats: TensorStats, ends: Ends) -> TensorStats:
    """Statistics of a tensor that saturates at ``ends``, where that makes a difference."""
    low, high = max(stats.minimum, ends[0]), min(stats.maximum, ends[1])
    least = ends[0] if stats.infinite[0] else low
    most = ends[1] if stats.infinite[1] else high
    if not (np.isfinite(least) and np.isfinite(most)) or not _is_told_apart(least, most):
        return stats
    if not any(stats.infinite) and stats.maximum - stats.minimum <= _WIDER * (most - least):
        return stats
    return replace(
        stats,
        minimum=float(least),
        maximum=float(most),
        # Of infinities the sample has none: let an eighth of it be at the ends.
        sample=np.append(
            np.clip(stats.sample, least, most),
            np.repeat([least, most], np.multiply(stats.infinite, len(stats.sample) // 8 + 1)),
        ),
        infinite=(False, False),
    )


def _is_told_apart(least: float, most: float) -> bool:
    """Whether single precision has steps enough between two ends."""
    return bool(most - least >= _STEPS * np.finfo(np.float32).eps * max(abs(least), abs(most)))
