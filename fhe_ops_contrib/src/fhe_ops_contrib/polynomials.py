"""Products of features, as one operator in the place of the many that an exporter writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fhe_ops_contrib._checks import DOMAIN, OWN_DOMAIN, Array
from fhe_ops_contrib.wiring import Wiring

if TYPE_CHECKING:
    # Importing them imports onnx, which listing operators should not cost.
    from fhe_core import Graph, Node


def monomials(X: Array, /, *, degrees: Sequence[int], features: Sequence[int]) -> Array:
    """Products of features of X: (N, F) to (N, products), X's type.

    Each takes as many of ``features``, which may repeat, as its number in ``degrees`` says; the product of
    none is 1.
    """
    ends = np.cumsum(degrees)
    columns = []
    for degree, end in zip(degrees, ends, strict=True):
        column = np.ones_like(X[:, :1])
        for feature in features[end - degree : end]:
            column = column * X[:, feature : feature + 1]
        columns.append(column)
    return np.concatenate(columns, axis=1)


IMPLEMENTATIONS: tuple[tuple[str, int, Callable[..., Any]], ...] = (("Monomials", 1, monomials),)


#: What may stand between an input and the products: the client computes it anyway.
_PREPARATION = {
    (DOMAIN, name) for name in ("Scaler", "Imputer", "Normalizer", "ArrayFeatureExtractor")
} | {("", name) for name in ("Cast", "Identity")}


def find_monomials(graph: Graph) -> Graph:
    """Each Concat of products of features that the client holds, as Monomials.

    skl2onnx writes scikit-learn's polynomial features as one ReduceProd for each product. Under encryption
    each would take look-ups; as one operator they are computed before it.
    """
    wiring = Wiring(graph)
    changed: dict[Node, Node] = {}
    for node in graph.nodes:
        if node.domain or node.op_type != "Concat" or node.attributes.get("axis") not in (1, -1):
            continue
        parts = [_product(name, wiring) for name in node.inputs]
        products = [part for part in parts if part is not None]
        sources = {source for source, _ in products if source}
        mixes = any(len(features) > 1 for _, features in products)
        if len(products) < len(parts) or len(sources) != 1 or not mixes:
            continue
        (source,) = sources
        if not _prepared(source, graph, wiring):
            continue
        attributes = {
            "degrees": tuple(len(features) for _, features in products),
            "features": tuple(feature for _, features in products for feature in features),
        }
        changed[node] = replace(
            node,
            op_type="Monomials",
            domain=OWN_DOMAIN,
            opset=1,
            inputs=(source,),
            attributes=attributes,
        )
    if not changed:
        return graph
    return replace(graph, nodes=tuple(changed.get(node, node) for node in graph.nodes))


def _product(name: str, wiring: Wiring) -> tuple[str, tuple[int, ...]] | None:
    """The tensor and the features that a column is the product of; "" and none for ones."""
    ones = wiring.producer(name, "ConstantOfShape")
    if ones is not None:
        value = ones.attributes.get("value", np.zeros(1))
        return ("", ()) if wiring.producer(ones.inputs[0], "Shape") and value.item() == 1 else None
    product = wiring.producer(name, "ReduceProd")
    if product is not None:
        axes = product.attributes.get("axes")
        if axes is None and len(product.inputs) > 1:
            axes = wiring.constant(product.inputs[1])
        if axes is None or [int(axis) for axis in axes] != [1]:
            return None
        if not product.attributes.get("keepdims", 1):
            return None
        name = product.inputs[0]
    pick = wiring.producer(name, "ArrayFeatureExtractor", DOMAIN)
    places = wiring.constant(pick.inputs[1]) if pick else None
    if pick is None or places is None or (product is None and places.size != 1):
        return None
    return pick.inputs[0], tuple(int(place) for place in places.reshape(-1))


def _prepared(name: str, graph: Graph, wiring: Wiring) -> bool:
    """Whether nothing but preparation stands between a tensor and a model input."""
    while name not in graph.input_names:
        node = wiring.maker(name)
        if node is None or (node.domain, node.op_type) not in _PREPARATION:
            return False
        name = node.inputs[0]
    return True
