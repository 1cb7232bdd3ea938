"""Who reads and writes each tensor of a graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    # Importing them imports onnx, which listing operators should not cost.
    from fhe_core import Graph, Node


T = TypeVar("T")


class Wiring:
    """Who reads and writes each tensor of a graph, and names that nobody has."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.producers = {name: node for node in graph.nodes for name in node.writes}
        self.readers: dict[str, list[Node]] = {}
        for node in graph.nodes:
            for name in node.reads:
                self.readers.setdefault(name, []).append(node)
        self.taken = {*graph.input_names, *graph.constants, *self.producers}
        self.taken.update(node.name for node in graph.nodes)
        self._worked_out: dict[Any, Any] = {}

    def of_graph(self, rule: Callable[[Graph], T]) -> T:
        """What a rule says of the graph, worked out once."""
        if rule not in self._worked_out:
            self._worked_out[rule] = rule(self.graph)
        found: T = self._worked_out[rule]
        return found

    def only_reader(self, name: str) -> Node | None:
        """The one node that reads a tensor, if nothing else does and it is no output."""
        readers = self.readers.get(name, [])
        alone = len(readers) == 1 and name not in self.graph.output_names
        return readers[0] if alone else None

    def fresh(self, name: str) -> str:
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name

    def renewed(self, name: str) -> str:
        """What to call a constant's new value: the same, unless something else reads the old one."""
        return name if self.only_reader(name) else self.fresh(name)
