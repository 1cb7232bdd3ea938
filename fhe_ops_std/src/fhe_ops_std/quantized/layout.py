"""Layout: elements move and do not change, so the NumPy implementation runs on tensors as it is.

Nothing is quantized here. On integers the move is free; between an accumulator and its look-up it is
replayed on whichever side has fewer elements.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from fhe_core import CompilationError, QuantizedArray, QuantizedOp, Tensor, primitives
from fhe_ops_std.quantized.arithmetic import Ends, at_scale, constant_levels, joint_scale


class Moving(QuantizedOp):
    """The result consists of elements of encrypted inputs: what does not matter there, does not here."""

    def gives_whole_numbers(self, whole: Sequence[bool]) -> bool:
        places = self.encryptable
        return all(each for i, each in enumerate(whole) if places is None or i in places)

    def input_ends(self, index: int, result: Ends, ranges: Sequence[Ends]) -> Ends:
        places = self.encryptable
        return result if places is None or index in places else (-np.inf, np.inf)


class LayoutOp(Moving):
    """Moves elements. The result keeps the scale of the input."""

    encryptable: ClassVar[tuple[int, ...]] = (0,)
    keeps_scale: ClassVar[bool] = True

    def can_fuse(self) -> bool:
        return False

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        inputs = self._prepare_inputs_with_constants(
            *q_inputs, calibrate=False, quantize_actual_values=False
        )
        return self.quantized(self._function(*inputs, **self.with_outputs_wanted(attrs)))


class QuantizedShape(QuantizedOp):
    """The shape, which is no secret. The batch stays symbolic."""

    _impl_for_op_named = "Shape"
    reads_shapes: ClassVar[bool] = True

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        (x,) = q_inputs
        shape = np.asarray(x.shape, dtype=np.int64)[attrs.get("start", 0) : attrs.get("end")]
        return QuantizedArray(self.n_bits, shape)

    def can_fuse(self) -> bool:
        return False


class QuantizedSize(QuantizedOp):
    """The number of elements, which is no secret."""

    _impl_for_op_named = "Size"
    reads_shapes: ClassVar[bool] = True

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        (x,) = q_inputs
        return QuantizedArray(self.n_bits, np.asarray(np.prod(x.shape, dtype=np.int64)))

    def can_fuse(self) -> bool:
        return False


class QuantizedPad(Moving):
    """Padding: constants become integers, so the input is quantized first."""

    _impl_for_op_named = "Pad"
    encryptable: ClassVar[tuple[int, ...]] = (0,)
    shares_scale: ClassVar[bool] = True

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        inputs = self._prepare_inputs_with_constants(
            *q_inputs, calibrate=False, quantize_actual_values=True
        )
        x, rest = inputs[0], inputs[1:]
        if attrs["mode"] != "constant":
            return self.quantized(self._function(x.values, *rest, **attrs))
        constants = [self.constant(i + 1) for i in range(len(rest))]
        quantizer = x.quantizer
        if len(constants) > 1 and constants[1] is not None:
            level = constant_levels(self, constants[1], quantizer.scale)
            constants[1] = level + quantizer.zero_point
        elif "value" in attrs:
            attrs = {
                **attrs,
                "value": int(constant_levels(self, attrs["value"], quantizer.scale))
                + quantizer.zero_point,
            }
        else:
            constants = [*constants[:1], np.asarray(quantizer.zero_point), *constants[2:]]
        padded = self._function(x.qvalues, *constants, **attrs)
        return self.quantized(quantizer.dequant(padded))


class QuantizedConcat(Moving):
    """Joins tensors that share a scale: no look-up."""

    _impl_for_op_named = "Concat"
    shares_scale: ClassVar[bool] = True
    joins_elements: ClassVar[bool] = True

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        inputs = self._prepare_inputs_with_constants(
            *q_inputs, calibrate=False, quantize_actual_values=False
        )
        scale = joint_scale(self, q_inputs)
        encrypted = iter(q_inputs)
        parts, zeros = [], []
        for index, values in enumerate(inputs):
            if index in self.constant_inputs:
                integers, zero = constant_levels(self, values, scale), 0
            else:
                integers, zero = at_scale(next(encrypted), scale)
            parts.append(integers)
            zeros.append(np.broadcast_to(zero, (1, *integers.shape[1:])))
        joined = np.concatenate(parts, axis=attrs["axis"])
        zero_point = np.concatenate(zeros, axis=attrs["axis"])
        return self.quantized((joined.astype(np.float64) - zero_point) * scale)


class QuantizedGather(LayoutOp):
    """Gather by constant indices: a move. Constants by encrypted indices, as an embedding: before encryption,
    or one look-up for each number of an entry."""

    _impl_for_op_named = "Gather"

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        if 0 in self.constant_inputs:
            self.keeps_scale, self.encryptable = False, (1,)  # type: ignore[misc]

    def can_fuse(self) -> bool:
        return 0 in self.constant_inputs

    def reads_exactly(self, index: int) -> bool:
        return index == 1

    def told_apart(self, index: int) -> Any:
        data = self.constant(0)
        return None if data is None else np.arange(len(data))

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        if 0 not in self.constant_inputs:
            return super().q_impl(*q_inputs, **attrs)
        data, (indices,) = np.asarray(self.constant(0)), q_inputs
        axis = attrs["axis"] % data.ndim
        if not isinstance(indices.values, Tensor):
            return self.quantized(self._function(data, indices.values, axis=axis))
        if axis and indices.shape:
            raise CompilationError(
                f"encrypted indices pick from axis {axis} of constant data",
                where=self.where,
                expected="axis 0, so that the batch stays in front",
                got=f"axis {axis}",
                fix="transpose the data, and gather along axis 0",
            )
        if indices.values.is_unencrypted:
            return self.quantized(primitives.rows(data, indices.values))
        return self.quantized(_entries(data, indices.values))


def _entries(data: Any, places: Any) -> Any:
    """data[places] where the integers ``places``, (N, ...), are encrypted: a look-up for each number."""
    size = int(np.prod(data.shape[1:]))
    # In float: integers would be those of the circuit, and these may be decrypted already.
    places = places.astype(np.float64)
    spread = np.broadcast_to(np.expand_dims(places, -1), (*places.shape, size))
    flat = np.reshape(spread, (places.shape[0], -1))
    # Negative ones count from the end.
    wrapped = np.where(flat < 0, flat + len(data), flat)
    columns = np.tile(np.reshape(data, (len(data), size)), (1, flat.shape[1] // max(size, 1)))
    return np.reshape(primitives.entries(columns, wrapped), (*places.shape, *data.shape[1:]))


def layout(name: str) -> type[QuantizedOp]:
    """The quantized form of an op that moves elements."""
    return type(
        f"Quantized{name}",
        (LayoutOp,),
        {
            "__doc__": f"{name}, on encrypted values without a look-up.",
            "__module__": __name__,
            "_impl_for_op_named": name,
        },
    )


CLASSES: tuple[type[QuantizedOp], ...] = (
    QuantizedShape,
    QuantizedSize,
    QuantizedPad,
    QuantizedConcat,
    QuantizedGather,
    *(
        layout(name)
        for name in (
            "DepthToSpace",
            "Expand",
            "Flatten",
            "Reshape",
            "Slice",
            "SpaceToDepth",
            "Split",
            "Squeeze",
            "Tile",
            "Transpose",
            "Unsqueeze",
        )
    ),
)
