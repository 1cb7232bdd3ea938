"""A stored program is the program that was stored; a stored anything-else is refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from fhe_core.errors import ArtifactError
from fhe_core.program.host import HostProgram, HostStep, Reference
from fhe_core.program.interpreter import Interpreter
from fhe_core.program.storage import (
    Arrays,
    host_from_document,
    host_to_document,
    pack,
    program_from_document,
    program_to_document,
    unpack,
)

from .programs import entry, linear, looked_up, program, rounded, widened


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        3,
        -0.25,
        "text",
        (1, (2, "three"), ()),
        slice(None, None, -1),
        (slice(1, None), Ellipsis, None),
        Reference(4),
        np.dtype("float32"),
    ],
    ids=repr,
)
def test_a_value_survives_json(value: Any) -> None:
    arrays: Arrays = {}
    assert unpack(json.loads(json.dumps(pack(value, arrays))), arrays) == value


def test_arrays_and_scalars_keep_their_type() -> None:
    """A float32 scalar promotes as an array of no dimensions does, and as no Python number does."""
    arrays: Arrays = {}
    for value in (np.float32(0.1), np.arange(6, dtype=np.uint8).reshape(2, 3), np.array("text")):
        found = unpack(json.loads(json.dumps(pack(value, arrays))), arrays)
        assert found.dtype == value.dtype
        np.testing.assert_array_equal(found, value)


def test_what_cannot_be_stored_is_named() -> None:
    with pytest.raises(ArtifactError, match="a function cannot be saved"):
        pack(lambda: None, {})


def test_a_stored_program_computes_the_same() -> None:
    rng = np.random.default_rng(0)
    x = entry("x", 3, 4)
    moved = linear("index", x, key=(slice(None), slice(None, None, -1)))
    total = linear("matmul", moved, weights=rng.integers(-3, 4, (3, 2)), left=False)
    widened([x, moved, total])
    tables = rng.integers(-5, 6, (2, 16))
    made = program(looked_up(rounded(total, 4, exact=True), tables), total)
    arrays: Arrays = {}
    document = json.loads(json.dumps(program_to_document(made, arrays)))
    again = program_from_document(document, arrays)
    values = {"x": rng.integers(-8, 8, (50, 3))}
    for ours, theirs in zip(Interpreter(made)(values), Interpreter(again)(values), strict=True):
        np.testing.assert_array_equal(theirs, ours)
    assert [(n.op, n.width, n.signed) for n in again.nodes] == [
        (n.op, n.width, n.signed) for n in made.nodes
    ]


def test_programs_name_operations_that_exist_and_nothing_else() -> None:
    arrays: Arrays = {}
    document = program_to_document(program(entry("x", 1, 2)), arrays)
    document["nodes"][0]["op"] = "system"
    with pytest.raises(ArtifactError, match="unknown operation 'system'"):
        program_from_document(document, arrays)


def test_host_programs_call_the_vocabulary_and_nothing_else() -> None:
    arrays: Arrays = {}
    stored = host_to_document(
        HostProgram(("x",), (HostStep("exp", (Reference(0),), {}),), (1,)), arrays
    )
    (found,) = host_from_document(json.loads(json.dumps(stored)), arrays)({"x": np.ones(2)}, 2)
    np.testing.assert_array_equal(found, np.exp(np.ones(2)))
    stored["steps"][0]["function"] = "load"
    with pytest.raises(ArtifactError, match="'load', which is not allowed"):
        host_from_document(stored, arrays)
