"""The shipped snapshot says what the installed onnx says."""

from __future__ import annotations

import json

import onnx
import pytest
from fhe_core.registry import OpSignature, schema, snapshot
from onnx import defs

ALL = [
    version
    for domain in ("", "ai.onnx.ml")
    for op_type in schema.op_types(domain)
    for version in schema.history(domain, op_type)
]


@pytest.mark.skipif(
    onnx.__version__ != schema.onnx_version(), reason="the snapshot is of another onnx"
)
def test_the_snapshot_is_that_of_the_installed_onnx() -> None:
    """If this fails: python -m fhe_core.registry.snapshot"""
    assert json.loads(schema.SNAPSHOT.read_text(encoding="utf-8")) == snapshot.take()


def test_every_version_since_the_first_is_there() -> None:
    versions = [s.since_version for s in schema.history("", "Softmax")]
    assert versions == [1, 11, 13]
    assert schema.history("", "Sotfmax") == ()


def test_the_default_domain_has_two_spellings() -> None:
    assert schema.history("ai.onnx", "Relu") == schema.history("", "Relu")
    assert schema.newest_opset("ai.onnx") == schema.newest_opset("")


def test_the_newest_opset_is_known_for_onnx_domains_alone() -> None:
    newest = schema.newest_opset("")
    assert newest is not None
    assert newest >= 21
    assert schema.newest_opset("com.example") is None


def test_a_model_means_the_last_version_up_to_its_opset() -> None:
    assert [
        getattr(schema.schema_at("", "Softmax", n), "since_version", None) for n in (1, 12, 13)
    ] == [
        1,
        11,
        13,
    ]
    assert schema.schema_at("", "LayerNormalization", 16) is None


def test_inputs_outputs_and_defaults_are_as_on_the_onnx_page() -> None:
    clip = schema.history("", "Clip")[-1]
    assert [(p.name, p.kind) for p in clip.inputs] == [
        ("input", "required"),
        ("min", "optional"),
        ("max", "optional"),
    ]
    selu = schema.history("", "Selu")[-1]
    stored = defs.get_schema("Selu").attributes["alpha"].default_value.f
    assert selu.attributes["alpha"].default == pytest.approx(stored, rel=1e-7)
    assert [p.kind for p in schema.history("", "Split")[-1].outputs] == ["variadic"]


def test_deprecated_versions_are_marked() -> None:
    assert [s.deprecated for s in schema.history("", "Upsample")] == [False, False, False, True]


def test_a_summary_is_one_sentence_on_one_line() -> None:
    assert schema.summary("", "CastMap") is None
    assert schema.summary("ai.onnx.ml", "CastMap") == "Converts a map to a tensor."
    for op in {(s.domain, s.op_type) for s in ALL}:
        text = schema.summary(*op)
        assert text
        assert text.endswith(".")
        assert "\n" not in text


@pytest.mark.parametrize("domain", ["", "ai.onnx.ml"])
def test_the_signature_that_a_schema_prints_can_be_pasted_into_a_file(domain: str) -> None:
    """Error messages propose it, so it must be Python, and read back as the same signature."""
    for version in (s for s in ALL if s.domain == domain and not s.deprecated):
        namespace: dict[str, object] = {}
        exec(f"def op{version.as_signature()}: ...", namespace)
        assert OpSignature.from_callable(namespace["op"]) == version.as_signature()  # type: ignore[arg-type]
