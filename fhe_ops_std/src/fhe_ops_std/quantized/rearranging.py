"""Elements that constants name: picked, masked, overwritten.

Where each element of the result comes from is read off the NumPy implementation, run on numbered elements.
What moves is free; what is filled in becomes integers at the scale of what is encrypted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fhe_core import CompilationError, QuantizedArray, QuantizedOp
from fhe_ops_std.quantized.arithmetic import at_scale, constant_levels, joint_scale, named
from fhe_ops_std.quantized.layout import LayoutOp, Moving
from fhe_ops_std.quantized.probing import linear_map, mixes_samples, parted, sources, spells_batch

Array = NDArray[Any]


def moved(x: Any, source: Array) -> Any:
    """Elements of each sample of x: (N, ...), as ``source`` of the result's shape numbers them.

    Along one axis after the other where that is possible: the fewer parts, the smaller the circuit.
    """
    shape = tuple(x.shape[1:])
    if source.ndim == len(shape) and source.size:
        orders = _orders(np.unravel_index(source, shape))
        if orders is not None:
            for axis, order in enumerate(orders, 1):
                x = _taken(x, order, axis)
            return x
    flat = np.reshape(x, (x.shape[0], -1))
    return np.reshape(_taken(flat, source.reshape(-1), 1), (x.shape[0], *source.shape))


def _orders(places: Sequence[Array]) -> list[Array] | None:
    """For each axis which of its elements are taken, where that depends on that axis alone."""
    orders = []
    for axis, place in enumerate(places):
        others = tuple(0 if i != axis else slice(None) for i in range(place.ndim))
        order = place[others]
        along = [1] * place.ndim
        along[axis] = -1
        if not np.array_equal(np.broadcast_to(order.reshape(along), place.shape), place):
            return None
        orders.append(order)
    return orders


def _taken(x: Any, order: Array, axis: int) -> Any:
    before = (slice(None),) * axis
    steps = np.diff(order)
    if len(order) and (steps == 1).all():
        first, last = int(order[0]), int(order[-1])
        whole = first == 0 and last == x.shape[axis] - 1
        return x if whole else x[(*before, slice(first, last + 1))]
    return np.take(x, order, axis=axis)


class Picking(LayoutOp):
    """Picks elements of its first input by constants. The result keeps the input's scale."""

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        x, *rest = parted(self, q_inputs)
        source, _ = sources(
            self, lambda numbered: self._function(*numbered, *rest, **attrs), [x.shape[1:]], rest
        )
        return self.quantized(moved(x.values, source))


class QuantizedCompress(Picking):
    """Compress along an axis, by a constant condition."""

    _impl_for_op_named = "Compress"

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        if attrs["axis"] is None:
            raise CompilationError(
                "Compress without an axis flattens the batch",
                where=self.where,
                expected="an axis after the first",
                fix="set the attribute axis, or reshape the tensor first",
            )
        return super().q_impl(*q_inputs, **attrs)


class QuantizedTrilu(QuantizedOp):
    """A triangle of matrices: elements of the rest are 0, whatever they are, so that it is a look-up."""

    _impl_for_op_named = "Trilu"
    encryptable: ClassVar[tuple[int, ...]] = (0,)


class QuantizedCenterCropPad(QuantizedOp):
    """Cuts, or pads with zeros at the scale of the input."""

    _impl_for_op_named = "CenterCropPad"
    encryptable: ClassVar[tuple[int, ...]] = (0,)
    shares_scale: ClassVar[bool] = True

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        x, sizes = parted(self, q_inputs)
        sizes = sizes if self.constant(1) is None else np.asarray(self.constant(1))
        axes = attrs["axes"]
        axes = range(len(x.shape)) if axes is None else [axis % len(x.shape) for axis in axes]
        wanted = dict(zip(axes, sizes.tolist(), strict=True))
        if not spells_batch(wanted.pop(0, x.shape[0]), x.shape[0]):
            raise mixes_samples(self)
        axes, sizes = list(wanted), np.array(list(wanted.values()), dtype=np.int64)
        integers = x.qvalues - x.quantizer.zero_point
        placed = self._function(integers, sizes, axes=axes)
        return self.quantized(placed.astype(np.float64) * x.quantizer.scale)


class Placing(Moving):
    """Elements of encrypted inputs at constant places, constants at the others, all at one scale."""

    shares_scale: ClassVar[bool] = True
    encryptable: ClassVar[tuple[int, ...]] = (0,)

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        inputs = parted(self, q_inputs)
        places = [i for i in self.encryptable if i not in self.constant_inputs]
        scale = joint_scale(self, [inputs[i] for i in places])
        parts = [np.subtract(*at_scale(inputs[i], scale)) for i in places]

        def placed(numbered: list[Any]) -> Any:
            given = [_wide(value) for value in inputs]
            for place, values in zip(places, numbered, strict=True):
                given[place] = values
            return self._function(*given, **attrs)

        clear = [value for value in inputs if isinstance(value, np.ndarray)]
        return self.quantized(self.joined(parts, placed, clear, scale))

    def joined(
        self,
        parts: Sequence[Any],
        function: Callable[[list[Any]], Any],
        clear: Sequence[Array],
        scale: float,
    ) -> Any:
        """The real values of the op.

        Args:
            parts: the integers of the encrypted inputs, zero for zero, at one scale.
            function: the op on real values of these inputs.
            clear: the other inputs.
        """
        shapes = [part.shape[1:] for part in parts]
        source, filled = sources(self, function, shapes, clear)
        levels = constant_levels(self, np.where(source < 0, filled, 0.0), scale)
        return _filled(parts, source, levels).astype(np.float64) * scale


class QuantizedMaxUnpool(Placing):
    """MaxUnpool with constant indices."""

    _impl_for_op_named = "MaxUnpool"


class QuantizedTensorScatter(Placing):
    """TensorScatter at constant indices."""

    _impl_for_op_named = "TensorScatter"
    encryptable = (0, 1)


class Scattering(Placing):
    """Updates in place of, or added to, elements of the data; either encrypted or both, at one scale."""

    encryptable = (0, 2)

    def joined(
        self,
        parts: Sequence[Any],
        function: Callable[[list[Any]], Any],
        clear: Sequence[Array],
        scale: float,
    ) -> Any:
        reduction = self.attrs.get("reduction", "none")
        if reduction == "none":
            return super().joined(parts, function, clear, scale)
        if reduction != "add":
            raise CompilationError(
                f"scattering with the reduction {reduction!r} cannot be encrypted",
                where=self.where,
                expected="reduction none or add",
                fix="scatter into a tensor of its own, and join the two with Mul, Max or Min",
            )
        shapes = [part.shape[1:] for part in parts]
        matrix, offset = linear_map(self, function, shapes, clear)
        total = _summed(parts, matrix.astype(np.int64), offset.shape)
        return total.astype(np.float64) * scale + offset


class QuantizedOneHot(QuantizedOp):
    """Comparisons of the index with each class: one look-up each."""

    _impl_for_op_named = "OneHot"

    def gives_whole_numbers(self, whole: Sequence[bool]) -> bool:
        return whole[-1]

    encryptable: ClassVar[tuple[int, ...]] = (0,)

    def reads_exactly(self, index: int) -> bool:
        return True

    def told_apart(self, index: int) -> Any:
        depth = self.constant(1)
        return None if depth is None else np.arange(int(np.asarray(depth).item()))

    def can_fuse(self) -> bool:
        return False

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        index, depth, values = parted(self, q_inputs)
        count = int(depth.item())
        off, on = values
        # Until opset 11 a negative index names no class.
        last = self._function(np.array([-1]), depth, np.array([0, 1]), axis=-1)[0, -1]
        rank = len(index.shape) + 1
        axis = attrs["axis"] % rank
        shape = (*index.shape[:axis], count, *index.shape[axis:])
        whole = np.trunc(np.broadcast_to(np.expand_dims(index.values, axis), shape))
        classes = np.arange(count, dtype=np.float64).reshape(-1, *[1] * (rank - axis - 1))
        hit = whole == classes
        if last:
            hit = np.logical_or(hit, whole == classes - count)
        return self.quantized(np.where(hit, on, off))


def _wide(values: Any) -> Any:
    """Constants in double precision, which holds the numbers of elements beside them."""
    floats = isinstance(values, np.ndarray) and values.dtype.kind == "f"
    return values.astype(np.float64) if floats else values


def _summed(parts: Sequence[Any], matrix: NDArray[np.int64], shape: tuple[int, ...]) -> Any:
    """The sum of all parts, each moved by its rows of the matrix: the data stays where it is."""
    total: Any = 0
    for part in parts:
        flat = np.reshape(part, (part.shape[0], -1))
        rows, matrix = matrix[: flat.shape[1]], matrix[flat.shape[1] :]
        stays = rows.shape[0] == rows.shape[1] and np.array_equal(rows, np.eye(len(rows)))
        total = (flat if stays else flat @ rows) + total
    return np.reshape(total, (total.shape[0], *shape))


def _filled(parts: Sequence[Any], source: Array, levels: NDArray[np.int64]) -> Any:
    """Integers of the parts at their places, and those of constants between them."""
    moves = source >= 0
    own = np.arange(source.size).reshape(source.shape)
    if len(parts) == 1 and parts[0].shape[1:] == source.shape and (source == own)[moves].all():
        integers = parts[0]
    else:
        flat = [np.reshape(part, (part.shape[0], -1)) for part in parts]
        joined = np.concatenate(flat, axis=1) if len(flat) > 1 else flat[0]
        integers = moved(joined, np.where(moves, source, 0).reshape(-1))
        integers = np.reshape(integers, (integers.shape[0], *source.shape))
    if moves.all():
        return integers
    return integers * moves.astype(np.int64) + levels


CLASSES: tuple[type[QuantizedOp], ...] = (
    QuantizedCompress,
    QuantizedTrilu,
    QuantizedCenterCropPad,
    QuantizedMaxUnpool,
    QuantizedTensorScatter,
    QuantizedOneHot,
    *(named(name, Picking) for name in ("GatherElements", "GatherND", "ReverseSequence")),
    *(named(name, Scattering) for name in ("Scatter", "ScatterElements", "ScatterND")),
)
