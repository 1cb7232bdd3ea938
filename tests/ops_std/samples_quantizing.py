"""Samples for the conformance kit: models that hold integers with a scale, and bits.

Integers are such as two bits hold, which is the least that the kit tries: with fewer bits than the integers
have, an operator on bits computes something else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from fhe_core.testing import Sample

from tests.ops_std.conformance_samples import ROWS, Named, batch, normal, of


def whole(*shape: int, low: int = 0, high: int = 4, dtype: Any = np.int64, seed: int = 0) -> Any:
    """Seeded integers from ``low`` to below ``high``."""
    return np.random.default_rng(seed).integers(low, high, shape).astype(dtype)


def quantizing() -> Named:
    x = batch(5)
    scale, zero = np.float32(0.25), np.int8(3)
    yield "QuantizeLinear", of(x, scale, zero, name="int8")
    yield "QuantizeLinear", of(x, scale, name="uint8 by default")
    yield "QuantizeLinear", of(x, abs(normal(5)) + 1, np.zeros(5, np.int8), name="channels")
    yield "QuantizeLinear", of(x, scale, np.uint8(7), name="opset 10", opset=10)
    q = whole(ROWS, 5, dtype=np.uint8)
    yield "DequantizeLinear", of(q, scale, np.uint8(2), name="uint8")
    yield "DequantizeLinear", of(q, scale, name="without a zero point")
    yield "DequantizeLinear", of(q, abs(normal(5)), np.zeros(5, np.uint8), name="channels")
    signed = whole(ROWS, 5, low=-2, high=2, dtype=np.int8)
    yield "DequantizeLinear", of(signed, scale, np.int8(-1), name="opset 10", opset=10)


def qlinear() -> Named:
    one, eighth = np.float32(1), np.float32(0.125)
    a, b = whole(ROWS, 5, dtype=np.uint8), whole(5, 3, low=-7, high=8, dtype=np.int8)
    ends = np.float32(0.5), np.uint8(100)
    yield "QLinearMatMul", of(a, one, np.uint8(1), b, one, np.int8(0), *ends, name="matrix")
    columns = np.array([0.5, 0.25, 1], np.float32), np.array([1, -2, 0], np.int8)
    yield "QLinearMatMul", of(a, one, np.uint8(0), b, *columns, *ends, name="columns")
    left = Sample(
        whole(3, 5, low=-7, high=8, dtype=np.int8),
        np.array([1, 0.5, 0.25], np.float32),
        np.array([0, 1, 2], np.int8),
        whole(ROWS, 5, 2, dtype=np.uint8),
        one,
        np.uint8(1),
        *ends,
        constants=[0, 1, 2, 4, 5, 6, 7],
        name="constant first, rows",
    )
    yield "QLinearMatMul", left
    x, w = whole(ROWS, 4, 5, 5, dtype=np.uint8), whole(6, 2, 3, 3, low=-7, high=8, dtype=np.int8)
    maps = np.full(6, 0.125, np.float32), np.zeros(6, np.int8)
    bias = whole(6, low=-50, high=50, dtype=np.int32)
    given = {"group": 2, "pads": (1, 0, 2, 1), "strides": (2, 1)}
    zero = np.uint8(2)
    yield "QLinearConv", of(x, one, zero, w, *maps, *ends, bias, name="groups, pads", **given)
    kernel = whole(3, 4, 2, 2, low=-7, high=8, dtype=np.int8)
    first = (x, one, zero, kernel, eighth, np.int8(1), *ends)
    yield "QLinearConv", of(*first, name="plain")
    yield (
        "QLinearConv",
        of(*first, name="SAME_UPPER, dilation", auto_pad="SAME_UPPER", dilations=(2, 2)),
    )


def bits() -> Named:
    a, b = whole(ROWS, 5), whole(ROWS, 5, seed=1)
    for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor"):
        yield op, of(a, whole(5, seed=2), name="a constant")
        yield op, Sample(np.int64(2), a, constants=[0], name="to a constant")
        yield op, Sample(a, b, name="encrypted")
        yield op, Sample(a - 2, b - 2, name="encrypted, with a sign")
    yield "BitwiseNot", of(a, name="int64")
    yield "BitwiseNot", of(a.astype(np.uint8), name="uint8")
    small = a.astype(np.uint8)
    for direction in ("LEFT", "RIGHT"):
        yield "BitShift", of(small, np.uint8(1), name=direction.lower(), direction=direction)
    yield "BitShift", of(small, whole(5, dtype=np.uint8), name="places", direction="LEFT")


SAMPLES: Mapping[str, Sequence[Sample]] = {
    name: [sample for op, sample in samples if op == name]
    for samples in [[pair for group in (quantizing, qlinear, bits) for pair in group()]]
    for name in dict.fromkeys(op for op, _ in samples)
}
