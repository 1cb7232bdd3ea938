"""What encrypted trees add up, as integers, and how the client turns sums into scores.

Sums may be wide: look-ups whose results have up to 14 bits or so cost what those with 8 cost, less what
adding many of them up takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from fhe_core import primitives
from fhe_ops_contrib._checks import Array

#: Weights this close to a common grid, in its steps, lie on it: they are float32.
_ON_GRID = 1e-3


class Payload(Protocol):
    """What the leaves of all trees stand for.

    Attributes:
        integers: for each tree, what its vectors add to each column: (vectors, columns).
        bits: of the widest sum.
    """

    integers: list[Array]
    bits: int

    def scores(self, totals: Any) -> Any:
        """Scores (N, targets), float, from the sums of all columns (N, columns)."""
        ...


def spans(integers: Sequence[Array]) -> tuple[Array, Array]:
    """The least and the largest sum of each column."""
    low = np.sum([part.min(axis=0) for part in integers], axis=0)
    high = np.sum([part.max(axis=0) for part in integers], axis=0)
    return low, high


class Numbered:
    """The number of the leaf that each tree ends in, a column each: the client knows their weights.

    So scores are those of the float model, to the last bit. Of one tree the client sees nothing that the
    results would not show; of several, what each of them gives.
    """

    def __init__(self, vectors: Sequence[Array], how: str) -> None:
        self.how = how
        most = max(map(len, vectors))
        padded = [np.pad(part, ((0, most - len(part)), (0, 0))) for part in vectors]
        #: (targets, vectors, trees)
        self.weights = np.stack(padded, axis=-1).astype(np.float64).transpose(1, 0, 2)
        columns = np.eye(len(vectors), dtype=np.int64)
        self.integers = [
            np.arange(len(part))[:, None] * columns[tree] for tree, part in enumerate(vectors)
        ]
        self.bits = max(most - 1, 1).bit_length()

    def scores(self, totals: Any) -> Any:
        reduce: Any = {"MIN": np.min, "MAX": np.max, "AVERAGE": np.mean}.get(self.how, np.sum)
        targets = [primitives.entries(table, totals) for table in self.weights]
        return np.concatenate([reduce(each, axis=1, keepdims=True) for each in targets], axis=1)


@dataclass(frozen=True)
class _Scale:
    """real = offset + step * integer, for one target; of ``high`` at the most over all trees."""

    step: float
    offset: float
    high: int


class Summed:
    """Sums of the leaves' weights, in steps: of the grid on which they lie, or as fine as bits allow.

    The sum of one target is off by at most a step for each tree. The largest weight is a multiple of the
    step: where votes are even, so are the sums. Targets on a coarse grid share a column.
    The last target is left out where the sum of all is known.

    Args:
        bits: the most that a column may have.
    """

    def __init__(self, vectors: Sequence[Array], how: str, bits: int) -> None:
        self.trees = len(vectors) if how == "AVERAGE" else 1
        wide = [part.astype(np.float64) for part in vectors]
        self.known = _known_sum(wide)
        self.targets = wide[0].shape[1]
        kept = self.targets - (self.known is not None)
        self.scales = [_scale([part[:, c] for part in wide], bits) for c in range(kept)]
        self.places = self._packed(bits)
        columns = max(column for column, _ in self.places) + 1
        self.integers = []
        for part in wide:
            packed = np.zeros((len(part), columns), np.int64)
            for c, (scale, (column, shift)) in enumerate(
                zip(self.scales, self.places, strict=True)
            ):
                packed[:, column] += _steps(part[:, c], scale.step) << shift
            self.integers.append(packed)
        self.bits = max(int(spans(self.integers)[1].max()), 1).bit_length()

    def _packed(self, bits: int) -> list[tuple[int, int]]:
        """The column of each target, and by how many bits it is shifted there."""
        places, column, shift = [], 0, 0
        for scale in self.scales:
            width = scale.high.bit_length()
            if shift and shift + width > bits:
                column, shift = column + 1, 0
            places.append((column, shift))
            shift += width
        return places

    def scores(self, totals: Any) -> Any:
        sums = totals.astype(np.float64)
        found = []
        for scale, (column, shift) in zip(self.scales, self.places, strict=True):
            part = np.floor(sums[:, column : column + 1] / 2.0**shift)
            part = np.mod(part, 2.0 ** scale.high.bit_length())
            found.append(part * scale.step + scale.offset)
        if self.known is not None:
            rest = self.known
            for each in found:
                rest = rest - each
            found.append(rest)
        result = np.concatenate(found, axis=1) if len(found) > 1 else found[0]
        return result / self.trees


def _known_sum(vectors: Sequence[Array]) -> float | None:
    """The sum of all targets, where it is the same for all leaves of a tree, as with probabilities."""
    if vectors[0].shape[1] < 2:
        return None
    sums = [part.sum(axis=1) for part in vectors]
    size = max(float(np.abs(part).max(initial=0)) for part in vectors)
    if any(np.ptp(each) > 1e-5 * size for each in sums):
        return None
    return float(sum(each[0] for each in sums))


def _steps(weights: Array, step: float) -> Array:
    """Weights in steps, above the least of them."""
    steps = np.rint(weights / step).astype(np.int64)
    return np.asarray(steps - steps.min())


def _scale(weights: Sequence[Array], bits: int) -> _Scale:
    """Of the weights of one target, by tree."""
    span = float(sum(np.ptp(part) for part in weights))
    if span == 0:
        return _Scale(1.0, float(sum(part.min() for part in weights)), 0)
    size = float(max(np.abs(part).max() for part in weights))
    step = _grid(np.unique(np.abs(np.concatenate(weights))), size)
    if step is None or span / step > 2**bits - 1:
        # Rounding adds at most a step for each tree.
        step = size / max(1.0, np.floor(size * (2**bits - 1 - len(weights)) / span))
    offset = step * sum(float(np.rint(part.min() / step)) for part in weights)
    return _Scale(step, offset, sum(int(_steps(part, step).max()) for part in weights))


def _grid(values: Array, size: float) -> float | None:
    """The largest step of which all values are multiples, or None.

    Euclid's algorithm, where what is as small as the rounding errors of numbers of ``size`` is 0.
    """
    noise = 1e-6 * size
    step = 0.0
    for value in values[values > noise].tolist():
        a, b = step, value
        while b > noise:
            a, b = b, a % b
            b = 0.0 if a - b < noise else b
        step = a
        if step < 64 * noise:
            return None
    steps = np.rint(values / step)
    # The rounding errors of small steps add up in their multiples.
    step = float(values[-1] / steps[-1])
    return step if (np.abs(values / step - steps) <= _ON_GRID).all() else None
