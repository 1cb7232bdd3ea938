"""What the client computes before encryption and after decryption: float NumPy, named step by step.

A client loads without the packs, so the functions of the packs cannot be called there. They are traced
once, at build time, into steps of plain NumPy functions from a fixed vocabulary, which is all that a saved
client may contain. A function that cannot be traced but has one integer input becomes a table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from fhe_core.errors import ArtifactError, CompilationError
from fhe_core.program import layout
from fhe_core.program import tensor as t
from fhe_core.program.batch import sized
from fhe_core.program.nodes import (
    BATCH,
    Call,
    HostInput,
    Node,
    Root,
    Value,
    convert,
    evaluate,
    ordered,
    roots,
    with_batch,
)
from fhe_core.program.sizes import MOST_ELEMENTS, most_elements
from fhe_core.program.univariate import check_samples_apart, check_univariate, same

Array = NDArray[Any]

#: Tensors of so many elements a sample are compared on fewer samples.
_LARGE = 2**14

_OWN: dict[str, Callable[..., Any]] = {
    "astype": convert,
    "concatenate": layout.join,
    "index": layout.pick,
    "pad": layout.padded,
    "sized": sized,
    "select": layout.select,
    "rows": layout.rows,
    "take": layout.gather,
    "maps": layout.maps,
}
_NUMPY = (
    "all",
    "any",
    "argmax",
    "argmin",
    "argsort",
    "around",
    "broadcast_to",
    "clip",
    "cumprod",
    "cumsum",
    "isclose",
    "max",
    "mean",
    "min",
    "nan_to_num",
    "prod",
    "reshape",
    "round",
    "sort",
    "std",
    "sum",
    "take_along_axis",
    "transpose",
    "tril",
    "triu",
    "var",
    "where",
    "zeros_like",
    "ones_like",
    "full_like",
    "matmul",
)


def _lookup(x: Array, tables: Array, which: Array, first: int) -> Array:
    return tables[which, np.clip(np.asarray(x) - first, 0, tables.shape[1] - 1).astype(np.intp)]


FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: value for name, value in vars(np).items() if isinstance(value, np.ufunc)},
    **{name: getattr(np, name) for name in _NUMPY},
    **_OWN,
    "lookup": _lookup,
}
_NAMES: dict[Any, str] = {function: name for name, function in FUNCTIONS.items()}


@dataclass(frozen=True)
class Reference:
    """The result of an earlier step, or one of the inputs."""

    slot: int


@dataclass(frozen=True)
class HostStep:
    function: str
    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any]
    layout: bool = False


@dataclass(frozen=True)
class HostProgram:
    """NumPy steps from named inputs to results.

    Attributes:
        inputs: names of the arrays it starts from; they fill the first slots.
        steps: each fills the next slot.
        results: the slots that it gives.
    """

    inputs: tuple[str, ...]
    steps: tuple[HostStep, ...]
    results: tuple[int, ...]

    def __call__(
        self,
        arrays: Mapping[str, Array],
        batch: int,
        *,
        refuse_nan: Callable[[], NoReturn] | None = None,
    ) -> list[Any]:
        """The results for a batch: arrays, or lists of maps.

        Args:
            arrays: by input name.
            refuse_nan: called where NaN would become an integer; None where nobody minds.

        Raises:
            ArtifactError: a step names a function outside the vocabulary, or the steps compute more for each
                sample than any model's do.
        """
        values: list[Any] = [arrays[name] for name in self.inputs]
        left = MOST_ELEMENTS * max(batch, 1)
        with np.errstate(all="ignore"):
            for step in self.steps:
                function = FUNCTIONS.get(step.function)
                if function is None:
                    raise ArtifactError(
                        f"the client's program calls {step.function!r}, which is not allowed",
                        fix="save the model again with this version of fhe-core",
                    )
                arguments = _filled(step.arguments, values)
                keywords = {name: _filled(value, values) for name, value in step.keywords.items()}
                if step.layout:
                    arguments = with_batch(arguments, batch)
                    keywords = {name: with_batch(value, batch) for name, value in keywords.items()}
                if refuse_nan and step.function == "astype" and _loses_nan(*arguments, **keywords):
                    refuse_nan()
                left -= most_elements(step.function, arguments, keywords)
                if left < 0:
                    raise ArtifactError(
                        f"the client's program asks for more memory than a model's may, in {step.function!r}",
                        expected=f"at most {MOST_ELEMENTS} elements for a sample",
                        fix="do not use this model",
                    )
                values.append(function(*arguments, **keywords))
        found = [values[slot] for slot in self.results]
        return [value if isinstance(value, list) else np.asarray(value) for value in found]

    def rows(self) -> list[str]:
        """One line a step that changes values, for the report of what the client learns."""
        return [step.function for step in self.steps if not step.layout]


def _loses_nan(x: Any, *, dtype: np.dtype[Any]) -> bool:
    """Whether a conversion turns NaN into some number."""
    return dtype.kind in "iu" and np.asarray(x).dtype.kind == "f" and bool(np.isnan(x).any())


def _filled(argument: Any, values: list[Any]) -> Any:
    if isinstance(argument, Reference):
        return values[argument.slot]
    if isinstance(argument, (list, tuple)):
        return type(argument)(_filled(part, values) for part in argument)
    return argument


def build(
    results: Sequence[Value],
    names: Callable[[Root], str],
    levels: Callable[[Node], NDArray[np.int64]] | None = None,
) -> HostProgram:
    """The host program that computes ``results`` from their roots.

    Args:
        names: the input name of each root.
        levels: all values of an integer root, for functions that can only be tabulated.

    Raises:
        CompilationError: a function can be neither traced nor tabulated, or mixes the samples of a batch.
    """
    check_samples_apart(results)
    traced = _traced(list(results), levels)
    order = ordered(traced, stop_at_nodes=True)
    starts: list[str] = []
    slots: dict[int, int] = {}
    for value in order:
        if not isinstance(value, Call):
            name = names(value)
            if name not in starts:
                starts.append(name)
            slots[id(value)] = starts.index(name)
    steps: list[HostStep] = []
    for value in order:
        if isinstance(value, Call):
            slots[id(value)] = len(starts) + len(steps)
            steps.append(
                HostStep(
                    _NAMES[value.function],
                    _referenced(value.arguments, slots),
                    {name: _referenced(a, slots) for name, a in value.keywords.items()},
                    value.layout,
                )
            )
    return HostProgram(tuple(starts), tuple(steps), tuple(slots[id(value)] for value in traced))


def _referenced(argument: Any, slots: Mapping[int, int]) -> Any:
    if isinstance(argument, (Node, HostInput, Call)):
        return Reference(slots[id(argument)])
    if isinstance(argument, (list, tuple)):
        return tuple(_referenced(part, slots) for part in argument)
    return argument


def _traced(
    results: list[Value], levels: Callable[[Node], NDArray[np.int64]] | None
) -> list[Value]:
    """``results`` in terms of functions of the vocabulary alone."""
    done: dict[int, Value] = {}
    opened: dict[tuple[int | str, ...], Any] = {}
    for value in ordered(results, stop_at_nodes=True):
        if not isinstance(value, Call):
            done[id(value)] = value
            continue
        arguments = tuple(_replaced(argument, done) for argument in value.arguments)
        keywords = {name: _replaced(a, done) for name, a in value.keywords.items()}
        if value.function in _NAMES and value.item is None and value.function is not np.matmul:
            done[id(value)] = _like(value, arguments, keywords)
            continue
        given = (*value.arguments, *(part for item in value.keywords.items() for part in item))
        key = (id(value.function), *(part if isinstance(part, str) else id(part) for part in given))
        if key not in opened:
            opened[key] = _opened(value, arguments, keywords)
        result = opened[key]
        if result is not None and value.item is not None:
            result = result[value.item]
        if isinstance(result, t.Tensor) and _agrees(value, result.value):
            done[id(value)] = result.value
        else:
            done[id(value)] = _table(value, levels)
    return [done[id(result)] for result in results]


def _like(value: Call, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> Call:
    return Call(
        value.function,
        arguments,
        keywords,
        value.shape,
        value.dtype,
        value.layout,
        origin=value.origin,
        samples=value.samples,
    )


def _replaced(argument: Any, done: Mapping[int, Value]) -> Any:
    if isinstance(argument, (Node, HostInput, Call)):
        return done[id(argument)]
    if isinstance(argument, (list, tuple)):
        return type(argument)(_replaced(part, done) for part in argument)
    return argument


def _opened(value: Call, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> Any:
    """The result of calling an opaque function on tensors, or None where it refuses them."""

    def wrapped(argument: Any) -> Any:
        if isinstance(argument, (HostInput, Call)):
            return t.Tensor(argument)
        if isinstance(argument, Node):
            # A float view: integer arithmetic would record nodes of the circuit.
            return t.call(convert, t.Tensor(argument), dtype=np.dtype(np.int64))
        if isinstance(argument, (list, tuple)):
            return type(argument)(wrapped(part) for part in argument)
        return argument

    try:
        with t.on_client():
            result = value.function(
                *(wrapped(a) for a in arguments), **{n: wrapped(a) for n, a in keywords.items()}
            )
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001  # arbitrary code of a pack; a table may still do
        return None
    parts = result if isinstance(result, tuple) else (result,)
    for part in parts:
        if not isinstance(part, t.Tensor) or any(
            isinstance(v, Call) and v.function not in _NAMES
            for v in ordered([part.value], stop_at_nodes=True)
        ):
            return None
    return result


def _agrees(value: Call, other: Value) -> bool:
    """Whether two descriptions of one function give the same on seeded values, but for the last digits: NumPy
    may have a shorter way for x ** 2 than the function of which it is a case."""
    rng = np.random.default_rng(7)
    # Of large tensors fewer samples say as much.
    largest = max((math.prod(root.shape) // BATCH for root in roots(value)), default=0)
    batch = 5 if largest < _LARGE else 2
    known: dict[int, Any] = {}
    for root in roots(value):
        shape = tuple(batch if n == BATCH else n for n in root.shape)
        if isinstance(root, Node):
            low, high = root.bounds
            known[id(root)] = rng.integers(low, high + 1, shape)
        else:
            known[id(root)] = (4 * rng.standard_normal(shape)).astype(root.dtype)
    expected = np.asarray(evaluate(value, dict(known), batch))
    got = np.asarray(evaluate(other, dict(known), batch))
    return got.shape == expected.shape and bool(same(got, expected).all())


def _table(value: Call, levels: Callable[[Node], NDArray[np.int64]] | None) -> Call:
    name = getattr(value.function, "__name__", str(value.function))
    starts = roots(value)
    root = starts[0]
    if levels is None or len(starts) != 1 or not isinstance(root, Node):
        raise CompilationError(
            f"{name} runs on the client, and cannot be expressed in plain NumPy steps there",
            where=value.origin.where if value.origin else None,
            fix="use client_side='minimal', which leaves it to the server; or write the implementation with "
            "NumPy functions of whole arrays (numpy.where, not boolean masks or out=)",
        )
    check_univariate(value, root)
    all_levels = levels(root)
    axis = root.shape.index(BATCH)
    shape = tuple(len(all_levels) if n == BATCH else n for n in root.shape)
    along = [1] * len(shape)
    along[axis] = len(all_levels)
    stacked = np.broadcast_to(all_levels.reshape(along), shape).copy()
    if value.shape != root.shape:
        raise CompilationError(
            f"{name} runs on the client, changes shapes, and cannot be traced",
            where=value.origin.where if value.origin else None,
            fix="write it with NumPy functions of whole arrays",
        )
    results = np.asarray(evaluate(value, {id(root): stacked}, len(all_levels)))
    results = np.moveaxis(results, axis, 0).reshape(len(all_levels), -1).T
    which = np.arange(len(results)).reshape(tuple(1 if n == BATCH else n for n in root.shape))
    return Call(
        _lookup,
        (root, np.ascontiguousarray(results), which, int(all_levels[0])),
        {},
        value.shape,
        value.dtype,
        samples=value.samples,
    )
