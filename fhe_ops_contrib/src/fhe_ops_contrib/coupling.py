"""Probabilities of classes from those of pairs of classes.

Wu, Lin and Weng, "Probability Estimates for Multi-class Classification by Pairwise Coupling" (2004): the
probabilities p minimize p'Qp, where Q follows from the pairs. LIBSVM's iteration finds them, and stops
near by; so the same iteration is run here, and not a linear system solved.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np

from fhe_ops_contrib._checks import Array

#: Pairs' probabilities stay this far from 0 and 1.
_MARGIN = 1e-7
#: Rounds for arrays, as in LIBSVM. It ends when all samples are near enough.
_MOST_ROUNDS = 100
#: Rounds where the computation is traced, and cannot end early: few samples need more than three.
_TRACED_ROUNDS = 12


def coupled(odds: Array, classes: int) -> Array:
    """Each class's probability: (N, classes), from odds: (N, pairs), pairs in the order (0, 1), (0, 2)...

    1 / (1 + e^odds) is the probability of a pair's first class against its second.
    """
    q = _quadratic(odds, classes)
    p: Any = np.ones_like(odds[:, :1]) * np.full(classes, 1 / classes)
    can_end = isinstance(odds, np.ndarray)
    for _ in range(max(_MOST_ROUNDS, classes) if can_end else _TRACED_ROUNDS):
        products = np.sum(q * np.expand_dims(p, 1), axis=2)
        mean = np.sum(p * products, axis=1, keepdims=True)
        error = np.max(np.abs(products - mean), axis=1, keepdims=True)
        far = np.greater_equal(error, 0.005 / classes)
        if can_end and not far.any():
            break
        p = np.where(far, _round(p, products, mean, q, classes), p)
    return p


def _quadratic(odds: Array, classes: int) -> Array:
    """Q: (N, classes, classes)."""
    # The logistic of -odds, without overflow on either side.
    first = np.exp(np.minimum(-odds, 0)) / (1 + np.exp(-np.abs(odds)))
    first = np.clip(first, _MARGIN, 1 - _MARGIN)
    second = 1 - first
    pairs = list(combinations(range(classes), 2))
    diagonal = np.eye(classes)
    on_first = np.array([np.diag(diagonal[i]) for i, _ in pairs])
    on_second = np.array([np.diag(diagonal[j]) for _, j in pairs])
    between = np.array([np.outer(diagonal[i], diagonal[j]) for i, j in pairs])
    between = between + between.transpose(0, 2, 1)

    def spread(values: Array, places: Array) -> Array:
        return np.sum(np.expand_dims(values, (2, 3)) * places, axis=1)

    return (
        spread(second * second, on_first)
        + spread(first * first, on_second)
        - spread(first * second, between)
    )


def _round(p: Array, products: Array, mean: Array, q: Array, classes: int) -> Array:
    """One round over the classes, each moved to its best place in turn and all scaled to a sum of 1.

    Args:
        products: Qp, (N, classes).
        mean: p'Qp, (N, 1).
    """
    for t, unit in enumerate(np.eye(classes)):
        row = q[:, t]
        square = row[:, t : t + 1]
        step = (mean - products[:, t : t + 1]) / square
        total = 1 + step
        mean = (mean + step * (step * square + 2 * products[:, t : t + 1])) / (total * total)
        products = (products + step * row) / total
        p = (p + step * unit) / total
    return p
