"""Reductions: what makes a part of an activation affine, which is to change the model for less cost."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ._affine import NUMPY_BROADCASTING, is_finite
from ._types import dtype_numbered
from ._wiring import Wiring
from .composing import compose_linear

if TYPE_CHECKING:
    # Importing it imports onnx, which listing operators should not cost.
    from fhe_core import Graph, Node

Array = NDArray[Any]


def affine_channels(
    graph: Graph, node: Node, live: Array, slope: Array, offset: Array
) -> Graph | None:
    """The graph with a node's output affine in its input wherever it isn't live.

    Where nothing is live, a Mul and an Add take the node's place. Elsewhere both follow it: the Mul
    clears what isn't live, the Add fills in the constant that stands for it.

    Args:
        node: of one output, each element of which is a function of the same element of the one
            input that is no constant.
        live: bool; where the output stays node(x).
        slope: float64; elsewhere it becomes slope * x + offset. If anything is live, 0 there.
        offset: float64. All three broadcast against the output.

    Returns:
        None where not just one input varies, slopes remain beside live elements, the opset is older
        than broadcasting, or a number is beyond the model's type.
    """
    from fhe_core import Node

    opset = graph.opsets.get("", 0)
    variable = [name for name in node.reads if name not in graph.constants]
    kept = bool(live.any())
    if len(variable) != 1 or opset < NUMPY_BROADCASTING:
        return None
    if kept and bool(np.any(slope * ~live)):
        return None
    if live.all():
        return graph
    wiring, (output,) = Wiring(graph), node.outputs
    dtype = _float_type(variable[0], wiring)
    with np.errstate(over="ignore"):
        factor = np.asarray(live if kept else slope).astype(dtype)
        added = np.asarray(np.where(live, 0, offset)).astype(dtype)
    if not (is_finite(factor) and is_finite(added)):
        return None
    terms = {"Mul": factor} if np.any(factor != 1) else {}
    terms |= {"Add": added} if np.any(added) else {}
    constants = dict(graph.constants)
    before = wiring.fresh(f"{output}.all") if kept else variable[0]
    nodes = [replace(node, outputs=(before,))] if kept else []
    for op_type in terms or ["Identity"]:
        called, after = wiring.fresh(f"{node.name}.{op_type}"), wiring.fresh(f"{output}.{op_type}")
        inputs = [before]
        if op_type in terms:
            inputs.append(wiring.fresh(f"{after}.constant"))
            constants[inputs[1]] = terms[op_type]
        nodes.append(Node(called, op_type, "", opset, tuple(inputs), (after,), {}))
        before = after
    nodes[-1] = replace(nodes[-1], outputs=(output,))
    rewritten = (new for old in graph.nodes for new in (nodes if old is node else (old,)))
    return replace(graph, nodes=tuple(rewritten), constants=constants)


def joined_channels(
    graph: Graph, node: Node, live: Array, slope: Array, offset: Array
) -> Graph | None:
    """The same; where nothing is live, what took the node's place has joined the products around it."""
    found = affine_channels(graph, node, live, slope, offset)
    return found if found is None or live.any() else compose_linear(found)


def _float_type(name: str, wiring: Wiring) -> np.dtype[Any]:
    """The type of a float tensor: that of the nearest input or constant float behind it."""
    from fhe_core.graphs import kind

    types = {info.name: info.dtype for info in wiring.graph.inputs}
    types |= {name: value.dtype for name, value in wiring.graph.constants.items()}
    # In order of distance; it grows while it is read.
    behind = [name]
    for each in behind:
        found, node = types.get(each), wiring.producers.get(each)
        if node is not None and node.op_type == "Cast" and not node.domain:
            found = dtype_numbered(node.attributes["to"])
        if found is not None and kind(found) == "f":
            return found
        behind += [read for read in (node.reads if node else ()) if read not in behind]
    return np.dtype(np.float32)
