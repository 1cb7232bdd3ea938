"""Graph pass: what never decreases is computed before a maximum, not after it.

max(f(a), f(b)) = f(max(a, b)). Under encryption a maximum reads integers that a look-up has made of a
product's result, so a function before the maximum joins that look-up and costs nothing. After it, it
takes a look-up for each result: at 4 bits a 2x2 MaxPool between a Conv and a Relu costs 9,097 M, behind
the Relu 7,960 M. A function of a model's input may even run before encryption.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ._wiring import Wiring

if TYPE_CHECKING:
    # Importing them imports onnx, which listing operators should not cost.
    from fhe_core import Graph, Node

_MAXIMA = frozenset(("GlobalMaxPool", "MaxPool", "ReduceMax"))

# What moves elements and may stand between a maximum and a function.
_LAYOUT = frozenset(("Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"))

# What needs integers: a function before none of these shapes the output, after decryption.
_PRODUCTS = frozenset(("AveragePool", "Conv", "ConvTranspose", "Gemm", "MatMul", *_MAXIMA))


def _always(attributes: Mapping[str, Any]) -> bool:
    return True


def _rises(*names: str) -> Callable[[Mapping[str, Any]], bool]:
    """Whether a function does not decrease by its factors, which are positive by default."""
    return lambda attributes: all(attributes.get(name, 1.0) >= 0 for name in names)


# Functions that never decrease, and are defined for every number, by their attributes.
_MONOTONE: Mapping[str, Callable[[Mapping[str, Any]], bool]] = {
    **dict.fromkeys(("Asinh", "Atan", "Ceil", "Clip", "Erf", "Exp", "Floor", "Relu"), _always),
    **dict.fromkeys(("Round", "Sigmoid", "Sinh", "Softplus", "Softsign", "Tanh"), _always),
    **dict.fromkeys(
        ("Celu", "Elu", "HardSigmoid", "LeakyRelu", "ThresholdedRelu"), _rises("alpha")
    ),
    "Selu": _rises("alpha", "gamma"),
}


def functions_before_maxima(graph: Graph) -> Graph:
    """The graph with functions that never decrease moved to before the maxima that they follow.

    Only where nothing else reads what is between, or what the maximum reads, and not where the function
    only shapes an output. Models that were trained for integers stay as they are.
    """
    from fhe_core.graphs import is_trained

    from fhe_core import get_registry

    if not any(node.op_type in _MAXIMA for node in graph.nodes):
        return graph
    if is_trained(graph, get_registry()):
        return graph
    while True:
        wiring = Wiring(graph)
        moved = (_moved(node, wiring) for node in graph.nodes)
        found = next(filter(None, moved), None)
        if found is None:
            return graph
        graph = found


def _moved(function: Node, wiring: Wiring) -> Graph | None:
    """The graph with one function before its maximum; None where it is none, or better stays."""
    chain = _chain_before(function, wiring)
    if not chain or not _is_computed_on(function, wiring):
        return None
    data = chain[0].inputs[0]
    if wiring.only_reader(data) is not chain[0]:
        # For other readers it is quantized as it is: then the function would take look-ups of its own.
        return None
    (result,) = function.writes
    name = wiring.fresh(result)
    first = replace(function, inputs=(data, *function.inputs[1:]), outputs=(name,))
    changed = {
        function: (),
        chain[0]: (first, replace(chain[0], inputs=(name, *chain[0].inputs[1:]))),
    }
    last = changed.get(chain[-1], (chain[-1],))
    changed[chain[-1]] = (*last[:-1], replace(last[-1], outputs=(result, *chain[-1].outputs[1:])))
    nodes = (new for node in wiring.graph.nodes for new in changed.get(node, (node,)))
    return replace(wiring.graph, nodes=tuple(nodes))


def _chain_before(function: Node, wiring: Wiring) -> list[Node]:
    """The maximum that a function follows, and the layout between them; nothing if there is none."""
    rises = _MONOTONE.get(function.op_type)
    if function.domain or rises is None or not rises(function.attributes):
        return []
    # The bounds of a Clip are constants, or it is a function of several tensors.
    if any(name and name not in wiring.graph.constants for name in function.inputs[1:]):
        return []
    chain: list[Node] = []
    reader, name = function, function.inputs[0]
    while wiring.only_reader(name) is reader and (node := wiring.producers.get(name)) is not None:
        others = [other for other in node.inputs[1:] if other]
        if node.domain or len(node.writes) > 1 or not wiring.graph.constants.keys() >= {*others}:
            return []
        chain.insert(0, node)
        if node.op_type in _MAXIMA:
            return chain
        if node.op_type not in _LAYOUT:
            return []
        reader, name = node, node.inputs[0]
    return []


def _is_computed_on(function: Node, wiring: Wiring) -> bool:
    """Whether something after a function needs its integers."""
    names, seen = list(function.writes), set(function.writes)
    while names:
        for node in wiring.readers.get(names.pop(), []):
            if node.op_type in _PRODUCTS:
                return True
            names += [name for name in node.writes if name not in seen]
            seen.update(node.writes)
    return False
