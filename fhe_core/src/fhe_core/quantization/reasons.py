"""Why an op that runs in float alone can have no quantized form, where its function shows it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fhe_core.program.nodes import BATCH, Shape, with_batch
from fhe_core.quantization.placement import PlacedOp

_SAMPLES = 3
_SHAPE = "the shape of its result depends on the data, and nobody knows that while it is encrypted"
_SAMPLES_MIXED = "its result for one sample depends on the other samples of a batch"


def impossible_because(placed: PlacedOp, shapes: Mapping[str, Shape]) -> str:
    """A reason why no pack could have a quantized form of the op, or "".

    Args:
        shapes: of its inputs that are not constant, by name.
    """
    if "seed" in placed.op.attrs:
        return ""  # it draws random numbers
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return _reason(placed, shapes)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001  # of any pack, on values that it may not be made for
        return ""


def _reason(placed: PlacedOp, shapes: Mapping[str, Shape]) -> str:
    rng = np.random.default_rng(0)
    drawn = {
        name: rng.standard_normal(with_batch(shape, _SAMPLES)).astype(np.float32)
        for name, shape in shapes.items()
    }
    results = _run(placed, drawn)
    others = _run(placed, {name: np.zeros_like(array) for name, array in drawn.items()})
    if [y.shape for y in results] != [y.shape for y in others]:
        return _SHAPE
    first = _run(placed, {name: _first(array, shapes[name]) for name, array in drawn.items()}, 1)
    return "" if all(map(_starts_with, results, first)) else _SAMPLES_MIXED


def _first(array: Any, shape: Shape) -> Any:
    """The first sample alone."""
    return array[:1] if shape[:1] == (BATCH,) else array


def _starts_with(several: Any, first: Any) -> bool:
    """Whether the result for a batch begins with that for its first sample, rounding aside."""
    same = several[:1] if several.ndim else several
    return same.shape == first.shape and np.allclose(same, first, rtol=1e-4, equal_nan=True)


def _run(placed: PlacedOp, arrays: Mapping[str, Any], samples: int = _SAMPLES) -> Sequence[Any]:
    op = placed.op
    inputs = [
        arrays[name] if name in arrays else op.constant_at(i, samples)
        for i, name in enumerate(placed.node.inputs)
    ]
    result = op.call_impl(*inputs, **op.attrs)
    return [np.asarray(y) for y in (result if isinstance(result, tuple) else (result,))]
