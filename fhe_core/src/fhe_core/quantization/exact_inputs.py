"""Which elements of the inputs the client only compares or looks up, so that no calibrated range confines them.

A number beyond its range is nearest to the range's end. A category that calibration did not see is nearest to
nothing: where the client computes with an input before it encrypts, such elements stay what they are. For what
becomes of them the plan needs room, so categories that calibration did not see are tried.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.errors import FheError
from fhe_core.graph.runner import NumpyModule
from fhe_core.graph.steps import Step
from fhe_core.quantization.calibration import TensorStats, batches, static_batch
from fhe_core.quantization.placement import PlacedOp, Placement

Array = NDArray[Any]

#: Samples in a batch on which elements are followed, where the model does not say how many.
_SAMPLES = 2

#: Samples with a category that calibration did not see: at most so many are tried.
_TRIED = 256


@dataclass(frozen=True)
class ExactElements:
    """Of one input, the elements of a sample that no range confines.

    Attributes:
        mask: which they are: booleans of a sample's shape.
        values: by the number of such an element, values of it that are told apart.
    """

    mask: NDArray[np.bool_]
    values: Mapping[int, Array]


def exact_elements(
    placement: Placement, steps: Sequence[Step], batch: int | None
) -> dict[str, ExactElements]:
    """By model input: the inputs that have any.

    Args:
        steps: of the graph.
        batch: the number of samples that the model was exported for; None for any.
    """
    reading = _Reading(placement)
    if not any(map(reading.is_exact, placement.ops)):
        return {}
    found = {}
    for info in placement.graph.inputs:
        shape = tuple(n for n in (info.shape or ())[1:] if isinstance(n, int))
        if info.dtype is not None and info.name not in placement.direct_inputs:
            followed = _Followed(reading, steps, info.name, (batch or _SAMPLES, *shape), info.dtype)
            elements = followed.elements()
            if elements.mask.any():
                found[info.name] = elements
    return found


def unseen(
    data: Mapping[str, Array], exact: Mapping[str, ExactElements], seed: int
) -> dict[str, Array] | None:
    """Samples of the data, each with one element that is another category: one that none of them has.

    None where there is nothing to try.
    """
    rng = np.random.default_rng(seed)
    # Of a large vocabulary at many places only some can be tried, at whatever place.
    most = max(1, 4 * _TRIED // max(1, sum(len(each.values) for each in exact.values())))
    choices = []
    for name, elements in exact.items():
        columns = data[name].reshape(len(data[name]), -1)
        for place, values in elements.values.items():
            others = _others(columns[:, place], values)
            if len(others) > most:
                others = rng.choice(others, most, replace=False)
            choices += [(name, place, value) for value in others]
    if not choices:
        return None
    if len(choices) > _TRIED:
        choices = [choices[i] for i in sorted(rng.choice(len(choices), _TRIED, replace=False))]
    rows = rng.integers(0, len(next(iter(data.values()))), len(choices))
    tried = {name: array[rows] for name, array in data.items()}
    for row, (name, place, value) in enumerate(choices):
        tried[name][row].reshape(-1)[place] = value
    return tried


def _others(seen: Array, values: Array) -> Array:
    """What is told apart, between and beyond it too, and none of what was seen; in the type of the input."""
    points = np.unique(values.astype(np.float64))
    between = np.concatenate(
        [points[:1] - 1, points, (points[1:] + points[:-1]) / 2, points[-1:] + 1]
    )
    if seen.dtype.kind in "iu":
        limits = np.iinfo(seen.dtype)
        between = np.trunc(between[(between >= limits.min) & (between <= limits.max)])
    return np.setdiff1d(between.astype(seen.dtype), seen)


def with_room(
    stats: Mapping[str, TensorStats],
    samples: Mapping[str, Array],
    placement: Placement,
    net: NumpyModule,
) -> dict[str, TensorStats]:
    """The statistics with room for what becomes of samples that calibration did not have."""
    before = _Reading(placement).before
    found = dict(stats)
    for part in batches(placement.graph, samples):
        for name, values in net.run(part, fetch=list(stats)).items():
            wide = np.asarray(values, np.float64)
            finite = wide[np.isfinite(wide)]
            if not finite.size:
                continue
            low = min(found[name].minimum, float(finite.min()))
            high = max(found[name].maximum, float(finite.max()))
            covered = (low, high) if name in before else None
            found[name] = replace(found[name], minimum=low, maximum=high, covered=covered)
    return found


def that_run(
    samples: Mapping[str, Array], placement: Placement, net: NumpyModule
) -> dict[str, Array] | None:
    """The samples for which the model is defined: an encoder may refuse what it does not know."""
    reading = _Reading(placement)
    names = [
        name for placed in placement.ops for name in placed.node.writes if name in reading.before
    ]
    size = static_batch(placement.graph) or 1
    count = len(next(iter(samples.values()))) // size * size

    def runs(start: int, end: int) -> bool:
        try:
            net.run({name: array[start:end] for name, array in samples.items()}, fetch=names)
        except FheError:
            return False
        return True

    kept = np.arange(count)
    if size > 1 or not runs(0, count):
        starts = [start for start in range(0, count, size) if runs(start, start + size)]
        kept = np.concatenate([np.arange(s, s + size) for s in starts] or [np.zeros(0, np.int64)])
    return {name: array[kept] for name, array in samples.items()} if len(kept) else None


class _Reading:
    """What reads the tensors that the client computes with before it encrypts."""

    def __init__(self, placement: Placement) -> None:
        self.placement = placement
        #: The tensors that the client computes before encryption.
        self.before = set(placement.graph.input_names) - placement.direct_inputs
        for placed in placement.ops:
            exact = [self.reads_exactly(placed, i) for i, _ in variable_inputs(placed)]
            if self.before.issuperset(placed.variable) and (self._is_client(placed) or all(exact)):
                self.before.update(placed.node.writes)
        #: Those whose size matters to something that reads them.
        self.measured = set(placement.graph.output_names)
        for placed in reversed(placement.ops):
            for index, name in variable_inputs(placed):
                if self.measures(placed) and not self.reads_exactly(placed, index):
                    self.measured.add(name)

    def _is_client(self, placed: PlacedOp) -> bool:
        return placed.is_float and not placed.late

    def reads_exactly(self, placed: PlacedOp, index: int) -> bool:
        """Whether an op only compares or looks up an input, on the client."""
        if placed.node.inputs[index] not in self.before or placed.late:
            return False
        return placed.op.encodes_inputs or placed.op.reads_exactly(index)

    def is_exact(self, placed: PlacedOp) -> bool:
        """Whether an op reads any input so."""
        return any(self.reads_exactly(placed, index) for index, _ in variable_inputs(placed))

    def measures(self, placed: PlacedOp) -> bool:
        """Whether the size of an op's inputs matters to it, or to what reads its results."""
        here = self._is_client(placed) and self.before.issuperset(placed.variable)
        return not here or not self.measured.isdisjoint(placed.node.writes)


def variable_inputs(placed: PlacedOp) -> list[tuple[int, str]]:
    """The inputs of an op that are not constant, with their places."""
    return [(i, name) for i, name in enumerate(placed.node.inputs) if name in placed.variable]


class _Followed:
    """The elements of an input on their way through ops that move them, or compute with each of them."""

    def __init__(
        self,
        reading: _Reading,
        steps: Iterable[Step],
        name: str,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
    ) -> None:
        self._reading, self._name, self._shape = reading, name, shape
        self._steps = {step.node.name: step for step in steps}
        count = int(np.prod(shape))
        numbers = np.arange(count).reshape(shape)
        self._count = count // shape[0]
        self._known = dtype.kind in "fiu" and len(np.unique(numbers.astype(dtype))) == count
        # As many other numbers, so that nothing but a move keeps both.
        others = np.random.default_rng(0).permutation(count).reshape(shape)
        others = -others if dtype.kind in "if" else others
        self._others = others.reshape(-1)
        self._types = {name: dtype}
        #: By tensor, the number of the element that each of its own comes from.
        self._carried = {name: numbers}

    def elements(self) -> ExactElements:
        """Those that nothing measures, and what they are compared with."""
        confined = np.zeros(self._count, bool)
        values: dict[int, list[Array]] = {}
        if self._name in self._reading.measured and not self._known:
            confined[:] = True
        for placed in self._reading.placement.ops if self._known else ():
            names = [name for name in placed.variable if name in self._carried]
            moved = self._moved(placed) if names else None
            if moved is not None:
                self._carried.update(moved)
                continue
            for index, name in variable_inputs(placed):
                if name not in self._carried:
                    continue
                places = np.unique(self._carried[name] % self._count)
                if not self._reading.reads_exactly(placed, index):
                    if self._reading.measures(placed):
                        confined[places] = True
                    continue
                told = placed.op.told_apart(index)
                if told is not None and np.size(told):
                    for place in places.tolist():
                        values.setdefault(place, []).append(np.ravel(told))
        for output in self._reading.placement.graph.output_names:
            if output in self._carried:
                confined[np.unique(self._carried[output] % self._count)] = True
        known = {
            place: np.concatenate(told) if len(told) > 1 else told[0]
            for place, told in values.items()
            if not confined[place]
        }
        return ExactElements(~confined.reshape(self._shape[1:]), known)

    def _moved(self, placed: PlacedOp) -> dict[str, Array] | None:
        """Where the elements of an op's results come from, if it moves them or computes with each."""
        results = []
        for which in (np.arange(len(self._others)), self._others):
            result = self._result(placed, which)
            if result is None:
                return None
            results.append(result)
        moved = {}
        for name, numbers, mapped in zip(placed.node.outputs, *results, strict=False):
            if not name:
                continue
            if numbers.dtype.kind not in "fiu" or numbers.shape != mapped.shape:
                return self._kept(placed, results[0])
            with np.errstate(invalid="ignore"):  # what is no place is compared with it below
                places = np.nan_to_num(numbers).astype(np.int64)
            inside = (places >= 0) & (places < len(self._others)) & (places == numbers)
            if not inside.all() or not np.array_equal(self._others[places], mapped):
                return self._kept(placed, results[0])
            moved[name] = places
        return moved

    def _kept(self, placed: PlacedOp, results: Sequence[Array]) -> dict[str, Array] | None:
        """The same places, of a function of each element that nothing reads exactly."""
        if not placed.fused or self._reading.is_exact(placed):
            return None
        first, *rest = (self._carried[name] for name in placed.variable if name in self._carried)
        alike = all(np.array_equal(first, other) for other in rest)
        if not alike or any(np.shape(result) != first.shape for result in results):
            return None
        return dict.fromkeys(placed.node.writes, first)

    def _result(self, placed: PlacedOp, values: Array) -> tuple[Array, ...] | None:
        """An op's results where the elements of the input are ``values``."""
        constants = self._reading.placement.graph.constants
        inputs = []
        for name in placed.node.inputs:
            if name in self._carried:
                inputs.append(values[self._carried[name]].astype(self._types[name]))
            elif name and name not in constants:
                return None
            else:
                inputs.append(constants.get(name))
        try:
            with np.errstate(all="ignore"):
                result = self._steps[placed.node.name].bound(*inputs)
        except (FheError, ArithmeticError, LookupError, TypeError, ValueError):
            return None
        parts = result if isinstance(result, tuple) else (result,)
        for name, part in zip(placed.node.outputs, parts, strict=False):
            self._types[name] = np.asarray(part).dtype
        return tuple(map(np.asarray, parts))
