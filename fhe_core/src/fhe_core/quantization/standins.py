"""Tensors that stand in for those of a real graph, so that an op can be tried before there is data."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.errors import FheError
from fhe_core.graph.simplify import frozen
from fhe_core.program.nodes import BATCH, HostInput, Node, Shape, roots
from fhe_core.program.tensor import Tensor
from fhe_core.quantization.array import QuantizedArray
from fhe_core.quantization.placement import PlacedOp, Placement
from fhe_core.quantization.plan import Plan, TensorPlan
from fhe_core.quantization.quantizers import QuantizationParameters

Array = NDArray[Any]

_BITS = 8
_LOW = -(2 ** (_BITS - 1))
#: Steps of real tensors: 8 bits reach from -8 to 8, where the usual functions are finite.
_REAL = TensorPlan(_BITS, 2.0**-4, 0, _LOW)
#: The ends of what these are.
REACH = _REAL.scale * _LOW, -_REAL.scale * _LOW
_WHOLE = TensorPlan(_BITS, 1.0, 0, _LOW)
#: The name of what the client has decrypted.
_DECRYPTED = "decrypted"


#: Arrays of more elements are not compared by content.
_COMPARED = 2**16


@dataclass(frozen=True)
class Seen:
    """What is known of a tensor.

    Attributes:
        plan: how it is quantized, for the time being.
        values: those that shapes alone decide.
        client: "before" encryption or "after" decryption the client computes it; "" on the server.
    """

    shape: Shape
    plan: TensorPlan
    values: Array | None = None
    client: str = ""

    @property
    def key(self) -> Hashable:
        """What tensors of which the same is known have in common."""
        values = None if self.values is None else _key(self.values)
        return self.shape, repr(self.plan), values, self.client


@dataclass(frozen=True)
class Inputs:
    """What is known of an op's inputs that are no constants.

    Attributes:
        seen: the inputs by name.
        behind: for each the one tensor that it is a function of, element by element, or itself.
        starts: those tensors by name.
    """

    seen: Mapping[str, Seen]
    behind: Mapping[str, str]
    starts: Mapping[str, Seen]

    @property
    def key(self) -> Mapping[str, Hashable]:
        """For each input what the inputs of like trials have in common."""
        numbers = {name: i for i, name in enumerate(dict.fromkeys(self.behind.values()))}
        return {
            name: (
                seen.key,
                numbers[root := self.behind[name]],
                root == name,
                self.starts[root].key,
            )
            for name, seen in self.seen.items()
        }


def model_inputs(placement: Placement) -> dict[str, Seen]:
    """The inputs of the model, those of fixed shapes."""
    seen = {}
    for info in placement.graph.inputs:
        fixed = info.shape and all(isinstance(size, int) for size in info.shape[1:])
        if info.dtype is None or not info.shape or not fixed:
            continue
        plan = _WHOLE if info.dtype.kind in "iub" else _REAL
        shape = (BATCH, *(size for size in info.shape[1:] if isinstance(size, int)))
        client = "" if info.name in placement.direct_inputs else "before"
        seen[info.name] = Seen(shape, plan, client=client)
    return seen


def trial_plan(placed: PlacedOp, inputs: Inputs) -> Plan:
    """A plan for one op, its outputs included."""
    tensors = {name: seen.plan for name, seen in inputs.seen.items()}
    first = tensors[placed.variable[0]] if placed.variable else _REAL
    for index, name in enumerate(placed.node.outputs):
        fixed = placed.op.output_quantization(index)
        kept = first if placed.op.keeps_scale else _REAL
        tensors[name] = _fixed(fixed) if fixed else kept
    return Plan(tensors=tensors, settings={"op_weights": _BITS, "rounding": _BITS})


def _fixed(parameters: QuantizationParameters) -> TensorPlan:
    bits = max(2, (int(parameters.high) - int(parameters.low)).bit_length())
    return TensorPlan(
        bits, float(parameters.scale), int(parameters.zero_point), int(parameters.low)
    )


class StandIn(QuantizedArray):
    """A real input that knows whether anything asked for its integers, which are new ones then.

    That they follow from the real values is for the op before it to see to.
    """

    def __init__(self, name: str, value: Any, seen: Seen) -> None:
        super().__init__(seen.plan.bits, value, params=seen.plan.parameters)
        self._name, self._seen = name, seen

    def quant(self) -> Any:
        return super().quant() if self._seen.client else _integers(self._name, self._seen)


def stand_ins(placed: PlacedOp, inputs: Inputs) -> dict[str, QuantizedArray]:
    """An op's inputs by name: float functions of the integer tensors behind them.

    In messages they have the names of the op's parameters.
    """
    parameters = {name: placed.op.input_name(i) for i, name in enumerate(placed.node.inputs)}
    real: dict[str, Any] = {}
    arrays: dict[str, QuantizedArray] = {}
    for name, seen in inputs.seen.items():
        if seen.values is not None:
            arrays[name] = QuantizedArray(_BITS, seen.values)
            continue
        root = inputs.behind[name]
        if root not in real:
            real[root] = _real(parameters[name], inputs.starts[root])
        value = real[root] if root == name else -real[root]  # some function of it
        if value.shape != seen.shape:
            value = _broadcast(value, parameters[name], seen)
        arrays[name] = StandIn(parameters[name], value, seen)
    return arrays


def _real(name: str, seen: Seen) -> Any:
    """The real values of an integer tensor, or of one that the client has."""
    if seen.client:
        known = _DECRYPTED if seen.client == "after" else name
        return Tensor(HostInput(known, seen.shape, np.dtype(np.float32)))
    integers = _integers(name, seen)
    return (integers.astype(np.float64) - seen.plan.zero_point) * seen.plan.scale


def _integers(name: str, seen: Seen) -> Tensor:
    low, high = (np.asarray(end) for end in (seen.plan.low, seen.plan.parameters.high))
    return Tensor(Node("input", (), seen.shape, low, high, name=name))


def _broadcast(value: Any, name: str, seen: Seen) -> Any:
    try:
        return np.broadcast_to(value, seen.shape)
    except (FheError, ValueError):
        return _real(name, seen)


def described(placed: PlacedOp, name: str, array: QuantizedArray | None, plan: Plan) -> Seen | None:
    """What is known of an output of an op that was tried; None where there is none."""
    if not name or array is None:
        return None
    if not isinstance(array.values, Tensor):
        values = np.asarray(array.values)
        return Seen(values.shape, plan.tensors[name], values)
    client = ""
    starts = roots(array.values.value)
    if placed.late or placed.float_only or any(_is_decrypted(root) for root in starts):
        client = "after"
    elif all(isinstance(root, HostInput) for root in starts):
        client = "before"
    return Seen(array.shape, plan.tensors[name], client=client)


def _is_decrypted(root: Node | HostInput) -> bool:
    return isinstance(root, HostInput) and root.name == _DECRYPTED


def _key(values: Any) -> Any:
    """What equal values have in common. Large ones, as long as a batch, are like none but themselves."""
    array = np.asarray(values)
    return frozen(array) if array.size <= _COMPARED else (array.dtype, array.shape, id(values))
