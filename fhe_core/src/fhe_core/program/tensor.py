"""``Tensor``: what a ``q_impl`` sees in place of encrypted data.

It has a shape, a dtype and NumPy's protocols, and no values. Integer arithmetic on it records nodes of
the integer program; anything else becomes a ``Call``, evaluated later on ordinary arrays. Nothing in
here knows the FHE backend, so ordinary NumPy code that a tracer of that backend would refuse works.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import NDArray

from fhe_core.errors import CompilationError, Where
from fhe_core.program.nodes import (
    BATCH,
    Call,
    HostInput,
    Node,
    Shape,
    Value,
    current_origin,
    evaluate,
    operands,
)
from fhe_core.program.rules import RULES


class Tensor(NDArrayOperatorsMixin):
    """A symbolic tensor: encrypted integers, or floats computed from them.

    Attributes:
        shape: the leading dimension of a model's tensors is a symbolic batch size, one large prime.
        dtype: int64 for encrypted integers, else whatever NumPy's function would return.
        bounds: least and largest value that encrypted integers can take; None for floats.
    """

    __slots__ = ("value",)

    # Calls that NumPy would make on arrays with a larger priority come here.
    __array_priority__ = 1000

    def __init__(self, value: Value) -> None:
        self.value = value

    # -- what it is

    @property
    def shape(self) -> Shape:
        return self.value.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.int64) if isinstance(self.value, Node) else self.value.dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def bounds(self) -> tuple[int, int] | None:
        return self.value.bounds if isinstance(self.value, Node) else None

    @property
    def is_integer(self) -> bool:
        """Whether this is an integer tensor of the circuit already, and not a float computed from one."""
        return isinstance(self.value, Node)

    def __repr__(self) -> str:
        shape = ", ".join("batch" if n == BATCH else str(n) for n in self.shape)
        kind = f"integers {self.bounds}" if self.is_integer else str(self.dtype)
        return f"Tensor(({shape}), {kind})"

    # -- what it is not

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a tensor without dimensions")
        return self.shape[0]

    def __iter__(self) -> Any:
        raise _refused("iterates over an encrypted tensor", "index it with constants")

    def __bool__(self) -> bool:
        raise _refused(
            "branches on an encrypted value", "use numpy.where, which becomes a table look-up"
        )

    def __array__(self, *args: Any, **kwargs: Any) -> NDArray[Any]:
        raise _refused(
            "asks an encrypted tensor for its values (numpy.asarray, or a function that calls it)",
            "use NumPy functions that dispatch on their arguments",
        )

    # -- NumPy's protocols

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **keywords: Any) -> Any:
        if method == "reduce":
            reduced = _REDUCTIONS.get(ufunc)
            if reduced is not None:
                keywords.pop("initial", None)
                return reduced(*inputs, **{k: v for k, v in keywords.items() if v is not None})
        if method != "__call__" or "out" in keywords:
            return NotImplemented
        linear = _INTEGER_UFUNCS.get(ufunc)
        if linear is not None and not keywords and _all_integers(inputs):
            result = linear(*inputs)
            if result is not NotImplemented:
                return result
        return call(ufunc, *inputs, **keywords)

    def __array_function__(
        self, function: Callable[..., Any], types: Any, args: Any, kwargs: Any
    ) -> Any:
        handler = _FUNCTIONS.get(function)
        if handler is not None:
            return handler(*args, **kwargs)
        return call(function, *args, **kwargs)

    def __getitem__(self, key: Any) -> Tensor:
        parts = key if isinstance(key, tuple) else (key,)
        if any(isinstance(part, Tensor) for part in parts):
            raise _refused("indexes with an encrypted value", "index with constants")
        if any(isinstance(part, (list, np.ndarray)) and np.ndim(part) > 0 for part in parts):
            if len(parts) == 1:
                return take(self, np.asarray(key), axis=0)
            raise _refused("indexes with several arrays", "use numpy.take along one axis")
        parts = tuple(int(p) if isinstance(p, (np.integer, np.ndarray)) else p for p in parts)
        return _layout("index", _index, self, {"key": parts}, parts)

    # -- the methods of arrays that operators use

    @property
    def T(self) -> Tensor:
        return self.transpose()

    def astype(self, dtype: Any, **_: Any) -> Tensor:
        """Convert. To a float: the end of an accumulator. To an integer: the end of a float group."""
        target = np.dtype(dtype)
        if target.kind in "iu":
            return self if self.is_integer else integers(call(_astype, self, dtype=target))
        return call(_astype, self, dtype=target)

    def reshape(self, *shape: Any, **_: Any) -> Tensor:
        return reshape(self, shape[0] if len(shape) == 1 else shape)

    def transpose(self, *axes: Any) -> Tensor:
        if len(axes) == 1 and (axes[0] is None or isinstance(axes[0], (tuple, list))):
            return transpose(self, axes[0])
        return transpose(self, axes or None)

    def swapaxes(self, first: int, second: int) -> Tensor:
        return swapaxes(self, first, second)

    def squeeze(self, axis: Any = None) -> Tensor:
        return squeeze(self, axis)

    def flatten(self) -> Tensor:
        return reshape(self, -1)

    ravel = flatten

    def copy(self) -> Tensor:
        return self

    def sum(self, axis: Any = None, keepdims: bool = False, **_: Any) -> Tensor:
        return reduce_sum(self, axis=axis, keepdims=keepdims)

    def mean(self, axis: Any = None, keepdims: bool = False, **_: Any) -> Tensor:
        return mean(self, axis=axis, keepdims=keepdims)

    def max(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        return call(np.max, self, axis=axis, keepdims=keepdims)

    def min(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        return call(np.min, self, axis=axis, keepdims=keepdims)

    def clip(self, a_min: Any = None, a_max: Any = None) -> Tensor:
        return call(np.clip, self, a_min, a_max)

    def round(self, decimals: int = 0) -> Tensor:
        return call(np.round, self, decimals)

    def argmax(self, axis: Any = None) -> Tensor:
        return call(np.argmax, self, axis=axis)


def _refused(what: str, fix: str) -> CompilationError:
    origin = current_origin()
    where = origin.where if origin else Where()
    return CompilationError(f"the implementation {what}", where=where, fix=fix)


# -- recording


def unwrap(argument: Any) -> Any:
    """``argument`` with its tensors replaced by the recorded values that they stand for."""
    if isinstance(argument, Tensor):
        return argument.value
    if isinstance(argument, (list, tuple)):
        return type(argument)(unwrap(part) for part in argument)
    return argument


def call(
    function: Callable[..., Any], *arguments: Any, layout: bool = False, **keywords: Any
) -> Any:
    """Record ``function(*arguments, **keywords)``, to be evaluated on ordinary arrays later.

    Returns:
        A tensor, or a tuple of them where the function returns several arrays.

    Raises:
        CompilationError: the function fails on arrays of these shapes.
    """
    recorded = Call(
        function,
        tuple(unwrap(argument) for argument in arguments),
        {name: unwrap(argument) for name, argument in keywords.items()},
        shape=(),
        dtype=np.dtype(np.float64),
        layout=layout,
    )
    results = [_sample(recorded, batch) for batch in (2, 3)]
    if isinstance(results[0], (tuple, list)):
        return tuple(
            Tensor(_described(_result(recorded, i), [r[i] for r in results]))
            for i in range(len(results[0]))
        )
    return Tensor(_described(recorded, results))


def _result(several: Call, index: int) -> Call:
    return Call(
        several.function,
        several.arguments,
        several.keywords,
        several.shape,
        several.dtype,
        several.layout,
        item=index,
    )


def _described(recorded: Call, results: Sequence[Any]) -> Call:
    """``recorded`` with the shape and dtype that two runs with different batch sizes show."""
    two, three = (np.asarray(result) for result in results)
    if two.ndim != three.ndim or two.dtype != three.dtype:
        raise _refused(
            "returns another rank or dtype for another batch size", "make it depend on shapes alone"
        )
    shape = []
    for a, b in zip(two.shape, three.shape, strict=True):
        if a == b:
            shape.append(int(a))
        elif (a, b) == (2, 3):
            shape.append(BATCH)
        else:
            raise _refused(
                "merges the batch with another dimension", "keep the batch dimension apart"
            )
    recorded.shape = tuple(shape)
    recorded.dtype = two.dtype
    recorded.samples = {2: two, 3: three}
    return recorded


def _sample(recorded: Call, batch: int) -> Any:
    known: dict[int, Any] = {}
    for value in operands(recorded):
        if isinstance(value, Call):
            known[id(value)] = value.samples[batch]
        else:
            shape = tuple(batch if n == BATCH else n for n in value.shape)
            # Any value inside the bounds would do: only shapes and dtypes are read.
            dtype = np.int64 if isinstance(value, Node) else value.dtype
            known[id(value)] = np.ones(shape, dtype)
    shallow = Call(
        recorded.function,
        recorded.arguments,
        recorded.keywords,
        (),
        recorded.dtype,
        recorded.layout,
    )
    try:
        return _evaluate_one(shallow, known, batch)
    except CompilationError:
        raise
    except Exception as error:
        name = getattr(recorded.function, "__name__", str(recorded.function))
        origin = current_origin()
        raise CompilationError(
            f"{name} failed on arrays of the recorded shapes: {error}",
            where=origin.where if origin else None,
            fix="check the attributes and shapes at this node; the float model must run first",
        ) from error


def _evaluate_one(step: Call, known: dict[int, Any], batch: int) -> Any:
    # `evaluate` walks to the roots; here all operands are known, so stop it there.
    def fill(argument: Any) -> Any:
        if isinstance(argument, (Node, HostInput, Call)):
            return known[id(argument)]
        if isinstance(argument, (list, tuple)):
            return type(argument)(fill(part) for part in argument)
        return argument

    leaf = Call(
        step.function,
        tuple(fill(argument) for argument in step.arguments),
        {name: fill(argument) for name, argument in step.keywords.items()},
        (),
        step.dtype,
        step.layout,
    )
    return evaluate(leaf, {}, batch)


def node(op: str, *inputs: Tensor, shape: Shape, **attributes: Any) -> Tensor:
    """Record one operation of the integer program. ``inputs`` are integer tensors."""
    nodes = tuple(_node_of(tensor) for tensor in inputs)
    low, high = RULES[op].interval([(n.low, n.high) for n in nodes], attributes)
    return Tensor(Node(op, nodes, shape, np.asarray(low), np.asarray(high), attributes))


def _node_of(tensor: Tensor) -> Node:
    value = integers(tensor).value
    assert isinstance(value, Node)  # noqa: S101  # `integers` returns nothing else
    return value


def integers(tensor: Tensor) -> Tensor:
    """The integer tensor with the values of ``tensor``: itself, or a look-up, or an encrypted input.

    Raises:
        CompilationError: ``tensor`` is no function of a single integer tensor, element by element.
    """
    from fhe_core.program.groups import materialize

    if isinstance(tensor.value, Call):
        return Tensor(materialize(tensor.value))
    if isinstance(tensor.value, HostInput):
        return integers(call(_astype, tensor, dtype=np.dtype(np.int64)))
    return tensor


def _astype(x: Any, *, dtype: np.dtype[Any]) -> Any:
    return np.asarray(x).astype(dtype)


def _all_integers(inputs: Sequence[Any]) -> bool:
    """Whether integer arithmetic applies: at least one tensor of the circuit, and no float."""
    some = False
    for operand in inputs:
        if isinstance(operand, Tensor):
            if operand.dtype.kind not in "iub":
                return False
            some = some or operand.is_integer
        elif np.asarray(operand).dtype.kind not in "iub":
            return False
    return some


# -- integer arithmetic


def _broadcast(a: Tensor, shape: Shape) -> Tensor:
    return a if a.shape == shape else broadcast_to(a, shape)


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
        raise _refused(
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


_INTEGER_UFUNCS: dict[Any, Callable[..., Any]] = {
    np.add: _add,
    np.subtract: _subtract,
    np.negative: _negative,
    np.positive: lambda a: a,
    np.multiply: _multiply,
    np.matmul: _matmul,
    np.maximum: _maximum,
    np.minimum: _minimum,
}


# -- layout


def _layout(
    op: str, function: Callable[..., Any], x: Tensor, attributes: dict[str, Any], *arguments: Any
) -> Tensor:
    """Record a layout function: a node on integers, a replayable call on floats."""
    recorded = call(function, x, *arguments, layout=True)
    if isinstance(x.value, Node):
        return node(op, x, shape=recorded.shape, **attributes)
    return recorded


def _index(x: Any, key: Any) -> Any:
    return x[key]


def _per_sample(shape: Shape) -> int:
    return math.prod(n for n in shape if n != BATCH)


def resolved_shape(source: Shape, target: Any) -> Shape:
    """The target of a reshape with -1 filled in, and the batch found where a model spells its size.

    Raises:
        CompilationError: the batch would be merged with, or split into, other dimensions.
    """
    wanted = [int(n) for n in np.atleast_1d(np.asarray(target))]
    if BATCH not in source:
        free = math.prod(source) // max(1, math.prod(n for n in wanted if n != -1))
        return tuple(free if n == -1 else n for n in wanted)
    size = _per_sample(source)
    if BATCH in wanted:
        rest = math.prod(n for n in wanted if n not in (-1, BATCH))
        filled = [size // max(rest, 1) if n == -1 else n for n in wanted]
        if wanted.count(BATCH) == 1 and _per_sample(tuple(filled)) == size:
            return tuple(filled)
    elif math.prod(n for n in wanted if n != -1) == size and -1 in wanted:
        return tuple(BATCH if n == -1 else n for n in wanted)
    elif wanted and math.prod(wanted[1:]) in (size, -size):
        # A static batch size, spelled out by the exporter.
        return (BATCH, *wanted[1:])
    elif wanted and -1 in wanted[1:]:
        rest = math.prod(n for n in wanted[1:] if n != -1)
        if rest and size % rest == 0:
            return (BATCH, *(size // rest if n == -1 else n for n in wanted[1:]))
    raise _refused(
        f"reshapes {_spell(source)} to {_spell(tuple(wanted))}, which mixes the samples of a batch",
        "keep the batch as a dimension of its own",
    )


def _spell(shape: Shape) -> str:
    return "(" + ", ".join("batch" if n == BATCH else str(n) for n in shape) + ")"


def reshape(x: Tensor, newshape: Any, **_: Any) -> Tensor:
    shape = resolved_shape(x.shape, newshape)
    return x if shape == x.shape else _layout("reshape", np.reshape, x, {"target": shape}, shape)


def transpose(x: Tensor, axes: Any = None) -> Tensor:
    order = tuple(range(x.ndim))[::-1] if axes is None else tuple(int(a) % x.ndim for a in axes)
    if order == tuple(range(x.ndim)):
        return x
    return _layout("transpose", np.transpose, x, {"axes": order}, order)


def swapaxes(x: Tensor, axis1: int, axis2: int) -> Tensor:
    order = list(range(x.ndim))
    order[axis1], order[axis2] = order[axis2], order[axis1]
    return transpose(x, order)


def moveaxis(x: Tensor, source: Any, destination: Any) -> Tensor:
    order = np.moveaxis(np.empty(range(x.ndim)), source, destination).shape
    return transpose(x, order)


def squeeze(x: Tensor, axis: Any = None) -> Tensor:
    axes = [i for i, n in enumerate(x.shape) if n == 1] if axis is None else np.atleast_1d(axis)
    gone = {int(a) % x.ndim for a in axes}
    if any(x.shape[a] != 1 for a in gone):
        raise _refused(
            f"squeezes axes {sorted(gone)} of {_spell(x.shape)}", "squeeze axes of size 1"
        )
    return reshape(x, tuple(n for i, n in enumerate(x.shape) if i not in gone))


def expand_dims(x: Tensor, axis: Any) -> Tensor:
    axes = [int(a) for a in np.atleast_1d(axis)]
    ndim = x.ndim + len(axes)
    new = {a % ndim for a in axes}
    rest = iter(x.shape)
    return reshape(x, tuple(1 if i in new else next(rest) for i in range(ndim)))


def broadcast_to(x: Tensor, shape: Any, **_: Any) -> Tensor:
    wanted = tuple(int(n) for n in np.atleast_1d(np.asarray(shape)))
    # A static batch size, spelled out by the exporter.
    if len(wanted) == x.ndim and x.shape and x.shape[0] == BATCH:
        wanted = (BATCH, *wanted[1:])
    if wanted == x.shape:
        return x
    return _layout("broadcast", np.broadcast_to, x, {"target": wanted}, wanted)


def take(x: Any, indices: Any, axis: int | None = None, **_: Any) -> Tensor:
    if isinstance(indices, Tensor) and not isinstance(x, Tensor):
        # Entries of a constant vector: a function of each index.
        values = np.asarray(x)
        if values.ndim == 1 or axis is None:
            return call(_select, indices, values.reshape(-1))
    if isinstance(indices, Tensor):
        raise _refused("indexes with an encrypted value", "gather with constant indices")
    if axis is None:
        raise _refused("takes from a flattened batch", "name the axis")
    axis = axis % x.ndim
    _not_the_batch(x, axis, "takes from")
    indices = np.asarray(indices)
    return _layout("take", _take, x, {"indices": indices, "axis": axis}, indices, axis)


def _select(indices: Any, values: Any) -> Any:
    return np.take(values, indices)


def _take(x: Any, indices: Any, axis: int) -> Any:
    return np.take(x, indices, axis=axis)


def concatenate(parts: Sequence[Any], axis: int = 0, **_: Any) -> Tensor:
    tensors = [part for part in parts if isinstance(part, Tensor)]
    axis = axis % tensors[0].ndim
    _not_the_batch(tensors[0], axis, "concatenates along")
    if not all(t.dtype.kind in "iub" for t in tensors) or not any(t.is_integer for t in tensors):
        return call(_concatenate, list(parts), axis, layout=True)
    shape = call(_concatenate, tensors, axis, layout=True).shape
    joined = node("concatenate", *map(integers, tensors), shape=shape, axis=axis)
    return _interleaved(joined, parts, axis)


def _interleaved(joined: Tensor, parts: Sequence[Any], axis: int) -> Tensor:
    """``joined``, the tensors among ``parts``, with the constants among them in their places.

    They are added to a padding of zeros, which is free.
    """
    constants = [np.asarray(part) for part in parts if not isinstance(part, Tensor)]
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
        encrypted, count = isinstance(part, Tensor), part.shape[axis]
        places.append(np.arange(ends[encrypted], ends[encrypted] + count))
        ends[encrypted] += count
    order = np.concatenate(places)
    if np.array_equal(order, np.arange(len(order))):
        return extended
    return take(extended, order, axis=axis)


def _concatenate(parts: Any, axis: int) -> Any:
    return np.concatenate(parts, axis=axis)


def stack(parts: Sequence[Any], axis: int = 0, **_: Any) -> Tensor:
    return concatenate([expand_dims(part, axis) for part in parts], axis=axis)


def split(x: Tensor, indices_or_sections: Any, axis: int = 0) -> list[Tensor]:
    axis = axis % x.ndim
    _not_the_batch(x, axis, "splits")
    length = x.shape[axis]
    if isinstance(indices_or_sections, (int, np.integer)):
        step = length // int(indices_or_sections)
        bounds = list(range(step, length, step))
    else:
        bounds = [int(i) for i in indices_or_sections]
    edges = [0, *bounds, length]
    before = (slice(None),) * axis
    return [x[(*before, slice(a, b))] for a, b in itertools.pairwise(edges)]


def flip(x: Tensor, axis: Any = None) -> Tensor:
    axes = {int(a) % x.ndim for a in (range(1, x.ndim) if axis is None else np.atleast_1d(axis))}
    for a in sorted(axes):
        x = take(x, np.arange(x.shape[a])[::-1], axis=a)
    return x


def tile(x: Tensor, reps: Any) -> Tensor:
    repeats = [int(r) for r in np.atleast_1d(reps)]
    repeats = [1] * (x.ndim - len(repeats)) + repeats
    for axis, repeat in enumerate(repeats):
        if repeat != 1:
            x = take(x, np.tile(np.arange(x.shape[axis]), repeat), axis=axis)
    return x


def repeat(x: Tensor, repeats: int, axis: int) -> Tensor:
    return take(x, np.repeat(np.arange(x.shape[axis]), repeats), axis=axis)


def pad(
    x: Tensor, pad_width: Any, mode: str = "constant", constant_values: Any = 0, **_: Any
) -> Tensor:
    widths = tuple(
        (int(before), int(after)) for before, after in np.broadcast_to(pad_width, (x.ndim, 2))
    )
    if mode != "constant":
        keywords: dict[str, Any] = {"mode": mode}
        for axis, width in enumerate(widths):
            if any(width):
                x = take(x, np.pad(np.arange(x.shape[axis]), width, **keywords), axis=axis)
        return x
    value = np.asarray(constant_values)
    recorded: Tensor = call(_pad, x, widths, value, layout=True)
    if isinstance(x.value, Node) and value.dtype.kind in "iub":
        return node("pad", x, shape=recorded.shape, widths=widths, value=value.astype(np.int64))
    return recorded


def _pad(x: Any, widths: Any, value: Any) -> Any:
    return RULES["pad"].evaluate([x], {"widths": widths, "value": np.asarray(value)}, 0)


def _not_the_batch(x: Tensor, axis: int, verb: str) -> None:
    if x.shape[axis] == BATCH:
        raise _refused(f"{verb} the batch dimension", "samples of a batch must stay independent")


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
        _not_the_batch(x, a, "sums over")
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


def _copy(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return x


_REDUCTIONS: dict[Any, Callable[..., Any]] = {
    np.add: reduce_sum,
    np.maximum: lambda x, axis=0, keepdims=False: call(np.max, x, axis=axis, keepdims=keepdims),
    np.minimum: lambda x, axis=0, keepdims=False: call(np.min, x, axis=axis, keepdims=keepdims),
    np.multiply: lambda x, axis=0, keepdims=False: call(np.prod, x, axis=axis, keepdims=keepdims),
}

_FUNCTIONS: dict[Any, Callable[..., Any]] = {
    np.reshape: reshape,
    np.ravel: lambda x, *_, **__: reshape(x, -1),
    np.transpose: transpose,
    np.swapaxes: swapaxes,
    np.moveaxis: moveaxis,
    np.squeeze: squeeze,
    np.expand_dims: expand_dims,
    np.broadcast_to: broadcast_to,
    np.take: take,
    np.concatenate: concatenate,
    np.stack: stack,
    np.split: split,
    np.array_split: split,
    np.flip: flip,
    np.tile: tile,
    np.repeat: repeat,
    np.pad: pad,
    np.sum: reduce_sum,
    np.mean: mean,
    np.dot: _dot,
    np.copy: _copy,
    np.shape: lambda x: x.shape,
    np.ndim: lambda x: x.ndim,
    np.size: lambda x: x.size,
}
