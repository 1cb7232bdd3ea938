"""Integer arithmetic on tensors: what NumPy's operators record as nodes of the program."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fhe_core.errors import CompilationError
from fhe_core.program import advice, layout
from fhe_core.program.batch import Shape, broadcast_shapes, per_sample, spelled
from fhe_core.program.nodes import roots
from fhe_core.program.tensor import (
    Tensor,
    all_integers,
    call,
    dtype_of,
    integers,
    no_out,
    node,
    refused,
)


def _broadcast(a: Tensor, shape: Shape) -> Tensor:
    return a if a.shape == shape else layout.broadcast_to(a, shape)


def _binary(op: str, a: Tensor, b: Tensor) -> Tensor:
    shape = broadcast_shapes(a.shape, b.shape)
    return node(op, _broadcast(a, shape), _broadcast(b, shape), shape=shape)


def _with_constant(op: str, a: Tensor, name: str, constant: Any) -> Tensor:
    values = per_sample(constant, a.shape).astype(np.int64)
    shape = broadcast_shapes(a.shape, values.shape)
    return node(op, _broadcast(a, shape), shape=shape, **{name: values})


def _shift(a: Tensor, offset: Any) -> Tensor:
    offset = np.asarray(offset)
    return _with_constant("shift", a, "offset", offset) if offset.any() else a


def _add(a: Any, b: Any) -> Any:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return _binary("add", a, b)
    return _shift(a, b) if isinstance(a, Tensor) else _shift(b, a)


def _subtract(a: Any, b: Any) -> Any:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return _binary("subtract", a, b)
    return _shift(a, -np.asarray(b, np.int64)) if isinstance(a, Tensor) else _shift(_negative(b), a)


def _negative(a: Tensor) -> Tensor:
    return node("negative", a, shape=a.shape)


def _multiply(a: Any, b: Any) -> Any:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        from fhe_core.program.primitives import multiply

        if _are_one_look_up(a, b):
            return call(np.multiply, a, b)
        a, b = integers(a), integers(b)
        for x, truth in ((a, b), (b, a)):
            if truth.bounds in ((0, 0), (0, 1), (1, 1)):
                return _where_true(x, truth)
        return multiply(a, b)
    x, factor = (a, b) if isinstance(a, Tensor) else (b, a)
    return _with_constant("scale", x, "factor", factor)


def _where_true(x: Tensor, truth: Tensor) -> Tensor:
    """``x`` where a truth value (0 or 1) holds, else 0: one look-up of both, the truth value on top.

    A general product would look up squares, whose small differences no rounding of an accumulator leaves. Here
    the two ranges lie half a range apart, so that a rounded number falls into its own.
    """
    low, high = x.bounds or (0, 0)
    span = high - low
    apart = span + 1 + span // 2
    both = _add(_shift(x, -low), _multiply(truth, apart))
    kept = call(_above, both, apart, low)
    picked: Tensor = np.clip(kept, min(low, 0), max(high, 0)).astype(np.int64)
    return picked


def _above(number: Any, apart: int, low: int) -> Any:
    middle = apart - (apart + 2) // 6  # between the ranges
    return np.where(number >= middle, number - apart + low, 0)


def _matmul(a: Any, b: Any) -> Any:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        from fhe_core.program.primitives import matmul

        return matmul(a, b)
    left = not isinstance(a, Tensor)
    x, weights = (b, a) if left else (a, b)
    weights = np.asarray(weights, dtype=np.int64)
    if min(x.ndim, weights.ndim) > 2:
        weights = per_sample(weights, x.shape)
    first, second = (weights.shape, x.shape) if left else (x.shape, weights.shape)
    return node("matmul", x, shape=_matmul_shape(first, second), weights=weights, left=left)


def _matmul_shape(a: Shape, b: Shape) -> Shape:
    """The shape of ``a @ b`` (numpy.matmul's rules)."""
    if not a or not b or a[-1] != (b[-2] if len(b) > 1 else b[0]):
        raise refused(
            f"multiplies matrices of shapes {spelled(a)} and {spelled(b)}",
            "make the inner dimensions equal",
        )
    batch = broadcast_shapes(a[:-2], b[:-2])
    return (*batch, *(a[-2:-1]), *(b[-1:] if len(b) > 1 else ()))


def _maximum(a: Any, b: Any) -> Any:
    from fhe_core.program.primitives import maximum

    both = isinstance(a, Tensor) and isinstance(b, Tensor)
    return maximum(a, b) if both else NotImplemented


def _minimum(a: Any, b: Any) -> Any:
    from fhe_core.program.primitives import minimum

    both = isinstance(a, Tensor) and isinstance(b, Tensor)
    return minimum(a, b) if both else NotImplemented


def _compared(ufunc: np.ufunc) -> Callable[..., Any]:
    """Two encrypted integers are compared by the sign of their difference, one look-up."""
    return lambda a, b: call(ufunc, _subtract(integers(a), integers(b)), 0)


def _on_truth(ufunc: np.ufunc) -> Callable[..., Any]:
    """A function of two truth values is one of the four numbers that the two make."""

    def truth(a: Any, b: Any) -> Any:
        number = 2 * integers(np.not_equal(a, 0)) + integers(np.not_equal(b, 0))
        return call(_of_two_bits, number, ufunc)

    return truth


def _of_two_bits(number: Any, ufunc: np.ufunc) -> Any:
    return ufunc(number >= 2, number % 2 == 1)


def _are_one_look_up(a: Tensor, b: Tensor) -> bool:
    """Whether each element of both is computed from one and the same, and not both are integers already."""
    starts = {id(root) for x in (a, b) for root in roots(x.value)}
    if (a.is_integer and b.is_integer) or len(starts) > 1 or a.shape != b.shape:
        return False
    from fhe_core.program.univariate import source_index

    try:
        return np.array_equal(source_index(a.value), source_index(b.value))
    except CompilationError:
        return False


#: On integers, of which one at least is encrypted.
UFUNCS: dict[Any, Callable[..., Any]] = {
    np.add: _add,
    np.subtract: _subtract,
    np.negative: _negative,
    np.positive: lambda a: a,
    np.multiply: _multiply,
    np.matmul: _matmul,
    np.maximum: _maximum,
    np.minimum: _minimum,
}
#: On integers of which several are encrypted, and not computed from one.
_JOINING: dict[Any, Callable[..., Any]] = {
    **UFUNCS,
    **{
        ufunc: _compared(ufunc)
        for ufunc in (
            np.greater,
            np.greater_equal,
            np.less,
            np.less_equal,
            np.equal,
            np.not_equal,
        )
    },
    **{ufunc: _on_truth(ufunc) for ufunc in (np.logical_and, np.logical_or, np.logical_xor)},
}
_ON_TRUTH = {
    ufunc: _on_truth(ufunc)
    for ufunc in (
        *(np.bitwise_and, np.bitwise_or, np.bitwise_xor),
        *(np.add, np.multiply, np.maximum, np.minimum),
    )
}


def apply(ufunc: np.ufunc, inputs: Sequence[Any]) -> Any:
    """A ufunc of encrypted integers and constants; NotImplemented where it is one of a float group.

    What is computed from one integer tensor is part of a look-up, but for what is linear in that tensor.
    """
    tensors = [x for x in inputs if isinstance(x, Tensor)]
    if len({id(root) for tensor in tensors for root in roots(tensor.value)}) > 1:
        is_truth = all(dtype_of(x) == np.bool_ for x in inputs)
        functions = {**_JOINING, **_ON_TRUTH} if is_truth else _JOINING
    elif any(tensor.is_integer for tensor in tensors) or ufunc is np.matmul:
        functions = UFUNCS
    else:
        return NotImplemented
    return functions[ufunc](*inputs) if ufunc in functions else NotImplemented


# -- other functions, as NumPy has them, on encrypted integers


def _dot(a: Any, b: Any, out: None = None) -> Any:
    no_out(out)
    if np.ndim(a) == 0 or np.ndim(b) == 0:
        return np.multiply(a, b)
    if np.ndim(b) > 2:
        raise advice.unavailable(np.dot)
    return np.matmul(a, b)


def _inner(a: Any, b: Any) -> Any:
    if np.ndim(a) == 0 or np.ndim(b) == 0:
        return np.multiply(a, b)
    if np.ndim(b) > 2:
        raise advice.unavailable(np.inner)
    return np.matmul(a, np.transpose(b))


def _where(condition: Any, *choice: Any) -> Any:
    """numpy.where: with a constant condition a sum, which is free; else a product with a truth value."""
    if len(choice) != 2:
        raise advice.unavailable(np.nonzero)
    a, b = choice
    tensors = [x for x in (condition, a, b) if isinstance(x, Tensor)]
    starts = {id(root) for x in tensors for root in roots(x.value)}
    is_constant = not isinstance(condition, Tensor)
    linear = is_constant and any(x.is_integer for x in tensors)
    if not (linear or len(starts) > 1) or not all_integers((condition, a, b)):
        return call(np.where, condition, a, b)
    if linear:
        held = np.asarray(condition) != 0
        return np.multiply(a, held.astype(np.int64)) + np.multiply(b, (~held).astype(np.int64))
    chosen = np.subtract(_integer(a), _integer(b)) * integers(np.not_equal(condition, 0))
    picked = chosen + _integer(b)
    return np.not_equal(picked, 0) if dtype_of(a) == dtype_of(b) == np.bool_ else picked


def _integer(x: Any) -> Any:
    return integers(x) if isinstance(x, Tensor) else np.asarray(x, np.int64)


def _diff(x: Any, n: int = 1, axis: int = -1, prepend: Any = None, append: Any = None) -> Any:
    (axis,) = layout.axes_of(axis, x.ndim)
    layout.not_the_batch(x, axis, "subtracts along")
    ends = [np.asarray(end) if end is not None else None for end in (prepend, append)]
    if any(end is not None for end in ends):
        raise advice.unavailable("diff(prepend=, append=)")
    before = (slice(None),) * axis
    for _ in range(operator.index(n)):
        x = x[(*before, slice(1, None))] - x[(*before, slice(-1))]
    return x


FUNCTIONS: dict[Any, Callable[..., Any]] = {
    np.dot: _dot,
    np.inner: _inner,
    np.where: _where,
    np.diff: _diff,
}
