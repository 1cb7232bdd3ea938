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
from fhe_core.errors import FheError
from numpy.typing import NDArray

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
    times = _trip_count(unrolled, node, body, limit, condition, states)
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


# -- how often a Loop runs


def _trip_count(
    unrolled: _Unrolled,
    node: Node,
    body: Graph,
    limit: str,
    condition: str,
    states: Sequence[str],
) -> int | None:
    """How often a Loop runs, found by running what its condition depends on; None where that is not known."""
    most = unrolled.constant(limit) if limit else np.array(MOST_NODES + 1)
    running = unrolled.constant(condition) if condition else np.array(True)
    if most is None or running is None:
        return None
    values = [unrolled.constant(name) for name in states]
    counters = _Counters(unrolled, body, [value is not None for value in values])
    if counters.module is None:
        return None
    known = tuple(
        v for v, kept in zip(values, counters.kept, strict=True) if kept and v is not None
    )
    number = 0
    while number < most.item() and running.item():
        if number * (1 + len(body.nodes)) > MOST_NODES:
            return None
        rank = len(body.inputs[0].shape or ())
        try:
            running, *rest = counters(np.full((1,) * rank, number, np.int64), running, *known)
        except FheError:
            return None
        known = tuple(rest)
        number += 1
    return number


class _Counters:
    """The part of a body that its condition depends on: the condition, and values that start as constants.

    Attributes:
        module: that part as a function; None where the condition depends on anything else.
        kept: by state, whether it is in it.
    """

    def __init__(self, unrolled: _Unrolled, body: Graph, known: Sequence[bool]) -> None:
        self._body, self._unrolled = body, unrolled
        self.kept = list(known)
        states = body.input_names[2:]
        outputs = body.output_names
        while True:
            allowed = {
                *body.input_names[:2],
                *(n for n, k in zip(states, self.kept, strict=True) if k),
            }
            still = [
                kept and self._depends_on(outputs[1 + i], allowed)
                for i, kept in enumerate(self.kept)
            ]
            if still == self.kept:
                break
            self.kept = still
        self.module: Any = self._made() if self._depends_on(outputs[0], allowed) else None

    def __call__(self, *arrays: Array) -> tuple[Array, ...]:
        names = self.module.input_names
        results = self.module.run(dict(zip(names, arrays, strict=True)), fetch=self._outputs)
        return tuple(results[name] for name in self._outputs)

    def _slice(self, name: str) -> tuple[list[Node], set[str]]:
        """The nodes behind a tensor of the body, and what they read from outside."""
        wanted, nodes = {name}, []
        for node in reversed(self._body.nodes):
            if not wanted.isdisjoint(node.writes):
                nodes.append(node)
                wanted.update(node.reads)
        made = {output for node in self._body.nodes for output in node.writes}
        return nodes[::-1], wanted - made - set(self._body.constants)

    def _depends_on(self, name: str, allowed: set[str]) -> bool:
        _, free = self._slice(name)
        return all(each in allowed or each in self._unrolled.constants for each in free)

    def _made(self) -> Any:
        from fhe_core import NumpyModule

        states = [
            n for n, kept in zip(self._body.output_names[1:], self.kept, strict=False) if kept
        ]
        self._outputs = [self._body.output_names[0], *states]
        behind = {node for name in self._outputs for node in self._slice(name)[0]}
        free = set().union(*(self._slice(name)[1] for name in self._outputs))
        inputs = [
            info
            for info, kept in zip(self._body.inputs, [True, True, *self.kept], strict=True)
            if kept
        ]
        outer = {n: v for n, v in self._unrolled.constants.items() if n in free}
        graph = replace(
            self._body,
            inputs=tuple(replace(info, shape=None) for info in inputs),
            outputs=(),
            nodes=tuple(node for node in self._body.nodes if node in behind),
            constants={**outer, **self._body.constants},
        )
        try:
            return NumpyModule(graph)
        except FheError:
            return None
