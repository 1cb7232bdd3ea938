"""Smaller models that give what the float model gives: fewer look-ups, for a search to choose from.

An activation whose elements can be replaced by an affine function of their inputs costs no look-up: it joins
the products around it. A channel whose replacement by a constant does little costs none either. Which of
them the results bear is tried in float, each time with the remaining constants trained to make up for it
(`quantization.distillation`): first whole activations, those with most look-ups first, then channels,
those whose loss does least for each look-up first.

The sizes of networks are chosen for training, where width is cheap. Under encryption it is what costs most.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.errors import CompilationError
from fhe_core.graph.ir import Graph, ValueInfo
from fhe_core.graph.runner import NumpyModule
from fhe_core.quantization.calibration import float_values, static_batch
from fhe_core.quantization.distillation import distilled
from fhe_core.quantization.placement import PlacedOp
from fhe_core.quantization.plan import ReductionPlan
from fhe_core.quantization.planning import Settings
from fhe_core.quantization.session import Session
from fhe_core.quantization.tuning import divergence, line_through

Array = NDArray[Any]

#: Steps of training for each attempt.
_STEPS = 1500
#: Shares of the look-ups that are left, in turn.
_SHARES = (1.0, 0.75, 0.56, 0.42, 0.31, 0.23, 0.17, 0.12, 0.08, 0.05)
#: By how much another form of a model may have more look-ups than itself, to take its place: precision.
_LARGER = 1.2
#: Attempts that fail before narrower ones are not tried.
_PATIENCE = 2
#: What an affine function may miss of a channel's variance where the channel counts as affine.
_NOTHING = 1e-9
#: Samples on which the loss of a channel is measured.
_MEASURED = 128


@dataclass(frozen=True)
class Student:
    """A smaller model.

    Attributes:
        session: from which modules of it are built.
        lookups: of one inference.
        left_out: look-ups of the whole model that it does without.
        margin: by how much its float outputs are better than they have to be, in the check where that is
            least, as a share of the tolerance: 1 is as good as the float model.
        replaced: another form of it is no larger, and better where roundings keep few bits.
    """

    session: Session = field(compare=False, repr=False)
    lookups: int
    left_out: int
    margin: float
    replaced: bool = False

    def __str__(self) -> str:
        whole = self.lookups + self.left_out
        return f"{self.lookups} of {whole} look-ups" if self.left_out else f"{whole} look-ups"


def students(
    session: Session,
    margin: Callable[[Session], float],
    samples: Array | None,
    *,
    least: float,
    seed: int,
    advance: Callable[[int], None],
    wanted: bool = True,
) -> list[Student]:
    """The whole model, and smaller ones that are good enough.

    Args:
        margin: of a session's float model, see ``Student``.
        samples: indices of the calibration samples that may be learned from.
        least: the margin that a student needs.
        seed: of training.
        advance: told of each attempt.
        wanted: False for the whole model alone.
    """
    whole = _lookups(session)
    found = [Student(session, whole, 0, 1.0)]
    if not wanted or not whole or not session.registry.reductions() or not session.reducible:
        return found
    school = _School(session, margin, samples, seed)
    for attempt in (_without_activations, _without_channels):
        found += attempt(school, session, found[-1], least, advance)
    return found


def in_best_forms(students: Sequence[Student]) -> list[Student]:
    """Each, and in the forms that the packs have for it."""
    found = []
    for student in students:
        forms = list(_in_other_forms(student))
        replaced = any(form.lookups <= student.lookups * _LARGER for form in forms)
        found += [replace(student, replaced=replaced), *forms]
    return found


def _in_other_forms(student: Student) -> Iterator[Student]:
    session = student.session
    for name in session.forms() if student.lookups and session.reducible else ():
        other = session.whole.reduced(session.reductions, session.constants, [name])
        if other is not None:
            yield replace(student, session=other, lookups=_lookups(other))


def _without_activations(
    school: _School,
    session: Session,
    start: Student,
    least: float,
    advance: Callable[[int], None],
) -> list[Student]:
    """Students with affine functions in place of whole activations: of all, else of one after the other."""
    lines = {placed.node.name: school.line(placed) for placed in _by_elements(session)}
    found: list[Student] = []
    best = start
    taken: set[str] = set()
    attempts = [set(lines)] if len(lines) > 1 else []
    attempts += [{name} for name in lines]
    while attempts:
        names = taken | attempts.pop(0)
        advance(1)
        tried = school.tried({name: lines[name] for name in names}, {}, best.lookups)
        if tried is None or tried.margin < least:
            continue
        found.append(tried)
        best, taken = tried, names
        # What is left may be possible now where it was not, or save what it did not.
        attempts = [{name} for name in lines if name not in taken] if tried.lookups else []
    return found


def _without_channels(
    school: _School,
    session: Session,
    start: Student,
    least: float,
    advance: Callable[[int], None],
) -> list[Student]:
    """Students with fewer and fewer channels."""
    linear = {
        name: entry for name, entry in start.session.reductions.items() if not np.any(entry.live)
    }
    found: list[Student] = []
    best, failures = start, 0
    for share in _SHARES if start.lookups else ():
        advance(1)
        narrow = school.narrowed(best.session, linear, max(1, round(share * start.lookups)))
        if narrow.keys() <= linear.keys():
            continue
        # The first has no fewer: it says of dead channels that they are, for other forms to know.
        fewer = best.lookups + (share == 1)
        tried = school.tried(narrow, best.session.constants, fewer)
        if tried is None:
            continue
        if tried.margin < least:
            failures += 1
            if failures == _PATIENCE:
                break
            continue
        found.append(tried)
        best = tried
    return found


def _by_elements(session: Session) -> list[PlacedOp]:
    """The activations, those with most elements first."""
    return sorted(_activations(session), key=lambda placed: -_elements(session, placed))


class _School:
    """Makes students, and says how good they are."""

    def __init__(
        self,
        session: Session,
        margin: Callable[[Session], float],
        samples: Array | None,
        seed: int,
    ) -> None:
        self._session, self._margin = session, margin
        self._samples, self._seed = samples, seed
        self._whole = _lookups(session)

    def tried(
        self,
        reductions: Mapping[str, ReductionPlan],
        constants: Mapping[str, Array],
        fewer: int,
    ) -> Student | None:
        """A trained student; None where it has not ``fewer`` look-ups, or no pack can write it.

        Args:
            constants: what training starts from, where the student has them.
        """
        start = self._session.reduced(reductions, constants)
        if start is None:
            return None
        count = _lookups(start)
        if count >= fewer:
            return None
        trained = distilled(start, self._samples, steps=_STEPS, seed=self._seed)
        session = self._session.reduced(reductions, {**start.constants, **trained})
        if session is None:
            return None
        return Student(session, count, self._whole - count, self._margin(session))

    def line(self, placed: PlacedOp) -> ReductionPlan:
        """The affine function of each channel that is closest to an activation on the data."""
        names = [placed.variable[0], placed.node.outputs[0]]
        tensors = self._session.measured_floats(names)
        x, y = (tensors[name].astype(np.float64) for name in names)
        others = _others(self._session, placed, x.ndim)
        slope, offset = line_through(x, y, others)
        shape = tuple(1 if i in others else n for i, n in enumerate(x.shape))
        return ReductionPlan(np.zeros(shape, bool), slope.reshape(shape), offset.reshape(shape))

    def narrowed(
        self, student: Session, linear: Mapping[str, ReductionPlan], count: int
    ) -> dict[str, ReductionPlan]:
        """Reductions that leave ``count`` look-ups: of the channels whose loss does most for each."""
        # Not what an earlier reduction put behind an activation.
        known = {node.name for node in self._session.graph.nodes}
        left = {
            entry.node.name: entry for entry in _activations(student) if entry.node.name in known
        }
        channels = [channel for entry in left.values() for channel in _channels(student, entry)]
        live = {channel.node: np.zeros(len(channel.mean), bool) for channel in channels}
        means = {channel.node: channel.mean for channel in channels}
        taken = 0
        for channel in sorted(channels, key=lambda each: -each.damage / max(each.elements, 0.1)):
            if not channel.damage:
                break
            flags = live[channel.node]
            # An activation without any channel would be constant.
            if taken + channel.elements <= count or not flags.any():
                flags[channel.index] = True
                taken += channel.elements
        found = dict(linear)
        for name, flags in live.items():
            if name in found or flags.all():
                continue
            shape = _channels_shape(student, left[name], len(flags))
            mean = means[name].reshape(shape)
            found[name] = ReductionPlan(flags.reshape(shape), np.zeros(shape), mean)
        return found


@dataclass(frozen=True)
class _Channel:
    """One channel of an activation.

    Attributes:
        elements: look-ups that it takes: none where it is affine on the data, or constant.
        damage: how far outputs move if it is constant.
        mean: of every channel of the activation.
    """

    node: str
    index: int
    elements: int
    damage: float
    mean: Array


def _activations(session: Session) -> list[PlacedOp]:
    """Functions of each element of what has weights for each channel."""
    producers = {name: placed for placed in session.placement.ops for name in placed.node.writes}
    found = []
    for placed in session.placement.ops:
        if not placed.fused or len(placed.variable) != 1 or len(placed.node.writes) != 1:
            continue
        weighted = [producers.get(name) for name in placed.sources]
        if len(weighted) == 1 and weighted[0] and weighted[0].op.weight_channels() is not None:
            found.append(placed)
    return found


def _channel_axis(session: Session, placed: PlacedOp, rank: int) -> int:
    (source,) = placed.sources
    producer = next(entry for entry in session.placement.ops if source in entry.node.writes)
    channels = producer.op.weight_channels()
    return channels.output_axis % rank if channels else 1


def _others(session: Session, placed: PlacedOp, rank: int) -> tuple[int, ...]:
    axis = _channel_axis(session, placed, rank)
    return tuple(i for i in range(rank) if i != axis)


def _channels_shape(session: Session, placed: PlacedOp, count: int) -> tuple[int, ...]:
    """That of an array with one element for each channel, which broadcasts to the activation."""
    rank = _rank(session, placed)
    axis = _channel_axis(session, placed, rank)
    return tuple(count if i == axis else 1 for i in range(rank))


def _rank(session: Session, placed: PlacedOp) -> int:
    return len(session.shape(placed.node.outputs[0]))


def _elements(session: Session, placed: PlacedOp) -> int:
    return math.prod(session.shape(placed.node.outputs[0]))


def _channels(session: Session, placed: PlacedOp) -> Iterator[_Channel]:
    """Every channel of an activation, each with what happens to the outputs without it."""
    name = placed.node.outputs[0]
    feeds = {key: array[:_MEASURED] for key, array in session.data.items()}
    outputs = session.graph.output_names
    tensors = float_values(session.net, feeds, [name, *outputs])
    values = tensors[name]
    axis = _channel_axis(session, placed, values.ndim)
    whole = session.measured_floats([name])[name]
    mean = whole.mean(axis=tuple(i for i in range(whole.ndim) if i != axis), dtype=np.float64)
    affine = _is_affine(session, placed, axis)
    rest = NumpyModule(_from(session.graph, name, values), registry=session.registry)
    for index in range(values.shape[axis]):
        without = values.copy()
        chosen = [slice(None)] * values.ndim
        chosen[axis] = slice(index, index + 1)
        without[tuple(chosen)] = mean[index]
        found = float_values(rest, {**feeds, name: without}, outputs)
        damage = sum(
            divergence(after, tensors[output], session.class_axes.get(output))
            for output, after in found.items()
            # Text and maps say nothing that the numbers beside them do not.
            if isinstance(after, np.ndarray) and after.dtype.kind in "fiub"
        )
        each = int(math.prod(values.shape[1:])) // values.shape[axis]
        elements = 0 if affine[index] else each
        yield _Channel(placed.node.name, index, elements, damage, mean)


def _is_affine(session: Session, placed: PlacedOp, axis: int) -> NDArray[np.bool_]:
    """For each channel of an activation whether it is an affine function on the data."""
    names = [placed.variable[0], placed.node.outputs[0]]
    tensors = session.measured_floats(names)
    x, y = (np.moveaxis(tensors[name].astype(np.float64), axis, -1) for name in names)
    others = tuple(range(x.ndim - 1))
    slope, offset = line_through(x, y, others)
    power = ((y - y.mean(axis=others)) ** 2).mean(axis=others)
    missed = ((y - slope * x - offset) ** 2).mean(axis=others)
    return np.asarray(missed <= _NOTHING * power)


def _from(graph: Graph, name: str, values: Array) -> Graph:
    """The graph with one of its tensors as another input."""
    nodes = tuple(node for node in graph.nodes if name not in node.writes)
    batch = static_batch(graph)
    info = ValueInfo(name, values.dtype, (batch, *values.shape[1:]))
    return replace(graph, inputs=(*graph.inputs, info), nodes=nodes)


def _lookups(session: Session) -> int:
    """Look-ups of one inference, as they are at any usual width."""
    for bits in (4, 3, 2):
        try:
            program = session.build(Settings.of(bits, 4)).program
        except CompilationError:
            continue
        return sum(math.prod(node.shape[1:]) for node in program.lookups)
    return 0
