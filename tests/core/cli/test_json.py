"""Every command's JSON is as docs/json.schema.json and docs/json.md say, and holds nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import fhe_core

from .conftest import QuantizedRelu, Site, cli, relu, save_model

Schema = dict[str, Any]

TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
# What the schema may say, all of which `faults` understands.
KEYWORDS = {"type", "enum", "anyOf", "$ref", "items", "properties", "required"}
KEYWORDS |= {"additionalProperties", "description"}


def faults(value: Any, schema: Schema, definitions: Schema, place: str = "$") -> list[str]:
    """Where a value is not as a JSON Schema (2020-12) says; empty if it is valid."""
    assert set(schema) <= KEYWORDS, schema
    if "$ref" in schema:
        return faults(value, definitions[schema["$ref"].rpartition("/")[2]], definitions, place)
    if "anyOf" in schema:
        found = [faults(value, choice, definitions, place) for choice in schema["anyOf"]]
        return [] if [] in found else [f"{place}: {value!r} is none of the choices"]
    if "enum" in schema and value not in schema["enum"]:
        return [f"{place}: {value!r} is not one of {schema['enum']}"]
    names = schema.get("type", list(TYPES))
    allowed = [name for name in ([names] if isinstance(names, str) else names) if _is(value, name)]
    if "type" in schema and not allowed:
        return [f"{place}: {value!r} is no {names}"]
    wrong = []
    if isinstance(value, list):
        for number, item in enumerate(value):
            wrong += faults(item, schema.get("items", {}), definitions, f"{place}[{number}]")
    if isinstance(value, dict):
        properties = schema["properties"]
        assert schema["additionalProperties"] is False
        wrong += [f"{place}: {key} is missing" for key in set(schema["required"]) - set(value)]
        wrong += [f"{place}: {key} is not in the schema" for key in set(value) - set(properties)]
        for key in set(value) & set(properties):
            wrong += faults(value[key], properties[key], definitions, f"{place}.{key}")
    return wrong


def _is(value: Any, name: str) -> bool:
    # Python's booleans are integers, JSON's are not.
    is_bool = isinstance(value, bool)
    return isinstance(value, TYPES[name]) and (name == "boolean") == is_bool


@pytest.fixture(scope="session")
def definitions(root: Path) -> Schema:
    schema: Schema = json.loads((root / "docs" / "json.schema.json").read_text(encoding="utf-8"))
    return dict(schema["$defs"])


def valid(answer: Any, name: str, definitions: Schema) -> Any:
    value = json.loads(answer.out)
    assert faults(value, definitions[name], definitions) == []
    return value


@pytest.fixture(autouse=True)
def every_kind_of_pack(mine: Site) -> None:
    """Packs that override and shadow, with an alternative, with and without a quantized form."""
    mine.add(
        "rival",
        """
        registry.impl("Double", double, domain="com.example", since_version=4, override=True)
        registry.quantized(QuantizedShift, domain="com.example", alternative=True)
        """,
    )


def test_list(definitions: Schema) -> None:
    records = valid(cli("list", "--shadowed", "--format", "json"), "list", definitions)
    assert {record["status"] for record in records} == {"active", "shadowed", "alternative"}


def test_packs(mine: Site, definitions: Schema) -> None:
    mine.add("stale", "pass", requires="fhe-core>=99")
    records = valid(cli("packs", "--format", "json"), "packs", definitions)
    assert {record["status"] for record in records} == {"loaded", "failed", "blocked"}


@pytest.mark.parametrize("op", ["Double", "Shift", "Concat"])
def test_explain(op: str, definitions: Schema) -> None:
    (explained,) = valid(cli("explain", op, "--format", "json"), "explain", definitions)
    assert explained["rows"]


def test_check(definitions: Schema, tmp_path: Path) -> None:
    model = save_model(tmp_path / "m.onnx", "Relu", "Neg", "Tanh")
    with fhe_core.registered(impls=[("Relu", relu), ("Neg", relu)], quantized=[QuantizedRelu]):
        report = valid(cli("check", model, "--format", "json"), "check", definitions)
    assert report["problems"]
    assert len({node["status"] for node in report["nodes"]}) > 1


def test_the_page_names_every_key_and_no_other(root: Path, definitions: Schema) -> None:
    """Keys stand in backticks in the first column of a table, or after ``with`` beside it."""
    page = (root / "docs" / "json.md").read_text(encoding="utf-8")
    first = re.findall(r"^\| (`.*?) \|", page, re.MULTILINE)
    beside = re.findall(r"objects(?: that say the same of what does not serve,)? with (`.*)", page)
    told = {key for cell in first for key in re.findall(r"`(\w+)`", cell)}
    mentioned = {key for text in beside for key in re.findall(r"`(\w+)`", text)}
    keys = {key for name in definitions for key in definitions[name].get("properties", {})}
    assert told <= keys
    assert keys <= told | mentioned


def test_the_check_of_this_file_notices_what_is_wrong(definitions: Schema) -> None:
    (pack,) = (r for r in json.loads(cli("packs", "--format", "json").out) if r["name"] == "mine")
    assert faults(pack, definitions["pack"], definitions) == []
    for wrong in (
        {**pack, "ops": "3"},
        {**pack, "ops": True},
        {**pack, "status": "odd"},
        {**pack, "new": 1},
        {key: value for key, value in pack.items() if key != "path"},
    ):
        assert len(faults(wrong, definitions["pack"], definitions)) == 1
