"""Alternative: affine ops in a row, or side by side, become one.

Two products without an activation in between are one product, and so is a sum of branches of one tensor.
Encrypted inference then quantizes nothing in between, which is what costs: additions and products with
constants are almost free, and every intermediate tensor that a product reads takes a look-up for each
element. Models that were trained for integers are left alone, as their scales lie in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fhe_core import FheError

from ._affine import NUMPY_BROADCASTING, is_finite
from ._composed import FORMS, Step
from ._linearity import WEIGHTED, Region, regions
from ._probing import Probe, TensorType, double, tensor_types
from ._wiring import Wiring

if TYPE_CHECKING:
    # Importing them imports onnx, which listing operators should not cost.
    from fhe_core import Graph, Node, NumpyModule

Array = NDArray[Any]

# How many times as many weights one op may have as the region: a product of two thin factors is left
# as it is.
_GROWTH = 4

# How far rounding the weights may move a result, as a share of the largest, in units of their type's
# precision.
_ROUNDINGS = 16


def compose_linear(graph: Graph) -> Graph:
    """The graph with one Conv, Gemm or MatMul for each region of affine nodes that has several."""
    from fhe_core.graphs import is_trained

    from fhe_core import get_registry

    if graph.opsets.get("", 0) < NUMPY_BROADCASTING or not any(regions(Wiring(graph))):
        return graph
    types = {} if is_trained(graph, get_registry()) else tensor_types(graph)
    tried: set[tuple[str, str]] = set()
    while True:
        wiring = Wiring(graph)
        changed = (_composed(region, wiring, types, tried) for region in regions(wiring, types))
        found = next(filter(None, changed), None)
        if found is None:
            return graph
        graph = found


def composed(graph: Graph, samples: Mapping[str, Any]) -> Graph | None:
    """The same as an alternative: None where nothing is to be composed. ``samples`` decide nothing."""
    found = compose_linear(graph)
    return None if found is graph else found


def _composed(
    region: Region, wiring: Wiring, types: Mapping[str, TensorType], tried: set[tuple[str, str]]
) -> Graph | None:
    """The graph with one op for a region, unless that was tried, fails, or takes too many weights."""
    place, dtype = (region.start, region.end), types[region.start].dtype
    if place in tried or dtype != types[region.end].dtype:
        return None
    tried.add(place)
    spared = _spared(region, wiring)
    if not spared:
        return None
    # What others read too is computed twice.
    growth = _GROWTH if len(spared) == len(region.weighted) else 1
    limit = growth * _weights(region.weighted, wiring.graph)
    last = region.weighted[-1]
    name = last.name if last in spared else wiring.fresh(f"{last.name}.{region.end}")
    found = one_op(Probe(region, wiring.graph, types), wiring, limit, name)
    if found is None:
        return None
    chain, constants = found
    graph = replace(wiring.graph, constants={**wiring.graph.constants, **constants})
    return _replaced(graph, wiring.producers[region.end], chain)


def one_op(
    probe: Probe, wiring: Wiring, limit: int, name: str
) -> tuple[list[Node], dict[str, Array]] | None:
    """What computes the end of a region from its start with one op that has weights.

    Args:
        limit: on the number of weights.
        name: of the node that has them.

    Returns:
        Its nodes, whose names are taken in ``wiring``, and their constants; None if there is no form
        for it, or its weights don't fit into the model's type.
    """
    region, dtype = probe.region, probe.start.dtype
    for form in FORMS:
        steps = form(probe, limit) or []
        rounded = [_rounded(step, dtype) for step in steps]
        if not steps or not all(
            is_finite(each) for step in rounded for each in step.constants.values()
        ):
            continue
        chain, constants = _chain(rounded, region, name, wiring)
        graph = replace(wiring.graph, constants={**wiring.graph.constants, **constants})
        if _is_same(probe, double(graph, chain, region.start, probe.start.shape, region.end)):
            return chain, constants
    return None


def _spared(region: Region, wiring: Wiring) -> list[Node]:
    """The products of a region that nothing needs once its end is computed without them."""
    end = wiring.producers[region.end]
    other = replace(end, inputs=(region.start,))
    left = set(_replaced(wiring.graph, end, [other]).nodes)
    return [node for node in region.weighted if node not in left]


def _weights(products: Iterable[Node], graph: Graph) -> int:
    factors = (name for node in products for name in node.inputs[:2])
    return sum(graph.constants[name].size for name in factors if name in graph.constants)


def _rounded(step: Step, dtype: np.dtype[Any]) -> Step:
    """The step with its float constants in the model's type."""
    with np.errstate(over="ignore"):
        constants = {
            what: value.astype(dtype) if value.dtype.kind == "f" else value
            for what, value in step.constants.items()
        }
    return replace(step, constants=constants)


def _chain(
    steps: Sequence[Step], region: Region, name: str, wiring: Wiring
) -> tuple[list[Node], dict[str, Array]]:
    """The nodes that compute a region's end from its start, and their constants.

    Args:
        name: of the node that has the weights.
    """
    from fhe_core import Node

    nodes: list[Node] = []
    constants: dict[str, Array] = {}
    before, opset = region.start, wiring.graph.opsets[""]
    for step in steps:
        after = region.end
        if step is not steps[-1]:
            after = wiring.fresh(f"{region.end}.{step.op_type}")
        called = name if step.op_type in WEIGHTED else wiring.fresh(f"{name}.{step.op_type}")
        added = {wiring.fresh(f"{name}.{what}"): value for what, value in step.constants.items()}
        constants |= added
        reads, attributes = (before, *added), dict(step.attributes)
        nodes.append(Node(called, step.op_type, "", opset, reads, (after,), attributes))
        before = after
    return nodes, constants


def _replaced(graph: Graph, producer: Node, chain: Sequence[Node]) -> Graph:
    """The graph with other nodes in one's place, without what nothing needs any more."""
    from fhe_core.graphs import drop_dead_nodes

    nodes = (new for node in graph.nodes for new in (chain if node is producer else (node,)))
    return drop_dead_nodes(replace(graph, nodes=tuple(nodes)))


def _is_same(probe: Probe, composed: NumpyModule) -> bool:
    """Whether a region and what was read off it agree on samples, but for the rounding of weights."""
    samples = probe.samples()
    expected = probe(samples)
    try:
        found = composed(samples)
    except FheError:
        return False
    if expected is None or found.shape != expected.shape:
        return False
    tolerance = _ROUNDINGS * float(np.finfo(probe.start.dtype).eps)
    return bool(np.abs(found - expected).max() <= tolerance * np.abs(expected).max())
