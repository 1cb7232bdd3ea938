"""Steps laid out for running: values in numbered slots, freed after their last use.

One rule keeps the caller's data safe: whatever an implementation is handed is read-only. Inputs
and constants are read-only views, results are locked as they come. So an implementation that writes
into its input fails, with its node named, instead of corrupting whoever reads the tensor next. And
a result that does not own its memory may be part of an input or constant: it is copied before it
leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fhe_core.errors import FheError, InputError, PackError, UnsupportedOpError
from fhe_core.graph.budgets import MAX_ITERATIONS, check_bytes, count_iteration, iterations
from fhe_core.graph.steps import Body, Step, at_node
from fhe_core.memory import out_of_memory

_MISSING = 0  # the slot that holds None: optional inputs left out


class _Call(NamedTuple):
    """A step with names replaced by slots; ``out`` is -1 where there are several outputs."""

    impl: Callable[..., Any]
    arguments: tuple[int, ...]
    attributes: Mapping[str, Any]
    out: int
    outs: tuple[int, ...]
    frees: tuple[int, ...]
    step: Step


class Schedule:
    """The steps that ``fetch`` needs, ready to run.

    Args:
        steps: in an order in which they can run.
        inputs: names of the arrays that ``run`` is given, in order.
        constants: read-only arrays by name; a step whose outputs are all among them does not run.
        fetch: names of the values to return, in order.
    """

    def __init__(
        self,
        steps: Iterable[Step],
        inputs: Sequence[str],
        constants: Mapping[str, Any],
        fetch: Sequence[str],
    ) -> None:
        needed = _needed(steps, constants, fetch)
        slots = {"": _MISSING}
        for name in inputs:
            slots[name] = len(slots)
        for step in needed:
            for name in (*step.node.reads, *step.node.writes):
                slots.setdefault(name, len(slots))
        for name in fetch:
            slots.setdefault(name, len(slots))
        self._fed = slice(1, 1 + len(inputs))
        self._template: list[Any] = [None] * len(slots)
        for name, slot in slots.items():
            if name in constants:
                self._template[slot] = constants[name]
        self._fetched = [slots[name] for name in fetch]
        kept = {_MISSING, *self._fetched, *(slots[name] for name in constants if name in slots)}
        self._calls: list[_Call] = []
        for step in reversed(needed):
            call = _call(step, slots, kept)
            kept.update(call.frees)
            self._calls.append(call)
        self._calls.reverse()

    def run(self, arrays: Sequence[Any]) -> list[Any]:
        """The fetched values, still locked and perhaps sharing memory: see ``release``.

        Args:
            arrays: read-only, one for each input.

        Raises:
            InputError: an implementation failed on these values.
            PackError: an implementation returned what is no result.
            UnsupportedOpError: an implementation says that it does not support this.
        """
        values = self._template.copy()
        values[self._fed] = arrays
        call: _Call | None = None
        try:
            # As in ONNX, 1/0 is infinite and says nothing.
            with np.errstate(all="ignore"):
                for call in self._calls:
                    impl, arguments, attributes, out, outs, frees, _ = call
                    result = impl(*[values[i] for i in arguments], **attributes)
                    if out >= 0:
                        if isinstance(result, tuple):
                            result = result[0] if result else None
                        if type(result) is np.ndarray:
                            result.setflags(write=False)
                        else:
                            result = _value(result)
                        values[out] = result
                    else:
                        _spread(result, outs, values)
                    for i in frees:
                        values[i] = None
        except Exception as error:
            if call is None:
                raise
            raise _failure(call, values, error) from error
        return [values[i] for i in self._fetched]


def release(values: Iterable[Any]) -> list[Any]:
    """The values as the caller's own: writable, sharing memory with nothing."""
    owned: set[int] = set()

    def own(value: Any) -> Any:
        if isinstance(value, list):
            return [own(item) for item in value]
        if not isinstance(value, np.ndarray):
            return value
        if value.base is not None or id(value) in owned:
            return value.copy()
        owned.add(id(value))
        value.setflags(write=True)
        return value

    return [own(value) for value in values]


def _needed(
    steps: Iterable[Step], constants: Mapping[str, Any], fetch: Sequence[str]
) -> list[Step]:
    wanted = {name for name in fetch if name not in constants}
    needed = []
    for step in reversed(list(steps)):
        if not wanted.isdisjoint(step.node.writes):
            needed.append(step)
            wanted.update(name for name in step.node.reads if name not in constants)
    needed.reverse()
    return needed


def _call(step: Step, slots: Mapping[str, int], kept: set[int]) -> _Call:
    """The step's call; ``kept`` are the slots that later steps or the caller still need."""
    node = step.node
    impl: Callable[..., Any] = step.bound
    names = node.inputs
    attributes: Mapping[str, Any] = {}
    if step.bodies:
        # They come with the values that they capture, which each run has its own of.
        impl, names, attributes = _with_bodies(step), (*names, *node.captures), step.arguments
    arguments = tuple(slots[name] for name in names)
    outs = tuple(slots[name] for name in node.outputs)
    used = dict.fromkeys((*arguments, *outs))
    return _Call(
        impl,
        arguments,
        attributes,
        outs[0] if len(outs) == 1 and outs[0] != _MISSING else -1,
        outs,
        tuple(slot for slot in used if slot not in kept),
        step,
    )


def _with_bodies(step: Step) -> Callable[..., Any]:
    """The step's implementation, taking the captured values after the inputs."""
    impl, width, captures = step.impl, len(step.node.inputs), step.node.captures
    single = {
        name: _LaidOutBody(body, captures)
        for name, body in step.bodies.items()
        if isinstance(body, Body)
    }
    several = {
        name: [_LaidOutBody(body, captures) for body in bodies]
        for name, bodies in step.bodies.items()
        if not isinstance(bodies, Body)
    }

    def call(*arguments: Any, **attributes: Any) -> Any:
        captured = arguments[width:]
        for name, body in single.items():
            attributes[name] = Subgraph(body, captured)
        for name, bodies in several.items():
            attributes[name] = tuple(Subgraph(body, captured) for body in bodies)
        with iterations(MAX_ITERATIONS):
            return impl(*arguments[:width], **attributes)

    return call


class _LaidOutBody:
    """A subgraph as a function of the captured values, then its own inputs."""

    def __init__(self, body: Body, captures: Sequence[str]) -> None:
        graph = body.graph
        own = graph.input_names
        # What this body defines itself hides a tensor of that name that another body captures.
        hidden = {*own, *graph.constants, *(name for node in graph.nodes for name in node.writes)}
        outer = [f"\0{name}" if name in hidden else name for name in captures]
        self.inputs, self.outputs = graph.inputs, graph.outputs
        self._schedule = Schedule(body.steps, (*own, *outer), graph.constants, graph.output_names)

    def run(self, captured: Sequence[Any], *arrays: Any) -> tuple[Any, ...]:
        if len(arrays) != len(self.inputs):
            raise TypeError(
                f"the subgraph takes {len(self.inputs)} inputs and was given {len(arrays)}"
            )
        return tuple(self._schedule.run((*map(_value, arrays), *captured)))


class Subgraph:
    """A subgraph as an implementation receives it: arrays in, a tuple of arrays out.

    Attributes:
        inputs: the declared name, type and shape of each input, as far as the model says.
        outputs: those of each output.
    """

    __slots__ = ("_body", "_captured", "inputs", "outputs")

    def __init__(self, body: _LaidOutBody, captured: Sequence[Any]) -> None:
        self._body, self._captured = body, captured
        self.inputs, self.outputs = body.inputs, body.outputs

    def __call__(self, *arrays: Any) -> tuple[Any, ...]:
        count_iteration()
        results = self._body.run(self._captured, *arrays)
        # What a loop hands on may double each time.
        check_bytes(
            sum(getattr(x, "nbytes", 0) for x in results), "what its subgraph returns takes"
        )
        return results


class _Returned(Exception):
    """An implementation returned what is no result; the arguments are what came, and what to return."""


def _value(result: Any) -> Any:
    """A result as a tensor, locked; a sequence (list) or map (dict) of tensors stays as it is."""
    if isinstance(result, list | dict):
        if isinstance(result, list) and not all(map(_is_item, result)):
            raise _Returned(f"a list of {type(result[0]).__name__}", "an array")
        return result
    if result is None or isinstance(result, np.ma.MaskedArray):
        raise _Returned("nothing" if result is None else "a masked array", "an array")
    array = np.asarray(result)
    if array.dtype.kind in "US":
        array = array.astype(object)
    elif array.dtype.kind == "O" and not isinstance(result, np.ndarray):
        raise _Returned(f"a {type(result).__name__}", "an array")
    array.setflags(write=False)
    return array


def _is_item(item: Any) -> bool:
    """Whether something can be an item of a sequence: a tensor, or a map or sequence of such."""
    return isinstance(item, np.ndarray | np.generic | dict) or (
        isinstance(item, list) and all(map(_is_item, item))
    )


def _spread(result: Any, outs: tuple[int, ...], values: list[Any]) -> None:
    results = result if isinstance(result, tuple) else (result,)
    if len(results) < len(outs) and any(outs[len(results) :]):
        came = f"{len(results)} outputs where the node has {len(outs)}"
        came = "a list" if isinstance(result, list) else came
        raise _Returned(came, "a tuple with an array for each output")
    for slot, item in zip(outs, results, strict=False):
        if slot != _MISSING:
            values[slot] = _value(item)


def _failure(call: _Call, values: list[Any], error: Exception) -> FheError:
    node, pack = call.step.node, call.step.spec.impl_pack
    if isinstance(error, FheError):
        # Raised on purpose, or inside a subgraph: only the place may be missing.
        return error if error.where.node else at_node(error, node, pack)
    if isinstance(error, _Returned):
        came, wanted = error.args
        return PackError(
            f"the implementation returned {came}",
            where=node.where(pack),
            expected=wanted,
            fix=f"return {wanted} from it; if the op is not yours, tell the authors of pack {pack!r}",
        )
    given = ", ".join(_described(values[i]) for i in call.arguments[: len(node.inputs)])
    if isinstance(error, MemoryError):
        return out_of_memory(error, node.where(pack), given)
    text = " ".join(str(error).split())
    if isinstance(error, NotImplementedError):
        return UnsupportedOpError(
            text or "the implementation does not support this",
            where=node.where(pack),
            got=given or None,
            fix=_FIX_IMPL.format(pack),
        )
    read_only = isinstance(error, ValueError) and "read-only" in text
    return InputError(
        f"the implementation failed with {type(error).__name__}: {text}",
        where=node.where(pack),
        got=f"the inputs {given}" if given else None,
        fix="change the implementation: it must not write into its inputs"
        if read_only
        else "check the shapes and values that the model was given",
    )


_FIX_IMPL = "install a pack that supports it (this one is {0!r}), or change the model"


def _described(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype.name}[{', '.join(map(str, value.shape))}]"
    return "nothing" if value is None else type(value).__name__
