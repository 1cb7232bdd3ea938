"""The vocabulary of integer programs, and of the float calls that surround them.

Three kinds of value exist while a model is recorded:

- a ``Node`` is an integer tensor of the circuit;
- a ``HostInput`` is a float tensor that the client holds before encryption;
- a ``Call`` is a NumPy function of those, not yet evaluated. Calls between an integer tensor and the
  next quantization become one look-up; calls before the first quantization and after the last integer
  tensor run on the client.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.errors import Where
from fhe_core.program.batch import BATCH as BATCH
from fhe_core.program.batch import Shape as Shape
from fhe_core.program.batch import exported_for as exported_for
from fhe_core.program.batch import is_batch as is_batch
from fhe_core.program.batch import with_batch as with_batch


@dataclass(frozen=True)
class Origin:
    """The ONNX node whose ``q_impl`` is being recorded.

    Attributes:
        output: its first output's name.
        computes: its op has a ``q_impl`` of its own.
        fused: its op says that it is a function of each element here.
    """

    output: str
    where: Where
    computes: bool = False
    fused: bool = False


_origin: ContextVar[Origin | None] = ContextVar("fhe_core_origin", default=None)


@contextlib.contextmanager
def recording(origin: Origin | None) -> Iterator[None]:
    """Attribute all nodes and calls recorded in the body to ``origin``."""
    token = _origin.set(origin)
    try:
        yield
    finally:
        _origin.reset(token)


def current_origin() -> Origin | None:
    return _origin.get()


_bounded: ContextVar[bool] = ContextVar("fhe_core_bounded", default=True)


@contextlib.contextmanager
def without_bounds() -> Iterator[None]:
    """What is recorded in the body is judged by its shapes and never run: its bounds are not worked out."""
    token = _bounded.set(False)
    try:
        yield
    finally:
        _bounded.reset(token)


def has_bounds() -> bool:
    """Whether the bounds of what is recorded matter."""
    return _bounded.get()


@dataclass(frozen=True)
class Choice:
    """One of two integers, the greater or the smaller, as ``second`` plus or minus what a look-up gives.

    Where that rounds what it reads, the result is a little more or less than either.
    """

    greater: bool
    first: Node
    second: Node
    part: Node


@dataclass(eq=False)
class Node:
    """One integer tensor of the program.

    Attributes:
        op: a name of the vocabulary, a key of ``rules.RULES``.
        inputs: the integer tensors that it reads.
        shape: with ``BATCH`` for the batch dimension.
        attributes: constants (arrays, axes, tables).
        low, high: bounds that hold for every input the client can encrypt, int64 arrays that broadcast to
            ``shape`` with the batch dimension 1.
        name: the accumulator's name in the plan, given to nodes that a look-up or an output reads.
        width: bits that the circuit gives it, padding bit apart; 0 until ``widths`` has decided.
        signed: whether the circuit encodes it in two's complement.
        exact: every bit counts: it is never rounded, and its width holds all that is within its bounds.
        choice: what it chooses between, if it does; only while it is recorded.
    """

    op: str
    inputs: tuple[Node, ...]
    shape: Shape
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    attributes: dict[str, Any] = field(default_factory=dict)
    origin: Origin | None = field(default_factory=current_origin)
    name: str = ""
    width: int = 0
    signed: bool = False
    exact: bool = False
    choice: Choice | None = None

    @property
    def bounds(self) -> tuple[int, int]:
        return int(self.low.min(initial=0)), int(self.high.max(initial=0))

    @property
    def where(self) -> Where:
        return self.origin.where if self.origin else Where()


@dataclass(eq=False)
class HostInput:
    """A model input as the client holds it, before encryption."""

    name: str
    shape: Shape
    dtype: np.dtype[Any]
    encrypted: bool = True


@dataclass(eq=False)
class Call:
    """A NumPy function of recorded values, evaluated when a reader needs it.

    ``layout`` marks functions that move elements without changing them, so that they can be replayed
    on integers. ``arguments`` may hold recorded values anywhere inside lists and tuples.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any]
    shape: Shape
    dtype: np.dtype[Any]
    layout: bool = False
    item: int | None = None  # which result, for functions that return several
    origin: Origin | None = field(default_factory=current_origin)
    materialized: Node | None = None
    samples: dict[int, Any] = field(default_factory=dict)

    @property
    def where(self) -> Where:
        return self.origin.where if self.origin else Where()


Value = Node | HostInput | Call
Root = Node | HostInput


def convert(x: Any, *, dtype: np.dtype[Any]) -> Any:
    """``x`` as an array of another dtype: the one function of a call that readers know by itself."""
    return np.asarray(x).astype(dtype)


def leaves(argument: Any) -> Iterator[Value]:
    """The recorded values inside one argument of a call."""
    if isinstance(argument, (Node, HostInput, Call)):
        yield argument
    elif isinstance(argument, (list, tuple)):
        for part in argument:
            yield from leaves(part)


def operands(call: Call) -> list[Value]:
    """The recorded values that a call reads, in order."""
    found = [value for argument in call.arguments for value in leaves(argument)]
    found += [value for argument in call.keywords.values() for value in leaves(argument)]
    return found


def predecessors(value: Value) -> Iterable[Value]:
    if isinstance(value, Node):
        return value.inputs
    if isinstance(value, Call):
        return operands(value)
    return ()


def ordered(values: Iterable[Value], *, stop_at_nodes: bool = False) -> list[Value]:
    """All values that ``values`` depend on, each after its predecessors, themselves last.

    With ``stop_at_nodes`` the walk does not go into what integer tensors depend on. Iterative, because
    recorded programs are deeper than Python's stack.
    """
    done: dict[int, Value] = {}
    stack: list[tuple[Value, bool]] = [(value, False) for value in reversed(list(values))]
    while stack:
        value, expanded = stack.pop()
        if id(value) in done:
            continue
        if expanded or (stop_at_nodes and isinstance(value, Node)):
            done[id(value)] = value
            continue
        stack.append((value, True))
        stack.extend((p, False) for p in reversed(list(predecessors(value))) if id(p) not in done)
    return list(done.values())


def roots(value: Value) -> list[Root]:
    """The integer tensors and host inputs that a value is a float function of."""
    return [v for v in ordered([value], stop_at_nodes=True) if not isinstance(v, Call)]


def evaluate(value: Value, known: dict[int, Any], batch: int) -> Any:
    """The array that ``value`` is, given arrays for its roots by ``id`` in ``known``.

    Results of intermediate calls are added to ``known``.

    Raises:
        KeyError: a root is missing.
    """
    for step in ordered([value], stop_at_nodes=True):
        if id(step) not in known and isinstance(step, Call):
            known[id(step)] = computed(step, known, batch)
    return known[id(value)]


def computed(step: Call, known: Mapping[int, Any], batch: int) -> Any:
    """The array that one call gives, its operands being known by ``id``."""
    arguments = _filled(step.arguments, known)
    keywords = {name: _filled(argument, known) for name, argument in step.keywords.items()}
    if step.layout:
        arguments = tuple(with_batch(argument, batch) for argument in arguments)
        keywords = {name: with_batch(argument, batch) for name, argument in keywords.items()}
    with np.errstate(all="ignore"):
        result = step.function(*arguments, **keywords)
    return result if step.item is None else result[step.item]


def _filled(argument: Any, known: Mapping[int, Any]) -> Any:
    """``argument`` with arrays in place of recorded values.

    No closure of ``evaluate``: one that calls itself keeps every array alive until garbage is collected.
    """
    if isinstance(argument, (Node, HostInput, Call)):
        return known[id(argument)]
    if isinstance(argument, (list, tuple)):
        return type(argument)(_filled(part, known) for part in argument)
    return argument
