"""Reads the descriptions in Concrete's messages, in Python and within bounds, before native code sees them.

Concrete believes what a message says of itself: keys of another circuit end the process, and a few bytes may
describe gigabytes. Its messages are Cap'n Proto (https://capnproto.org/encoding.html): trees of structs, each
with a section of data and one of pointers. ``Struct`` gives the places of fields as Concrete's protocol has
them (tools/concrete-protocol of github.com/zama-ai/concrete), by the names that its JSON has too, so that what
is read can be compared with a circuit's specification. Payloads are read as their lengths.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

#: Levels of structs; Concrete's have six.
_DEEPEST = 16
_MOST_SEGMENTS = 2**16
_LIST_BITS = (0, 1, 8, 16, 32, 64, 64)
_POINTERS, _STRUCTS = 6, 7

Address = tuple[int, int]


class Message:
    """A message in its segments."""

    def __init__(self, data: memoryview) -> None:
        """Splits ``data``.

        Raises:
            ValueError: it is no message, or not whole.
        """
        (count,) = _unpack("<I", data, 0)
        if count >= _MOST_SEGMENTS:
            raise ValueError("it has too many segments")
        sizes = [_unpack("<I", data, 4 * i + 4)[0] for i in range(count + 1)]
        start = (4 * (count + 2) + 7) // 8 * 8
        self.segments: list[memoryview] = []
        for size in sizes:
            self.segments.append(_slice(data, start, 8 * size))
            start += 8 * size
        if start != len(data):
            raise ValueError("its segments are not all that there is")

    def read(self, kind: Struct) -> Any:
        """The struct at the root.

        Raises:
            ValueError: a pointer leads out of the message, or to something else than is expected.
        """
        return self.struct(kind, (0, 0), 0)

    def struct(self, kind: Struct, at: Address, depth: int) -> Any:
        """The struct that the pointer at an address leads to."""
        pointer, (segment, place) = self._follow(at)
        if pointer & 3 != 0 or depth > _DEEPEST:
            raise ValueError(f"there is no {kind.name}")
        return kind.read(
            self, segment, place, pointer >> 32 & 0xFFFF, pointer >> 48 & 0xFFFF, depth
        )

    def elements(self, at: Address) -> tuple[int, int, Address, int]:
        """The list that the pointer at an address leads to: element size, count, place, words of a struct."""
        pointer, (segment, place) = self._follow(at)
        if not pointer:
            return _STRUCTS, 0, (segment, place), 0
        if pointer & 3 != 1:
            raise ValueError("there is no list")
        size, count = pointer >> 32 & 7, pointer >> 35
        if size != _STRUCTS:
            _slice(self.segments[segment], place, (count * _LIST_BITS[size] + 7) // 8)
            return size, count, (segment, place), 0
        _slice(self.segments[segment], place, 8 * (count + 1))
        (tag,) = _unpack("<Q", self.segments[segment], place)
        words, found = (tag >> 32 & 0xFFFF) + (tag >> 48 & 0xFFFF), tag >> 2 & 0x3FFFFFFF
        if found * words > count or (not words and found):
            raise ValueError("a list is longer than its place")
        return size, found, (segment, place), tag

    def _follow(self, at: Address) -> tuple[int, Address]:
        """A pointer, and where it leads; through another segment if it says so."""
        segment, place = at
        (pointer,) = _unpack("<Q", self.segments[segment], place)
        if pointer & 3 != 2:
            return pointer, (segment, place + 8 + 8 * _signed(pointer))
        segment, landing = pointer >> 32, 8 * (pointer >> 3 & 0x1FFFFFFF)
        if segment >= len(self.segments):
            raise ValueError("a pointer leads to a segment that is not there")
        (far,) = _unpack("<Q", self.segments[segment], landing)
        if not pointer & 4:
            if far & 3 == 2:
                raise ValueError("a pointer leads to a pointer that leads elsewhere")
            return far, (segment, landing + 8 + 8 * _signed(far))
        (tag,) = _unpack("<Q", self.segments[segment], landing + 8)
        segment, place = far >> 32, 8 * (far >> 3 & 0x1FFFFFFF)
        if far & 7 != 2 or segment >= len(self.segments):
            raise ValueError("a pointer leads nowhere")
        return tag, (segment, place)


#: Reads a field: (message, its data section, address of its first pointer, number of pointers, depth).
Field = Callable[[Message, bytes, Address, int, int], Any]


@dataclass(frozen=True)
class Struct:
    """A kind of struct: what its fields are called, and how each is read. One without a name is a union."""

    name: str
    fields: Mapping[str, Field] = field(default_factory=dict)

    def read(
        self, message: Message, segment: int, place: int, data: int, pointers: int, depth: int
    ) -> Any:
        whole = _slice(message.segments[segment], place, 8 * (data + pointers))
        first = (segment, place + 8 * data)
        section = bytes(whole[: 8 * data])
        found: dict[str, Any] = {}
        for name, read in self.fields.items():
            value = read(message, section, first, pointers, depth)
            found |= {name: value} if name else value
        return found


def number(format: str, offset: int) -> Field:
    """A number at an offset of the data section, in ``struct``'s format; 0 where the section is shorter."""

    def read(message: Message, data: bytes, first: Address, pointers: int, depth: int) -> Any:
        return struct.unpack_from(f"<{format}", data + bytes(64), min(offset, len(data)))[0]

    return read


def flag(offset: int) -> Field:
    """The lowest bit of a byte."""
    byte = number("B", offset)
    return lambda *place: bool(byte(*place) & 1)


def word(offset: int, *names: str) -> Field:
    """One of an enumeration."""
    index = number("H", offset)
    return lambda *place: _named(names, index(*place))


def part(kind: Struct, index: int) -> Field:
    """A struct, by the number of its pointer."""

    def read(message: Message, data: bytes, first: Address, pointers: int, depth: int) -> Any:
        return message.struct(kind, _pointer(first, index, pointers), depth + 1)

    return read


def either(offset: int, index: int, kinds: Mapping[str, Struct]) -> Field:
    """A union of structs that share a pointer: the one that is there, under its name."""
    which = number("H", offset)

    def read(message: Message, data: bytes, first: Address, pointers: int, depth: int) -> Any:
        name = _named(tuple(kinds), which(message, data, first, pointers, depth))
        return {name: part(kinds[name], index)(message, data, first, pointers, depth)}

    return read


def parts(kind: Struct, index: int) -> Field:
    """A list of structs."""

    def read(message: Message, data: bytes, first: Address, pointers: int, depth: int) -> Any:
        if index >= pointers:
            return []
        size, count, (segment, place), tag = message.elements(_pointer(first, index, pointers))
        if size != _STRUCTS:
            raise ValueError(f"there is no list of {kind.name}")
        own, others = tag >> 32 & 0xFFFF, tag >> 48 & 0xFFFF
        starts = (place + 8 + 8 * (own + others) * i for i in range(count))
        return [kind.read(message, segment, at, own, others, depth + 1) for at in starts]

    return read


def integers(index: int) -> Field:
    """A list of 32-bit integers."""

    def read(message: Message, data: bytes, first: Address, pointers: int, depth: int) -> Any:
        if index >= pointers:
            return []
        size, count, (segment, place), _ = message.elements(_pointer(first, index, pointers))
        if (count and _LIST_BITS[size % _STRUCTS] != 32) or count > 64:
            raise ValueError("there is no short list of integers")
        return list(struct.unpack_from(f"<{count}I", message.segments[segment], place))

    return read


def lengths(index: int) -> Field:
    """The bytes in a list of blobs, all together."""

    def read(message: Message, data: bytes, first: Address, pointers: int, depth: int) -> Any:
        size, count, (segment, place), _ = message.elements(_pointer(first, index, pointers))
        if count and size != _POINTERS:
            raise ValueError("there is no list of blobs")
        total = 0
        for i in range(count):
            blob, length, _, _ = message.elements((segment, place + 8 * i))
            if length and blob != 2:
                raise ValueError("there is no blob")
            total += length
        return total

    return read


def _pointer(first: Address, index: int, pointers: int) -> Address:
    if index >= pointers:
        raise ValueError("a pointer is missing")
    return first[0], first[1] + 8 * index


def _named(names: tuple[str, ...], index: int) -> str:
    if index >= len(names):
        raise ValueError(f"none of {', '.join(names)} is number {index}")
    return names[index]


def _signed(pointer: int) -> int:
    """The offset in a pointer: 30 bits in two's complement."""
    offset = pointer >> 2 & 0x3FFFFFFF
    return offset - (1 << 30) if offset >> 29 else offset


def _slice(data: memoryview, start: int, length: int) -> memoryview:
    if start < 0 or start + length > len(data):
        raise ValueError("a pointer leads out of the message")
    return data[start : start + length]


def _unpack(format: str, data: memoryview, place: int) -> tuple[Any, ...]:
    return struct.unpack(format, _slice(data, place, struct.calcsize(format)))
