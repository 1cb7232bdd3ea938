"""Weights that are tuned for the roundings around them, so that fewer bits need to be kept.

Rounding each weight to the nearest integer ignores what happens to the sum. Here the integers of a finished
program are moved so that its outputs come near the float model's again, with all roundings and their noise
in place: knowledge distillation (Hinton, Vinyals, Dean, 2015) by gradients that pass roundings straight
through (Bengio, Leonard, Courville, 2013), and tables by their slope. The float model is the
teacher, so no labels are needed; it also answers for blends of samples (Zhang et al., mixup, 2018), of which
there are as many as one likes.

Accumulators also learn a shift each, which makes up for what rounding adds on average (bias correction:
Nagel et al., 2019). Nothing else changes: widths, tables and cost stay as they are planned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.program.adjoints import operand_gradients, reduced, weight_gradient
from fhe_core.program.antiperiodic import whole_tables
from fhe_core.program.interpreter import Noise
from fhe_core.program.nodes import BATCH, Node
from fhe_core.program.program import Program
from fhe_core.program.rules import RULES
from fhe_core.program.wrapping import NEAR

Array = NDArray[Any]

#: Lessons of one step; those that decide what is best, and after how many steps they do.
_BATCH = 64
EXAMINED = 1024
_EXAMINATION = 25
#: First step of a weight, relative to the mean magnitude of its node's weights, and of a shift, relative to
#: the deviation of its accumulator. It falls to zero.
_RATE = 0.01
_SHIFT = 0.1
#: Share of the levels at either end of a table that is kept free: the headroom of accumulators.
_MARGIN = 0.12
#: How strongly an accumulator is pushed back from there, in units of the next gradient, for each level.
_PUSH = 0.2
#: Scores of classes are compared as probabilities at this temperature; how much their values count besides,
#: as a share of their variance.
_TEMPERATURE = 2.0
_BY_VALUE = 0.1
_TINY = 1e-12
#: Columns vary by as much at least, as a share of what they vary by on average.
_FLAT = 1e-6
#: Of one tuning at the most: some ten seconds.
_MULTIPLICATIONS = 2e11


@dataclass(frozen=True)
class Lessons:
    """What a program is tuned on.

    Attributes:
        integers: what the client encrypts, (samples, ...) for each input of the program.
        targets: what the float model has in place of each output, of the same shapes.
        readings: slope and offset of each output: what its integers mean, for each element.
        axes: along which each output has a score for each class; None where it has numbers.
    """

    integers: Mapping[str, Array]
    targets: Sequence[Array]
    readings: Sequence[tuple[Array, Array]]
    axes: Sequence[int | None]

    def first(self, count: int) -> Lessons:
        """The first ones."""
        return self._part(slice(count))

    def drawn(self, rng: np.random.Generator) -> Lessons:
        """Those of one step."""
        return self._part(rng.integers(0, len(self.targets[0]), _BATCH))

    def _part(self, chosen: Any) -> Lessons:
        integers = {name: array[chosen] for name, array in self.integers.items()}
        targets = [target[chosen] for target in self.targets]
        return Lessons(integers, targets, self.readings, self.axes)


@dataclass(frozen=True)
class Tuned:
    """What was learned.

    Attributes:
        kernels: integers in place of weights, by their node's ``kernel``.
        shifts: integers that are added to accumulators, by their names.
        means: of each of these accumulators with its shift, for each element, on the first lessons.
    """

    kernels: Mapping[str, NDArray[np.int64]]
    shifts: Mapping[str, NDArray[np.int64]]
    means: Mapping[str, Array]


def tune(
    program: Program,
    lessons: Lessons,
    *,
    steps: int,
    p_error: float,
    seed: int,
    advance: Callable[[int], None] | None = None,
) -> Tuned:
    """Learn the integers of named weights, and a shift for each accumulator that has offsets.

    Args:
        program: complete, with widths and tables.
        steps: of gradient descent (Adam: Kingma, Ba, 2015), on 64 lessons each; fewer where a model is so
            large that they would take long.
        p_error: of one look-up; decides how much noise approximate rounding makes.
        seed: of the noise and of the order of lessons.
        advance: told of each step.
    """
    steps = min(steps, _affordable(program))
    rng = np.random.default_rng(seed)
    tape = _Tape(program, float(Noise(p_error, seed).scale))
    examined = lessons.first(EXAMINED)
    outputs = tape.forward(examined.integers, None)
    readings = [
        _Reading(*line, _variance(target, axis), axis)
        for line, target, axis in zip(lessons.readings, examined.targets, lessons.axes, strict=True)
    ]
    tape.centre()
    learners = {key: _Adam(value, tape.unit(key)) for key, value in tape.learned.items()}
    best, least = tape.rounded(), _loss(readings, outputs, examined)
    for step in range(1, steps + 1):
        part = lessons.drawn(rng)
        outputs = tape.forward(part.integers, rng)
        gradients = [
            reading.gradient(output, target)
            for reading, output, target in zip(readings, outputs, part.targets, strict=True)
        ]
        rate = _RATE * (1 + np.cos(np.pi * step / steps)) / 2
        for key, gradient in tape.backward(gradients).items():
            tape.learned[key] -= learners[key].change(gradient, rate)
        # Integers jump, and the last jump is not always the best.
        if step % _EXAMINATION == 0 or step == steps:
            loss = _loss(readings, tape.forward(examined.integers, None), examined)
            if loss < least:
                best, least = tape.rounded(), loss
        if advance:
            advance(1)
    return best


def _loss(readings: Sequence[_Reading], outputs: Sequence[Array], lessons: Lessons) -> float:
    return sum(
        reading.loss(output, target)
        for reading, output, target in zip(readings, outputs, lessons.targets, strict=True)
    )


def _affordable(program: Program) -> int:
    """How many steps are worth their time: large models take fewer."""
    multiplications = 0
    for node in program.nodes:
        size = int(np.prod([n for n in node.shape if n != BATCH]))
        weights = node.attributes.get("weights")
        each = 1 if weights is None else max(1, weights.size // max(node.shape[1:2] or (1,)))
        multiplications += size * each
    # Forward, and back to operands and to weights.
    return int(_MULTIPLICATIONS // (3 * _BATCH * max(multiplications, 1)))


def divergence(found: Array, wanted: Array, axis: int | None = None) -> float:
    """How far outputs are from the float model's: mean over the samples, 0 for equal ones.

    Scores of classes along ``axis``: the divergence (Kullback, Leibler, 1951) of their probabilities at
    temperature 2, and a tenth of the next. Numbers: squared error over the variance of what is wanted, of
    each column where a sample has one row of them.
    """
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    error = float(np.mean((found - wanted) ** 2 / _variance(wanted, axis)))
    if axis is None:
        return error
    probable = _softmax(wanted / _TEMPERATURE, axis)
    given = _softmax(found / _TEMPERATURE, axis)
    surprise = probable * (np.log(probable + _TINY) - np.log(given + _TINY))
    return float(surprise.sum(axis=axis).mean()) + _BY_VALUE * error


def _variance(wanted: Array, axis: int | None) -> Array:
    """What squared errors count by: the variance of all; of each column where those are numbers. Never 0."""
    if axis is not None or wanted.ndim != 2:
        return np.asarray(wanted.var() or 1.0)
    found = wanted.var(axis=0)
    return np.maximum(found, _FLAT * found.mean() or 1.0)


def line_through(x: Array, y: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """Slope and intercept of the line through the points (x, y) along some axes, by least squares.

    Both lack these axes. Where x never varies the slope is 0.
    """
    mean_x, mean_y = (a.mean(axis=axes, keepdims=True, dtype=np.float64) for a in (x, y))
    power = ((x - mean_x) ** 2).sum(axis=axes)
    shared = ((x - mean_x) * (y - mean_y)).sum(axis=axes)
    slope = np.divide(shared, power, out=np.zeros(power.shape), where=power > 0)
    return slope, mean_y.reshape(slope.shape) - slope * mean_x.reshape(slope.shape)


@dataclass(frozen=True)
class _Reading:
    """What an output's integers mean: an affine function."""

    slope: Array
    offset: Array
    variance: Array
    axis: int | None

    def loss(self, integers: Array, target: Array) -> float:
        """How far the output is from what it has to be."""
        return divergence(self.offset + self.slope * integers, target, self.axis)

    def gradient(self, integers: Array, target: Array) -> Array:
        """Of the loss, for the integers."""
        found = self.offset + self.slope * integers
        gradient = np.asarray(2 * (found - target) / (found.size * self.variance))
        if self.axis is not None:
            wrong = _softmax(found / _TEMPERATURE, self.axis)
            wrong -= _softmax(target / _TEMPERATURE, self.axis)
            count = found.size // found.shape[self.axis]
            gradient = _BY_VALUE * gradient + wrong / (_TEMPERATURE * count)
        return np.asarray(gradient * self.slope, np.float32)


def _softmax(x: Array, axis: int) -> Array:
    powers = np.exp(x - x.max(axis=axis, keepdims=True))
    return np.asarray(powers / powers.sum(axis=axis, keepdims=True))


def _offset(node: Node) -> Array:
    """What a node adds, of the rank of its result."""
    offset = np.asarray(node.attributes["offset"])
    return offset.reshape((1,) * (len(node.shape) - offset.ndim) + offset.shape)


class _Adam:
    """How far parameters move: by their gradient's mean over its deviation, in units of their own."""

    def __init__(self, like: Array, unit: float) -> None:
        self._mean, self._square, self._count = np.zeros_like(like), np.zeros_like(like), 0
        self._unit = unit

    def change(self, gradient: Array, rate: float) -> Array:
        self._count += 1
        self._mean += 0.1 * (gradient - self._mean)
        self._square += 0.001 * (gradient * gradient - self._square)
        mean = self._mean / (1 - 0.9**self._count)
        deviation = np.sqrt(self._square / (1 - 0.999**self._count)) + 1e-12
        return np.asarray(rate * self._unit * mean / deviation, np.float32)


class _Tape:
    """A program in float32 that remembers its values, and carries gradients back through them.

    Attributes:
        learned: named weights, and what is added to accumulators beyond their offsets, by node: floats
            between the integers that they are used as.
    """

    def __init__(self, program: Program, noise: float) -> None:
        self._program, self._noise = program, np.float32(noise)
        self._named = {
            id(node): node
            for node in program.nodes
            if "kernel" in node.attributes or (node.op == "shift" and node.name)
        }
        self.learned: dict[int, Array] = {
            key: np.zeros(_offset(node).shape, np.float32)
            if node.op == "shift"
            else node.attributes["weights"].astype(np.float32)
            for key, node in self._named.items()
        }
        self._tables = {id(node): _Table(node) for node in program.nodes if node.op == "lookup"}
        self._values: dict[int, Array] = {}
        self._batch = 0
        self._centres: dict[int, _Centre] = {}

    def centre(self) -> None:
        """From now on weights are learned as they act on what is read beyond its mean, when last run.

        What they do to the mean is taken back by the shift that follows: else the weights of positive values
        all move together, and their sum far too much.
        """
        for key, shift in self._named.items():
            source = shift.inputs[0]
            if shift.op != "shift" or id(source) not in self.learned:
                continue
            operand = self._values[id(source.inputs[0])]
            # Of each channel, where the same weights read every position of it.
            axes = (0, *range(2, operand.ndim)) if source.op == "conv" else (0,)
            mean = operand.mean(axis=axes, keepdims=True)
            shape = (1, *operand.shape[1:])
            self._centres[key] = _Centre(
                source, np.broadcast_to(mean, shape), self.learned[id(source)].copy()
            )

    def forward(
        self, integers: Mapping[str, Array], rng: np.random.Generator | None
    ) -> list[Array]:
        """The outputs' integers; with ``rng``, with the noise of approximate rounding."""
        self._batch = len(next(iter(integers.values())))
        values: dict[int, Array] = {}
        for node in self._program.nodes:
            operands = [values[id(source)] for source in node.inputs]
            if node.op == "input":
                values[id(node)] = integers[node.name].astype(np.float32)
            elif node.op == "round":
                values[id(node)] = self._rounded(node, operands[0], rng)
            elif node.op == "lookup":
                values[id(node)] = self._tables[id(node)].entries(operands[0])
            else:
                values[id(node)] = RULES[node.op].evaluate(
                    operands, self._attributes(node), self._batch
                )
        self._values = values
        return [
            values[id(node)] - np.asarray(offset, np.float32)
            for node, offset in zip(self._program.outputs, self._program.offsets, strict=True)
        ]

    def unit(self, key: int) -> float:
        """The size of what is learned: of weights, or of the accumulator of a shift, when last run."""
        if self._named[key].op == "shift":
            return _SHIFT * float(self._values[key].std())
        return max(float(np.abs(self.learned[key]).mean()), 1.0)

    def rounded(self) -> Tuned:
        """What is learned so far."""
        integers = {key: np.rint(value).astype(np.int64) for key, value in self.learned.items()}
        integers.update((key, self._shift(key).astype(np.int64)) for key in self._centres)
        shifts = {key: node for key, node in self._named.items() if node.op == "shift"}
        return Tuned(
            {
                node.attributes["kernel"]: integers[key]
                for key, node in self._named.items()
                if key not in shifts
            },
            {node.name: integers[key] for key, node in shifts.items()},
            {
                node.name: self._values[key].mean(axis=0) - _offset(node)[0]
                for key, node in shifts.items()
            },
        )

    def backward(self, outputs: Sequence[Array]) -> dict[int, Array]:
        """Gradients of what is learned, from those of the outputs."""
        gradients: dict[int, Array] = {}
        found: dict[int, Array] = {}

        def add(node: Node, gradient: Array) -> None:
            known = gradients.get(id(node))
            gradients[id(node)] = gradient if known is None else known + gradient

        for node, gradient in zip(self._program.outputs, outputs, strict=True):
            add(node, gradient)
        for node in reversed(self._program.nodes):
            if id(node) not in gradients or node.op == "input":
                continue
            gradient = gradients.pop(id(node))
            operands = [self._values[id(source)] for source in node.inputs]
            if node.op == "round":
                add(node.inputs[0], gradient * np.float32(2.0 ** -node.attributes["dropped"]))
            elif node.op == "lookup":
                add(node.inputs[0], self._tables[id(node)].gradient(gradient))
            else:
                attributes = self._attributes(node)
                if id(node) in self._named:
                    found[id(node)] = (
                        reduced(gradient, attributes["offset"].shape)
                        if node.op == "shift"
                        else weight_gradient(
                            node.op, gradient, self._beyond_mean(node, operands[0]), attributes
                        )
                    )
                parts = operand_gradients(node.op, gradient, operands, attributes)
                for source, part in zip(node.inputs, parts, strict=True):
                    add(source, part)
        return found

    def _attributes(self, node: Node) -> dict[str, Any]:
        """The node's attributes, with what is learned as it is by now."""
        learned = self.learned.get(id(node))
        if learned is None:
            return node.attributes
        if node.op == "shift":
            offset = _offset(node) + self._shift(id(node))
            return {**node.attributes, "offset": offset}
        return {**node.attributes, "weights": np.rint(learned)}

    def _shift(self, key: int) -> Array:
        """What is added to an accumulator, as an integer."""
        learned, centre = self.learned[key], self._centres.get(key)
        if centre is None:
            return np.rint(learned)
        node = centre.node
        moved = np.rint(self.learned[id(node)]) - centre.weights
        attributes = {**node.attributes, "weights": moved}
        done = RULES[node.op].evaluate([centre.mean], attributes, 1)
        axes = tuple(i for i, n in enumerate(learned.shape) if n == 1)
        return np.rint(learned - done.mean(axis=axes, keepdims=True))

    def _beyond_mean(self, node: Node, operand: Array) -> Array:
        for centre in self._centres.values():
            if centre.node is node:
                return operand - centre.mean
        return operand

    def _rounded(self, node: Node, x: Array, rng: np.random.Generator | None) -> Array:
        dropped, exact = node.attributes["dropped"], node.attributes["exact"]
        levels = x * np.float32(2.0**-dropped)
        levels += np.float32(0.5 if exact else 0.5 + 2.0 ** -(dropped + 1))
        if rng is not None and not exact:
            levels += rng.standard_normal(levels.shape, dtype=np.float32) * self._noise
        return np.asarray(np.floor(levels))


@dataclass(frozen=True)
class _Centre:
    """What weights read on average, and what they were then."""

    node: Node
    mean: Array
    weights: Array


class _Table:
    """A look-up's tables, and their slopes."""

    def __init__(self, node: Node) -> None:
        self._periodic = node.attributes.get("antiperiodic", False)
        tables, self._first = whole_tables(node)
        tables = tables.astype(np.float32)
        self._length = tables.shape[1]
        self._starts = node.attributes["which"] * self._length
        self._entries = tables.reshape(-1)
        self._slopes = _slopes(tables, self._periodic).reshape(-1)
        self._limits = _limits(tables, node.attributes["which"])
        self._index: Array = np.zeros(0, np.intp)
        self._beyond: Array = np.zeros(0, np.float32)

    def entries(self, levels: Array) -> Array:
        """The entry for each level. Beyond the ends the last one, where the circuit would wrap around; but a
        triangle that uses the padding bit goes on as the circuit has it.
        """
        index = levels - self._first
        if self._periodic:
            index = np.mod(index, self._length).astype(np.intp)
            self._index = index + self._starts
            self._beyond = np.zeros(1, np.float32)
            return np.asarray(self._entries[self._index])
        low, high = self._limits
        self._beyond = np.minimum(index - low, 0) + np.maximum(index - high, 0)
        index = np.clip(index, 0, self._length - 1).astype(np.intp)
        self._index = index + self._starts
        return np.asarray(self._entries[self._index])

    def gradient(self, gradient: Array) -> Array:
        """For the levels, by the tables' slopes; and back to the middle where they left it."""
        push = np.float32(_PUSH / len(gradient))
        return np.asarray(gradient * self._slopes[self._index] + push * self._beyond)


def _limits(tables: Array, which: Array) -> tuple[Array, Array]:
    """The levels between which each element is to stay: a margin from an end, less where the other end is flat,
    since a look-up goes on as at the end for as long (``levels``).
    """
    length, near = tables.shape[1], NEAR * np.ptp(tables, axis=1).max(initial=0)
    flat = [
        np.logical_and.accumulate(np.abs(rows - rows[:, :1]) <= near, axis=1).sum(axis=1)
        for rows in (tables, tables[:, ::-1])
    ]
    margin = _MARGIN * length
    low = np.maximum(margin - (flat[1] - 1), 0) - 0.5
    high = length - np.maximum(margin - (flat[0] - 1), 0) - 0.5
    return low.astype(np.float32)[which], high.astype(np.float32)[which]


def _slopes(tables: Array, periodic: bool) -> Array:
    """Half of what lies between the two neighbours of each entry; at the ends, of the entry and its one."""
    if periodic:
        return np.asarray(
            (np.roll(tables, -1, axis=1) - np.roll(tables, 1, axis=1)) / 2, np.float32
        )
    if tables.shape[1] < 2:
        return np.zeros_like(tables)
    return np.asarray(np.gradient(tables, axis=1), np.float32)
