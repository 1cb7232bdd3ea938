"""Graph passes: the distances and neighbours that scikit-learn's models are exported as, found again.

skl2onnx spells distances out, as a loop over training samples or as |x|² - 2 x·c + |c|². As one operator
they take no look-up, and none of them can come out negative.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fhe_core import FheError
from fhe_ops_contrib import distances
from fhe_ops_contrib._checks import DOMAIN
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
    """Scan over the rows of a constant: (M, N) distances, and the Transpose behind it.

    However its body spells a distance: it is run on a few vectors.
    """
    if len(node.inputs) != 2 or len(node.outputs) != 2 or not wiring.unused(node.outputs[0]):
        return {}
    vectors, body = wiring.constant(node.inputs[1]), node.attributes.get("body")
    turn = wiring.reader(node.outputs[1], "Transpose")
    if vectors is None or vectors.ndim != 2 or not vectors.size or node.captures or turn is None:
        return {}
    others = (v for n, v in node.attributes.items() if n not in ("body", "num_scan_inputs"))
    if any(np.any(value) for value in others) or node.attributes.get("num_scan_inputs") != 1:
        return {}
    if tuple(turn.attributes.get("perm", (1, 0))) != (1, 0) or body is None:
        return {}
    metric = _metric(body, vectors)
    if metric is None:
        return {}
    return {node: None, turn: _cdist(turn, node.inputs[0], node.inputs[1], metric)}


def _metric(body: Graph, vectors: Any) -> str | None:
    """The metric of the distances between a body's two inputs, of which it returns the first too."""
    from fhe_core import NumpyModule

    rng = np.random.default_rng(0)
    rows = rng.normal(size=(5, vectors.shape[1])).astype(vectors.dtype)
    try:
        net = NumpyModule(body)
        results = [net(rows, vector) for vector in (*vectors[:2], rows[0])]
    except FheError:
        return None
    for result in results:
        if not isinstance(result, tuple) or len(result) != 2 or not np.array_equal(result[0], rows):
            return None
    for metric in distances.METRICS:
        expected = distances.cdist(rows, np.stack([*vectors[:2], rows[0]]), metric=metric).T
        found = [result[1] for result in results]
        if all(each.shape == expected.shape[1:] for each in found) and np.allclose(
            found, expected, rtol=1e-3, atol=1e-3
        ):
            return metric
    return None


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


def _cdist(node: Node, rows: str, vectors: str, metric: str = "sqeuclidean") -> Node:
    return replace(
        node,
        op_type="CDist",
        domain=distances.DOMAIN,
        opset=1,
        inputs=(rows, vectors),
        attributes={"metric": metric},
    )


def find_neighbours(graph: Graph) -> Graph:
    """Each pick of constants by the indices of a TopK, as one Gather.

    ArrayFeatureExtractor flattens its indices, the batch among them, and a Reshape follows to undo that.
    """
    wiring = Wiring(graph)
    constants = dict(graph.constants)
    changed: dict[Node, Node | None] = {}
    for node in graph.nodes:
        if node.domain == DOMAIN and node.op_type == "ArrayFeatureExtractor":
            changed.update(_from_pick(node, wiring, constants))
    return _with(replace(graph, constants=constants), changed) if changed else graph


def _from_pick(pick: Node, wiring: Wiring, constants: dict[str, Any]) -> dict[Node, Node | None]:
    """Flatten, ArrayFeatureExtractor of a constant (T, M), Reshape to (N, k) or (T, N, k), and a Transpose."""
    values, indices = wiring.constant(pick.inputs[0]), pick.inputs[1]
    flatten = wiring.producer(indices, "Flatten")
    if flatten is not None and flatten.attributes.get("axis", 1) == 1:
        indices = flatten.inputs[0]
    top = wiring.producer(indices, "TopK")
    shape = wiring.reader(pick.outputs[0], "Reshape")
    if top is None or shape is None or values is None or values.ndim > 2 or values.dtype == object:
        return {}
    count = wiring.constant(top.inputs[1]) if len(top.inputs) > 1 else None
    target = wiring.constant(shape.inputs[1])
    last = top.attributes.get("axis", -1) in (1, -1) and indices == top.outputs[1]
    if count is None or target is None or not last:
        return {}
    k, (rows, columns) = int(count.reshape(-1)[0]), np.atleast_2d(values).shape
    table = wiring.fresh(f"{pick.name}_table")
    if rows == 1 and target.tolist() == [-1, k]:
        constants[table] = values.reshape(-1)
        return {pick: None, shape: _gather(shape, table, indices)}
    turn = wiring.reader(shape.outputs[0], "Transpose")
    if turn is None or target.tolist() != [rows, -1, k] or "perm" not in turn.attributes:
        return {}
    constants[table] = np.ascontiguousarray(np.reshape(values, (rows, columns)).T)
    # From targets, samples, neighbours to samples, neighbours, targets.
    order = tuple((2, 0, 1)[axis] for axis in turn.attributes["perm"])
    turned = replace(turn, attributes={**turn.attributes, "perm": order})
    return {pick: None, shape: _gather(shape, table, indices), turn: turned}


def _gather(node: Node, table: str, indices: str) -> Node:
    return replace(node, op_type="Gather", inputs=(table, indices), attributes={"axis": 0})


def _with(graph: Graph, changed: dict[Node, Node | None]) -> Graph:
    if not changed:
        return graph
    left = (changed.get(node, node) for node in graph.nodes)
    return replace(graph, nodes=tuple(node for node in left if node is not None))
