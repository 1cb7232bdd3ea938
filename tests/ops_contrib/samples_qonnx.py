"""Samples of the operators of QONNX for the conformance kit, and what they are to give.

The judge is the set of numbers that an operator may give: of these, the nearest. Samples stay away from the
middle between two of them, so that no rule for ties matters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from fhe_core.testing import Sample

DOMAINS = ("qonnx.custom_op.general", "onnx.brevitas")


def nearest(x: Any, grid: Any) -> Any:
    """The number of a grid that is nearest to each element."""
    return grid[np.abs(x[..., None].astype(np.float64) - grid).argmin(axis=-1)].astype(np.float32)


def between(scale: float, low: int, high: int, *, rows: int = 24, seed: int = 0) -> Any:
    """Seeded values around scale * (low .. high), at most 0.3 steps from one of these, and beyond."""
    rng = np.random.default_rng(seed)
    steps = rng.integers(low - 3, high + 4, (rows, 5)) + rng.uniform(-0.3, 0.3, (rows, 5))
    return (scale * steps).astype(np.float32)


def number(value: float) -> Any:
    return np.float32(value)


def quant() -> list[Sample]:
    found = []
    for name, bits, zero, limits, attributes in (
        ("signed", 4, 0, (-8, 7), {}),
        ("narrow", 4, 0, (-7, 7), {"narrow": 1}),
        ("unsigned", 3, 0, (0, 7), {"signed": 0}),
        ("unsigned, narrow", 3, 0, (0, 6), {"signed": 0, "narrow": 1}),
        ("zero point", 4, 5, (0, 15), {"signed": 0, "rounding_mode": "round"}),
    ):
        x = between(0.25, limits[0] - zero, limits[1] - zero)
        grid = 0.25 * (np.arange(limits[0], limits[1] + 1) - zero)
        inputs = x, number(0.25), number(zero), number(bits)
        found.append(
            Sample(
                *inputs,
                constants=[1, 2, 3],
                attributes=attributes,
                expected=nearest(x, grid),
                name=name,
            )
        )
    x, scales = between(0.5, -2, 1), np.array([[0.5, 1, 2, 0.25, 0.5]], np.float32)
    columns = [nearest(x[:, i], s * np.arange(-2, 2)) for i, s in enumerate(scales[0])]
    keep = np.isin(np.arange(5), (0, 4))  # where the others' steps have no ties
    channels = x[:, keep], scales[:, keep], number(0), number(2)
    expected = np.stack(columns, axis=1)[:, keep]
    found.append(Sample(*channels, constants=[1, 2, 3], expected=expected, name="channels"))
    return found


def bipolar() -> list[Sample]:
    x = between(0.5, -2, 2)
    x = np.where(np.abs(x) < 0.25, np.float32(0.25), x)  # not at the jump
    expected = nearest(x, np.array([-0.5, 0.5]))
    return [Sample(x, number(0.5), constants=[1], expected=expected)]


def trunc() -> list[Sample]:
    x = between(0.25, -32, 31)
    integers = np.rint(x / 0.25).astype(np.int64)
    widths = number(0.25), number(0), number(6)
    first = Sample(
        x,
        *widths,
        number(4),
        constants=[1, 2, 3, 4],
        expected=((integers >> 2) * 0.25).astype(np.float32),
        opset=1,
        name="first version",
    )
    second = Sample(
        x,
        *widths,
        number(1),
        number(4),
        constants=[1, 2, 3, 4, 5],
        expected=np.clip(integers >> 2, -8, 7).astype(np.float32),
        opset=2,
        name="second version",
    )
    return [second, first]


SAMPLES: Mapping[str, Sequence[Sample]] = {
    f"{domain}.{op}": samples
    for domain in DOMAINS
    for op, samples in (
        ("Quant", quant()),
        ("IntQuant", quant()),
        ("BipolarQuant", bipolar()),
        ("Trunc", trunc()),
    )
}
