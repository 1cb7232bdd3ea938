"""Programs as JSON and arrays: no pickle, nothing that runs when it is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.errors import ArtifactError, Where
from fhe_core.program.batch import BATCH, Batch, Shape
from fhe_core.program.host import FUNCTIONS, HostProgram, HostStep, Reference
from fhe_core.program.nodes import Node, Origin
from fhe_core.program.program import Program
from fhe_core.program.rules import RULES

Arrays = dict[str, NDArray[Any]]

#: What interpreting a program needs beyond `RULES`.
_OPS = {*RULES, "input", "round", "lookup"}


#: The batch in shapes of saved programs. No dimension is as large.
_STORED_BATCH = 2**31 - 1


def shape_to_document(shape: Shape) -> list[int]:
    """A shape as JSON."""
    return [_STORED_BATCH if n == BATCH else n for n in shape]


def shape_from_document(document: Iterable[Any]) -> tuple[Any, ...]:
    """The shape that a document describes."""
    return tuple(BATCH if n == _STORED_BATCH else n for n in document)


def pack(value: Any, arrays: Arrays) -> Any:
    """``value`` as JSON, its arrays put into ``arrays`` under keys of their own."""
    if isinstance(value, np.ndarray):
        key = f"a{len(arrays)}"
        arrays[key] = value
        return {"array": key}
    if isinstance(value, Reference):
        return {"slot": value.slot}
    if isinstance(value, np.dtype):
        return {"dtype": value.name}
    if isinstance(value, Batch):
        return _STORED_BATCH
    if isinstance(value, np.generic):
        # Not a Python number: a float32 scalar promotes differently.
        return pack(np.asarray(value), arrays)
    if isinstance(value, slice):
        return {"slice": [pack(part, arrays) for part in (value.start, value.stop, value.step)]}
    if isinstance(value, (list, tuple)):
        return {"tuple": [pack(part, arrays) for part in value]}
    if value is Ellipsis:
        return {"ellipsis": True}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, type) and issubclass(value, np.generic):
        return {"dtype": np.dtype(value).name}
    raise ArtifactError(
        f"a {type(value).__name__} cannot be saved",
        got=repr(value)[:80],
        fix="use arrays, numbers, strings and tuples as arguments in the implementation",
    )


_UNPACK: dict[str, Callable[[Any, Mapping[str, Any]], Any]] = {
    "array": lambda body, arrays: arrays[body],
    "slot": lambda body, arrays: Reference(int(body)),
    "dtype": lambda body, arrays: _dtype(body),
    "slice": lambda body, arrays: slice(*(unpack(part, arrays) for part in body)),
    "tuple": lambda body, arrays: tuple(unpack(part, arrays) for part in shape_from_document(body)),
    "ellipsis": lambda body, arrays: Ellipsis,
}


def _dtype(name: str) -> np.dtype[Any]:
    dtype = np.dtype(name)
    if dtype.kind not in "fiubcUS":
        raise ArtifactError(
            f"the client's program uses the type {name!r}, which is not allowed",
            fix="do not use this model",
        )
    return dtype


def unpack(value: Any, arrays: Mapping[str, Any]) -> Any:
    """What ``pack`` was given."""
    if isinstance(value, dict):
        ((kind, body),) = value.items()
        return _UNPACK[kind](body, arrays)
    return value


# -- integer programs


def program_to_document(program: Program, arrays: Arrays) -> dict[str, Any]:
    """A program as JSON."""
    slots = {id(node): i for i, node in enumerate(program.nodes)}
    nodes = []
    for node in program.nodes:
        attributes = {
            name: pack(value, arrays) for name, value in node.attributes.items() if name != "source"
        }
        nodes.append(
            {
                "op": node.op,
                "inputs": [slots[id(source)] for source in node.inputs],
                "shape": shape_to_document(node.shape),
                "low": pack(np.asarray(node.low), arrays),
                "high": pack(np.asarray(node.high), arrays),
                "attributes": attributes,
                "name": node.name,
                "width": node.width,
                "signed": node.signed,
                "output": node.origin.output if node.origin else None,
                "node": node.where.node,
                "type": node.where.op,
            }
        )
    return {
        "nodes": nodes,
        "outputs": [slots[id(node)] for node in program.outputs],
        "offsets": [pack(np.asarray(offset), arrays) for offset in program.offsets],
    }


def program_from_document(document: Mapping[str, Any], arrays: Mapping[str, Any]) -> Program:
    """The program that a document describes.

    Raises:
        ArtifactError: it names an operation that does not exist, or reads results that are not there yet.
    """
    nodes: list[Node] = []
    for row in document["nodes"]:
        if row["op"] not in _OPS:
            raise ArtifactError(
                f"the program has an unknown operation {row['op']!r}",
                fix="load it with the version of fhe-core that saved it",
            )
        _check_slots(row["inputs"], len(nodes))
        origin = (
            Origin(row["output"], Where(node=row["node"], op=row["type"]))
            if row["output"]
            else None
        )
        nodes.append(
            Node(
                row["op"],
                tuple(nodes[i] for i in row["inputs"]),
                shape_from_document(row["shape"]),
                unpack(row["low"], arrays),
                unpack(row["high"], arrays),
                {name: unpack(value, arrays) for name, value in row["attributes"].items()},
                origin,
                row["name"],
                row["width"],
                row["signed"],
            )
        )
    _check_slots(document["outputs"], len(nodes))
    if len(document["offsets"]) != len(document["outputs"]):
        raise ArtifactError(
            "the program has not one offset for each output", fix="have the model saved again"
        )
    return Program(
        tuple(nodes),
        tuple(nodes[i] for i in document["outputs"]),
        tuple(unpack(offset, arrays) for offset in document["offsets"]),
    )


# -- host programs


def host_to_document(program: HostProgram, arrays: Arrays) -> dict[str, Any]:
    """A host program as JSON."""
    return {
        "inputs": list(program.inputs),
        "results": list(program.results),
        "steps": [
            {
                "function": step.function,
                "arguments": pack(step.arguments, arrays),
                "keywords": {name: pack(value, arrays) for name, value in step.keywords.items()},
                "layout": step.layout,
            }
            for step in program.steps
        ],
    }


def host_from_document(document: Mapping[str, Any], arrays: Mapping[str, Any]) -> HostProgram:
    """The host program that a document describes.

    Raises:
        ArtifactError: it calls a function outside the vocabulary, or reads results that are not there yet.
    """
    steps: list[HostStep] = []
    inputs, results = tuple(document["inputs"]), tuple(document["results"])
    for row in document["steps"]:
        if row["function"] not in FUNCTIONS:
            raise ArtifactError(
                f"the client's program calls {row['function']!r}, which is not allowed",
                fix="load it with the version of fhe-core that saved it",
            )
        step = HostStep(
            row["function"],
            unpack(row["arguments"], arrays),
            {name: unpack(value, arrays) for name, value in row["keywords"].items()},
            row["layout"],
        )
        _check_slots(_slots_of((step.arguments, *step.keywords.values())), len(inputs) + len(steps))
        steps.append(step)
    _check_slots(results, len(inputs) + len(steps))
    return HostProgram(inputs, tuple(steps), results)


def _slots_of(argument: Any) -> Iterator[int]:
    """The slots that an argument refers to."""
    if isinstance(argument, Reference):
        yield argument.slot
    elif isinstance(argument, (list, tuple)):
        for part in argument:
            yield from _slots_of(part)


def _check_slots(slots: Iterable[int], filled: int) -> None:
    for slot in slots:
        if not 0 <= slot < filled:
            raise ArtifactError(
                "a saved program reads a result that is not there",
                expected=f"one of {filled}",
                got=f"slot {slot}",
                fix="do not use this model, or have it saved again",
            )
