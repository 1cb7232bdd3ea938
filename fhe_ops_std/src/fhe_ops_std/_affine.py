"""What follows a product in a graph, read as one factor and one offset for each channel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ._wiring import Wiring

if TYPE_CHECKING:
    # Importing it imports onnx, which listing operators should not cost.
    from fhe_core import Graph, Node

Array = NDArray[Any]

# From this opset on NumPy's rules of broadcasting hold; before, attributes say how.
NUMPY_BROADCASTING = 7

# Ops of one input that keep its rank: what stands between a product and the model's input, mostly.
_KEEPS_RANK = frozenset(
    (
        *("BatchNormalization", "Cast", "Clip", "Dropout", "Elu", "Gelu", "HardSigmoid"),
        *("HardSwish", "Identity", "LeakyRelu", "PRelu", "Relu", "Selu", "Sigmoid", "Softmax"),
        *("Softplus", "Softsign", "Tanh"),
    )
)


@dataclass(frozen=True)
class Affine:
    """y = x·factor + offset: vectors of one number for each channel, or of one for all; float64."""

    factor: Array
    offset: Array

    def then(self, later: Affine) -> Affine:
        return Affine(self.factor * later.factor, self.offset * later.factor + later.offset)


@dataclass(frozen=True)
class Product:
    """Where a node's result has its channels.

    Attributes:
        channels: how many.
        weight_axis: which axis of its weights counts them.
        axis: which axis of the result counts them, -1 for the last.
        rank: how many axes the result has; None if that is not known.
    """

    channels: int
    weight_axis: int
    axis: int
    rank: int | None


def rank(name: str, wiring: Wiring) -> int | None:
    """How many axes a tensor has, as far as the way back to a model input or a Gemm tells."""
    return wiring.of_graph(_ranks).get(name)


def _ranks(graph: Graph) -> dict[str, int]:
    """The same of all tensors of which it is known."""
    found = {info.name: len(info.shape) for info in graph.inputs if info.shape is not None}
    for node in graph.nodes:
        known = None if node.domain else _rank_behind(node, found, graph.constants)
        if known is not None:
            found.update(dict.fromkeys(node.writes, known))
    return found


def _rank_behind(
    node: Node, ranks: Mapping[str, int], constants: Mapping[str, Array]
) -> int | None:
    if node.op_type in ("Gemm", "Flatten"):
        return 2
    if node.op_type in ("Add", "Div", "Mul", "Sub"):
        fixed = [i for i, read in enumerate(node.inputs) if read in constants]
        other = ranks.get(node.inputs[1 - fixed[0]]) if len(fixed) == 1 else None
        return None if other is None else max(other, constants[node.inputs[fixed[0]]].ndim)
    if node.op_type in _KEEPS_RANK or _by_a_matrix(node, constants):
        return ranks.get(node.inputs[0])
    return None


def _by_a_matrix(node: Node, constants: Mapping[str, Array]) -> bool:
    weights = constants.get(node.inputs[1]) if node.op_type == "MatMul" else None
    return weights is not None and weights.ndim == 2


def chain_behind(node: Node, product: Product, wiring: Wiring) -> tuple[list[Node], Affine]:
    """The affine ops that follow a product, each the only reader of what is before it."""
    chain: list[Node] = []
    total = Affine(np.ones(1), np.zeros(1))
    name = node.outputs[0]
    while (link := wiring.only_reader(name)) is not None:
        affine = _affine(link, name, product, wiring.graph.constants)
        if affine is None:
            break
        total = total.then(affine)
        chain.append(link)
        name = link.outputs[0]
    return chain, total


def _affine(
    node: Node, name: str, product: Product, constants: Mapping[str, Array]
) -> Affine | None:
    """What a node computes from the tensor ``name``, if that is affine in each channel."""
    read = _AFFINE.get(node.op_type)
    if node.domain or read is None or node.writes != node.outputs[:1]:
        return None
    with np.errstate(all="ignore"):
        affine = read(node, name, product, constants)
    if affine is None or not all(map(is_finite, (affine.factor, affine.offset))):
        return None
    return affine


def _batch_normalization(
    node: Node, name: str, product: Product, constants: Mapping[str, Array]
) -> Affine | None:
    """Inference alone: in training the statistics are the batch's own."""
    attributes = node.attributes
    if attributes.get("training_mode") or (node.opset < 7 and not attributes.get("is_test")):
        return None
    given = [constants.get(n) for n in node.inputs[1:]]
    # Channels are axis 1 here. Statistics for each element (`spatial=0`) are vectors for two axes only.
    if node.inputs[0] != name or (product.axis != 1 and product.rank != 2):
        return None
    if any(value is None or value.shape != (product.channels,) for value in given):
        return None
    scale, b, mean, variance = (np.asarray(value, np.float64) for value in given)
    factor = scale / np.sqrt(variance + attributes.get("epsilon", 1e-5))
    return Affine(factor, b - mean * factor)


def _arithmetic(
    node: Node, name: str, product: Product, constants: Mapping[str, Array]
) -> Affine | None:
    if node.opset < NUMPY_BROADCASTING:
        return None
    first = node.inputs[0] == name
    constant = constants.get(node.inputs[1 if first else 0])
    vector = None if constant is None else _per_channel(constant, product)
    if vector is None:
        return None
    one, zero = np.ones(1), np.zeros(1)
    return {
        "Mul": Affine(vector, zero),
        "Add": Affine(one, vector),
        "Sub": Affine(one, -vector) if first else Affine(-one, vector),
        "Div": Affine(1 / vector, zero) if first else None,
    }[node.op_type]


def _identity(
    node: Node, name: str, product: Product, constants: Mapping[str, Array]
) -> Affine | None:
    return Affine(np.ones(1), np.zeros(1))


def _per_channel(constant: Array, product: Product) -> Array | None:
    """A constant that broadcasts to a product's result, as one number for each channel, or for all."""
    # A vector is as long as the last axis, whatever the rank, but more axes could add to the result's.
    rank = product.rank or 1
    if constant.dtype.kind != "f" or constant.ndim > rank:
        return None
    shape = (1,) * (rank - constant.ndim) + constant.shape
    axis = product.axis % rank
    if any(size != 1 for i, size in enumerate(shape) if i != axis):
        return None
    if shape[axis] not in (1, product.channels):
        return None
    return constant.reshape(-1).astype(np.float64)


def is_finite(array: Array) -> bool:
    return bool(np.isfinite(array).all())


_AFFINE: Mapping[str, Callable[..., Affine | None]] = {
    "BatchNormalization": _batch_normalization,
    "Mul": _arithmetic,
    "Div": _arithmetic,
    "Add": _arithmetic,
    "Sub": _arithmetic,
    "Identity": _identity,
}
