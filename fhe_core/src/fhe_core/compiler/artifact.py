"""Saved models: the whole, its client and its server.

``client/`` holds what encrypts and decrypts: encodings, and the steps before and after; no weights and no
circuit. ``server/`` holds the circuit. Neither needs the packs or the ONNX file, and neither contains
pickle.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fhe_core
from fhe_core.arguments import path_of
from fhe_core.compiler import concrete_backend as backend
from fhe_core.compiler import messages
from fhe_core.compiler.folder import (
    MANIFEST,
    MOST_CLIENT_BYTES,
    arrays_from_bytes,
    arrays_to_bytes,
    checked_zip,
    manifest_of,
    read_folder,
    write_folder,
)
from fhe_core.compiler.interface import Interface, interface_to_document
from fhe_core.compiler.report import reading as report
from fhe_core.errors import ArtifactError, FheError, InputError
from fhe_core.graph.inputs import gather
from fhe_core.program.nodes import BATCH
from fhe_core.program.remarks import Remark
from fhe_core.program.storage import (
    Arrays,
    program_from_document,
    program_to_document,
)
from fhe_core.progress import Progress
from fhe_core.quantization.module import Cost, FusionRow, QuantizedModule, decode, encode
from fhe_core.quantization.plan import Plan

Array = NDArray[Any]


# -- saving


def save(module: QuantizedModule, path: str | os.PathLike[str]) -> None:
    """Write a module: see ``QuantizedModule.save``."""
    folder = path_of(path, "a saved model", ArtifactError, "give the name of a new folder")
    arrays: Arrays = {}
    document = {
        "program": program_to_document(module.program, arrays),
        "interface": interface_to_document(module, arrays),
        "fusion": [asdict(row) for row in module.fusion],
        "cost": asdict(module.cost) if module.circuit else None,
    }
    files = {
        "model.json": json.dumps(document).encode(),
        "model.npz": arrays_to_bytes(arrays),
        "plan.json": module.plan.to_json().encode(),
        report.FILE: report.to_bytes(module.report),
    }
    if module.circuit is not None:
        model = _identity(files["model.json"], files["model.npz"], module.circuit.specs)
        files |= _under("client", _client_files(module, model))
        files |= _under("server", _server_files(module, model))
    details = {
        "fhe_core": fhe_core.__version__,
        "packs": module.packs,
        "passes": list(module.passes),
    }
    files[MANIFEST] = manifest_of("model", files, details)
    write_folder(folder, files)


def _under(folder: str, files: Mapping[str, bytes]) -> dict[str, bytes]:
    return {f"{folder}/{name}": data for name, data in files.items()}


def _identity(*parts: bytes) -> str:
    """What tells this model from others, in hexadecimal: client and server must have the same."""
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def _client_files(module: QuantizedModule, model: str) -> dict[str, bytes]:
    arrays: Arrays = {}
    document = json.dumps(interface_to_document(module, arrays)).encode()
    size = sum(array.nbytes for array in arrays.values())
    if size + len(document) > MOST_CLIENT_BYTES:
        raise ArtifactError(
            "what the client computes takes more tables than a client may have",
            expected=f"at most {MOST_CLIENT_BYTES >> 20} MiB",
            got=f"{size >> 20} MiB",
            fix="compile with client_side='minimal', which leaves more to the server",
        )
    # As whoever loads it will: what is saved can be loaded.
    Interface(json.loads(document), arrays)
    files = {
        "client.json": document,
        "client.npz": arrays_to_bytes(arrays),
        "specs.json": module.circuit.specs,  # type: ignore[union-attr]
    }
    details = {"fhe_core": fhe_core.__version__, "model": model}
    files[MANIFEST] = manifest_of("client", files, details)
    return files


def _server_files(module: QuantizedModule, model: str) -> dict[str, bytes]:
    files = {"circuit.zip": module.circuit.archive()}  # type: ignore[union-attr]
    details = {"fhe_core": fhe_core.__version__, "model": model}
    files[MANIFEST] = manifest_of("server", files, details)
    return files


# -- loading


@contextmanager
def _parsed(path: Path, what: str) -> Iterator[None]:
    """Turn whatever goes wrong inside verified files into an ``ArtifactError``."""
    try:
        yield
    except ArtifactError:
        raise
    except Exception as error:
        raise ArtifactError(
            f"the {what} in {str(path)!r} cannot be understood",
            got=f"{type(error).__name__}: {error}",
            fix="save the model again with this version of fhe-core",
        ) from error


def load(path: str | os.PathLike[str]) -> QuantizedModule:
    """A module that ``save`` wrote, with its circuit. Needs neither the packs nor the ONNX file.

    Raises:
        ArtifactError: missing, damaged, changed, or of an unknown version.
    """
    folder = path_of(path, "a saved model", ArtifactError, "give the folder that save() wrote")
    manifest, files = read_folder(folder, "model")
    with _parsed(folder, "model"):
        document = json.loads(files["model.json"])
        arrays = arrays_from_bytes(files["model.npz"])
        interface = Interface(document["interface"], arrays)
        program = program_from_document(document["program"], arrays)
        module = QuantizedModule(
            input_infos=interface.infos,
            output_names=interface.output_names,
            encoder=interface.encoder,
            encoder_names=[name for name, _ in interface.encrypted],
            program=program,
            decoder=interface.decoder,
            plan=Plan.from_json(files["plan.json"]),
            fusion=list(map(_fusion_row, document["fusion"])),
            input_ranges=interface.ranges,
            exact=interface.exact,
            missing=interface.missing,
            packs=manifest.get("packs", {}),
            passes=manifest.get("passes", ()),
        )
        module._interpreter = partial(_computed, module._interpreter)
        module._report = report.from_files(files, str(folder))
        module.savings = tuple(Remark(**row) for row in module._report["savings"])
        module.notices = tuple(module._report["notices"])
        if document["cost"] is not None:
            module.circuit = LoadedCircuit(
                program,
                Cost(**document["cost"]),
                checked_zip(files["server/circuit.zip"], str(folder / "server" / "circuit.zip")),
                files["client/specs.json"],
            )
    return module


def _fusion_row(row: Mapping[str, Any]) -> FusionRow:
    groups = {key: tuple(row[key]) for key in ("group", "lookups")}
    return FusionRow(**{**row, **groups})


class LoadedCircuit:
    """A saved circuit: Concrete is imported, and the archive opened, when something is executed."""

    def __init__(self, program: Any, cost: Cost, archive: bytes, specs: bytes) -> None:
        self.program = program
        self.cost = cost
        self.specs = specs
        #: Known to the report that was saved with it.
        self.spending = None
        self._archive = archive
        self._circuit: backend.ConcreteCircuit | None = None

    def archive(self) -> bytes:
        return self._archive

    def execute(self, inputs: Mapping[str, Array], progress: Progress) -> list[Array]:
        if self._circuit is None:
            server = backend.server_from_bytes(self._archive)
            self._circuit = backend.ConcreteCircuit(self.program, server, self.cost)
        return self._circuit.execute(inputs, progress)


def load_client(path: str | os.PathLike[str]) -> Client:
    """The client of a saved model.

    Raises:
        ArtifactError: missing, damaged, changed, or of an unknown version.
    """
    folder = path_of(path, "a saved model", ArtifactError, "give the folder that save() wrote")
    manifest, files = read_folder(folder, "client")
    with _parsed(folder, "client"):
        document = json.loads(files["client.json"])
        arrays = arrays_from_bytes(files["client.npz"], most=MOST_CLIENT_BYTES)
        interface = Interface(document, arrays)
        specs, model = files["specs.json"], bytes.fromhex(manifest["model"])
    return Client(interface, specs, model)


def load_server(path: str | os.PathLike[str]) -> Server:
    """The server of a saved model. It runs native code from the folder: load only what you trust.

    Raises:
        ArtifactError: missing, damaged, changed, or of an unknown version.
    """
    folder = path_of(path, "a saved model", ArtifactError, "give the folder that save() wrote")
    manifest, files = read_folder(folder, "server")
    with _parsed(folder, "server"):
        archive = checked_zip(files["circuit.zip"], str(folder / "circuit.zip"))
        model = bytes.fromhex(manifest["model"])
    return Server(backend.server_from_bytes(archive), model)


class Client:
    """Encrypts inputs and decrypts results; the only one that holds secret keys.

    Attributes:
        input_names, output_names: of the model.
    """

    def __init__(self, interface: Interface, specs: bytes, model: bytes) -> None:
        self._interface = interface
        self._keys = backend.ClientKeys(specs)
        self._specification = self._keys.specification
        self._specification.check_shapes(interface.encrypted_shapes, interface.decrypted_shapes)
        self._model = model
        #: Names the key set in every message, so that no two are mixed up.
        self._key_name = b""
        self.input_names = tuple(info.name for info in interface.infos)
        self.output_names = interface.output_names

    def keygen(self) -> None:
        """Make new keys, from the operating system's randomness. Takes seconds."""
        self._keys.generate()
        self._key_name = secrets.token_bytes(16)

    @property
    def secret_keys(self) -> bytes:
        """All keys, to be kept in a safe place and never sent: ``load_keys`` reads them.

        Raises:
            InputError: there are no keys yet.
        """
        return self._sealed(messages.SECRET_KEYS, self._generated().serialize())

    def load_keys(self, data: bytes) -> None:
        """Use keys made before.

        Raises:
            InputError: these are no keys of a client of this model, or damaged.
        """
        message = messages.unseal(data, messages.SECRET_KEYS, self._model)
        self._keys.load(bytes(message.body))
        self._key_name = message.keys

    @property
    def evaluation_keys(self) -> bytes:
        """What the server needs to compute on ciphertexts. No secret.

        Raises:
            InputError: there are no keys yet.
        """
        keys = backend.evaluation_keys_to_bytes(self._generated().evaluation)
        return self._sealed(messages.EVALUATION_KEYS, keys)

    def _generated(self) -> backend.ClientKeys:
        if not self._keys.generated:
            raise InputError(
                "this client has no keys", expected="keys", fix="call keygen() or load_keys() first"
            )
        return self._keys

    def _sealed(self, kind: str, body: bytes) -> bytes:
        return messages.seal(kind, self._model, self._key_name, body)

    def encrypt(self, *arrays: Any, out_of_range: str = "saturate", **named: Any) -> bytes:
        """Encrypt a batch of inputs, given by position or by name.

        Raises:
            InputError: no keys yet, or inputs that do not fit: see ``QuantizedModule.forward``.
        """
        keys = self._generated()
        interface = self._interface
        integers = _computed(
            encode,
            interface.infos,
            interface.ranges,
            interface.encoder,
            [name for name, _ in interface.encrypted],
            gather(interface.infos, arrays, named),
            exact=interface.exact,
            missing=interface.missing,
            out_of_range=out_of_range,
        )
        rows = [
            [backend.value_to_bytes(value) for value in keys.encrypt(sample)]
            for sample in _computed(interface.samples, integers)
        ]
        return self._sealed(messages.INPUTS, messages.join(rows))

    def decrypt(self, ciphertexts: bytes) -> Any:
        """The model's outputs from what the server returned: an array, or a tuple of them.

        Raises:
            InputError: no keys yet, or these are no results of this model.
        """
        keys = self._generated()
        decrypted = self._interface.decrypted
        message = messages.unseal(ciphertexts, messages.RESULTS, self._model)
        if message.keys != self._key_name:
            raise InputError(
                "these results are encrypted under other keys than this client has",
                expected=f"key set {self._key_name.hex()[:12]}",
                got=f"key set {message.keys.hex()[:12]}",
                fix="decrypt with the keys that encrypted the inputs: keep secret_keys, "
                "and give them to load_keys()",
            )
        rows = messages.split(message.body)
        parts = []
        for row in rows:
            self._specification.check_results(row)
            values = [backend.value_from_bytes(data) for data in row]
            parts.append(keys.decrypt(values))
        outputs = []
        for i, (shape, offset) in enumerate(decrypted):
            sample = tuple(1 if n == BATCH else n for n in shape)
            joined = np.concatenate(
                [np.reshape(part[i], sample) for part in parts], axis=shape.index(BATCH)
            )
            outputs.append(joined - offset)
        return _computed(decode, self._interface.decoder, outputs)


def _computed(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """What a saved program computes: it is somebody else's, and may fail where zeros did not tell."""
    try:
        return function(*arguments, **options)
    except FheError:
        raise
    except Exception as error:
        raise ArtifactError(
            "the saved program failed on these values",
            got=f"{type(error).__name__}: {error}",
            fix="ask whoever offers the model for one that works",
        ) from error


class Server:
    """Runs the circuit on ciphertexts. Never sees a secret key."""

    def __init__(self, server: Any, model: bytes) -> None:
        self._server = server
        self._specification = backend.Specification(server.client_specs.serialize())
        self._model = model
        self._keys: tuple[bytes, Any] | None = None

    def run(self, ciphertexts: bytes, evaluation_keys: bytes) -> bytes:
        """Encrypted inference, a sample at a time.

        Raises:
            InputError: the bytes are no ciphertexts or keys, damaged, or of another model or client.
        """
        inputs = messages.unseal(ciphertexts, messages.INPUTS, self._model)
        keys = messages.unseal(evaluation_keys, messages.EVALUATION_KEYS, self._model)
        if inputs.keys != keys.keys:
            raise InputError(
                "the ciphertexts and the evaluation keys are of different clients",
                expected=f"ciphertexts under key set {keys.keys.hex()[:12]}",
                got=f"key set {inputs.keys.hex()[:12]}",
                fix="give both from one client, after one keygen()",
            )
        rows = messages.split(inputs.body)
        for row in rows:
            self._specification.check_inputs(row)
        loaded = self._evaluation_keys(keys)
        results = []
        for row in rows:
            values = [backend.value_from_bytes(data) for data in row]
            results.append(
                [
                    backend.value_to_bytes(value)
                    for value in backend.run_server(self._server, values, loaded)
                ]
            )
        return messages.seal(messages.RESULTS, self._model, inputs.keys, messages.join(results))

    def _evaluation_keys(self, message: messages.Message) -> Any:
        # Keys are large, and a client sends the same ones with every request.
        if self._keys is None or self._keys[0] != message.digest:
            self._specification.check_evaluation_keys(message.body)
            loaded = backend.evaluation_keys_from_bytes(bytes(message.body))
            self._keys = (message.digest, loaded)
        return self._keys[1]
