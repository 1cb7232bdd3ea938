"""Ciphertexts, evaluation keys and circuits as bytes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from fhe_core.compiler.concrete_backend.installation import compiler, said
from fhe_core.compiler.concrete_backend.library import library_problem
from fhe_core.compiler.concrete_backend.native import made_folders, native
from fhe_core.errors import ArtifactError, InputError


def value_to_bytes(value: Any) -> bytes:
    with native():
        data: bytes = value.serialize()
    return data


def value_from_bytes(data: bytes) -> Any:
    """A ciphertext from its bytes.

    Raises:
        InputError: it is none.
    """
    with native() as fhe:
        try:
            return fhe.Value.deserialize(data)
        except Exception as error:
            raise InputError(
                f"these bytes are no ciphertext: {said(error)}",
                fix="give what encrypt() or run() returned",
            ) from error


def evaluation_keys_to_bytes(keys: Any) -> bytes:
    with native():
        data: bytes = keys.serialize()
    return data


def evaluation_keys_from_bytes(data: bytes) -> Any:
    """Evaluation keys from their bytes.

    Raises:
        InputError: they are none.
    """
    with native() as fhe:
        try:
            return fhe.EvaluationKeys.deserialize(data)
        except Exception as error:
            raise InputError(
                f"these bytes are no evaluation keys: {said(error)}",
                fix="give the client's evaluation_keys",
            ) from error


def server_to_bytes(server: Any) -> bytes:
    """The circuit's archive: a zip with the shared library that runs it."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "circuit.zip"
        server.save(str(place))
        return place.read_bytes()


def server_from_bytes(archive: bytes) -> Any:
    """The circuit of an archive. It holds native code: verify where it comes from first.

    Raises:
        ArtifactError: it cannot be loaded.
    """
    with native() as fhe, made_folders() as made, tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "circuit.zip"
        place.write_bytes(archive)
        try:
            server = fhe.Server.load(str(place))
            problem = library_problem(Path(server._library.get_shared_lib_path()))
            if server.is_simulated:
                problem = "it only simulates"
            if not problem:
                # Opens the library, which else the first run does.
                compiler().ServerProgram(server._library, False)
        except Exception as error:  # noqa: BLE001 - whatever Concrete raises
            problem = said(error)
        if problem:
            raise ArtifactError(
                f"the circuit cannot be loaded: {problem}",
                expected="an archive with a shared library for this kind of machine",
                fix="save the model again on this kind of machine",
            )
        made.belong_to(server)
    return server
