"""A program in layers: each ends in an accumulator that look-ups or the client read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fhe_core.program.nodes import Node
from fhe_core.program.program import Program
from fhe_core.program.remarks import elements
from fhe_core.program.widths import bits_of

#: Nodes that are no linear or layout operation.
_HELPERS = {"input", "round", "lookup"}


@dataclass(frozen=True)
class Layer:
    """Linear and layout operations up to an accumulator, and the look-ups that read it.

    Attributes:
        name: of the accumulator, as in the plan.
        numbers: of its nodes in the program, in order.
        nodes: the same.
        inputs: what it reads from other layers, and of the model's inputs.
        is_output: whether the client decrypts the accumulator, or what a look-up makes of it.
    """

    name: str
    numbers: tuple[int, ...]
    nodes: tuple[Node, ...]
    inputs: tuple[Node, ...]
    is_output: bool

    @property
    def lookups(self) -> int:
        """Elements that are looked up."""
        return sum(elements(node) for node in self.nodes if node.op == "lookup")

    @property
    def origins(self) -> tuple[str, ...]:
        """Names of the ONNX nodes that its linear and layout operations come from."""
        names = (n.where.node for n in self.nodes if n.op not in _HELPERS and n.where.op)
        return tuple(dict.fromkeys(filter(None, names)))

    @property
    def bits_in(self) -> int | None:
        """Of the widest integer that it starts from."""
        return max((bits_of(*node.bounds) for node in self.inputs), default=None)

    @property
    def weight_bits(self) -> int | None:
        """Of the widest weight that it multiplies by; None where it only adds or moves."""
        weights = [n.attributes["weights"] for n in self.nodes if "weights" in n.attributes]
        return max((bits_of(int(w.min()), int(w.max())) for w in weights if w.size), default=None)

    @property
    def accumulator_bits(self) -> int:
        """Of the accumulator in the circuit."""
        return max(node.width for node in self._before_rounding())

    @property
    def rounding(self) -> Node | None:
        """The rounding before its look-ups, the one that keeps most bits; None if all are kept."""
        rounds = [node for node in self.nodes if node.op == "round"]
        return max(rounds, key=lambda node: node.width, default=None)

    def _before_rounding(self) -> Sequence[Node]:
        linear = [node for node in self.nodes if node.op not in _HELPERS]
        return linear or self.inputs or self.nodes


def layers_of(program: Program) -> list[Layer]:
    """The layers in the order in which their accumulators are computed.

    What several layers read belongs to the first of them.
    """
    outputs = set(map(id, program.outputs))
    # The layer of each node by where it ends and its name: consumers come first.
    ends: dict[int, tuple[int, str]] = {}
    for number, node in reversed(list(enumerate(program.nodes))):
        if node.op == "input":
            continue
        if node.op == "lookup":
            ends[id(node)] = (number, _name(node.inputs[0]))
        elif id(node) in outputs:
            ends[id(node)] = (number, _name(node))
        for source in node.inputs:
            if source.op not in ("lookup", "input"):
                ends[id(source)] = min(ends.get(id(source), ends[id(node)]), ends[id(node)])
    members: dict[str, list[int]] = {}
    for number, node in enumerate(program.nodes):
        if id(node) in ends:
            members.setdefault(ends[id(node)][1], []).append(number)
    found = [_layer(name, numbers, program) for name, numbers in members.items()]
    return sorted(found, key=lambda layer: layer.numbers[-1])


def _layer(name: str, numbers: Sequence[int], program: Program) -> Layer:
    nodes = tuple(program.nodes[number] for number in numbers)
    own = {id(node) for node in nodes}
    inputs = {
        id(source): source for node in nodes for source in node.inputs if id(source) not in own
    }
    is_output = any(id(node) in own for node in program.outputs)
    return Layer(name, tuple(numbers), nodes, tuple(inputs.values()), is_output)


def _name(node: Node) -> str:
    return node.name or (node.origin.output if node.origin else node.op)
