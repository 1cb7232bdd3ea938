"""A circuit's specification, and whether messages and parameters are what it says. Nothing here is native."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fhe_core.compiler.concrete_backend.protocol import EVALUATION_KEYS, KEYS, VALUE
from fhe_core.compiler.concrete_backend.wire import Message, Struct
from fhe_core.errors import ArtifactError, InputError

#: What the keys of a circuit may weigh; the largest seen has a twentieth.
MOST_KEY_BYTES = 8 << 30
#: Larger ones are in no parameter set of Concrete's.
_MOST_DIMENSION, _MOST_POLYNOMIAL, _MOST_LEVELS, _WORD = 2**16, 2**17, 64, 64
_SEED_BYTES = 16

Shape = Sequence[int]


class Specification:
    """What a circuit expects and gives, and the parameters of its keys: Concrete's ``ProgramInfo``.

    Raises:
        ArtifactError: it is none, or no circuit can have these parameters.
    """

    def __init__(self, specs: bytes) -> None:
        try:
            document = json.loads(specs)
            (circuit,) = document["circuits"]
            self._inputs: list[Any] = circuit["inputs"]
            self._outputs: list[Any] = circuit["outputs"]
            self._keys: Mapping[str, list[Any]] = document["keyset"]
            sizes = [_bytes_of(part, info) for part, info in self._described()]
            gates = [_bytes_of_value(gate) for gate in (*self._inputs, *self._outputs)]
            self._shapes = [list(map(_shape, self._inputs)), list(map(_shape, self._outputs))]
            known = self._inputs and self._outputs and sum(sizes) + sum(gates) <= MOST_KEY_BYTES
            problem = "" if known else "its keys would take too much memory"
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            problem = f"{type(error).__name__}: {error}"
        if problem:
            raise ArtifactError(
                "the client's specification cannot be used",
                expected=f"a circuit's parameters, and keys of at most {MOST_KEY_BYTES >> 30} GiB",
                got=problem,
                fix="save the model again; do not use one of unknown origin",
            )

    def _described(self) -> Iterator[tuple[str, Any]]:
        for name in (
            "lweSecretKeys",
            "lweBootstrapKeys",
            "lweKeyswitchKeys",
            "packingKeyswitchKeys",
        ):
            for info in self._keys.get(name, ()):
                yield name, info

    def check_shapes(self, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> None:
        """Raises ArtifactError where the circuit takes or gives other tensors than these."""
        for what, found, shapes in zip(
            ("takes", "gives"), self._shapes, (inputs, outputs), strict=True
        ):
            if list(map(math.prod, found)) != list(map(math.prod, shapes)):
                raise ArtifactError(
                    f"the circuit {what} other tensors than the model",
                    expected=", ".join(map(str, shapes)),
                    got=", ".join(map(str, found)),
                    fix="use a client that was saved in one piece",
                )

    # -- messages

    def check_inputs(self, row: Sequence[bytes]) -> None:
        """Raises InputError for ciphertexts that are no sample of this circuit's."""
        _check_values(
            row, self._inputs, "ciphertexts", "the client that was saved with this server"
        )

    def check_results(self, row: Sequence[bytes]) -> None:
        """Raises InputError for ciphertexts that are no result of this circuit's."""
        _check_values(row, self._outputs, "results", "the server that was saved with this client")

    def check_evaluation_keys(self, data: bytes | memoryview) -> None:
        """Raises InputError for keys of another circuit."""
        self._check_server_keys(_read(data, EVALUATION_KEYS, "evaluation keys"))

    def check_keys(self, data: bytes | memoryview) -> None:
        """Raises InputError for secret and evaluation keys of another circuit."""
        found = _read(data, KEYS, "secret keys")
        self._check_server_keys(found["server"])
        self._check_part("lweSecretKeys", found["client"]["lweSecretKeys"])

    def _check_server_keys(self, found: Mapping[str, Any]) -> None:
        for name, keys in found.items():
            self._check_part(name, keys)

    def _check_part(self, name: str, keys: Sequence[Any]) -> None:
        infos = self._keys.get(name, [])
        fits = len(keys) == len(infos) and all(
            key["info"] == info and key["payload"]["bytes"] == _bytes_of(name, info)
            for key, info in zip(keys, infos, strict=True)
        )
        if not fits:
            raise InputError(
                "these are keys of another circuit",
                expected=f"{len(infos)} {name} with this circuit's parameters",
                got=str([key["info"] for key in keys])[:200],
                fix="use the keys of the client that was saved with this server",
            )


def _check_values(row: Sequence[bytes], gates: Sequence[Any], what: str, origin: str) -> None:
    if len(row) != len(gates):
        raise InputError(
            f"these are not as many {what} as the circuit has",
            expected=str(len(gates)),
            got=str(len(row)),
            fix=f"give those of {origin}",
        )
    for data, gate in zip(row, gates, strict=True):
        found = _read(data, VALUE, what)
        length = found.pop("payload")["bytes"]
        if found != gate or length != _bytes_of_value(gate):
            raise InputError(
                f"these {what} are not of this circuit",
                expected=f"{_bytes_of_value(gate)} bytes of shape {_shape(gate)}",
                got=f"{length} bytes, {str(found)[:200]}",
                fix=f"give those of {origin}",
            )


def _read(data: bytes | memoryview, kind: Struct, what: str) -> Any:
    try:
        return Message(memoryview(data)).read(kind)
    except ValueError as error:
        raise InputError(
            f"these bytes are no {what}: {error}",
            got=f"{len(data)} bytes",
            fix="give what client or server returned, unchanged",
        ) from error


# -- sizes


def _shape(gate: Any) -> list[int]:
    """What a gate takes or gives, without the ciphertexts' own dimensions."""
    ((kind, info),) = gate["typeInfo"].items()
    shape = info["abstractShape" if kind == "lweCiphertext" else "shape"]["dimensions"]
    return [_whole(n, MOST_KEY_BYTES) for n in shape]


def _bytes_of_value(gate: Any) -> int:
    raw = gate["rawInfo"]
    dimensions = [_whole(n, MOST_KEY_BYTES) for n in raw["shape"]["dimensions"]]
    return math.prod(dimensions) * _whole(raw["integerPrecision"], _WORD) // 8


def _bytes_of(part: str, info: Any) -> int:
    """A key's bytes: of a seeded one, the seed and the bodies of its ciphertexts alone.

    Raises:
        ValueError: no key has such parameters.
    """
    params = info["params"]
    size = _whole(params["integerPrecision"], _WORD) // 8
    if part == "lweSecretKeys":
        return size * _whole(params["lweDimension"], _MOST_DIMENSION)
    levels, base = (_whole(params[name], _MOST_LEVELS) for name in ("levelCount", "baseLog"))
    if levels * base > _WORD:
        raise ValueError(f"{levels} levels of {base} bits are more than {_WORD}")
    rows = _whole(params["inputLweDimension"], _MOST_DIMENSION) * levels
    seeded = info["compression"] == "seed"
    if part == "lweKeyswitchKeys":
        columns = _whole(params["outputLweDimension"], _MOST_DIMENSION) + 1
        return size * rows * (1 if seeded else columns) + _SEED_BYTES * seeded
    glwe = _whole(params["glweDimension"], _MOST_DIMENSION) + 1
    polynomial = _whole(params["polynomialSize"], _MOST_POLYNOMIAL)
    if polynomial & (polynomial - 1):
        raise ValueError(f"a polynomial of {polynomial} coefficients is of no power of two")
    if part == "packingKeyswitchKeys":
        # One row more, of the body; and never seeded, whatever it says.
        rows, seeded = rows + levels, False
    return size * rows * glwe * polynomial * (1 if seeded else glwe) + _SEED_BYTES * seeded


def _whole(value: Any, most: int) -> int:
    if type(value) is not int or not 0 < value <= most:
        raise ValueError(f"{str(value)[:40]} is no whole number from 1 to {most}")
    return value
