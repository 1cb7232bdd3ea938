"""How passes change a finished program: nodes are replaced, never changed.

What replaces a look-up computes some of its elements and lays them out again. Layout costs nothing, and
widths stay as they are decided: everything that is added joins a component that is there already.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.program.nodes import BATCH, Node, Shape
from fhe_core.program.program import Program
from fhe_core.program.rules import RULES

Array = NDArray[Any]


def sample_shape(node: Node) -> Shape:
    return tuple(1 if n == BATCH else n for n in node.shape)


def bounds(node: Node) -> tuple[Array, Array]:
    """Least and largest value of each element, of the shape of one sample."""
    low, high = (np.broadcast_to(bound, sample_shape(node)) for bound in (node.low, node.high))
    return low, high


def rewritten(program: Program, change: Callable[[Node, Node], Node]) -> Program:
    """The program with other nodes.

    Args:
        change: given a node of the program, and the same reading what became of its inputs, says what
            takes its place: an equal tensor, of its shape, width and signedness.
    """
    done: dict[int, Node] = {}
    for node in program.nodes:
        inputs = tuple(done[id(source)] for source in node.inputs)
        same = all(new is old for new, old in zip(inputs, node.inputs, strict=True))
        moved = node if same else replace(node, inputs=inputs)
        done[id(node)] = change(node, moved)
    result = Program.of([done[id(node)] for node in program.outputs], program.offsets)
    # The client encrypts every input of the model: a circuit without one of them would have another face.
    return result if len(result.inputs) == len(program.inputs) else program


def derived(op: str, source: Node, shape: Shape, **attributes: Any) -> Node:
    """A linear or layout node on ``source``, in its component."""
    low, high = RULES[op].interval([bounds(source)], attributes)
    return _in_component(Node(op, (source,), shape, low, high, attributes), source)


def added(first: Node, second: Node) -> Node:
    """The sum of two tensors of one component."""
    low, high = RULES["add"].interval([bounds(first), bounds(second)], {})
    return _in_component(Node("add", (first, second), first.shape, low, high), first)


def _in_component(node: Node, like: Node) -> Node:
    node.origin, node.width, node.signed = like.origin, like.width, like.signed
    return node


def taken(source: Node, indices: Array, axis: int) -> Node:
    """The slices of ``source`` at ``indices`` along ``axis``."""
    shape = (*source.shape[:axis], len(indices), *source.shape[axis + 1 :])
    return derived("take", source, shape, indices=indices, axis=axis)


def joined(parts: Sequence[Node]) -> Node:
    """Tensors of one component, of shapes (batch, n), side by side."""
    if len(parts) == 1:
        return parts[0]
    attributes = {"axis": 1}
    low, high = RULES["concatenate"].interval([bounds(part) for part in parts], attributes)
    shape = (BATCH, sum(part.shape[1] for part in parts))
    made = Node("concatenate", tuple(parts), shape, low, high, attributes)
    return _in_component(made, parts[0])


def flattened(source: Node) -> Node:
    """``source`` with all elements of a sample along one axis; its batch comes first."""
    shape = (BATCH, int(np.prod(source.shape[1:])))
    return source if shape == source.shape else derived("reshape", source, shape, target=shape)


def unflattened(source: Node, shape: Shape) -> Node:
    return source if shape == source.shape else derived("reshape", source, shape, target=shape)


def read_in_part(looked_up: Node, indices: Array, axis: int | None) -> Node:
    """The look-up of some of what it reads: of slices along an axis, or of single elements, in one row.

    They are taken before the rounding, which belongs to the look-up.

    Args:
        indices: of slices, or flat numbers of elements where ``axis`` is None.
    """

    def move(node: Node) -> Node:
        return taken(flattened(node), indices, 1) if axis is None else taken(node, indices, axis)

    def part(array: Array) -> Array:
        whole = np.broadcast_to(array, sample_shape(looked_up))
        if axis is None:
            return whole.reshape(1, -1)[:, indices]
        return np.take(whole, indices, axis=axis)

    (source,) = looked_up.inputs
    if source.op == "round":
        moved = move(source.inputs[0])
        read = replace(source, inputs=(moved,), shape=moved.shape)
    else:
        read = move(source)
        # Still the accumulator that the plan knows.
        read.name = source.name
    return replace(
        looked_up,
        inputs=(read,),
        shape=read.shape,
        low=part(looked_up.low),
        high=part(looked_up.high),
        attributes={**looked_up.attributes, "which": part(looked_up.attributes["which"])},
    )


def computed_by(looked_up: Node, by: NDArray[np.int64]) -> Node:
    """An equal tensor that looks up fewer elements. Its batch comes first.

    Args:
        by: for each element of a sample, in the shape of one, the flat number of the element that has its
            answer, which has its own; or -1: it becomes 0. Some element has its own.
    """
    axis, places = _slices(looked_up, by) or (None, by.reshape(-1))
    own = np.unique(places[places >= 0])
    narrow = read_in_part(looked_up, own, axis)
    order = np.searchsorted(own, np.maximum(places, 0))
    whole = laid_out(narrow, np.where(places < 0, -1, order), 1 if axis is None else axis)
    return unflattened(whole, looked_up.shape)


def laid_out(source: Node, places: NDArray[np.int64], axis: int) -> Node:
    """The slices of ``source`` at ``places`` along ``axis``, zeros where a place is -1."""
    count = source.shape[axis]
    if (places < 0).any():
        widths = tuple((0, int(i == axis)) for i in range(len(source.shape)))
        shape = (*source.shape[:axis], count + 1, *source.shape[axis + 1 :])
        source = derived("pad", source, shape, widths=widths, value=np.zeros((), np.int64))
        places = np.where(places < 0, count, places)
    return source if _in_order(source, places, axis) else taken(source, places, axis)


def _in_order(source: Node, places: NDArray[np.int64], axis: int) -> bool:
    return np.array_equal(places, np.arange(source.shape[axis]))


def _slices(node: Node, by: NDArray[np.int64]) -> tuple[int, NDArray[np.int64]] | None:
    """The axis whose whole slices ``by`` tells about, and the slice that has each one's answer.

    None where it tells about single elements, that is about slices once all axes are one.
    """
    own = np.arange(by.size).reshape(by.shape)
    for axis, size in enumerate(node.shape):
        if size in (1, BATCH):
            continue
        rows, own_rows = (np.moveaxis(a, axis, 0).reshape(size, -1) for a in (by, own))
        places = np.where(
            rows[:, 0] < 0, -1, np.unravel_index(np.maximum(rows[:, 0], 0), by.shape)[axis]
        )
        if np.array_equal(rows, np.where(places[:, None] < 0, -1, own_rows[places])):
            return axis, places
    return None
