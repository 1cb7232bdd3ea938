"""Control flow of the default ONNX domain: branches and loops over subgraphs.

A subgraph arrives as a function, arrays in and a tuple of arrays out, that knows what it reads from
the graph around it. Its ``inputs`` and ``outputs`` say what the model declares of their types.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_ops_std._domains import Flag

Array = NDArray[Any]
Body = Callable[..., tuple[Any, ...]]
Values = tuple[Any, ...]


def if_(cond: Array, /, *, else_branch: Body, then_branch: Body) -> Values:
    """What ``then_branch`` returns if cond, a single Boolean, is true; else what the other does."""
    return then_branch() if cond.item() else else_branch()


def loop(
    m: Array | None = None,
    cond: Array | None = None,
    *v_initial: Any,
    body: Body,
) -> Values:
    """``body(i, cond, *v)``, which returns ``(cond, *v, *scanned)``, run up to ``m`` times, while
    cond is true; then the last v, and what was scanned in each iteration, stacked along axis 0.

    Both limits are optional, and then do not count: a cond that is absent starts as true. The
    condition that the body returns ends the loop even so, as it does in onnxruntime.
    """
    limit = None if m is None else m.item()
    running = np.array(True) if cond is None else cond
    values: Values = v_initial
    scanned: list[Values] = []
    for i in itertools.count():
        if (limit is not None and i >= limit) or not running.item():
            break
        running, *rest = body(_counter(i, body), running, *values)
        values = tuple(rest[: len(values)])
        scanned.append(tuple(rest[len(values) :]))
    return *values, *_stacked(scanned, body, 1 + len(values))


def scan_8(
    sequence_lens: Array | None = None,
    *initial_state_and_scan_inputs: Array,
    body: Body,
    directions: Sequence[Flag] | None = None,
    num_scan_inputs: int,
) -> Values:
    """`scan_9` of each sample: states are (N, ...), scan inputs (N, time, ...).

    A sample ends after its number of steps in sequence_lens: (N,); the rest of its outputs is 0.
    """
    states, inputs = _parted(initial_state_and_scan_inputs, num_scan_inputs)
    (samples, steps), *others = {x.shape[:2] for x in inputs}
    if others:
        raise ValueError("the scan inputs differ in their batch or length")
    if any(len(state) != samples for state in states):
        raise ValueError("the states and the scan inputs differ in their batch")
    lengths = [steps] * samples if sequence_lens is None else sequence_lens.tolist()
    results = []
    for sample, length in enumerate(lengths):
        if not 0 <= length <= steps:
            raise ValueError(f"a sequence of length {length} in one of {steps} steps")
        given = [x[sample] for x in states] + [x[sample, :length] for x in inputs]
        result = scan_9(
            *given,
            body=body,
            num_scan_inputs=num_scan_inputs,
            scan_input_directions=directions,
        )
        padded = [_lengthened(x, steps) for x in result[len(states) :]]
        results.append((*result[: len(states)], *padded))
    return tuple(map(np.stack, zip(*results, strict=True)))


def scan_9(
    *initial_state_and_scan_inputs: Array,
    body: Body,
    num_scan_inputs: int,
    scan_input_axes: Sequence[int] | None = None,
    scan_input_directions: Sequence[Flag] | None = None,
    scan_output_axes: Sequence[int] | None = None,
    scan_output_directions: Sequence[Flag] | None = None,
) -> Values:
    """``body(*states, *slices)``, which returns ``(*states, *scanned)``, run for each step along
    an axis of the last ``num_scan_inputs`` inputs; then the last states, and what was scanned,
    stacked along an axis. A direction of 1 goes from the last step to the first."""
    states, inputs = _parted(initial_state_and_scan_inputs, num_scan_inputs)
    axes = _each(scan_input_axes, len(inputs), "scan_input_axes")
    sequences = [np.moveaxis(x, axis, 0) for x, axis in zip(inputs, axes, strict=True)]
    backward = _each(scan_input_directions, len(inputs), "scan_input_directions")
    sequences = [x[::-1] if back else x for x, back in zip(sequences, backward, strict=True)]
    if len({len(x) for x in sequences}) > 1:
        raise ValueError(f"scan inputs of different lengths, {[len(x) for x in sequences]}")
    scanned: list[Values] = []
    for slices in zip(*sequences, strict=True):
        results = body(*states, *slices)
        states = results[: len(states)]
        scanned.append(results[len(states) :])
    outputs = _stacked(scanned, body, len(states), scan_output_directions)
    out_axes = _each(scan_output_axes, len(outputs), "scan_output_axes")
    return *states, *(np.moveaxis(x, 0, axis) for x, axis in zip(outputs, out_axes, strict=True))


def _counter(i: int, body: Body) -> Array:
    """The iteration's number; some exporters declare one element where ONNX says a scalar."""
    declared = getattr(body, "inputs", ())
    rank = len(declared[0].shape or ()) if declared else 0
    return np.full((1,) * rank, i, dtype=np.int64)


def _parted(values: Values, inputs: int) -> tuple[Values, Values]:
    """The initial states and the scan inputs."""
    if not 0 < inputs <= len(values):
        raise ValueError(f"num_scan_inputs is {inputs} where there are {len(values)} inputs")
    return values[: len(values) - inputs], values[len(values) - inputs :]


def _each(given: Sequence[int] | None, number: int, name: str) -> Sequence[int]:
    if given is not None and len(given) != number:
        raise ValueError(f"{name} has {len(given)} elements and not {number}")
    return (0,) * number if given is None else given


def _stacked(
    scanned: Sequence[Values], body: Body, first: int, directions: Sequence[int] | None = None
) -> list[Array]:
    """What each iteration gave, along a new axis 0, for the body's outputs from ``first`` on."""
    columns: list[Any] = list(zip(*scanned, strict=True)) if scanned else _columns(body, first)
    backward = _each(directions, len(columns), "scan_output_directions")
    if not scanned:
        return columns
    return [
        np.stack(parts[::-1] if back else parts)
        for parts, back in zip(columns, backward, strict=True)
    ]


def _columns(body: Body, first: int) -> list[Array]:
    """No element of each scanned output. A dimension that the model does not declare is 0."""
    if not hasattr(body, "outputs"):
        raise NotImplementedError("no iteration, and nothing is known of what the body returns")
    found = []
    for info in body.outputs[first:]:
        if info.dtype is None:
            raise NotImplementedError(
                f"no iteration, and the model does not declare the type of {info.name!r}"
            )
        shape = tuple(d if isinstance(d, int) else 0 for d in info.shape or ())
        found.append(np.zeros((0, *shape), info.dtype))
    return found


def _lengthened(x: Array, length: int) -> Array:
    """x with zeros after it, ``length`` long."""
    return np.concatenate([x, np.zeros((length - len(x), *x.shape[1:]), x.dtype)])


IMPLEMENTATIONS: tuple[tuple[str, int, Callable[..., Any]], ...] = (
    ("If", 1, if_),
    ("Loop", 1, loop),
    ("Scan", 8, scan_8),
    ("Scan", 9, scan_9),
)
