"""How far a quantized model may be from the float one: derived, for each value, from its plan.

The derivation. Let f be the float op, x its inputs, and x', W' what the integers of the inputs and of the
weights stand for: scale * (integer - zero point), from the plan alone. The op computes on these integers.
Linear algebra on integers is exact. So all that stands between its result q and f(x', W') are the look-ups:
each is a real function g of one integer, rounded to an integer, T = g + d with |d| <= 1/2. Hence

    |q(x) - f(x)|  <=  |f(x', W') - f(x)|  +  R

The first term is computed. For R, every tensor of the recorded program gets an interval that holds its
integers as they are, and as they would be without rounding (interval arithmetic: Moore, Interval Analysis,
1966). A right op has f(x', W') in the interval of its result, and q is there by construction; R is what the
interval leaves between the two. Steps that follow each other add up, amplified by what lies between them, and
nothing needs to be known of the op:

- an input is exact: x' is what it stands for;
- linear operations: the rules that the program's own bounds follow;
- a look-up: the least and the greatest entry over the integers of its argument's interval (rounded outwards,
  and by less than 2^l more where l bits of an accumulator are dropped), with half a step on either side.
  No step is lost by an integer function of exact integers (a maximum, a product); one that rounds in a way
  that cannot be seen may lose a whole one.

Saturation: a result that the plan clips to a range is compared with f(x', W') clipped to that range. A look-up
in between that clips what f does not clip is the op's fault, and shows as such.

Assumed: between neighbouring integers g stays between, or within a step of, its values there; a look-up's
argument lies inside its planned range, as it does on calibration data; f has no larger error of its own than
``FLOAT`` of its largest result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.errors import CompilationError
from fhe_core.program import primitives
from fhe_core.program.interpreter import group_values
from fhe_core.program.nodes import Call, Node, Value, convert, evaluate, operands, roots, with_batch
from fhe_core.program.program import Program
from fhe_core.program.rules import RULES
from fhe_core.program.univariate import source_index
from fhe_core.quantization.plan import Plan
from fhe_core.quantization.recording import Recorded
from fhe_core.testing.checks import CheckSkipped

Array = NDArray[Any]
Interval = tuple[Array, Array]

#: Of float32's 24 bits, four are left to sums of many terms.
FLOAT = 2.0**-20

#: A table is looked at in at most as many places, evenly spread between the ends of an interval.
_PLACES = 513

_ROUND_TO_NEAREST = (np.rint, np.round, np.around)
_ROUND_ONE_WAY = (np.floor, np.ceil, np.trunc)
_KEEP_STEPS = (np.clip, np.add, np.subtract, np.negative)


def result_intervals(
    recorded: Recorded, plan: Plan, integers: Mapping[str, Array]
) -> dict[str, Interval]:
    """The interval of each output of a model, for each value of a batch.

    Args:
        integers: what is encrypted, by the name of the program's input.

    Raises:
        CheckSkipped: what the client computes after decryption mixes values that are not exact.
    """
    batch = len(next(iter(integers.values())))
    known: dict[int, Interval] = {}
    for node in Program.of(recorded.integers).nodes:
        known[id(node)] = _interval(node, known, plan, integers, batch)
    return {
        name: _after_decryption(value, known, batch) for name, value in recorded.outputs.items()
    }


def _interval(
    node: Node,
    known: Mapping[int, Interval],
    plan: Plan,
    integers: Mapping[str, Array],
    batch: int,
) -> Interval:
    if node.op == "input":
        exact = integers[node.name].astype(np.float64)
        # Quantized as they are: exact. What the client computes first is rounded, to the nearest.
        direct = all(root.name in plan.tensors for root in roots(node.attributes["source"]))
        return (exact, exact) if direct else (exact - 0.5, exact + 0.5)
    if node.op == "lookup":
        (source,) = node.inputs
        accumulator = plan.accumulators[source.name]
        dropped = max(0, accumulator.bits - (accumulator.rounding or accumulator.bits))
        return _looked_up(node, known[id(node.attributes["root"])], dropped, batch)
    attributes = {name: with_batch(value, batch) for name, value in node.attributes.items()}
    return RULES[node.op].interval([known[id(source)] for source in node.inputs], attributes)


def _looked_up(node: Node, argument: Interval, dropped: int, batch: int) -> Interval:
    low, high = argument
    exact = not dropped and np.array_equal(low, high)
    cell = (1 << dropped) - 1
    first, last = np.floor(low) - cell, np.ceil(high) + cell
    least, most = _over(
        lambda share: group_values(node, first + np.rint((last - first) * share), batch),
        places=int((last - first).max(initial=0)) + 1,
    )
    lost = _lost(node.attributes["call"], exact)
    return least - lost, most + lost


def _over(results: Callable[[float], Array], places: int) -> Interval:
    """The least and the greatest of what a function of 0 to 1, from end to end of an interval, gives."""
    least = most = results(0.0)
    for share in np.linspace(0.0, 1.0, min(places, _PLACES))[1:]:
        result = results(share)
        least, most = np.minimum(least, result), np.maximum(most, result)
    return least, most


def _lost(call: Call, exact: bool) -> float:
    """By how many steps an entry may differ from the real function that it stands for."""
    value: Any = call
    while isinstance(value, Call):
        if value.function in _ROUND_TO_NEAREST:
            return 0.5
        converts = value.function is convert
        inner = operands(value)
        if len(inner) != 1 or not (converts or value.layout or value.function in _KEEP_STEPS):
            break
        value = inner[0]
    if not isinstance(value, Call):
        return 0.0
    whole = value.dtype.kind in "iub" and value.function not in _ROUND_ONE_WAY
    ours = getattr(value.function, "__module__", None) == primitives.__name__
    return 0.0 if exact and whole and (ours or isinstance(value.function, np.ufunc)) else 1.0


def _after_decryption(value: Value, known: Mapping[int, Interval], batch: int) -> Interval:
    starts = roots(value)
    ends = [known[id(root)] for root in starts]
    if all(np.array_equal(low, high) for low, high in ends):
        exact = {id(root): low for root, (low, _) in zip(starts, ends, strict=True)}
        result = np.asarray(evaluate(value, exact, batch))
        return result, result
    if len(starts) > 1 or not _is_elementwise(value):
        raise CheckSkipped(
            "the client mixes values that are not exact, for which no bound is derived"
        )
    ((low, high),) = ends
    return _over(
        lambda share: np.asarray(
            evaluate(value, {id(starts[0]): low + (high - low) * share}, batch)
        ),
        places=int((high - low).max(initial=0)) + 2,
    )


def _is_elementwise(value: Value) -> bool:
    try:
        source_index(value)
    except CompilationError:
        return False
    return True
