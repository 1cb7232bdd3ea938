"""Graph passes: what is multiplied or added to each channel of a product joins the product.

Inference batch normalization, and Mul, Div, Add and Sub with constants, are y = x·factor + offset with
one factor and one offset for each channel. After a Conv, Gemm or MatMul with constant weights the
factor scales the weights of each output channel and the offset is added to the bias, so that encrypted
inference computes neither. Exact but for the rounding of the weights and bias, which are computed in
double precision and kept in their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ._affine import NUMPY_BROADCASTING, Affine, Product, chain_behind, is_finite, rank
from ._wiring import Wiring
from .maxima import functions_before_maxima

if TYPE_CHECKING:
    # Importing them imports onnx, which listing operators should not cost.
    from fhe_core import Graph, Node

Array = NDArray[Any]

_PRODUCTS = ("Conv", "Gemm", "MatMul")


def fold_affine_chains(graph: Graph) -> Graph:
    """The graph with the affine ops behind each product in its weights and bias.

    Folds only what nothing else reads. A MatMul has no bias: what is added stays, as one Add.
    """
    wiring = Wiring(graph)
    constants = dict(graph.constants)
    changed: dict[Node, tuple[Node, ...]] = {}
    for node in graph.nodes:
        product = _product(node, wiring)
        if product is None:
            continue
        chain, affine = chain_behind(node, product, wiring)
        if not chain or (node.op_type == "MatMul" and _is_one_add(chain, affine)):
            continue
        folded = _folded(node, product, affine, chain[-1], constants, wiring)
        if folded:
            changed |= dict.fromkeys(chain, ())
            changed[node] = folded
    if not changed:
        return graph
    nodes = (new for node in graph.nodes for new in changed.get(node, (node,)))
    return replace(graph, nodes=tuple(nodes), constants=constants)


def _product(node: Node, wiring: Wiring) -> Product | None:
    """The product that a node is, if its weights are constant floats (and its bias constant)."""
    if node.domain or node.op_type not in _PRODUCTS:
        return None
    weights, *bias = (wiring.graph.constants.get(name) for name in node.inputs[1:] if name)
    if weights is None or weights.dtype.kind != "f" or any(value is None for value in bias):
        return None
    if node.op_type == "Conv":
        return Product(weights.shape[0], 0, 1, weights.ndim)
    if weights.ndim != 2 or node.opset < NUMPY_BROADCASTING:
        return None
    if node.op_type == "MatMul":
        return Product(weights.shape[1], 1, -1, rank(node.inputs[0], wiring))
    axis = 0 if node.attributes.get("transB") else 1
    return Product(weights.shape[axis], axis, 1, 2)


def _is_one_add(chain: Sequence[Node], affine: Affine) -> bool:
    """Whether a chain is what would become of it behind a MatMul."""
    return len(chain) == 1 and bool(np.all(affine.factor == 1)) and bool(affine.offset.any())


def _folded(
    node: Node,
    product: Product,
    affine: Affine,
    last: Node,
    constants: dict[str, Array],
    wiring: Wiring,
) -> tuple[Node, ...]:
    """What computes a product and the chain behind it, which ends with ``last``.

    Its weights and bias join ``constants``. Nothing if they are beyond their type.
    """
    data, old, *bias = node.inputs
    dtype = constants[old].dtype
    along = [-1 if i == product.weight_axis else 1 for i in range(constants[old].ndim)]
    added = constants[bias[0]] * np.float64(node.attributes.get("beta", 1)) if any(bias) else 0.0
    with np.errstate(all="ignore"):
        weights = (constants[old] * affine.factor.reshape(along)).astype(dtype)
        offset = (added * affine.factor + affine.offset).astype(dtype)
    if not (is_finite(weights) and is_finite(offset)):
        return ()
    inputs = (data, wiring.renewed(old))
    constants[inputs[1]] = weights
    if not any(bias) and not offset.any():
        return (replace(node, inputs=inputs, outputs=last.writes),)
    name = wiring.renewed(bias[0]) if any(bias) else wiring.fresh(f"{node.name}.bias")
    constants[name] = offset
    if node.op_type == "MatMul":
        add = replace(last, op_type="Add", inputs=(node.outputs[0], name), attributes={})
        return replace(node, inputs=inputs), replace(add, outputs=last.writes)
    if node.op_type == "Conv":
        constants[name] = np.broadcast_to(offset, product.channels).copy()
    attributes = {key: value for key, value in node.attributes.items() if key != "beta"}
    return (replace(node, inputs=(*inputs, name), outputs=last.writes, attributes=attributes),)


PASSES = (fold_affine_chains, functions_before_maxima)
