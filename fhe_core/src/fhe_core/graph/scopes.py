"""What a name means at some place in a model: in its graph, in a subgraph, in a function's body."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from typing import Any

from fhe_core.graph.functions import Key, Types


class SameNames(dict[str, str]):
    """In the model's own graph, and its subgraphs, a tensor keeps its name."""

    def __missing__(self, name: str) -> str:
        return name


class LocalNames(dict[str, str]):
    """In a function's body, what the call does not name gets a name that the model does not have."""

    def __init__(self, call: str, fresh: Callable[[str], str]) -> None:
        super().__init__({"": ""})
        self._call, self._fresh = call, fresh

    def __missing__(self, name: str) -> str:
        self[name] = found = self._fresh(f"{self._call}/{name}")
        return found


class InnerNames(dict[str, str]):
    """In a subgraph, some of its own tensors have another name than around it."""

    def __init__(self, around: Mapping[str, str], own: Mapping[str, str]) -> None:
        super().__init__(own)
        self._around = around

    def __missing__(self, name: str) -> str:
        return self._around[name]


@dataclass(frozen=True)
class Scope:
    """Where a node stands: in the model's own graph, or in a function's body at one of its calls.

    ``names`` are the tensors' names in the graph that results, ``types`` those by the names here.
    ``aliases`` maps those of a function's inputs, and of its outputs if they are inputs, to the
    tensors that they are. ``call`` is the calling node's name, and ``calls`` are the functions
    around.
    """

    opsets: Mapping[str, int]
    names: Mapping[str, str]
    types: Types
    aliases: dict[str, str] = field(default_factory=dict)
    call: str = ""
    calls: tuple[Key, ...] = ()

    def read(self, name: str) -> str:
        """The tensor of the graph that results."""
        name = self.names[name]
        return self.aliases.get(name, name)

    def define(self, name: str) -> str:
        """The same for a tensor that begins here, whatever had its name elsewhere."""
        name = self.names[name]
        self.aliases.pop(name, None)
        return name

    def node_name(self, proto: Any, taken: set[str]) -> str:
        """The node's own name, or its first output where that is empty or taken."""
        output = next(filter(None, proto.output), proto.op_type)
        if not self.call:
            return proto.name if proto.name and proto.name not in taken else output
        return unused(f"{self.call}/{proto.name or output}", taken)


def defined(graph: Any) -> list[str]:
    """The names of what a GraphProto defines itself, its subgraphs aside."""
    sparse = [tensor.values.name for tensor in graph.sparse_initializer]
    named = [entry.name for part in (graph.input, graph.initializer) for entry in part]
    produced = [name for node in graph.node for name in node.output if name]
    return [*named, *sparse, *produced]


def unused(name: str, used: Container[str]) -> str:
    """The name, with a number after it if it is in use.

    The number is found by bisection: thousands of nodes of one name are quick to tell apart.
    """
    if name not in used:
        return name
    low, high = 1, 2  # `name_low` is in use, or the name itself
    while f"{name}_{high}" in used:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if f"{name}_{middle}" in used else (low, middle)
    return f"{name}_{high}"
