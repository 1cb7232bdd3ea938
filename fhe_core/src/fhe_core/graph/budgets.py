"""How much a model may ask for before it is refused: nodes, calls in one another, iterations, bytes.

A few hundred bytes can ask for more than any machine has. What is known before any of it is done is
counted before, so that a refusal is immediate; all name the node that asks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import onnx

from fhe_core.arguments import shown
from fhe_core.errors import InputError, ModelError, Where
from fhe_core.graph.names import where_of
from fhe_core.graph.protos import messages

#: Nodes of a model whose functions are expanded. Exports of the largest language models have some
#: ten thousand.
MAX_NODES = 100_000
#: Functions that call one another, as onnx's own shape inference counts them.
MAX_CALL_DEPTH = 100
#: Runs of subgraphs for one node of the model; each takes some ten microseconds at least.
MAX_ITERATIONS = 1_000_000
#: The same where the node depends on constants alone, and is computed when the model is loaded.
MAX_FOLDED_ITERATIONS = 100_000

#: What a tensor, and all constants together, may take: in bytes, for one sample.
MAX_BYTES = 8 << 30

_Key = tuple[str, str, str]  # domain, name, overload
_SMALLER = "export the model without local functions, or a part of it at a time"


def check_expansion(model: onnx.ModelProto, label: str) -> None:
    """Refuse a model that has too many nodes, or would have once its functions are expanded.

    Time is linear in the model's size, whatever it would expand to. Functions that call themselves
    are left to ``reading``.

    Raises:
        ModelError: more than `MAX_NODES` nodes, or calls deeper than `MAX_CALL_DEPTH`.
    """
    measured = _Functions(model)
    total = 0
    for node in _nodes(model.graph):
        size, depth = measured.of(_key(node), ())
        total += size
        if depth > MAX_CALL_DEPTH:
            raise ModelError(
                "the functions that this node calls call one another too deep",
                where=where_of(node),
                expected=f"at most {MAX_CALL_DEPTH} calls in one another",
                fix=_SMALLER,
            )
        if total > MAX_NODES:
            raise too_many_nodes(label, where_of(node))


_max_bytes: ContextVar[int] = ContextVar("fhe_core_max_bytes", default=MAX_BYTES)


@contextmanager
def byte_limit(limit: Any) -> Iterator[None]:
    """Another limit than `MAX_BYTES` in the body; None leaves the one that is in force.

    Raises:
        ModelError: it is no positive whole number.
    """
    if limit is None:
        yield
        return
    if not isinstance(limit, int) or isinstance(limit, bool) or limit <= 0:
        raise ModelError(
            f"max_bytes cannot be {shown(limit)}",
            expected="a positive whole number of bytes",
            got=shown(limit),
            fix="leave it out for 8 GiB",
        )
    token = _max_bytes.set(limit)
    try:
        yield
    finally:
        _max_bytes.reset(token)


def check_bytes(count: float, what: str, where: Where | None = None) -> None:
    """Refuse a tensor, or several, of too many bytes.

    Raises:
        ModelError: more than the limit in force.
    """
    limit = _max_bytes.get()
    if count > limit:
        raise ModelError(
            f"{what} more memory than a model may take",
            where=where,
            expected=f"at most {_readable(limit)}",
            got=_readable(count),
            fix="correct the shapes in the model, or allow more with max_bytes=",
        )


_iterations: ContextVar[list[int] | None] = ContextVar("fhe_core_iterations", default=None)


@contextmanager
def iterations(limit: int) -> Iterator[None]:
    """Allows so many runs of subgraphs in the body, those in one another counted together.

    Where a limit is in force, that one stays.
    """
    if _iterations.get() is not None:
        yield
        return
    token = _iterations.set([limit])
    try:
        yield
    finally:
        _iterations.reset(token)


def count_iteration() -> None:
    """Takes one run of a subgraph off what is allowed.

    Raises:
        InputError: none is left.
    """
    left = _iterations.get()
    if left is None:
        return
    left[0] -= 1
    if left[0] < 0:
        raise InputError(
            "its subgraphs ran so often that they may never end",
            expected="a loop that ends within a million iterations, or a hundred thousand on constants",
            fix="correct the condition that ends the loop, or limit its number of iterations",
        )


def too_many_nodes(label: str, where: Where) -> ModelError:
    """The refusal of a model at the node that is one too many."""
    return ModelError(
        f"{label} has too many nodes, those of its functions counted at each call",
        where=where,
        expected=f"at most {MAX_NODES:,} nodes",
        fix=_SMALLER,
    )


class _Functions:
    """What a call of each function stands for: how many nodes, how many calls deep."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._calls = {
            (f.domain, f.name, f.overload): Counter(map(_key, _nodes(f))) for f in model.functions
        }
        self._known: dict[_Key, tuple[int, int]] = {}

    def of(self, key: _Key, around: tuple[_Key, ...]) -> tuple[int, int]:
        """Nodes and depth of one node; 1 and 0 of an operator, or of a call round a cycle."""
        if key not in self._calls or key in around:
            return 1, 0
        if key not in self._known:
            if len(around) > MAX_CALL_DEPTH:
                return 1, 1  # deep enough to be refused, whatever follows
            size, depth, inside = 0, 0, (*around, key)
            for callee, times in self._calls[key].items():
                nodes, below = self.of(callee, inside)
                size, depth = size + times * nodes, max(depth, below)
            self._known[key] = size, depth + 1
        return self._known[key]


def _nodes(holder: Any) -> Iterable[Any]:
    """The nodes of a graph or function, those of subgraphs included."""
    return (message for message in messages(holder) if isinstance(message, onnx.NodeProto))


def _key(node: Any) -> _Key:
    return node.domain, node.op_type, node.overload


def _readable(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} PiB"
