"""A message is opened where it belongs, whole and unchanged, or refused."""

from __future__ import annotations

import struct

import pytest
from fhe_core.compiler.messages import (
    EVALUATION_KEYS,
    INPUTS,
    KINDS,
    RESULTS,
    join,
    seal,
    split,
    unseal,
)

from fhe_core import InputError

MODEL, OTHER, KEYS = b"m" * 32, b"o" * 32, b"k" * 16
BODY = b"what is inside"


def test_a_message_holds_what_was_sealed() -> None:
    for kind in KINDS:
        for body in (BODY, b""):
            message = unseal(seal(kind, MODEL, KEYS, body), kind, MODEL)
            assert (bytes(message.body), message.keys) == (body, KEYS)


def test_equal_messages_have_equal_digests_and_no_others() -> None:
    first, same, other = (
        unseal(seal(INPUTS, MODEL, KEYS, body), INPUTS, MODEL).digest
        for body in (BODY, BODY, BODY + b".")
    )
    assert first == same != other


@pytest.mark.parametrize("place", range(len(seal(INPUTS, MODEL, KEYS, BODY))))
def test_a_change_of_any_byte_is_noticed(place: int) -> None:
    data = bytearray(seal(INPUTS, MODEL, KEYS, BODY))
    data[place] ^= 1
    with pytest.raises(InputError):
        unseal(bytes(data), INPUTS, MODEL)


def test_a_message_cut_short_or_grown_is_refused() -> None:
    data = seal(INPUTS, MODEL, KEYS, BODY)
    for length in range(len(data)):
        with pytest.raises(InputError, match=r"no encrypted inputs|damaged"):
            unseal(data[:length], INPUTS, MODEL)
    with pytest.raises(InputError, match=r"damaged.*Send them again"):
        unseal(data + b".", INPUTS, MODEL)


def test_the_wrong_kind_and_the_wrong_model_are_told_apart() -> None:
    data = seal(RESULTS, MODEL, KEYS, BODY)
    with pytest.raises(InputError, match="expected: evaluation keys; got: encrypted results"):
        unseal(data, EVALUATION_KEYS, MODEL)
    with pytest.raises(InputError, match="these encrypted results belong to another model"):
        unseal(data, RESULTS, OTHER)


@pytest.mark.parametrize("data", [None, "text", 7, [1, 2], object()])
def test_what_is_no_bytes_is_refused(data: object) -> None:
    with pytest.raises(InputError, match=f"got: {type(data).__name__}"):
        unseal(data, INPUTS, MODEL)  # type: ignore[arg-type]


def test_values_of_several_samples_are_told_apart() -> None:
    rows = [[b"a", b""], [b"ccc", b"dd"]]
    assert split(memoryview(join(rows))) == rows


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"1234567",
        struct.pack("<II", 0, 0),
        struct.pack("<II", 2**32 - 1, 0),
        struct.pack("<II", 2**32 - 1, 2**32 - 1),
        struct.pack("<IIQ", 1, 1, 2**63),
        struct.pack("<IIQ", 1, 2, 2**64 - 1),
        struct.pack("<IIQQ", 1, 2, 2**64 - 1, 2**64 - 1),
        struct.pack("<IIQ", 2**31, 1, 0),
        join([[b"abc"]])[:-1],
        join([[b"abc"]]) + b".",
    ],
)
def test_lengths_that_do_not_add_up_are_refused_at_once(data: bytes) -> None:
    with pytest.raises(InputError, match="cannot be told apart"):
        split(memoryview(data))
