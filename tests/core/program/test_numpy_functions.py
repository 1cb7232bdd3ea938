"""NumPy functions on encrypted integers: they give what they give on arrays, or say what to write instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fhe_core.errors import CompilationError, Where
from fhe_core.program.interpreter import recorded_values
from fhe_core.program.nodes import BATCH, Node, Origin, recording
from fhe_core.program.tensor import Tensor, integers

RNG = np.random.default_rng(0)
WEIGHTS = RNG.integers(-3, 4, (6, 4))
ROW = RNG.integers(-8, 8, (1, 6))
MASK = np.array([True, False, True, True, False, True])


def encrypted(name: str, *shape: int) -> Tensor:
    """Integers from -8 to 7."""
    ends = np.full((1, *shape), -8), np.full((1, *shape), 7)
    return Tensor(Node("input", (), (BATCH, *shape), *ends, {"encrypted": True}, name=name))


def on_integers(function: Callable[..., Any], *shape: int, count: int) -> tuple[Any, Any]:
    """A function's results on encrypted integers, and on arrays of the same integers."""
    names = "ij"[:count]
    arrays = {name: RNG.integers(-8, 8, (5, *shape)) for name in names}
    made = function(*(encrypted(name, *shape) for name in names))
    wanted = function(*arrays.values())
    parts = made if isinstance(made, (list, tuple)) else [made]
    for part, array in zip(
        parts, wanted if isinstance(made, (list, tuple)) else [wanted], strict=True
    ):
        assert tuple(5 if n == BATCH else n for n in part.shape) == array.shape
        assert part.dtype == array.dtype or {part.dtype.kind, array.dtype.kind} <= set("iu")
    nodes = [integers(part).value for part in parts]
    values = recorded_values(nodes, arrays)
    for node in nodes:
        found = np.broadcast_to(values[id(node)], tuple(5 if n == BATCH else n for n in node.shape))
        assert ((node.low <= found) & (found <= node.high)).all()
    got = [np.asarray(values[id(node)]) for node in nodes]
    return (got, wanted) if isinstance(made, (list, tuple)) else (got[0], wanted)


def column(i: Any) -> Any:
    """A constant, which has one row for all samples where the batch is symbolic."""
    return np.full((1 if isinstance(i, Tensor) else len(i), 1), 3)


ONE: dict[str, Callable[[Any], Any]] = {
    "array_split": lambda i: np.array_split(i, 4, axis=1),
    "split": lambda i: np.split(i, [1, 4], axis=1),
    "hsplit": lambda i: np.hsplit(i, 3),
    "diff": lambda i: np.diff(i, axis=1),
    "diff, twice": lambda i: np.diff(i, 2),
    "roll": lambda i: np.roll(i, 2, axis=1),
    "hstack": lambda i: np.hstack([i, -i]),
    "hstack with a constant": lambda i: (
        np.hstack([i[:, :1], np.ones((len(ROW), 1), int) * 3, i])
        if isinstance(i, Tensor)
        else np.hstack([i[:, :1], np.full((5, 1), 3), i])
    ),
    "stack": lambda i: np.stack([i, 2 * i, i], axis=-1),
    "dstack": lambda i: np.dstack([i, i + 1]),
    "column_stack": lambda i: np.column_stack([i, i[:, 0]]),
    "append": lambda i: np.append(i, i[:, :2], axis=1),
    "insert": lambda i: np.insert(i, 2, 5, axis=1),
    "delete": lambda i: np.delete(i, [0, 3], axis=1),
    "flip": lambda i: np.flip(i, 1),
    "fliplr": np.fliplr,
    "tile": lambda i: np.tile(i, (1, 2)),
    "tile into more dimensions": lambda i: np.tile(i[:, None], (1, 2, 1)),
    "repeat": lambda i: np.repeat(i, [1, 0, 2, 1, 1, 3], axis=1),
    "pad": lambda i: np.pad(i, ((0, 0), (1, 2)), constant_values=4),
    "pad, two constants": lambda i: np.pad(i, ((0, 0), (1, 2)), constant_values=((0, 0), (4, -4))),
    "pad, reflected": lambda i: np.pad(i, ((0, 0), (2, 3)), mode="reflect"),
    "take": lambda i: np.take(i, [[0, 2], [5, -1]], axis=1),
    "take, wrapping": lambda i: np.take(i, [7, -8], axis=1, mode="wrap"),
    "take_along_axis": lambda i: (
        np.take_along_axis(i, np.zeros((1, 2), int) + 3, axis=1)
        if isinstance(i, Tensor)
        else i[:, [3, 3]]
    ),
    "compress": lambda i: np.compress(MASK, i, axis=1),
    "list index": lambda i: i[:, [2, 0, 1, 3]],
    "mask index": lambda i: i[:, MASK],
    "two lists": lambda i: i.reshape(-1, 2, 3)[:, [0, 1], [2, 0]],
    "newaxis and list": lambda i: i[:, None, [1, 1]],
    "ellipsis": lambda i: i[..., 1:-1],
    "rot90": lambda i: np.rot90(i.reshape(-1, 2, 3), axes=(1, 2)),
    "swapaxes": lambda i: i.reshape(-1, 2, 3).swapaxes(1, 2),
    "diagonal": lambda i: np.diagonal(i[:, :4].reshape(-1, 2, 2), axis1=1, axis2=2),
    "triu": lambda i: np.triu(i.reshape(-1, 2, 3)),
    "atleast_3d": np.atleast_3d,
    "block": lambda i: np.block([[i, 2 * i]]),
    "cumsum": lambda i: np.cumsum(i, axis=1),
    "cumsum, method": lambda i: i.reshape(-1, 2, 3).cumsum(1),
    "sum": lambda i: i.sum(axis=1, keepdims=True),
    "sum of a part": lambda i: np.sum(i, axis=1, where=MASK),
    "sum from": lambda i: np.sum(i, axis=1, initial=7),
    "sum of dtype": lambda i: np.sum(i, 1, np.int64),
    "add.reduce": lambda i: np.add.reduce(i, axis=1),
    "sum of absolute values": lambda i: np.abs(i).sum(axis=1),
    "product of absolute values": lambda i: np.abs(i) @ WEIGHTS,
    "max": lambda i: i.max(axis=1),
    "min over axes": lambda i: np.min(i.reshape(-1, 2, 3), axis=(1, 2), keepdims=True),
    "maximum.reduce": lambda i: np.maximum.reduce(i, axis=1),
    "any": lambda i: np.any(i > 5, axis=1),
    "all": lambda i: (i > -7).all(axis=1),
    "count_nonzero": lambda i: np.count_nonzero(i, axis=1),
    "i * (i > 0)": lambda i: i * (i > 0),
    "(i > 0) * i + (i < 0)": lambda i: (i > 0) * i + (i < 0),
    "i + (i > 0)": lambda i: i + (i > 0),
    "-(i > 0) as integers": lambda i: -(i > 0).astype(np.int64),
    "~(i > 0)": lambda i: ~(i > 0),
    "(i > 0) & (i < 4)": lambda i: (i > 0) & (i < 4),
    "i > 0": lambda i: i > 0,
    "clip": lambda i: i.clip(-2, 3),
    "clip from below": lambda i: np.clip(i, 0, None),
    "abs": abs,
    "sign": np.sign,
    "i // 3": lambda i: i // 3,
    "i % 4": lambda i: i % 4,
    "divmod": lambda i: divmod(i, 3),
    "i ** 2": lambda i: i**2,
    "i & 3": lambda i: i & 3,
    "i << 1": lambda i: i << 1,
    "3 - i": lambda i: 3 - i,
    "minus an unsigned": lambda i: i - np.uint8(3),
    "minus an int8": lambda i: i - np.int8(-128),
    "minus a truth value": lambda i: i - np.ones(6, bool),
    "where": lambda i: np.where(i > 0, i, 2),
    "where, constant mask": lambda i: np.where(MASK, i, -3),
    "where, two constants": lambda i: np.where(i > 2, 5, -1),
    "isin": lambda i: np.isin(i, [1, 5, -8]),
    "select": lambda i: np.select([i > 3, i < -3], [i, 7], 0),
    "in place": lambda i: _in_place(i),
    "dot": lambda i: i.dot(WEIGHTS),
    "inner": lambda i: np.inner(i, WEIGHTS.T),
    "concatenate truth values": lambda i: ~np.concatenate([i > 0, i < 3], axis=1),
    "size": lambda i: i * np.size(i, 1) + i.ndim,
}
TWO: dict[str, Callable[[Any, Any], Any]] = {
    "i * (j > 0)": lambda i, j: i * (j > 0),
    "i > j": lambda i, j: i > j,
    "i == j": lambda i, j: i == j,
    "(i > 0) & (j > 0)": lambda i, j: (i > 0) & (j > 0),
    "(i > 0) + (j > 0)": lambda i, j: (i > 0) + (j > 0),
    "(i > 0) ^ (j > 0)": lambda i, j: (i > 0) ^ (j > 0),
    "logical_or": lambda i, j: np.logical_or(i, j),
    "where": lambda i, j: np.where(i > j, i, j),
    "where of a third": lambda i, j: np.where(i > 2, j, 3),
    "maximum": np.maximum,
    "abs(i) + abs(j)": lambda i, j: abs(i) + abs(j),
    "abs(i) @ ... + j": lambda i, j: abs(i) @ WEIGHTS + j[:, :4],
    "i * j": lambda i, j: i * j,
    "concatenate": lambda i, j: np.concatenate([abs(i), j], axis=1),
    "hstack of truth values": lambda i, j: np.hstack([i > 0, j > 0]),
    "i // 2 - j % 3": lambda i, j: i // 2 - j % 3,
}


def _in_place(i: Any) -> Any:
    y = i + 0
    y += i
    y *= 3
    y //= 2
    return y


@pytest.mark.parametrize("name", ONE)
def test_on_encrypted_integers_numpy_gives_what_it_gives_on_arrays(name: str) -> None:
    got, wanted = on_integers(ONE[name], 6, count=1)
    assert (
        all(map(np.array_equal, got, wanted))
        if isinstance(wanted, (list, tuple))
        else np.array_equal(got, wanted)
    )


@pytest.mark.parametrize("name", TWO)
def test_so_it_does_on_two_tensors(name: str) -> None:
    got, wanted = on_integers(TWO[name], 6, count=2)
    assert np.array_equal(got, wanted)


REFUSED: dict[str, Callable[[Any], Any]] = {
    "np.linalg.norm": lambda i: np.linalg.norm(i, axis=1),
    "np.sort": lambda i: np.sort(i, axis=1),
    "np.argmax": lambda i: i.argmax(axis=1),
    "np.einsum": lambda i: np.einsum("ni,ij->nj", i, WEIGHTS),
    "np.var": lambda i: i.var(axis=1),
    "np.prod": lambda i: np.prod(i, axis=1),
    "np.unique": np.unique,
    "np.nonzero": lambda i: np.where(i > 0),
    "np.ndarray.tolist": lambda i: i.tolist(),
    "np.ndarray.sort": lambda i: i.sort(),
    "np.maximum.accumulate": np.maximum.accumulate,
    "np.apply_along_axis": lambda i: np.apply_along_axis(sorted, 1, i),
    "np.floor_divide": lambda i: i // encrypted("j", 6),
    "np.convolve": lambda i: np.convolve(i, [1, 2]),
}
#: What Python or NumPy do without asking.
STOPPED: dict[str, Callable[[Any], Any]] = {
    "branches": lambda i: 0 < i < 3,
    "iterates": list,
    "asks an encrypted tensor for a number": float,
    "assigns to elements": lambda i: i.__setitem__(0, 1),
    "writes into an array": lambda i: np.add(i, 1, out=np.zeros(6)),
    "flattened batch": lambda i: np.concatenate([i, i], axis=None),
    "sample to sample": lambda i: np.roll(i, 1),
    "does not result in an equal division": lambda i: np.split(i, 4, axis=1),
    "in the order 'F'": lambda i: i.reshape(-1, 6, order="F"),
    "names axis": lambda i: i.transpose(0, 2),
    "values that it computes": lambda i: np.pad(i, 1, mode="mean"),
    "mixes the samples": lambda i: i.reshape(-1, 2, 3).transpose(1, 0, 2).reshape(-1, 6),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_numpy_cannot_do_here_is_named_with_what_to_write(name: str) -> None:
    op = Origin("y", Where(node="y", op="Op"), computes=True)
    with recording(op), pytest.raises(CompilationError) as caught:
        integers(REFUSED[name](encrypted("i", 6)))
    assert caught.value.problem == f"{name} is not available on encrypted values"
    assert (caught.value.fix or "").startswith("use ")
    assert "q_impl" not in str(caught.value)


@pytest.mark.parametrize("what", STOPPED)
def test_what_needs_values_or_mixes_samples_is_refused(what: str) -> None:
    with pytest.raises(CompilationError, match=what):
        STOPPED[what](encrypted("i", 6))


def test_an_attribute_that_arrays_lack_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'relu'"):
        encrypted("i", 6).relu()
    assert not hasattr(encrypted("i", 6), "__array_interface__")
