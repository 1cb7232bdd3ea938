"""What a ``q_impl`` returned, before anything is computed from it: an error here names the op that is wrong."""

from __future__ import annotations

from typing import Any

from fhe_core.errors import CompilationError
from fhe_core.program.batch import BATCH, spelled
from fhe_core.program.tensor import Tensor
from fhe_core.quantization.array import QuantizedArray
from fhe_core.quantization.placement import PlacedOp


def results_of(placed: PlacedOp, returned: Any) -> dict[str, QuantizedArray]:
    """The outputs of an op by name, each with the quantizer that the plan has for it.

    Raises:
        CompilationError: there are too few, one is no ``QuantizedArray``, of another shape than in the float
            model, or quantized with the quantizer of another output.
    """
    results = returned if isinstance(returned, tuple) else (returned,)
    names = placed.node.outputs
    kind = type(placed.op).__name__
    if len(results) < len([n for n in names if n]) and not isinstance(returned, list):
        raise CompilationError(
            f"{kind} returned {len(results)} result{'s' * (len(results) != 1)}",
            where=placed.op.where,
            expected=f"{len(names)} QuantizedArrays",
            fix="return a tuple with one for each output: self.quantized((first, second))",
        )
    out: dict[str, QuantizedArray] = {}
    for index, (name, array) in enumerate(zip(names, results, strict=False)):
        if not name:
            continue
        if not isinstance(array, QuantizedArray):
            raise CompilationError(
                f"{kind} returned a {type(array).__name__}",
                where=placed.op.where,
                expected="a QuantizedArray"
                if len(names) == 1
                else f"a tuple of {len(names)} QuantizedArrays",
                got=type(array).__name__,
                fix="wrap real values: return self.quantized(values), or self.quantized((first, second)) "
                "where there are several outputs",
            )
        _check_shape(placed, name, array)
        out[name] = placed.op.as_output(index, array)
    return out


def _check_shape(placed: PlacedOp, name: str, array: QuantizedArray) -> None:
    """Refuses another shape than the float function gave on calibration data."""
    if name not in placed.shapes or not isinstance(array.held, Tensor):
        return
    samples, shape = placed.shapes[name]
    if tuple(samples if n == BATCH else n for n in array.shape) != shape:
        batch = shape.index(samples) if samples in shape else None
        raise CompilationError(
            f"{type(placed.op).__name__}.q_impl returned {name!r} in another shape than the float function",
            where=placed.op.where,
            expected=spelled([BATCH if i == batch else n for i, n in enumerate(shape)]),
            got=spelled(array.shape),
            fix="make q_impl return what the NumPy implementation returns, in the same shape",
        )
