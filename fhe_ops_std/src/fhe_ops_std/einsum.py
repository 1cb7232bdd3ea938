"""Einsum: sums of products by Einstein's convention, as matrix products where there is a sum."""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._precision import precise, rounded

Array = NDArray[Any]

#: More than this makes no difference to the order of products.
_LONG = 2**10


def einsum(*inputs: Array, equation: str) -> Array:
    """The sum over all subscripts that the output does not have of the inputs' products.

    ``equation`` gives each input's subscripts, an ellipsis for axes without one, and after "->"
    the output's; without "->", those that occur once, in alphabetical order.
    """
    if not inputs:
        raise ValueError("Einsum takes at least one input")
    operands = [precise(x) for x in inputs]
    *labels, out = subscripts(equation, [x.ndim for x in operands])
    path: Sequence[Any] = (tuple(range(len(operands))),)
    if len(operands) > 2:
        full = f"{','.join(labels)}->{out}"
        # The order follows from sizes; a batch of any size stands for one that nobody knows yet.
        sizes = [[min(int(size), _LONG) for size in x.shape] for x in operands]
        shapes = [np.broadcast_to(np.float32(0), size) for size in sizes]
        path = np.einsum_path(full, *shapes, optimize="greedy")[0][1:]
    for positions in path:
        taken = [(operands.pop(i), labels.pop(i)) for i in sorted(positions, reverse=True)]
        needed = set(out).union(*labels)
        kept = "".join(dict.fromkeys(c for _, own in taken for c in own if c in needed))
        kept = kept if operands else out
        operands.append(_contracted([x for x, _ in taken], [own for _, own in taken], kept))
        labels.append(kept)
    y = rounded(operands[0], inputs[0].dtype)
    # NumPy's sums over all axes are numbers.
    return y if y.shape else np.asarray(y)


def subscripts(equation: str, ranks: Sequence[int]) -> list[str]:
    """The subscripts of each input and of the output, with letters in place of the ellipsis."""
    given, arrow, out = equation.replace(" ", "").partition("->")
    labels = given.split(",")
    if len(labels) != len(ranks):
        raise ValueError(f"{equation!r} has {len(labels)} inputs, the node {len(ranks)}")
    free = [c for c in string.ascii_letters if c not in equation]
    hidden = [rank - len(own.replace("...", "")) for rank, own in zip(ranks, labels, strict=True)]
    for own, count in zip(labels, hidden, strict=True):
        if count < 0 or (count and "..." not in own):
            raise ValueError(f"{own!r} in {equation!r} stands for an input of another rank")
    letters = "".join(free[: max(hidden)])

    def spelled(own: str, count: int) -> str:
        # Axes under an ellipsis broadcast, so they are counted from the last one.
        return own.replace("...", letters[len(letters) - count :])

    if not arrow:
        every = given.replace("...", "").replace(",", "")
        out = "..." + "".join(sorted(c for c in set(every) if every.count(c) == 1))
    return [*map(spelled, labels, hidden), spelled(out, len(letters))]


def _contracted(operands: Sequence[Array], labels: Sequence[str], out: str) -> Array:
    """One step: a matrix product of two operands where it is one, else what NumPy does.

    Written without `numpy.einsum` wherever no subscript occurs twice in an operand: that is what can also be
    recorded, for a client to compute.
    """
    sizes = [dict(zip(own, x.shape, strict=True)) for x, own in zip(operands, labels, strict=True)]
    if len(operands) == 2 and operands[0].dtype.kind in "fc":
        shared = [c for c in sizes[0] if c in sizes[1]]
        summed = [c for c in shared if c not in out]
        if summed and all(sizes[0][c] == sizes[1][c] for c in shared):
            return _product(operands, labels, shared, summed, out)
        if not summed and all(sizes[0][c] == sizes[1][c] for c in shared):
            a, b = (_placed(x, own, out) for x, own in zip(operands, labels, strict=True))
            return a * b
    if len(operands) == 1:
        return _arranged(operands[0], labels[0], out)
    return np.einsum(f"{','.join(labels)}->{out}", *operands)


def _product(
    operands: Sequence[Array],
    labels: Sequence[str],
    shared: Sequence[str],
    summed: Sequence[str],
    out: str,
) -> Array:
    """A matrix product over ``summed`` for each element of the other shared subscripts."""
    batch = [c for c in shared if c in out]
    own = [[c for c in out if c in label and c not in shared] for label in labels]
    orders = [[*batch, *own[0], *summed], [*batch, *summed, *own[1]]]
    # Diagonals are taken, and subscripts of one operand alone summed up, before the product.
    a, b = (
        _arranged(x, label, order) for x, label, order in zip(operands, labels, orders, strict=True)
    )
    outer = a.shape[: len(batch)]
    rows = a.shape[len(batch) : len(batch) + len(own[0])]
    columns = b.shape[len(batch) + len(summed) :]
    inner = math.prod(a.shape[len(batch) + len(rows) :])
    y = np.matmul(
        a.reshape(*outer, math.prod(rows), inner), b.reshape(*outer, inner, math.prod(columns))
    )
    order = [*batch, *own[0], *own[1]]
    return np.transpose(y.reshape((*outer, *rows, *columns)), [order.index(c) for c in out])


def _arranged(x: Array, labels: str, order: Sequence[str]) -> Array:
    """The axes of ``x`` in another order, diagonals taken, and summed over those that ``order`` lacks."""
    if len(set(labels)) != len(labels):
        return np.asarray(np.einsum(f"{labels}->{''.join(order)}", x))
    if gone := tuple(i for i, c in enumerate(labels) if c not in order):
        x = np.sum(x, axis=gone, dtype=x.dtype)
    kept = [c for c in labels if c in order]
    return np.transpose(x, [kept.index(c) for c in order])


def _placed(x: Array, labels: str, out: str) -> Array:
    """The same with an axis of one element for each subscript of ``out`` that the operand does not have."""
    y = _arranged(x, labels, [c for c in out if c in labels])
    for axis, c in enumerate(out):
        if c not in labels:
            y = np.expand_dims(y, axis)
    return y


IMPLEMENTATIONS: tuple[tuple[str, int, Callable[..., Any]], ...] = (("Einsum", 12, einsum),)
