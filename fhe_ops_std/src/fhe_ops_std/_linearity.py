"""Which nodes are affine in what varies, and the regions of them that compute from one tensor."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ._wiring import Wiring

if TYPE_CHECKING:
    # Importing it imports onnx, which listing operators should not cost.
    from fhe_core import Node

# With constant weights, which is what makes them affine.
WEIGHTED = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul"))

# Joins of several branches.
SUMS = frozenset(("Add", "Sub", "Sum"))

# What mixes elements without weights of its own.
_MIXES = frozenset(("AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceSum"))

# What only moves elements.
LAYOUTS = frozenset(
    ("Flatten", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze")
)

# What scales or shifts elements, if nothing but constants is added.
SHIFTS = SUMS | {"BatchNormalization", "Div", "Mul", "Neg"}

# What a region may end with, besides: an op that only moves elements stays behind it.
_SCALES = frozenset(("BatchNormalization", "Concat", "Div", "Mul", "Neg"))


def _any(node: Node, varying: Sequence[int]) -> bool:
    return True


def _one(node: Node, varying: Sequence[int]) -> bool:
    return len(varying) == 1


def _first(node: Node, varying: Sequence[int]) -> bool:
    return varying == [0]


def _not_weights(node: Node, varying: Sequence[int]) -> bool:
    return 1 not in varying


def _not_both_factors(node: Node, varying: Sequence[int]) -> bool:
    return not {0, 1} <= {*varying}


def _inference(node: Node, varying: Sequence[int]) -> bool:
    """Batch normalization by its own statistics, not the batch's."""
    training = node.attributes.get("training_mode", 0)
    return (
        varying == [0] and not training and (node.opset >= 7 or node.attributes.get("is_test", 0))
    )


# Whether a node is affine in all that varies together, by the places of its inputs that vary.
_AFFINE: Mapping[str, Callable[[Node, Sequence[int]], bool]] = {
    **dict.fromkeys(("Add", "Concat", "Identity", "Neg", "Sub", "Sum"), _any),
    **dict.fromkeys(("MatMul", "Mul"), _one),
    **dict.fromkeys(("Div", "Flatten", "Pad", "Reshape", "Slice", "Split"), _first),
    **dict.fromkeys(("Squeeze", "Transpose", "Unsqueeze", *_MIXES), _first),
    **dict.fromkeys(("Conv", "ConvTranspose"), _not_weights),
    "BatchNormalization": _inference,
    "Gemm": _not_both_factors,
}


@dataclass(frozen=True)
class Region:
    """Affine nodes that compute one tensor from one other, and from constants.

    Attributes:
        nodes: all of them, in an order in which they can run.
    """

    start: str
    end: str
    nodes: tuple[Node, ...]

    @property
    def weighted(self) -> list[Node]:
        """Its products with constant weights."""
        return [node for node in self.nodes if node.op_type in WEIGHTED]

    def varying(self, node: Node, constants: Collection[str]) -> list[str]:
        return [name for name in node.reads if name not in constants]

    def is_worth_composing(self, constants: Collection[str]) -> bool:
        """Whether one op could do what takes two products, or a product and a mean or a sum of branches."""
        mixes = (
            node.op_type in _MIXES
            or (node.op_type in SUMS and len(self.varying(node, constants)) > 1)
            for node in self.nodes
        )
        return len(self.weighted) > 1 or (bool(self.weighted) and any(mixes))


def regions(wiring: Wiring, eligible: Collection[str] | None = None) -> Iterator[Region]:
    """The regions that are worth composing, for each tensor that ends some the widest first.

    A region starts and ends where nothing leads past it. What scales, shifts or moves the elements of
    its start stays out: that costs nothing in the look-up that makes the start, or before encryption.

    Args:
        eligible: the tensors that a region may compute with; None for all.
    """
    sources = _sources(wiring, eligible)
    constants = wiring.graph.constants
    for end, source in sources.items():
        readers = wiring.readers.get(end, [])
        inner = readers and all(sources.get(name) == source for n in readers for name in n.writes)
        if source == end or (inner and end not in wiring.graph.output_names):
            continue
        whole = Region(source, end, between({source}, end, wiring))
        if not whole.is_worth_composing(constants):
            continue
        cuts = _cuts(whole, constants)
        starts = [name for name in cuts[:-1] if _mixes_at_once(name, whole)]
        for last in reversed(cuts[1:]):
            if not _is_end(wiring.producers[last]):
                continue
            for first in starts:
                if cuts.index(first) < cuts.index(last):
                    region = Region(first, last, between({first}, last, wiring))
                    if region.is_worth_composing(constants):
                        yield region


def _sources(wiring: Wiring, eligible: Collection[str] | None) -> dict[str, str]:
    """For each result the one tensor that it is affine in; itself where there is none."""
    sources: dict[str, str] = {name: name for name in wiring.graph.input_names}
    for node in wiring.graph.nodes:
        affine = is_affine(node, wiring.graph.constants)
        if eligible is not None:
            names = (*node.writes, *(n for n in node.reads if n not in wiring.graph.constants))
            affine = affine and all(name in eligible for name in names)
        found = {sources[name] for name in node.reads if name in sources} if affine else set()
        for name in node.writes:
            sources[name] = next(iter(found)) if len(found) == 1 else name
    return sources


def is_affine(node: Node, constants: Collection[str]) -> bool:
    """Whether a node is affine in all of its inputs that are no constants, together."""
    rule = _AFFINE.get(node.op_type)
    varying = [i for i, name in enumerate(node.inputs) if name and name not in constants]
    if node.domain or rule is None or not varying or not rule(node, varying):
        return False
    return len(node.writes) == 1 or node.op_type == "Split"


def between(starts: Collection[str], end: str, wiring: Wiring) -> tuple[Node, ...]:
    """What computes ``end`` from some tensors, in order: everything that goes there goes through them."""
    needed = {end}
    nodes = []
    for node in reversed(wiring.graph.nodes):
        if not needed.isdisjoint(node.writes):
            nodes.append(node)
            needed.update(name for name in node.reads if name not in starts)
    return tuple(reversed(nodes))


def _cuts(region: Region, constants: Collection[str]) -> list[str]:
    """The tensors through which all of a region goes, from its start to its end."""
    read = {name for node in region.nodes for name in node.reads}
    names = [region.start]
    names += [n for node in region.nodes for n in node.writes if n in read or n == region.end]
    place = {name: i for i, name in enumerate(names)}
    reach = dict(place)
    for node in region.nodes:
        furthest = max(place[name] for name in node.writes if name in place)
        for name in region.varying(node, constants):
            reach[name] = max(reach[name], furthest)
    cuts, furthest = [], 0
    for name in names:
        # Whoever reads something before it has run by now.
        if furthest <= place[name]:
            cuts.append(name)
        furthest = max(furthest, reach[name])
    return cuts


def _mixes_at_once(start: str, whole: Region) -> bool:
    """Whether branches, or a product or a pooling, start at a tensor."""
    readers = [node for node in whole.nodes if start in node.reads]
    return len(readers) > 1 or readers[0].op_type in WEIGHTED | _MIXES


def _is_end(producer: Node) -> bool:
    kinds = WEIGHTED | SUMS | _MIXES | _SCALES
    return producer.op_type in kinds and len(producer.writes) == 1
