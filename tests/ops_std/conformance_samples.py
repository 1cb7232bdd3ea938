"""Samples of the quantized operators for the conformance kit, where ONNX's own cases leave out a way in
which an op is used: all encrypted, an older opset, an attribute.

The first axis of what is encrypted is the batch.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fhe_core.testing import Sample

Named = Iterator[tuple[str, Sample]]

ROWS = 16
IMAGE = (4, 5, 5)


def samples() -> Mapping[str, Sequence[Sample]]:
    """Samples by operator: those below, and ``SAMPLES`` of each family in a file of its own."""
    found: dict[str, list[Sample]] = {}
    for group in (linear, arithmetic, logic, pooling, layout, reduction, univariate):
        for op, sample in group():
            found.setdefault(op, []).append(sample)
    for path in sorted(Path(__file__).parent.glob("samples_*.py")):
        family = importlib.import_module(f"tests.ops_std.{path.stem}")
        for op, more in family.SAMPLES.items():
            found.setdefault(op, []).extend(more)
    return found


def batch(*shape: int, seed: int = 0) -> Any:
    """Seeded rows of normally distributed values."""
    return normal(ROWS, *shape, seed=seed)


def normal(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def ints(*values: int) -> Any:
    return np.array(values, np.int64)


def of(
    x: Any, *constants: Any, name: str = "", opset: int | None = None, **attributes: Any
) -> Sample:
    """The first input encrypted, the others constant; None for one that is left out."""
    places = [i for i, value in enumerate(constants, 1) if value is not None]
    return Sample(x, *constants, constants=places, attributes=attributes, name=name, opset=opset)


def linear() -> Named:
    x, w, b = batch(5), normal(5, 3, seed=1), normal(3, seed=2)
    yield "Gemm", of(x, w, b, name="bias")
    yield "Gemm", of(x, w, b, name="opset 9", opset=9)
    yield "Gemm", of(x, w, name="without C")
    yield "Gemm", of(x, w, normal(1), name="scalar C")
    yield "Gemm", of(x, w.T.copy(), b, name="alpha beta transB", transB=1, alpha=0.5, beta=2.0)
    yield "MatMul", of(x, w, name="matrix")
    yield "MatMul", of(batch(2, 5), w, name="of rows")
    yield "MatMul", of(batch(2, 4, 5), normal(2, 5, 3), name="batched")
    yield "MatMul", of(batch(2, 5), normal(5), name="vector")
    constant_first = Sample(normal(3, 5), batch(5, 2), constants=[0], name="constant first")
    yield "MatMul", constant_first
    yield "MatMul", Sample(batch(3, 3), batch(3, 3, seed=1), name="encrypted")
    kernel, bias = normal(3, 4, 3, 3, seed=1), normal(3, seed=2)
    image = batch(*IMAGE)
    yield "Conv", of(image, kernel, bias, name="plain")
    row = batch(3, 9)
    yield "Conv", of(row, normal(4, 3, 3), normal(4), name="1-D", pads=(2, 1), strides=(2,))
    for name, shape, attributes in (
        ("asymmetric pads", (3, 4, 3, 3), {"pads": (1, 0, 2, 1), "kernel_shape": (3, 3)}),
        ("groups", (6, 2, 3, 3), {"group": 2, "pads": (1, 1, 1, 1)}),
        ("depthwise", (4, 1, 3, 3), {"group": 4, "pads": (1, 1, 1, 1), "strides": (2, 2)}),
        ("depthwise times two", (8, 1, 3, 3), {"group": 4}),
        ("dilation", (3, 4, 3, 3), {"dilations": (2, 1)}),
        ("SAME_UPPER", (3, 4, 3, 3), {"auto_pad": "SAME_UPPER", "strides": (2, 2)}),
        ("SAME_LOWER", (3, 4, 3, 3), {"auto_pad": "SAME_LOWER", "strides": (2, 2)}),
    ):
        weights, offsets = normal(*shape, seed=1), normal(shape[0], seed=2)
        yield "Conv", of(image, weights, offsets, name=name, **attributes)


def arithmetic() -> Named:
    x, z, w = batch(5), batch(5, seed=1), normal(5, seed=2)
    for op in ("Add", "Sub", "Mul", "Div", "Max", "Min"):
        right = abs(z) + 1 if op == "Div" else z
        left = abs(x) + 1 if op == "Div" else x
        yield op, of(x, w, name="a constant")
        yield op, of(x, np.float32(1.5), name="a scalar")
        yield op, Sample(w, left, constants=[0], name="to a constant")
        yield op, Sample(left, right, name="encrypted")
    yield "Add", Sample(batch(3, 5), batch(3, 1, seed=1), name="encrypted, broadcast")
    for op in ("Sum", "Mean"):
        yield op, Sample(x, z, x, name="three")
        yield op, Sample(x, w, z, constants=[1], name="with a constant")
    for op in ("Max", "Min"):
        yield op, of(x, name="of one")
        yield op, Sample(x, w, z, constants=[1], name="with a constant")
    yield "Pow", of(x, np.float32(2), name="square")
    yield "Pow", Sample(np.float32(2), x, constants=[0], name="of a constant")
    yield "PRelu", of(x, w, name="channels")
    yield "Mod", of(x, np.float32(0.7), name="fmod", fmod=1)
    statistics = normal(4), normal(4, seed=1), normal(4, seed=2), abs(normal(4, seed=3)) + 0.5
    yield "BatchNormalization", of(batch(*IMAGE), *statistics, name="image")


def logic() -> Named:
    x, z = batch(5), batch(5, seed=1)
    mask, other = x > 0.3, z > -0.2
    for op in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"):
        yield op, of(x, np.float32(0.25), name="a constant")
        yield op, Sample(x, z, name="encrypted")
    yield "Equal", Sample(np.rint(x), np.rint(z), name="encrypted, some equal")
    yield "Not", of(mask, name="mask")
    for op in ("And", "Or", "Xor"):
        yield op, of(mask, other[0], name="a constant")
    yield "Where", Sample(x[0] > 0, x, normal(5), constants=[0, 2], name="a constant mask")
    yield "Where", Sample(mask, np.float32(2), normal(5), constants=[1, 2], name="a mask")


def pooling() -> Named:
    image, row = batch(*IMAGE), batch(3, 7)
    for name, attributes in (
        ("2x2", {"kernel_shape": (2, 2), "strides": (2, 2)}),
        ("overlapping", {"kernel_shape": (3, 3)}),
        ("asymmetric pads", {"kernel_shape": (3, 3), "pads": (0, 1, 2, 1), "strides": (2, 1)}),
        (
            "ceil_mode",
            {"kernel_shape": (3, 3), "strides": (2, 2), "ceil_mode": 1, "pads": (1, 1, 1, 1)},
        ),
        ("ceil_mode beyond", {"kernel_shape": (2, 2), "strides": (3, 3), "ceil_mode": 1}),
        ("SAME_UPPER", {"kernel_shape": (3, 3), "strides": (2, 2), "auto_pad": "SAME_UPPER"}),
        ("dilations", {"kernel_shape": (2, 2), "dilations": (2, 2)}),
    ):
        for op in ("AveragePool", "MaxPool"):
            yield op, of(image, name=name, opset=19, **attributes)
    counted = {"kernel_shape": (3, 3), "pads": (1, 1, 1, 1), "count_include_pad": 1}
    yield "AveragePool", of(image, name="padding counts", **counted)
    for op in ("AveragePool", "MaxPool"):
        yield op, of(row, name="1-D", kernel_shape=(2,))
    for op in ("GlobalAveragePool", "GlobalMaxPool"):
        yield op, of(batch(3, 4, 4), name="image")


def layout() -> Named:
    x = batch(*IMAGE)
    yield "Flatten", of(x, name="image")
    yield "Reshape", of(x, ints(-1, 100), name="flat")
    yield "Reshape", of(x, ints(0, 0, 25), name="keeps 0")
    yield "Transpose", of(x, name="channels last", perm=(0, 2, 3, 1))
    yield "Unsqueeze", of(x, ints(1, 4), name="axes")
    yield "Unsqueeze", of(x, name="opset 9", opset=9, axes=(1, 4))
    yield "Squeeze", of(batch(1, 4, 1), ints(1, 3), name="axes")
    yield "Squeeze", of(batch(1, 4, 1), name="opset 9", opset=9, axes=(1, 3))
    yield "Slice", of(x, ints(0, 1), ints(3, 100), ints(1, 2), ints(2, 2), name="steps")
    yield "Slice", of(x, ints(-1), ints(-100), ints(1), ints(-1), name="backwards")
    yield "Slice", of(x, name="opset 9", opset=9, starts=(1,), ends=(3,), axes=(1,))
    yield "Gather", of(x, ints(3, 0), name="channels", axis=1)
    yield "Gather", of(x, np.int64(2), name="one channel", axis=1)
    pads = ints(0, 0, 1, 1, 0, 0, 2, 1)
    yield "Pad", of(x, pads, name="zeros")
    yield "Pad", of(x, pads, np.float32(0.75), name="a value")
    yield "Pad", of(x, ints(1, 1), None, ints(2), name="axes", opset=18)
    yield "Pad", of(x, ints(0, 0, -1, 1, 0, 0, -1, 0), name="less")
    yield "Pad", of(x, pads, name="reflect", mode="reflect")
    yield "Pad", of(x, pads, name="edge", mode="edge")
    nine = {"pads": (0, 0, 1, 1, 0, 0, 1, 1), "value": 0.5}
    yield "Pad", of(x, name="opset 9", opset=9, **nine)
    yield "Expand", of(batch(1, 4), ints(1, 2, 4), name="middle")
    yield "Tile", of(x, ints(1, 2, 1, 1), name="channels")
    for op in ("DepthToSpace", "SpaceToDepth"):
        yield op, of(batch(4, 4, 4), name="2", blocksize=2)
    yield (
        "Split",
        Sample(x, ints(1, 3), constants=[1], attributes={"axis": 1}, outputs=2, name="sizes"),
    )
    halves = {"axis": 1, "num_outputs": 2}
    yield "Split", Sample(x, attributes=halves, outputs=2, opset=18, name="halves")
    other = batch(2, 5, 5, seed=1)
    yield "Concat", Sample(x, other, attributes={"axis": 1}, name="encrypted")


def reduction() -> Named:
    x = batch(*IMAGE)
    yield "ReduceSum", of(x, ints(2, 3), name="axes")
    yield "ReduceSum", of(x, name="opset 11", opset=11, axes=(2, 3), keepdims=0)
    yield "ReduceMean", of(x, ints(1), name="axes", keepdims=0)
    yield "ReduceMean", of(x, name="opset 13", opset=13, axes=(-1,))


def univariate() -> Named:
    x = batch(5)
    yield "Erf", of(x, name="normal")
    low, high = np.float32(-0.5), np.float32(1)
    yield "Clip", of(x, low, high, name="both")
    yield "Clip", of(x, low, name="minimum")
    yield "Clip", of(x, None, high, name="maximum")
    yield "Clip", of(x, name="opset 9", opset=9, min=-0.5, max=1.0)
    yield "Cast", of(x, name="to int64", to=7)
    yield "Gelu", of(x, name="tanh", approximate="tanh")
    yield "Tan", of(np.tanh(x), name="between its poles")
