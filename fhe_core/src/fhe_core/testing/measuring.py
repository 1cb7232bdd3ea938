"""A quantized net beside the float op: errors, and what the plan explains of them (`testing.bounds`)."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.program.groups import keeping_identities
from fhe_core.quantization.plan import Plan
from fhe_core.quantization.quantizers import (
    QuantizationOptions,
    QuantizationParameters,
    UniformQuantizer,
)
from fhe_core.testing.bounds import FLOAT, Interval, result_intervals
from fhe_core.testing.checks import CheckSkipped
from fhe_core.testing.nets import Net

Array = NDArray[Any]
Results = tuple[Any, ...]


@dataclass(frozen=True)
class Measured:
    """One result of a net at one width, all values of all samples that are finite in float.

    Attributes:
        error: of the quantized result from the float one.
        inherited: what rounding the inputs and weights alone makes of it.
        allowed: the derived bound of ``error``.
        missed: how far the float result on the rounded inputs lies outside of what the op's own
            roundings explain; 0 where it is right.
        step: of the quantized result.
    """

    error: Array
    inherited: Array
    allowed: Array
    missed: Array
    step: float


def represented(values: Array, parameters: QuantizationParameters) -> Array:
    """The real numbers that the integers of ``values`` stand for; integers of the same type, if they are."""
    values = np.asarray(values)
    quantizer = UniformQuantizer(QuantizationOptions(8), params=parameters)
    # In the values' own precision, as the client does it: a tie falls to the same side.
    real: Array = quantizer.dequant(quantizer.quant(values))
    # Some ops, such as those on bits, know integers alone.
    whole = real.astype(values.dtype) if values.dtype.kind in "iu" else real
    return whole if np.array_equal(whole, real) else real


_measures: weakref.WeakKeyDictionary[Net, dict[int, list[Measured]]] = weakref.WeakKeyDictionary()


def measure(net: Net, bits: int) -> list[Measured]:
    """Each numeric result of a net, quantized with ``bits`` and compared with float.

    Raises:
        FheError: it cannot be quantized.
        CheckSkipped: no bound is derived for it, or its shape is wrong.
    """
    kept = _measures.setdefault(net, {})
    if bits not in kept:
        kept[bits] = list(_results(net, bits))
    return kept[bits]


def _results(net: Net, bits: int) -> Iterator[Measured]:
    # A look-up that rounding makes the identity has lost half a step too.
    with keeping_identities():
        module = net.quantized(bits)
    plan, recorded = module.plan, net.session.recorded
    assert recorded is not None  # noqa: S101  # `quantized` has just recorded it
    intervals = result_intervals(recorded, plan, module.encode(**net.data))
    exact = in_float(net, net.data, {})
    seen = [in_float(net, *inputs) for inputs in _rounded(net, plan)]
    results = _tuple(module.forward(**net.data))
    for number, (name, result) in enumerate(zip(module.output_names, results, strict=True)):
        if result.dtype.kind not in "fiub":
            continue
        tensors = (net.placed.node.outputs[number], name)
        ends = [_ends(plan.tensors[t].parameters) for t in tensors if t in plan.tensors]
        ways = [_clipped(_numbers(one[number]), ends) for one in seen]
        step = max((plan.tensors[t].scale for t in tensors if t in plan.tensors), default=0.0)
        yield _measured(result, _numbers(exact[number]), ways, intervals[name], step)


def _measured(
    result: Array, wanted: Array, ways: Sequence[Array], interval: Interval, step: float
) -> Measured:
    """A result beside the float one, and what float makes of the rounded inputs in the way that fits best."""
    low, high = interval
    shapes = {x.shape for x in (result, low, high, wanted, *ways)}
    if len(shapes) > 1:
        raise CheckSkipped("the result has another shape than in float: see the check `shapes`")
    finite = np.isfinite(wanted) & np.logical_and.reduce([np.isfinite(way) for way in ways])
    result, low, high, wanted, *ways = (x[finite] for x in (result, low, high, wanted, *ways))
    spare = FLOAT * np.abs(np.concatenate([wanted, *ways])).max(initial=0)
    beyond = [np.abs(way - np.clip(way, low, high)) for way in ways]
    rounded = ways[int(np.argmin([part.max(initial=0) for part in beyond]))]
    nearest = np.clip(rounded, low, high)
    outside = np.maximum(np.abs(rounded - nearest), np.maximum(low - result, result - high))
    inherited = np.abs(rounded - wanted)
    own = np.maximum(high - nearest, nearest - low) + spare
    return Measured(
        error=np.abs(result - wanted),
        inherited=inherited,
        allowed=inherited + own,
        missed=np.maximum(outside - spare, 0),
        step=step,
    )


def _rounded(net: Net, plan: Plan) -> Iterator[tuple[dict[str, Array], dict[str, Array]]]:
    """Inputs and constants (initializers, or attributes) as their integers stand for them, by name.

    Where tensors share a scale, constants may have been given it too: then in a second way.
    """
    data = {
        name: represented(x, plan.tensors[name].parameters) if name in plan.tensors else x
        for name, x in net.data.items()
    }
    constants: dict[str, Any] = {}
    for name, weight in plan.weights.items():
        source = name.rpartition("@")[0]
        constants[source] = represented(_constants(net)[source], weight.parameters)
    yield data, constants
    # What comes first may be a condition, which shares no scale.
    joined = plan.tensors.get(net.placed.variable[-1])
    if net.placed.op.shares_scale and not net.placed.fused and joined is not None:
        scale = joined.scale
        floats = {n: x for n, x in _constants(net).items() if np.asarray(x).dtype.kind == "f"}
        yield data, {n: np.rint(x / scale) * scale for n, x in floats.items()} | constants


def _constants(net: Net) -> dict[str, Any]:
    """What is constant at the op, by name: initializers and numeric attributes."""
    graph = net.session.graph
    named = {name: graph.constants.get(name) for name in net.placed.node.inputs}
    attributes = {name: np.asarray(value) for name, value in net.placed.node.attributes.items()}
    return {**attributes, **{name: value for name, value in named.items() if value is not None}}


def in_float(net: Net, data: Mapping[str, Array], constants: Mapping[str, Array]) -> Results:
    """The results of the float op in double precision, on other inputs and constants than its own."""
    step = next(step for step in net.session.net.steps if step.node.name == net.placed.node.name)
    values = {**net.session.graph.constants, **data, **constants}
    arguments = {
        name: _like(value, constants[name]) if name in constants else value
        for name, value in step.arguments.items()
    }
    inputs = [_double(values[name]) if name else None for name in step.node.inputs]
    with np.errstate(all="ignore"):
        return _tuple(step.impl(*inputs, **arguments))


def _double(array: Any) -> Any:
    return array.astype(np.float64) if array.dtype == np.float32 else array


def _like(attribute: Any, values: Array) -> Any:
    return values if isinstance(attribute, np.ndarray) else type(attribute)(values.tolist())


def _numbers(array: Any) -> Array:
    """As doubles; what is no number (a string) as NaN, which is not compared."""
    array = np.asarray(array)
    try:
        return array.astype(np.float64)  # also of the narrow types that NumPy itself does not know
    except (TypeError, ValueError):
        return np.full(array.shape, np.nan)


def _clipped(values: Array, ends: Iterable[tuple[Any, Any]]) -> Array:
    for low, high in ends:
        values = np.clip(values, low, high)
    return values


def _tuple(results: Any) -> tuple[Any, ...]:
    return results if isinstance(results, tuple) else (results,)


def _ends(parameters: QuantizationParameters) -> tuple[Any, Any]:
    low, high = (
        (np.asarray(end) - parameters.zero_point) * parameters.scale
        for end in (parameters.low, parameters.high)
    )
    return low, high
