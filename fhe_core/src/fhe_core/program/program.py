"""A whole integer program, ready to run: nodes in order, with widths and tables."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from fhe_core.program.nodes import Node, ordered


@dataclass(frozen=True)
class Program:
    """The integer part of a compiled model.

    Attributes:
        nodes: each after its inputs.
        outputs: the integer tensors that the client decrypts.
        offsets: what the client subtracts from each of them: they leave centred in their width.
    """

    nodes: tuple[Node, ...]
    outputs: tuple[Node, ...]
    offsets: tuple[Any, ...] = ()

    @classmethod
    def of(cls, outputs: Iterable[Node], offsets: Iterable[Any] | None = None) -> Program:
        outputs = tuple(outputs)
        nodes = tuple(n for n in ordered(outputs) if isinstance(n, Node))
        return cls(nodes, outputs, tuple(offsets or (0,) * len(outputs)))

    @property
    def inputs(self) -> tuple[Node, ...]:
        return tuple(node for node in self.nodes if node.op == "input")

    @property
    def lookups(self) -> tuple[Node, ...]:
        return tuple(node for node in self.nodes if node.op == "lookup")
