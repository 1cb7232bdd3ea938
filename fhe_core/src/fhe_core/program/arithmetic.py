"""Integer arithmetic on tensors: what NumPy's operators and sums record as nodes of the program."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fhe_core.program import layout
from fhe_core.program.nodes import BATCH, Shape
from fhe_core.program.tensor import Tensor, call, node, refused


def _broadcast(a: Tensor, shape: Shape) -> Tensor:
    return a if a.shape == shape else layout.broadcast_to(a, shape)


def _binary(op: str, a: Tensor, b: Tensor) -> Tensor:
    shape = np.broadcast_shapes(_finite(a.shape), _finite(b.shape))
    shape = tuple(BATCH if n == _FINITE else n for n in shape)
    return node(op, _broadcast(a, shape), _broadcast(b, shape), shape=shape)


# np.broadcast_shapes refuses shapes whose size overflows; the batch is the only dimension this large.
_FINITE = 1009 * 1013


def _finite(shape: Shape) -> Shape:
    return tuple(_FINITE if n == BATCH else n for n in shape)


def _shift(a: Tensor, offset: Any) -> Tensor:
    offset = np.asarray(offset, dtype=np.int64)
    if not offset.any():
        return a
    shape = np.broadcast_shapes(_finite(a.shape), offset.shape)
    return node("shift", _broadcast(a, _symbolic(shape)), shape=_symbolic(shape), offset=offset)


def _symbolic(shape: Shape) -> Shape:
    return tuple(BATCH if n == _FINITE else n for n in shape)


def _add(a: Any, b: Any) -> Any:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return _binary("add", a, b)
    return _shift(a, b) if isinstance(a, Tensor) else _shift(b, a)


def _subtract(a: Any, b: Any) -> Any:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return _binary("subtract", a, b)
    return _shift(a, -np.asarray(b)) if isinstance(a, Tensor) else _shift(_negative(b), a)


def _negative(a: Tensor) -> Tensor:
    return node("negative", a, shape=a.shape)


def _multiply(a: Any, b: Any) -> Any:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        from fhe_core.program.primitives import multiply

        return multiply(a, b)
    x, factor = (a, b) if isinstance(a, Tensor) else (b, a)
    factor = np.asarray(factor, dtype=np.int64)
    shape = _symbolic(np.broadcast_shapes(_finite(x.shape), factor.shape))
    return node("scale", _broadcast(x, shape), shape=shape, factor=factor)


def _matmul(a: Any, b: Any) -> Any:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        from fhe_core.program.primitives import matmul

        return matmul(a, b)
    left = not isinstance(a, Tensor)
    x, weights = (b, a) if left else (a, b)
    weights = np.asarray(weights, dtype=np.int64)
    probe = np.broadcast_to(np.int8(0), _finite(x.shape))
    other = np.broadcast_to(np.int8(0), weights.shape)
    shape = (
        _matmul_shape(other.shape, probe.shape) if left else _matmul_shape(probe.shape, other.shape)
    )
    return node("matmul", x, shape=_symbolic(shape), weights=weights, left=left)


def _matmul_shape(a: Shape, b: Shape) -> Shape:
    """The shape of ``a @ b`` (numpy.matmul's rules)."""
    if not a or not b or a[-1] != (b[-2] if len(b) > 1 else b[0]):
        raise refused(
            f"multiplies matrices of shapes {a} and {b}", "make the inner dimensions equal"
        )
    batch = np.broadcast_shapes(a[:-2], b[:-2])
    return (*batch, *(a[-2:-1]), *(b[-1:] if len(b) > 1 else ()))


def _maximum(a: Any, b: Any) -> Any:
    from fhe_core.program.primitives import maximum

    both = isinstance(a, Tensor) and isinstance(b, Tensor)
    return maximum(a, b) if both else NotImplemented


def _minimum(a: Any, b: Any) -> Any:
    from fhe_core.program.primitives import minimum

    both = isinstance(a, Tensor) and isinstance(b, Tensor)
    return minimum(a, b) if both else NotImplemented


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


# -- reductions


def reduce_sum(x: Tensor, axis: Any = None, keepdims: bool = False, **_: Any) -> Tensor:
    if not x.is_integer:
        return call(np.sum, x, axis=axis, keepdims=keepdims)
    axes = (
        tuple(range(x.ndim))
        if axis is None
        else tuple(int(a) % x.ndim for a in np.atleast_1d(axis))
    )
    for a in axes:
        layout.not_the_batch(x, a, "sums over")
    shape = tuple(1 if i in axes else n for i, n in enumerate(x.shape) if keepdims or i not in axes)
    return node("sum", x, shape=shape, axes=axes, keepdims=bool(keepdims))


def mean(x: Tensor, axis: Any = None, keepdims: bool = False, **_: Any) -> Tensor:
    if not x.is_integer:
        return call(np.mean, x, axis=axis, keepdims=keepdims)
    total = reduce_sum(x, axis=axis, keepdims=keepdims)
    axes = range(x.ndim) if axis is None else [int(a) % x.ndim for a in np.atleast_1d(axis)]
    return total.astype(np.float64) / math.prod(x.shape[a] for a in axes)


def _dot(a: Any, b: Any) -> Any:
    return np.matmul(a, b)


REDUCTIONS: dict[Any, Callable[..., Any]] = {
    np.add: reduce_sum,
    np.maximum: lambda x, axis=0, keepdims=False: call(np.max, x, axis=axis, keepdims=keepdims),
    np.minimum: lambda x, axis=0, keepdims=False: call(np.min, x, axis=axis, keepdims=keepdims),
    np.multiply: lambda x, axis=0, keepdims=False: call(np.prod, x, axis=axis, keepdims=keepdims),
}

FUNCTIONS: dict[Any, Callable[..., Any]] = {
    np.sum: reduce_sum,
    np.mean: mean,
    np.dot: _dot,
}
