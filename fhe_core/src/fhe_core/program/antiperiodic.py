"""Look-ups that use the padding bit: half a table for functions that change their sign after half a period.

An accumulator of k bits lives modulo 2^(k + 1), the padding bit being one of the k + 1 bits, and a look-up
beyond the k bits returns minus the wrapped entry (a negacyclic rotation: Chillotti et al., TFHE, 2016). So
2^k entries are enough for a function g on 2^(k + 1) values if g(x + 2^k) = -g(x). A triangle is such a
function: |x| is g(x) + 2^(k - 1), and a constant that is added after a look-up costs nothing. Its look-up
takes one bit less than another of as many levels. And since a triangle continues as a zigzag, a value that
leaves the period by e is answered as if it had stayed inside by e: nothing wraps to the other end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.errors import PlanError
from fhe_core.program.nodes import BATCH, Call, Node
from fhe_core.program.rules import RULES
from fhe_core.program.tabulation import before_rounding, distinct, results_at

Floats = NDArray[np.float64]

#: How far a function may be from a triangle, as a share of its largest value: what float32 is sure of.
_TOLERANCE = 1e-5
#: A function is looked at this many times beyond the bounds of its argument: both arms have to be seen.
_BEYOND = 4


@dataclass(frozen=True)
class Triangle:
    """tip + slope |x - centre|, for each element of a sample, in units of integers before and after.

    Where the slope is 0 the function is constant, and the centre is 0 too.
    """

    centre: Floats
    slope: Floats
    tip: Floats


def triangles(nodes: Sequence[Node], outputs: Iterable[Node]) -> dict[int, tuple[Node, Triangle]]:
    """The accumulators whose one reader is a look-up of triangles: the look-up too, by ``id``.

    Args:
        nodes: of a recorded program.
        outputs: what the client decrypts.
    """
    readers: dict[int, list[Node]] = {}
    for node in nodes:
        if node.op == "lookup":
            readers.setdefault(id(node.inputs[0]), []).append(node)
    leaving = {id(node) for node in outputs}
    found: dict[int, tuple[Node, Triangle]] = {}
    for key, (looked_up, *others) in readers.items():
        source = looked_up.inputs[0]
        if others or key in leaving or source.exact or source.op not in RULES:
            continue
        triangle = triangle_of(looked_up)
        if triangle is not None:
            found[key] = looked_up, triangle
    return found


def triangle_of(looked_up: Node) -> Triangle | None:
    """What a recorded look-up computes, unrounded and not saturated, if that is a triangle everywhere.

    None where it is something else for one element, or where layout lies between it and its accumulator.
    """
    root = looked_up.attributes["root"]
    if looked_up.inputs[0] is not root or looked_up.shape != root.shape:
        return None
    low, high = root.bounds
    far = _BEYOND * max(abs(low), abs(high), 1)
    ends = _reals(looked_up, np.array([-2 * far, -far, far, 2 * far]))
    if not np.isfinite(ends).all():
        return None
    left, right = (ends[1] - ends[0]) / far, (ends[3] - ends[2]) / far
    steep = np.maximum(np.abs(left), np.abs(right))
    if not (np.abs(left + right) <= _TOLERANCE * steep).all():
        return None
    slope = (right - left) / 2
    flat = slope == 0
    # Where the lines through either pair of points meet.
    centre = (ends[3] - ends[0] - 2 * far * (left + right)) / np.where(flat, 1, -2 * slope)
    centre = np.where(flat, 0.0, centre)
    tip = ends[0] + left * (centre + 2 * far)
    if (np.abs(centre) > far).any():
        return None
    nearest = np.rint(centre).astype(np.int64)
    places = 1 << np.arange(far.bit_length() + 1)
    places = np.concatenate([-places, [0], places])
    shape = tuple(1 if n == BATCH else n for n in root.shape)
    got = _reals(looked_up, places, -nearest.reshape(shape))
    wanted = tip + slope * np.abs(places[:, None] + nearest - centre)
    if (
        not np.isfinite(got).all()
        or not (np.abs(got - wanted) <= _TOLERANCE * (np.abs(slope) * far + np.abs(tip))).all()
    ):
        return None
    return Triangle(centre.reshape(shape), slope.reshape(shape), tip.reshape(shape))


def _reals(looked_up: Node, levels: NDArray[np.int64], offset: Any = 0) -> Floats:
    """What a recorded look-up rounds, at levels minus ``offset``: (levels, elements)."""
    call = looked_up.attributes["call"]
    value = before_rounding(call)
    root, inverse = looked_up.attributes["root"], looked_up.attributes["inverse"]
    results = results_at(value if isinstance(value, Call) else call, root, levels, offset)
    results = results.astype(np.float64)
    return results if inverse is None else results[:, inverse]


def half_tables(
    node: Node,
    levels: NDArray[np.int64],
    cell: NDArray[np.int64],
    offset: Any = 0,
    chunk: int = 2**19,
) -> tuple[NDArray[np.int64], NDArray[np.intp], NDArray[np.int64]]:
    """The distinct tables of a look-up over half a period, and what is to be added to its results.

    Of two levels that are half a period apart, both have a say in the entry: what their mean leaves over is
    the constant.

    Args:
        levels: the values of the integer input in one half of the period, evenly spaced.
        cell: an entry is the mean of the function at level + ``cell``, rounded.
        offset: what was added to the integer input before the look-up; broadcasts to it.

    Returns:
        (tables, len(levels)) int64, the table's number for each element, and the constant of each: shape of
        ``node`` with the batch dimension 1. Results stay inside the bounds of ``node``.

    Raises:
        PlanError: the function is none that changes its sign after half of this period.
    """
    half = len(levels) * int(levels[1] - levels[0])
    shape = tuple(1 if n == BATCH else n for n in node.shape)
    step = max(1, chunk // (max(1, int(np.prod(shape))) * len(cell)))
    parts = []
    for start in range(0, len(levels), step):
        points = (levels[start : start + step, None] + cell).reshape(-1)
        # The period ends at both ends of [-half, half).
        beyond = (points + 2 * half) % (2 * half) - half
        means = [
            _reals(node, at, offset).reshape(-1, len(cell), int(np.prod(shape))).mean(axis=1)
            for at in (points, beyond)
        ]
        parts.append(np.stack(means))
    here, there = np.concatenate(parts, axis=1)
    middle = (here + there) / 2
    constant = middle.mean(axis=0)
    low, high = (np.broadcast_to(bound, shape).reshape(-1) for bound in (node.low, node.high))
    added = np.clip(np.rint(constant), low, high)
    entries = np.rint((here - there) / 2)
    room = np.minimum(high - added, added - low)
    fits = np.abs(entries) <= 1.1 * room + 1
    # The tip may be a part of a level away from the middle of one.
    step = np.abs(np.diff(entries, axis=0)).max(axis=0)
    if not ((np.abs(middle - constant) <= np.maximum(0.5, step / 4)).all() and fits.all()):
        raise PlanError(
            "the plan takes a look-up for a triangle that fills its accumulator, and it is none",
            where=node.where,
            expected="an absolute value, centred by the accumulator's offset",
            got="a function whose values half a period apart do not add up to one constant in range",
            fix="set antiperiodic to false for that accumulator, or compile again for a new plan",
        )
    tables, which = distinct(np.clip(entries, -room, room).astype(np.int64), shape)
    return tables, which, _small(added.astype(np.int64).reshape(shape))


def _small(array: NDArray[np.int64]) -> NDArray[np.int64]:
    """The array with one element along each axis along which all are equal."""
    for axis in range(array.ndim):
        first = array.take([0], axis=axis)
        if (array == first).all():
            array = first
    return array


def whole_tables(looked_up: Node) -> tuple[NDArray[np.int64], int]:
    """The tables of a finished look-up on all levels that have an answer, and the first of these levels.

    Of an antiperiodic one: (tables, 2^(k + 1)), those beyond its k bits too.
    """
    tables, first = looked_up.attributes["tables"], int(looked_up.attributes["first"])
    if not looked_up.attributes.get("antiperiodic"):
        return tables, first
    middle = tables.shape[1] // 2
    whole = np.concatenate([-tables[:, middle:], tables, -tables[:, :middle]], axis=1)
    return whole, first - (tables.shape[1] - middle)
