"""Graph passes: support vector machines split into parts, and matrix products joined.

They see a model on its way to encryption only. What they return computes the same.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from fhe_core import ModelError
from fhe_ops_contrib._checks import DOMAIN, OWN_DOMAIN
from fhe_ops_contrib.svm import Machine, classifier_machine, regressor_machine
from fhe_ops_contrib.transforms import transform
from fhe_ops_contrib.wiring import Wiring

if TYPE_CHECKING:
    # Importing them imports onnx, which listing operators should not cost.
    from fhe_core import Graph, Node


def split_machines(graph: Graph) -> Graph:
    """Each support vector machine as its kernels, a linear model of them, and the votes.

    The kernels are then a layer, calibrated and planned as any other. A linear kernel needs none: its
    support vectors and their weights are one matrix.
    """
    wiring = Wiring(graph)
    nodes: list[Node] = []
    for node in graph.nodes:
        nodes += _split(node, wiring) if node.domain == DOMAIN else [node]
    return replace(graph, nodes=tuple(nodes)) if nodes != list(graph.nodes) else graph


def _split(node: Node, wiring: Wiring) -> list[Node]:
    try:
        machine = _machine(node)
    except ModelError:
        return [node]  # the implementation says what is wrong
    if machine is None or machine.vectors is None:
        return [node]
    if machine.kernel.name == "LINEAR":
        joined = replace(machine, weights=machine.vectors.T @ machine.weights)
        return _sums(node, node.inputs[0], joined, wiring)
    kernels = wiring.fresh(f"{node.name}_kernels")
    shared = ("kernel_params", "kernel_type", "support_vectors")
    attributes = {name: node.attributes[name] for name in shared if name in node.attributes}
    kernel = replace(
        node,
        name=f"{node.name}_kernels",
        op_type="SVMKernel",
        domain=OWN_DOMAIN,
        opset=1,
        outputs=(kernels,),
        attributes={**attributes, "n_supports": len(machine.vectors)},
    )
    return [kernel, *_sums(node, kernels, machine, wiring)]


def _machine(node: Node) -> Machine | None:
    """What an SVM's attributes describe; None of another op.

    Raises:
        ModelError: they contradict each other.
    """
    if node.op_type not in ("SVMRegressor", "SVMClassifier"):
        return None
    given = node.attributes
    transform(given.get("post_transform", "NONE"), node.op_type)
    shared = {
        "coefficients": given.get("coefficients"),
        "kernel_params": given.get("kernel_params"),
        "kernel_type": given.get("kernel_type", "LINEAR"),
        "rho": given.get("rho"),
        "support_vectors": given.get("support_vectors"),
    }
    if node.op_type == "SVMRegressor":
        return regressor_machine(**shared, n_supports=given.get("n_supports", 0))
    labels = given.get("classlabels_ints") or given.get("classlabels_strings") or ()
    per_class = given.get("vectors_per_class")
    return classifier_machine(len(labels), **shared, vectors_per_class=per_class)


def _sums(node: Node, source: str, machine: Machine, wiring: Wiring) -> list[Node]:
    """The linear model behind the kernels, or behind the features, and what follows it."""
    attributes = {
        "coefficients": tuple(machine.weights.T.reshape(-1).tolist()),
        "intercepts": tuple(machine.offsets.tolist()),
        "targets": len(machine.offsets),
    }
    linear = replace(
        node,
        name=f"{node.name}_sums",
        op_type="LinearRegressor",
        inputs=(source,),
        attributes=attributes,
    )
    if node.op_type == "SVMRegressor" and not node.attributes.get("one_class"):
        return [linear]
    sums = wiring.fresh(f"{node.name}_sums")
    linear = replace(linear, outputs=(sums,))
    if node.op_type == "SVMRegressor":
        return [linear, *_sign(node, sums, wiring)]
    kept = ("classlabels_ints", "classlabels_strings", "post_transform", "prob_a", "prob_b")
    votes = replace(
        node,
        name=f"{node.name}_votes",
        op_type="SVMVotes",
        domain=OWN_DOMAIN,
        opset=1,
        inputs=(sums,),
        attributes={name: node.attributes[name] for name in kept if name in node.attributes},
    )
    return [linear, votes]


def _sign(node: Node, sums: str, wiring: Wiring) -> list[Node]:
    """1 where the sums are positive, else -1: functions of each element, which need no look-up at the end."""
    ones = wiring.fresh(f"{node.name}_ones")
    is_positive = replace(
        node,
        name=f"{node.name}_ones",
        op_type="Binarizer",
        inputs=(sums,),
        outputs=(ones,),
        attributes={"threshold": 0.0},
    )
    spread = {"offset": (0.5,), "scale": (2.0,)}
    sign = replace(
        node, name=f"{node.name}_sign", op_type="Scaler", inputs=(ones,), attributes=spread
    )
    return [is_positive, sign]


def join_products(graph: Graph) -> Graph:
    """Each linear model behind a matrix product (of PCA, say) with the product in its coefficients.

    Between the two there would be a look-up for each component.
    """
    wiring = Wiring(graph)
    changed: dict[Node, Node | None] = {}
    for node in graph.nodes:
        if node.domain != DOMAIN or node.op_type not in ("LinearRegressor", "LinearClassifier"):
            continue
        product = wiring.producer(node.inputs[0], "MatMul")
        matrix = wiring.constant(product.inputs[1]) if product else None
        if product is None or matrix is None or not wiring.private(node.inputs[0]):
            continue
        if matrix.ndim != 2:
            continue
        coefficients = np.asarray(node.attributes.get("coefficients", ()), np.float64)
        if not coefficients.size or coefficients.size % matrix.shape[1]:
            continue  # the implementation says what is wrong
        joined = coefficients.reshape(-1, matrix.shape[1]) @ matrix.T
        attributes = {**node.attributes, "coefficients": tuple(joined.reshape(-1).tolist())}
        changed[node] = replace(node, inputs=product.inputs[:1], attributes=attributes)
        changed[product] = None
    if not changed:
        return graph
    left = (changed.get(node, node) for node in graph.nodes)
    return replace(graph, nodes=tuple(node for node in left if node is not None))
