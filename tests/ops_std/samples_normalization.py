"""Samples for the conformance kit: reductions, extrema, normalizations and norms on the server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from fhe_core.testing import Sample

_ROWS = 16


def _batch(*shape: int, seed: int = 0) -> Any:
    values = np.random.default_rng(seed).standard_normal((_ROWS, *shape))
    return values.astype(np.float32)


def _axes(*axes: int) -> Any:
    return np.array(axes, np.int64)


def _of(
    x: Any,
    *constants: Any,
    name: str,
    opset: int | None = None,
    outputs: int = 1,
    **attributes: Any,
) -> Sample:
    places = range(1, len(constants) + 1)
    return Sample(
        x,
        *constants,
        constants=places,
        attributes=attributes,
        name=name,
        opset=opset,
        outputs=outputs,
    )


def _reductions() -> Iterator[tuple[str, Sample]]:
    x, short = _batch(3, 4), _batch(2, 3)
    for op in ("ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare"):
        yield op, _of(x, _axes(2), name="last axis")
        yield op, _of(x, _axes(1, -1), name="two axes", keepdims=0)
        yield op, _of(x, name="opset 11", opset=11, axes=(1,))
    for op in ("ReduceL1", "ReduceL2", "ReduceSumSquare"):
        yield op, _of(x, name="no axes", noop_with_empty_axes=1)
    positive = abs(x) + 0.5
    yield "ReduceLogSum", _of(positive, _axes(2), name="positive")
    yield "ReduceLogSum", _of(positive, name="opset 11", opset=11, axes=(1, 2), keepdims=0)
    yield "ReduceLogSumExp", _of(x, _axes(2), name="last axis")
    yield "ReduceLogSumExp", _of(x, name="opset 11", opset=11, axes=(1, 2), keepdims=0)
    yield "ReduceProd", _of(short, _axes(2), name="three")
    yield "ReduceProd", _of(x, _axes(-1), name="four", keepdims=0)
    yield "ReduceProd", _of(short, name="opset 11", opset=11, axes=(1,))


def _extrema() -> Iterator[tuple[str, Sample]]:
    x, ties = _batch(4, 5), np.rint(_batch(7))
    for op in ("ArgMax", "ArgMin"):
        yield op, _of(x, name="last axis", axis=-1)
        yield op, _of(x, name="without the axis", axis=1, keepdims=0)
        yield op, _of(ties, name="ties", axis=1)
        yield op, _of(ties, name="ties, the last one", axis=1, select_last_index=1)
        yield op, _of(x, name="opset 11", opset=11, axis=1)
    for op in ("Hardmax", "Softmax", "LogSoftmax"):
        yield op, _of(x, name="last axis")
        yield op, _of(x, name="another axis", axis=1)
        yield op, _of(x, name="opset 11, coerced", opset=11)
        yield op, _of(x, name="opset 11, last axis", opset=11, axis=2)


def _normalizations() -> Iterator[tuple[str, Sample]]:
    x, long, image = _batch(3, 4), _batch(40), _batch(4, 3, 3)
    scale, offset = np.linspace(0.5, 1.5, 4, dtype=np.float32), np.array([0, 1, -1, 2], np.float32)
    yield "LayerNormalization", _of(x, scale, offset, name="last axis")
    yield "LayerNormalization", _of(x, scale, name="without offset", opset=17, epsilon=0.01)
    # Where a sample hardly varies, 1 / deviation is steeper than any rounding of a sum can follow.
    all_outputs = _of(x, scale, offset, name="all outputs", outputs=3, epsilon=0.1)
    yield "LayerNormalization", all_outputs
    both = np.ones((3, 4), np.float32)
    yield "LayerNormalization", _of(x, both, name="two axes", axis=1)
    yield "LayerNormalization", _of(long, np.float32(2) * np.ones(40, np.float32), name="many")
    yield "RMSNormalization", _of(x, scale, name="last axis")
    yield "RMSNormalization", _of(x, both, name="two axes", axis=-2, epsilon=0.1)
    yield "InstanceNormalization", _of(image, scale, offset, name="image")
    yield "InstanceNormalization", _of(_batch(4, 5), scale, offset, name="1-D")
    yield "GroupNormalization", _of(image, scale, offset, name="two groups", num_groups=2)
    yield "MeanVarianceNormalization", _of(image, name="of a sample", axes=(2, 3))
    yield "MeanVarianceNormalization", _of(image, name="channels", axes=(-3,))


def _norms() -> Iterator[tuple[str, Sample]]:
    x, image = _batch(3, 4), _batch(3, 4, 4)
    yield "LpNormalization", _of(x, name="p = 2")
    yield "LpNormalization", _of(x, name="p = 2, channels", axis=1)
    # onnx.reference adds the elements up, and not their magnitudes: here these are the same.
    yield "LpNormalization", _of(abs(x), name="p = 1", p=1)
    yield "LpNormalization", _of(abs(x), name="p = 1, channels", p=1, axis=1)
    window: dict[str, Any] = {"kernel_shape": (2, 2)}
    yield "LpPool", _of(image, name="2x2", strides=(2, 2), **window)
    yield "LpPool", _of(image, name="p = 1, pads", p=1, pads=(1, 0, 0, 1), **window)
    yield "LpPool", _of(image, name="p = 3, dilations", p=3, dilations=(2, 1), **window)
    yield "LpPool", _of(image, name="opset 11", opset=11, **window)
    yield "LpPool", _of(_batch(3, 6), name="1-D", kernel_shape=(3,))
    yield "LRN", _of(image, name="3 channels", size=3, alpha=0.5)
    yield "LRN", _of(_batch(5, 2), name="2 channels", size=2, alpha=2.0, beta=0.5, bias=0.5)
    yield "LRN", _of(x, name="1 channel", size=1, alpha=1.0)


def _univariate() -> Iterator[tuple[str, Sample]]:
    yield "Shrink", _of(_batch(5), name="soft", bias=0.5)
    yield "Shrink", _of(_batch(5), name="hard", lambd=0.8)


def _collected() -> Mapping[str, Sequence[Sample]]:
    found: dict[str, list[Sample]] = {}
    for group in (_reductions, _extrema, _normalizations, _norms, _univariate):
        for op, sample in group():
            found.setdefault(op, []).append(sample)
    return found


SAMPLES = _collected()
