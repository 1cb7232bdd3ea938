"""Pooling of regions of interest: boxes on an image, each of which becomes a small grid."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ._precision import precise, rounded
from ._sampling import Taps

Array = NDArray[Any]

# --- RoiAlign ---


def roi_align_16(
    x: Array,
    rois: Array,
    batch_indices: Array,
    /,
    *,
    coordinate_transformation_mode: str = "half_pixel",
    mode: Literal["avg", "max"] = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Array:
    """The mean of interpolated samples in each cell of each box: (boxes, C, height, width).

    With ``mode`` "max" the largest weighted neighbour of any sample. x: (N, C, H, W), rois:
    (boxes, 4) as x1, y1, x2, y2 on the scale of the image, of sample ``batch_indices``: (boxes,). A
    cell has ``sampling_ratio`` samples on each axis, or one for each element that it covers.
    """
    if coordinate_transformation_mode not in ("half_pixel", "output_half_pixel"):
        raise ValueError(f"no coordinate_transformation_mode {coordinate_transformation_mode!r}")
    if mode not in ("avg", "max"):
        raise ValueError(f"mode is avg or max, got {mode!r}")
    _check_boxes(x, rois, batch_indices, 4)
    shifted = coordinate_transformation_mode == "half_pixel"
    wide = precise(x)
    boxes = precise(rois) * spatial_scale - (0.5 if shifted else 0)
    y = np.zeros((len(rois), x.shape[1], output_height, output_width), wide.dtype)
    for i, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        rows, columns = (
            # A box of the older mode is at least one element large.
            _cells(start, end - start if shifted else max(end - start, 1), cells, length, ratio)
            for start, end, cells, length, ratio in (
                (y1, y2, output_height, x.shape[2], sampling_ratio),
                (x1, x2, output_width, x.shape[3], sampling_ratio),
            )
        )
        image = wide[batch_indices[i]]
        if rows.index.size and columns.index.size:
            pool = _mean if mode == "avg" else _largest
            y[i] = pool(image, rows, columns, output_height, output_width)
    return rounded(y, x.dtype)


def roi_align_10(
    x: Array,
    rois: Array,
    batch_indices: Array,
    /,
    *,
    mode: Literal["avg", "max"] = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Array:
    """RoiAlign-16 with boxes that are not shifted by half an element."""
    return roi_align_16(
        x,
        rois,
        batch_indices,
        coordinate_transformation_mode="output_half_pixel",
        mode=mode,
        output_height=output_height,
        output_width=output_width,
        sampling_ratio=sampling_ratio,
        spatial_scale=spatial_scale,
    )


def _cells(start: float, size: float, cells: int, length: int, ratio: int) -> Taps:
    """On one axis, the samples of all cells: (2 neighbours, cells·samples)."""
    cell = size / cells
    samples = ratio if ratio > 0 else max(int(np.ceil(cell)), 0)
    inner = (np.arange(samples) + 0.5) / max(samples, 1)
    place = (start + (np.arange(cells)[:, None] + inner) * cell).reshape(-1)
    # Up to one element outside, the edge's value counts; beyond that, nothing.
    inside = (place >= -1) & (place <= length)
    place = np.clip(place, 0, length - 1)
    low = np.floor(place).astype(np.intp)
    share = place - low
    index = np.stack([low, np.minimum(low + 1, length - 1)])
    return Taps(index, np.stack([1 - share, share]) * inside)


def _mean(image: Array, rows: Taps, columns: Taps, height: int, width: int) -> Array:
    """Interpolation and mean are linear on each axis: two matrix products."""
    matrices = []
    for taps, cells, length in ((rows, height, image.shape[1]), (columns, width, image.shape[2])):
        matrix = np.zeros((taps.index.shape[1], length), image.dtype)
        samples = np.arange(len(matrix))
        for index, weight in zip(taps.index, taps.weight, strict=True):
            matrix[samples, index] += weight
        matrices.append(matrix.reshape(cells, -1, length).mean(axis=1))
    return np.matmul(np.matmul(matrices[0], image), matrices[1].T)


def _largest(image: Array, rows: Taps, columns: Taps, height: int, width: int) -> Array:
    best = None
    for i, j in itertools.product(range(2), range(2)):
        weight = rows.weight[i][:, None] * columns.weight[j]
        part = image[:, rows.index[i][:, None], columns.index[j]] * weight
        best = part if best is None else np.maximum(best, part)
    cells = np.asarray(best).reshape(len(image), height, -1, width, columns.index.shape[1] // width)
    return cells.max(axis=(2, 4))


# --- MaxRoiPool ---


def max_roi_pool(
    x: Array, rois: Array, /, *, pooled_shape: Sequence[int], spatial_scale: float = 1.0
) -> Array:
    """The largest element in each cell of each box, 0 in an empty one: (boxes, C, *pooled_shape).

    x: (N, C, H, W), rois: (boxes, 5) as sample, x1, y1, x2, y2, rounded after scaling; the cells of
    a box overlap where they share an element.
    """
    _check_boxes(x, rois, rois[:, 0], 5)
    scaled = precise(rois[:, 1:]) * spatial_scale
    corners = (np.sign(scaled) * np.floor(np.abs(scaled) + 0.5)).astype(np.int64)  # halves outwards
    y = np.zeros((len(rois), x.shape[1], *pooled_shape), x.dtype)
    for i, (x1, y1, x2, y2) in enumerate(corners.tolist()):
        image = x[int(rois[i, 0])]
        rows = _spans(y1, y2, pooled_shape[0], x.shape[2])
        columns = _spans(x1, x2, pooled_shape[1], x.shape[3])
        for r, (top, bottom) in enumerate(rows):
            if top >= bottom:
                continue
            row = image[:, top:bottom].max(axis=1)
            for c, (left, right) in enumerate(columns):
                if left < right:
                    y[i, :, r, c] = row[:, left:right].max(axis=1)
    return y


def _spans(start: int, end: int, cells: int, length: int) -> list[tuple[int, int]]:
    """The first element of each cell, and the one after its last."""
    size = max(end - start + 1, 1) / cells
    steps = np.arange(cells)
    first = np.clip(np.floor(steps * size).astype(np.int64) + start, 0, length)
    last = np.clip(np.ceil((steps + 1) * size).astype(np.int64) + start, 0, length)
    return list(zip(first.tolist(), last.tolist(), strict=True))


def _check_boxes(x: Array, rois: Array, samples: Array, columns: int) -> None:
    if x.ndim != 4 or rois.ndim != 2 or rois.shape[1] != columns or samples.shape != (len(rois),):
        raise ValueError(f"x: {x.shape} and boxes {rois.shape} of {columns} columns do not fit")
    if np.any((samples < 0) | (samples >= len(x))):
        raise ValueError(f"a box lies on none of the {len(x)} samples")


IMPLEMENTATIONS: tuple[tuple[str, int, Callable[..., Any]], ...] = (
    ("RoiAlign", 10, roi_align_10),
    ("RoiAlign", 16, roi_align_16),
    ("MaxRoiPool", 1, max_roi_pool),
)
