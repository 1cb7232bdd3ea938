"""Reductions of tensors, as NumPy has them: sums, extremes, counts, along axes that are not the batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fhe_core.program import advice, layout
from fhe_core.program.tensor import (
    Tensor,
    are_encrypted_integers,
    call,
    integers,
    no_out,
    node,
    refused,
)


def _axes(x: Any, axis: Any, verb: str) -> tuple[int, ...]:
    axes = tuple(range(x.ndim)) if axis is None else layout.axes_of(axis, x.ndim)
    for a in axes:
        layout.not_the_batch(x, a, verb)
    return axes


def reduce_sum(
    x: Any,
    axis: Any = None,
    dtype: Any = None,
    out: None = None,
    keepdims: Any = False,
    initial: Any = 0,
    where: Any = True,
) -> Tensor:
    """numpy.sum."""
    keepdims = bool(keepdims)
    no_out(out)
    if where is not True:
        x = x * np.asarray(where)
    if not are_encrypted_integers([x]):
        total: Tensor = call(np.sum, x, axis=axis, keepdims=keepdims)
    else:
        axes = _axes(x, axis, "sums over")
        shape = tuple(
            1 if i in axes else n for i, n in enumerate(x.shape) if keepdims or i not in axes
        )
        total = node("sum", integers(x), shape=shape, axes=axes, keepdims=keepdims)
    total = total + initial if np.any(initial) else total
    return total if dtype is None else total.astype(dtype)


def mean(
    x: Any,
    axis: Any = None,
    dtype: Any = None,
    out: None = None,
    keepdims: Any = False,
    *,
    where: Any = True,
) -> Tensor:
    """numpy.mean."""
    if where is not True:
        raise advice.unavailable("mean(where=)")
    if not are_encrypted_integers([x]):
        no_out(out)
        return call(np.mean, x, axis=axis, keepdims=bool(keepdims))
    total = reduce_sum(x, axis, None, out, keepdims)
    return total.astype(dtype or np.float64) / math.prod(
        x.shape[a] for a in _axes(x, axis, "averages over")
    )


def _extreme(function: Callable[..., Any], pairwise: np.ufunc) -> Callable[..., Any]:
    """The largest or the smallest along axes: of integers in rounds, each of which halves what is left."""

    def extreme(
        x: Any,
        axis: Any = None,
        out: None = None,
        keepdims: Any = False,
        initial: Any = None,
        where: Any = True,
        dtype: None = None,
    ) -> Any:
        no_out(out)
        if where is not True:
            raise advice.unavailable(f"{function.__name__}(where=)")
        keepdims = bool(keepdims)
        if not are_encrypted_integers([x]) or x.dtype.kind == "b":
            x = call(function, x, axis=axis, keepdims=keepdims)
        else:
            x, axes = integers(x), _axes(x, axis, "compares over")
            for a in axes:
                x = _halved(x, a, pairwise)
            x = x if keepdims else np.squeeze(x, axis=axes)
        return x if initial is None else pairwise(x, initial)

    return extreme


def _halved(x: Any, axis: int, pairwise: np.ufunc) -> Tensor:
    before = (slice(None),) * axis
    while x.shape[axis] > 1:
        half = x.shape[axis] // 2
        first, second = x[(*before, slice(half))], x[(*before, slice(half, 2 * half))]
        rest = [x[(*before, slice(2 * half, None))]] if x.shape[axis] % 2 else []
        x = layout.concatenate([pairwise(first, second), *rest], axis=axis)
    return x


def _counted(function: Callable[..., Any], holds: Callable[[Any, int], Any]) -> Callable[..., Any]:
    """Truth values along axes, judged by how many of them are true."""

    def judged(
        x: Any, axis: Any = None, out: None = None, keepdims: Any = False, *, where: Any = True
    ) -> Any:
        no_out(out)
        if where is not True:
            raise advice.unavailable(f"{function.__name__}(where=)")
        if not are_encrypted_integers([x]):
            return call(function, x, axis=axis, keepdims=bool(keepdims))
        axes = _axes(x, axis, "judges over")
        total = reduce_sum(np.not_equal(x, 0), axes, keepdims=keepdims)
        return holds(total, math.prod(x.shape[a] for a in axes))

    return judged


def _count_nonzero(x: Any, axis: Any = None, *, keepdims: bool = False) -> Tensor:
    return reduce_sum(np.not_equal(x, 0), axis, keepdims=keepdims)


def _cumsum(x: Any, axis: Any = None, dtype: Any = None, out: None = None) -> Any:
    no_out(out)
    if not are_encrypted_integers([x]):
        return call(np.cumsum, x, axis=axis, dtype=dtype)
    if axis is None:
        raise refused("sums over the batch dimension", "name the axis")
    (axis,) = _axes(x, axis, "sums over")
    sums = np.triu(np.ones((x.shape[axis], x.shape[axis]), np.int64))
    total = np.moveaxis(np.moveaxis(x, axis, -1) @ sums, -1, axis)
    return total if dtype is None else total.astype(dtype)


_MAX, _MIN = _extreme(np.max, np.maximum), _extreme(np.min, np.minimum)
_ANY = _counted(np.any, lambda total, count: total > 0)
_ALL = _counted(np.all, lambda total, count: total == count)

REDUCTIONS: dict[Any, Callable[..., Any]] = {
    np.add: reduce_sum,
    np.maximum: _MAX,
    np.minimum: _MIN,
    np.multiply: lambda x, axis=0, keepdims=False: call(np.prod, x, axis=axis, keepdims=keepdims),
    np.logical_or: _ANY,
    np.logical_and: _ALL,
}

FUNCTIONS: dict[Any, Callable[..., Any]] = {
    np.sum: reduce_sum,
    np.mean: mean,
    np.max: _MAX,
    np.amax: _MAX,
    np.min: _MIN,
    np.amin: _MIN,
    np.any: _ANY,
    np.all: _ALL,
    np.count_nonzero: _count_nonzero,
    np.cumsum: _cumsum,
}
