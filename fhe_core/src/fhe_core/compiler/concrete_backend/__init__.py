"""The encrypted reader of an integer program: Concrete (TFHE). The only package that imports it.

`emission` turns programs into functions that Concrete traces, `compilation` compiles them, `circuit` runs
what came out, `transport` makes bytes of it, `specification` holds what comes as bytes against a circuit,
`native` stands around every call, and `installation` imports Concrete itself.
"""

from __future__ import annotations

from fhe_core.compiler.concrete_backend.circuit import ClientKeys, ConcreteCircuit, run_server
from fhe_core.compiler.concrete_backend.compilation import compile_program
from fhe_core.compiler.concrete_backend.installation import concrete
from fhe_core.compiler.concrete_backend.specification import Specification
from fhe_core.compiler.concrete_backend.transport import (
    evaluation_keys_from_bytes,
    evaluation_keys_to_bytes,
    server_from_bytes,
    server_to_bytes,
    value_from_bytes,
    value_to_bytes,
)

__all__ = [
    "ClientKeys",
    "ConcreteCircuit",
    "Specification",
    "compile_program",
    "concrete",
    "evaluation_keys_from_bytes",
    "evaluation_keys_to_bytes",
    "run_server",
    "server_from_bytes",
    "server_to_bytes",
    "value_from_bytes",
    "value_to_bytes",
]
