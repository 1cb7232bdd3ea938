"""Layout of tensors: elements move and do not change. Nodes on integers, replayable calls on floats."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from fhe_core.program.batch import BATCH, Batch, Shape, is_batch, per_sample, spelled
from fhe_core.program.nodes import Node
from fhe_core.program.rules import RULES
from fhe_core.program.tensor import (
    Tensor,
    along_batch,
    are_encrypted_integers,
    call,
    dtype_of,
    integers,
    node,
    refused,
)


def recorded(
    op: str, function: Callable[..., Any], x: Tensor, attributes: dict[str, Any], *arguments: Any
) -> Tensor:
    """Record a layout function: a node on integers, a replayable call on floats."""
    made = call(function, x, *arguments, layout=True)
    if isinstance(x.value, Node):
        return node(op, x, shape=made.shape, **attributes)
    return made


def pick(x: Any, key: Any) -> Any:
    return x[key]


def up_to_the_end(x: Tensor, key: tuple[Any, ...]) -> tuple[Any, ...]:
    """An index with the slices of the batch that end at its size left open."""
    if BATCH not in x.shape:
        return key
    parts = list(key)
    places = [i for i, part in enumerate(parts) if part is not None and part is not Ellipsis]
    gap = parts.index(Ellipsis) if Ellipsis in parts else len(parts)
    for number, place in enumerate(places):
        axis = number if place < gap else x.ndim - len(places) + number
        part = parts[place]
        if isinstance(part, slice) and axis < x.ndim and x.shape[axis] == BATCH:
            open_end = part.stop is None or part.stop in (BATCH, int(BATCH))
            parts[place] = slice(part.start, None if open_end else part.stop, part.step)
    return tuple(parts)


#: A batch of this many samples shows what an index does to the samples.
_MANY = 10007


def not_some_samples(x: Tensor, key: Any) -> None:
    """Refuse an index that leaves samples of the batch out, or puts them in another order.

    Raises:
        CompilationError: it does.
    """
    if BATCH not in x.shape or 0 in x.shape:
        return
    along = [-1 if n == BATCH else 1 for n in x.shape]
    samples = np.arange(_MANY)
    taken = np.broadcast_to(
        samples.reshape(along), tuple(_MANY if n == BATCH else n for n in x.shape)
    )[key]
    if taken.size:
        axis = taken.shape.index(_MANY) if _MANY in taken.shape else None
        rows = () if axis is None else np.moveaxis(taken, axis, -1)[(0,) * (taken.ndim - 1)]
        if not np.array_equal(rows, samples):
            raise refused(
                "selects samples of the batch", "samples of a batch must stay independent"
            )


def _per_sample(shape: Shape) -> int:
    return math.prod(n for n in shape if n != BATCH)


def resolved_shape(source: Shape, target: Any) -> Shape:
    """The target of a reshape with -1 filled in, and the batch found where a model spells its size.

    Raises:
        CompilationError: the batch would be merged with, or split into, other dimensions.
    """
    sizes = target if isinstance(target, (list, tuple)) else np.atleast_1d(np.asarray(target))
    wanted = [n if isinstance(n, Batch) else int(n) for n in sizes]
    if BATCH not in source:
        free = math.prod(source) // max(1, math.prod(n for n in wanted if n != -1))
        return tuple(free if n == -1 else n for n in wanted)
    size = _per_sample(source)
    for place in _batch_places(source, wanted):
        others = [n for i, n in enumerate(wanted) if i != place]
        rest = math.prod(n for n in others if n != -1)
        shape = tuple(
            BATCH if i == place else size // max(rest, 1) if n == -1 else n
            for i, n in enumerate(wanted)
        )
        apart = math.prod(shape[:place]) == math.prod(source[: source.index(BATCH)]) or is_batch(1)
        if BATCH not in others and _per_sample(shape) == size and apart:
            return shape
    raise refused(
        f"reshapes {spelled(source)} to {spelled(wanted)}, which mixes the samples of a batch",
        "keep the batch as a dimension of its own",
    )


def _batch_places(source: Shape, wanted: Sequence[int]) -> Iterator[int]:
    """Where a shape may have the batch, surest first: as a symbol, spelled out, left open, or, of a model
    exported for one size, where the tensor has it now."""
    if BATCH in wanted:
        yield wanted.index(BATCH)
        return
    if wanted and is_batch(wanted[0]):
        yield 0
    yield from (i for i, n in enumerate(wanted) if n == -1)
    yield from (i for i, n in enumerate(wanted) if n == int(BATCH))
    place = source.index(BATCH)
    if place < len(wanted) and is_batch(wanted[place]):
        yield place


def reshape(
    x: Tensor, newshape: Any = None, order: Any = "C", *, shape: Any = None, **_: Any
) -> Tensor:
    if order not in ("C", "A", None):
        raise refused(f"reshapes in the order {order!r}", "transpose first")
    target = resolved_shape(x.shape, newshape if shape is None else shape)
    if target == x.shape:
        return x
    if BATCH in target and BATCH in x.shape:
        place, now = target.index(BATCH), x.shape.index(BATCH)
        if math.prod(target[:place]) != math.prod(x.shape[:now]):
            # Of a single sample, for which the model was exported, a dimension of size 1 may be anywhere.
            others = tuple(n for n in target if n != BATCH)
            return moveaxis(reshape(moveaxis(x, now, 0), (BATCH, *others)), 0, place)
    return recorded("reshape", np.reshape, x, {"target": target}, target)


def transpose(x: Tensor, axes: Any = None) -> Tensor:
    order = tuple(range(x.ndim))[::-1] if axes is None else axes_of(axes, x.ndim)
    if order == tuple(range(x.ndim)):
        return x
    return recorded("transpose", np.transpose, x, {"axes": order}, order)


def swapaxes(x: Tensor, axis1: int, axis2: int) -> Tensor:
    order = list(range(x.ndim))
    axis1, axis2 = axes_of((axis1, axis2), x.ndim)
    order[axis1], order[axis2] = order[axis2], order[axis1]
    return transpose(x, order)


def moveaxis(x: Tensor, source: Any, destination: Any) -> Tensor:
    order = np.moveaxis(np.empty(range(x.ndim)), source, destination).shape
    return transpose(x, order)


def squeeze(x: Tensor, axis: Any = None) -> Tensor:
    axes = [i for i, n in enumerate(x.shape) if n == 1] if axis is None else axis
    gone = set(axes_of(axes, x.ndim))
    if any(x.shape[a] != 1 for a in gone):
        raise refused(
            f"squeezes axes {sorted(gone)} of {spelled(x.shape)}", "squeeze axes of size 1"
        )
    return reshape(x, tuple(n for i, n in enumerate(x.shape) if i not in gone))


def expand_dims(x: Tensor, axis: Any) -> Tensor:
    ndim = x.ndim + np.size(axis)
    new = set(axes_of(axis, ndim))
    rest = iter(x.shape)
    return reshape(x, tuple(1 if i in new else next(rest) for i in range(ndim)))


def broadcast_to(x: Tensor, shape: Any, **_: Any) -> Tensor:
    sizes = shape if isinstance(shape, (list, tuple)) else np.atleast_1d(np.asarray(shape))
    # The batch is where the tensor has it, whatever number the model spells for it.
    own = (1,) * (len(sizes) - x.ndim) + x.shape
    wanted = tuple(
        BATCH if n == BATCH or (m == BATCH and is_batch(n)) else int(n)
        for m, n in zip(own, sizes, strict=True)
    )
    if wanted == x.shape:
        return x
    return recorded("broadcast", np.broadcast_to, x, {"target": wanted}, wanted)


def batch_first(x: Tensor) -> Tensor:
    return moveaxis(x, x.shape.index(BATCH), 0)


def axes_of(axes: Any, ndim: int) -> tuple[int, ...]:
    """One axis or several, counted from the front.

    Raises:
        CompilationError: the tensor has no such axis.
    """
    given = [operator.index(a) for a in np.ravel(axes)]
    if any(not -ndim <= a < ndim for a in given):
        raise refused(f"names axis {axes} of a tensor with {ndim} dimensions", "correct the axis")
    return tuple(a % ndim for a in given)


def take(
    x: Any, indices: Any, axis: int | None = None, out: None = None, mode: str = "raise"
) -> Tensor:
    if isinstance(indices, Tensor) and not isinstance(x, Tensor):
        # Entries of a constant vector: a function of each index.
        values = np.asarray(x)
        if values.ndim == 1 or axis is None:
            return call(select, indices, values.reshape(-1))
    if isinstance(indices, Tensor):
        raise refused("indexes with an encrypted value", "gather with constant indices")
    if axis is None:
        raise refused("takes from a flattened batch", "name the axis")
    (axis,) = axes_of(axis, x.ndim)
    not_the_batch(x, axis, "takes from")
    indices = np.asarray(indices)
    if mode != "raise":
        indices = np.take(np.arange(x.shape[axis]), indices, mode=mode)  # type: ignore[call-overload]
    return recorded("take", gather, x, {"indices": indices, "axis": axis}, indices, axis)


def select(indices: Any, values: Any) -> Any:
    """values[indices]; of (n, columns) values those of each index's own column.

    Of what lies beyond, where a table is filled with more levels than there are values, the nearest.
    """
    indices = np.asarray(indices).astype(np.intp)
    if np.ndim(values) == 1:
        return np.take(values, indices, mode="clip")
    return values[np.clip(indices, 0, len(values) - 1), np.arange(np.shape(values)[1])]


def rows(values: Any, places: Any) -> Any:
    """values[places] of (n, ...) real values; negative places count from the end; NaN of those beyond."""
    whole = np.rint(places).astype(np.int64)
    inside = (whole >= -len(values)) & (whole < len(values))
    found = np.take(values, np.where(whole < 0, whole + len(values), whole), axis=0, mode="clip")
    return np.where(np.reshape(inside, (*inside.shape, *[1] * (values.ndim - 1))), found, np.nan)


def gather(x: Any, indices: Any, axis: int) -> Any:
    return np.take(x, indices, axis=axis)


def maps(rows: Any, keys: Any) -> Any:
    return [dict(zip(keys, row, strict=True)) for row in np.asarray(rows).tolist()]


def concatenate(parts: Sequence[Any], axis: int | None = 0, **_: Any) -> Tensor:
    tensors = [part for part in parts if isinstance(part, Tensor)]
    if axis is None:
        raise refused("concatenates flattened batches", "name the axis")
    (axis,) = axes_of(axis, tensors[0].ndim)
    not_the_batch(tensors[0], axis, "concatenates along")
    if not are_encrypted_integers(tensors):
        return call(join, [_as_long(part, tensors[0].shape) for part in parts], axis, layout=True)
    if all(dtype_of(part) == np.bool_ for part in parts):
        numbers = [
            part + np.int64(0) if isinstance(part, Tensor) else np.int64(part) for part in parts
        ]
        return call(np.not_equal, concatenate(numbers, axis), 0)
    shape = call(join, tensors, axis, layout=True).shape
    joined = node("concatenate", *map(integers, tensors), shape=shape, axis=axis)
    return _interleaved(joined, parts, axis)


def _as_long(part: Any, shape: Shape) -> Any:
    """A constant that is joined to a tensor of ``shape``, as long as the batch."""
    if isinstance(part, Tensor) or BATCH not in shape or np.ndim(part) != len(shape):
        return part
    place = shape.index(BATCH)
    size = np.shape(part)[place]
    return along_batch(part, (place,)) if size == 1 or is_batch(size) else part


def _interleaved(joined: Tensor, parts: Sequence[Any], axis: int) -> Tensor:
    """``joined``, the tensors among ``parts``, with the constants among them in their places.

    They are added to a padding of zeros, which is free.
    """
    constants = [per_sample(part, joined.shape) for part in parts if not isinstance(part, Tensor)]
    if not constants:
        return joined
    first = joined.shape[axis]
    added = np.concatenate(constants, axis=axis)
    widths = [(0, 0)] * joined.ndim
    widths[axis] = (0, added.shape[axis])
    before = [(0, 0)] * joined.ndim
    before[axis] = (first, 0)
    extended = pad(joined, widths) + np.pad(added, before)
    ends = {True: 0, False: first}
    places = []
    for part in parts:
        encrypted, count = isinstance(part, Tensor), np.shape(part)[axis]
        places.append(np.arange(ends[encrypted], ends[encrypted] + count))
        ends[encrypted] += count
    order = np.concatenate(places)
    if np.array_equal(order, np.arange(len(order))):
        return extended
    return take(extended, order, axis=axis)


def join(parts: Any, axis: int) -> Any:
    return np.concatenate(parts, axis=axis)


def stack(parts: Sequence[Any], axis: int = 0, **_: Any) -> Tensor:
    return concatenate([np.expand_dims(part, axis) for part in parts], axis=axis)


def pad(x: Tensor, pad_width: Any, constant_values: Any = 0) -> Tensor:
    """``x`` with constants around it, that broadcast to the result."""
    widths = tuple(
        (int(before), int(after)) for before, after in np.broadcast_to(pad_width, (x.ndim, 2))
    )
    value = np.asarray(constant_values)
    made: Tensor = call(padded, x, widths, value, layout=True)
    if isinstance(x.value, Node) and value.dtype.kind in "iub":
        return node("pad", x, shape=made.shape, widths=widths, value=value.astype(np.int64))
    return made


def padded(x: Any, widths: Any, value: Any) -> Any:
    return RULES["pad"].evaluate([x], {"widths": widths, "value": np.asarray(value)}, 0)


def not_the_batch(x: Tensor, axis: int, verb: str) -> None:
    if x.shape[axis] == BATCH:
        raise refused(f"{verb} the batch dimension", "samples of a batch must stay independent")


def _pad(x: Tensor, pad_width: Any, mode: Any = "constant", **keywords: Any) -> Any:
    """numpy.pad; its constant may also be an array that broadcasts to a result of more than two dimensions."""
    simple = np.ndim(keywords.get("constant_values", 0)) not in (1, 2)
    if mode == "constant" and simple:
        return pad(x, pad_width, **keywords)
    if (
        mode not in ("constant", "edge", "reflect", "symmetric", "wrap")
        or keywords.get("reflect_type") == "odd"
    ):
        raise refused(
            f"pads with values that it computes ({mode!r})",
            "pad with constants, or in the modes edge, reflect, symmetric and wrap",
        )
    if not simple:
        keywords["constant_values"] = np.broadcast_to(keywords["constant_values"], (x.ndim, 2))
    return moving.moves(np.pad, (0,), x, pad_width, mode, **keywords)


def _copy(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return x


FUNCTIONS: dict[Any, Callable[..., Any]] = {
    np.reshape: reshape,
    np.ravel: lambda x, order="C": reshape(x, -1, order),
    np.transpose: transpose,
    np.swapaxes: swapaxes,
    np.moveaxis: moveaxis,
    np.squeeze: squeeze,
    np.expand_dims: expand_dims,
    np.broadcast_to: broadcast_to,
    np.take: take,
    np.concatenate: concatenate,
    np.stack: stack,
    np.pad: _pad,
    np.copy: _copy,
    np.shape: lambda x: x.shape,
    np.ndim: lambda x: x.ndim,
    np.result_type: lambda *given: np.result_type(*(getattr(x, "dtype", x) for x in given)),
    np.size: lambda x, axis=None: x.size if axis is None else x.shape[axis],
}

# It is written in terms of these functions.
from fhe_core.program import moving  # noqa: E402
