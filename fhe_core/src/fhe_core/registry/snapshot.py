"""Writes ``schema.json`` from the installed onnx: ``python -m fhe_core.registry.snapshot``.

The only file of the registry that imports onnx, and nothing imports it.
"""

from __future__ import annotations

import json
import re
import struct
from collections import defaultdict
from typing import Any

from fhe_core.registry.schema import SNAPSHOT, normalize_domain

DOMAINS = ("", "ai.onnx.ml")

# An in-place hint of opsets 1 to 5: it never changed a result, and exporters of opset 6 and later
# drop it. With it, no function could serve both Relu-1 and Relu-6.
IGNORED_ATTRIBUTES = frozenset({"consumed_inputs"})


def take() -> dict[str, Any]:
    """The snapshot of the installed onnx, as JSON values."""
    import onnx
    from onnx import defs

    schemas: dict[str, dict[str, list[Any]]] = {domain: defaultdict(list) for domain in DOMAINS}
    for schema in defs.get_all_schemas_with_history():
        domain = normalize_domain(schema.domain)
        if domain in schemas:
            schemas[domain][schema.name].append(schema)
    return {
        "onnx": onnx.__version__,
        "newest": {"": defs.onnx_opset_version(), "ai.onnx.ml": defs.onnx_ml_opset_version()},
        "ops": {
            domain: {name: _op(versions) for name, versions in sorted(ops.items())}
            for domain, ops in schemas.items()
        },
    }


def write() -> None:
    """Replaces the shipped snapshot. One operator a line, so that a diff can be read."""
    data = take()
    domains = [
        f"{json.dumps(domain)}: {{\n"
        + ",\n".join(f"{json.dumps(name)}: {_compact(op)}" for name, op in ops.items())
        + "\n}"
        for domain, ops in data.pop("ops").items()
    ]
    head = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in data.items())
    text = f'{{\n{head},\n"ops": {{\n' + ",\n".join(domains) + "\n}\n}\n"
    SNAPSHOT.write_text(text, encoding="utf-8")


def _op(schemas: list[Any]) -> list[Any]:
    """``[summary, {version: body}]``; None is deprecated, a number the version with this body."""
    schemas = sorted(schemas, key=lambda schema: schema.since_version)
    bodies: dict[str, Any] = {}
    for schema in schemas:
        body = None if schema.deprecated else _body(schema)
        equal = [int(version) for version, other in bodies.items() if body and other == body]
        bodies[str(schema.since_version)] = equal[0] if equal else body
    living = [schema for schema in schemas if not schema.deprecated]
    return [_summary(living[-1].doc or ""), bodies]


def _body(schema: Any) -> dict[str, Any]:
    attributes = {
        name: _attribute(attribute)
        for name, attribute in sorted(schema.attributes.items())
        if name not in IGNORED_ATTRIBUTES
    }
    body = {
        "inputs": " ".join(map(_parameter, schema.inputs)),
        "outputs": " ".join(map(_parameter, schema.outputs)),
        "attributes": attributes,
    }
    return {key: value for key, value in body.items() if value}


def _parameter(parameter: Any) -> str:
    mark = {"Single": "", "Optional": "?", "Variadic": "*"}[parameter.option.name]
    # Split-1 names its output "outputs...".
    return parameter.name.rstrip(".") + mark


def _attribute(attribute: Any) -> str | list[Any]:
    kind = attribute.type.name.lower()
    if attribute.required:
        return f"{kind}!"
    default = _default(attribute.default_value)
    return kind if default is None else [kind, default]


def _default(proto: Any) -> Any:
    """The Python value of an AttributeProto, None if it holds none or one that JSON cannot."""
    from onnx import AttributeProto

    readers = {
        AttributeProto.INT: lambda: proto.i,
        AttributeProto.FLOAT: lambda: _shortest(proto.f),
        AttributeProto.STRING: lambda: proto.s.decode(),
        AttributeProto.INTS: lambda: list(proto.ints),
        AttributeProto.FLOATS: lambda: [_shortest(value) for value in proto.floats],
        AttributeProto.STRINGS: lambda: [value.decode() for value in proto.strings],
    }
    return readers.get(proto.type, lambda: None)()


def _shortest(value: float) -> float:
    """The shortest decimal that is the same float32: 0.01, not 0.009999999776482582."""
    digits = (float(f"{value:.{precision}g}") for precision in range(1, 10))
    return next(short for short in digits if struct.pack("f", short) == struct.pack("f", value))


def _summary(doc: str) -> str:
    """The first sentence, on one line and without markup."""
    text = " ".join(doc.strip().split("\n\n")[0].split())
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)  # a link's text alone
    text = re.sub(r"</?[a-z]+/?>|`|\*\*", "", text)
    # "e.g. this", "1.5" and "numpy.matmul" hold no end of a sentence; "a tensor.The map" does.
    sentence = re.split(r"(?<!e\.g)(?<!i\.e)\.(?: |(?=[A-Z][a-z]))", text, maxsplit=1)[0]
    return f"{sentence.strip().rstrip('.:')}."


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


if __name__ == "__main__":
    write()
