"""Drops look-ups whose answer is known: channels whose tables hold one value everywhere.

A neuron that never becomes positive is such a channel after its ReLU. The channel's elements are taken out
before the look-up, and their constants put back after it, by layout operations, which cost nothing.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fhe_core.program.nodes import BATCH, Node
from fhe_core.program.tensor import Tensor, node


def without_constant_tables(looked_up: Node) -> Node:
    """``looked_up``, or an equal tensor with fewer look-ups."""
    tables, which = looked_up.attributes["tables"], looked_up.attributes["which"]
    constant = (tables == tables[:, :1]).all(axis=1)
    sample = tuple(1 if n == BATCH else n for n in looked_up.shape)
    known = np.broadcast_to(constant[which], sample)
    found = _dead_slices(looked_up, known)
    if found is None:
        return looked_up
    axis, dead = found
    live = np.flatnonzero(~dead)
    narrow = _looked_up(looked_up, live, axis)
    values = np.where(known, np.broadcast_to(tables[which, 0], sample), 0)
    return _restored(narrow, looked_up, live, axis, values)


def _dead_slices(looked_up: Node, known: NDArray[np.bool_]) -> tuple[int, NDArray[np.bool_]] | None:
    """The axis along which most elements go, and which of its slices are constant."""
    best: tuple[int, int, NDArray[np.bool_]] | None = None
    for axis, size in enumerate(looked_up.shape):
        if size == BATCH:
            continue
        others = tuple(i for i in range(known.ndim) if i != axis)
        dead = known.all(axis=others)
        count = int(dead.sum()) * known.size // known.shape[axis]
        # Something has to remain: a circuit cannot compute with constants alone.
        if count and not dead.all() and (best is None or count > best[0]):
            best = (count, axis, dead)
    return None if best is None else best[1:]


def _taken(source: Node, indices: NDArray[np.intp], axis: int) -> Node:
    shape = (*source.shape[:axis], len(indices), *source.shape[axis + 1 :])
    sample = tuple(1 if n == BATCH else n for n in source.shape)
    low, high = (np.broadcast_to(bound, sample) for bound in (source.low, source.high))
    return replace(
        source,
        op="take",
        inputs=(source,),
        shape=shape,
        low=np.take(low, indices, axis=axis),
        high=np.take(high, indices, axis=axis),
        attributes={"indices": indices, "axis": axis},
    )


def _looked_up(looked_up: Node, live: NDArray[np.intp], axis: int) -> Node:
    (source,) = looked_up.inputs
    if source.op == "round":
        # The rounding belongs to the look-up: elements are taken out before it.
        taken = _taken(source.inputs[0], live, axis)
        read = replace(source, inputs=(taken,), shape=taken.shape)
    else:
        read = _taken(source, live, axis)
    sample = tuple(1 if n == BATCH else n for n in looked_up.shape)
    cut = {
        name: np.take(np.broadcast_to(array, sample), live, axis=axis)
        for name, array in (
            ("which", looked_up.attributes["which"]),
            ("low", looked_up.low),
            ("high", looked_up.high),
        )
    }
    return replace(
        looked_up,
        inputs=(read,),
        shape=read.shape,
        low=cut["low"],
        high=cut["high"],
        attributes={**looked_up.attributes, "which": cut["which"]},
    )


def _restored(
    narrow: Node, original: Node, live: NDArray[np.intp], axis: int, values: NDArray[np.int64]
) -> Node:
    """``narrow`` with constants where slices were taken out: padded by one slice, then put in order."""
    widths = tuple((0, int(i == axis)) for i in range(len(narrow.shape)))
    padded_shape = tuple(n + after for n, (_, after) in zip(narrow.shape, widths, strict=True))
    padded = node(
        "pad", Tensor(narrow), shape=padded_shape, widths=widths, value=np.zeros((), np.int64)
    )
    indices = np.full(original.shape[axis], len(live))
    indices[live] = np.arange(len(live))
    result = node("take", padded, shape=original.shape, indices=indices, axis=axis)
    if values.any():
        # Live elements have constants of their own here where single elements never change.
        dead = (indices == len(live)).reshape([-1 if i == axis else 1 for i in range(values.ndim)])
        result = node("shift", result, shape=original.shape, offset=np.where(dead, values, 0))
    made = result.value
    while isinstance(made, Node) and made is not narrow:
        made.width, made.signed, made.origin = original.width, original.signed, original.origin
        made = made.inputs[0]
    final = result.value
    assert isinstance(final, Node)  # noqa: S101  # `node` makes nothing else
    return final
