"""What would make an integer narrower, for errors about one that is too wide for any circuit."""

from __future__ import annotations

import math

import numpy as np

from fhe_core.program.nodes import Node
from fhe_core.program.rules import RULES

#: How many of the weights, and of the tensors that they multiply, are named.
_NAMED = 2


def narrower(node: Node) -> str:
    """What to ask for that makes an accumulator narrower, as imperative clauses.

    They name the weights that the accumulator sums products with and the integers that these multiply,
    those with the most bits first.
    """
    weighted, sources = _behind(node)
    weighted.sort(key=lambda n: -_weight_bits(n) - math.log2(_terms(n)))
    sources.sort(key=lambda n: -_bits(n))
    ways = [
        f"give fewer bits to the weights of {_name(n)!r}, which have {_weight_bits(n)} in sums of "
        f"{_terms(n)} products: {_asked(n, _weight_bits(n))}"
        for n in weighted[:_NAMED]
    ]
    ways += [
        f"give fewer bits to {_multiplied(n)}, which has {_bits(n)}: {_asked(n, _bits(n))}"
        for n in sources[:_NAMED]
    ]
    return "; or ".join(ways)


def accumulator_name(node: Node) -> str:
    """The plan's name for what a look-up reads, or the ONNX output that it computes."""
    return node.name or (node.origin.output if node.origin else node.op)


def _behind(node: Node) -> tuple[list[Node], list[Node]]:
    """Nodes with weights, and inputs and look-ups, that linear operations lead from to ``node``.

    A look-up that gives more bits than it reads, as the squares of a product do, is as wide as these make it.
    """
    weighted: list[Node] = []
    sources: list[Node] = []
    seen: set[int] = set()
    stack = [node]
    while stack:
        part = stack.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        widens = part.op == "lookup" and _bits(part) > _bits(part.inputs[0])
        if widens or part.op == "round" or (part.op in RULES and RULES[part.op].linear):
            stack += part.inputs
            if "weights" in part.attributes:
                weighted.append(part)
        else:
            sources.append(part)
    return weighted, sources


def _name(node: Node) -> str:
    return node.where.node or accumulator_name(node)


def _multiplied(node: Node) -> str:
    """The model's input, or the result of a look-up by the ONNX node that asked for it as integers."""
    return f"the input {node.name!r}" if node.op == "input" else f"what {_name(node)!r} reads"


def _asked(node: Node, bits: int) -> str:
    """Half as many bits, as an argument."""
    keys = {"input": node.name, "lookup": "op_inputs"}
    return f"n_bits={ {keys.get(node.op) or _name(node): max(2, bits // 2)} }"


def _weight_bits(node: Node) -> int:
    """The bits of the weights with their sign, as n_bits counts them."""
    return int(np.abs(node.attributes["weights"]).max(initial=0)).bit_length() + 1


def _bits(node: Node) -> int:
    low, high = node.bounds
    return max((high - low).bit_length(), 1)


def _terms(node: Node) -> int:
    """How many products one element sums up."""
    shape = node.attributes["weights"].shape
    if node.op == "conv":
        return max(1, math.prod(shape[1:]))
    inner = shape[-1] if node.attributes["left"] else shape[max(len(shape) - 2, 0)]
    return max(1, int(inner))
