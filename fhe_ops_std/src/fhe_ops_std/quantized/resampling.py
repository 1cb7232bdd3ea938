"""Images at other places: Resize and Upsample, GridSample with a constant grid, AffineGrid.

The nearest element is layout. Interpolation is linear: along one axis after the other where it is separable.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fhe_core import CompilationError, QuantizedOp
from fhe_ops_std.quantized.fixed import FixedMap, Step
from fhe_ops_std.quantized.probing import mixes_samples, spells_batch
from fhe_ops_std.quantized.rearranging import Picking

Array = NDArray[Any]


class Interpolation(FixedMap):
    """Linear and cubic interpolation as matrices; of the nearest element, as layout."""

    #: What takes its place where the mode is "nearest".
    nearest: ClassVar[type[QuantizedOp]]

    def __new__(cls, *arguments: Any, **attrs: Any) -> Any:
        # A crop may reach beyond the image, where a constant is filled in.
        crops = attrs.get("coordinate_transformation_mode") == "tf_crop_and_resize"
        moves = attrs.get("mode", "nearest") == "nearest" and not crops
        return super().__new__(cls.nearest if moves else cls)

    def steps(self, shape: tuple[int, ...], clear: Sequence[Any]) -> Iterable[Step]:
        own = (self.constant(i + 1) for i in range(len(clear)))
        as_given = [
            given if given is not None else value for given, value in zip(own, clear, strict=True)
        ]
        spelled = self._spelled_batch(len(shape), as_given)
        if spelled is not None and not spells_batch(spelled, shape[0]):
            raise mixes_samples(self)
        axes = [i for i in range(1, len(shape)) if not self._keeps(i, shape, clear)]
        one_by_one = [self._along(axis, shape, clear) for axis in axes]
        image = np.random.default_rng(0).standard_normal(shape[1:])
        y = image[None]
        for step in one_by_one:
            y = step.applied(y, step.matrix)
        if np.allclose(y[0], self._of(image, clear), rtol=1e-9, atol=1e-9):
            return one_by_one
        # What lies outside of the image has a value of its own.
        rows = range(1, len(shape))
        return [Step.of(lambda images: np.stack([self._of(x, clear) for x in images]), shape, rows)]

    def _keeps(self, axis: int, shape: tuple[int, ...], clear: Sequence[Any]) -> bool:
        """Whether an axis, with numbered elements, stays as it is."""
        numbers = np.arange(shape[axis], dtype=np.float64)
        (kept,) = self._rows(numbers[None], axis, shape, clear)
        return np.array_equal(kept, numbers)

    def _along(self, axis: int, shape: tuple[int, ...], clear: Sequence[Any]) -> Step:
        return Step.of(lambda rows: self._rows(rows, axis, shape, clear), shape, [axis])

    def _rows(self, rows: Array, axis: int, shape: tuple[int, ...], clear: Sequence[Any]) -> Array:
        """What happens along one axis, to images that are constant along the others."""
        along = [-1 if i == axis else 1 for i in range(1, len(shape))]
        first = tuple(slice(None) if n == -1 else 0 for n in along)
        images = (np.broadcast_to(row.reshape(along), shape[1:]) for row in rows)
        # Copies: a part of a result would keep all of it.
        return np.stack([np.array(self._of(image, clear)[first]) for image in images])

    def _of(self, image: Array, clear: Sequence[Any]) -> Any:
        """The op on a single sample."""
        count = self._spelled_batch(image.ndim + 1, clear) or 1
        y = self._function(np.broadcast_to(image, (count, *image.shape)), *clear, **self.attrs)
        if len(y) != count:
            raise mixes_samples(self)
        return y[0]

    def _spelled_batch(self, ndim: int, clear: Sequence[Any]) -> int | None:
        """The batch size that the input ``sizes`` asks for; None where it does not."""
        names = list(self.signature.input_names)[1 : len(clear) + 1]
        sizes = dict(zip(names, clear, strict=False)).get("sizes")
        axes = [axis % ndim for axis in self.attrs.get("axes") or range(ndim)]
        if sizes is None or not sizes.size or 0 not in axes:
            return None
        return int(sizes[axes.index(0)])


class QuantizedResize(Interpolation):
    """Resize, by a constant factor or to a constant size."""

    _impl_for_op_named = "Resize"


class QuantizedUpsample(Interpolation):
    """Upsample, by a constant factor."""

    _impl_for_op_named = "Upsample"


class QuantizedResizeNearest(QuantizedResize, Picking):
    """Resize to nearest elements."""

    keeps_scale: ClassVar[bool] = True
    q_impl = Picking.q_impl


class QuantizedUpsampleNearest(QuantizedUpsample, Picking):
    """Upsample to nearest elements."""

    keeps_scale: ClassVar[bool] = True
    q_impl = Picking.q_impl


QuantizedResize.nearest = QuantizedResizeNearest
QuantizedUpsample.nearest = QuantizedUpsampleNearest


class QuantizedGridSample(FixedMap):
    """Samples of an image at the places of a constant grid, the same for all images."""

    _impl_for_op_named = "GridSample"

    def steps(self, shape: tuple[int, ...], clear: Sequence[Any]) -> Iterable[Step]:
        (grid,) = clear
        if (grid != grid[:1]).any():
            raise CompilationError(
                "the grid is another one for each sample of the batch",
                where=self.where,
                expected="one grid",
                fix="compile the model for a batch of 1",
            )

        def sampled(rows: Array) -> Array:
            everywhere = np.broadcast_to(grid[:1], (len(rows), *grid.shape[1:]))
            images: Array = self._function(rows[:, None], everywhere, **self.attrs)
            return images[:, 0]

        yield Step.of(sampled, shape, range(2, len(shape)))


class QuantizedAffineGrid(FixedMap):
    """The grid of an encrypted affine map, for images of a constant size."""

    _impl_for_op_named = "AffineGrid"

    def steps(self, shape: tuple[int, ...], clear: Sequence[Any]) -> Iterable[Step]:
        _, *lengths = np.asarray(clear[0]).tolist()

        def grids(rows: Array) -> Array:
            y: Array = self._function(rows, np.array([len(rows), *lengths]), **self.attrs)
            return y

        yield Step.of(grids, shape, range(1, len(shape)))


CLASSES: tuple[type[QuantizedOp], ...] = (
    QuantizedResize,
    QuantizedUpsample,
    QuantizedGridSample,
    QuantizedAffineGrid,
)
