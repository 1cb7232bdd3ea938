"""Remarks of optimisation passes over integer programs, and the bootstraps that they count."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fhe_core.program.nodes import BATCH, Node
from fhe_core.program.program import Program


@dataclass(frozen=True)
class Remark:
    """One pass's effect at one place.

    Attributes:
        name: of the pass.
        node: the ONNX node that computes the accumulator, whose look-ups or outputs became fewer.
        lookups: how many fewer one inference takes; 0 where only arithmetic became less.
        says: a sentence: what went, and why it may.
        exact: whether every input keeps its result, as long as no accumulator leaves its width. Else it is
            kept where the input does what the calibration data did, and ``says`` tells how often others
            did not.
    """

    name: str
    node: str
    lookups: int
    says: str
    exact: bool = True


def elements(node: Node) -> int:
    """How many integers a sample has there."""
    return math.prod(n for n in node.shape if n != BATCH)


def each_costs(looked_up: Node) -> int:
    """Bootstraps of one element: the look-up, and one for each bit that an exact rounding drops before it."""
    (source,) = looked_up.inputs
    exact = source.op == "round" and source.attributes["exact"]
    return 1 + (source.attributes["dropped"] if exact else 0)


def lookups(program: Program) -> int:
    """Bootstraps that one inference takes."""
    rounds = [node for node in program.nodes if node.op == "round" and node.attributes["exact"]]
    dropped = sum(elements(node) * node.attributes["dropped"] for node in rounds)
    return sum(map(elements, program.lookups)) + int(dropped)


def place(node: Node) -> str:
    """The name of the ONNX node that a node comes from; for a look-up, of what computes the accumulator."""
    node = node.inputs[0] if node.op == "lookup" else node
    return node.where.node or (node.origin.output if node.origin else node.op)
