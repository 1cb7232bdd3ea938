"""Graph passes: the distances and neighbours that scikit-learn's models are exported as, found again.

skl2onnx spells distances out, as a loop over training samples or as |x|² - 2 x·c + |c|². As one operator
they take no look-up, and none of them can come out negative.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fhe_ops_contrib import distances
from fhe_ops_contrib._checks import DOMAIN, OWN_DOMAIN
from fhe_ops_contrib.wiring import Wiring

if TYPE_CHECKING:
    # Importing them imports onnx, which listing operators should not cost.
    from fhe_core import Graph, Node


def find_distances(graph: Graph) -> Graph:
    """Each Scan, and each sum of products, that computes squared distances to constants, as a CDist."""
    wiring = Wiring(graph)
    changed: dict[Node, Node | None] = {}
    for node in graph.nodes:
        if not node.domain and node.op_type == "Scan":
            changed.update(_from_scan(node, wiring))
        elif not node.domain and node.op_type == "Add":
            changed.update(_from_products(node, wiring))
    return _with(graph, changed)


def _from_scan(node: Node, wiring: Wiring) -> dict[Node, Node | None]:
    """Scan over the rows of a constant: (M, N) distances, and the Transpose behind it."""
    if len(node.inputs) != 2 or len(node.outputs) != 2 or not wiring.unused(node.outputs[0]):
        return {}
    vectors = wiring.constant(node.inputs[1])
    body = node.attributes["body"]
    plain = {"body", "num_scan_inputs"} == node.attributes.keys()
    kinds = [inner.op_type for inner in body.nodes]
    if vectors is None or vectors.ndim != 2 or not plain:
        return {}
    if kinds != ["Identity", "Sub", "ReduceSumSquare", "Identity"] or len(body.inputs) != 2:
        return {}
    _, difference, square, _ = body.nodes
    flat = dict(square.attributes) == {"axes": (1,), "keepdims": 0}
    turn = wiring.reader(node.outputs[1], "Transpose")
    if difference.inputs != body.input_names or not flat or turn is None:
        return {}
    if tuple(turn.attributes.get("perm", (1, 0))) != (1, 0):
        return {}
    return {node: None, turn: _cdist(turn, node.inputs[0], node.inputs[1])}


def _from_products(node: Node, wiring: Wiring) -> dict[Node, Node | None]:
    """|c|² + (|x|² + (-2 x·c + 0 |x|²)), as k-means has it."""
    for constant, sums in (node.inputs, node.inputs[::-1]):
        norms, inner = wiring.constant(constant), wiring.producer(sums, "Add")
        if norms is None or inner is None or not wiring.private(sums):
            continue
        for square, product in (inner.inputs, inner.inputs[::-1]):
            squares = wiring.producer(square, "ReduceSumSquare")
            gemm = wiring.producer(product, "Gemm")
            if squares is None or gemm is None or gemm.inputs[0] != squares.inputs[0]:
                continue
            if _is_product(gemm, square, norms, wiring) and _is_row_sum(squares, wiring):
                return {node: _cdist(node, gemm.inputs[0], gemm.inputs[1])}
    return {}


def _is_product(gemm: Node, square: str, norms: Any, wiring: Wiring) -> bool:
    """Whether a Gemm is -2 x·c of the vectors c with these squared norms, plus 0 times ``square``."""
    vectors = wiring.constant(gemm.inputs[1])
    given = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0, **gemm.attributes}
    if (given["alpha"], given["transA"], given["transB"]) != (-2.0, 0, 1) or vectors is None:
        return False
    if len(gemm.inputs) > 2 and gemm.inputs[2]:
        zero = wiring.producer(gemm.inputs[2], "Mul")
        others = [name for name in (zero.inputs if zero else ()) if name != square]
        factors = [wiring.constant(name) for name in others]
        if len(factors) != 1 or factors[0] is None or np.any(factors[0]):
            return False
    expected = np.square(vectors, dtype=np.float64).sum(axis=1)
    return norms.size == len(expected) and np.allclose(norms.reshape(-1), expected, rtol=1e-4)


def _is_row_sum(squares: Node, wiring: Wiring) -> bool:
    axes = squares.attributes.get("axes")
    if axes is None and len(squares.inputs) > 1:
        axes = wiring.constant(squares.inputs[1])
    kept = squares.attributes.get("keepdims", 1)
    return axes is not None and [int(axis) for axis in axes] == [1] and bool(kept)


def _cdist(node: Node, rows: str, vectors: str) -> Node:
    return replace(
        node,
        op_type="CDist",
        domain=distances.DOMAIN,
        opset=1,
        inputs=(rows, vectors),
        attributes={"metric": "sqeuclidean"},
    )


def find_neighbours(graph: Graph) -> Graph:
    """Each TopK of least elements whose indices only pick constant values, as Neighbours."""
    wiring = Wiring(graph)
    changed: dict[Node, Node | None] = {}
    for node in graph.nodes:
        if not node.domain and node.op_type == "TopK" and len(node.outputs) == 2:
            changed.update(_from_top(node, wiring))
    return _with(graph, changed)


def _from_top(node: Node, wiring: Wiring) -> dict[Node, Node | None]:
    """TopK, Flatten (of two dimensions, so nothing), ArrayFeatureExtractor of a constant, Reshape."""
    count = wiring.constant(node.inputs[1]) if len(node.inputs) > 1 else None
    least = not node.attributes.get("largest", 1) and node.attributes.get("axis", -1) in (1, -1)
    if count is None or not least or (node.outputs[0] and not wiring.unused(node.outputs[0])):
        return {}
    flatten = wiring.reader(node.outputs[1], "Flatten")
    indices = flatten.outputs[0] if flatten else node.outputs[1]
    pick = wiring.reader(indices, "ArrayFeatureExtractor", DOMAIN)
    shape = wiring.reader(pick.outputs[0], "Reshape") if pick else None
    if pick is None or shape is None or pick.inputs[1] != indices:
        return {}
    values, target = wiring.constant(pick.inputs[0]), wiring.constant(shape.inputs[1])
    k = int(count.reshape(-1)[0])
    if values is None or values.ndim != 1 or values.dtype == object or target is None:
        return {}
    if target.tolist() != [-1, k]:
        return {}
    found = replace(
        shape,
        op_type="Neighbours",
        domain=OWN_DOMAIN,
        opset=1,
        inputs=(node.inputs[0], pick.inputs[0]),
        attributes={"k": k},
    )
    gone: dict[Node, Node | None] = {node: None, pick: None, shape: found}
    return gone if flatten is None else {**gone, flatten: None}


def _with(graph: Graph, changed: dict[Node, Node | None]) -> Graph:
    if not changed:
        return graph
    left = (changed.get(node, node) for node in graph.nodes)
    return replace(graph, nodes=tuple(node for node in left if node is not None))
