"""Graph, Node and ValueInfo: an ONNX graph without protobuf."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fhe_core.errors import Where


@dataclass(frozen=True)
class ValueInfo:
    """The declared type of a graph input or output.

    ``dtype`` is None for strings and for what is not a tensor (sequences, maps). ``shape`` is None
    where the rank is unknown; a dimension is an int, a name, or None where nothing is said of it.
    ``label`` is the name of an output where that is not the tensor's own: several outputs may be
    one tensor, and an output may be an input.
    """

    name: str
    dtype: np.dtype | None
    shape: tuple[int | str | None, ...] | None
    label: str = ""

    def __str__(self) -> str:
        dtype = "any type" if self.dtype is None else self.dtype.name
        if self.shape is None:
            return f"{dtype} of any shape"
        return f"{dtype}[{', '.join('?' if d is None else str(d) for d in self.shape)}]"


# Attributes hold arrays, whose == is elementwise: nodes and graphs compare by identity.
@dataclass(frozen=True, eq=False)
class Node:
    """One operation.

    Args:
        name: unique in its graph: the ONNX node's name, or its first output where that is empty or
            taken.
        op_type: the operator's name.
        domain: its domain, ``""`` for ai.onnx.
        opset: the version that the model imports for that domain.
        inputs: tensor names, ``""`` for an optional input that is left out.
        outputs: tensor names, ``""`` for an output that nobody asked for.
        attributes: int, float, str, read-only ``np.ndarray``, ``Graph``, or a tuple of these.
        captures: tensors of the surrounding graph that the node's subgraphs read.
    """

    name: str
    op_type: str
    domain: str
    opset: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    captures: tuple[str, ...] = ()

    @property
    def reads(self) -> tuple[str, ...]:
        """Every tensor that the node depends on, through its subgraphs too."""
        return (*filter(None, self.inputs), *self.captures)

    @property
    def writes(self) -> tuple[str, ...]:
        """Every tensor that the node produces."""
        return tuple(filter(None, self.outputs))

    @property
    def outputs_wanted(self) -> tuple[bool, ...]:
        """For each output place whether the node has it."""
        return tuple(map(bool, self.outputs))

    def where(self, pack: str | None = None) -> Where:
        """The node as the place that an error is about."""
        return Where(self.name, self.op_type, self.domain, self.opset, pack)


@dataclass(frozen=True, eq=False)
class Graph:
    """A graph whose nodes are in an order in which they can run.

    ``inputs`` leaves out initializers, which are ``constants``: read-only arrays by name.
    ``opsets`` maps each imported domain (``""`` for ai.onnx) to its version.
    """

    name: str
    inputs: tuple[ValueInfo, ...]
    outputs: tuple[ValueInfo, ...]
    nodes: tuple[Node, ...]
    constants: Mapping[str, np.ndarray]
    opsets: Mapping[str, int]

    @property
    def input_names(self) -> tuple[str, ...]:
        """The names of ``inputs``, in order."""
        return tuple(info.name for info in self.inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        """The tensors that ``outputs`` are, in order."""
        return tuple(info.name for info in self.outputs)

    @property
    def output_labels(self) -> tuple[str, ...]:
        """What the model calls its outputs, in order: their labels, or the tensors' names."""
        return tuple(info.label or info.name for info in self.outputs)

    def free_names(self) -> tuple[str, ...]:
        """Tensors that the graph reads and does not define: what a subgraph captures."""
        defined = {*self.input_names, *self.constants}
        free: dict[str, None] = {}
        for node in self.nodes:
            free.update(dict.fromkeys(name for name in node.reads if name not in defined))
            defined.update(node.writes)
        free.update(dict.fromkeys(name for name in self.output_names if name not in defined))
        return tuple(free)


def live_nodes(graph: Graph) -> list[Node]:
    """The nodes that some output depends on, in order."""
    wanted = set(graph.output_names)
    live = []
    for node in reversed(graph.nodes):
        if not wanted.isdisjoint(node.writes):
            live.append(node)
            wanted.update(node.reads)
    return live[::-1]
