"""NumPy's functions that only move elements, as NumPy itself has them.

Each is called on numbers that stand for the elements: where a number ends up, there goes the element. So
arguments, shapes and refusals are NumPy's own, and a name in the table is all that a function takes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.program import layout
from fhe_core.program.batch import (
    BATCH,
    Shape,
    long_axes,
    one_row,
    with_batch,
    without_number,
)
from fhe_core.program.tensor import Tensor, call, refused

#: Functions by name, for each choice of positional arguments that hold elements: constants among these are
#: elements too, all other constants say where elements go. What NumPy fills in by itself is zero.
_MOVING = {
    (): "compress",
    (0,): "array_split atleast_1d atleast_2d atleast_3d block column_stack delete diag diagflat "
    "diagonal dsplit dstack flip fliplr flipud hsplit hstack matrix_transpose repeat resize roll "
    "rollaxis rot90 row_stack split take_along_axis tile tril triu unstack vsplit vstack",
    (0, 1): "append",
    (0, 2): "insert",
}
#: Arguments by name that hold elements.
_ELEMENTS = {"values", "constant_values"}
_BATCHES = (2, 3)


def moves(
    function: Callable[..., Any], data: Sequence[int], *arguments: Any, **keywords: Any
) -> Any:
    """``function(*arguments, **keywords)``, which returns elements of tensors and constants, and zeros.

    Args:
        data: the positions of arguments that hold elements, in lists too.

    Returns:
        A tensor; or a list or tuple of them, where NumPy returns one.

    Raises:
        CompilationError: NumPy refuses the arguments, or samples of the batch would not stay apart.
    """
    if data and any(isinstance(a, Tensor) for i, a in enumerate(arguments) if i not in data):
        # Where elements go depends on what they are: no move, and nothing but the client computes it.
        return call(function, *arguments, **keywords)
    coded = _Coded()
    given = tuple(coded.replaced(a, constants=i in data) for i, a in enumerate(arguments))
    named = {n: coded.replaced(a, constants=n in _ELEMENTS) for n, a in keywords.items()}
    results = [_called(function, coded, given, named, batch) for batch in _BATCHES]
    if isinstance(results[0], (list, tuple)):
        parts = zip(*results, strict=True)
        return type(results[0])(coded.tensor(function, part) for part in parts)
    return coded.tensor(function, results)


def _called(
    function: Callable[..., Any], coded: _Coded, arguments: Any, keywords: Any, batch: int
) -> Any:
    given = coded.filled(with_batch(arguments, batch), batch)
    named = {n: coded.filled(with_batch(a, batch), batch) for n, a in keywords.items()}
    try:
        return function(*given, **named)
    except MemoryError:
        raise
    except Exception as error:
        raise refused(
            f"calls {_name(function)}, which failed: {without_number(str(error))}",
            "check its arguments; the first dimension of a model's tensors is the batch, and stays as it is",
        ) from error


class _Coded:
    """The elements of several tensors and constants as numbers: 0 is a zero, then come the elements of the
    tensors, sample by sample; below zero are constants."""

    def __init__(self) -> None:
        self._tensors: list[Tensor] = []
        self._starts: list[int] = []
        self._size = 0
        self._constants: list[NDArray[Any]] = []
        self._constant_count = 0

    def replaced(self, argument: Any, *, constants: bool) -> Any:
        """``argument`` with marks in place of tensors, and of constants if these are elements."""
        if isinstance(argument, Tensor):
            return _Mark(self._of_tensor(argument))
        if isinstance(argument, (list, tuple)):
            inner = [self.replaced(part, constants=constants) for part in argument]
            return inner if isinstance(argument, list) else tuple(inner)
        return _Mark(self._of_constant(np.asarray(argument))) if constants else argument

    def filled(self, argument: Any, batch: int) -> Any:
        """``argument`` with numbers in place of marks."""
        if isinstance(argument, _Mark):
            return argument.numbers(batch, self._size)
        if isinstance(argument, (list, tuple)):
            return type(argument)(self.filled(part, batch) for part in argument)
        return argument

    def _of_tensor(self, x: Tensor) -> Callable[[int, int], Any]:
        if BATCH not in x.shape:
            raise refused("moves elements of a tensor without a batch", "keep the batch dimension")
        axis = x.shape.index(BATCH)
        rest = x.shape[:axis] + x.shape[axis + 1 :]
        start, size = self._size, int(np.prod(rest))
        self._tensors.append(x)
        self._size += size

        def numbers(batch: int, total: int) -> Any:
            rows = 1 + start + np.arange(size) + total * np.arange(batch)[:, None]
            return np.moveaxis(rows.reshape(batch, *rest), 0, axis)

        return numbers

    def _of_constant(self, array: NDArray[Any]) -> Callable[[int, int], Any]:
        if array.ndim > 1 and 0 in long_axes(array):
            array = one_row(array, 0)
        first = -1 - self._constant_count
        self._constants.append(array.reshape(-1))
        self._constant_count += array.size
        numbers = (first - np.arange(array.size)).reshape(array.shape)
        if array.ndim < 2 or len(array) > 1:
            return lambda batch, total: numbers
        return lambda batch, total: np.repeat(numbers, batch, axis=0)  # one row for all samples

    def tensor(self, function: Callable[..., Any], results: Sequence[Any]) -> Tensor:
        """The tensor of those elements whose numbers came out for each size of the batch."""
        two, three = map(np.asarray, results)
        apart = _batch_axis(two.shape, three.shape)
        if apart is not None:
            first, *others = np.moveaxis(three, apart, 0)
            moved = [np.where(first > 0, first + self._size * i, first) for i in (1, 2)]
            own = first.max(initial=0) <= self._size
            if own and all(np.array_equal(a, b) for a, b in zip(others, moved, strict=True)):
                return np.moveaxis(self._taken(first), 0, apart)  # type: ignore[return-value]
        raise refused(
            f"calls {_name(function)}, which moves elements from sample to sample",
            "name an axis that is not the batch: samples of a batch must stay independent",
        )

    def _taken(self, numbers: NDArray[Any]) -> Any:
        """(batch, *shape of ``numbers``): the elements with these numbers."""
        rows = [layout.reshape(layout.batch_first(x), (BATCH, -1)) for x in self._tensors]
        row = rows[0] if len(rows) == 1 else layout.concatenate(rows, axis=1)
        constant = numbers <= 0
        if not constant.any():
            if np.array_equal(numbers.reshape(-1), np.arange(1, self._size + 1)):
                return layout.reshape(row, (BATCH, *numbers.shape))
            return layout.take(row, numbers - 1, axis=1)
        row = layout.pad(row, [(0, 0), (0, 1)])
        taken = layout.take(row, np.where(constant, self._size, numbers - 1), axis=1)
        values = np.concatenate([np.zeros(1, bool), *self._constants])
        fill = values[np.where(constant, -numbers, 0)]
        return taken + fill if fill.any() else taken


class _Mark:
    """Stands for an array of numbers that depends on the size of the batch."""

    def __init__(self, numbers: Callable[[int, int], Any]) -> None:
        self.numbers = numbers


def _batch_axis(two: Shape, three: Shape) -> int | None:
    """The one axis that is as long as the batch; None where there are others, or none."""
    if len(two) != len(three):
        return None
    axes = [i for i, pair in enumerate(zip(two, three, strict=True)) if pair[0] != pair[1]]
    return axes[0] if len(axes) == 1 and (two[axes[0]], three[axes[0]]) == _BATCHES else None


def _name(function: Callable[..., Any]) -> str:
    return f"numpy.{getattr(function, '__name__', function)}"


FUNCTIONS: dict[Any, Callable[..., Any]] = {
    getattr(np, name): functools.partial(moves, getattr(np, name), data)
    for data, names in _MOVING.items()
    for name in names.split()
    if hasattr(np, name)
}
