"""Models damaged byte by byte: bits that flip, pieces that are lost, doubled or of another file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.fuzz.models import bases, drawn, drive

SHARE = 3


def prepare() -> None:
    """What is loaded once, before processes part."""
    bases()


def case(rng: np.random.Generator, folder: Path) -> None:
    """A model with one to eight faults in its bytes."""
    data = bytearray(drawn(rng))
    for _ in range(rng.integers(1, 9)):
        data = _faults[rng.integers(len(_faults))](data, rng)
    drive(bytes(data), rng)


def _place(data: bytearray, rng: np.random.Generator) -> int:
    return int(rng.integers(len(data) + 1))


def _flipped(data: bytearray, rng: np.random.Generator) -> bytearray:
    if data:
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    return data


def _written(data: bytearray, rng: np.random.Generator) -> bytearray:
    if data:
        data[rng.integers(len(data))] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.integers(256)])
    return data


def _cut(data: bytearray, rng: np.random.Generator) -> bytearray:
    first = _place(data, rng)
    return data[:first] + data[first + int(rng.integers(1, 20)) :]


def _ended(data: bytearray, rng: np.random.Generator) -> bytearray:
    return data[: _place(data, rng)] if rng.random() < 0.2 else data


def _doubled(data: bytearray, rng: np.random.Generator) -> bytearray:
    first, last = sorted((_place(data, rng), _place(data, rng)))
    return data[:last] + data[first:]


def _grafted(data: bytearray, rng: np.random.Generator) -> bytearray:
    other = drawn(rng)
    first, last = sorted(rng.integers(len(other) + 1, size=2))
    place = _place(data, rng)
    return data[:place] + other[first:last] + data[place + int(last - first) :]


def _huge(data: bytearray, rng: np.random.Generator) -> bytearray:
    """A varint of ten bytes in the place of one byte."""
    place = _place(data, rng)
    return data[:place] + b"\xff" * int(rng.integers(1, 10)) + b"\x01" + data[place + 1 :]


_faults = (_flipped, _flipped, _written, _written, _cut, _ended, _doubled, _grafted, _huge)
