"""What is computed twice is computed once: equal look-ups of one tensor, duplicate channels, equal nodes.

Two elements compute the same if they are equal on random inputs: linear operations are evaluated modulo
2^64, and a look-up of a table is a random function of its own (polynomial identity testing: Schwartz, 1980;
global value numbering: Alpern, Wegman, Zadeck, 1988). So columns of equal weights, an element that
was broadcast before its look-up, and (a + b) - b are all recognised by one comparison of numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fhe_core.plugins.optimization.constant_folding import read_elements, shared_roundings
from fhe_core.program.nodes import BATCH, Node
from fhe_core.program.program import Program
from fhe_core.program.remarks import Remark, each_costs, elements, place
from fhe_core.program.rewriting import (
    Array,
    computed_by,
    flattened,
    joined,
    laid_out,
    read_in_part,
    rewritten,
    sample_shape,
    unflattened,
)
from fhe_core.program.rules import RULES

#: Random inputs. Weights that differ by a multiple of 2^k agree on one with probability 2^(k - 64).
_RUNS = 2
_SEED = 20240
_CONSTANTS = ("weights", "factor", "offset", "value")


def shared_nodes(program: Program) -> tuple[Program, list[Remark]]:
    """The program with each look-up, exact rounding and product computed once."""
    numbers = fingerprints(program)
    first: dict[bytes, Node] = {}
    made: dict[int, Node] = {}
    found: list[Remark] = []

    def change(node: Node, moved: Node) -> Node:
        if node.op == "input":
            return moved
        key = repr((node.shape, node.width, node.signed)).encode() + numbers[id(node)].tobytes()
        twin = first.setdefault(key, node)
        if twin is not node:
            found.extend(_merged(node, twin))
            return made[id(twin)]
        made[id(node)] = moved
        return moved

    result = rewritten(program, change)
    return (program, []) if result is program else (result, found)


def _merged(node: Node, twin: Node) -> list[Remark]:
    """What a node that equals another one costs no more."""
    also = "itself" if place(twin) == place(node) else place(twin)
    says = f"all {elements(node)} elements are equal to those of {also}"
    if node.op == "lookup":
        return [Remark("common-subexpression elimination", place(node), elements(node), says)]
    if node.op == "round" and node.attributes["exact"]:
        count = elements(node) * int(node.attributes["dropped"])
        return [Remark("common-subexpression elimination", place(node), count, says)]
    if "weights" in node.attributes:
        return [Remark("common-subexpression elimination", place(node), 0, says)]
    return []


# -- which elements are equal


def fingerprints(program: Program) -> dict[int, NDArray[np.uint64]]:
    """A number for each element, equal for those that compute the same; by ``id``, as samples are shaped."""
    rng = np.random.default_rng(_SEED)
    values: dict[int, Array] = {}
    for node in program.nodes:
        arrays = [values[id(source)] for source in node.inputs]
        if node.op == "input":
            shape = tuple(_RUNS if n == BATCH else n for n in node.shape)
            values[id(node)] = rng.integers(-(2**63), 2**63 - 1, shape)
        elif node.op == "lookup":
            values[id(node)] = _mixed(arrays[0], _table_keys(node))
        elif node.op == "round":
            how = node.attributes["dropped"], node.attributes["exact"]
            values[id(node)] = _mixed(arrays[0], _key(repr(how).encode()))
        else:
            values[id(node)] = _modular(node, arrays)
    read = read_elements(program, {})
    return {
        id(node): _read_alone(_joined_runs(node, values[id(node)]), read[id(node)])
        for node in program.nodes
    }


def _read_alone(numbers: NDArray[np.uint64], read: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """The numbers, with those of elements that nothing reads by their place alone.

    They may hold anything, outside of their bounds too, so nothing that is read is to become one of them.
    """
    places = np.arange(numbers.size, dtype=np.uint64).reshape(numbers.shape)
    return np.where(read, numbers, _hashed(places))


def _modular(node: Node, arrays: Sequence[Array]) -> Array:
    """An operation modulo 2^64, as integers of 64 bits wrap."""
    attributes = dict(node.attributes)
    for name in _CONSTANTS:
        if name in attributes:
            attributes[name] = np.asarray(attributes[name], np.int64)
    with np.errstate(over="ignore"):
        return RULES[node.op].evaluate(arrays, attributes, _RUNS)


def _joined_runs(node: Node, values: Array) -> NDArray[np.uint64]:
    runs = np.moveaxis(values, node.shape.index(BATCH), 0).reshape(_RUNS, -1)
    number = np.zeros(runs.shape[1], np.uint64)
    for run in runs:
        number = _hashed(number ^ _hashed(run.view(np.uint64)))
    return number.reshape(sample_shape(node))


def _table_keys(looked_up: Node) -> NDArray[np.uint64]:
    first = str(looked_up.attributes["first"]).encode()
    keys = [_key(first + table.tobytes()) for table in looked_up.attributes["tables"]]
    return np.array(keys, np.uint64)[looked_up.attributes["which"]]


def _key(content: bytes) -> np.uint64:
    return np.uint64(int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little"))


def _mixed(values: Array, key: NDArray[np.uint64] | np.uint64) -> Array:
    return _hashed(np.ascontiguousarray(values).view(np.uint64) ^ key).view(np.int64)


def _hashed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A fixed random permutation of the integers of 64 bits (SplitMix: Steele, Lea, Flood, 2014)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)))


# -- elements of look-ups


@dataclass(frozen=True)
class Owners:
    """For each element of a look-up the first equal element of any look-up.

    Attributes:
        who: the look-up that has it, in their order.
        place: the element's flat number there.
        mine: whether it is this look-up.
    """

    who: NDArray[np.int64]
    place: NDArray[np.int64]
    mine: NDArray[np.bool_]


def _owners(
    lookups: Sequence[Node], numbers: Mapping[int, NDArray[np.uint64]]
) -> dict[int, Owners]:
    """Those of the look-ups that have an element in common with themselves or with others, by ``id``."""
    if not lookups:
        return {}
    # Equal in width too: else the narrower one's component would become as wide as the other's.
    salted = [
        _hashed(numbers[id(node)].reshape(-1) ^ np.uint64(2 * node.width + node.signed))
        for node in lookups
    ]
    ends = np.cumsum([len(part) for part in salted])
    starts = np.concatenate([[0], ends[:-1]])
    _, index, inverse = np.unique(np.concatenate(salted), return_index=True, return_inverse=True)
    first = index[inverse.reshape(-1)]
    owners: dict[int, Owners] = {}
    for i, (node, start, end) in enumerate(zip(lookups, starts, ends, strict=True)):
        own = first[start:end]
        if not np.array_equal(own, np.arange(start, end)):
            who = np.searchsorted(ends, own, side="right")
            owners[id(node)] = Owners(who, own - starts[who], who == i)
    return owners


def shared_elements(program: Program) -> tuple[Program, list[Remark]]:
    """The program with each element of a look-up computed once."""
    owners = _owners(program.lookups, fingerprints(program))
    shared = shared_roundings(program)
    made: dict[int, Node] = {}
    found: list[Remark] = []

    def change(node: Node, moved: Node) -> Node:
        made[id(node)] = moved
        own = owners.get(id(node))
        if own is None or id(node.inputs[0]) in shared:
            return moved
        copied = _shared(moved, own, program.lookups, made)
        if copied is None:
            return moved
        made[id(node)] = copied
        count = elements(node) - len(np.unique(own.place[own.mine]))
        says = f"{count} of {elements(node)} look-ups are equal to others: they are copied"
        found.append(
            Remark("common-subexpression elimination", place(node), count * each_costs(node), says)
        )
        return copied

    result = rewritten(program, change)
    return (program, []) if result is program else (result, found)


def _shared(
    looked_up: Node, owners: Owners, lookups: Sequence[Node], made: Mapping[int, Node]
) -> Node | None:
    """The look-up with its equal elements copied; None where they cannot be taken out.

    Args:
        made: what became of earlier look-ups, by ``id``.
    """
    others = [int(i) for i in np.unique(owners.who[~owners.mine])]
    if any(node.shape[0] != BATCH for node in (looked_up, *(lookups[i] for i in others))):
        return None
    if not others:
        return computed_by(looked_up, owners.place.reshape(sample_shape(looked_up)))
    own = np.unique(owners.place[owners.mine])
    places = np.searchsorted(own, owners.place)
    parts: list[Node] = []
    if len(own):
        parts.append(read_in_part(looked_up, own, None))
    start = len(own)
    for i in others:
        parts.append(flattened(made[id(lookups[i])]))
        theirs = ~owners.mine & (owners.who == i)
        places[theirs] = start + owners.place[theirs]
        start += elements(lookups[i])
    return unflattened(laid_out(joined(parts), places, 1), looked_up.shape)
