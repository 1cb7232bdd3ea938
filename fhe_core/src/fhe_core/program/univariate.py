"""Is a float computation a function of each element of one integer tensor?

Structurally: from which element of the tensor does each result come? And by perturbation: change single
elements, and see what moves. The functions are arbitrary NumPy code, and a wrong answer of ``can_fuse``
would otherwise compute wrong results without a word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.errors import CompilationError
from fhe_core.program import layout
from fhe_core.program.advice import not_elementwise
from fhe_core.program.nodes import (
    BATCH,
    Call,
    HostInput,
    Node,
    Shape,
    Value,
    computed,
    evaluate,
    operands,
    ordered,
)
from fhe_core.program.nodes import with_batch as _with_batch

#: Single elements that are changed: as many as make this many values to compare, and some in any case.
_PERTURBED_ELEMENTS = 48
_LEAST_PERTURBED = 4
_COMPARED = 2**20
_MADE_UP = 3
_SEED = 20240


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
        known[id(value)] = _index_of(value, known)
    return known


def _index_of(value: Value, known: dict[int, NDArray[np.int64]]) -> NDArray[np.int64]:
    """The source index of a value whose operands' are known."""
    shape = tuple(1 if n == BATCH else n for n in value.shape)
    if not isinstance(value, Call):
        return np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape)
    if value.layout and operands(value):
        return _laid_out(value, known)
    return _elementwise(value, shape, known)


def _laid_out(value: Call, known: dict[int, NDArray[np.int64]]) -> NDArray[np.int64]:
    def fill(argument: Any) -> Any:
        if isinstance(argument, (Node, HostInput, Call)):
            return known[id(argument)]
        if isinstance(argument, (list, tuple)):
            return type(argument)(fill(part) for part in argument)
        return argument

    arguments = _with_batch(tuple(fill(argument) for argument in value.arguments), 1)
    keywords = {name: _with_batch(fill(a), 1) for name, a in value.keywords.items()}
    # Constants that are padded or concatenated come from no element.
    if value.function is layout.padded:
        arguments = (*arguments[:2], np.asarray(-1))
    elif value.function is layout.join:
        parts = zip(value.arguments[0], arguments[0], strict=True)
        filled = [
            p if isinstance(v, Call | Node | HostInput) else np.full(np.shape(p), -1)
            for v, p in parts
        ]
        arguments = (filled, *arguments[1:])
    return np.asarray(value.function(*arguments, **keywords))


def _elementwise(
    value: Call, shape: Shape, known: dict[int, NDArray[np.int64]]
) -> NDArray[np.int64]:
    result = np.broadcast_to(np.int64(-1), shape)
    for operand in operands(value):
        index = known[id(operand)]
        try:
            index = np.broadcast_to(index, shape)
        except ValueError as error:
            raise not_elementwise(
                value,
                f"{_function(value)} turns shape {index.shape} into {shape}, so it is not elementwise",
            ) from error
        if not result.size or result.flat[0] == -1 == result.max():
            result = index
        elif not np.array_equal(result, index):
            if ((result >= 0) & (index >= 0) & (result != index)).any():
                raise mixes(value)
            result = np.where(result >= 0, result, index)
    return result


def _function(value: Call) -> str:
    return getattr(value.function, "__name__", type(value.function).__name__)


def mixes(value: Call) -> CompilationError:
    return not_elementwise(
        value,
        f"{_function(value)} mixes several elements of an encrypted tensor in one result, "
        "and a table look-up sees one",
        expected="a function of each element alone, where can_fuse() is True",
        got="results that move when other elements change",
    )


# -- the checks by perturbation


def check_samples_apart(results: Sequence[Value]) -> None:
    """Evaluate on three made-up samples, and on one of them alone: its results must be the same.

    What is encrypted cannot mix samples; this is for what the client computes, a batch at a time.

    Raises:
        CompilationError: a function computes a sample's result from others too.
    """
    rng = np.random.default_rng(_SEED)
    order = ordered(results, stop_at_nodes=True)
    starts = [value for value in order if not isinstance(value, Call)]
    if any(BATCH not in root.shape for root in starts):
        return  # of an op that is refused already, tried out for what else is wrong
    together = {id(root): _made_up(root, rng) for root in starts}
    alone = {
        id(root): np.take(together[id(root)], [1], axis=root.shape.index(BATCH)) for root in starts
    }
    for value in order:
        if not isinstance(value, Call) or not operands(value):
            continue
        try:
            three, one = evaluate(value, together, _MADE_UP), evaluate(value, alone, 1)
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001  # code of a pack, which may not take what is made up
            return
        apart = BATCH in value.shape
        if apart:
            second = np.take(np.asarray(three), [1], axis=value.shape.index(BATCH))
            apart = bool(same(second, np.asarray(one), digits=3).all())
        if not apart:
            raise CompilationError(
                f"{_function(value)} computes a sample's result from other samples of its batch",
                where=value.where,
                expected="samples that stay independent, whatever they are sent together with",
                fix="leave the first axis out, or apply this to the results afterwards",
            )


def _made_up(root: Node | HostInput, rng: np.random.Generator) -> NDArray[Any]:
    """Values for a few samples of a root."""
    shape = tuple(_MADE_UP if n == BATCH else n for n in root.shape)
    if isinstance(root, Node):
        low, high = root.bounds
        return rng.integers(low, high + 1, shape)
    return (4 * rng.standard_normal(shape)).astype(root.dtype)


def check_univariate(call: Call, root: Node) -> None:
    """Change single elements of the root, then half of them: only the results that come from these may move.

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
    changed = _changed(low.size, rng)
    base, fresh = rng.integers(low, high + 1), rng.integers(low, high + 1)
    fresh = np.where(fresh == base, np.where(fresh > low, low, high), fresh)
    values = np.where(changed[:, :-1], fresh, base)
    together = {id(root): _as_batch(values, root.shape)}
    alone = {id(root): _as_batch(values[:1], root.shape)}
    indices: dict[int, NDArray[np.int64]] = {}
    order = ordered([call], stop_at_nodes=True)
    readers = Counter(id(o) for value in order if isinstance(value, Call) for o in operands(value))
    for value in order:
        indices[id(value)] = _index_of(value, indices)
        if not isinstance(value, Call):
            continue
        together[id(value)] = computed(value, together, len(values))
        alone[id(value)] = computed(value, alone, 1)
        if not value.layout and BATCH not in value.shape:
            raise mixes(value)
        if not value.layout:
            flat = _by_sample(together[id(value)], value.shape)
            (sources,) = _by_sample(indices[id(value)], value.shape)
            apart = same(flat[:1], _by_sample(alone[id(value)], value.shape)).all()
            if not apart or _moves(flat, changed, sources):
                raise mixes(value)
        for operand in operands(value):
            readers[id(operand)] -= 1
            if not readers[id(operand)]:
                # Nothing reads it any more, and it may be as large as an image.
                del together[id(operand)], alone[id(operand)], indices[id(operand)]


def _moves(rows: NDArray[Any], changed: NDArray[np.bool_], sources: NDArray[np.int64]) -> bool:
    """Whether elements of results differ from those of the first row where their sources have not changed."""
    for row, moved in zip(rows[1:], changed[1:], strict=True):
        differ = row != rows[0]
        differ &= ~moved[sources]
        if differ.any() and not same(row, rows[0])[differ].all():
            return True
    return False


def _changed(size: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Which elements are changed in each row: none, then single ones, then half of them.

    Single ones show which results move. A mean of a million moves with many of them alone.

    Returns:
        (rows, size + 1): the last column stands for no element.
    """
    count = min(size, _PERTURBED_ELEMENTS, max(_LEAST_PERTURBED, _COMPARED // size))
    changed = np.zeros((count + 2, size + 1), dtype=bool)
    changed[np.arange(1, count + 1), rng.choice(size, count, replace=False)] = True
    changed[-1, :-1] = rng.random(size) < 0.5
    return changed


def _as_batch(rows: NDArray[Any], shape: Shape) -> NDArray[Any]:
    """Rows of one sample each, as an array of ``shape``."""
    axis = shape.index(BATCH)
    return np.moveaxis(rows.reshape(len(rows), *shape[:axis], *shape[axis + 1 :]), 0, axis)


def _by_sample(array: Any, shape: Shape) -> NDArray[Any]:
    """An array of ``shape`` as rows of one sample each."""
    axis = shape.index(BATCH)
    return np.moveaxis(np.asarray(array), axis, 0).reshape(np.shape(array)[axis], -1)


def same(a: NDArray[Any], b: NDArray[Any], digits: int = 6) -> NDArray[np.bool_]:
    """Equal but for the last digits, which vectorized loops may compute in other ways at their ends."""
    if a.dtype.kind not in "fc":
        return np.asarray(a == b)
    size = np.abs(np.where(np.isfinite(b), b, 0)).max(initial=0)
    return np.isclose(a, b, rtol=10.0**-digits, atol=10.0**-digits * size, equal_nan=True)
