"""Damaged and forged messages, sealed as if they were whole: they go to native code, or are refused."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from fhe_core.compiler import messages

import fhe_core
from tests.fuzz.saved import MESSAGES, saved

SHARE = 1

_KINDS = dict(
    zip(
        MESSAGES,
        (messages.INPUTS, messages.RESULTS, messages.EVALUATION_KEYS, messages.SECRET_KEYS),
        strict=True,
    )
)
_HEAD = 86  # bytes before the body
#: Most of a message is payload, which may be anything: damage is done near its ends, where the rest is.
_NEAR = 600


def prepare() -> None:
    """What all cases share is made once."""
    saved()


def case(rng: np.random.Generator, folder: Path) -> None:
    """Gives a damaged message to whom it is for."""
    client, server, sound = _parties()
    name = MESSAGES[rng.integers(len(MESSAGES))]
    body = _damaged(bytearray(sound[name][_HEAD:]), rng)
    if rng.random() < 0.2:
        # As it would be taken for another.
        name = MESSAGES[rng.integers(len(MESSAGES))]
    data = messages.seal(_KINDS[name], client._model, sound["inputs"][38:54], bytes(body))
    if rng.random() < 0.1:
        data = bytes(_damaged(bytearray(data), rng))
    if name == "inputs":
        server.run(data, sound["evaluation_keys"])
    elif name == "evaluation_keys":
        server.run(sound["inputs"], data)
    elif name == "results":
        client.decrypt(data)
    else:
        fresh = fhe_core.load_client(saved() / "model" / "client")
        fresh.load_keys(data)


def _damaged(data: bytearray, rng: np.random.Generator) -> bytearray:
    for _ in range(int(rng.choice((1, 1, 1, 2, 5)))):
        near = int(rng.integers(min(len(data), _NEAR) + 1))
        place = near if rng.random() < 0.7 else len(data) - near
        draw = rng.random()
        if draw < 0.5:
            data[place : place + 1] = bytes([int(rng.integers(256))])
        elif draw < 0.7:
            data[place : place + 8] = int(rng.choice((0, 1, 2**31, 2**32 - 1, 2**63))).to_bytes(
                8, "little"
            )
        elif draw < 0.8:
            del data[place:]
        elif draw < 0.9:
            data[place:place] = rng.bytes(int(rng.integers(1, 64)))
        else:
            del data[place : place + int(rng.integers(1, 64))]
    return data


@functools.cache
def _parties() -> tuple[fhe_core.Client, fhe_core.Server, dict[str, bytes]]:
    """A client with its keys, its server, and what they have said to each other."""
    sound = {name: (saved() / name).read_bytes() for name in MESSAGES}
    client = fhe_core.load_client(saved() / "model" / "client")
    client.load_keys(sound["secret_keys"])
    return client, fhe_core.load_server(saved() / "model" / "server"), sound
