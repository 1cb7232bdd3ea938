"""Client and server exchange bytes; whatever else arrives is refused before Concrete sees it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fhe_core.compiler import messages
from fhe_core.compiler.concrete_backend.protocol import VALUE
from fhe_core.compiler.concrete_backend.wire import Message
from fhe_core.quantization.module import QuantizedModule
from numpy.typing import NDArray

import fhe_core
from fhe_core import InputError

from .nets import mlp, samples

pytestmark = pytest.mark.fhe

Array = NDArray[Any]
GARBAGE = [b"", b"garbage", bytes(1000), np.random.default_rng(0).bytes(1000)]
GARBAGE_IDS = ["empty", "text", "zeros", "random"]


@dataclass(frozen=True)
class Party:
    """A client with keys, its server, and what they said to each other."""

    client: fhe_core.Client
    server: fhe_core.Server
    inputs: bytes
    keys: bytes
    results: bytes


def party(folder: Path) -> Party:
    client, server = (
        fhe_core.load_client(folder / "client"),
        fhe_core.load_server(folder / "server"),
    )
    client.keygen()
    inputs, keys = client.encrypt(samples(4)[:2]), client.evaluation_keys
    return Party(client, server, inputs, keys, server.run(inputs, keys))


@pytest.fixture(scope="module")
def ours(saved: Path) -> Party:
    return party(saved)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Party:
    """Another model, of the same shapes and other parameters."""
    folder = tmp_path_factory.mktemp("theirs") / "model"
    fhe_core.compile(mlp(), samples(4), n_bits=2, rounding=2).save(folder)
    return party(folder)


def test_the_result_is_that_of_the_clear_integers(ours: Party, compiled: QuantizedModule) -> None:
    pairs = zip(ours.client.decrypt(ours.results), compiled(samples(4)[:2]), strict=True)
    for found, expected in pairs:
        np.testing.assert_array_equal(found, expected)


def test_encryption_is_random(ours: Party) -> None:
    """Equal inputs make different ciphertexts, in one call and in two."""
    twice = np.repeat(samples(4)[:1], 2, axis=0)
    first, second = ours.client.encrypt(twice), ours.client.encrypt(twice)
    assert first != second
    half = len(first) // 3
    assert first[-half:] != first[-2 * half : -half]


def test_inputs_may_be_named_and_saturate_or_raise(ours: Party) -> None:
    x = samples(4)[:1]
    with pytest.raises(InputError, match="no input named 'z'"):
        ours.client.encrypt(z=x)
    with pytest.raises(InputError, match="NaN or infinity"):
        ours.client.encrypt(x=np.full((1, 4), np.nan, np.float32))
    with pytest.raises(InputError, match="beyond its calibrated range"):
        ours.client.encrypt(x=100 + x, out_of_range="raise")
    with pytest.warns(UserWarning, match="saturate"):
        ours.client.encrypt(x=100 + x)


def test_a_word_for_values_out_of_range_that_there_is_not_is_refused(
    ours: Party, compiled: QuantizedModule
) -> None:
    """It saturated in silence."""
    x = 100 + samples(4)[:1]
    for use in (ours.client.encrypt, compiled.forward, compiled.encode):
        with pytest.raises(InputError, match="out_of_range cannot be 'rasie'"):
            use(x, out_of_range="rasie")


def test_keys_can_be_made_anew_after_others_were_read(saved: Path, ours: Party) -> None:
    client = fhe_core.load_client(saved / "client")
    client.load_keys(ours.client.secret_keys)
    client.keygen()
    with pytest.raises(InputError, match="of different clients"):
        ours.server.run(client.encrypt(samples(4)[:1]), ours.keys)


def test_a_client_without_keys_says_so(saved: Path, ours: Party) -> None:
    client = fhe_core.load_client(saved / "client")
    for use in (
        lambda: client.encrypt(samples(4)[:1]),
        lambda: client.decrypt(ours.results),
        lambda: client.evaluation_keys,
        lambda: client.secret_keys,
    ):
        with pytest.raises(InputError, match=r"no keys.*Call keygen\(\) or load_keys\(\) first"):
            use()


@pytest.mark.parametrize("data", GARBAGE, ids=GARBAGE_IDS)
def test_garbage_is_refused(data: bytes, ours: Party) -> None:
    with pytest.raises(InputError, match="no encrypted inputs"):
        ours.server.run(data, ours.keys)
    with pytest.raises(InputError, match="no evaluation keys"):
        ours.server.run(ours.inputs, data)
    with pytest.raises(InputError, match="no encrypted results"):
        ours.client.decrypt(data)
    with pytest.raises(InputError, match="no secret keys"):
        ours.client.load_keys(data)


@pytest.mark.parametrize("place", [0, 4, 5, 20, 50, 80, 200, -1])
def test_one_changed_byte_and_a_lost_half_are_noticed(place: int, ours: Party) -> None:
    def changed(data: bytes) -> bytes:
        copy = bytearray(data)
        copy[place] ^= 64
        return bytes(copy)

    for damage in (changed, lambda data: data[: len(data) // 2]):
        with pytest.raises(InputError):
            ours.server.run(damage(ours.inputs), ours.keys)
        with pytest.raises(InputError):
            ours.server.run(ours.inputs, damage(ours.keys))
        with pytest.raises(InputError):
            ours.client.decrypt(damage(ours.results))


def test_one_thing_is_not_taken_for_another(ours: Party) -> None:
    secret = ours.client.secret_keys
    for use in (
        lambda: ours.server.run(ours.results, ours.keys),
        lambda: ours.server.run(ours.keys, ours.inputs),
        lambda: ours.server.run(ours.inputs, secret),
        lambda: ours.client.decrypt(ours.inputs),
        lambda: ours.client.load_keys(ours.keys),
    ):
        with pytest.raises(InputError, match="these bytes are no"):
            use()


def test_another_models_messages_are_refused(ours: Party, theirs: Party) -> None:
    """Concrete itself ends the process on another circuit's evaluation keys."""
    secret = theirs.client.secret_keys
    for use in (
        lambda: ours.server.run(theirs.inputs, ours.keys),
        lambda: ours.server.run(ours.inputs, theirs.keys),
        lambda: ours.server.run(theirs.inputs, theirs.keys),
        lambda: ours.client.decrypt(theirs.results),
        lambda: ours.client.load_keys(secret),
    ):
        with pytest.raises(InputError, match="belong to another model"):
            use()


def test_what_is_sealed_as_of_this_model_and_is_of_another_is_refused(
    ours: Party, theirs: Party
) -> None:
    """Who can write a message can write its header and its hash: Concrete would end the process."""

    def resealed(kind: str, data: bytes) -> bytes:
        body = messages.unseal(data, kind, theirs.client._model).body
        return messages.seal(kind, ours.client._model, ours.client._key_name, bytes(body))

    inputs = resealed(messages.INPUTS, theirs.inputs)
    keys = resealed(messages.EVALUATION_KEYS, theirs.keys)
    results = resealed(messages.RESULTS, theirs.results)
    secret = resealed(messages.SECRET_KEYS, theirs.client.secret_keys)
    for use, says in (
        (lambda: ours.server.run(inputs, ours.keys), "not of this circuit"),
        (lambda: ours.server.run(ours.inputs, keys), "keys of another circuit"),
        (lambda: ours.client.decrypt(results), "not as many results"),
        (lambda: ours.client.load_keys(secret), "keys of another circuit"),
    ):
        with pytest.raises(InputError, match=says):
            use()
    np.testing.assert_array_equal(
        ours.client.decrypt(ours.results)[0],
        ours.client.decrypt(ours.server.run(ours.inputs, ours.keys))[0],
    )


def test_a_ciphertext_that_describes_itself_otherwise_is_refused(ours: Party) -> None:
    """Whatever bit is flipped: a few bytes may else describe a tensor that takes a minute, or gigabytes."""
    body = messages.unseal(ours.inputs, messages.INPUTS, ours.client._model).body
    ((data,), _) = messages.split(body)
    described = Message(memoryview(data)).read(VALUE)
    refused = 0
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            ours.server._specification.check_inputs([bytes(changed)])
        except InputError:
            refused += 1
        else:
            assert Message(memoryview(changed)).read(VALUE) == described
    # All but the payload, and bits that nobody reads.
    assert refused > 8 * (len(data) - described["payload"]["bytes"]) * 0.6


def test_keys_that_are_cut_short_inside_are_refused(ours: Party) -> None:
    body = messages.unseal(ours.keys, messages.EVALUATION_KEYS, ours.client._model).body
    name = ours.client._key_name
    for changed in (body[: len(body) // 2], body[:8], b"", bytes(64), bytes(body) + bytes(8)):
        sealed = messages.seal(messages.EVALUATION_KEYS, ours.client._model, name, bytes(changed))
        with pytest.raises(InputError, match=r"no evaluation keys|keys of another circuit"):
            ours.server.run(ours.inputs, sealed)


def test_another_clients_keys_are_refused(saved: Path, ours: Party) -> None:
    """The same model, and keys of another person: decryption would give noise."""
    other = fhe_core.load_client(saved / "client")
    other.keygen()
    with pytest.raises(InputError, match="of different clients"):
        ours.server.run(other.encrypt(samples(4)[:1]), ours.keys)
    with pytest.raises(InputError, match="under other keys"):
        other.decrypt(ours.results)


def test_kept_keys_decrypt_later(saved: Path, ours: Party, compiled: QuantizedModule) -> None:
    later = fhe_core.load_client(saved / "client")
    later.load_keys(ours.client.secret_keys)
    np.testing.assert_array_equal(later.decrypt(ours.results)[0], compiled(samples(4)[:2])[0])
    again = later.encrypt(samples(4)[2:3])
    results = ours.server.run(again, ours.keys)
    np.testing.assert_array_equal(ours.client.decrypt(results)[0], compiled(samples(4)[2:3])[0])


def test_two_savings_of_one_model_work_together(
    compiled: QuantizedModule, ours: Party, tmp_path: Path
) -> None:
    """What tells models apart is what they compute, not when they were saved."""
    compiled.save(tmp_path / "again")
    server = fhe_core.load_server(tmp_path / "again" / "server")
    found = ours.client.decrypt(server.run(ours.inputs, ours.keys))
    np.testing.assert_array_equal(found[0], compiled(samples(4)[:2])[0])
