"""Is a float computation a function of each element of one integer tensor?

Structurally: from which element of the tensor does each result come? And by perturbation: change single
elements, and see what moves. The functions are arbitrary NumPy code, and a wrong answer of ``can_fuse``
would otherwise compute wrong results without a word.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.errors import CompilationError
from fhe_core.program.nodes import (
    BATCH,
    Call,
    HostInput,
    Node,
    Shape,
    Value,
    evaluate,
    operands,
    ordered,
)
from fhe_core.program.nodes import with_batch as _with_batch

_PERTURBED_ELEMENTS = 48
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
                where=value.where,
                fix="give the op a q_impl that moves elements with NumPy's layout functions, "
                "and can_fuse that returns False",
            ) from error
        clash = (result >= 0) & (index >= 0) & (result != index)
        if clash.any():
            raise mixes(value)
        result = np.where(result >= 0, result, index)
    return result


def _function(value: Call) -> str:
    return getattr(value.function, "__name__", type(value.function).__name__)


def mixes(value: Call) -> CompilationError:
    return CompilationError(
        f"{_function(value)} mixes several elements of an encrypted tensor in one result, "
        "and a table look-up sees one",
        where=value.where,
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
            raise mixes(value)
        flat = _by_sample(together[id(value)], value.shape)
        sources = _by_sample(indices[id(value)], value.shape)
        still = _same(flat[1:], flat[:1]) | (sources == chosen[:, None])
        if not (still.all() and _same(flat[:1], _by_sample(alone[id(value)], value.shape)).all()):
            raise mixes(value)


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
