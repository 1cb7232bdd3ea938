"""What ONNX itself says of its operators, without importing onnx.

``schema.json`` is a snapshot of ``onnx.defs`` that `fhe_core.registry.snapshot` writes. Parsing it
takes a few milliseconds; importing onnx takes a quarter of a second, which listing operators should
not cost.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from fhe_core.registry.signature import REQUIRED, OpSignature

SNAPSHOT = Path(__file__).with_name("schema.json")

# How a parameter's kind is written after its name in the snapshot.
KIND_MARKS: Mapping[str, Kind] = {"?": "optional", "*": "variadic"}

Kind = Literal["required", "optional", "variadic"]


@dataclass(frozen=True)
class Parameter:
    """An input or output of a schema."""

    name: str
    kind: Kind


@dataclass(frozen=True)
class Attribute:
    """An attribute of a schema; ``default`` is `REQUIRED`, a value, or None where ONNX gives none.

    ``type`` is ONNX's name for it in lower case: int, ints, float, floats, string, strings, tensor,
    graph...
    """

    name: str
    type: str
    default: Any


@dataclass(frozen=True)
class OpSchema:
    """One version of one operator. Type constraints are left out: nothing here depends on them."""

    domain: str
    op_type: str
    since_version: int
    inputs: tuple[Parameter, ...]
    outputs: tuple[Parameter, ...]
    attributes: Mapping[str, Attribute]
    deprecated: bool

    def __str__(self) -> str:
        domain = f"{self.domain}." if self.domain else ""
        return f"{domain}{self.op_type}-{self.since_version}"

    def as_signature(self) -> OpSignature:
        """The signature of a NumPy function that implements exactly this version."""
        names: dict[str, list[str]] = {"required": [], "optional": [], "variadic": []}
        for parameter in self.inputs:
            # Split-1 has an input and an attribute of one name, which Python does not allow.
            taken = parameter.name in self.attributes
            names[parameter.kind].append(parameter.name + "_" * taken)
        return OpSignature(
            tuple(names["required"]),
            tuple(names["optional"]),
            next(iter(names["variadic"]), None),
            {name: attribute.default for name, attribute in self.attributes.items()},
        )

    def called_like(self, other: OpSchema) -> bool:
        """Whether inputs, outputs, attributes and defaults are those of ``other``.

        Outputs have no names in a NumPy function, so their renaming changes nothing.
        """
        return (
            [(plain(p.name), p.kind) for p in self.inputs]
            == [(plain(p.name), p.kind) for p in other.inputs]
            and [p.kind for p in self.outputs] == [p.kind for p in other.outputs]
            and self.attributes == other.attributes
        )


def plain(name: str) -> str:
    """An input's name without case and underscores: ``input_mean`` and ``InputMean_`` agree."""
    return name.replace("_", "").lower()


def normalize_domain(domain: str) -> str:
    """The default domain has two spellings, ``ai.onnx`` and the empty one, which is used here."""
    return "" if domain == "ai.onnx" else domain


def display_domain(domain: str) -> str:
    """The domain as people write it."""
    return domain or "ai.onnx"


def onnx_version() -> str:
    """The version of onnx that the snapshot was taken from."""
    version: str = _snapshot()["onnx"]
    return version


def is_known_domain(domain: str) -> bool:
    """Whether the snapshot covers a domain; what ONNX says is binding there."""
    return normalize_domain(domain) in _snapshot()["newest"]


def newest_opset(domain: str) -> int | None:
    """The newest opset of a domain in the snapshot, or None for a domain that is not ONNX's."""
    opset: int | None = _snapshot()["newest"].get(normalize_domain(domain))
    return opset


def op_types(domain: str) -> tuple[str, ...]:
    """Every operator of a domain, at whatever version."""
    return tuple(_snapshot()["ops"].get(normalize_domain(domain), ()))


def summary(domain: str, op_type: str) -> str | None:
    """The first sentence of an operator's ONNX page, or None if ONNX has no such operator."""
    entry = _snapshot()["ops"].get(normalize_domain(domain), {}).get(op_type)
    return entry and entry[0]


@cache
def history(domain: str, op_type: str) -> tuple[OpSchema, ...]:
    """Every version of an operator, oldest first; empty if the snapshot has no such operator."""
    domain = normalize_domain(domain)
    entry = _snapshot()["ops"].get(domain, {}).get(op_type)
    if entry is None:
        return ()
    schemas: dict[int, OpSchema] = {}
    for text, body in entry[1].items():
        version = int(text)
        if isinstance(body, int):  # only its type constraints differ from that version
            same = schemas[body]
            parts = same.inputs, same.outputs, same.attributes
        else:
            parts = _parse_body(body or {})
        schemas[version] = OpSchema(domain, op_type, version, *parts, deprecated=body is None)
    return tuple(schemas.values())


def schema_at(domain: str, op_type: str, opset: int) -> OpSchema | None:
    """The version of an operator that a model of this opset means, or None if there is none yet."""
    candidates = [s for s in history(domain, op_type) if s.since_version <= opset]
    return candidates[-1] if candidates else None


@cache
def _snapshot() -> dict[str, Any]:
    data: dict[str, Any] = json.loads(SNAPSHOT.read_text(encoding="utf-8"))
    return data


def _parse_body(
    body: Mapping[str, Any],
) -> tuple[tuple[Parameter, ...], tuple[Parameter, ...], Mapping[str, Attribute]]:
    attributes = {n: _parse_attribute(n, v) for n, v in body.get("attributes", {}).items()}
    return (
        _parse_parameters(body.get("inputs", "")),
        _parse_parameters(body.get("outputs", "")),
        MappingProxyType(attributes),
    )


def _parse_parameters(text: str) -> tuple[Parameter, ...]:
    return tuple(
        Parameter(word.rstrip("?*"), KIND_MARKS.get(word[-1], "required")) for word in text.split()
    )


def _parse_attribute(name: str, value: str | list[Any]) -> Attribute:
    if isinstance(value, list):
        kind, default = value
        return Attribute(name, kind, tuple(default) if isinstance(default, list) else default)
    return Attribute(name, value.rstrip("!"), REQUIRED if value.endswith("!") else None)
