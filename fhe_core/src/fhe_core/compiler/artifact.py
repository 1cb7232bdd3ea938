"""Saved models: the whole, its client and its server.

``client/`` holds what encrypts and decrypts: encodings, and the steps before and after; no weights and no
circuit. ``server/`` holds the circuit. Neither needs the packs or the ONNX file, and neither contains
pickle.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fhe_core
from fhe_core.compiler import concrete_backend as backend
from fhe_core.compiler.folder import (
    MANIFEST,
    arrays_from_bytes,
    arrays_to_bytes,
    checked_zip,
    manifest_of,
    read_folder,
    write_folder,
)
from fhe_core.errors import ArtifactError, InputError
from fhe_core.graph.inputs import gather
from fhe_core.graph.ir import ValueInfo
from fhe_core.program.host import HostProgram
from fhe_core.program.nodes import BATCH
from fhe_core.program.storage import (
    Arrays,
    host_from_document,
    host_to_document,
    pack,
    program_from_document,
    program_to_document,
    unpack,
)
from fhe_core.progress import Progress
from fhe_core.quantization.module import Cost, FusionRow, QuantizedModule, decode, encode
from fhe_core.quantization.plan import Plan

Array = NDArray[Any]

#: In front of ciphertexts as bytes: samples and values a sample follow.
_MAGIC = b"FHEC\x01"


# -- saving


def save(module: QuantizedModule, path: str | os.PathLike[str]) -> None:
    """Write a module: see ``QuantizedModule.save``."""
    arrays: Arrays = {}
    document = {
        "program": program_to_document(module.program, arrays),
        "interface": _interface(module, arrays),
        "fusion": [asdict(row) for row in module.fusion],
        "cost": asdict(module.circuit.cost) if module.circuit else None,
    }
    files = {
        "model.json": json.dumps(document).encode(),
        "model.npz": arrays_to_bytes(arrays),
        "plan.json": module.plan.to_json().encode(),
    }
    if module.circuit is not None:
        files |= _under("client", _client_files(module))
        files |= _under("server", _server_files(module))
    details = {"fhe_core": fhe_core.__version__, "packs": module.packs}
    files[MANIFEST] = manifest_of("model", files, details)
    write_folder(path, files)


def _under(folder: str, files: Mapping[str, bytes]) -> dict[str, bytes]:
    return {f"{folder}/{name}": data for name, data in files.items()}


def _interface(module: QuantizedModule, arrays: Arrays) -> dict[str, Any]:
    """What a client needs: inputs, outputs, and the steps before and after."""
    return {
        "inputs": [
            {
                "name": info.name,
                "dtype": info.dtype.name if info.dtype is not None else None,
                "shape": list(info.shape) if info.shape is not None else None,
                "range": list(module.input_ranges.get(info.name, ())) or None,
            }
            for info in module.input_infos
        ],
        "output_names": list(module.output_names),
        "encoder": host_to_document(module.encoder, arrays),
        "decoder": host_to_document(module.decoder, arrays),
        "encrypted": [
            {"name": node.name, "shape": list(node.shape)} for node in module.program.inputs
        ],
        "decrypted": [
            {"shape": list(node.shape), "offset": pack(np.asarray(offset), arrays)}
            for node, offset in zip(module.program.outputs, module.program.offsets, strict=True)
        ],
    }


def _client_files(module: QuantizedModule) -> dict[str, bytes]:
    arrays: Arrays = {}
    document = json.dumps(_interface(module, arrays)).encode()
    files = {
        "client.json": document,
        "client.npz": arrays_to_bytes(arrays),
        "specs.json": module.circuit.specs,  # type: ignore[union-attr]
    }
    files[MANIFEST] = manifest_of("client", files, {"fhe_core": fhe_core.__version__})
    return files


def _server_files(module: QuantizedModule) -> dict[str, bytes]:
    files = {"circuit.zip": module.circuit.archive()}  # type: ignore[union-attr]
    files[MANIFEST] = manifest_of("server", files, {"fhe_core": fhe_core.__version__})
    return files


# -- loading


class _Interface:
    """The parsed form of ``_interface``."""

    def __init__(self, document: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
        self.infos = tuple(
            ValueInfo(
                row["name"],
                np.dtype(row["dtype"]) if row["dtype"] else None,
                tuple(row["shape"]) if row["shape"] is not None else None,
            )
            for row in document["inputs"]
        )
        self.ranges = {
            row["name"]: (row["range"][0], row["range"][1])
            for row in document["inputs"]
            if row["range"]
        }
        self.output_names = tuple(document["output_names"])
        self.encoder: HostProgram = host_from_document(document["encoder"], arrays)
        self.decoder: HostProgram = host_from_document(document["decoder"], arrays)
        self.encrypted = [(row["name"], tuple(row["shape"])) for row in document["encrypted"]]
        self.decrypted = [
            (tuple(row["shape"]), unpack(row["offset"], arrays)) for row in document["decrypted"]
        ]


def _parsed(path: Path, what: str) -> Any:
    """Turn what goes wrong inside verified files into an ``ArtifactError``."""
    return _Damaged(path, what)


class _Damaged:
    def __init__(self, path: Path, what: str) -> None:
        self.path, self.what = path, what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, (KeyError, ValueError, TypeError, IndexError, OSError, EOFError)):
            raise ArtifactError(
                f"the {self.what} in {str(self.path)!r} cannot be understood",
                got=f"{type(error).__name__}: {error}",
                fix="save the model again with this version of fhe-core",
            ) from error


def load(path: str | os.PathLike[str]) -> QuantizedModule:
    """A module that ``save`` wrote, with its circuit. Needs neither the packs nor the ONNX file.

    Raises:
        ArtifactError: missing, damaged, changed, or of an unknown version.
    """
    folder = Path(path)
    manifest, files = read_folder(folder, "model")
    with _parsed(folder, "model"):
        document = json.loads(files["model.json"])
        arrays = arrays_from_bytes(files["model.npz"])
        interface = _Interface(document["interface"], arrays)
        program = program_from_document(document["program"], arrays)
        module = QuantizedModule(
            input_infos=interface.infos,
            output_names=interface.output_names,
            encoder=interface.encoder,
            encoder_names=[name for name, _ in interface.encrypted],
            program=program,
            decoder=interface.decoder,
            plan=Plan.from_json(files["plan.json"]),
            fusion=[
                FusionRow(**{**row, "group": tuple(row["group"])}) for row in document["fusion"]
            ],
            input_ranges=interface.ranges,
            packs=manifest.get("packs", {}),
        )
        if document["cost"] is not None:
            module.circuit = LoadedCircuit(
                program,
                Cost(**document["cost"]),
                checked_zip(files["server/circuit.zip"], "circuit.zip"),
                files["client/specs.json"],
            )
    return module


class LoadedCircuit:
    """A saved circuit: Concrete is imported, and the archive opened, when something is executed."""

    def __init__(self, program: Any, cost: Cost, archive: bytes, specs: bytes) -> None:
        self.program = program
        self.cost = cost
        self.specs = specs
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
    folder = Path(path)
    _, files = read_folder(folder, "client")
    with _parsed(folder, "client"):
        document = json.loads(files["client.json"])
        interface = _Interface(document, arrays_from_bytes(files["client.npz"]))
        specs = files["specs.json"]
    return Client(interface, specs)


def load_server(path: str | os.PathLike[str]) -> Server:
    """The server of a saved model. It runs native code from the folder: load only what you trust.

    Raises:
        ArtifactError: missing, damaged, changed, or of an unknown version.
    """
    folder = Path(path)
    _, files = read_folder(folder, "server")
    with _parsed(folder, "server"):
        archive = checked_zip(files["circuit.zip"], "circuit.zip")
    return Server(backend.server_from_bytes(archive))


class Client:
    """Encrypts inputs and decrypts results; the only one that holds secret keys.

    Attributes:
        input_names, output_names: of the model.
    """

    def __init__(self, interface: _Interface, specs: bytes) -> None:
        self._interface = interface
        self._keys = backend.ClientKeys(specs)
        self.input_names = tuple(info.name for info in interface.infos)
        self.output_names = interface.output_names

    def keygen(self) -> None:
        """Make new keys, from the operating system's randomness. Takes seconds."""
        self._keys.generate()

    @property
    def secret_keys(self) -> bytes:
        """All keys, to be kept in a safe place and never sent: ``load_keys`` reads them."""
        return self._generated().serialize()

    def load_keys(self, data: bytes) -> None:
        """Use keys made before.

        Raises:
            InputError: these are no keys.
        """
        self._keys.load(data)

    @property
    def evaluation_keys(self) -> bytes:
        """What the server needs to compute on ciphertexts. No secret.

        Raises:
            InputError: there are no keys yet.
        """
        return backend.evaluation_keys_to_bytes(self._generated().evaluation)

    def _generated(self) -> backend.ClientKeys:
        if not self._keys.generated:
            raise InputError("this client has no keys", expected="keys", fix="call keygen() first")
        return self._keys

    def encrypt(self, *arrays: Any, out_of_range: str = "saturate", **named: Any) -> bytes:
        """Encrypt a batch of inputs, given by position or by name.

        Raises:
            InputError: no keys yet, or inputs that do not fit: see ``QuantizedModule.forward``.
        """
        keys = self._generated()
        interface = self._interface
        integers = encode(
            interface.infos,
            interface.ranges,
            interface.encoder,
            [name for name, _ in interface.encrypted],
            gather(interface.infos, arrays, named),
            out_of_range=out_of_range,
        )
        count = len(next(iter(integers.values())))
        rows = []
        for i in range(count):
            sample = [
                np.reshape(integers[name][i], tuple(1 if n == BATCH else n for n in shape))
                for name, shape in interface.encrypted
            ]
            rows.append([backend.value_to_bytes(value) for value in keys.encrypt(sample)])
        return join(rows)

    def decrypt(self, ciphertexts: bytes) -> Any:
        """The model's outputs from what the server returned: an array, or a tuple of them.

        Raises:
            InputError: no keys yet, or these are no results of this model.
        """
        keys = self._generated()
        decrypted = self._interface.decrypted
        rows = split(ciphertexts, len(decrypted))
        parts = []
        for row in rows:
            values = [backend.value_from_bytes(data) for data in row]
            try:
                parts.append(keys.decrypt(values))
            except Exception as error:
                raise InputError(
                    f"the ciphertexts cannot be decrypted: {error}",
                    expected="what the server of this model returned, for these keys",
                    fix="send the ciphertexts of this client to the server of the same model",
                ) from error
        outputs = []
        for i, (shape, offset) in enumerate(decrypted):
            sample = tuple(1 if n == BATCH else n for n in shape)
            joined = np.concatenate(
                [np.reshape(part[i], sample) for part in parts], axis=shape.index(BATCH)
            )
            outputs.append(joined - offset)
        return decode(self._interface.decoder, outputs)


class Server:
    """Runs the circuit on ciphertexts. Never sees a secret key."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._keys: tuple[bytes, Any] | None = None

    def run(self, ciphertexts: bytes, evaluation_keys: bytes) -> bytes:
        """Encrypted inference, a sample at a time.

        Raises:
            InputError: the bytes are no ciphertexts or keys, or of another model.
        """
        rows = split(ciphertexts, None)
        keys = self._evaluation_keys(evaluation_keys)
        results = []
        for row in rows:
            values = [backend.value_from_bytes(data) for data in row]
            try:
                outputs = backend.run_server(self._server, values, keys)
            except Exception as error:
                raise InputError(
                    f"the circuit cannot run on these ciphertexts: {error}",
                    expected="ciphertexts and keys of a client of the same model",
                    fix="save client and server together, and use both",
                ) from error
            results.append([backend.value_to_bytes(value) for value in outputs])
        return join(results)

    def _evaluation_keys(self, data: bytes) -> Any:
        # Keys are large, and a client sends the same ones with every request.
        digest = hashlib.sha256(data).digest()
        if self._keys is None or self._keys[0] != digest:
            self._keys = (digest, backend.evaluation_keys_from_bytes(data))
        return self._keys[1]


# -- ciphertexts as bytes


def join(rows: Sequence[Sequence[bytes]]) -> bytes:
    """Values of several samples in one piece: counts, then each with its length in front."""
    columns = len(rows[0]) if rows else 0
    parts = [_MAGIC, struct.pack("<II", len(rows), columns)]
    for row in rows:
        for data in row:
            parts += [struct.pack("<Q", len(data)), data]
    return b"".join(parts)


def split(data: bytes, columns: int | None) -> list[list[bytes]]:
    """What ``join`` was given.

    Raises:
        InputError: the bytes are something else, or cut short.
    """
    try:
        if data[: len(_MAGIC)] != _MAGIC:
            raise ValueError("they do not begin as ciphertexts do")
        place = len(_MAGIC)
        rows, count = struct.unpack_from("<II", data, place)
        place += 8
        found: list[list[bytes]] = []
        for _ in range(rows):
            row = []
            for _ in range(count):
                (length,) = struct.unpack_from("<Q", data, place)
                place += 8
                if place + length > len(data):
                    raise ValueError("they are cut short")
                row.append(bytes(data[place : place + length]))
                place += length
            found.append(row)
        if place != len(data) or not rows or (columns is not None and count != columns):
            raise ValueError("their number does not fit")
    except (ValueError, struct.error, TypeError) as error:
        raise InputError(
            f"these bytes are no ciphertexts: {error}",
            expected="what encrypt() or run() returned",
            fix="send them unchanged",
        ) from error
    return found
