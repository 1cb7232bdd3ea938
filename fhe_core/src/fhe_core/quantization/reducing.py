"""A model with fewer look-ups: activations that are computed in part or not at all, and trained constants.

What takes an activation's place is affine, so that it joins the products around it. The packs say how that
is written in nodes, and their passes join them.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.errors import PlanError
from fhe_core.graph.ir import Graph, Node
from fhe_core.graph.passes import alternatives as graph_alternatives
from fhe_core.graph.passes import reduce_activation, run_passes
from fhe_core.graph.simplify import simplify
from fhe_core.graph.steps import Resolver
from fhe_core.quantization.plan import ReductionPlan
from fhe_core.quantization.plan_fit import check_names

Array = NDArray[Any]


def reduced_graph(
    graph: Graph,
    registry: Resolver,
    reductions: Mapping[str, ReductionPlan],
    constants: Mapping[str, Array],
    alternatives: Sequence[str],
    samples: Mapping[str, Array],
) -> Graph | None:
    """The simplified graph with these reductions, and constants in place of its own, in another form.

    Args:
        constants: by "node:input"; those of nodes that reductions left nothing of are left out.
        alternatives: the forms that it is brought into in the end, each "pack.name".
        samples: inputs, on which what the packs do is checked.

    Returns:
        None where no pack can write one of the reductions.

    Raises:
        PlanError: a reduction, a constant or an alternative does not fit the model.
        PackError: a pack's pass, reduction or alternative fails.
    """
    known = {node.name for node in graph.nodes}
    check_names("reductions", reductions, known, "node")
    for name, entry in reductions.items():
        node = next((node for node in graph.nodes if node.name == name), None)
        if node is None:
            continue  # An earlier one left nothing of it but a part of a product.
        live = np.asarray(entry.live).astype(bool)
        slope, offset = (np.asarray(x, np.float64) for x in (entry.slope, entry.offset))
        found = reduce_activation(graph, registry, node, live, slope, offset)
        if found is None:
            return None
        graph = found
    if reductions:
        graph, _ = run_passes(graph, registry, samples)
        graph = simplify(graph, registry=registry)
    known |= {node.name for node in graph.nodes}
    check_names("constants", constants, _keys(constants, known), "constant input")
    graph = with_constants(graph, constants)
    for name in alternatives:
        forms = dict(forms_of(graph, registry, samples))
        if name not in forms:
            raise PlanError(
                f"the plan brings the model into the form {name!r}, which no installed pack has for it",
                expected=", ".join(forms) or "no alternatives",
                got=name,
                fix="install the packs with which the plan was made, in the same versions",
            )
        graph = forms[name]
    return graph


def check_reduction(
    name: str,
    entry: ReductionPlan,
    node: Node,
    constants: Mapping[str, Any],
    shape: tuple[int, ...],
) -> None:
    """Raises PlanError for what cannot take the place of a node's output.

    Args:
        shape: of that output, with the batch dimension 1.
    """
    varying = [each for each in node.reads if each not in constants]
    given = [np.shape(part) for part in (entry.live, entry.slope, entry.offset)]
    try:
        fits = np.broadcast_shapes(*given, shape) == shape
    except ValueError:
        fits = False
    if len(varying) == 1 and len(node.writes) == 1 and fits:
        return
    raise PlanError(
        f"reductions[{name!r}] of the plan does not fit the model",
        where=node.where(),
        expected=f"an activation of one tensor, and arrays that broadcast to {shape}",
        got=f"{len(varying)} tensors, and shapes {', '.join(map(str, given))}",
        fix="use the plan with the model that it was made for",
    )


def forms_of(
    graph: Graph, registry: Resolver, samples: Mapping[str, Array]
) -> list[tuple[str, Graph]]:
    """Other forms of a graph that compute the same, each with its name, "pack.name".

    Raises:
        PackError: an alternative fails, or computes something else.
    """
    return [
        (str(each), simplify(found, registry=registry))
        for each, found in graph_alternatives(graph, registry, samples)
    ]


def left_out(reduction: tuple[str, ReductionPlan]) -> str:
    """A sentence for the user about an activation that is not all computed, by its node."""
    name, entry = reduction
    live = np.asarray(entry.live).astype(bool)
    if not live.any():
        return (
            f"{name}: an affine function takes the activation's place, and the weights around it were "
            'trained for that; savings="exact" leaves it'
        )
    return (
        f"{name}: {int(live.sum())} of {live.size} channels are computed, constants take the others' "
        'place, and the weights around them were trained for that; savings="exact" leaves them'
    )


def with_constants(graph: Graph, constants: Mapping[str, Array]) -> Graph:
    """The graph whose nodes read other constants: by "node:input".

    Raises:
        PlanError: one has another shape than what it replaces.
    """
    held = dict(graph.constants)
    nodes = []
    for node in graph.nodes:
        inputs = list(node.inputs)
        for index, name in enumerate(inputs):
            key = constant_key(node.name, index)
            if key not in constants or name not in graph.constants:
                continue
            old, new = graph.constants[name], np.asarray(constants[key])
            if old.shape != new.shape:
                raise PlanError(
                    f"constants[{key!r}] of the plan does not fit the model",
                    where=node.where(),
                    expected=f"shape {old.shape}",
                    got=f"shape {new.shape}",
                    fix="use the plan with the model that it was made for",
                )
            # A name of its own: what two nodes share in the model is trained for each.
            inputs[index] = f"{key}.trained"
            held[inputs[index]] = new.astype(old.dtype)
        nodes.append(replace(node, inputs=tuple(inputs)))
    return replace(graph, nodes=tuple(nodes), constants=held)


def _keys(constants: Iterable[str], nodes: Container[str]) -> list[str]:
    """Those that a node may have."""
    return [key for key in constants if key.rpartition(":")[0] in nodes]


def constant_key(node: str, index: int) -> str:
    """The plan's name of a trained constant: an input of a node, by position."""
    return f"{node}:{index}"
