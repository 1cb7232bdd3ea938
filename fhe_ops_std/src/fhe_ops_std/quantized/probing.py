"""What an op does to samples, found by running its NumPy implementation on probes at build time.

So an op with constant inputs needs no second description of what its indices, sizes or axes mean; and that all
samples of a batch are treated alike, and apart, is seen and not assumed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core import CompilationError, QuantizedArray, QuantizedOp, primitives

Array = NDArray[Any]

#: A batch of this many samples shows whether an op treats all of them alike.
_SAMPLES = 3
#: No constant that spells a batch size is larger.
_LARGEST_BATCH = 4096


def parted(op: QuantizedOp, q_inputs: Sequence[QuantizedArray]) -> list[Any]:
    """The inputs by position: arrays where they are constants, or have to be; else ``QuantizedArray``s."""
    inputs = op._prepare_inputs_with_constants(
        *q_inputs, calibrate=False, quantize_actual_values=True
    )
    for index, value in enumerate(inputs):
        if index in op.constant_inputs:
            inputs[index] = np.asarray(op.constant_at(index, _SAMPLES))
        elif value is not None and index not in (op.encryptable or ()):
            inputs[index] = value.values  # computed from shapes
    return inputs


def sources(
    op: QuantizedOp,
    function: Callable[[list[Any]], Any],
    shapes: Sequence[tuple[int, ...]],
    clear: Sequence[Any] = (),
) -> tuple[Array, Array]:
    """Where the elements of one sample of a result come from.

    Args:
        function: from encrypted inputs to the result; it moves elements and fills in constants.
        shapes: of one sample of each encrypted input.
        clear: constant inputs, one of which may spell the size of the batch.

    Returns:
        int64 and float64, both of the shape of a sample: the place of each element among all elements of
        the encrypted inputs, one after the other, -1 where it is none of them; and what is filled in there.

    Raises:
        CompilationError: samples are mixed, or each is treated in its own way.
    """
    ends = np.cumsum([0, *(int(np.prod(shape)) for shape in shapes)])
    size = int(ends[-1])

    def numbered(count: int) -> Any:
        ids = np.arange(count * size, dtype=np.float64).reshape(count, size) + 1
        return _run(function, [ids, ids + ids.size], shapes, ends)

    for count, (first, second) in _batches(numbered, clear):
        moves = second != first
        before = np.arange(count).reshape(-1, *[1] * (first.ndim - 1)) * size
        own = np.where(moves, first - 1 - before, -1)
        filled = np.where(moves, 0, first)
        inside = len(own) == count and ((own >= -1) & (own < size)).all()
        if inside and (own == own[0]).all() and (filled == filled[0]).all():
            return own[0].astype(np.int64), filled[0]
    raise mixes_samples(op)


def linear_map(
    op: QuantizedOp,
    function: Callable[[list[Any]], Any],
    shapes: Sequence[tuple[int, ...]],
    clear: Sequence[Any] = (),
) -> tuple[Array, Array]:
    """The matrix of an affine function of one sample, and what it gives for zeros.

    Args:
        function, shapes, clear: as for `sources`.

    Returns:
        float64: (elements of the encrypted inputs, elements of the result), and of the result's shape.

    Raises:
        CompilationError: samples are mixed, or each is treated in its own way.
    """
    ends = np.cumsum([0, *(int(np.prod(shape)) for shape in shapes)])
    size = int(ends[-1])
    any_row = np.random.default_rng(0).integers(1, 1000, size).astype(np.float64)

    def tried(count: int) -> Any:
        alike, alone = np.tile(any_row, (count, 1)), np.zeros((count, size))
        alone[0] = any_row
        return _run(function, [np.zeros((count, size)), alike, alone], shapes, ends)

    for count, (offset, same, first) in _batches(tried, clear):
        if len(offset) == count and all(
            np.array_equal(rows, np.broadcast_to(rows[:1], rows.shape)) for rows in (offset, same)
        ):
            apart = np.array_equal(first, np.concatenate([same[:1], offset[1:]]))
            if apart:
                units = [np.tile(unit, (count, 1)) for unit in np.eye(size)]
                columns = _run(function, units, shapes, ends)
                return np.reshape([y[0] - offset[0] for y in columns], (size, -1)), offset[0]
    raise mixes_samples(op)


def spells_batch(size: int, samples: int) -> bool:
    """Whether a size that the model spells out is that of a batch of ``samples``."""
    return size == samples or primitives.is_batch(size)


def mixes_samples(op: QuantizedOp) -> CompilationError:
    return CompilationError(
        "the op selects samples of the batch, or treats each in its own way",
        where=op.where,
        expected="the same function of every sample, along the axes after the first",
        fix="leave the first axis out of the indices, axes and sizes",
    )


def _run(
    function: Callable[[list[Any]], Any],
    batches: Sequence[Array],
    shapes: Sequence[tuple[int, ...]],
    ends: Array,
) -> Any:
    """The results for batches of rows with all encrypted inputs; None where constants do not fit them."""
    results = []
    for rows in batches:
        parts = zip(np.split(rows, ends[1:-1], axis=1), shapes, strict=True)
        try:
            result = function([part.reshape(len(rows), *shape) for part, shape in parts])
        except (ValueError, IndexError):
            return None
        results.append(np.asarray(result, dtype=np.float64))
    return results


def _batches(runs: Callable[[int], Any], clear: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    """What ``runs`` gives for batch sizes to judge it by: any, then those that constants are made for.

    Where it gives a result for any size, constants spell the batch in models of a static size alone.
    """
    first = runs(_SAMPLES)
    if first is not None:
        yield _SAMPLES, first
    for constant in clear:
        if not np.ndim(constant):
            continue
        for size in (len(constant), *np.asarray(constant).reshape(-1)[:1].tolist()):
            if size in range(1, _LARGEST_BATCH) and (first is None or primitives.is_batch(size)):
                result = runs(int(size))
                if result is not None:
                    yield int(size), result
