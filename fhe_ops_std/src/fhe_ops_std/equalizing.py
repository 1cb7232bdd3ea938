"""Graph pass: features of very different size enter a product scaled to be alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ._affine import NUMPY_BROADCASTING, rank
from ._wiring import Wiring

if TYPE_CHECKING:
    # Importing them imports onnx, which listing operators should not cost.
    from fhe_core import Graph, Node

Array = NDArray[Any]

#: Ops of each element, along which a tensor keeps its length or takes that of a constant.
_ELEMENTWISE = frozenset(
    (
        *(
            "Abs",
            "Add",
            "Cast",
            "Ceil",
            "Clip",
            "Div",
            "Elu",
            "Equal",
            "Erf",
            "Exp",
            "Floor",
            "Gelu",
        ),
        *(
            "Greater",
            "HardSigmoid",
            "HardSwish",
            "Identity",
            "LeakyRelu",
            "Less",
            "Log",
            "Max",
            "Min",
        ),
        *("Mul", "Neg", "Not", "Pow", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Softplus"),
        *("Softsign", "Sqrt", "Sub", "Tanh", "Where"),
    )
)


def equalize_features(graph: Graph, samples: Mapping[str, Any]) -> Graph:
    """The graph with the features scaled of each tensor that only products with constant weights read.

    Args:
        samples: inputs, arrays by name.
    """
    from fhe_core.graphs import feature_factors, feature_ranges

    wiring = Wiring(graph)
    products = {
        name: readers
        for name, readers in wiring.readers.items()
        if name not in graph.constants
        and name not in graph.output_names
        and all(_weighs(node, name, wiring) for node in readers)
    }
    ranges = feature_ranges(graph, products, samples) if products else {}
    constants = dict(graph.constants)
    before: dict[Node, list[Node]] = {}
    changed: dict[Node, Node] = {}
    for name, readers in products.items():
        if name not in ranges:
            continue
        rows = [_rows(node, wiring) for node in readers]
        factors = feature_factors(*ranges[name], np.maximum.reduce(rows)) if rows else None
        if factors is None:
            continue
        dtype = constants[readers[0].inputs[1]].dtype
        join = wiring.producers.get(name)
        parts = _parts(join, len(factors), wiring)
        first = name
        if parts is None and not _is_looked_up(name, wiring):
            continue
        if join is None or parts is None:
            first = wiring.fresh(f"{name}.equalized")
            multiplied = _multiplied(readers[0], name, first, wiring)
            before.setdefault(readers[0], []).append(multiplied)
            constants[multiplied.inputs[1]] = factors.astype(dtype)
        else:
            inputs = []
            for part, start, stop in parts:
                inputs.append(wiring.fresh(f"{part}.equalized"))
                own = factors[start:stop].astype(dtype)
                multiplied = _multiplied(join, part, inputs[-1], wiring)
                before.setdefault(join, []).append(multiplied)
                constants[multiplied.inputs[1]] = own
            changed[join] = replace(join, inputs=tuple(inputs))
        for node in readers:
            weights = wiring.fresh(f"{node.inputs[1]}.equalized")
            along = (1, -1) if _is_transposed(node) else (-1, 1)
            old = constants[node.inputs[1]]
            constants[weights] = (old / factors.reshape(along)).astype(old.dtype)
            changed[node] = replace(node, inputs=(first, weights, *node.inputs[2:]))
    if not changed:
        return graph
    nodes = [n for node in graph.nodes for n in (*before.get(node, ()), changed.get(node, node))]
    return replace(graph, nodes=tuple(nodes), constants=constants)


def _rows(node: Node, wiring: Wiring) -> Array:
    """What a product multiplies each feature by, at the most."""
    rows: Array = np.abs(wiring.graph.constants[node.inputs[1]]).astype(np.float64)
    return rows.max(axis=0 if _is_transposed(node) else 1, initial=0)


def _weighs(node: Node, name: str, wiring: Wiring) -> bool:
    """Whether a node is a product of the features of ``name`` with constant weights."""
    if node.domain or node.op_type not in ("MatMul", "Gemm") or node.opset < NUMPY_BROADCASTING:
        return False
    weights = wiring.graph.constants.get(node.inputs[1])
    if weights is None or weights.ndim != 2 or weights.dtype.kind != "f":
        return False
    is_read_once = node.inputs[0] == name and name not in node.inputs[1:]
    return is_read_once and not node.attributes.get("transA")


def _is_looked_up(name: str, wiring: Wiring) -> bool:
    """Whether a tensor is an input, or becomes integers in a look-up anyway, which a factor joins for free."""
    while (node := wiring.producers.get(name)) is not None:
        varying = [read for read in node.reads if read not in wiring.graph.constants]
        if node.domain or len(varying) != 1:
            return False
        if node.op_type in _ELEMENTWISE or node.op_type in ("Conv", "Gemm", "MatMul"):
            return True
        if node.op_type not in ("Flatten", "Reshape", "Squeeze", "Transpose", "Unsqueeze"):
            return False
        name = varying[0]
    return True


def _is_transposed(node: Node) -> bool:
    return bool(node.attributes.get("transB"))


def _parts(node: Node | None, count: int, wiring: Wiring) -> list[tuple[str, int, int]] | None:
    """What a concatenation joins along its last axis, and which features of the result these are; None of
    anything else, or where it cannot be told."""
    if node is None or node.domain or node.op_type != "Concat":
        return None
    along = node.attributes["axis"]
    if along != -1 and rank(node.inputs[0], wiring) != along + 1:
        return None
    sizes = [_width(name, wiring) for name in node.inputs]
    if sizes.count(None) > 1:
        return None
    rest = count - sum(size or 0 for size in sizes)
    ends = np.cumsum([rest if size is None else size for size in sizes]).tolist()
    if ends[-1] != count or rest < 0:
        return None
    return list(zip(node.inputs, [0, *ends[:-1]], ends, strict=True))


def _width(name: str, wiring: Wiring) -> int | None:
    """How long a tensor is along its last axis, as far as the way back to an input or a product tells."""
    graph, least = wiring.graph, 1
    while (node := wiring.producers.get(name)) is not None:
        weights = graph.constants.get(node.inputs[1]) if len(node.inputs) > 1 else None
        if node.op_type in ("MatMul", "Gemm") and weights is not None and weights.ndim == 2:
            return int(weights.shape[0 if _is_transposed(node) else 1])
        varying = [read for read in node.reads if read not in graph.constants]
        if node.domain or node.op_type not in _ELEMENTWISE or len(varying) != 1:
            return None
        fixed = [np.shape(graph.constants[read]) for read in node.reads if read != varying[0]]
        least = max([least, *(shape[-1] for shape in fixed if shape)])
        name = varying[0]
    shape = next((info.shape for info in graph.inputs if info.name == name), None)
    last = shape[-1] if shape else None
    return max(last, least) if isinstance(last, int) else None


def _multiplied(node: Node, name: str, result: str, wiring: Wiring) -> Node:
    """The node that multiplies ``name`` by constant factors, for ``node`` to read."""
    return replace(
        node,
        name=wiring.fresh(f"{result}.Mul"),
        op_type="Mul",
        inputs=(name, wiring.fresh(f"{result}.factors")),
        outputs=(result,),
        attributes={},
    )
