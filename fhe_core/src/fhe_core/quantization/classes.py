"""Which tensors of a model are scores of classes, and what it calls these: as its ops declare it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.errors import FheError
from fhe_core.graph.ir import Graph, Node, ValueInfo
from fhe_core.graph.runner import NumpyModule
from fhe_core.quantization.op import QuantizedOp
from fhe_core.quantization.placement import PlacedOp, Placement

Array = NDArray[Any]
#: The shape of a tensor, with the batch dimension 1.
Shape = Callable[[str], tuple[int, ...]]


@dataclass(frozen=True)
class Classes:
    """What the ops of a model say of its classes, by tensor.

    Attributes:
        axes: of scores, the axis along which the largest is the answer.
        names: of scores and of answers, the classes in the order of the scores.
        behind: of answers, the scores that they are made from.
    """

    axes: Mapping[str, int] = field(default_factory=dict)
    names: Mapping[str, Array] = field(default_factory=dict)
    behind: Mapping[str, str] = field(default_factory=dict)


def classes_of(net: NumpyModule, placement: Placement, shape: Shape) -> Classes:
    """The classes of a model's tensors, its outputs' above all."""
    axes: dict[str, int] = {}
    names: dict[str, Array] = {}
    behind: dict[str, str] = {}
    for placed in placement.ops:
        _add_scores(placed, shape, axes)
        _add_answers(placed, shape, axes, names, behind)
    for placed in (*placement.ops, *reversed(placement.ops)):
        _pass_on(placed, shape, axes)
    graph = net.graph
    answers = {name: labels for name, labels in names.items() if name not in axes}
    for source, target, values in _outputs_after(net, answers, shape):
        names[target] = values
        behind.setdefault(target, behind.get(source, ""))
    _share_names(graph, shape, axes, names)
    return Classes(axes, names, {name: scores for name, scores in behind.items() if scores})


def _add_scores(placed: PlacedOp, shape: Shape, axes: dict[str, int]) -> None:
    """The scores that an op decides by, and what it makes of them where that has their shape."""
    if type(placed.op).class_axis is QuantizedOp.class_axis:
        return  # To ask for a shape takes a run of the model.
    if not placed.variable or placed.node.inputs[0] != placed.variable[0]:
        return
    source = placed.variable[0]
    axis = placed.op.class_axis(shape(source)) if len(shape(source)) > 1 else None
    if not axis:  # None, or the batch.
        return
    axes[source] = axis
    for name in placed.node.writes:
        if shape(name) == shape(source):
            axes[name] = axis


def _add_answers(
    placed: PlacedOp,
    shape: Shape,
    axes: dict[str, int],
    names: dict[str, Array],
    behind: dict[str, str],
) -> None:
    """The classes that an op's results are, or are scores of."""
    writes = placed.node.writes
    given = placed.op.class_labels()
    if given is None:
        source = placed.variable[0] if placed.variable else ""
        if source in axes and len(writes) == 1 and shape(writes[0]) != shape(source):
            names[writes[0]] = np.arange(shape(source)[axes[source]])
            behind[writes[0]] = source
        return
    labels = _as_array(given)
    scored = [name for name in writes if shape(name)[1:] == (len(labels),)]
    others = [name for name in writes if name not in scored]
    for name in scored or placed.variable[:1]:
        if shape(name)[1:] == (len(labels),):
            axes[name], names[name] = 1, labels
    for name in others:
        names[name] = labels
        behind[name] = (scored or [""])[0]


def _as_array(labels: Any) -> Array:
    found = np.asarray(labels)
    return found.astype(object) if found.dtype.kind == "U" else found


def _pass_on(placed: PlacedOp, shape: Shape, axes: dict[str, int]) -> None:
    """Scores that only move between the samples' places, in either direction: not where axes may change."""
    if not placed.op.keeps_scale or len(placed.variable) != 1 or len(placed.node.writes) != 1:
        return
    pair = (placed.variable[0], placed.node.writes[0])
    for known, other in (pair, pair[::-1]):
        if known in axes and len(shape(known)) == 2 and shape(known) == shape(other):
            axes.setdefault(other, axes[known])


def _outputs_after(
    net: NumpyModule, answers: Mapping[str, Array], shape: Shape
) -> Iterator[tuple[str, str, Array]]:
    """The outputs that are functions of answers alone, and what these make of each class."""
    for output in net.graph.outputs:
        for name, labels in answers.items():
            nodes = _between(net.graph, name, output.name)
            if not nodes:
                continue
            dtype = None if labels.dtype.kind == "O" else labels.dtype
            source = ValueInfo(name, dtype, None)
            part = replace(net.graph, inputs=(source,), outputs=(output,), nodes=nodes)
            each = shape(name)[1:]
            samples = np.broadcast_to(labels.reshape(-1, *(1,) * len(each)), (len(labels), *each))
            values = _run(part, net, samples)
            if isinstance(values, np.ndarray) and len(values) == len(labels):
                yield name, output.name, values.reshape(len(labels), -1)[:, 0]
                break


def _run(graph: Graph, net: NumpyModule, samples: Array) -> Any:
    """What the nodes make of one sample for each class; None where they fail on that."""
    try:
        return NumpyModule(graph, registry=net.registry)(samples)
    except FheError:
        return None


def _between(graph: Graph, source: str, target: str) -> tuple[Node, ...]:
    """The nodes from one tensor to another, none where the other depends on more than that."""
    wanted, found = {target}, []
    for node in reversed(graph.nodes):
        if wanted.isdisjoint(node.writes):
            continue
        if source in node.writes:
            break
        found.append(node)
        wanted |= set(node.reads) - {source} - set(graph.constants)
        wanted -= set(node.writes)
    return () if wanted else tuple(found[::-1])


def _share_names(graph: Graph, shape: Shape, axes: dict[str, int], names: dict[str, Array]) -> None:
    """Outputs with a score for each class have the names that another output's answers have."""
    answers = [names[name] for name in graph.output_names if name in names and name not in axes]
    for name in graph.output_names:
        given = shape(name)
        if name in names or len(given) != 2:
            continue
        fitting = [labels for labels in answers if len(labels) == given[1]]
        if fitting and given[1] > 1:
            names[name] = fitting[0]
