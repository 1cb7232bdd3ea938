"""Graph pass: loops that run a known number of times, and branches that are known, written out.

How often a loop runs is known where a Loop's trip count, and whatever its condition depends on, are constants
or counters; and where a Scan goes along a dimension that is no batch. Encrypted data has no other loops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fhe_core import FheError
from fhe_ops_std._trip_count import trip_count

if TYPE_CHECKING:
    # Importing them imports onnx, which listing operators should not cost.
    from fhe_core import Graph, Node

Array = NDArray[Any]

#: Nodes that may take the place of a model's loops. One that would need more stays what it is.
MOST_NODES = 10_000

#: The opset since which Unsqueeze has its axes as an input.
_AXES_AS_INPUT = 13


def unroll(graph: Graph) -> Graph:
    """The graph with its loops and branches written out, where that can be done within `MOST_NODES`."""
    if not any(_body_of(node) for node in graph.nodes):
        return graph
    unrolled = _Unrolled(graph).run()
    return unrolled.graph() if unrolled.changed else graph


def _body_of(node: Node) -> bool:
    return not node.domain and node.op_type in _WRITERS


class _Unrolled:
    """What becomes of a graph. Tensors of a body are named after the node that it belonged to."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.constants: dict[str, Array] = dict(graph.constants)
        self.changed = False
        self._taken = set(_all_names(graph))
        self._shared: dict[tuple[int, str], str] = {}
        self._left = MOST_NODES
        #: What reads the results of a loop reads what they are instead.
        self._aliases: dict[str, str] = {}
        self._nodes: list[Node] = []

    def graph(self) -> Graph:
        return replace(self._graph, nodes=tuple(self._nodes), constants=self.constants)

    def run(self) -> _Unrolled:
        for node in self._graph.nodes:
            self._add(node)
        opset = self._graph.opsets.get("", 1)
        for name in dict.fromkeys(self._graph.output_names):
            if name in self._aliases:
                self._nodes.append(self._new("Identity", [self._aliases[name]], name, opset))
        return self

    def _add(self, node: Node) -> None:
        node = renamed(node, self._aliases)
        writer = _WRITERS.get(node.op_type) if not node.domain else None
        results = writer(self, node) if writer else None
        if results is None:
            self._nodes.append(node)
            return
        self.changed = True
        self._aliases.update(
            (name, result) for name, result in zip(node.outputs, results, strict=False) if name
        )

    # -- what the writers use

    def constant(self, name: str) -> Array | None:
        """A tensor that is a constant."""
        return self.constants.get(name)

    def written(self, body: Graph, arguments: Sequence[str], label: str) -> list[str]:
        """The names of a body's results, its nodes added for these arguments."""
        names = dict(zip(body.input_names, arguments, strict=True))
        for name, value in body.constants.items():
            names[name] = self._shared_constant(body, name, value)
        for inner in body.nodes:
            outputs = {name: self.fresh(f"{label}/{name}") for name in inner.writes}
            node = renamed(inner, names)
            names.update(outputs)
            node = replace(
                node,
                name=self.fresh(f"{label}/{inner.name}"),
                outputs=tuple(outputs.get(name, "") for name in inner.outputs),
            )
            self._add(node)
        found = [names.get(name, name) for name in body.output_names]
        return [self._aliases.get(name, name) for name in found]

    def fits(self, body: Graph, times: int) -> bool:
        """Whether so many copies of a body may be written, and takes them off what may."""
        size = (1 + len(body.nodes)) * times
        if not times or size > self._left:
            return False
        self._left -= size
        return True

    def new_constant(self, label: str, value: Any) -> str:
        name = self.fresh(label)
        self.constants[name] = np.asarray(value)
        return name

    def slice_of(self, node: Node, name: str, axis: int, place: int) -> str:
        """The tensor ``name`` at a place of an axis, which goes."""
        index = self.new_constant(f"{node.name}/at", np.int64(place))
        found = self.fresh(f"{node.name}/{name}/{place}")
        self._add(self._new("Gather", [name, index], found, node.opset, axis=axis))
        return found

    def stacked(self, node: Node, names: Sequence[str], axis: int) -> str:
        """Tensors along a new axis."""
        parts = []
        axes = self.new_constant(f"{node.name}/axes", np.array([axis], np.int64))
        for name in names:
            part = self.fresh(f"{name}/row")
            if node.opset < _AXES_AS_INPUT:
                row = self._new("Unsqueeze", [name], part, node.opset, axes=(axis,))
            else:
                row = self._new("Unsqueeze", [name, axes], part, node.opset)
            self._nodes.append(row)
            parts.append(part)
        found = self.fresh(f"{node.name}/stacked")
        self._nodes.append(self._new("Concat", parts, found, node.opset, axis=axis))
        return found

    def length(self, name: str, axis: int) -> int | None:
        """The size of a tensor along an axis, if that is no batch; None where it is, or nobody knows."""
        known = self.constant(name)
        if known is not None:
            return known.shape[axis] if -known.ndim <= axis < known.ndim else None
        sizes = {_size(self.graph(), name, axis, batch) for batch in (2, 3)}
        return sizes.pop() if len(sizes) == 1 else None

    def fresh(self, name: str) -> str:
        found = name if name not in self._taken else ""
        for number in count(1) if not found else ():
            if f"{name}_{number}" not in self._taken:
                found = f"{name}_{number}"
                break
        self._taken.add(found)
        return found

    def _shared_constant(self, body: Graph, name: str, value: Array) -> str:
        key = id(body), name
        if key not in self._shared:
            self._shared[key] = self.new_constant(name, value)
        return self._shared[key]

    def _new(
        self, op_type: str, inputs: Sequence[str], output: str, opset: int, **attributes: Any
    ) -> Node:
        from fhe_core import Node

        name = self.fresh(f"{output}/{op_type}")
        return Node(name, op_type, "", opset, tuple(inputs), (output,), attributes)


def _size(graph: Graph, name: str, axis: int, batch: int) -> int | None:
    """The size of a tensor for a batch of zeros."""
    from fhe_core import NumpyModule

    feeds = {}
    for info in graph.inputs:
        first, *rest = info.shape or (None,)
        if info.dtype is None or not all(isinstance(size, int) for size in rest):
            return None
        shape: list[Any] = [first if isinstance(first, int) else batch, *rest]
        feeds[info.name] = np.zeros(shape, info.dtype)
    # The outputs may depend on nodes that are not written yet.
    try:
        found = NumpyModule(replace(graph, outputs=())).run(feeds, fetch=[name])[name]
        return int(np.shape(found)[axis])
    except (FheError, IndexError):
        return None


# -- nodes under other names


def renamed(node: Node, names: Mapping[str, str]) -> Node:
    """The node with tensors that it reads, in its subgraphs too, under other names."""
    inputs = tuple(names.get(name, name) for name in node.inputs)
    captures = tuple(dict.fromkeys(names.get(name, name) for name in node.captures))
    if inputs == node.inputs and captures == node.captures:
        return node
    attributes = node.attributes
    if captures != node.captures:
        attributes = {name: _renamed_value(value, names) for name, value in attributes.items()}
    return replace(node, inputs=inputs, captures=captures, attributes=attributes)


def _renamed_value(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, tuple):
        return tuple(_renamed_value(item, names) for item in value)
    if not _is_graph(value):
        return value
    own = {*value.input_names, *value.constants, *(n for node in value.nodes for n in node.writes)}
    outer = {name: other for name, other in names.items() if name not in own}
    return replace(
        value,
        nodes=tuple(renamed(node, outer) for node in value.nodes),
        outputs=tuple(
            replace(info, name=outer.get(info.name, info.name)) for info in value.outputs
        ),
    )


def _is_graph(value: Any) -> bool:
    return hasattr(value, "output_names")


def _all_names(graph: Graph) -> Iterable[str]:
    yield from graph.input_names
    yield from graph.output_names
    yield from graph.constants
    for node in graph.nodes:
        yield from (node.name, *node.writes)
        for value in node.attributes.values():
            for item in value if isinstance(value, tuple) else (value,):
                if _is_graph(item):
                    yield from _all_names(item)


# -- the ops


def _if(unrolled: _Unrolled, node: Node) -> list[str] | None:
    condition = unrolled.constant(node.inputs[0])
    if condition is None or condition.size != 1:
        return None
    body = node.attributes["then_branch" if condition.item() else "else_branch"]
    return unrolled.written(body, [], node.name) if unrolled.fits(body, 1) else None


def _loop(unrolled: _Unrolled, node: Node) -> list[str] | None:
    limit, condition, *states = (*node.inputs, "", "")[: max(2, len(node.inputs))]
    body = node.attributes["body"]
    bound = MOST_NODES // (1 + len(body.nodes))
    times = trip_count(unrolled.constants, body, limit, condition, states, bound=bound)
    if times is None or not unrolled.fits(body, times):
        return None
    running = condition or unrolled.new_constant(f"{node.name}/cond", np.array(True))
    rank = len(body.inputs[0].shape or ())
    scanned: list[list[str]] = []
    for number in range(times):
        counter = unrolled.new_constant(
            f"{node.name}/iteration", np.full((1,) * rank, number, np.int64)
        )
        running, *results = unrolled.written(
            body, [counter, running, *states], f"{node.name}/{number}"
        )
        states, rows = results[: len(states)], results[len(states) :]
        scanned.append(rows)
    return [*states, *(unrolled.stacked(node, rows, 0) for rows in zip(*scanned, strict=True))]


def _scan(unrolled: _Unrolled, node: Node) -> list[str] | None:
    if node.opset < 9:
        return None  # of each sample by itself
    given = node.attributes
    body, inputs = given["body"], given["num_scan_inputs"]
    states, sequences = list(node.inputs[:-inputs]), node.inputs[-inputs:]
    axes = given.get("scan_input_axes") or (0,) * inputs
    lengths = {unrolled.length(name, axis) for name, axis in zip(sequences, axes, strict=True)}
    times = lengths.pop()
    if lengths or times is None or not unrolled.fits(body, times):
        return None
    backward = given.get("scan_input_directions") or (0,) * inputs
    scanned: list[list[str]] = []
    for number in range(times):
        slices = [
            unrolled.slice_of(node, name, axis, times - 1 - number if back else number)
            for name, axis, back in zip(sequences, axes, backward, strict=True)
        ]
        results = unrolled.written(body, [*states, *slices], f"{node.name}/{number}")
        states, rows = results[: len(states)], results[len(states) :]
        scanned.append(rows)
    columns = [list(rows) for rows in zip(*scanned, strict=True)]
    out_axes = given.get("scan_output_axes") or (0,) * len(columns)
    backward = given.get("scan_output_directions") or (0,) * len(columns)
    return [
        *states,
        *(
            unrolled.stacked(node, rows[::-1] if back else rows, axis)
            for rows, axis, back in zip(columns, out_axes, backward, strict=True)
        ),
    ]


_WRITERS: dict[str, Callable[[_Unrolled, Node], list[str] | None]] = {
    "If": _if,
    "Loop": _loop,
    "Scan": _scan,
}
