"""``fhe-ops check MODEL``: a verdict, what becomes of each node, and every problem with its fix."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fhe_core
from fhe_core import QuantizedArray, QuantizedOp

from .conftest import cli, refused, relu, save_model

pytestmark = pytest.mark.usefixtures("relu_pack")


def test_a_model_that_compiles_is_a_yes(tmp_path: Path) -> None:
    answer = cli("check", save_model(tmp_path / "m.onnx", "Relu", "Relu"))
    assert answer == (
        0,
        "This model compiles.\n\nstatus  nodes  ops\nfused       2  Relu x2\n",
        "",
    )


def test_every_problem_is_told_with_node_op_reason_and_fix(tmp_path: Path) -> None:
    answer = cli("check", save_model(tmp_path / "m.onnx", "Relu", "Tanh", "Sin", "Tanh"))
    assert answer.code == 1
    assert answer.out.startswith("This model does not compile: 3 problems.\n")
    assert "unsupported      3  Tanh x2, Sin\n" in answer.out
    assert "\n- tanh_1, tanh_3 (Tanh): no loaded pack implements it" in answer.out
    assert "\n- sin_2 (Sin): no loaded pack implements it" in answer.out
    assert answer.out.count("\n  fix: ") == 2


def test_json_is_the_report(tmp_path: Path) -> None:
    answer = cli("check", save_model(tmp_path / "m.onnx", "Relu", "Tanh"), "--format", "json")
    report = json.loads(answer.out)
    assert answer.code == 1
    assert report["ok"] is False
    assert [node["status"] for node in report["nodes"]] == ["fused", "unsupported"]
    (problem,) = report["problems"]
    assert (problem["node"], problem["op"]) == ("tanh_1", "Tanh")
    assert problem["pack"] == ""
    assert problem["reason"]
    assert problem["fix"]


def test_markdown_has_a_row_a_problem(tmp_path: Path) -> None:
    answer = cli("check", save_model(tmp_path / "m.onnx", "Tanh", "Tanh"), "--format", "md")
    assert "| node | op | reason | fix | pack |\n|-|-|-|-|-|\n| tanh_0 | Tanh | " in answer.out
    assert "\n| tanh_1 | Tanh | " in answer.out


def test_what_runs_in_float_only_is_told_with_its_place_and_pack(tmp_path: Path) -> None:
    """At the end of a model it runs after decryption; before an op that needs integers, nowhere."""
    with fhe_core.registered(impls=[("Abs", relu), ("Neg", relu)], quantized=[QuantizedNeverFused]):
        at_the_end = cli("check", save_model(tmp_path / "a.onnx", "Relu", "Neg", "Abs"))
        before = cli("check", save_model(tmp_path / "b.onnx", "Abs", "Neg"))
    assert at_the_end.code == 0
    assert at_the_end.out.endswith(
        "\nIn float only, as no installed pack has a quantized form: Abs (abs_2, after decryption).\n"
    )
    assert before.code == 1
    assert (
        "\nIn float only, as no installed pack has a quantized form: Abs (abs_0).\n" in before.out
    )
    assert "\n- abs_0 (Abs, pack <registered>): runs in float only" in before.out


class QuantizedNeverFused(QuantizedOp):
    _impl_for_op_named = "Neg"

    def q_impl(self, x: QuantizedArray, /, **attrs: Any) -> Any:
        return self.quantized(-x.qvalues.astype(np.float64))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ("m.onnx", "does not exist")),
        (b"", ("m.onnx", "is empty")),
        (b"hello, I am a text file", ("m.onnx", "not an ONNX model", "text")),
    ],
)
def test_a_file_that_is_no_model_is_wrong_use(
    content: bytes | None, words: tuple[str, ...], tmp_path: Path
) -> None:
    path = tmp_path / "m.onnx"
    if content is not None:
        path.write_bytes(content)
    refused(cli("check", path), 2, *words)


def test_a_truncated_model_and_a_folder_are_wrong_use(tmp_path: Path) -> None:
    path = save_model(tmp_path / "m.onnx", "Relu")
    path.write_bytes(path.read_bytes()[:-9])
    refused(cli("check", path), 2, "m.onnx")
    refused(cli("check", tmp_path), 2, "is a directory", "m.onnx")
