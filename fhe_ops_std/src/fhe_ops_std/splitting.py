"""Alternative: activations of two straight halves become a line and a magnitude.

Such a function is x above zero and a·x below, for Relu with a = 0: that is (1 + a)/2·x + (1 - a)/2·|x|.
The line takes no look-up, as it joins the products around it: what reads the activation becomes one
product of a concatenation, of |t| and of what t is computed from. A look-up is left for |t| alone, whose
rounding does half the harm, and which takes one bit less where the compiler uses that |t| is even.

All that is concatenated is quantized with one scale. So magnitudes are scaled until each channel reaches as
far as the rest: |s·t| is s·|t|, and the factors join the products on either side.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ._affine import NUMPY_BROADCASTING
from ._magnitudes import Draft, joined
from ._probing import tensor_types
from ._spans import Halves, halves
from ._wiring import Wiring
from .passes import fold_affine_chains

if TYPE_CHECKING:
    # Importing them imports onnx, which listing operators should not cost.
    from fhe_core import Graph, Node

Array = NDArray[Any]

# By how much magnitudes that are there already have to differ for them to be scaled.
_UNEVEN = 0.05


def split_activations(graph: Graph, samples: Mapping[str, Any]) -> Graph | None:
    """The graph with magnitudes in place of Relu, LeakyRelu and PRelu, of the same node names.

    An activation stays as it is where something else than a product with constant weights depends on
    its result, or where the product of the concatenation makes no vector or has too many weights. An
    Abs, which is a magnitude, is scaled.

    Args:
        samples: inputs, arrays by name, which tell how far the tensors reach.

    Returns:
        None where nothing can be split.
    """
    from fhe_core.graphs import drop_dead_nodes, is_trained

    from fhe_core import get_registry

    slopes = dict(_slopes(graph))
    if not slopes or graph.opsets[""] < NUMPY_BROADCASTING or is_trained(graph, get_registry()):
        return None
    types = tensor_types(graph)
    split = halves(Wiring(graph), types, slopes)
    if not split.activations:
        return None
    scales = _scales(graph, split, samples)
    if all(
        np.all(slopes[node] == -1) and np.allclose(scales[name], 1, rtol=_UNEVEN)
        for name, node in split.activations.items()
    ):
        return None
    draft = Draft(graph, types)
    for node in graph.nodes:
        if node in split.activations.values():
            draft.split(node, slopes[node], scales[node.outputs[0]])
        else:
            draft.nodes.append(node)
    found = joined(draft, split)
    return found and fold_affine_chains(drop_dead_nodes(found))


def _slopes(graph: Graph) -> Iterator[tuple[Node, Array]]:
    """The nodes that compute x above zero and a multiple of x below, each with the constants for below."""
    for node in graph.nodes:
        slope: Any = None
        if not node.domain and node.op_type in ("Abs", "Relu"):
            slope = -1 if node.op_type == "Abs" else 0
        elif not node.domain and node.op_type == "LeakyRelu":
            slope = node.attributes.get("alpha", 0.01)
        elif not node.domain and node.op_type == "PRelu":
            slope = graph.constants.get(node.inputs[1])
        if slope is not None:
            yield node, np.asarray(slope, np.float64)


def _scales(graph: Graph, split: Halves, samples: Mapping[str, Any]) -> dict[str, Array]:
    """What each channel of a magnitude is multiplied by: float64 of (1, C, 1, ...) by the activation's output.

    It then reaches as far as what it is concatenated with and cannot be scaled, or if there is no such
    thing, as the largest magnitude.
    """
    from fhe_core import NumpyModule

    read = {name: node.inputs[0] for name, node in split.activations.items()}
    groups = _connected(split.ends.values())
    names = {read.get(name, name) for group in groups for name in group}
    values = NumpyModule(graph).run(samples, fetch=names)
    scales = {}
    for group in groups:
        fixed = group.difference(read) or {read[name] for name in group}
        reach = max(float(np.abs(values[name]).max(initial=0)) for name in fixed)
        for name in group.intersection(read):
            value = np.abs(values[read[name]].astype(np.float64))
            others = tuple(axis for axis in range(value.ndim) if axis != 1)
            peak = value.max(axis=others, keepdims=True, initial=0)
            usable = (peak > 0) & (reach > 0)
            scales[name] = np.where(usable, reach / np.where(usable, peak, 1), 1)
    return scales


def _connected(concatenated: Iterable[Sequence[str]]) -> list[set[str]]:
    """The tensors that share one scale: concatenated with each other, or each with a third."""
    groups: list[set[str]] = []
    for names in concatenated:
        touched = [group for group in groups if not group.isdisjoint(names)]
        groups = [group for group in groups if group.isdisjoint(names)]
        groups.append(set(names).union(*touched))
    return groups
