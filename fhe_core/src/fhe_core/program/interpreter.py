"""Runs an integer program on whole batches in NumPy.

Two of the three readers of a program are here. The clear reader computes what the circuit computes,
exactly: accumulators that leave their width wrap as they do under encryption. The simulating reader adds
the noise of approximate rounding.

Integers are held in float32 where every partial sum stays below 2^24 and in float64 below 2^53, because
BLAS multiplies those, and float arithmetic on such integers is exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.program.nodes import BATCH, Node, evaluate
from fhe_core.program.program import Program
from fhe_core.program.rules import RULES, Interval
from fhe_core.program.tabulation import before_conversion, before_rounding
from fhe_core.program.wrapping import Wraps, strays

Array = NDArray[Any]
Step = Callable[[list[Any], int, "Noise | None", "Wraps | None"], Array]

#: Samples that go through the program at a time: enough for BLAS, few enough for the cache. And elements that
#: one step may hold then: 128 MB in float32.
CHUNK = 2048
_ELEMENTS = 2**25


class Noise:
    """The error that approximate rounding makes before it takes the nearest level.

    An accumulator a of which l bits are dropped goes to floor(a / 2^l + 1/2 + 2^-(l+1) + s N(0, 1)).
    A look-up fails when the noise of its input exceeds half a level, with probability ``p_error``, which
    determines s = 0.5 / PPF(1 - p_error / 2), whatever the width. Measured on 15,360 encrypted samples.
    """

    def __init__(self, p_error: float, seed: int | np.random.SeedSequence) -> None:
        self.scale = np.float32(-0.5 / NormalDist().inv_cdf(p_error / 2))
        self.generator = np.random.default_rng(seed)

    def __call__(self, shape: tuple[int, ...]) -> Array:
        noise: Array = self.generator.standard_normal(shape, dtype=np.float32)
        noise *= self.scale
        return noise


class Interpreter:
    """A program prepared for running: constants converted, tables laid out.

    Call it with an integer array for each input node's name, all with one batch size; it gives an int64
    array for each output.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        slots = {id(node): i for i, node in enumerate(program.nodes)}
        self._inputs = {node.name: slots[id(node)] for node in program.inputs}
        self._outputs = [slots[id(node)] for node in program.outputs]
        self._wraps = [_wrap_output(node) for node in program.outputs]
        self._dtypes = _dtypes(program.nodes)
        self._steps: list[tuple[int, Step]] = [
            (slots[id(node)], _step(node, [slots[id(n)] for n in node.inputs], self._dtypes))
            for node in program.nodes
            if node.op != "input"
        ]
        self._release = self._last_uses(slots)
        self._chunk = samples_at_a_time(program.nodes, CHUNK, _ELEMENTS)

    def _last_uses(self, slots: Mapping[int, int]) -> list[list[int]]:
        last = {slots[id(n)]: i for i, n in enumerate(self.program.nodes)}
        steps = [n for n in self.program.nodes if n.op != "input"]
        for i, node in enumerate(steps):
            for source in node.inputs:
                last[slots[id(source)]] = i
        release: list[list[int]] = [[] for _ in steps]
        for slot, step in last.items():
            if slot not in self._outputs and step < len(steps):
                release[step].append(slot)
        return release

    def __call__(
        self,
        inputs: Mapping[str, Array],
        noise: Noise | None = None,
        wraps: Wraps | None = None,
    ) -> list[Array]:
        """The outputs.

        Args:
            noise: of approximate rounding; none by default.
            wraps: told of the samples that leave an accumulator.
        """
        batch = len(next(iter(inputs.values())))
        size = self._chunk
        if batch <= size:
            return self._run(inputs, noise, wraps)
        parts = [
            self._run({name: array[i : i + size] for name, array in inputs.items()}, noise, wraps)
            for i in range(0, batch, size)
        ]
        axes = [node.shape.index(BATCH) for node in self.program.outputs]
        return [
            np.concatenate(p, axis=a) for p, a in zip(zip(*parts, strict=True), axes, strict=True)
        ]

    def _run(
        self, inputs: Mapping[str, Array], noise: Noise | None, wraps: Wraps | None
    ) -> list[Array]:
        values: list[Any] = [None] * len(self.program.nodes)
        for node in self.program.inputs:
            slot = self._inputs[node.name]
            values[slot] = inputs[node.name].astype(self._dtypes[id(node)])
        batch = len(next(iter(inputs.values())))
        for (slot, step), release in zip(self._steps, self._release, strict=True):
            values[slot] = step(values, batch, noise, wraps)
            for unused in release:
                if unused != slot:
                    values[unused] = None
        outputs = [
            wrap(values[slot], wraps) for slot, wrap in zip(self._outputs, self._wraps, strict=True)
        ]
        if wraps is not None:
            wraps.finish(batch)
        return [o - offset for o, offset in zip(outputs, self.program.offsets, strict=True)]


def _dtypes(nodes: Sequence[Node]) -> dict[int, np.dtype[Any]]:
    """The dtype in which each node is computed: one that is exact for all of its partial sums."""
    chosen: dict[int, np.dtype[Any]] = {}
    intervals: dict[int, Interval] = {}
    for node in nodes:
        if node.op in RULES:
            rule = RULES[node.op]
            absolute = dict(node.attributes)
            for name in ("weights", "factor", "offset", "value"):
                if name in absolute:
                    absolute[name] = np.abs(absolute[name])
            # Magnitudes add up: a bound on every partial sum, in any order.
            op = "add" if node.op == "subtract" else node.op
            ends = [intervals[id(source)] for source in node.inputs]
            if op == "negative":
                magnitude = ends[0][1]
            else:
                magnitude = (RULES[op] if op != node.op else rule).interval(ends, absolute)[1]
        else:
            magnitude = np.maximum(np.abs(node.low), np.abs(node.high))
            if node.op == "round":
                magnitude = np.maximum(magnitude, intervals[id(node.inputs[0])][1])
        intervals[id(node)] = (magnitude, magnitude)
        top = int(np.max(magnitude, initial=0)) + 1
        sources = [chosen[id(source)] for source in node.inputs if node.op != "lookup"]
        own = np.float32 if top < 2**24 else np.float64 if top < 2**53 else np.int64
        chosen[id(node)] = np.result_type(np.dtype(own), *sources)
    return chosen


def _step(node: Node, inputs: list[int], dtypes: Mapping[int, np.dtype[Any]]) -> Step:
    if node.op == "round":
        return _round_step(node, inputs[0])
    if node.op == "lookup":
        return _lookup_step(node, inputs[0], dtypes[id(node)])
    evaluate_rule = RULES[node.op].evaluate
    dtype = dtypes[id(node)]
    attributes = dict(node.attributes)
    for name in ("weights", "factor", "offset", "value"):
        if name in attributes:
            attributes[name] = attributes[name].astype(dtype)

    def step(values: list[Any], batch: int, noise: Noise | None, wraps: Wraps | None) -> Array:
        arrays = [values[i] for i in inputs]
        arrays = [a if a.dtype == dtype else a.astype(dtype) for a in arrays]
        return evaluate_rule(arrays, attributes, batch)

    return step


def _round_step(node: Node, source: int) -> Step:
    dropped = node.attributes["dropped"]
    exact = node.attributes["exact"]
    scale = 2.0**-dropped
    # Exact rounding takes ties up; approximate rounding has its levels' edges half a unit lower.
    offset = 0.5 if exact else 0.5 + 2.0 ** -(dropped + 1)

    def step(values: list[Any], batch: int, noise: Noise | None, wraps: Wraps | None) -> Array:
        x = values[source]
        levels = x * x.dtype.type(scale) if x.dtype.kind == "f" else x * scale
        levels += levels.dtype.type(offset)
        if noise is not None and not exact:
            levels += noise(levels.shape)
        return np.floor(levels, out=levels)

    return step


def _lookup_step(node: Node, source: int, dtype: np.dtype[Any]) -> Step:
    tables = node.attributes["tables"]
    count, length = tables.shape
    first = node.attributes["first"]
    flat = tables.astype(dtype).reshape(-1)
    starts = (node.attributes["which"] * length).astype(np.intp) if count > 1 else None
    wrong = strays(node)

    def step(values: list[Any], batch: int, noise: Noise | None, wraps: Wraps | None) -> Array:
        index = values[source].astype(np.intp)
        if first:
            index -= first
        if index.size and (int(index.min()) < 0 or int(index.max()) >= length):
            # Beyond the width the padding bit flips, and the circuit returns minus the wrapped entry.
            turns = index // length
            sign = (1 - 2 * (turns & 1)).astype(dtype)
            inside = index - turns * length
            if starts is not None:
                inside += starts
            answers = np.take(flat, inside) * sign
            if wraps is not None:
                beyond = (index < 0) | (index >= length)
                wraps.mark(node, beyond if wraps.strict else wrong(index, answers))
            return answers
        if starts is not None:
            index += starts
        return np.take(flat, index)

    return step


def _wrap_output(node: Node) -> Callable[[Array, Wraps | None], Array]:
    """Decryption of an output of k bits, as the client's decoder was seen to do it.

    k + 1 bits arrive, the padding bit being one of them. Unsigned, all of them count. Signed, values from
    -2^k to 2^(k-1) - 1 are right.
    """
    half, full = 1 << (node.width - 1), 1 << node.width

    least, most = (-full, half) if node.signed else (0, 2 * full)

    def wrap(x: Array, wraps: Wraps | None) -> Array:
        x = x.astype(np.int64)
        if not x.size or (int(x.min()) >= least and int(x.max()) < most):
            return x
        if wraps is not None:
            wraps.mark(node, (x < least) | (x >= most))
        raw = x % (2 * full)
        if not node.signed:
            return raw
        return np.where(raw < half, raw, np.where(raw < full, raw - full, raw - 2 * full))

    return wrap


def recorded_tensors(
    outputs: Sequence[Node],
    inputs: Mapping[str, Array],
    shifts: Mapping[int, Any] | None = None,
) -> Iterator[tuple[Node, Array]]:
    """Every integer tensor of a recorded program that has no tables yet, in order, on a batch.

    Float groups are evaluated as they were written, without rounding: what the planner measures. Of what
    nothing reads any more nothing is kept.

    Args:
        shifts: what tuning adds to nodes, by ``id``: it stands for what tuned weights do to their means.
    """
    shifts = shifts or {}
    batch = len(next(iter(inputs.values())))
    nodes = Program.of(outputs).nodes
    last = {id(read): i for i, node in enumerate(nodes) for read in _read(node)}
    values: dict[int, Array] = {}
    for i, node in enumerate(nodes):
        if node.op == "input":
            result = inputs[node.name]
        elif node.op == "lookup":
            result = group_values(node, values[id(node.attributes["root"])], batch)
        else:
            arrays = [values[id(source)].astype(np.float64) for source in node.inputs]
            result = RULES[node.op].evaluate(arrays, node.attributes, batch)
            result = result + shifts[id(node)] if id(node) in shifts else result
        yield node, result
        values[id(node)] = result
        for read in _read(node):
            if last[id(read)] == i:
                del values[id(read)]


def _read(node: Node) -> tuple[Node, ...]:
    """What evaluating a recorded node reads, each once."""
    read = (node.attributes["root"],) if node.op == "lookup" else node.inputs
    return tuple({id(source): source for source in read}.values())


def recorded_values(outputs: Sequence[Node], inputs: Mapping[str, Array]) -> dict[int, Array]:
    """The same, all of them at once, by ``id``."""
    return {id(node): values for node, values in recorded_tensors(outputs, inputs)}


def samples_at_a_time(nodes: Iterable[Node], most: int, elements: int) -> int:
    """How many samples may go through a program at once, so that no step holds more elements.

    Args:
        most: samples in any case.
        elements: of the largest step, with the windows of a convolution.
    """
    largest = max(map(_step_size, nodes), default=1)
    return int(max(1, min(most, elements // max(largest, 1))))


def _step_size(node: Node) -> int:
    size = math.prod(n for n in node.shape if n != BATCH)
    if node.op != "conv":
        return size
    channels, depth, *kernel = node.attributes["weights"].shape
    return size + size // channels * depth * node.attributes["group"] * math.prod(kernel)


def group_values(node: Node, integers: Array, batch: int) -> Array:
    """What a recorded look-up gives where the tensor that its float group starts from is ``integers``."""
    root = node.attributes["root"]
    value = before_conversion(node.attributes["call"])
    result = evaluate(value, {id(root): integers.astype(np.int64)}, batch)
    return in_place(node, np.trunc(_finite(np.asarray(result, np.float64))), batch)


def real_group_values(node: Node, reals: Array, batch: int) -> Array:
    """The same of real numbers, neither rounded to integers in the end nor saturated."""
    root = node.attributes["root"]
    result = evaluate(before_rounding(node.attributes["call"]), {id(root): reals}, batch)
    return in_place(node, _finite(np.asarray(result, np.float64)), batch)


def _finite(result: Array) -> Array:
    """``result``; where a function is not defined a little beyond its range, the median of the rest."""
    finite = np.isfinite(result)
    if finite.all():
        return result
    return np.where(finite, result, np.median(result[finite]) if finite.any() else 0.0)


def in_place(node: Node, result: Array, batch: int) -> Array:
    """A float group's results where its look-up has them: layout that follows comes later."""
    inverse = node.attributes["inverse"]
    if inverse is None:
        return result
    axis = node.attributes["call"].shape.index(BATCH)
    shape = tuple(batch if n == BATCH else n for n in node.shape)
    into = node.shape.index(BATCH)
    flat = np.moveaxis(result, axis, 0).reshape(batch, -1)[:, inverse]
    rest = shape[:into] + shape[into + 1 :]
    return np.moveaxis(flat.reshape(batch, *rest), 0, into)
