"""Who makes and who reads each tensor of a graph."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # Importing them imports onnx, which listing operators should not cost.
    from fhe_core import Graph, Node


class Wiring:
    """A graph's tensors with their producers and how often each is read."""

    def __init__(self, graph: Graph) -> None:
        self.constants = graph.constants
        self._producers = {name: node for node in graph.nodes for name in node.writes}
        self._readers: dict[str, list[Node]] = {}
        for node in graph.nodes:
            for name in node.reads:
                self._readers.setdefault(name, []).append(node)
        self._uses = Counter(name for node in graph.nodes for name in node.reads)
        self._uses.update(graph.output_names)
        self._taken = {*graph.input_names, *graph.constants, *self._producers}

    def maker(self, name: str) -> Node | None:
        """The node that makes a tensor."""
        return self._producers.get(name)

    def producer(self, name: str, op_type: str, domain: str = "") -> Node | None:
        """The node that makes a tensor, if it is of this operator."""
        node = self._producers.get(name)
        return node if node and (node.domain, node.op_type) == (domain, op_type) else None

    def reader(self, name: str, op_type: str, domain: str = "") -> Node | None:
        """The only reader of a tensor that is no output, if it is of this operator."""
        readers = self._readers.get(name, [])
        if self._uses[name] != 1 or len(readers) != 1:
            return None
        (node,) = readers
        return node if (node.domain, node.op_type) == (domain, op_type) else None

    def unused(self, name: str) -> bool:
        """Whether nothing reads a tensor."""
        return not self._uses[name]

    def private(self, name: str) -> bool:
        """Whether a tensor is read once, and is no output."""
        return self._uses[name] == 1 and name in self._readers

    def constant(self, name: str) -> Any:
        """The array of a constant, or None."""
        return self.constants.get(name)

    def fresh(self, name: str) -> str:
        """A name like ``name`` that no tensor has."""
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name
