"""``Tensor``: what a ``q_impl`` sees in place of encrypted data.

It has a shape, a dtype and NumPy's protocols, and no values. Integer arithmetic on it records nodes of
the integer program; anything else becomes a ``Call``, evaluated later on ordinary arrays. Nothing in
here knows the FHE backend, so ordinary NumPy code that a tracer of that backend would refuse works.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import NDArray

from fhe_core.errors import CompilationError, Where
from fhe_core.program.batch import (
    BATCH,
    Count,
    Shape,
    Sized,
    as_exported,
    long_axes,
    one_row,
    refuse_number,
    sized,
    spelled,
    with_batch,
    without_number,
)
from fhe_core.program.nodes import (
    Call,
    HostInput,
    Node,
    Value,
    convert,
    current_origin,
    evaluate,
    has_bounds,
    operands,
    roots,
)
from fhe_core.program.rules import RULES


class Tensor(NDArrayOperatorsMixin):
    """A symbolic tensor: encrypted integers, or floats computed from them.

    Attributes:
        shape: the leading dimension of a model's tensors is the batch, a symbol that NumPy takes for a small
            number: an array of that length stands for one as long as the batch, if its rows are equal.
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

    @property
    def is_unencrypted(self) -> bool:
        """Whether it is computed from inputs that the client has not encrypted yet: exactly, at no cost."""
        return all(isinstance(root, HostInput) for root in roots(self.value))

    def __repr__(self) -> str:
        kind = f"integers {self.bounds}" if self.is_integer else str(self.dtype)
        return f"Tensor({spelled(self.shape)}, {kind})"

    # -- what it is not

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a tensor without dimensions")
        return int(self.shape[0])

    def __iter__(self) -> Any:
        raise refused("iterates over an encrypted tensor", "index it with constants")

    def __bool__(self) -> bool:
        raise refused(
            "branches on an encrypted value (if, and, or, not, a < x < b, max, min)",
            "use numpy.where, which becomes a table look-up; &, | and ~ of comparisons in brackets; "
            "numpy.maximum and numpy.minimum",
        )

    def __array__(self, *args: Any, **kwargs: Any) -> NDArray[Any]:
        raise refused(
            "asks an encrypted tensor for its values (numpy.asarray, or a function that calls it)",
            "use NumPy functions that dispatch on their arguments: numpy.stack in place of numpy.array",
        )

    def _as_number(self) -> Any:
        raise refused(
            "asks an encrypted tensor for a number",
            "compute on the whole tensor, with NumPy functions in place of Python's",
        )

    __int__ = __float__ = __index__ = __complex__ = _as_number

    def __round__(self, digits: int = 0) -> Any:
        return np.round(self, digits)

    def __setitem__(self, key: Any, value: Any) -> None:
        raise refused(
            "assigns to elements of an encrypted tensor, which never changes",
            "make a new one: numpy.where with a constant mask, numpy.concatenate of its parts",
        )

    # -- in place: a tensor never changes, so `y += x` makes another one

    __iadd__ = NDArrayOperatorsMixin.__add__
    __isub__ = NDArrayOperatorsMixin.__sub__
    __imul__ = NDArrayOperatorsMixin.__mul__
    __itruediv__ = NDArrayOperatorsMixin.__truediv__
    __ifloordiv__ = NDArrayOperatorsMixin.__floordiv__
    __imod__ = NDArrayOperatorsMixin.__mod__
    __ipow__ = NDArrayOperatorsMixin.__pow__
    __ilshift__ = NDArrayOperatorsMixin.__lshift__
    __irshift__ = NDArrayOperatorsMixin.__rshift__
    __iand__ = NDArrayOperatorsMixin.__and__
    __ior__ = NDArrayOperatorsMixin.__or__
    __ixor__ = NDArrayOperatorsMixin.__xor__

    # -- NumPy's protocols

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **keywords: Any) -> Any:
        for out in keywords.pop("out", ()):
            no_out(out)
        if method == "reduce":
            reduced = reductions.REDUCTIONS.get(ufunc)
            if reduced is not None:
                keywords.setdefault("axis", 0)
                return reduced(*inputs, **keywords)
        if method != "__call__":
            raise advice.unavailable(f"{ufunc.__name__}.{method}")
        if any(isinstance(each, Count) for each in inputs):
            refuse_number()
        if not keywords and not _on_client.get() and all_integers(inputs):
            result = arithmetic.apply(ufunc, inputs)
            if result is not NotImplemented:
                return result
        return call(ufunc, *inputs, **keywords)

    def __array_function__(
        self, function: Callable[..., Any], types: Any, args: Any, kwargs: Any
    ) -> Any:
        no_out(kwargs.pop("out", None))
        for module in (layout, arithmetic, reductions, moving):
            if function in module.FUNCTIONS:
                return module.FUNCTIONS[function](*args, **kwargs)
        if function in advice.WITHOUT_SHAPE:
            raise advice.unavailable(function)
        return call(function, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        """The other methods of arrays, by NumPy's functions of the same name."""
        if name.startswith("_") or not hasattr(np.ndarray, name):
            raise AttributeError(f"an encrypted tensor has no attribute {name!r}")
        function = getattr(np, name, None)
        if function is None or name in advice.IN_PLACE or not callable(getattr(np.ndarray, name)):
            raise advice.unavailable(f"ndarray.{name}")
        return functools.partial(function, self)

    def __getitem__(self, key: Any) -> Tensor:
        parts = key if isinstance(key, tuple) else (key,)
        if any(isinstance(part, Tensor) for part in parts):
            raise refused("indexes with an encrypted value", "index with constants")
        if any(isinstance(part, (list, np.ndarray)) and np.ndim(part) > 0 for part in parts):
            picked: Tensor = moving.moves(layout.pick, (0,), self, parts)
            return picked
        parts = tuple(int(p) if isinstance(p, (np.integer, np.ndarray)) else p for p in parts)
        parts = layout.up_to_the_end(self, parts)
        layout.not_some_samples(self, parts)
        return layout.recorded("index", layout.pick, self, {"key": parts}, parts)

    # -- the methods of arrays that operators use

    @property
    def T(self) -> Tensor:
        return self.transpose()

    def astype(self, dtype: Any, **_: Any) -> Tensor:
        """Convert. To a float: the end of an accumulator. To an integer: the end of a float group."""
        target = np.dtype(dtype)
        if target.kind in "iu" and not _on_client.get():
            return self if self.is_integer else integers(call(convert, self, dtype=target))
        return call(convert, self, dtype=target)

    def reshape(self, *shape: Any, order: Any = "C") -> Tensor:
        return layout.reshape(self, shape[0] if len(shape) == 1 else shape, order)

    def transpose(self, *axes: Any) -> Tensor:
        if len(axes) == 1 and (axes[0] is None or isinstance(axes[0], (tuple, list))):
            return layout.transpose(self, axes[0])
        return layout.transpose(self, axes or None)

    def flatten(self, order: Any = "C") -> Tensor:
        return layout.reshape(self, -1, order)

    def copy(self, order: Any = "C") -> Tensor:
        return self


def refused(what: str, fix: str) -> CompilationError:
    origin = current_origin()
    where = origin.where if origin else Where()
    return CompilationError(f"the implementation {what}", where=where, fix=fix)


def no_out(out: Any) -> None:
    """Refuses NumPy's argument of that name, which nothing encrypted can be written into."""
    if out is not None:
        raise refused("writes into an array (out=)", "assign the result to a name")


# -- recording


_on_client: ContextVar[bool] = ContextVar("fhe_core_on_client", default=False)


@contextlib.contextmanager
def on_client() -> Iterator[None]:
    """What is recorded in the body runs in the clear: a conversion to integers is one there, and no look-up."""
    token = _on_client.set(True)
    try:
        yield
    finally:
        _on_client.reset(token)


#: Each function is tried on batches of these sizes: what differs between its results is the batch.
_SAMPLED = (2, 3)
#: Results with more elements are not kept for the functions after it, which then see ones.
_KEPT = 2**14


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
    try:
        results = [_sample(recorded, batch) for batch in _SAMPLED]
    except CompilationError:
        # Perhaps it meets an array that was made as long as the batch.
        recorded.arguments, found = _along_batch(recorded.arguments)
        if not found:
            raise
        results = [_sample(recorded, batch) for batch in _SAMPLED]
    if isinstance(results[0], (tuple, list)) and not _are_maps(results[0]):
        return tuple(
            Tensor(_described(_result(recorded, i), [r[i] for r in results]))
            for i in range(len(results[0]))
        )
    return Tensor(_described(recorded, results))


def _along_batch(argument: Any) -> tuple[Any, bool]:
    """``argument`` with what is as long as the batch for a batch of any size, and whether there was any."""
    if isinstance(argument, (list, tuple)):
        parts = [_along_batch(part) for part in argument]
        return type(argument)(part for part, _ in parts), any(found for _, found in parts)
    axes = long_axes(argument) if isinstance(argument, np.ndarray) else ()
    return (along_batch(argument, axes).value, True) if axes else (argument, False)


def along_batch(constant: Any, axes: tuple[int, ...]) -> Tensor:
    """A constant, the same for each sample, as a float tensor that has the batch as dimensions ``axes``.

    Raises:
        CompilationError: it is not the same for each sample.
    """
    row = np.asarray(constant)
    for axis in axes:
        row = one_row(row, axis)
    return of_size(Sized(row, axes=axes))


def of_size(constant: Sized) -> Tensor:
    """A constant that depends on the size of the batch, as a float tensor, or one of plain integers."""
    made: Tensor = call(sized, constant.base, constant.slope, constant.axes, BATCH, layout=True)
    return made


def _are_maps(result: Any) -> bool:
    """Whether a list is one result, with a map for each sample."""
    return all(isinstance(item, Mapping) for item in result)


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
        raise refused(
            "returns another rank or dtype for another batch size", "make it depend on shapes alone"
        )
    shape = []
    for a, b in zip(two.shape, three.shape, strict=True):
        if a == b:
            shape.append(int(a))
        elif (a, b) == (2, 3):
            shape.append(BATCH)
        else:
            raise refused(
                "merges the batch with another dimension", "keep the batch dimension apart"
            )
    recorded.shape = tuple(shape)
    recorded.dtype = two.dtype
    if two.dtype == object or three.size <= _KEPT:
        recorded.samples = dict(zip(_SAMPLED, (two, three), strict=True))
    return recorded


def _sample(recorded: Call, batch: int) -> Any:
    known: dict[int, Any] = {}
    for value in operands(recorded):
        if isinstance(value, Call) and value.samples:
            known[id(value)] = value.samples[batch]
        else:
            # Any value inside the bounds would do: only shapes and dtypes are read.
            dtype = np.dtype(np.int64) if isinstance(value, Node) else value.dtype
            ones = np.broadcast_to(np.ones((), dtype), with_batch(value.shape, batch))
            known[id(value)] = ones
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
    except (CompilationError, MemoryError):
        raise
    except Exception as error:
        if advice.is_unavailable(recorded.function):
            raise advice.unavailable(recorded.function) from error
        name = getattr(recorded.function, "__name__", str(recorded.function))
        origin = current_origin()
        raise CompilationError(
            f"{name} failed on arrays of the recorded shapes, with {batch} samples: "
            f"{without_number(str(error))}",
            where=origin.where if origin else None,
            fix=as_exported(
                "check the attributes and shapes at this node; the float model must run first"
            ),
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


#: Stands for bounds that nobody needs.
_ANY_BOUND = 2**7


def node(op: str, *inputs: Tensor, shape: Shape, **attributes: Any) -> Tensor:
    """Record one operation of the integer program. ``inputs`` are integer tensors.

    Raises:
        CompilationError: the result has no elements.
    """
    if 0 in shape:
        raise refused(
            "makes an encrypted tensor without elements",
            "leave what is computed from it out of the model",
        )
    nodes = tuple(node_of(tensor) for tensor in inputs)
    if has_bounds():
        low, high = RULES[op].interval([(n.low, n.high) for n in nodes], attributes)
    else:
        low, high = np.asarray(-_ANY_BOUND), np.asarray(_ANY_BOUND)
    return Tensor(Node(op, nodes, shape, np.asarray(low), np.asarray(high), attributes))


def node_of(tensor: Tensor) -> Node:
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
        return integers(call(convert, tensor, dtype=np.dtype(np.int64)))
    return tensor


def all_integers(inputs: Sequence[Any]) -> bool:
    """Whether integer arithmetic applies: encrypted integers, or truth values, and constants of these types."""
    constants = [x for x in inputs if not isinstance(x, Tensor)]
    if any(np.asarray(constant).dtype.kind not in "iub" for constant in constants):
        return False
    return are_encrypted_integers([x for x in inputs if isinstance(x, Tensor)])


def dtype_of(x: Any) -> np.dtype[Any]:
    """The dtype of a tensor or a constant."""
    return x.dtype if isinstance(x, Tensor) else np.asarray(x).dtype


def are_encrypted_integers(tensors: Sequence[Tensor]) -> bool:
    """Whether all are whole numbers or truth values, and one at least is computed from encrypted ones.

    Not so where what is recorded runs on the client.
    """
    if _on_client.get() or any(tensor.dtype.kind not in "iub" for tensor in tensors):
        return False
    return any(isinstance(root, Node) for tensor in tensors for root in roots(tensor.value))


# The class needs these functions, and they need the class.
from fhe_core.program import advice, arithmetic, layout, moving, reductions  # noqa: E402
