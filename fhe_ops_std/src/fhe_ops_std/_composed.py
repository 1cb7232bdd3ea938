"""One op for a region of affine nodes: a convolution, a product along the last axis, or a dense one.

Each form reads its weights off a few responses of the region. That the region is of that form is an
assumption until somebody compares the two on samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil, gcd, prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ._linearity import SHIFTS
from ._probing import Probe

if TYPE_CHECKING:
    # Importing it imports onnx, which listing operators should not cost.
    from fhe_core import Node

Array = NDArray[Any]

# The weights of a dense product: a megabyte, and a second to find them.
DENSE_WEIGHTS = 2**18

# The impulses that a region is run on.
IMPULSES = 2**12


@dataclass(frozen=True)
class Step:
    """One op of a chain: what it reads after the tensor before it, by a name for it; its attributes."""

    op_type: str
    constants: Mapping[str, Array]
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class Reach:
    """What part of a region's start one element of a tensor depends on, along one spatial axis.

    Element i depends on those from i·stride + first to i·stride + last.
    """

    stride: int
    first: int
    last: int


def as_convolution(probe: Probe, limit: int) -> list[Step] | None:
    """A Conv, for regions of convolutions and of what treats each position alike.

    Only its first convolution may pad: what is beyond the border of a later one is not zero.

    Args:
        limit: on the number of weights.
    """
    reaches = _reaches(probe)
    if reaches is None or any(reach.first > 0 for reach in reaches):
        return None
    channels, outputs = probe.start.shape[0], probe.end.shape[0]
    kernel = tuple(reach.last - reach.first + 1 for reach in reaches)
    groups = gcd(*(node.attributes.get("group", 1) for node in probe.region.weighted))
    count = channels * prod(kernel)
    if count > IMPULSES or outputs * count // groups > limit:
        return None
    # The smallest image in which some element's reach lies within, and that element.
    places = tuple(ceil(-reach.first / reach.stride) for reach in reaches)
    offsets = [i * r.stride + r.first for i, r in zip(places, reaches, strict=True)]
    window = tuple(slice(o, o + size) for o, size in zip(offsets, kernel, strict=True))
    image = (channels, *(o + size for o, size in zip(offsets, kernel, strict=True)))
    found = probe.responses(image, (slice(None), *window), (slice(None), *places))
    if found is None:
        return None
    bias, weights = found[0], found[1].T.reshape(outputs, channels, *kernel)
    blocks = _blocks(weights, groups)
    if blocks is None:
        groups, blocks = 1, weights
    if blocks.size > limit:
        return None
    strides = [reach.stride for reach in reaches]
    pads = [-reach.first for reach in reaches]
    ends = [
        max((after - 1) * stride + size - before - pad, 0)
        for after, stride, size, before, pad in zip(
            probe.end.shape[1:], strides, kernel, probe.start.shape[1:], pads, strict=True
        )
    ]
    attributes: dict[str, Any] = {"kernel_shape": kernel, "strides": tuple(strides)}
    attributes |= {"pads": (*pads, *ends), "group": groups}
    added = {"bias": bias} if bias.any() else {}
    return [Step("Conv", {"weights": blocks, **added}, attributes)]


def along_last_axis(probe: Probe, limit: int) -> list[Step] | None:
    """A MatMul, and an Add, for regions that do the same at each place of all axes but the last."""
    *before, count = probe.start.shape
    *after, outputs = probe.end.shape
    if not before or before != after or count > IMPULSES or count * outputs > limit:
        return None
    if any(node.op_type != "MatMul" for node in probe.region.weighted):
        return None
    first = (*(0,) * len(before), slice(None))
    found = probe.responses(probe.start.shape, first, first)
    if found is None:
        return None
    bias, weights = found
    product = Step("MatMul", {"weights": weights}, {})
    return [product, Step("Add", {"bias": bias}, {})] if bias.any() else [product]


def as_dense(probe: Probe, limit: int) -> list[Step] | None:
    """A Gemm, with layouts around it where the tensors are no vectors."""
    count, outputs = prod(probe.start.shape), prod(probe.end.shape)
    if count > IMPULSES or count * outputs > min(limit, DENSE_WEIGHTS):
        return None
    found = probe.responses(probe.start.shape, (Ellipsis,), (Ellipsis,))
    if found is None:
        return None
    bias, weights = found
    steps = [Step("Gemm", {"weights": weights.T.copy(), "bias": bias}, {"transB": 1})]
    if len(probe.start.shape) != 1:
        steps.insert(0, Step("Flatten", {}, {"axis": 1}))
    if len(probe.end.shape) != 1:
        steps.append(Step("Reshape", {"shape": np.array([-1, *probe.end.shape])}, {}))
    return steps


# The cheapest first.
FORMS: tuple[Callable[[Probe, int], list[Step] | None], ...] = (
    as_convolution,
    along_last_axis,
    as_dense,
)


def _reaches(probe: Probe) -> list[Reach] | None:
    """Of an element of the region's end, one for each spatial axis; None if there is no such rule."""
    region, constants = probe.region, probe.graph.constants
    axes = len(probe.start.shape) - 1
    if axes < 1 or len(probe.end.shape) != axes + 1:
        return None
    known = {region.start: [Reach(1, 0, 0)] * axes}
    for node in region.nodes:
        before = [known[name] for name in region.varying(node, constants)]
        after = _after(node, before, constants)
        if after is None:
            return None
        known[node.outputs[0]] = after
    return known[region.end]


def _after(
    node: Node, before: list[list[Reach]], constants: Mapping[str, Array]
) -> list[Reach] | None:
    if node.op_type in SHIFTS | {"Identity"} or (
        node.op_type == "Concat" and node.attributes.get("axis") == 1
    ):
        joined = [_joined(along) for along in zip(*before, strict=True)]
        return [each for each in joined if each] if all(joined) else None
    attributes = node.attributes
    if node.op_type not in ("AveragePool", "Conv") or attributes.get("auto_pad", "NOTSET") not in (
        "NOTSET",
        "VALID",
    ):
        return None
    (reaches,) = before
    shape = constants[node.inputs[1]].shape[2:] if node.op_type == "Conv" else None
    kernel = shape or attributes["kernel_shape"]
    axes = len(kernel)
    strides, dilations = (attributes.get(n, (1,) * axes) for n in ("strides", "dilations"))
    pads = attributes.get("pads", (0,) * axes)
    if any(pads) and any(reach.first or reach.last for reach in reaches):
        return None  # the zeros beyond the border stand for what would not be zero
    return [
        Reach(
            reach.stride * stride,
            reach.first - pad * reach.stride,
            reach.last + ((size - 1) * dilation - pad) * reach.stride,
        )
        for reach, size, stride, dilation, pad in zip(
            reaches, kernel, strides, dilations, pads, strict=False
        )
    ]


def _joined(along: tuple[Reach, ...]) -> Reach | None:
    strides = {reach.stride for reach in along}
    if len(strides) != 1:
        return None
    firsts, lasts = (reach.first for reach in along), (reach.last for reach in along)
    return Reach(strides.pop(), min(firsts), max(lasts))


def _blocks(weights: Array, groups: int) -> Array | None:
    """The weights of a grouped convolution, or None if something else than its blocks is not zero."""
    outputs, channels, *kernel = weights.shape
    if outputs % groups or channels % groups:
        return None
    split = weights.reshape(groups, outputs // groups, groups, channels // groups, *kernel)
    kept = np.stack([split[i, :, i] for i in range(groups)])
    if np.count_nonzero(kept) != np.count_nonzero(weights):
        return None
    return kept.reshape(outputs, channels // groups, *kernel)
