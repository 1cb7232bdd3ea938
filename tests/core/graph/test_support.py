"""check answers all at once: what keeps a model from compiling, and what becomes of each node."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

import fhe_core
from fhe_core import ModelError

NEWEST = onnx.defs.onnx_opset_version()


def statuses(model: Any) -> dict[str, str]:
    return {node.node: node.status for node in fhe_core.check(model).nodes}


# --- what becomes of each node


def test_an_op_that_never_fuses_runs_encrypted_and_one_that_always_does_is_fused(
    build: Any,
) -> None:
    model = build("a = Fuse(x)", "b = Mix(a)", "c = Maybe(b)", "y = Fuse(c)")
    report = fhe_core.check(model)
    assert report.ok
    assert statuses(model) == {
        "a": "before encryption",
        "b": "encrypted",
        "c": "fused",
        "y": "fused",
    }
    assert {node.pack for node in report.nodes} == {"<registered>"}
    assert report.nodes[3] == fhe_core.graph.NodeSupport(
        "y", "Fuse", "tests", 1, "fused", "<registered>", quantized=True
    )


def test_float_only_ops_at_the_end_run_after_decryption(build: Any) -> None:
    model = build("a = Mix(x)", "b = Double(a)", "c = Fuse(b)", "d = Maybe(c)", "y = Double(d)")
    assert fhe_core.check(model).ok
    after = "after decryption"
    assert statuses(model) == {"a": "encrypted", "b": after, "c": after, "d": after, "y": after}


def test_a_float_only_op_before_one_that_mixes_is_a_problem(build: Any) -> None:
    report = fhe_core.check(build("a = Mix(x)", "b = Double(a)", "c = Fuse(b)", "y = Mix(c)"))
    (problem,) = report.problems
    assert (problem.node, problem.op) == ("b", "Double")
    assert "runs in float only" in problem.reason
    assert problem.fix
    assert [n.status for n in report.nodes] == ["encrypted", "float only", "fused", "encrypted"]


def test_a_float_only_op_with_one_path_to_a_mixing_one_is_a_problem(build: Any) -> None:
    nodes = ["a = Mix(x)", "b = Double(a)", "c = Mix(b)", "d = Fuse(b)"]
    report = fhe_core.check(build(*nodes, outputs=["c", "d"]))
    assert [p.node for p in report.problems] == ["b"]


def test_a_float_only_op_on_the_models_input_is_a_problem(build: Any) -> None:
    report = fhe_core.check(build("a = Double(x)", "y = Fuse(a)"))
    assert [p.node for p in report.problems] == ["a"]
    assert statuses(build("y = Double(x)")) == {"y": "float only"}


def test_constants_and_dead_nodes_are_no_problem(build: Any) -> None:
    nodes = ["k = Double(w)", "y = Mix(x)", "z = Double(y)", "d = Double(x)", "v = Plus(z, k)"]
    model = build(*nodes, outputs=["v"], constants={"w": np.ones(2, np.float32)})
    assert fhe_core.check(model).ok
    found = statuses(model)
    assert found["k"] == "folded"
    assert found["d"] == "unused"


def test_an_output_that_does_not_depend_on_the_inputs_is_a_problem(build: Any) -> None:
    nodes = ["k = Double(w)", "y = Mix(x)"]
    model = build(*nodes, outputs=["k", "y"], constants={"w": np.ones(2)})
    (problem,) = fhe_core.check(model).problems
    assert "the output 'k' is constant" in problem.reason


def test_outer_names_that_a_body_reads_count_as_inputs(
    build: Any, node: Any, subgraph: Any
) -> None:
    """So that the node is no constant, and what runs on encrypted data cannot be a subgraph."""
    body = subgraph("s = Plus(t, a)", inputs=("t",), outputs=("s",))
    model = build("a = Mix(x)", node("y = Repeat(w)", body=body, times=1),
                  constants={"w": np.ones((1, 2), np.float32)})  # fmt: skip
    assert statuses(model) == {"a": "encrypted", "y": "unsupported"}
    (problem,) = fhe_core.check(model).problems
    assert "subgraph" in problem.reason


def test_equal_nodes_are_merged(build: Any) -> None:
    model = build("a = Mix(x)", "b = Mix(x)", "c = Mix(a)", "y = Maybe(b)", outputs=["c", "y"])
    assert statuses(model) == {"a": "encrypted", "b": "merged", "c": "encrypted", "y": "fused"}


def test_what_the_client_computes_on_an_input_runs_before_encryption(build: Any) -> None:
    assert statuses(build("a = Fuse(x)", "y = Mix(a)")) == {
        "a": "before encryption",
        "y": "encrypted",
    }


# --- problems


def test_every_unsupported_node_is_listed(build: Any, node: Any) -> None:
    nodes = ["a = Mystery(x)", "b = Mix(a)", "c = Riddle(b)", node("y = Plus(c, c)", scall=1.0)]
    report = fhe_core.check(build(*nodes))
    assert not report.ok
    assert [(p.node, p.op) for p in report.problems] == [
        ("a", "Mystery"),
        ("c", "Riddle"),
        ("y", "Plus"),
    ]
    assert "'scall'" in report.problems[2].reason
    assert "scale, label" in report.problems[2].reason
    assert all(p.fix for p in report.problems)


def test_a_missing_attribute_is_listed(build: Any) -> None:
    (problem,) = fhe_core.check(build("y = Split(x)")).problems
    assert "'parts' is missing" in problem.reason


def test_a_node_that_fails_on_constants_is_listed(build: Any) -> None:
    model = build("k = Fail(w)", "a = Mix(x)", "y = Plus(a, k)", constants={"w": np.ones(1)})
    (problem,) = fhe_core.check(model).problems
    assert problem.node == "k"
    assert "no luck" in problem.reason


def test_opset_6_runs_but_does_not_compile(build: Any) -> None:
    (problem,) = fhe_core.check(build("y = Mix(x)", opsets=[("", 6), ("tests", 1)])).problems
    assert "opset 6" in problem.reason
    assert f"from 7 to {NEWEST}" in problem.fix
    assert fhe_core.check(build("y = Mix(x)", opsets=[("", 7), ("tests", 1)])).ok


def test_an_opset_out_of_range_is_one_problem_among_others(build: Any, node: Any) -> None:
    nodes = [node("a = Relu(x)", domain=""), "y = Mystery(a)"]
    report = fhe_core.check(build(*nodes, opsets=[("", 99), ("tests", 1)]))
    assert [p.op for p in report.problems] == ["", "Mystery"]
    assert "opset 99" in report.problems[0].reason


def test_an_invalid_graph_is_a_problem_and_not_an_error(build: Any, node: Any) -> None:
    report = fhe_core.check(build("y = Plus(x, gone)", "z = Mystery(y)"))
    assert [p.op for p in report.problems] == ["Plus", "Mystery"]
    bad_attribute = build(node("y = Relu(x)", domain="", slope=1.0))
    assert "slope" in fhe_core.check(bad_attribute).problems[0].reason
    conflict = build("y = Mix(x)", opsets=[("", 7), ("", 8), ("tests", 1)])
    assert "7 and 8" in fhe_core.check(conflict).problems[0].reason
    unreadable = build("y = Mix(x)", inputs={"x": (TensorProto.COMPLEX64, ["N", 2])})
    assert "complex64" in fhe_core.check(unreadable).problems[0].reason


def test_what_is_no_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        fhe_core.check(tmp_path / "gone.onnx")
    with pytest.raises(ModelError, match="not an ONNX model"):
        fhe_core.check(b"text")


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ((TensorProto.STRING, ["N", 2]), "must be numeric"),
        ((TensorProto.BFLOAT16, ["N", 2]), "of a type of NumPy's own"),
        ((TensorProto.FLOAT, []), "must have a batch dimension"),
        ((TensorProto.FLOAT, None), "must have a batch dimension"),
        ((TensorProto.FLOAT, ["N", 2, "L"]), "must have fixed dimensions"),
        ((TensorProto.FLOAT, ["N", None]), "must have fixed dimensions"),
    ],
)
def test_an_input_that_cannot_be_encrypted_is_a_problem(spec: Any, reason: str, build: Any) -> None:
    (problem,) = fhe_core.check(build("y = Mix(x)", inputs={"x": spec})).problems
    assert "'x'" in problem.reason
    assert reason in problem.reason


# --- the report


def test_the_text_fits_80_columns_and_groups_equal_problems(build: Any) -> None:
    nodes = [f"node_number_{i + 1} = Mystery(node_number_{i})" for i in range(30)]
    model = build(*nodes, inputs={"node_number_0": ["N"]}, outputs=["node_number_30"])
    text = str(fhe_core.check(model))
    assert max(map(len, text.splitlines())) <= 80
    assert "does not compile: 30 problems" in text
    assert "node_number_1, node_number_2" in text
    assert "and 25 more (Mystery)" in " ".join(text.split())
    assert len(text.splitlines()) < 30
    assert str(fhe_core.check(build("y = Mix(x)"))) == ("This model compiles. 1 node: 1 encrypted.")


def test_the_report_is_plain_data(build: Any) -> None:
    report = fhe_core.check(build("a = Mix(x)", "y = Mystery(a)"))
    loaded = json.loads(json.dumps(report.to_dict()))
    assert loaded["ok"] is False
    assert loaded["problems"][0]["node"] == "y"
    assert loaded["nodes"][0] == {
        "node": "a",
        "op": "Mix",
        "domain": "tests",
        "opset": 1,
        "status": "encrypted",
        "pack": "<registered>",
        "quantized": True,
    }


def test_checking_needs_no_data_and_changes_nothing(build: Any) -> None:
    model = build("y = Mix(x)")
    before = model.SerializeToString()
    fhe_core.check(model)
    assert model.SerializeToString() == before


def chain(op: str) -> list[str]:
    return [f"t{i + 1} = {op}(t{i})" for i in range(2000)]


@pytest.mark.parametrize(
    ("nodes", "problems"),
    [
        ([f"t{i + 1} = {('Mix', 'Fuse', 'Mystery')[i % 3]}(t{i})" for i in range(2000)], 666),
        ([f"t{i + 1} = {('Mix', 'Fuse', 'Maybe')[i % 3]}(t{i})" for i in range(2000)], 0),
        ([f"t{i + 1} = {('Double', 'Mix')[i % 2]}(t{i})" for i in range(2000)], 1000),
        (chain("Fuse")[::-1], 1999),
        ([f"t{i + 1} = Plus(t{i}, t2000)" for i in range(2000)], 2000),
        ([f"t{i + 1} = Plus(t{i}, gone{i})" for i in range(2000)], 2000),
    ],
    ids=[
        "unsupported",
        "supported",
        "float only",
        "unsorted",
        "cyclic",
        "names that nothing produces",
    ],
)
def test_two_thousand_nodes_are_checked_in_seconds(
    nodes: list[str], problems: int, build: Any
) -> None:
    model = build(*nodes, inputs={"t0": ["N", 2]}, outputs=["t2000"])
    start = time.process_time()
    report = fhe_core.check(model)
    str(report)
    # A third of one, alone: but coverage and other tests take their share. Asking each of each takes minutes.
    assert time.process_time() - start < 5
    assert len(report.problems) == problems


def test_two_thousand_unknown_operators_are_told_in_seconds(build: Any, node: Any) -> None:
    """Each different, with a reason for each, and suggestions for those that have a likeness."""
    nodes = [
        node(f"t{i + 1} = {('Relu', 'Mystery')[i % 2]}{i}(t{i})", domain="") for i in range(2000)
    ]
    model = build(*nodes, inputs={"t0": ["N", 2]}, outputs=["t2000"])
    start = time.process_time()
    problems = {problem.op: problem.reason for problem in fhe_core.check(model).problems}
    # A third of one, alone: but coverage and other tests take their share. Asking each of each takes minutes.
    assert time.process_time() - start < 5
    for i, entry in enumerate(nodes):
        assert "ONNX has no such operator" in problems[entry.op_type]
        assert ("perhaps 'Relu'" in problems[entry.op_type]) == (i % 2 == 0)
