"""Each op of a placed graph tried by itself, without data: what would quantization say of it?

Its inputs are tensors of the shapes that the ops before it gave, on any scale. Ops of one kind on inputs of
one shape are tried once, so that thousands of nodes cost as much as the few that differ. What depends on
scales and widths, and on nothing else, is not found here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.errors import CompilationError, FheError, PlanError, ResourceError, Where
from fhe_core.graph.ir import Graph
from fhe_core.graph.simplify import frozen
from fhe_core.graph.steps import at_node
from fhe_core.program import host
from fhe_core.program.batch import without_number
from fhe_core.program.groups import keeping_identities
from fhe_core.program.nodes import (
    BATCH,
    Node,
    Shape,
    exported_for,
    is_batch,
    recording,
    without_bounds,
)
from fhe_core.program.tensor import Tensor
from fhe_core.quantization.array import QuantizedArray
from fhe_core.quantization.calibration import static_batch
from fhe_core.quantization.op import QuantizedOp
from fhe_core.quantization.placement import PlacedOp, Placement
from fhe_core.quantization.plan import Plan
from fhe_core.quantization.recording import run_op
from fhe_core.quantization.standins import (
    REACH,
    Inputs,
    Seen,
    described,
    model_inputs,
    stand_ins,
    trial_plan,
)

#: Float constants up to this many elements are told apart by content. Of weights the shape says enough.
_TOLD_APART = 64
#: Elements up to which a float function is run for the shapes of its results.
_FEW = 2**14


@dataclass(frozen=True)
class Tried:
    """What became of a placed graph.

    Attributes:
        errors: what keeps ops and outputs from being encrypted, in graph order.
        public: tensors that shapes alone decide: they are no secret, and are computed once.
        before: tensors that the client computes before it encrypts.
        shapes: of all tensors, as far as they are known.
    """

    errors: tuple[FheError, ...]
    public: frozenset[str]
    before: frozenset[str]
    shapes: Mapping[str, Shape]


def try_ops(placement: Placement) -> Tried:
    """Try every op of a graph whose inputs have fixed shapes."""
    with exported_for(static_batch(placement.graph)), keeping_identities(), without_bounds():
        return _Trials(placement).tried()


@dataclass(frozen=True, eq=False)
class _Outcome:
    """What one op did.

    Attributes:
        outputs: by position; None where even the shape is not known.
        read: positions of the inputs, of those that are not constant, whose integers it asked for.
        results: encrypted ones by position, yet to become integers or what the client is sent.
        error: why it cannot be computed.
    """

    outputs: tuple[Seen | None, ...]
    read: frozenset[int] = frozenset()
    results: Mapping[int, QuantizedArray] = field(default_factory=dict)
    error: FheError | None = None


class _Trials:
    def __init__(self, placement: Placement) -> None:
        self._placement = placement
        self._seen = model_inputs(placement)
        self._known: dict[Hashable, _Outcome] = {}
        self._judged: dict[Hashable, FheError | None] = {}

    def tried(self) -> Tried:
        outcomes = {}
        for placed in self._placement.ops:
            outcome = outcomes[placed.node.name] = self._outcome(placed)
            for name, seen in zip(placed.node.outputs, outcome.outputs, strict=False):
                if name and seen is not None:
                    self._seen[name] = seen
        uses = self._uses(outcomes)
        errors = []
        for placed in self._placement.ops:
            outcome = outcomes[placed.node.name]
            error = outcome.error or self._judge(placed, outcome, uses)
            if error is not None:
                errors.append(at_node(error, placed.node, placed.pack))
        public = frozenset(name for name, seen in self._seen.items() if seen.values is not None)
        before = frozenset(name for name, seen in self._seen.items() if seen.client == "before")
        errors += _public_outputs(self._placement.graph, public)
        shapes = {name: seen.shape for name, seen in self._seen.items()}
        return Tried(tuple(errors), public, before, shapes)

    def _outcome(self, placed: PlacedOp) -> _Outcome:
        if any(name not in self._seen for name in placed.variable):
            return _Outcome((), error=self._encrypted_constants(placed))
        behind = {name: self._root(name) for name in placed.variable}
        inputs = Inputs(
            {name: self._seen[name] for name in placed.variable},
            behind,
            {name: self._seen[name] for name in behind.values()},
        )
        key = _key(placed, inputs)
        if key not in self._known:
            self._known[key] = _attempt(placed, inputs)
        return self._known[key]

    def _encrypted_constants(self, placed: PlacedOp) -> FheError | None:
        """What can be said where the shapes of the inputs are not known."""
        seen = [self._seen.get(name) for name in placed.variable]
        try:
            if not (placed.late or placed.early or placed.float_only):
                placed.op.require_constants(x is None or x.values is None for x in seen)
        except FheError as error:
            return error
        return None

    def _root(self, name: str) -> str:
        """The one integer tensor that a tensor is a function of, or itself."""
        behind = self._placement.sources.get(name, frozenset())
        if len(behind) == 1 and self._seen[name].values is None:
            (root,) = behind
            return root if root in self._seen else name
        return name

    def _uses(self, outcomes: Mapping[str, _Outcome]) -> Mapping[str, set[str]]:
        """Which tensors become integers again, or are on the way there; and which are decrypted, likewise."""
        outputs, clear = set(self._placement.graph.output_names), self._placement.clear()
        integers, decrypted = outputs & clear, outputs - clear
        for placed in reversed(self._placement.ops):
            integers.update(placed.variable[i] for i in outcomes[placed.node.name].read)
            for uses in (integers, decrypted):
                if placed.is_float and uses & set(placed.node.writes):
                    uses.update(placed.variable)
        return {"integers": integers, "decrypted": decrypted}

    def _judge(
        self, placed: PlacedOp, outcome: _Outcome, uses: Mapping[str, set[str]]
    ) -> FheError | None:
        """Why the results that something uses cannot be used as they are, if they cannot."""
        before = any(seen is not None and seen.client == "before" for seen in outcome.outputs)
        for way, names in ((_as_integers, uses["integers"]), (_on_client, uses["decrypted"])):
            for index, array in outcome.results.items():
                if placed.node.outputs[index] not in names and not (before and way is _on_client):
                    continue
                key = id(outcome), index, way
                if key not in self._judged:
                    with _at(placed):
                        self._judged[key] = _said(way, [array], placed.fix)
                if self._judged[key] is not None:
                    return self._judged[key]
        return None


def _public_outputs(graph: Graph, public: Iterable[str]) -> list[FheError]:
    return [
        CompilationError(
            "an output does not depend on encrypted data",
            where=Where(node=name),
            fix="remove that output from the model",
        )
        for name in graph.output_names
        if name in public
    ]


def _key(placed: PlacedOp, inputs: Inputs) -> Hashable:
    """What trials with one outcome have in common."""
    op, node = placed.op, placed.node
    variable = inputs.key
    return (
        type(op),
        placed.spec.impl,
        frozenset((name, frozen(value)) for name, value in op.attrs.items()),
        node.opset,
        tuple(map(bool, node.outputs)),
        (placed.fused, placed.late, placed.early, placed.float_only, len(placed.sources)),
        tuple(
            variable.get(name) or _constant_key(op.constant_inputs.get(index))
            for index, name in enumerate(node.inputs)
        ),
    )


def _constant_key(constant: Any) -> Hashable:
    if constant is None:
        return None
    array = np.asarray(constant)
    told_apart = array.dtype.kind != "f" or array.size <= _TOLD_APART
    return frozen(array) if told_apart else (array.dtype, array.shape)


def _attempt(placed: PlacedOp, inputs: Inputs) -> _Outcome:
    plan = placed.op.plan = trial_plan(placed, inputs)
    # Whether a mask is one is for the data to tell.
    placed.op.result_ends = REACH
    with _at(placed):
        arrays = stand_ins(placed, inputs)
        placed.shapes = _shapes_in_float(placed, arrays)
        try:
            results = run_op(placed, arrays)
        except PlanError:
            return _Outcome(_in_float(placed, arrays, plan))
        except ResourceError:
            raise
        except FheError as error:
            return _Outcome(_in_float(placed, arrays, plan), error=error)
        read = frozenset(i for i, name in enumerate(placed.variable) if arrays[name].is_quantized)
        outputs = [described(placed, name, results.get(name), plan) for name in placed.node.outputs]
        encrypted = {
            index: results[name]
            for index, name in enumerate(placed.node.outputs)
            if name in results and isinstance(results[name].values, Tensor)
        }
        return _Outcome(tuple(outputs), read, encrypted)


def _at(placed: PlacedOp) -> AbstractContextManager[None]:
    return recording(placed.origin)


def _in_float(
    placed: PlacedOp, arrays: Mapping[str, QuantizedArray], plan: Plan
) -> tuple[Seen | None, ...]:
    """The outputs of an op that was refused, as the float model has them: others come after it."""
    results = _float_results(placed, arrays)
    named = zip(placed.node.outputs, results, strict=False)
    return tuple(described(placed, name, array, plan) for name, array in named)


def _float_results(
    placed: PlacedOp, arrays: Mapping[str, QuantizedArray]
) -> tuple[QuantizedArray, ...]:
    try:
        given = [arrays[name] for name in placed.variable]
        result = QuantizedOp.q_impl(placed.op, *given, **placed.op.attrs)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001  # of any pack; then nothing is known
        return ()
    return result if isinstance(result, tuple) else (result,)


def _shapes_in_float(
    placed: PlacedOp, arrays: Mapping[str, QuantizedArray]
) -> dict[str, tuple[int, Shape]]:
    """The shapes of an op's outputs as its float function has them, if that costs little to find."""
    sizes = [math.prod(n for n in a.shape if n != BATCH) for a in arrays.values()]
    sizes += [np.size(constant) for constant in placed.op.constant_inputs.values()]
    if not placed.origin.computes or placed.late or placed.early or sum(sizes) > _FEW:
        return {}
    named = zip(placed.node.outputs, _float_results(placed, arrays), strict=False)
    return {
        name: (BATCH, array.shape)
        for name, array in named
        # Not where constants spell the size of another batch: it may be what a -1 makes up for.
        if isinstance(array.held, Tensor)
        and BATCH in array.shape
        and sum(map(is_batch, array.shape)) == 1
    }


def _as_integers(results: Sequence[QuantizedArray]) -> None:
    """Makes results integers, as the next op may want them."""
    for array in results:
        _ = copy(array).qvalues  # which goes again: each holds some arrays of its size


def _on_client(results: Sequence[QuantizedArray]) -> None:
    """Finds what the client is to compute."""
    host.build([array.values.value for array in results], lambda root: root.name, _levels)


def _levels(node: Node) -> NDArray[np.int64]:
    low, high = node.bounds
    return np.arange(low, high + 1)


def _said(
    way: Callable[[Any], None], results: Sequence[QuantizedArray], fix: str
) -> FheError | None:
    """The error of a way to use results, if it has one that does not come from their scales."""
    try:
        way(results)
    except PlanError:
        return None
    except MemoryError:  # which says nothing of the model
        raise
    except FheError as error:
        return error
    except Exception as error:  # noqa: BLE001  # of any pack
        return CompilationError(
            f"its function failed: {type(error).__name__}: {without_number(str(error))}",
            fix=fix,
        )
    return None
