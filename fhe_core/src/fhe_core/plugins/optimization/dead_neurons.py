"""Neurons that did nothing on the calibration data lose their look-up: approximate, and measured.

What a look-up may read follows from bounds that hold for every input. What it does read is far less: a ReLU
that was never positive has one answer. A sample may still do what none did before. Its answer is
then wrong by what the table has there. So a margin of levels has to have the same answer too, and how
many samples leave what was assumed is measured, on samples that had no part in the assumption.

A neuron that was never negative keeps its look-up. Without, it would pass on what no bound holds for, and an
accumulator behind it could wrap around.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fhe_core.plugins.optimization.constant_folding import Lines, lines_of, without_lines
from fhe_core.program.antiperiodic import whole_tables
from fhe_core.program.interpreter import Interpreter
from fhe_core.program.nodes import BATCH
from fhe_core.program.program import Program
from fhe_core.program.remarks import Remark, place
from fhe_core.program.rewriting import Array

#: With fewer samples, none of which leaves a range, one in thirty still may (rule of three: Hanley,
#: Lippman-Hand, 1983).
LEAST_SAMPLES = 100
#: How many levels beyond the observed ones have to give the same answer: a share of their span, and one for
#: the noise of approximate rounding.
_MARGIN = 0.1
#: Samples that go through the program at a time.
_CHUNK = 512

#: Least and largest level of each element of a look-up, of the shape of one sample; by its ``id``.
Levels = Mapping[int, tuple[Array, Array]]


def without_dead_neurons(
    program: Program, samples: Mapping[str, Array]
) -> tuple[Program, list[Remark]]:
    """The program without look-ups that have one answer on the samples.

    Args:
        samples: integers for each input of the program, by its name. What half of them would make one
            assume is tried on the other half.
    """
    count = len(next(iter(samples.values()), ()))
    if count < LEAST_SAMPLES or not program.lookups:
        return program, []
    # Every other one: data is often sorted.
    first, second = ({name: x[i::2] for name, x in samples.items()} for i in (0, 1))
    seen, unseen = _observed(program, first), _observed(program, second)
    lines = _constants(program, _joined(seen, unseen))
    if not any(own.found.any() for own in lines.values()):
        return program, []
    wrong = _wrong(program, _constants(program, seen), second)
    program, found = without_lines(program, lines)
    shares = {name: number / (count // 2) for name, number in wrong.items()}
    return program, [_measured(remark, shares) for remark in found]


def _measured(remark: Remark, shares: Mapping[str, float]) -> Remark:
    if remark.name != "constant folding":
        return replace(remark, says=f"{remark.says} but dead neurons", exact=False)
    count = remark.says.partition(" look-ups")[0]
    says = (
        f"{count} look-ups had one answer on the calibration data, which is added as a constant; with what "
        f"half of it shows, {shares[remark.node]:.2%} of the other half's samples would have another"
    )
    return replace(remark, name="dead-neuron pruning", says=says, exact=False)


def _constants(program: Program, levels: Levels) -> dict[int, Lines]:
    """Where look-ups have one answer on the levels and a margin around them."""
    lines: dict[int, Lines] = {}
    for node in program.lookups:
        low, high = levels[id(node)]
        if node.inputs[0].exact:
            # A case that no sample was is a case all the same.
            low, high = node.inputs[0].low, node.inputs[0].high
        margin = np.ceil(_MARGIN * (high - low)).astype(np.int64) + 1
        found = lines_of(node, low - margin, high + margin)
        lines[id(node)] = Lines(
            found.constant, np.zeros_like(found.factor), found.offset * found.constant
        )
    return lines


def _observed(program: Program, samples: Mapping[str, Array]) -> Levels:
    """The levels that look-ups read on the samples."""
    found: dict[int, tuple[Array, Array]] = {}
    for readings in _readings(program, samples):
        for node, read in zip(program.lookups, readings, strict=True):
            axis = node.shape.index(BATCH)
            own = {id(node): (read.min(axis, keepdims=True), read.max(axis, keepdims=True))}
            found |= _joined({id(node): found[id(node)]}, own) if id(node) in found else own
    return found


def _joined(first: Levels, second: Levels) -> dict[int, tuple[Array, Array]]:
    return {
        key: (np.minimum(low, second[key][0]), np.maximum(high, second[key][1]))
        for key, (low, high) in first.items()
    }


def _wrong(
    program: Program, lines: Mapping[int, Lines], samples: Mapping[str, Array]
) -> dict[str, int]:
    """How many samples have another answer than a constant somewhere, by the place of the look-up."""
    counts: dict[str, int] = {}
    for readings in _readings(program, samples):
        marks: dict[str, NDArray[np.bool_]] = {}
        for node, read in zip(program.lookups, readings, strict=True):
            (tables, first), own = whole_tables(node), lines[id(node)]
            level = np.clip(read - first, 0, tables.shape[1] - 1)
            other = own.found & (tables[node.attributes["which"], level] != own.offset)
            others = tuple(i for i, n in enumerate(node.shape) if n != BATCH)
            name = place(node)
            marks[name] = marks.get(name, False) | other.any(axis=others)
        for name, mark in marks.items():
            counts[name] = counts.get(name, 0) + int(mark.sum())
    return counts


def _readings(program: Program, samples: Mapping[str, Array]) -> Iterator[Sequence[Array]]:
    """What each look-up reads, on some samples at a time."""
    sources = Program.of([node.inputs[0] for node in program.lookups])
    run = Interpreter(sources)
    names = [node.name for node in sources.inputs]
    count = len(next(iter(samples.values())))
    for start in range(0, count, _CHUNK):
        yield run({name: samples[name][start : start + _CHUNK] for name in names})
