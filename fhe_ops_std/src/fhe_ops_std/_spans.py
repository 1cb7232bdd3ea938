"""What each tensor of a graph is affine in, together, where some activations are split in two.

An activation of t that is split is an affine function of t and of a magnitude, |t|. So what it makes is
affine in whatever t is affine in, and in that magnitude, which goes by the name of the activation's output.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from ._composed import DENSE_WEIGHTS, IMPULSES
from ._linearity import LAYOUTS, SHIFTS, WEIGHTED, is_affine
from ._probing import TensorType
from ._wiring import Wiring

if TYPE_CHECKING:
    # Importing it imports onnx, which listing operators should not cost.
    from fhe_core import Node


@dataclass(frozen=True)
class Span:
    """What a tensor is affine in.

    Attributes:
        sources: inputs, results of what is not affine, and magnitudes, in the order of the graph.
        bare: the magnitudes that come without a product with weights in between.
        moved: it has nothing but elements of its one source, each as it was.
    """

    sources: tuple[str, ...]
    bare: frozenset[str] = frozenset()
    moved: bool = False


@dataclass(frozen=True)
class Halves:
    """Activations that can be split, and what there is to compute from their magnitudes.

    Attributes:
        activations: by output.
        spans: of every tensor.
        ends: the sources of each tensor that is computed from some magnitude, and that something reads
            which isn't affine, or that is an output.
    """

    activations: Mapping[str, Node]
    spans: Mapping[str, Span]
    ends: Mapping[str, tuple[str, ...]]

    def reaches(self, name: str) -> bool:
        """Whether a tensor is computed from some magnitude."""
        span = self.spans.get(name)
        return span is not None and not self.activations.keys().isdisjoint(span.sources)


def halves(wiring: Wiring, types: Mapping[str, TensorType], candidates: Iterable[Node]) -> Halves:
    """Those of some activations that can be split, all together."""
    split = {node.outputs[0]: node for node in candidates}
    while True:
        found = spans(wiring, types, split.values())
        needed = set(wiring.graph.output_names)
        for node in wiring.graph.nodes:
            if any(found[name].sources[-1] == name for name in node.writes):
                needed.update(node.reads)
        reached = (name for name in found if not split.keys().isdisjoint(found[name].sources))
        ends = {name: found[name].sources for name in reached if name in needed}
        refused = next(_refused(split, found, ends, types), None)
        if refused is None:
            used = {source for sources in ends.values() for source in sources}
            return Halves({k: node for k, node in split.items() if k in used}, found, ends)
        del split[refused]


def _refused(
    split: Mapping[str, Node],
    found: Mapping[str, Span],
    ends: Collection[str],
    types: Mapping[str, TensorType],
) -> Iterator[str]:
    """The outputs of activations that cannot be split."""
    for name, node in split.items():
        read = node.inputs[0]
        # Behind no product or sum it is part of the look-up that makes its source, or needs none.
        if read not in found or found[read].moved or read not in types or name not in types:
            yield name
    for end in ends:
        span = found[end]
        magnitudes = [name for name in span.sources if name in split]
        if span.bare:
            yield next(name for name in magnitudes if name in span.bare)
        elif not _is_one_product(end, span.sources, types):
            yield magnitudes[0]


def _is_one_product(end: str, sources: Collection[str], types: Mapping[str, TensorType]) -> bool:
    """Whether a tensor is a vector that a product of its sources may compute."""
    if any(name not in types for name in (end, *sources)):
        return False
    type_, parts = types[end], [types[name] for name in sources]
    columns = sum(prod(part.shape) for part in parts)
    return (
        len(type_.shape) == 1
        and all(part.dtype == type_.dtype for part in parts)
        and columns <= IMPULSES
        and columns * type_.shape[0] <= DENSE_WEIGHTS
    )


def spans(wiring: Wiring, eligible: Collection[str], split: Collection[Node]) -> dict[str, Span]:
    """The span of each tensor that is no constant.

    What scales or shifts nothing but elements of one source makes a source of its own: that costs
    nothing in the look-up that makes it, or before encryption, where its values are scaled best.

    Args:
        eligible: the tensors that may be computed otherwise.
        split: the activations that are split.
    """
    found = {name: Span((name,), moved=True) for name in wiring.graph.input_names}
    for node in wiring.graph.nodes:
        before = [found[name] for name in node.reads if name in found]
        varying = [name for name in node.reads if name in found]
        affine = is_affine(node, wiring.graph.constants) and all(
            name in eligible for name in (*node.writes, *varying)
        )
        prepares = node.op_type in SHIFTS and len(before) == 1 and before[0].moved
        names = {name for span in before for name in span.sources}
        sources = tuple(name for name in found if name in names)
        bare = frozenset[str]().union(*(span.bare for span in before))
        for name in node.writes:
            if node in split and node.op_type == "Abs":
                found[name] = Span((name,), frozenset((name,)))
            elif node in split:
                found[name] = Span((*sources, name), bare | {name})
            elif not affine or prepares:
                found[name] = Span((name,), moved=True)
            else:
                moved = node.op_type in LAYOUTS and before[0].moved
                kept = frozenset[str]() if node.op_type in WEIGHTED else bare
                found[name] = Span(sources, kept, moved)
    return found
