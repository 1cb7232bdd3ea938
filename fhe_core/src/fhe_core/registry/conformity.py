"""Does a NumPy function take what ONNX says that its operator takes?"""

from __future__ import annotations

import struct
from itertools import zip_longest
from typing import Any

from fhe_core.errors import SignatureError, Where
from fhe_core.registry.schema import Attribute, OpSchema, history, plain
from fhe_core.registry.signature import REQUIRED, OpSignature


def conforms(signature: OpSignature, schema: OpSchema) -> bool:
    """Whether a function with this signature can be called for every node of this schema."""
    return mismatch(signature, schema) is None


def check_conformity(
    signature: OpSignature, schema: OpSchema, function: str, where: Where | None = None
) -> None:
    """Raises SignatureError, naming op and version, unless the signature fits the schema."""
    problem = mismatch(signature, schema)
    if problem is None:
        return
    expected, got = problem
    fix = f"declare it as `{schema.as_signature()}`"
    others = [
        other.since_version
        for other in history(schema.domain, schema.op_type)
        if not other.deprecated and conforms(signature, other)
    ]
    if others:
        fix = f"register it with since_version={others[0]}, which it fits, or {fix}"
    raise SignatureError(
        f"{function}{signature} contradicts {schema} of ONNX",
        where=where or Where(op=schema.op_type, domain=schema.domain),
        expected=expected,
        got=got,
        fix=fix,
    )


def mismatch(signature: OpSignature, schema: OpSchema) -> tuple[str, str] | None:
    """The first contradiction as (expected, got), or None if there is none.

    A function may take as optional what ONNX requires, never the reverse: then a valid node could
    not be run.
    """
    return _input_mismatch(signature, schema) or _attribute_mismatch(signature, schema)


def _input_mismatch(signature: OpSignature, schema: OpSchema) -> tuple[str, str] | None:
    expected = [p for p in schema.inputs if p.kind != "variadic"]
    for position, (parameter, name) in enumerate(zip_longest(expected, signature.input_names), 1):
        if parameter is None:
            return f"{len(expected)} inputs by name", f"one more, {name!r}"
        if name is None:
            return f"input {parameter.name!r} at position {position}", "none"
        if plain(parameter.name) != plain(name):
            return f"input {parameter.name!r} at position {position}", repr(name)
        if parameter.kind == "optional" and name in signature.inputs:
            return f"input {name!r} to be optional, with the default None after `/`", "required"
    takes_more = len(expected) < len(schema.inputs)
    if takes_more and not signature.variadic:
        return f"any number of inputs, `*{schema.inputs[-1].name}`", "a fixed number"
    if signature.variadic and not takes_more:
        return f"{len(expected)} inputs", f"any number, `*{signature.variadic}`"
    return None


def _attribute_mismatch(signature: OpSignature, schema: OpSchema) -> tuple[str, str] | None:
    unknown = sorted(signature.attributes.keys() - schema.attributes.keys())
    if unknown:
        return f"attributes {_names(schema.attributes)}", f"{_names(unknown)} too"
    missing = sorted(schema.attributes.keys() - signature.attributes.keys())
    if missing:
        return f"attributes {_names(schema.attributes)}", f"no {_names(missing)}"
    for name, attribute in schema.attributes.items():
        default = signature.attributes[name]
        if not _same_default(attribute, default):
            return _describe(name, attribute.default), _describe(name, default)
    return None


def _same_default(attribute: Attribute, default: Any) -> bool:
    expected = attribute.default
    if expected is None or expected is REQUIRED or default is None or default is REQUIRED:
        return default is expected
    if attribute.type.endswith("s"):
        return (
            isinstance(default, list | tuple)
            and len(default) == len(expected)
            and all(map(_same_value, expected, default))
        )
    return _same_value(expected, default)


def _same_value(expected: Any, value: Any) -> bool:
    if isinstance(expected, float) and isinstance(value, int | float):
        return _float32(expected) == _float32(value)
    if isinstance(expected, int) and isinstance(value, float):
        return False  # an axis of 1.0 would fail in the function, later and elsewhere
    return bool(expected == value)


def _float32(value: float) -> bytes | None:
    """The bits that ONNX stores: attributes of type float have 32."""
    try:
        return struct.pack("<f", value)
    except OverflowError:
        return None


def _names(names: Any) -> str:
    return ", ".join(names) or "none"


def _describe(name: str, default: Any) -> str:
    if default is REQUIRED:
        return f"attribute {name!r} without a default"
    return f"{name}={default!r}"
