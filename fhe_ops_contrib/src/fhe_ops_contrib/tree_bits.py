"""Which cuts a sample passes, as encrypted bits: compared by the client, or looked up from integers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fhe_core import primitives
from fhe_ops_contrib._checks import Array
from fhe_ops_contrib.tree_forms import Forest

#: A cut: a feature, and the number of the cut among those of the feature; one beyond them: whether it is NaN.
Cut = tuple[int, int]
#: Gives the integer tensor (N, cuts) that says which cuts each sample passes.
Bits = Callable[[Sequence[Cut]], Any]


def _ends(forest: Forest, cuts: Sequence[Cut], dtype: Any) -> tuple[Array, Array]:
    """The features of cuts, and where these lie; what is none lies at 0."""
    features = np.array([feature for feature, _ in cuts])
    ends = [np.append(forest.cuts[feature], 0)[i] for feature, i in cuts]
    return features, np.array(ends, dtype)


def client_bits(x: Any, forest: Forest) -> Bits:
    """Comparisons of real values (N, F) that the client holds, each encrypted as one bit.

    NaN is an input error where no branch of the trees says what to do with it.
    """

    def bits(cuts: Sequence[Cut]) -> Any:
        features, ends = _ends(forest, cuts, x.dtype)
        asked = np.take(x, features, axis=1)
        passed = np.greater_equal(asked, ends[None])
        if forest.missing:
            of_missing = np.array([[i == len(forest.cuts[feature]) for feature, i in cuts]])
            passed = np.where(of_missing, np.isnan(asked), passed)
            return primitives.exact(passed.astype(np.int64))
        # NaN is neither above nor below: it stays what it is, and is refused.
        known = np.where(np.isnan(asked), asked, passed.astype(x.dtype))
        return primitives.exact(np.clip(known, 0, 1).astype(np.int64))

    return bits


def server_bits(x: Any, forest: Forest) -> Bits:
    """Comparisons of encrypted integers (N, F): a look-up each."""
    integers = primitives.exact(x)

    def bits(cuts: Sequence[Cut]) -> Any:
        features, ends = _ends(forest, cuts, np.int64)
        asked = primitives.exact(np.take(integers, features, axis=1))
        return primitives.lookup(asked, _Passes(ends), low=0, high=1)

    return bits


class _Passes:
    """Which of the cuts integers (N, cuts) pass."""

    def __init__(self, ends: Array) -> None:
        self.ends = ends

    def __call__(self, integers: Array) -> Array:
        return np.greater_equal(integers, self.ends[None])


@dataclass(frozen=True)
class Steps:
    """A uniform quantizer for each feature that is asked for: how many steps a value lies above ``first``.

    Attributes:
        first, width: by feature.
        most: the last step.
    """

    first: Mapping[int, float]
    width: Mapping[int, float]
    most: int

    def place(self, feature: int, cut: float) -> float:
        """The nearest step to a cut, which a value passes from there on."""
        if not np.isfinite(cut):
            return cut
        step = np.rint((cut - self.first[feature]) / self.width[feature])
        return float(np.clip(step, 1, self.most))


def spread(forest: Forest, n_bits: int) -> Steps:
    """Steps of which the second begins at a feature's least cut, and the last at its largest."""
    most = 2**n_bits - 1
    width = {f: float(np.ptp(cuts)) / (most - 1) or 1.0 for f, cuts in forest.cuts.items()}
    return Steps({f: float(cuts[0]) - width[f] for f, cuts in forest.cuts.items()}, width, most)


def stepped(x: Any, steps: Steps, features: int) -> Any:
    """The integers that stand for real values (N, features), encrypted; 0 for features nobody asks for."""
    first = np.array([[steps.first.get(f, 0.0) for f in range(features)]])
    width = np.array([[steps.width.get(f, np.inf) for f in range(features)]])
    # What equals a cut passes it, whichever way the division is rounded.
    numbers = np.floor((x.astype(np.float64) - first) / width + 1e-9)
    return np.clip(numbers, 0, steps.most).astype(np.int64)
