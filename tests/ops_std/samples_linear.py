"""Samples for the conformance kit: elements that constants name, fixed linear maps, transposed windows,
Einsum, integer products.

Where an op makes its weights itself, they are such as a few bits hold exactly: the kit explains what rounding
inputs and constants does, and cannot see how an op rounds what it computes from them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from fhe_core.testing import Sample

from tests.ops_std.conformance_samples import IMAGE, Named, batch, ints, normal, of


def picked() -> Named:
    x = batch(*IMAGE)
    rows = np.arange(16).reshape(16, 1, 1, 1)
    yield "Compress", of(x, np.array([True, False, True]), name="channels", axis=1)
    yield "Compress", of(x, np.array([True, False, False, True, True]), name="last", axis=-1)
    order = np.broadcast_to(ints(3, 0, 0).reshape(1, 3, 1, 1), (16, 3, 5, 5)).copy()
    yield "GatherElements", of(x, order, name="channels", axis=1)
    mixed = np.broadcast_to(ints(1, 4, -1, 0).reshape(1, 4, 1, 1), (16, 4, 2, 1)).copy()
    yield "GatherElements", of(x, mixed, name="corner", axis=3)
    at = np.broadcast_to(ints(1, 4, 0, 2).reshape(1, 2, 2), (16, 2, 2)).copy()
    yield "GatherND", of(x, at, name="of each sample", batch_dims=1)
    yield (
        "ReverseSequence",
        of(x, ints(*[3] * len(rows)), name="samples", batch_axis=0, time_axis=1),
    )
    yield "Trilu", of(x, name="upper")
    yield "Trilu", of(x, ints(-1), name="lower", upper=0)
    yield "Trilu", of(x, ints(2), name="above")
    yield "CenterCropPad", of(x, ints(2, 8), name="both", axes=(1, 3))
    yield "CenterCropPad", of(x, ints(4, 3, 9), name="all but the first", axes=(-3, -2, -1))


def scattered() -> Named:
    x, u = batch(4, 5), batch(2, 5, seed=1)
    at = np.broadcast_to(ints(2, 0).reshape(1, 2, 1), (16, 2, 5)).copy()
    same = np.broadcast_to(normal(1, 2, 5, seed=1), (16, 2, 5)).copy()
    for op in ("Scatter", "ScatterElements"):
        opset = 10 if op == "Scatter" else None
        yield op, of(x, at, same, name="constants", axis=1, opset=opset)
        yield (
            op,
            Sample(x, at, u, constants=[1], attributes={"axis": 1}, name="encrypted", opset=opset),
        )
    data = np.broadcast_to(normal(1, 4, 5, seed=2), (16, 4, 5)).copy()
    into = Sample(data, at, u, constants=[0, 1], attributes={"axis": 1}, name="into constants")
    yield "ScatterElements", into
    twice = np.broadcast_to(ints(3, 3).reshape(1, 2, 1), (16, 2, 5)).copy()
    added = {"axis": 1, "reduction": "add"}
    yield "ScatterElements", Sample(x, twice, u, constants=[1], attributes=added, name="added")
    yield "ScatterElements", of(x, at, same, name="constants added", **added)
    places = np.stack(
        [
            np.broadcast_to(np.arange(16)[:, None], (16, 2)),
            np.broadcast_to(ints(3, 1), (16, 2)),
        ],
        axis=-1,
    )
    yield "ScatterND", of(x, places, same, name="constants")
    yield "ScatterND", Sample(x, places, u, constants=[1], name="encrypted")
    cache = Sample(batch(2, 4, 3), batch(2, 2, 3, seed=1), name="from the start")
    yield "TensorScatter", cache
    begins, circular = ints(*[3] * 16), {"mode": "circular"}
    turned = Sample(
        batch(4, 3),
        batch(2, 3, seed=1),
        begins,
        constants=[2],
        attributes=circular,
        name="circular",
    )
    yield "TensorScatter", turned
    corners = ints(0, 3, 8, 15).reshape(1, 1, 2, 2) + 16 * np.arange(16).reshape(16, 1, 1, 1)
    twice = {"kernel_shape": (2, 2), "strides": (2, 2)}
    yield "MaxUnpool", of(batch(1, 2, 2), corners, name="corners", **twice)
    added = {"reduction": "add"}
    yield "ScatterND", Sample(x, places, u, constants=[1], attributes=added, name="added")


def classes() -> Named:
    index = np.random.default_rng(0).integers(0, 4, (16, 3)).astype(np.float32)
    values = np.array([-1, 2], np.float32)
    yield "OneHot", of(index, np.int64(4), values, name="last axis")
    yield "OneHot", of(index, np.int64(4), values, name="second axis", axis=1)
    yield "OneHot", of(index - 4, np.int64(4), values, name="from the end")


def fixed() -> Named:
    x, image = batch(5), batch(*IMAGE)
    one = np.int64(1)
    yield "CumSum", of(x, one, name="plain")
    yield "CumSum", of(x, one, name="exclusive, reverse", exclusive=1, reverse=1)
    yield "CumSum", of(image, np.int64(-2), name="rows")
    signal = batch(4, 1)
    yield "DFT", of(signal, name="real")
    yield "DFT", of(batch(4, 2), name="inverse", inverse=1)
    yield "DFT", of(signal, name="one-sided", onesided=1)
    yield "DFT", of(batch(3, 4, 2), None, np.int64(2), name="axis")
    yield "DFT", of(batch(2, 1), np.int64(4), name="padded")
    yield "DFT", of(signal, name="opset 17", opset=17, axis=1)
    frames = ints(2)[0]
    yield "STFT", of(batch(8, 1), frames, None, np.int64(4), name="frames")


def resampled() -> Named:
    x, image = batch(2, 3, 4), batch(2, 3, 5)
    double = np.array([1, 1, 2, 2], np.float32)
    yield "Resize", of(x, None, double, name="nearest")
    yield "Resize", of(x, None, None, ints(5, 3), name="nearest, sizes", axes=(2, 3))
    yield "Resize", of(x, None, double, name="linear", mode="linear")
    shrunk = {"mode": "linear", "axes": (3, 2)}
    yield "Resize", of(x, None, None, ints(2, 6), name="linear, sizes", **shrunk)
    wide = np.array([2], np.float32)
    yield "Resize", of(x, None, wide, name="cubic", mode="cubic", axes=(3,))
    corners = {"coordinate_transformation_mode": "align_corners", "axes": (2, 3)}
    square = batch(2, 3, 3)
    yield "Resize", of(square, None, None, ints(5, 5), name="corners", mode="linear", **corners)
    yield "Resize", of(x, double, name="opset 10", opset=10, mode="linear")
    yield "Resize", of(x, np.zeros(0, np.float32), double, name="opset 11", opset=11)
    region = np.array([-0.5, 0, 1, 1], np.float32)
    crop = {
        "mode": "linear",
        "coordinate_transformation_mode": "tf_crop_and_resize",
        "extrapolation_value": 0.5,
        "axes": (2, 3),
    }
    yield "Resize", of(batch(1, 3, 3), region, None, ints(4, 3), name="crop", **crop)
    nearest = {**crop, "mode": "nearest"}
    yield "Resize", of(batch(1, 3, 3), region, None, ints(4, 3), name="nearest, crop", **nearest)
    yield "Upsample", of(x, double, name="nearest", opset=9)
    yield "Upsample", of(x, double, name="linear", opset=9, mode="linear")
    yield "Upsample", of(x, name="opset 7", opset=7, scales=(1.0, 1.0, 2.0, 2.0))
    grid = _grid(3, 5)
    for mode in ("linear", "nearest"):
        yield "GridSample", of(image, grid, name=mode, mode=mode, align_corners=1)
    yield "GridSample", of(image, grid, name="border", padding_mode="border", align_corners=1)
    yield "GridSample", of(image, grid, name="opset 16", opset=16, align_corners=1)
    yield "AffineGrid", of(batch(2, 3), ints(16, 1, 2, 4), name="grid")
    yield "AffineGrid", of(batch(3, 4), ints(16, 1, 2, 2, 4), name="three axes")
    yield "Col2Im", of(batch(8, 6), ints(3, 4), ints(2, 2), name="blocks")
    padded = {"pads": (1, 1, 1, 1), "strides": (2, 2)}
    yield "Col2Im", of(batch(4, 4), ints(2, 2), ints(2, 2), name="padded", **padded)


def _grid(*lengths: int) -> Any:
    """Places in quarters of an element of an image of this size, for align_corners; some lie outside."""
    y, x = ((np.arange(n) * 1.75 - 0.5) * 2 / (n - 1) - 1 for n in lengths)
    grid = np.stack(np.broadcast_arrays(x[None, :], y[:, None]), axis=-1).astype(np.float32)
    return np.broadcast_to(grid, (16, *grid.shape)).copy()


def transposed() -> Named:
    image = batch(4, 3, 4)
    kernel, bias = normal(4, 3, 3, 3, seed=1), normal(3, seed=2)
    yield "ConvTranspose", of(image, kernel, bias, name="plain")
    for name, attributes in (
        ("strides", {"strides": (2, 3)}),
        ("pads", {"pads": (1, 0, 2, 1), "strides": (2, 1)}),
        ("dilations", {"dilations": (2, 1), "pads": (1, 1, 1, 1)}),
        ("output_padding", {"strides": (2, 2), "output_padding": (1, 1)}),
        ("output_shape", {"strides": (2, 2), "output_shape": (7, 8)}),
        ("SAME_UPPER", {"strides": (2, 2), "auto_pad": "SAME_UPPER"}),
        ("deep pads", {"pads": (3, 3, 3, 3), "strides": (3, 3)}),
    ):
        yield "ConvTranspose", of(image, kernel, bias, name=name, **attributes)
    grouped = of(
        image, normal(4, 3, 3, 3, seed=1), normal(6), name="groups", group=2, strides=(2, 2)
    )
    yield "ConvTranspose", grouped
    depthwise = normal(4, 1, 2, 2, seed=1)
    yield "ConvTranspose", of(image, depthwise, name="depthwise", group=4, strides=(2, 2))
    yield "ConvTranspose", of(batch(3, 5), normal(3, 2, 3), name="1-D", strides=(2,))


def einsum() -> Named:
    x, w = batch(3, 4), normal(4, 5, seed=1)
    for name, equation, constants in (
        ("matrix", "bij,jk->bik", [w]),
        ("vector", "bij,j->bi", [normal(4, seed=1)]),
        ("elements", "bij,ij->bij", [normal(3, 4, seed=1)]),
        ("side by side", "bij,ijk->bki", [normal(3, 4, 2, seed=1)]),
        ("outer", "bij,k->bkji", [normal(2, seed=1)]),
        ("all of it", "bij,ij->b", [normal(3, 4, seed=1)]),
        ("ellipsis", "...j,jk->...k", [w]),
        ("sum and transpose", "bij->bj", []),
        ("two constants", "bij,jk,k->bik", [np.rint(2 * w), np.rint(2 * normal(5, seed=2))]),
    ):
        yield "Einsum", of(x, *constants, name=name, equation=equation)
    first = {"equation": "kj,bij->bik"}
    yield "Einsum", Sample(w.T.copy(), x, constants=[0], attributes=first, name="constant first")
    yield "Einsum", of(batch(3, 3), name="diagonal", equation="bii->bi")
    z = batch(2, 4, seed=1)
    attention = {"equation": "bij,bkj->bik"}
    yield "Einsum", Sample(x, z, attributes=attention, name="encrypted")
    dot = {"equation": "bi,bi->b"}
    yield "Einsum", Sample(batch(4), batch(4, seed=1), attributes=dot, name="encrypted dot")


def integer() -> Named:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 4, (16, 4)).astype(np.uint8), rng.integers(-8, 8, (4, 3)).astype(np.int8)
    yield "MatMulInteger", of(a, b, name="plain")
    zeros = np.array([1, -2, 0], np.int8)
    yield "MatMulInteger", of(a, b, np.uint8(2), zeros, name="zero points")
    left = Sample(b.T.copy(), rng.integers(0, 4, (16, 4, 2)).astype(np.uint8), constants=[0])
    yield "MatMulInteger", left
    image = rng.integers(0, 4, (16, 2, 4, 4)).astype(np.uint8)
    kernel = rng.integers(0, 16, (4, 2, 3, 3)).astype(np.uint8)
    yield "ConvInteger", of(image, kernel, name="plain")
    centre, padded = np.array([8, 7, 6, 8], np.uint8), {"pads": (1, 1, 1, 1)}
    yield "ConvInteger", of(image, kernel, np.uint8(2), centre, name="zero points", **padded)
    halves = kernel[:, :1].copy()
    yield "ConvInteger", of(image, halves, np.uint8(1), name="groups", group=2, **padded)


def gemm() -> Named:
    x, w, c = batch(5), normal(5, 3, seed=1), batch(3, seed=2)
    yield "Gemm", Sample(x, w, c, constants=[1], name="encrypted C")
    scaled = {"alpha": -0.5, "beta": 2.0, "transB": 1}
    w = w.T.copy()
    yield "Gemm", Sample(x, w, c, constants=[1], attributes=scaled, name="encrypted C, scaled")


def _by_operator() -> Mapping[str, Sequence[Sample]]:
    found: dict[str, list[Sample]] = {}
    for group in (picked, scattered, classes, fixed, resampled, transposed, einsum, integer, gemm):
        for op, sample in group():
            found.setdefault(op, []).append(sample)
    return found


SAMPLES = _by_operator()
