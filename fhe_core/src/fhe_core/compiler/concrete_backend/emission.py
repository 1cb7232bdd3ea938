"""An integer program as a function that Concrete traces, each node with the bounds that it shall have.

Concrete measures the bounds of a circuit on sample inputs, and has silent traps where a measured range
meets a rounding: an overflow that is flagged where there is none clips too low, and one that is not flagged
flips the padding bit. Here nothing is measured. Every node is declared with the whole range of the width
that ``program.widths`` chose, which already keeps the bound that roundings need, so neither can occur, and
overflow protection is off because nothing is left to protect from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.program.nodes import BATCH, Node, with_batch
from fhe_core.program.program import Program

Array = NDArray[Any]

#: The name of the function in its circuit.
FUNCTION = "run"


def tag_of(number: int) -> str:
    """What Concrete's statistics call the node of this number in its program."""
    return f"n{number}"


def sample_shape(node: Node) -> tuple[int, ...]:
    """The shape of one sample: Concrete's circuits take one at a time."""
    return tuple(1 if n == BATCH else n for n in node.shape)


def declare_bounds(graph: Any, marked: Mapping[Any, tuple[int, int]]) -> None:
    bounds = {}
    for node in graph.query_nodes(ordered=True):
        if node in marked:
            low, high = marked[node]
        else:
            # Only constants are not marked.
            value = np.asarray(node())
            low, high = int(value.min(initial=0)), int(value.max(initial=0))
        bounds[node] = {"min": np.int64(low), "max": np.int64(high)}
    graph.update_with_bounds(bounds)


def _range(node: Node) -> tuple[int, int]:
    half = 1 << (node.width - 1)
    return (-half, half - 1) if node.signed else (0, 2 * half - 1)


def function(
    program: Program, names: Sequence[str], fhe: Any
) -> tuple[Callable[..., Any], dict[Any, tuple[int, int]]]:
    """A Python function that Concrete traces, and the ranges of the nodes that it makes."""
    marked: dict[Any, tuple[int, int]] = {}

    def traced(*arguments: Any) -> Any:
        values: dict[int, Any] = {}
        supplied = iter(arguments)
        for number, node in enumerate(program.nodes):
            if node.op == "input":
                made = _input(fhe, node, next(supplied), marked)
            else:
                with fhe.tag(tag_of(number)):
                    sources = [_source(values[id(n)], n, node, marked) for n in node.inputs]
                    made = _EMITTERS[node.op](fhe, node, sources)
                _mark(made, sources, node, marked)
            values[id(node)] = made
        outputs = [_output(fhe, node, values[id(node)], marked) for node in program.outputs]
        return tuple(outputs) if len(outputs) > 1 else outputs[0]

    # Concrete reads the parameters' names and the code's place.
    source = f"def {FUNCTION}({', '.join(names)}):\n    return traced({', '.join(names)})\n"
    scope: dict[str, Any] = {"traced": traced}
    exec(compile(source, __file__, "exec"), scope)
    return scope[FUNCTION], marked


def _input(fhe: Any, node: Node, given: Any, marked: dict[Any, Any]) -> Any:
    """An input of the circuit. Clear ones become ciphertexts that hide nothing: Concrete has no arithmetic for
    clear values alone."""
    marked[given.computation] = _range(node)
    if node.attributes["encrypted"]:
        return given
    zero = fhe.zeros(sample_shape(node))
    made = given + zero
    marked[zero.computation] = marked[made.computation] = _range(node)
    return made


#: Operations that move elements: Concrete wants one type before and after.
_LAYOUT = {"reshape", "transpose", "broadcast", "index", "take", "concatenate", "pad"}


def _source(value: Any, source: Node, node: Node, marked: dict[Any, Any]) -> Any:
    """What ``node`` reads of ``source``: as it is, or in the signedness of what it moves it to."""
    if node.op not in _LAYOUT or source.signed == node.signed:
        return value
    # An encoding is modular, so adding nothing converts it.
    converted = value + np.int64(0)
    marked[converted.computation] = _range(node)
    return converted


def _mark(made: Any, sources: Sequence[Any], node: Node, marked: dict[Any, Any]) -> None:
    """Give every traced node between the sources and the result the range of the result."""
    known = {id(source.computation) for source in sources}
    stack = [made]
    while stack:
        tracer = stack.pop()
        computation = tracer.computation
        if id(computation) in known or computation in marked:
            continue
        # An offset too: declared with bits of its own it would widen all that shares its width.
        if computation.operation.value != "constant" or node.op == "shift":
            low, high = _range(node)
            if node.op == "round":
                low, high = _range(node.inputs[0])
                dropped = node.attributes["dropped"]
                high = ((high + 1) >> dropped << dropped) - (1 << dropped)
            marked[computation] = (low, high)
        stack.extend(tracer.input_tracers)


def _output(fhe: Any, node: Node, value: Any, marked: dict[Any, Any]) -> Any:
    if node.op != "input":
        return value
    # A circuit has to compute something.
    made = fhe.identity(value)
    marked[made.computation] = _range(node)
    return made


def _constant(values: Any) -> Any:
    return np.asarray(values, dtype=np.int64)


def _emit_shift(fhe: Any, node: Node, sources: Sequence[Any]) -> Any:
    # Modulo 2^(k + 1), as the circuit computes: the padding bit is one of the k + 1 bits.
    half = 1 << node.width
    return sources[0] + ((_constant(node.attributes["offset"]) + half) % (2 * half) - half)


def _emit_matmul(fhe: Any, node: Node, sources: Sequence[Any]) -> Any:
    weights = _constant(node.attributes["weights"])
    return weights @ sources[0] if node.attributes["left"] else sources[0] @ weights


def _emit_conv(fhe: Any, node: Node, sources: Sequence[Any]) -> Any:
    return fhe.conv(
        sources[0],
        _constant(node.attributes["weights"]),
        strides=tuple(node.attributes["strides"]),
        dilations=tuple(node.attributes["dilations"]),
        group=int(node.attributes["group"]),
    )


def _emit_pad(fhe: Any, node: Node, sources: Sequence[Any]) -> Any:
    shape = sample_shape(node)
    widths = node.attributes["widths"]
    source = sample_shape(node.inputs[0])
    inside = tuple(slice(b, b + n) for n, (b, _) in zip(source, widths, strict=True))
    padded = fhe.zeros(shape)
    padded[inside] = sources[0]
    # Assignment makes a new tracer, which Concrete follows to from the old one by itself, and marks do not.
    padded = padded.last_version
    border = np.broadcast_to(_constant(node.attributes["value"]), shape).copy()
    border[inside] = 0
    return padded + border if border.any() else padded


def _emit_index(fhe: Any, node: Node, sources: Sequence[Any]) -> Any:
    # Concrete has neither `...` nor new axes: every axis by itself, then a reshape.
    key = with_batch(node.attributes["key"], 1)
    axes = [part for part in key if part is not None]
    at = axes.index(Ellipsis) if Ellipsis in axes else len(axes)
    before, behind = axes[:at], axes[at + 1 :]
    between = [slice(None)] * (len(node.inputs[0].shape) - len(before) - len(behind))
    picked = sources[0][(*before, *between, *behind)]
    return picked.reshape(sample_shape(node)) if None in key else picked


def _emit_take(fhe: Any, node: Node, sources: Sequence[Any]) -> Any:
    """Constant indices along one axis, however many: hundreds of joined slices compile for minutes."""
    indices, axis = node.attributes["indices"], node.attributes["axis"]
    before = (slice(None),) * axis
    length = sample_shape(node.inputs[0])[axis]
    flat = [int(i) % length for i in np.reshape(indices, -1)]
    if np.ndim(indices) == 0:
        return sources[0][(*before, flat[0])]
    return sources[0][(*before, np.array(flat))].reshape(sample_shape(node))


def _emit_round(fhe: Any, node: Node, sources: Sequence[Any]) -> Any:
    exact = node.attributes["exact"]
    return fhe.round_bit_pattern(
        sources[0],
        lsbs_to_remove=int(node.attributes["dropped"]),
        overflow_protection=False,
        exactness=fhe.Exactness.EXACT if exact else fhe.Exactness.APPROXIMATE,
    )


def _look_up(key: Any, tables: Array, which: Array, first: int, dropped: int) -> Any:
    """What Concrete evaluates to build its tables: ``key`` is the unshifted, rounded value."""
    index = (np.asarray(key) >> dropped) - first
    return tables[which, np.clip(index, 0, tables.shape[1] - 1)]


def _emit_lookup(fhe: Any, node: Node, sources: Sequence[Any]) -> Any:
    from concrete.fhe.dtypes import Integer
    from concrete.fhe.representation import Node as Computation
    from concrete.fhe.tracing import Tracer

    (key,) = sources
    source = node.inputs[0]
    output = deepcopy(key.output)
    output.dtype = Integer(is_signed=node.signed, bit_width=node.width)
    tables, which = node.attributes["tables"], node.attributes["which"]
    shape = sample_shape(node)
    many = len(tables) > 1
    which = np.ascontiguousarray(np.broadcast_to(which, shape)) if many else np.asarray(0)
    computation = Computation.generic(
        "tlu",
        [deepcopy(key.output)],
        output,
        _look_up,
        kwargs={
            "tables": tables,
            "which": which,
            "first": int(node.attributes["first"]),
            "dropped": int(source.attributes["dropped"]) if source.op == "round" else 0,
        },
    )
    return Tracer(computation, [key])


_EMITTERS: dict[str, Callable[[Any, Node, Sequence[Any]], Any]] = {
    "add": lambda fhe, node, sources: sources[0] + sources[1],
    "subtract": lambda fhe, node, sources: sources[0] - sources[1],
    "negative": lambda fhe, node, sources: -sources[0],
    "shift": _emit_shift,
    "scale": lambda fhe, node, sources: sources[0] * _constant(node.attributes["factor"]),
    "matmul": _emit_matmul,
    "conv": _emit_conv,
    "sum": lambda fhe, node, sources: np.sum(
        sources[0], axis=node.attributes["axes"], keepdims=node.attributes["keepdims"]
    ),
    "reshape": lambda fhe, node, sources: sources[0].reshape(sample_shape(node)),
    "transpose": lambda fhe, node, sources: np.transpose(sources[0], node.attributes["axes"]),
    "broadcast": lambda fhe, node, sources: np.broadcast_to(sources[0], sample_shape(node)),
    "index": _emit_index,
    "take": _emit_take,
    "concatenate": lambda fhe, node, sources: np.concatenate(
        tuple(sources), axis=node.attributes["axis"]
    ),
    "pad": _emit_pad,
    "round": _emit_round,
    "lookup": _emit_lookup,
}
