"""Outputs of products that nothing reads are not computed.

Where channels lost their look-ups, some slices of an accumulator are taken and the others are not. The
taking moves through what works on each element alone to the product, whose weights it cuts. That spares
arithmetic, which costs little beside look-ups, but not nothing where a product is large.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from fhe_core.program.nodes import Node
from fhe_core.program.program import Program
from fhe_core.program.remarks import Remark, place
from fhe_core.program.rewriting import Array, bounds, rewritten


def without_dead_channels(program: Program) -> tuple[Program, list[Remark]]:
    """The program with products of only those outputs that are read."""
    readers: dict[int, int] = {}
    for node in program.nodes:
        for source in node.inputs:
            readers[id(source)] = readers.get(id(source), 0) + 1
    for node in program.outputs:
        readers[id(node)] = readers.get(id(node), 0) + 1
    found: list[Remark] = []

    def change(node: Node, moved: Node) -> Node:
        (source,) = node.inputs if len(node.inputs) == 1 else (node,)
        if node.op != "take" or np.ndim(node.attributes["indices"]) != 1:
            return moved
        axis = node.attributes["axis"] % len(node.shape)
        indices = node.attributes["indices"] % source.shape[axis]
        if len(np.unique(indices)) == source.shape[axis]:
            return moved
        cut: list[Remark] = []
        result = _part(moved.inputs[0], source, indices, axis, readers, cut)
        if result is None:
            return moved
        found.extend(cut)
        return result

    result = rewritten(program, change)
    return (program, []) if result is program else (result, found)


def _part(
    moved: Node,
    original: Node,
    indices: Array,
    axis: int,
    readers: Mapping[int, int],
    cut: list[Remark],
) -> Node | None:
    """Only the slices at ``indices`` of a tensor, its product computing no others; None where it has none.

    Args:
        moved: what became of ``original``.
        readers: how many nodes read each, by ``id``: what another node reads is needed as it is.
        cut: gets what is saved.
    """
    if moved.op != original.op or readers[id(original)] != 1:
        return None
    size = moved.shape[axis]
    if moved.op in _WEIGHT_AXES:
        weight_axis = _WEIGHT_AXES[moved.op](moved, axis)
        if weight_axis is None:
            return None
        weights = np.take(moved.attributes["weights"], indices, weight_axis)
        says = f"{size - len(indices)} of {size} outputs are read by nothing: their weights go"
        cut.append(Remark("dead-channel elimination", place(moved), 0, says))
        return _slices(moved, moved.inputs, indices, axis, {"weights": weights})
    if moved.op not in _ELEMENTWISE or any(node.shape != moved.shape for node in moved.inputs):
        return None
    pairs = zip(moved.inputs, original.inputs, strict=True)
    inputs = [_part(new, old, indices, axis, readers, cut) for new, old in pairs]
    constants: dict[str, Array] = {
        name: _constant_slices(moved.attributes[name], indices, axis - len(moved.shape))
        for name in ("offset", "factor")
        if name in moved.attributes
    }
    parts = tuple(part for part in inputs if part is not None)
    if len(parts) < len(inputs):
        return None
    return _slices(moved, parts, indices, axis, constants)


_ELEMENTWISE = ("shift", "scale", "negative", "add", "subtract")


def _product_axis(node: Node, axis: int) -> int | None:
    """The axis of the weights of a matrix product that is ``axis`` of the result."""
    rank = node.attributes["weights"].ndim
    along = -2 if node.attributes["left"] else -1
    return along if rank >= 2 and axis - len(node.shape) == along else None


def _channel_axis(node: Node, axis: int) -> int | None:
    """The same of a convolution. In groups, its input would have to be cut too."""
    return 0 if axis == 1 and node.attributes["group"] == 1 else None


_WEIGHT_AXES: dict[str, Callable[[Node, int], int | None]] = {
    "matmul": _product_axis,
    "conv": _channel_axis,
}


def _constant_slices(constant: Array, indices: Array, axis: int) -> Array:
    """Those of a constant that is broadcast, ``axis`` counted from the end."""
    stretched = -axis > constant.ndim or constant.shape[axis] == 1
    return constant if stretched else np.take(constant, indices, axis)


def _slices(
    node: Node, inputs: tuple[Node, ...], indices: Array, axis: int, constants: Mapping[str, Array]
) -> Node:
    low, high = (np.take(bound, indices, axis) for bound in bounds(node))
    # Tuning names whole kernels; it works on programs that nothing was left out of.
    kept = {name: value for name, value in node.attributes.items() if name != "kernel"}
    shape = (*node.shape[:axis], len(indices), *node.shape[axis + 1 :])
    attributes = {**kept, **constants}
    return replace(node, inputs=inputs, shape=shape, low=low, high=high, attributes=attributes)
