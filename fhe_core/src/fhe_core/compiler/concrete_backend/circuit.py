"""Running a circuit: keys, encryption, inference, decryption."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.compiler.concrete_backend.emission import sample_shape
from fhe_core.compiler.concrete_backend.installation import said
from fhe_core.compiler.concrete_backend.native import native
from fhe_core.compiler.concrete_backend.specification import Specification
from fhe_core.compiler.concrete_backend.spending import spending
from fhe_core.compiler.concrete_backend.transport import server_to_bytes
from fhe_core.errors import ArtifactError, InputError
from fhe_core.program.nodes import BATCH
from fhe_core.program.program import Program
from fhe_core.progress import Progress
from fhe_core.quantization.module import Cost, Spending

Array = NDArray[Any]


class ConcreteCircuit:
    """A compiled program with the keys of this process, made on first use.

    Attributes:
        cost: see ``Cost``.
    """

    def __init__(self, program: Program, server: Any, cost: Cost) -> None:
        self.program = program
        self.cost = cost
        self.server = server
        self._keys: ClientKeys | None = None

    @property
    def spending(self) -> Spending:
        """Where the cost lies."""
        return spending(self.program, self.server, self.cost.complexity)

    @property
    def specs(self) -> bytes:
        """What a client needs to make keys, encrypt and decrypt."""
        specs: bytes = self.server.client_specs.serialize()
        return specs

    def archive(self) -> bytes:
        """The circuit as a zip archive."""
        return server_to_bytes(self.server)

    def execute(self, inputs: Mapping[str, Array], progress: Progress) -> list[Array]:
        """Encrypt, run and decrypt, a sample at a time. Integers in, integers out."""
        if self._keys is None:
            keys = ClientKeys(self.specs)
            with progress.stage("generating keys"):
                keys.generate()
            self._keys = keys
        names = [node.name for node in self.program.inputs]
        shapes = [sample_shape(node) for node in self.program.inputs]
        count = len(next(iter(inputs.values())))
        rows: list[list[Array]] = []
        with progress.stage("encrypted inference", total=count) as advance:
            for i in range(count):
                sample = [
                    np.reshape(inputs[name][i], shape)
                    for name, shape in zip(names, shapes, strict=True)
                ]
                values = self._keys.encrypt(sample)
                results = run_server(self.server, values, self._keys.evaluation)
                rows.append(self._keys.decrypt(results))
                advance(1)
        return [
            np.concatenate(
                [np.reshape(row[i], sample_shape(node)) for row in rows],
                axis=node.shape.index(BATCH),
            )
            - offset
            for i, (node, offset) in enumerate(
                zip(self.program.outputs, self.program.offsets, strict=True)
            )
        ]


class ClientKeys:
    """The keys of one client, and what they do. Made from client specs alone."""

    def __init__(self, specs: bytes) -> None:
        self.specification = Specification(specs)
        with native() as fhe:
            try:
                self.client = fhe.Client(fhe.ClientSpecs.deserialize(specs))
            except Exception as error:
                raise ArtifactError(
                    f"the client's specification cannot be read: {said(error)}",
                    fix="save the model again",
                ) from error

    def generate(self) -> None:
        """New secret keys, from the operating system's randomness."""
        with native(threads=True):
            self.client.keygen(
                force=True,
                secret_seed=secrets.randbits(128),
                encryption_seed=secrets.randbits(128),
            )

    def load(self, data: bytes) -> None:
        """Keys that ``serialize`` gave.

        Raises:
            InputError: these are none, or those of another circuit.
        """
        self.specification.check_keys(data)
        with native() as fhe:
            try:
                keys = fhe.Keys.deserialize(data)
            except Exception as error:
                raise InputError(
                    f"these are no keys: {said(error)}", fix="give the secret_keys of a client"
                ) from error
        # Its own keep the specification, which those that are read lack: new ones can be made later.
        self.client.keys._keyset = keys._keyset

    def serialize(self) -> bytes:
        with native():
            data: bytes = self.client.keys.serialize()
        return data

    @property
    def generated(self) -> bool:
        return bool(self.client.keys.are_generated)

    @property
    def evaluation(self) -> Any:
        return self.client.evaluation_keys

    def encrypt(self, sample: Sequence[Array]) -> list[Any]:
        """Ciphertexts of one sample of integers.

        Raises:
            ArtifactError: the specification is of other inputs.
        """
        with native():
            try:
                values = self.client.encrypt(*sample)
            except Exception as error:
                raise ArtifactError(
                    f"the circuit's specification does not fit its inputs: {said(error)}",
                    fix="use a client that was saved in one piece",
                ) from error
        return list(values) if isinstance(values, tuple) else [values]

    def decrypt(self, values: Sequence[Any]) -> list[Array]:
        """The integers in an inference's results.

        Raises:
            InputError: the values are no results of this circuit.
        """
        with native():
            try:
                results = self.client.decrypt(*values)
            except Exception as error:
                raise InputError(
                    f"these results cannot be decrypted: {said(error)}",
                    expected="what the server of the same model returned",
                    fix="use the client and the server that were saved together",
                ) from error
        parts = results if isinstance(results, tuple) else (results,)
        return [np.asarray(part, dtype=np.int64) for part in parts]


def run_server(server: Any, values: Sequence[Any], evaluation_keys: Any) -> list[Any]:
    """One encrypted inference: ciphertexts to ciphertexts.

    Raises:
        InputError: the values are no inputs of this circuit.
    """
    with native(threads=True):
        try:
            results = server.run(*values, evaluation_keys=evaluation_keys)
        except Exception as error:
            raise InputError(
                f"the circuit cannot run on these ciphertexts: {said(error)}",
                expected="what a client of the same model encrypted",
                fix="use the client and the server that were saved together",
            ) from error
    return list(results) if isinstance(results, tuple) else [results]
