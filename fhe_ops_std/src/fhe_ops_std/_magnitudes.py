"""Writes activations as lines and magnitudes, and what is computed from them as one product each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ._composed import DENSE_WEIGHTS
from ._linearity import WEIGHTED, Region, between
from ._probing import Probe, TensorType
from ._spans import Halves
from ._wiring import Wiring
from .composing import one_op

if TYPE_CHECKING:
    # Importing them imports onnx, which listing operators should not cost.
    from fhe_core import Graph, Node

Array = NDArray[Any]


class Draft:
    """A graph in the making.

    Attributes:
        nodes: so far.
        types: of the tensors, those that were added too.
        magnitudes: the magnitude's name by the activation's output.
    """

    def __init__(self, graph: Graph, types: Mapping[str, TensorType]) -> None:
        self.wiring = Wiring(graph)
        self.nodes: list[Node] = []
        self.constants = dict(graph.constants)
        self.types = dict(types)
        self.magnitudes: dict[str, str] = {}

    @property
    def graph(self) -> Graph:
        return replace(self.wiring.graph, nodes=tuple(self.nodes), constants=self.constants)

    def split(self, node: Node, slope: Array, scale: Array) -> None:
        """Adds what computes an activation as the sum of a line and a magnitude.

        Args:
            slope: of the activation below zero; float64.
            scale: of the magnitude, which takes the node's name; float64.
        """
        read, result = node.inputs[0], node.outputs[0]
        scaled, magnitude = read, self.wiring.fresh(f"{result}.magnitude")
        if np.any(scale != 1):
            scaled = self.wiring.fresh(f"{read}.scaled")
            self._multiply(read, scale.astype(self.types[read].dtype), scaled)
        self._add(node.name, "Abs", (scaled,), magnitude, read)
        self.magnitudes[result] = magnitude
        straight, bent = (1 + slope) / 2, (1 - slope) / 2 / scale
        if not straight.any():
            self._multiply(magnitude, bent, result)
            return
        parts = self.wiring.fresh(f"{result}.line"), self.wiring.fresh(f"{result}.bend")
        self._multiply(read, straight, parts[0])
        self._multiply(magnitude, bent, parts[1])
        self._add(self.wiring.fresh(f"{result}.Add"), "Add", parts, result, read)

    def _multiply(self, read: str, factor: Array, output: str) -> None:
        constant = self.wiring.fresh(f"{output}.factor")
        self.constants[constant] = factor
        self._add(self.wiring.fresh(f"{output}.Mul"), "Mul", (read, constant), output, read)

    def _add(
        self, name: str, op_type: str, inputs: tuple[str, ...], output: str, like: str
    ) -> None:
        self.nodes.append(_node(self.wiring, name, op_type, inputs, output))
        self.types[output] = self.types[like]


def joined(draft: Draft, split: Halves) -> Graph | None:
    """The graph of a draft with each end computed by one product; None if rounding spoils one.

    What the ends were computed by is left, for nothing.
    """
    graph = draft.graph
    wiring = Wiring(graph)
    constants = dict(graph.constants)
    named: set[str] = set()
    nodes: list[Node] = []
    for node in graph.nodes:
        for end in (name for name in node.writes if name in split.ends):
            sources = [draft.magnitudes.get(name, name) for name in split.ends[end]]
            inner = between(sources, end, wiring)
            name = _product_name(inner, split)
            name = wiring.fresh(f"{name}.{end}") if name in named else name
            named.add(name)
            found = _product(sources, inner, end, name, draft.types, wiring)
            if found is None:
                return None
            nodes += found[0]
            constants |= found[1]
        left = tuple("" if name in split.ends else name for name in node.outputs)
        nodes.append(replace(node, outputs=left))
    return replace(graph, nodes=tuple(nodes), constants=constants)


def _product_name(inner: Sequence[Node], split: Halves) -> str:
    """That of the last product which nothing needs any more, as it was computed from a magnitude."""
    return next(
        node.name
        for node in reversed(inner)
        if node.op_type in WEIGHTED and any(map(split.reaches, node.reads))
    )


def _product(
    sources: Sequence[str],
    inner: Sequence[Node],
    end: str,
    name: str,
    types: Mapping[str, TensorType],
    wiring: Wiring,
) -> tuple[list[Node], dict[str, Array]] | None:
    """The nodes that compute an end by one product of its sources, and their constants.

    Args:
        inner: what computes it so far.
        name: of the product.
    """
    nodes, whole = _concatenation(sources, end, types, wiring)
    apart: list[Node] = []
    places: dict[str, Array] = {}
    columns = 0
    for source in sources:
        shape, place = types[source].shape, wiring.fresh(f"{source}.places")
        places[place] = np.arange(columns, columns + prod(shape)).reshape(shape)
        columns += prod(shape)
        apart.append(_node(wiring, place, "Gather", (whole, place), source, axis=1))
    # One vector alone is whole as it is.
    region = Region(whole, end, (*(apart if whole not in sources else ()), *inner))
    graph = replace(wiring.graph, constants={**wiring.graph.constants, **places})
    known = {**types, whole: TensorType(types[end].dtype, (columns,))}
    found = one_op(Probe(region, graph, known), wiring, DENSE_WEIGHTS, name)
    return found and ([*nodes, *found[0]], found[1])


def _concatenation(
    sources: Sequence[str], end: str, types: Mapping[str, TensorType], wiring: Wiring
) -> tuple[list[Node], str]:
    """The nodes that make one vector of several tensors, and its name."""
    nodes, parts = [], []
    for name in sources:
        flat = name
        if len(types[name].shape) != 1:
            flat = wiring.fresh(f"{name}.flat")
            called = wiring.fresh(f"{flat}.Flatten")
            nodes.append(_node(wiring, called, "Flatten", (name,), flat, axis=1))
        parts.append(flat)
    if len(parts) == 1:
        return nodes, parts[0]
    whole = wiring.fresh(f"{end}.parts")
    called = wiring.fresh(f"{whole}.Concat")
    return [*nodes, _node(wiring, called, "Concat", tuple(parts), whole, axis=1)], whole


def _node(
    wiring: Wiring, name: str, op_type: str, inputs: tuple[str, ...], output: str, **attributes: Any
) -> Node:
    from fhe_core import Node

    opset = wiring.graph.opsets[""]
    return Node(name, op_type, "", opset, inputs, (output,), attributes)
