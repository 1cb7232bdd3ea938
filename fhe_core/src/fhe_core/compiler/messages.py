"""Ciphertexts and keys as bytes: each says what it is, of which model, and under which keys.

Ciphertexts under other keys decrypt to noise, so a message names its keys. Its header and SHA-256 find damage
and mix-ups, not malice: who can write a message can write its hash too. What is inside is held against the
circuit's specification before Concrete, which trusts it, sees it (``concrete_backend.specification``).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from fhe_core.errors import InputError

#: Magic, version, kind, model, keys; the SHA-256 of these and of what follows it comes next.
_HEADER = struct.Struct("<4sBB32s16s")
_MAGIC = b"FHEC"
_VERSION = 1
_DIGEST = 32
_START = _HEADER.size + _DIGEST
#: In front of each value.
_LENGTH = struct.Struct("<Q")


#: What a message may hold; its number there is its place here.
KINDS = ("encrypted inputs", "encrypted results", "evaluation keys", "secret keys")
INPUTS, RESULTS, EVALUATION_KEYS, SECRET_KEYS = KINDS


@dataclass(frozen=True)
class Message:
    """A message whose header fits.

    Attributes:
        keys: names the key set that it was made with, 16 random bytes.
        digest: of the whole message.
        body: what was sealed.
    """

    keys: bytes
    digest: bytes
    body: memoryview


def seal(kind: str, model: bytes, keys: bytes, body: bytes) -> bytes:
    """``body`` behind a header.

    Args:
        kind: one of ``KINDS``.
        model: 32 bytes that tell saved models apart.
        keys: 16 bytes that tell key sets apart.
    """
    header = _HEADER.pack(_MAGIC, _VERSION, KINDS.index(kind), model, keys)
    return b"".join((header, _digest(header, body), body))


def unseal(data: bytes, kind: str, model: bytes) -> Message:
    """What ``seal`` was given.

    Raises:
        InputError: the bytes are something else, damaged, of an unknown version or of another model.
    """
    try:
        view = memoryview(data).cast("B")
    except TypeError as error:
        raise InputError(
            f"{kind} are bytes", got=type(data).__name__, fix="give the bytes unchanged"
        ) from error
    if len(view) < _START or view[: len(_MAGIC)] != _MAGIC:
        raise InputError(
            f"these bytes are no {kind}",
            got=f"{len(view)} bytes that begin with {bytes(view[:8])!r}",
            fix="give what client or server returned, unchanged",
        )
    header, body = view[: _HEADER.size], view[_START:]
    _, version, found, of, keys = _HEADER.unpack(header)
    if version != _VERSION:
        raise InputError(
            f"these {kind} have an unknown format",
            expected=f"version {_VERSION}",
            got=f"version {version}",
            fix="use the same version of fhe-core on both sides",
        )
    digest = _digest(header, body)
    if digest != view[_HEADER.size : _START]:
        raise InputError(
            f"these {kind} are damaged: they were cut short or changed on the way",
            got=f"{len(view)} bytes",
            fix="send them again",
        )
    if found != KINDS.index(kind):
        raise InputError(
            f"these bytes are no {kind}",
            expected=kind,
            got=KINDS[found] if found < len(KINDS) else f"kind {found}",
            fix="give client and server what each of them needs",
        )
    if of != model:
        raise InputError(
            f"these {kind} belong to another model",
            expected=f"model {model.hex()[:12]}",
            got=f"model {of.hex()[:12]}",
            fix="use the client and the server that were saved together",
        )
    return Message(keys, digest, body)


def _digest(header: bytes | memoryview, body: bytes | memoryview) -> bytes:
    digest = hashlib.sha256(header)
    digest.update(body)
    return digest.digest()


def join(rows: Sequence[Sequence[bytes]]) -> bytes:
    """Values of several samples in one piece: counts, then each with its length in front."""
    columns = len(rows[0]) if rows else 0
    parts = [struct.pack("<II", len(rows), columns)]
    for row in rows:
        for data in row:
            parts += [_LENGTH.pack(len(data)), data]
    return b"".join(parts)


def split(data: memoryview) -> list[list[bytes]]:
    """What ``join`` was given.

    Raises:
        InputError: the bytes are something else.
    """
    try:
        rows, columns = struct.unpack_from("<II", data)
        place = struct.calcsize("<II")
        if not 0 < rows * columns <= (len(data) - place) // _LENGTH.size:
            raise ValueError(f"there are no {rows} rows of {columns} in {len(data)} bytes")
        found: list[list[bytes]] = []
        for _ in range(rows):
            row = []
            for _ in range(columns):
                (length,) = _LENGTH.unpack_from(data, place)
                place += _LENGTH.size
                if length > len(data) - place:
                    raise ValueError("one is longer than what there is")
                row.append(bytes(data[place : place + length]))
                place += length
            found.append(row)
        if place != len(data):
            raise ValueError("their lengths do not add up")
    except (ValueError, struct.error) as error:
        raise InputError(
            f"these ciphertexts cannot be told apart: {error}",
            fix="give what client or server returned, unchanged",
        ) from error
    return found
