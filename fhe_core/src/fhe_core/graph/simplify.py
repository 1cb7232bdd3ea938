"""Generic clean-up of a graph: constants folded, equal nodes merged, dead nodes dropped.

Nothing here knows an operator by name. Each function takes a graph and returns a new one.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fhe_core.graph.folding import fold_constants
from fhe_core.graph.ir import Graph, Node, live_nodes
from fhe_core.graph.runner import NumpyModule
from fhe_core.graph.shapes import shape_values
from fhe_core.graph.steps import Resolver, Step, resolve_steps

# Constants up to this many elements are compared by content: axes, scales and scalars, which
# exporters repeat for each use. Comparing weights would cost more than it finds.
_COMPARED_ELEMENTS = 64


def simplify(graph: Graph, *, registry: Resolver | None = None) -> Graph:
    """The graph with constants folded, equal nodes merged, and what no output needs dropped.

    What the shapes of the inputs decide, whatever the batch, is constant. Inputs, outputs and the
    names of the tensors that remain stay as they are.

    Raises:
        UnsupportedOpError, ModelError: as from ``NumpyModule``.
    """
    net = NumpyModule(graph, registry=registry)
    return _simplified(graph, net.steps, net.folded)


def tidy(graph: Graph, registry: Resolver) -> Graph:
    """The same of a graph that perhaps cannot run: what nothing implements, or fails, stays."""
    steps, _ = resolve_steps(graph, registry)
    folded, _ = fold_constants(steps, graph.constants)
    return _simplified(graph, steps, folded)


def _simplified(graph: Graph, steps: Sequence[Step], folded: Mapping[str, Any]) -> Graph:
    graph = use_constants(graph, folded)
    graph = use_constants(graph, shape_values(graph, steps).constants)
    mergeable = {step.node for step in steps if step.deterministic}
    keep = [node for node in graph.nodes if node not in mergeable]
    return drop_dead_nodes(merge_equal_nodes(graph, keep=keep))


def use_constants(graph: Graph, folded: Mapping[str, Any]) -> Graph:
    """The graph without the nodes whose outputs are all among ``folded``, which join its constants.

    Args:
        graph: any graph.
        folded: constant values by name, as in ``NumpyModule.folded``.
    """
    nodes = tuple(node for node in graph.nodes if any(n not in folded for n in node.writes))
    return replace(graph, nodes=nodes, constants={**graph.constants, **folded})


def merge_equal_nodes(graph: Graph, *, keep: Iterable[Node] = ()) -> Graph:
    """The graph with one node for each operator, opset, inputs and attributes.

    Left alone are nodes with a subgraph, nodes whose output is a graph output or is read by a
    subgraph (its name is needed), and those in ``keep`` (which draw random numbers, say).
    """
    fixed = {*graph.output_names, *(name for node in graph.nodes for name in node.captures)}
    kept = set(keep)
    renamed = _equal_constants(graph.constants)
    first: dict[Hashable, Node] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        mergeable = node not in kept
        inputs = tuple(renamed.get(name, name) for name in node.inputs)
        node = node if inputs == node.inputs else replace(node, inputs=inputs)
        key = _key(node) if mergeable else None
        twin = first.setdefault(key, node) if key is not None else node
        if twin is node or not fixed.isdisjoint(node.outputs) or not _covers(twin, node):
            nodes.append(node)
        else:
            renamed.update(zip(node.outputs, twin.outputs, strict=False))
            renamed.pop("", None)
    return replace(graph, nodes=tuple(nodes))


def drop_dead_nodes(graph: Graph) -> Graph:
    """The graph without the nodes and constants that no output depends on; all inputs stay."""
    nodes = live_nodes(graph)
    wanted = {*graph.output_names, *(name for node in nodes for name in node.reads)}
    constants = {name: value for name, value in graph.constants.items() if name in wanted}
    return replace(graph, nodes=tuple(nodes), constants=constants)


def _covers(twin: Node, node: Node) -> bool:
    """Whether ``twin`` produces every output that ``node`` does."""
    return all(
        not name or (i < len(twin.outputs) and twin.outputs[i])
        for i, name in enumerate(node.outputs)
    )


def _equal_constants(constants: Mapping[str, Any]) -> dict[str, str]:
    """Names of small constants to the name of the first with the same content."""
    first: dict[Hashable, str] = {}
    renamed = {}
    for name, value in constants.items():
        if isinstance(value, np.ndarray) and value.size <= _COMPARED_ELEMENTS:
            twin = first.setdefault(frozen(value), name)
            if twin != name:
                renamed[name] = twin
    return renamed


def _key(node: Node) -> Hashable | None:
    """What nodes that compute the same have in common; None for those that are never merged."""
    try:
        attributes = frozenset((name, frozen(value)) for name, value in node.attributes.items())
    except TypeError:
        return None
    # How many outputs there are can decide what they are: Split.
    called = (node.domain, node.op_type, node.opset, len(node.outputs))
    return called, node.inputs, attributes


def frozen(value: Any) -> Hashable:
    """What attributes, or arrays, of equal type and content have in common.

    Raises:
        TypeError: a subgraph has no such key.
    """
    if isinstance(value, Graph):
        raise TypeError("a subgraph has no key")
    if isinstance(value, np.ndarray):
        content = tuple(value.ravel()) if value.dtype == object else value.tobytes()
        return value.dtype, value.shape, content
    if isinstance(value, tuple):
        return tuple(map(frozen, value))
    # Not the float itself: 0.0 == -0.0, and a NaN is unequal to itself.
    return type(value), value.hex() if isinstance(value, float) else value
