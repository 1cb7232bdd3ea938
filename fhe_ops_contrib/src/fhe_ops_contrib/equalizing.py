"""Graph pass: features of very different size enter a linear model scaled to be alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fhe_ops_contrib._checks import DOMAIN, Array
from fhe_ops_contrib.wiring import Wiring

if TYPE_CHECKING:
    # Importing them imports onnx, which listing operators should not cost.
    from fhe_core import Graph, Node


#: Ops on the features of a sample, as many as there are, that the client runs before it encrypts.
_OF_EACH = ("Binarizer", "Cast", "Imputer", "Normalizer", "Scaler")


def equalize_coefficients(graph: Graph, samples: Mapping[str, Any]) -> Graph:
    """The graph with a Scaler before each linear model whose features are in units too far apart.

    Args:
        samples: inputs, arrays by name.
    """
    from fhe_core.graphs import feature_factors, feature_ranges

    wiring = Wiring(graph)
    changed: dict[Node, list[Node]] = {}
    models = {node: _coefficients(node) for node in graph.nodes}
    names = {node.inputs[0] for node, found in models.items() if found is not None}
    ranges = feature_ranges(graph, names, samples) if names else {}
    for node, coefficients in models.items():
        name = node.inputs[0] if node.inputs else ""
        if coefficients is None or name not in ranges:
            continue
        factors = feature_factors(*ranges[name], np.abs(coefficients).max(axis=0))
        if factors is None:
            continue
        divided = tuple((coefficients / factors).reshape(-1).tolist())
        linear = replace(node, attributes={**node.attributes, "coefficients": divided})
        join = wiring.producer(name, "Concat")
        parts = _parts(join, len(factors), graph, wiring) if join and wiring.private(name) else None
        if parts is None and (join is not None or not _is_raw(name, wiring)):
            continue
        if join is None or parts is None:
            scaler = _scaler(node, name, factors, wiring)
            changed[node] = [scaler, replace(linear, inputs=scaler.outputs)]
            continue
        scalers = [_scaler(node, part, factors[start:stop], wiring) for part, start, stop in parts]
        inputs = tuple(scaler.outputs[0] for scaler in scalers)
        changed[join] = [*scalers, replace(join, inputs=inputs)]
        changed[node] = [linear]
    if not changed:
        return graph
    return replace(graph, nodes=tuple(n for node in graph.nodes for n in changed.get(node, [node])))


def _is_raw(name: str, wiring: Wiring) -> bool:
    """Whether a tensor is an input, or the client computes it from one."""
    while (node := wiring.maker(name)) is not None:
        if node.op_type not in (*_OF_EACH, "ArrayFeatureExtractor"):
            return False
        name = node.inputs[0]
    return True


def _scaler(node: Node, name: str, factors: Array, wiring: Wiring) -> Node:
    """What multiplies the features of a tensor before a linear model."""
    scaled = wiring.fresh(f"{name}.equalized")
    return replace(
        node,
        name=wiring.fresh(f"{scaled}.Scaler"),
        op_type="Scaler",
        opset=1,
        inputs=(name,),
        outputs=(scaled,),
        attributes={"offset": (0.0,) * len(factors), "scale": tuple(factors.tolist())},
    )


def _parts(
    join: Node, count: int, graph: Graph, wiring: Wiring
) -> list[tuple[str, int, int]] | None:
    """What a concatenation of features joins, and which features of the result these are; None where that
    cannot be told."""
    if join.attributes["axis"] not in (1, -1):
        return None
    sizes = [_width(name, graph, wiring) for name in join.inputs]
    if sizes.count(None) > 1:
        return None
    rest = count - sum(size or 0 for size in sizes)
    ends = np.cumsum([rest if size is None else size for size in sizes]).tolist()
    if ends[-1] != count or rest < 0 or min(np.diff([0, *ends])) < 1:
        return None
    return list(zip(join.inputs, [0, *ends[:-1]], ends, strict=True))


def _width(name: str, graph: Graph, wiring: Wiring) -> int | None:
    """How many features a tensor has, as far as the way back to a choice of them or to an input tells."""
    while (node := wiring.maker(name)) is not None:
        indices = (
            wiring.constant(node.inputs[1]) if node.op_type == "ArrayFeatureExtractor" else None
        )
        if indices is not None:
            return int(np.size(indices))
        if node.op_type not in _OF_EACH:
            return None
        name = node.inputs[0]
    shape = next((info.shape for info in graph.inputs if info.name == name), None)
    return shape[-1] if shape and isinstance(shape[-1], int) else None


def _coefficients(node: Node) -> Array | None:
    """Those of a linear model, (rows, features); None of another op, or where its attributes do not tell."""
    if node.domain != DOMAIN or node.op_type not in ("LinearRegressor", "LinearClassifier"):
        return None
    given = np.asarray(node.attributes.get("coefficients", ()), np.float64).reshape(-1)
    rows = node.attributes.get("targets", 1)
    if node.op_type == "LinearClassifier":
        rows = len(node.attributes.get("intercepts", ()))
    if rows < 1 or not given.size or given.size % rows or not np.isfinite(given).all():
        return None
    return given.reshape(rows, -1)
