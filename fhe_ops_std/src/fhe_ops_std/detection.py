"""Object detection: the choice among overlapping boxes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_ops_std._domains import Flag

Array = NDArray[Any]


def non_max_suppression(
    boxes: Array,
    scores: Array,
    /,
    max_output_boxes_per_class: Array | None = None,
    iou_threshold: Array | None = None,
    score_threshold: Array | None = None,
    *,
    center_point_box: Flag = 0,
) -> Array:
    """ONNX NonMaxSuppression-11: for each image and class the boxes of the highest scores that
    overlap none chosen before by more than ``iou_threshold`` (0) of their union.

    Args:
        boxes: (images, boxes, 4): two opposite corners y, x, y, x in any order; with
            ``center_point_box`` the centre x, y, the width and the height.
        scores: (images, classes, boxes).
        max_output_boxes_per_class: 0 by default, which chooses none.
        score_threshold: what a score has to exceed; by default all take part.

    Returns:
        (chosen, 3) int64: image, class and box, in the order of choice.
    """
    limit = 0 if max_output_boxes_per_class is None else int(max_output_boxes_per_class.item())
    overlap = 0.0 if iou_threshold is None else iou_threshold.reshape(())
    if not 0 <= overlap <= 1:
        raise ValueError(f"iou_threshold is {overlap}, not between 0 and 1")
    if boxes.shape != (scores.shape[0], scores.shape[2], 4):
        raise ValueError(f"boxes {boxes.shape} do not fit the scores {scores.shape}")
    low, high = _corners(boxes, center_point_box)
    chosen = []
    for image, class_ in np.ndindex(*scores.shape[:2]):
        row = scores[image, class_]
        order = np.argsort(-row, kind="stable")  # of equal scores the lower index first
        if score_threshold is not None:
            order = order[row[order] > score_threshold.reshape(())]
        kept = _suppressed(low[image], high[image], order, overlap, limit)
        chosen += [(image, class_, box) for box in kept]
    return np.array(chosen, dtype=np.int64).reshape(-1, 3)


def _corners(boxes: Array, center_point_box: int) -> tuple[Array, Array]:
    """The lower and the upper corner of each box: (..., 2)."""
    one, other = boxes[..., :2], boxes[..., 2:]
    if center_point_box:
        half = other / boxes.dtype.type(2)
        return one - half, one + half
    return np.minimum(one, other), np.maximum(one, other)


def _suppressed(low: Array, high: Array, order: Array, overlap: Any, limit: int) -> list[int]:
    """The boxes of ``order`` that overlap no earlier one that was kept, ``limit`` at most."""
    area = np.prod(high - low, axis=-1)
    kept: list[int] = []
    while order.size and len(kept) < limit:
        box, order = order[0], order[1:]
        kept.append(int(box))
        sides = np.minimum(high[order], high[box]) - np.maximum(low[order], low[box])
        shared = np.prod(np.maximum(sides, 0), axis=-1)
        union = area[order] + area[box] - shared
        # A box without an area overlaps nothing.
        real = (shared > 0) & (area[order] > 0) & (area[box] > 0) & (union > 0)
        order = order[~(real & (shared / np.where(real, union, 1) > overlap))]
    return kept


IMPLEMENTATIONS: tuple[tuple[str, int, Callable[..., Any]], ...] = (
    ("NonMaxSuppression", 10, non_max_suppression),
)
