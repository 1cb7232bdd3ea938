"""Float groups: the arithmetic between an integer tensor and the next quantization, as one look-up.

A look-up is a function of one encrypted integer. So a group may start from one integer tensor only, and
each of its results may depend on one element of it only (`univariate` checks it). Functions that only
move elements stay outside of the look-up, before or after it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.errors import CompilationError
from fhe_core.program.advice import not_elementwise
from fhe_core.program.nodes import (
    BATCH,
    Call,
    HostInput,
    Node,
    Origin,
    Shape,
    convert,
    operands,
    ordered,
    recording,
    roots,
)
from fhe_core.program.tabulation import entries_at, filled, results_at
from fhe_core.program.univariate import check_univariate, mixes, source_index

#: Levels up to which a table is evaluated in whole to find its bounds and to see whether it is the identity.
MOST_LEVELS = 2**16


@dataclass(frozen=True)
class Step:
    """A layout function between a group's root and its result, to be replayed on integers."""

    function: Any
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    position: int  # where in `arguments` the tensor goes
    origin: Origin | None  # the op that moves the elements


def materialize(call: Call) -> Node:
    """The integer tensor that a call with an integer dtype describes.

    Raises:
        CompilationError: the group starts from several integer tensors, mixes elements, or has none.
    """
    if call.materialized is None:
        call.materialized = _materialize(call)
    return call.materialized


def _materialize(call: Call) -> Node:
    if 0 in call.shape:
        raise CompilationError(
            "an encrypted tensor has no elements",
            where=call.where,
            fix="leave what is computed from it out of the model",
        )
    starts = roots(call)
    nodes = [root for root in starts if isinstance(root, Node)]
    if not nodes:
        return _input(call, [root for root in starts if isinstance(root, HostInput)])
    if len(starts) > 1:
        names = sorted({_name(root) for root in starts})
        raise not_elementwise(
            _joining(call),
            "a float computation starts from several encrypted tensors, and a table look-up has one input",
            expected="can_fuse() that is True only for functions of one integer tensor",
            got=f"a function of {', '.join(names)}",
        )
    (root,) = nodes
    index = source_index(call)
    check_univariate(call, root)
    return _lookup(call, root, index)


def _joining(call: Call) -> Call:
    """The first call, of those behind ``call``, that starts from several values."""
    behind = [value for value in ordered([call], stop_at_nodes=True) if isinstance(value, Call)]
    return next(value for value in behind if len(roots(value)) > 1)


def _name(root: Node | HostInput) -> str:
    if isinstance(root, HostInput):
        return repr(root.name)
    return repr(root.name or (root.origin.output if root.origin else root.op))


# -- encrypted inputs


def _input(call: Call, starts: list[HostInput]) -> Node:
    limits = _limits(call)
    if limits is None:
        raise CompilationError(
            "an input is used as integers without bounds",
            where=call.where,
            fix="quantize it with the quantizer of its QuantizedArray, which clips to its range",
        )
    shape = tuple(1 if n == BATCH else n for n in call.shape)
    return Node(
        "input",
        (),
        call.shape,
        np.broadcast_to(limits[0], shape),
        np.broadcast_to(limits[1], shape),
        {"source": call, "encrypted": any(start.encrypted for start in starts)},
        name="+".join(start.name for start in starts),
    )


def _limits(call: Call) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """The bounds that a final ``numpy.clip`` guarantees, or those of booleans."""
    if call.dtype.kind == "b":
        return np.asarray(0), np.asarray(1)
    value: Any = call
    while isinstance(value, Call):
        if value.dtype.kind == "b":
            return np.asarray(0), np.asarray(1)
        if value.function is np.clip and len(value.arguments) == 3:
            _, low, high = value.arguments
            if all(_is_finite(end) for end in (low, high)):
                return np.asarray(low).astype(np.int64), np.asarray(high).astype(np.int64)
        inner = operands(value)
        # Only conversions keep the bounds.
        if len(inner) != 1 or value.function is not convert:
            return None
        value = inner[0]
    return None


def _is_finite(end: Any) -> bool:
    """Whether an end of numpy.clip is a bound: a constant, and neither None nor infinite."""
    return not isinstance(end, (Call, Node, HostInput, type(None))) and bool(np.isfinite(end).all())


# -- the look-up


def _lookup(call: Call, root: Node, index: NDArray[np.int64]) -> Node:
    """A look-up with its layout functions before or after it, whichever looks up fewer elements."""
    size = int(np.prod([n for n in root.shape if n != BATCH]))
    used = index.reshape(-1)
    direct = root.shape == call.shape and np.array_equal(used, np.arange(size))
    if direct:
        return _identity(call, root, root) or _node(call, root, root, None)
    if (used < 0).any():
        raise CompilationError(
            "constants are padded or concatenated to encrypted values inside a float computation",
            where=call.where,
            fix="quantize before the padding: read qvalues in the op's q_impl",
        )
    steps = layout_steps(call)
    moved = _replayed(root, steps)
    shift = _identity(call, root, moved)
    if shift is not None:
        return shift
    inverse = np.full(size, -1, dtype=np.int64)
    inverse[used] = np.arange(used.size)
    if (
        used.size < size
        or len(np.unique(used)) < size
        or not _same_tables(call, root, used, inverse)
    ):
        return _node(call, moved, root, None)
    looked_up = _node(call, root, root, inverse)
    return _replayed(looked_up, steps)


#: So many results are computed at once: an image has as many elements, each at every level.
_PROBED = 2**20


def _same_tables(
    call: Call, root: Node, used: NDArray[np.int64], inverse: NDArray[np.int64]
) -> bool:
    """Whether all results of one root element are one function of it, so that one look-up serves them."""
    if len(np.unique(used)) == used.size:
        return True
    levels, others = _probe_levels(root), inverse[used]
    together = max(1, _PROBED // used.size)
    for start in range(0, len(levels), together):
        results = results_at(call, root, levels[start : start + together])
        if not np.array_equal(results, results[:, others], equal_nan=True):
            return False
    return True


def _probe_levels(root: Node) -> NDArray[np.int64]:
    low, high = root.bounds
    return np.unique(np.linspace(low, high, 129).astype(np.int64))


def _node(call: Call, source: Node, root: Node, inverse: NDArray[np.int64] | None) -> Node:
    # With `inverse`, the call's results are put back at their root elements: layout follows later.
    # `root` is the tensor the call was recorded on, `source` the one that is looked up.
    shape = source.shape if inverse is not None else call.shape
    limits = _limits(call)
    if limits is None:
        limits = _measured(call, root)
    per_sample = tuple(1 if n == BATCH else n for n in shape)
    low, high = (np.broadcast_to(limit, _result_shape(call)) for limit in limits)
    if inverse is not None:
        low, high = (limit.reshape(-1)[inverse].reshape(per_sample) for limit in (low, high))
    return Node(
        "lookup",
        (source,),
        shape,
        low,
        high,
        {"call": call, "root": root, "inverse": inverse},
        origin=call.origin,
    )


def _result_shape(call: Call) -> Shape:
    return tuple(1 if n == BATCH else n for n in call.shape)


def _measured(call: Call, root: Node) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    low, high = root.bounds
    if high - low >= MOST_LEVELS:
        raise CompilationError(
            "an integer function of a wide accumulator has no bounds",
            where=call.where,
            got=f"values from {low} to {high}",
            fix="clip its result with numpy.clip before converting it to integers",
        )
    results = filled(entries_at(call, root, np.arange(low, high + 1)), call).astype(np.int64)
    shape = _result_shape(call)
    return results.min(axis=0).reshape(shape), results.max(axis=0).reshape(shape)


_keeps_identities: ContextVar[bool] = ContextVar("fhe_core_keeps_identities", default=False)


@contextlib.contextmanager
def keeping_identities() -> Iterator[None]:
    """What is recorded in the body has a look-up for each group, even where rounding makes it the identity."""
    token = _keeps_identities.set(True)
    try:
        yield
    finally:
        _keeps_identities.reset(token)


def _identity(call: Call, root: Node, moved: Node) -> Node | None:
    """``moved``, shifted by constants, where the group does nothing else: then no look-up is needed."""
    low, high = root.bounds
    if high - low >= MOST_LEVELS or _keeps_identities.get():
        return None
    ends = np.array([low, high])
    results = results_at(call, root, ends)
    if not np.array_equal(results[1] - results[0], np.full(results.shape[1], high - low)):
        return None
    levels = np.arange(low, high + 1)
    results = results_at(call, root, levels)
    offsets = results[0] - low
    if not np.array_equal(results - levels[:, None], np.broadcast_to(offsets, results.shape)):
        return None
    from fhe_core.program.tensor import Tensor

    shifted = Tensor(moved) + offsets.astype(np.int64).reshape(_result_shape(call))
    value = shifted.value
    return value if isinstance(value, Node) else None


def layout_steps(call: Call) -> list[Step]:
    """The layout functions on one path from the root to ``call``, first to last."""
    steps: list[Step] = []
    value: Any = call
    while isinstance(value, Call):
        varying = operands(value)
        wanted = source_index(value)
        if value.layout:
            positions = [
                i for i, a in enumerate(value.arguments) if isinstance(a, (Node, HostInput, Call))
            ]
            if len(positions) != 1 or len(varying) != 1:
                raise CompilationError(
                    "a float computation joins encrypted tensors",
                    where=value.where,
                    fix="quantize the parts before they are joined: read qvalues in the op's q_impl",
                )
            keywords = dict(value.keywords)
            steps.append(
                Step(value.function, value.arguments, keywords, positions[0], value.origin)
            )
            value = varying[0]
            continue
        for operand in varying:
            index = source_index(operand)
            if np.array_equal(np.broadcast_to(index, wanted.shape), wanted):
                if operand.shape != value.shape:
                    steps.append(Step(np.broadcast_to, (None, value.shape), {}, 0, value.origin))
                value = operand
                break
        else:
            raise mixes(value)
    return steps[::-1]


#: Which recorded layout function stands for which node of the program.
def _replayed(root: Node, steps: list[Step]) -> Node:
    from fhe_core.program import layout as t
    from fhe_core.program.tensor import Tensor

    replay: dict[Any, Any] = {
        np.reshape: lambda x, shape: t.reshape(x, shape),
        np.transpose: t.transpose,
        np.broadcast_to: t.broadcast_to,
        t.pick: lambda x, key: x[key],
        t.gather: t.take,
        t.padded: lambda x, widths, value: t.pad(x, widths, constant_values=value),
    }
    value = Tensor(root)
    for step in steps:
        arguments = list(step.arguments)
        arguments[step.position] = value
        with recording(step.origin):
            value = replay[step.function](*arguments, **step.keywords)
    node = value.value
    assert isinstance(node, Node)  # noqa: S101  # layout functions of integers are nodes
    return node
