"""Float groups: the arithmetic between an integer tensor and the next quantization, as one look-up.

A look-up is a function of one encrypted integer. So a group may start from one integer tensor only, and
each of its results may depend on one element of it only. Both are checked here, structurally (which
element of the root does each result come from) and by perturbation (change single elements, see what
moves), because the functions in a group are arbitrary NumPy code, and a wrong answer of ``can_fuse``
would otherwise compute wrong results without a word.
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
from fhe_core.program.nodes import (
    BATCH,
    Call,
    HostInput,
    Node,
    Origin,
    Shape,
    Value,
    evaluate,
    operands,
    ordered,
    recording,
    roots,
)
from fhe_core.program.nodes import with_batch as _with_batch

#: Levels up to which a table is evaluated in whole to find its bounds and to see whether it is the identity.
MOST_LEVELS = 2**16

_PERTURBED_ELEMENTS = 48
_SEED = 20240


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
            where=_where(call),
            fix="leave what is computed from it out of the model",
        )
    starts = roots(call)
    nodes = [root for root in starts if isinstance(root, Node)]
    if not nodes:
        return _input(call, [root for root in starts if isinstance(root, HostInput)])
    if len(starts) > 1:
        names = sorted({_name(root) for root in starts})
        raise CompilationError(
            "a float computation starts from several encrypted tensors, and a table look-up has one input",
            where=_where(_joining(call)),
            expected="can_fuse() that is True only for functions of one integer tensor",
            got=f"a function of {', '.join(names)}",
            fix="return False from can_fuse there, and compute on prepared_inputs[i].qvalues in q_impl",
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


def _where(call: Call) -> Any:
    return call.origin.where if call.origin else None


# -- encrypted inputs


def _input(call: Call, starts: list[HostInput]) -> Node:
    limits = _limits(call)
    if limits is None:
        raise CompilationError(
            "an input is used as integers without bounds",
            where=_where(call),
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
            if not isinstance(low, (Call, Node)) and not isinstance(high, (Call, Node)):
                return np.asarray(low).astype(np.int64), np.asarray(high).astype(np.int64)
        inner = operands(value)
        # Only conversions keep the bounds.
        if len(inner) != 1 or getattr(value.function, "__name__", "") != "convert":
            return None
        value = inner[0]
    return None


# -- which element of the root each element of the result comes from


def source_index(call: Value) -> NDArray[np.int64]:
    """For each element of one sample of ``call``, the flat index of the root's element, or -1 for none.

    Raises:
        CompilationError: an element depends on several, or a function changes shapes in a way that no
            layout function explains.
    """
    return _source_indices(call)[id(call)]


def _source_indices(call: Value) -> dict[int, NDArray[np.int64]]:
    """The source index of ``call`` and of everything behind it, by ``id``."""
    known: dict[int, NDArray[np.int64]] = {}
    for value in ordered([call], stop_at_nodes=True):
        shape = tuple(1 if n == BATCH else n for n in value.shape)
        if not isinstance(value, Call):
            known[id(value)] = np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape)
        elif value.layout:
            known[id(value)] = _laid_out(value, known)
        else:
            known[id(value)] = _elementwise(value, shape, known)
    return known


def _laid_out(value: Call, known: dict[int, NDArray[np.int64]]) -> NDArray[np.int64]:
    def fill(argument: Any) -> Any:
        if isinstance(argument, (Node, HostInput, Call)):
            return known[id(argument)]
        if isinstance(argument, (list, tuple)):
            return type(argument)(fill(part) for part in argument)
        if isinstance(argument, np.ndarray) and argument.dtype.kind == "f":
            return np.full(argument.shape, -1)  # a constant that is padded or concatenated
        return argument

    arguments = _with_batch(tuple(fill(argument) for argument in value.arguments), 1)
    keywords = {name: _with_batch(fill(a), 1) for name, a in value.keywords.items()}
    if getattr(value.function, "__name__", "") == "padded":
        arguments = (*arguments[:2], np.asarray(-1))
    return np.asarray(value.function(*arguments, **keywords))


def _elementwise(
    value: Call, shape: Shape, known: dict[int, NDArray[np.int64]]
) -> NDArray[np.int64]:
    result = np.full(shape, -1, dtype=np.int64)
    for operand in operands(value):
        index = known[id(operand)]
        try:
            index = np.broadcast_to(index, shape)
        except ValueError as error:
            raise CompilationError(
                f"{_function(value)} turns shape {index.shape} into {shape}, so it is not elementwise",
                where=_where(value),
                fix="give the op a q_impl that moves elements with NumPy's layout functions, "
                "and can_fuse that returns False",
            ) from error
        clash = (result >= 0) & (index >= 0) & (result != index)
        if clash.any():
            raise _mixes(value)
        result = np.where(result >= 0, result, index)
    return result


def _function(value: Call) -> str:
    return getattr(value.function, "__name__", type(value.function).__name__)


def _mixes(value: Call) -> CompilationError:
    return CompilationError(
        f"{_function(value)} mixes several elements of an encrypted tensor in one result, "
        "and a table look-up sees one",
        where=_where(value),
        expected="a function of each element alone, where can_fuse() is True",
        got="results that move when other elements change",
        fix="return False from can_fuse, and give the op a q_impl on integers",
    )


# -- the check by perturbation


def check_univariate(call: Call, root: Node) -> None:
    """Change single elements of the root: only the results that come from them may move.

    All calls behind ``call`` are looked at, because what they do may not show any more in integers; the
    first that mixes elements, or samples of a batch, is named.

    Raises:
        CompilationError: another result moved.
    """
    rng = np.random.default_rng(_SEED)
    shape = tuple(1 if n == BATCH else n for n in root.shape)
    low, high = (np.broadcast_to(bound, shape).reshape(-1) for bound in (root.low, root.high))
    if not low.size or BATCH not in root.shape:
        return
    chosen = rng.choice(low.size, min(low.size, _PERTURBED_ELEMENTS), replace=False)
    rows = len(chosen) + 1
    base, fresh = rng.integers(low, high + 1), rng.integers(low, high + 1)
    fresh = np.where(fresh == base, np.where(fresh > low, low, high), fresh)
    values = np.repeat(base[None], rows, axis=0)
    values[np.arange(1, rows), chosen] = fresh[chosen]
    together = {id(root): _as_batch(values, root.shape)}
    alone = {id(root): _as_batch(values[:1], root.shape)}
    evaluate(call, together, rows)
    evaluate(call, alone, 1)
    indices = _source_indices(call)
    for value in ordered([call], stop_at_nodes=True):
        if not isinstance(value, Call) or value.layout:
            continue
        if BATCH not in value.shape:
            raise _mixes(value)
        flat = _by_sample(together[id(value)], value.shape)
        sources = _by_sample(indices[id(value)], value.shape)
        still = _same(flat[1:], flat[:1]) | (sources == chosen[:, None])
        if not (still.all() and _same(flat[:1], _by_sample(alone[id(value)], value.shape)).all()):
            raise _mixes(value)


def _as_batch(rows: NDArray[Any], shape: Shape) -> NDArray[Any]:
    """Rows of one sample each, as an array of ``shape``."""
    axis = shape.index(BATCH)
    return np.moveaxis(rows.reshape(len(rows), *shape[:axis], *shape[axis + 1 :]), 0, axis)


def _by_sample(array: Any, shape: Shape) -> NDArray[Any]:
    """An array of ``shape`` as rows of one sample each."""
    axis = shape.index(BATCH)
    return np.moveaxis(np.asarray(array), axis, 0).reshape(np.shape(array)[axis], -1)


def _same(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.bool_]:
    """Equal but for the last digits, which vectorized loops may compute in other ways at their ends."""
    if a.dtype.kind not in "fc":
        return np.asarray(a == b)
    size = np.abs(np.where(np.isfinite(b), b, 0)).max(initial=0)
    return np.isclose(a, b, rtol=1e-6, atol=1e-6 * size, equal_nan=True)


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
            where=_where(call),
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


def _same_tables(
    call: Call, root: Node, used: NDArray[np.int64], inverse: NDArray[np.int64]
) -> bool:
    """Whether all results of one root element are one function of it, so that one look-up serves them."""
    if len(np.unique(used)) == used.size:
        return True
    results = _results(call, root, _probe_levels(root))
    return bool(np.array_equal(results, results[:, inverse[used]], equal_nan=True))


def _probe_levels(root: Node) -> NDArray[np.int64]:
    low, high = root.bounds
    return np.unique(np.linspace(low, high, 129).astype(np.int64))


def _results(call: Call, root: Node, levels: NDArray[np.int64], offset: Any = 0) -> NDArray[Any]:
    """``call`` at each level minus ``offset``, all elements of its root alike: (levels, elements)."""
    axis = root.shape.index(BATCH)
    shape = tuple(len(levels) if n == BATCH else n for n in root.shape)
    along = [1] * len(shape)
    along[axis] = len(levels)
    every: NDArray[np.int64] = np.broadcast_to(levels.reshape(along), shape)
    # One offset for all has the rank of what is looked up, which layout may have changed since the root.
    offset = np.asarray(offset, dtype=np.int64)
    stacked = every - (offset.reshape(()) if offset.size == 1 else offset)
    results = np.asarray(evaluate(call, {id(root): stacked}, len(levels)))
    return np.moveaxis(results, call.shape.index(BATCH), 0).reshape(len(levels), -1)


def before_conversion(call: Call) -> Value:
    """What ``call`` converts to integers, which may be NaN where integers cannot; else itself."""
    converts = getattr(call.function, "__name__", "") == "convert" and call.dtype.kind in "iu"
    return operands(call)[0] if converts else call


def _entries(
    call: Call, root: Node, levels: NDArray[np.int64], offset: Any = 0
) -> NDArray[np.float64]:
    """``_results`` as integral floats, NaN where the function is not finite."""
    value = before_conversion(call)
    results = _results(value if isinstance(value, Call) else call, root, levels, offset)
    finite = np.isfinite(results)
    return np.trunc(results) if finite.all() else np.where(finite, np.trunc(results), np.nan)


def _filled(entries: NDArray[np.float64], call: Call) -> NDArray[np.float64]:
    """``entries``: (levels, elements), those that are missing taken from the nearest level.

    The float model was finite on the calibration data, so what is missing lies beyond it: the logarithm of
    what an accumulator could hold and never did.
    """
    present = np.isfinite(entries)
    if present.all():
        return entries
    if not present.any(axis=0).all():
        raise CompilationError(
            "a table would hold NaN or infinity at every level",
            where=_where(call),
            fix="clip the input of the function to where it is defined",
        )
    count = len(entries)
    level = np.arange(count)[:, None]
    below = np.maximum.accumulate(np.where(present, level, -count), axis=0)
    above = np.minimum.accumulate(np.where(present, level, 2 * count)[::-1], axis=0)[::-1]
    nearest = np.where(level - below <= above - level, below, above)
    return np.take_along_axis(entries, nearest, axis=0)


def tabulate(
    node: Node,
    levels: NDArray[np.int64],
    cell: NDArray[np.int64],
    offset: Any = 0,
    chunk: int = 2**22,
) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    """The distinct tables of a look-up, and which one each element takes.

    Args:
        levels: the values of the integer input, in the order of the tables' entries.
        cell: an entry is the mean of the function at level + ``cell``, rounded.
        offset: what was added to the integer input before the look-up; broadcasts to it.

    Returns:
        (tables, len(levels)) int64, and the table's number for each element, shape of ``node`` with the
        batch dimension 1.

    Raises:
        CompilationError: the float computation gives no finite number at any level.
    """
    root = node.attributes["root"]
    per_level = max(1, int(np.prod([n for n in root.shape if n != BATCH])))
    step = max(1, chunk // (per_level * len(cell)))
    parts = []
    for i in range(0, len(levels), step):
        points = (levels[i : i + step, None] + cell).reshape(-1)
        results = _entries(node.attributes["call"], root, points, offset)
        if len(cell) > 1:
            cells = results.reshape(-1, len(cell), results.shape[1])
            present = np.isfinite(cells)
            with np.errstate(invalid="ignore"):
                means = np.where(present, cells, 0).sum(axis=1) / present.sum(axis=1)
            results = np.rint(means)
        parts.append(results)
    values = _filled(np.concatenate(parts), node.attributes["call"]).astype(np.int64)
    inverse = node.attributes["inverse"]
    if inverse is not None:
        values = values[:, inverse]
    # numpy.unique would make each table a structure with a field for each entry.
    tables = np.ascontiguousarray(values.T)
    numbers: dict[bytes, int] = {}
    which = np.array([numbers.setdefault(table.tobytes(), len(numbers)) for table in tables])
    _, first = np.unique(which, return_index=True)
    shape = tuple(1 if n == BATCH else n for n in node.shape)
    return tables[first], which.reshape(shape)


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
            where=_where(call),
            got=f"values from {low} to {high}",
            fix="clip its result with numpy.clip before converting it to integers",
        )
    results = _filled(_entries(call, root, np.arange(low, high + 1)), call).astype(np.int64)
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
    results = _results(call, root, ends)
    if not np.array_equal(results[1] - results[0], np.full(results.shape[1], high - low)):
        return None
    levels = np.arange(low, high + 1)
    results = _results(call, root, levels)
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
                    where=_where(value),
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
            raise _mixes(value)
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
