"""ONNX's default domain is implemented, or left out for a reason that is written down."""

from __future__ import annotations

import re
from pathlib import Path

from fhe_core.errors import UnsupportedOpError
from onnx import defs

import fhe_core

OPSETS = range(6, 29)


def versions() -> dict[str, set[int]]:
    """The opsets at which each operator is there to be asked for."""
    found: dict[str, set[int]] = {}
    for name in {
        schema.name for schema in defs.get_all_schemas_with_history() if not schema.domain
    }:
        for opset in OPSETS:
            try:
                schema = defs.get_schema(name, opset, "")
            except defs.SchemaError:
                continue
            if not schema.deprecated:
                found.setdefault(name, set()).add(opset)
    return found


def served(op: str, opset: int) -> bool:
    try:
        return fhe_core.get_registry().resolve(op, opset=opset).impl is not None
    except UnsupportedOpError:
        return False


def test_every_version_is_implemented_or_excluded(root: Path) -> None:
    """At each opset from 6 to 28 all operators but those of docs/exclusions.md, and none of those."""
    text = (root / "docs" / "exclusions.md").read_text()
    rows = re.findall(r"^\| ((?:[A-Z]\w+, )*[A-Z]\w+) \| .*\. \|$", text, re.MULTILINE)
    excluded = {op for row in rows for op in row.split(", ")}
    everything = versions()
    assert len(everything) > 200
    missing = {op for op, opsets in everything.items() for at in opsets if not served(op, at)}
    assert missing == excluded
    assert not any(served(op, at) for op in excluded for at in everything[op])
