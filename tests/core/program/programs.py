"""Integer programs built node by node, as a recorded and planned model would be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from fhe_core.program.nodes import BATCH, Node
from fhe_core.program.pipeline import optimized
from fhe_core.program.program import Program
from fhe_core.program.remarks import Remark
from fhe_core.program.rules import RULES
from fhe_core.program.widths import bits_of, components
from fhe_core.registry import get_registry
from numpy.typing import NDArray

Array = NDArray[Any]


def entry(name: str, size: int, width: int, *, signed: bool = True) -> Node:
    """An encrypted input of ``size`` integers that fill ``width`` bits."""
    low, high = (-(1 << (width - 1)), (1 << (width - 1)) - 1) if signed else (0, (1 << width) - 1)
    attributes = {"encrypted": True}
    shape = (BATCH, size)
    node = Node("input", (), shape, np.full((1, size), low), np.full((1, size), high), attributes)
    node.name, node.width, node.signed = name, width, signed
    return node


def linear(op: str, *inputs: Node, **attributes: Any) -> Node:
    """A node of ``RULES``. Its width is its component's, set by ``widened``."""
    rule = RULES[op]
    low, high = rule.interval([(node.low, node.high) for node in inputs], attributes)
    shape = (BATCH, *np.shape(low)[1:])
    return Node(op, inputs, shape, np.asarray(low), np.asarray(high), attributes)


def rounded(source: Node, kept: int, *, exact: bool) -> Node:
    """``source``, which has its width, rounded to ``kept`` bits of it."""
    low, high = (-(1 << (kept - 1)), (1 << (kept - 1)) - 1) if source.signed else (0, 2**kept - 1)
    attributes = {"dropped": source.width - kept, "exact": exact}
    ends = np.asarray(low), np.asarray(high)
    node = Node("round", (source,), source.shape, *ends, attributes, name="acc")
    node.width, node.signed = kept, source.signed
    return node


def looked_up(source: Node, tables: Any) -> Node:
    """``source``, which has its width, replaced by entries: of one table, or one a column."""
    entries = np.asarray(tables)
    count, length = entries.shape
    assert length == 1 << source.width
    which = np.arange(source.shape[-1]).reshape(1, -1) if count > 1 else np.zeros((1, 1), int)
    which = np.broadcast_to(which, (1, *source.shape[1:]))
    low, high = entries.min(axis=1)[which], entries.max(axis=1)[which]
    attributes = {
        "tables": entries,
        "which": which,
        "first": -(length // 2) if source.signed else 0,
    }
    node = Node("lookup", (source,), source.shape, low, high, attributes)
    node.width, node.signed = bits_of(*node.bounds), node.bounds[0] < 0
    return node


def widened(nodes: Sequence[Node], least: int = 1) -> None:
    """Give each component the width of what is in it, and each linear node its signedness."""
    component = components(nodes)
    widths: dict[int, int] = {}
    for node in nodes:
        key = component[id(node)]
        own = bits_of(*node.bounds) if node.op in RULES else node.width
        widths[key] = max(widths.get(key, least), own)
    for node in nodes:
        node.width = widths[component[id(node)]]
        if node.op in RULES:
            node.signed = node.bounds[0] < 0


def fixed(width: int, *nodes: Node, signed: bool = True) -> None:
    """Give nodes a width that their values may leave."""
    for node in nodes:
        node.width, node.signed = width, signed


def program(*outputs: Node) -> Program:
    return Program.of(outputs)


def encrypted(made: Program, inputs: Mapping[str, Array]) -> list[Array]:
    """What real keys and ciphertexts make of the program, at p_error 2^-40."""
    from fhe_core.compiler.concrete_backend import compile_program
    from fhe_core.progress import progress_of

    return compile_program(made, 2.0**-40).execute(inputs, progress_of(None))


def saved(made: Program, samples: Any = None) -> tuple[Program, tuple[Remark, ...]]:
    """The program as the built-in passes leave it; with samples, those that rely on them take part."""
    passes = [
        each for each in get_registry().program_passes() if each.origin.name == "optimization"
    ]
    assert passes
    return optimized(made, passes, samples or {}, calibrated=samples is not None)
