"""Where a circuit's cost lies, node by node, and what its keys weigh.

Concrete says what a circuit costs in all, how often each key is used where, and how large the keys are. Its
optimizer's measure counts multiplications and additions: a key switch from m to n dimensions with l levels
takes m l + (2 m l - 1)(n + 1) + 1, and a bootstrap of n dimensions with polynomials of size N, k + 1 of them
and l levels takes n [(k + 1)(l + 1)(N log2 N + N) + (k + 1)^2 l N]. Summed over all uses that is the
complexity, to the last digit, with two exceptions: inputs of 11 bits and more take another construction, to
whose uses what is left belongs; and a circuit without look-ups costs what its multiplications do.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from fhe_core.compiler.concrete_backend.emission import FUNCTION, sample_shape, tag_of
from fhe_core.program.nodes import Node
from fhe_core.program.program import Program
from fhe_core.quantization.module import Spending

#: Concrete's numbers for these kinds of keys.
_BOOTSTRAP, _KEY_SWITCH = 1, 2


def spending(program: Program, server: Any, complexity: float) -> Spending:
    """How the cost of a compiled program is shared out over its nodes.

    Args:
        program: compiled with the tags of ``emission``.
    """
    prices = _prices(server)
    spent: Counter[int] = Counter()
    costs: dict[int, float] = {}
    unpriced: Counter[int] = Counter()
    numbers = {tag_of(number): number for number in range(len(program.nodes))}
    for row in _feedback(server).statistics:
        number = numbers.get(_tag(row.location))
        for kind, key in row.keys:
            if number is None or int(kind) not in (_BOOTSTRAP, _KEY_SWITCH):
                continue
            bootstraps = int(kind) == _BOOTSTRAP
            if bootstraps:
                spent[number] += row.count
            if row.operation.name == "WOP_PBS":
                unpriced[number] += row.count * bootstraps
            else:
                price = prices[int(kind), key]
                costs[number] = costs.get(number, 0.0) + row.count * price
    left = complexity - sum(costs.values())
    shares = unpriced if unpriced else Counter(costs) if costs else _multiplications(program)
    total = sum(shares.values())
    for number, share in shares.items():
        costs[number] = costs.get(number, 0.0) + left * share / total
    return Spending(costs, dict(spent), _sizes(server))


def _feedback(server: Any) -> Any:
    return server._library.get_program_compilation_feedback().get_circuit_feedback(FUNCTION)


def _tag(location: str) -> str:
    """The tag in ``loc("@tag | file":line:column)``."""
    _, _, rest = location.partition("@")
    return rest.partition(" ")[0].partition('"')[0]


def _prices(server: Any) -> Mapping[tuple[int, int], float]:
    """What one use of each key costs, by its kind and number."""
    keys = json.loads(server.client_specs.serialize())["keyset"]
    prices: dict[tuple[int, int], float] = {}
    for key in keys["lweKeyswitchKeys"]:
        p = key["params"]
        terms = p["inputLweDimension"] * p["levelCount"]
        prices[_KEY_SWITCH, key["id"]] = terms + (2 * terms - 1) * (p["outputLweDimension"] + 1) + 1
    for key in keys["lweBootstrapKeys"]:
        p = key["params"]
        size, width, levels = p["polynomialSize"], p["glweDimension"] + 1, p["levelCount"]
        transforms = width * (levels + 1) * (size * math.log2(size) + size)
        products = width * width * levels * size
        prices[_BOOTSTRAP, key["id"]] = p["inputLweDimension"] * (transforms + products)
    return prices


def _multiplications(program: Program) -> Counter[int]:
    """How many multiplications each node takes; one of a node that has none, so that there is a share."""
    found: Counter[int] = Counter()
    for number, node in enumerate(program.nodes):
        weights = node.attributes.get("weights")
        if weights is not None:
            found[number] = math.prod(sample_shape(node)) * _terms(node, weights.shape)
    return found or Counter({len(program.nodes) - 1: 1})


def _terms(node: Node, shape: tuple[int, ...]) -> int:
    """How many products one result of a node with weights is the sum of."""
    if node.op == "conv":
        return math.prod(shape[1:])
    return shape[-1] if node.attributes["left"] or len(shape) == 1 else shape[-2]


def _sizes(server: Any) -> dict[str, int]:
    return {
        "bootstrap_keys": int(server.size_of_bootstrap_keys),
        "key_switch_keys": int(server.size_of_keyswitch_keys),
        "inputs": int(server.size_of_inputs(FUNCTION)),
        "outputs": int(server.size_of_outputs(FUNCTION)),
    }
