"""The batch size, which nobody knows while a model is recorded.

In every recorded shape it is ``BATCH``. To NumPy that is a small prime number, so that what an implementation
makes of it (``np.zeros((x.shape[0], 1))``) is a small array; to Python it is a symbol that equals itself alone,
so that no dimension of a model is taken for the batch.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from fhe_core.errors import CompilationError

Shape = tuple[int, ...]


class Count(int):
    """A number of elements that the batch is a factor of: good for shapes, and for nothing else."""

    def __mul__(self, other: Any) -> Any:
        return Count(int(self) * int(other)) if isinstance(other, int) else NotImplemented

    __rmul__ = __mul__

    def __repr__(self) -> str:
        return _spelled(int(self))

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def refuse(self, *_: Any) -> NoReturn:
        """Raises a CompilationError: a number would have to be computed from the batch size."""
        refuse_number()

    __float__ = __truediv__ = __rtruediv__ = refuse


class Batch(Count):
    """A dimension that is the batch: equal to every other such, and to no number."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Batch)

    def __ne__(self, other: object) -> bool:
        return not isinstance(other, Batch)

    def __hash__(self) -> int:
        return hash(Batch)

    def __repr__(self) -> str:
        return "batch"

    __str__ = __repr__

    def __reduce__(self) -> str:
        return "BATCH"


def refuse_number() -> NoReturn:
    """Raises a CompilationError: a number would have to be computed from the batch size."""
    raise CompilationError(
        "the implementation computes with the number of samples, which nobody knows yet",
        expected="a result for each sample that does not depend on how many there are",
        fix="leave the batch dimension out of means and counts",
    )


#: The batch size in every shape of a recorded program. A product of it with another dimension is recognisably
#: not the batch alone, because the number that NumPy sees is prime.
BATCH = Batch(1009)
_NUMBER = int(BATCH)

_static: ContextVar[int | None] = ContextVar("fhe_core_static_batch", default=None)


@contextlib.contextmanager
def exported_for(batch: int | None) -> Iterator[None]:
    """While the body is recorded, ``batch`` in a shape that the model spells out means the batch size."""
    token = _static.set(batch)
    try:
        yield
    finally:
        _static.reset(token)


def as_exported(fix: str) -> str:
    """``fix``, after the likelier one where a model may have spelled out its number of samples in constants.

    That of one sample broadcasts to any number.
    """
    count = _static.get()
    if count is None or count < 2:
        return fix
    return f"export the model with its batch left open, or for a batch of 1 in place of {count}; else {fix}"


def is_batch(size: int) -> bool:
    """Whether a size stands for the batch where that may be expected: the leading dimension of a shape, the
    length of a constant along the batch dimension of a tensor."""
    return isinstance(size, Batch) or size == _NUMBER or size == _static.get()


def spelled(shape: Sequence[int]) -> str:
    """A shape as messages have it: no number stands for the batch."""
    return f"({', '.join(map(_spelled, shape))}{',' if len(shape) == 1 else ''})"


def _spelled(size: int) -> str:
    if isinstance(size, Batch) or size == _NUMBER:
        return "batch"
    return f"{size // _NUMBER} * batch" if size and size % _NUMBER == 0 else str(size)


def without_number(message: str) -> str:
    """A message of NumPy's, which knows the batch by its number alone, with a word in its place."""
    return re.sub(r"\d+", lambda found: _named(found.group()), message)


def _named(digits: str) -> str:
    number = int(digits) if len(digits) < 16 else 0
    return _spelled(number) if number and number % _NUMBER == 0 else digits


def broadcast_shapes(*shapes: Shape) -> Shape:
    """The shape of what has these shapes together (numpy.broadcast_shapes), with the batch as a symbol.

    Raises:
        ValueError: they do not broadcast.
    """
    ndim = max(map(len, shapes))
    result = []
    for sizes in zip(*((1,) * (ndim - len(shape)) + shape for shape in shapes), strict=True):
        others = dict.fromkeys(size for size in sizes if size != 1)
        if len(others) > 1:
            raise ValueError(f"shapes {' and '.join(map(spelled, shapes))} do not broadcast")
        result.append(next(iter(others), 1))
    return tuple(result)


def per_sample(constant: Any, shape: Shape) -> NDArray[Any]:
    """A constant that meets a tensor of ``shape``, NumPy's broadcasting aligning both, with its row for one
    sample where it is as long as the batch.

    Raises:
        CompilationError: its rows differ.
    """
    array = np.asarray(constant)
    for axis in range(array.ndim):
        place = axis + len(shape) - array.ndim
        if place >= 0 and shape[place] == BATCH and is_batch(array.shape[axis]):
            array = one_row(array, axis)
    return array


def one_row(array: NDArray[Any], axis: int) -> NDArray[Any]:
    """What an array as long as the batch is for each sample, with that dimension 1.

    Raises:
        CompilationError: it is not the same for all.
    """
    row = np.take(array, [0], axis=axis)
    if array.shape[axis] > 1 and array.strides[axis] and not (array == row).all():
        raise CompilationError(
            "a constant differs from sample to sample of the batch",
            expected="the same for every sample, which stand apart",
            got=f"shape {spelled(array.shape)}",
            fix="leave its batch dimension out, or make it 1: it broadcasts along the batch",
        )
    return row


def sized(base: NDArray[Any], slope: Any, axes: tuple[int, ...], batch: int) -> NDArray[Any]:
    """``base + slope * batch``, with equal rows along ``axes``, where ``base`` has one."""
    values = base + slope * batch if np.any(slope) else base
    shape = tuple(batch if axis in axes else size for axis, size in enumerate(base.shape))
    return np.broadcast_to(values, shape)


@dataclass(frozen=True, eq=False)
class Sized:
    """An array that depends on the size of the batch and on nothing else, see ``sized``."""

    base: NDArray[Any]
    slope: Any = 0
    axes: tuple[int, ...] = ()

    def at(self, batch: int) -> NDArray[Any]:
        """The array for a batch of this size; ``BATCH`` too."""
        return sized(self.base, self.slope, self.axes, int(batch))

    @classmethod
    def of(cls, found: Mapping[int, NDArray[Any]]) -> Sized | None:
        """What these arrays are, for batches of these sizes, three or more; None if nothing so simple."""
        (low, first), (high, second), *_ = found.items()
        if first.ndim != second.ndim:
            return None
        sizes = enumerate(zip(first.shape, second.shape, strict=True))
        axes = tuple(axis for axis, pair in sizes if pair == (low, high))
        row = tuple(slice(0, 1) if i in axes else slice(None) for i in range(first.ndim))
        base, other = first[row], second[row]
        if base.shape != other.shape:
            return None
        slope: Any = 0
        if base.dtype.kind in "iu" and (base != other).any():
            slope = (other - base) // (high - low)
            base = base - slope * low
        made = cls(base, slope, axes)
        return made if all(_equal(made.at(size), array) for size, array in found.items()) else None


def _equal(a: NDArray[Any], b: NDArray[Any]) -> bool:
    return a.shape == b.shape and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def long_axes(array: Any) -> tuple[int, ...]:
    """The axes along which an array may be as long as the batch, because something was made of its size."""
    return tuple(axis for axis, size in enumerate(np.shape(array)) if size == _NUMBER)


def with_batch(argument: Any, batch: int) -> Any:
    """``argument`` with the symbolic batch size replaced by ``batch``."""
    if isinstance(argument, Batch):
        return batch
    if isinstance(argument, slice):
        return slice(
            *(with_batch(p, batch) for p in (argument.start, argument.stop, argument.step))
        )
    if isinstance(argument, (list, tuple)):
        return type(argument)(with_batch(part, batch) for part in argument)
    return argument
