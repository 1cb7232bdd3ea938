"""Leaves found without walking: each level of a feature's values leaves some leaves of each tree possible.

The cuts that all trees make divide the values of a feature into levels, and at each level every comparison of
that feature is decided. So a table has, for each level, the leaves that it leaves possible, as bits; a sample's
leaf is what is common to the levels of its features. Source: QuickScorer (Lucchese et al., SIGIR 2015), with
the comparisons of all modes, and with NaN as a level of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fhe_ops_contrib._checks import Array

if TYPE_CHECKING:
    from fhe_ops_contrib.ensembles import Ensemble

#: Bytes that a table may take: beyond, trees are walked.
_LARGEST = 2**26

#: Samples up to which one search for all features takes less time than one for each.
_FEW = 32

#: Elements of a table's rows that are combined at a time: they stay in a processor's cache.
_CHUNK = 2**17

#: Added to an exponent of a float64: 0 stands for 1.0.
_EXPONENT_BIAS = 1023


@dataclass(frozen=True)
class Masks:
    """The table, for one type of features.

    Attributes:
        features: (used,) those that the trees ask for, in order.
        cuts: by used feature, sorted: level n is from cut n on; the first is -inf.
        keys: all cuts as complex numbers, which sort by feature, then by value.
        starts: (used,) the row of the table for each feature's first level; those for NaN are the last.
        table: (levels, columns) which leaves are possible; each tree has one column or more.
        leaves: (columns * (bits + 1),) the ensemble's row of each bit of each column; 0 of none.
        offsets: (columns,) where those of a column start, less what stands for 1.0 in a float's exponent.
        firsts: (trees,) the first column of each tree.
        numbers: (used,) from 0 on.
    """

    features: Array
    cuts: tuple[Array, ...]
    keys: Array
    starts: Array
    table: Array
    leaves: Array
    offsets: Array
    firsts: Array
    numbers: Array

    @classmethod
    def of(cls, ensemble: Ensemble, dtype: Any) -> Masks | None:
        """The table for features of ``dtype``; None where trees share nodes, or where it would be too large."""
        inner = np.flatnonzero(~ensemble.is_leaf)
        parents = np.bincount(
            np.concatenate([ensemble.yes[inner], ensemble.no[inner], ensemble.roots])
        )
        if parents.max(initial=0) > 1 or not len(inner):
            return None
        spans = _Spans.of(ensemble)
        inner = spans.inner
        most = int(spans.counts[ensemble.roots].max())
        bits: type[np.unsignedinteger[Any]] = np.uint32 if most <= 32 else np.uint64
        width = np.dtype(bits).itemsize * 8
        columns = -(-spans.counts[ensemble.roots] // width)
        firsts = np.cumsum(columns) - columns
        asked, values = ensemble.cuts(dtype)
        features = np.unique(ensemble.features[inner])
        cuts = tuple(np.unique(np.append(values[asked == f], dtype(-np.inf))) for f in features)
        sizes = np.array([len(each) for each in cuts])
        shape = (1 + int(sizes.sum()) + len(features), int(columns.sum()))
        if shape[0] * shape[1] * np.dtype(bits).itemsize > _LARGEST:
            return None
        full = int(np.iinfo(bits).max)
        table = np.zeros(shape, bits)
        table += _all_leaves(spans.counts[ensemble.roots], width).astype(bits)
        # The first row is of no level: a search counts the cuts up to a value, of which there is one.
        starts = 1 + np.cumsum(sizes) - sizes
        for place, feature in enumerate(features.tolist()):
            levels = np.append(cuts[place], dtype(np.nan))
            at = np.append(starts[place] + np.arange(sizes[place]), 1 + sizes.sum() + place)
            own = table[at]
            for row in inner[ensemble.features[inner] == feature].tolist():
                passed = ensemble.passes(np.array([row]), levels)
                first, low, middle, high = firsts[spans.trees[row]], *spans.of_row(row)
                for column in range(low // width, -(-high // width)):
                    start, end = column * width, (column + 1) * width
                    no_yes = bits(full ^ _bits(low, middle, start, end))
                    no_no = bits(full ^ _bits(middle, high, start, end))
                    own[:, first + column] &= np.where(passed, no_no, no_yes)
            table[at] = own
        ends = spans.leaves
        leaves = np.zeros((shape[1], width + 1), np.int64)
        places = spans.starts[ends]
        leaves[firsts[spans.trees[ends]] + places // width, 1 + places % width] = ends
        keys = np.empty(sizes.sum(), np.complex128)
        keys.real, keys.imag = np.repeat(np.arange(len(sizes)), sizes), np.concatenate(cuts)
        offsets = np.arange(shape[1]) * (width + 1) + 1 - _EXPONENT_BIAS
        numbers = np.arange(len(features))
        return cls(
            features, cuts, keys, starts, table, leaves.reshape(-1), offsets, firsts, numbers
        )

    def find(self, x: Array) -> Array:
        """The row of the leaf in which each sample ends in each tree: (N, F) to (N, trees)."""
        if len(self.features) < x.shape[1]:
            x = x.take(self.features, axis=1)
        step = max(1, _CHUNK // self.table.shape[1])
        if len(x) <= step:
            return self._found(x)
        return np.concatenate([self._found(x[i : i + step]) for i in range(0, len(x), step)])

    def _found(self, x: Array) -> Array:
        levels = self._levels(x)
        if len(x) <= _FEW:
            possible = np.bitwise_and.reduce(self.table.take(levels, axis=0), axis=1)
        else:
            possible = self.table.take(levels[:, 0], axis=0)
            other = np.empty_like(possible)
            for column in levels.T[1:]:
                # Levels are in range: "clip" writes into `out` without a copy.
                possible &= self.table.take(column, axis=0, out=other, mode="clip")
        # One bit of each tree is left, whose number is the exponent of the number that it is.
        exponents = possible.astype(np.float64).view(np.int64) >> 52
        shared = len(self.firsts) < self.table.shape[1]
        if shared:
            np.maximum(exponents, _EXPONENT_BIAS - 1, out=exponents)
        exponents += self.offsets
        rows = self.leaves.take(exponents)
        return np.add.reduceat(rows, self.firsts, axis=1) if shared else rows

    def _levels(self, x: Array) -> Array:
        """The row of the table for each feature of each sample."""
        if len(x) <= _FEW:
            values = np.empty(x.shape, np.complex128)
            values.real, values.imag = self.numbers, x
            levels = self.keys.searchsorted(values, "right")
        else:
            levels = np.empty(x.shape, np.int64)
            for place, cuts in enumerate(self.cuts):
                levels[:, place] = cuts.searchsorted(x[:, place], "right")
            levels += self.starts - 1
        # One NaN makes the sum of squares NaN, and a sum takes less time than a search.
        squares = np.vdot(x, x)
        if squares != squares:
            levels = np.where(np.isnan(x), len(self.keys) + 1 + self.numbers, levels)
        return np.asarray(levels)


@dataclass(frozen=True)
class _Spans:
    """The leaves below each row, numbered within its tree so that they follow each other.

    Attributes:
        trees: (rows,) the tree of each row.
        starts, counts: (rows,) the number of the first leaf below, and how many there are.
        yes: (rows,) the true branch.
        inner, leaves: the rows of all branches, and of all leaves.
    """

    trees: Array
    starts: Array
    counts: Array
    yes: Array
    inner: Array
    leaves: Array

    @classmethod
    def of(cls, ensemble: Ensemble) -> _Spans:
        leaf, layers = ensemble.is_leaf, [ensemble.roots]
        trees = np.zeros(len(leaf), np.int64)
        trees[ensemble.roots] = np.arange(len(ensemble.roots))
        while len(inner := layers[-1][~leaf[layers[-1]]]):
            trees[ensemble.yes[inner]] = trees[ensemble.no[inner]] = trees[inner]
            layers.append(np.concatenate([ensemble.yes[inner], ensemble.no[inner]]))
        counts = np.ones(len(leaf), np.int64)
        starts = np.zeros(len(leaf), np.int64)
        for layer in reversed(layers):
            inner = layer[~leaf[layer]]
            counts[inner] = counts[ensemble.yes[inner]] + counts[ensemble.no[inner]]
        for layer in layers:
            inner = layer[~leaf[layer]]
            starts[ensemble.yes[inner]] = starts[inner]
            starts[ensemble.no[inner]] = starts[inner] + counts[ensemble.yes[inner]]
        reached = np.concatenate(layers)
        ends = leaf[reached]
        return cls(trees, starts, counts, ensemble.yes, reached[~ends], reached[ends])

    def of_row(self, row: int) -> tuple[int, int, int]:
        """Where the leaves of its true branch start, where those of the other do, and where these end."""
        low = int(self.starts[row])
        return low, low + int(self.counts[self.yes[row]]), low + int(self.counts[row])


def _bits(low: int, high: int, start: int, end: int) -> int:
    """The leaves from ``low`` to ``high`` as bits of the column for those from ``start`` to ``end``."""
    low, high = max(low, start) - start, min(high, end) - start
    return (1 << high) - (1 << low) if low < high else 0


def _all_leaves(counts: Array, width: int) -> Array:
    """By column, a bit for each leaf of the trees with so many leaves."""
    return np.array(
        [
            _bits(0, n, start, start + width)
            for n in counts.tolist()
            for start in range(0, n, width)
        ],
        np.uint64,
    )
