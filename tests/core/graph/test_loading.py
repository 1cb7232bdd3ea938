"""From whatever is given, either a checked ModelProto comes or a ModelError that says why.

Every message names the file (or says what stood in for it) and what to do next.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fhe_core.graph import load_model
from onnx import TensorProto, external_data_helper

import fhe_core
from fhe_core import CalibrationError, ModelError

NEWEST = onnx.defs.onnx_opset_version()


def error_of(model: Any) -> ModelError:
    with pytest.raises(ModelError) as caught:
        load_model(model)
    assert caught.value.fix, "every error says what to do next"
    assert "\n" not in str(caught.value)
    assert "Traceback" not in str(caught.value)
    return caught.value


# --- files that are no models


def test_a_path_bytes_and_a_proto_give_the_same_model(build: Any, tmp_path: Path) -> None:
    model = build("y = Double(x)")
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    assert load_model(path) == load_model(str(path)) == load_model(path.read_bytes()) == model
    assert load_model(model) is model


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "'nowhere.onnx' does not exist" in str(error_of("nowhere.onnx"))
    assert str(Path.cwd()) in str(error_of("nowhere.onnx")), "a relative path is relative to this"
    assert str(tmp_path / "nowhere.onnx") in str(error_of(tmp_path / "nowhere.onnx"))


def test_a_directory_is_named_with_the_models_in_it(build: Any, tmp_path: Path) -> None:
    onnx.save(build("y = Double(x)"), tmp_path / "net.onnx")
    text = str(error_of(tmp_path))
    assert "is a directory" in text
    assert "net.onnx" in text


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "locked.onnx"
    path.write_bytes(b"\x08")
    path.chmod(0)
    assert "cannot be read" in str(error_of(path))


def test_a_path_that_no_file_can_have_is_an_error() -> None:
    assert "cannot be read" in str(error_of("null\0byte.onnx"))


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "empty.onnx"
    path.touch()
    assert f"'{path}' is empty (got: 0 bytes)" in str(error_of(path))


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\x89PNG\r\n\x1a\n and so on", "PNG"),
        (b"PK\x03\x04 and so on", "zip archive"),
        (b"\x80\x04 and so on", "pickle"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"# A readme\n\nThis is text.\n", "text"),
        (b'{"irVersion": 8}', "text"),
        (bytes(range(200, 256)), "binary data"),
    ],
)
def test_what_is_not_onnx_is_called_by_its_name(content: bytes, what: str, tmp_path: Path) -> None:
    path = tmp_path / "thing.onnx"
    path.write_bytes(content)
    text = str(error_of(path))
    assert f"'{path}' is not an ONNX model" in text
    assert what in text


def test_a_npz_file_is_called_an_archive(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.ones(3))
    assert ".npz" in error_of(tmp_path / "data.npz").got


def test_every_truncation_is_reported(build: Any) -> None:
    data = build("y = Double(x)").SerializeToString()
    graph_end = len(build("y = Double(x)", opsets=()).SerializeToString())
    for length in range(1, graph_end):
        text = str(error_of(data[:length]))
        assert "truncated" in text or "not an ONNX model" in text, length


def test_an_empty_message_is_no_model() -> None:
    assert "holds no graph" in str(error_of(onnx.ModelProto()))
    assert "the given ModelProto" in str(error_of(onnx.ModelProto()))


@pytest.mark.parametrize("thing", [None, 3, object(), np.zeros(3)])
def test_what_cannot_be_a_model_is_called_by_its_type(thing: object) -> None:
    error = error_of(thing)
    assert error.got == type(thing).__name__
    assert "torch.onnx.export" in str(error)


# --- versions


@pytest.mark.parametrize("opset", [1, 5, NEWEST + 1, 99])
def test_an_opset_out_of_range_is_refused_with_the_range(opset: int, build: Any) -> None:
    error = error_of(build("y = Double(x)", opsets=[("", opset), ("tests", 1)]))
    assert f"opset {opset}" in error.problem
    assert f"opset 6 to {NEWEST}" in str(error)


@pytest.mark.parametrize("opset", [6, 7, NEWEST])
def test_every_opset_in_range_is_accepted(opset: int, build: Any) -> None:
    load_model(build("y = Double(x)", opsets=[("", opset), ("tests", 1)]))


def test_an_ml_opset_that_onnx_does_not_know_is_refused(build: Any) -> None:
    model = build("y = Double(x)", opsets=[("ai.onnx.ml", 99), ("tests", 1)])
    assert "opset 99 of ai.onnx.ml" in str(error_of(model))


def test_a_missing_opset_is_reported(build: Any) -> None:
    assert "does not say which opset" in str(error_of(build("y = Double(x)", opsets=())))


def test_a_domain_that_is_not_imported_is_reported_with_its_node(build: Any) -> None:
    error = error_of(build("y = Double(x)", opsets=[("", 17)]))
    assert "'tests'" in error.problem
    assert error.where.node == "y"


def test_a_newer_ir_version_is_refused(build: Any) -> None:
    text = str(error_of(build("y = Double(x)", ir_version=99)))
    assert "IR version 99" in text
    assert f"{onnx.IR_VERSION} or older" in text


def test_equal_opset_imports_are_merged_in_a_copy(build: Any) -> None:
    model = build("y = Double(x)", opsets=[("tests", 1), ("", 14), ("ai.onnx", 14)])
    before = model.SerializeToString()
    loaded = load_model(model)
    assert [(e.domain, e.version) for e in loaded.opset_import] == [("tests", 1), ("", 14)]
    assert model.SerializeToString() == before


def test_unequal_opset_imports_are_refused(build: Any) -> None:
    text = str(error_of(build("y = Double(x)", opsets=[("", 14), ("", 15), ("tests", 1)])))
    assert "14 and 15" in text


def test_the_domain_ai_onnx_is_the_default_one(build: Any, node: Any) -> None:
    model = build(node("y = Relu(x)", domain="ai.onnx"), opsets=[("ai.onnx", 14)])
    assert load_model(model).graph.node[0].domain == ""
    assert model.graph.node[0].domain == "ai.onnx"


# --- graphs


def test_a_graph_without_outputs_is_refused(build: Any) -> None:
    assert "no graph outputs" in str(error_of(build("y = Same(x)", outputs=())))


def test_a_graph_without_inputs_runs_and_does_not_compile(build: Any) -> None:
    ones = {"w": np.ones((1, 2), np.float32)}
    for inputs in ({}, {"w": [1, 2]}):
        model = build("y = Double(w)", inputs=inputs, constants=ones)
        np.testing.assert_array_equal(fhe_core.NumpyModule(model)(), [[2, 2]])
        assert "no graph inputs" in str(fhe_core.check(model))
        with pytest.raises(CalibrationError, match="has no inputs"):
            fhe_core.quantize(model, {}, n_bits=4)


def test_an_input_that_nothing_produces_is_named_with_its_node(build: Any) -> None:
    constants = {"weight": np.ones(2, np.float32)}
    error = error_of(build("y = Plus(x, wieght)", constants=constants))
    assert "'wieght' is produced by nothing" in error.problem
    assert (error.where.node, error.where.op) == ("y", "Plus")
    assert "'weight'" in error.got


def test_an_output_that_nothing_produces_is_named(build: Any) -> None:
    assert "graph output 'z'" in str(error_of(build("y = Same(x)", outputs=["z"])))


def test_an_unsorted_graph_is_told_from_a_cyclic_one(build: Any) -> None:
    unsorted = error_of(build("y = Same(a)", "a = Same(x)"))
    assert "not sorted" in unsorted.problem
    assert unsorted.where.node == "y"
    cyclic = error_of(build("a = Plus(x, b)", "b = Same(a)", "y = Same(b)"))
    assert "cyclic" in cyclic.problem
    assert cyclic.got == "the cycle b <- a <- b"
    assert cyclic.where.node == "a"
    itself = error_of(build("a = Plus(x, a)", "y = Same(a)"))
    assert itself.got == "the cycle a <- a"


def test_the_names_in_a_subgraph_are_checked_too(build: Any, node: Any, subgraph: Any) -> None:
    for nodes, reason in (
        (("s = Plus(t, gone)",), "'gone' is produced by nothing: the subgraph 'body' of node 'y'"),
        (("s = Same(p)", "p = Same(t)"), "not sorted"),
        (("s = Same(y)",), "'y' is produced by nothing"),
        (("p = Same(t)",), "graph output 's' of the subgraph 'body' of node 'y'"),
        (("s = Same(t)", "s = Double(t)"), "'s' is already the name of another tensor"),
    ):
        body = subgraph(*nodes, inputs=("t",), outputs=("s",))
        assert reason in str(error_of(build(node("y = Repeat(x)", body=body, times=1))))


def test_two_tensors_of_one_name_are_refused(build: Any) -> None:
    assert "'y' is already the name" in str(error_of(build("y = Same(x)", "y = Double(x)")))
    assert "'x' is already the name" in str(error_of(build("x = Same(x)", outputs=["x"])))
    model = build("y = Same(x)", constants={"w": np.ones(1)})
    model.graph.initializer.append(model.graph.initializer[0])
    assert "two initializers named 'w'" in str(error_of(model))
    model = build("y = Same(x)")
    model.graph.input.append(model.graph.input[0])
    assert "two graph inputs named 'x'" in str(error_of(model))


def test_the_checkers_finding_is_one_line_with_its_node(
    build: Any, node: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    bad = node("y = Relu(x)", domain="", slope=2.0)
    bad.name = "activation"
    text = str(error_of(build(bad)))
    assert "Unrecognized attribute: slope" in text
    assert "node 'activation', op Relu" in text
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("op", ["Relu", "NoSuchOp"])
def test_an_op_that_onnx_does_not_define_so_is_refused(op: str, build: Any, node: Any) -> None:
    assert op in str(error_of(build(node(f"y = {op}(x, x)", domain=""))))


def test_ops_of_other_domains_are_none_of_the_checkers_business(build: Any) -> None:
    load_model(build("y = WhoKnows(x, x, x)"))


def test_an_output_without_a_declared_shape_is_accepted(build: Any) -> None:
    model = build("y = Same(x)", outputs={"y": None})
    assert not model.graph.output[0].type.tensor_type.HasField("shape")
    assert load_model(model) is model


# --- external data


@pytest.fixture
def external(build: Any, tmp_path: Path) -> Callable[..., Path]:
    """A saved model whose weight lies in another file, with some entries changed."""

    def external(**changes: str) -> Path:
        model = build("y = Plus(x, w)", constants={"w": np.arange(2, dtype=np.float32)})
        folder = tmp_path / "model"
        folder.mkdir(exist_ok=True)
        path = folder / "net.onnx"
        external_data_helper.convert_model_to_external_data(
            model, location="net.data", size_threshold=0
        )
        onnx.save(model, path)
        saved = onnx.load(path, load_external_data=False)
        for entry in saved.graph.initializer[0].external_data:
            entry.value = changes.pop(entry.key, entry.value)
        for key, value in changes.items():
            saved.graph.initializer[0].external_data.add(key=key, value=value)
        path.write_bytes(saved.SerializeToString())
        return path

    return external


def test_external_data_is_read_in(external: Any) -> None:
    loaded = load_model(external(somebodys_key="is ignored"))
    weight = onnx.numpy_helper.to_array(loaded.graph.initializer[0])
    np.testing.assert_array_equal(weight, [0, 1])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"location": "gone.data"}, "'gone.data', which does not exist"),
        ({"location": "../outside.data"}, "not in the model's folder"),
        ({"location": "/etc/passwd"}, "not in the model's folder"),
        ({"location": "link.data"}, "not in the model's folder"),
        ({"location": ""}, "not in the model's folder"),
        ({"location": "."}, "cannot be read"),
        ({"length": "800"}, "too short"),
        ({"length": str(2**60)}, "too short"),
        ({"offset": "100"}, "too short"),
        ({"offset": "-1"}, "cannot be read"),
        ({"offset": "one"}, "cannot be read"),
    ],
)
def test_external_data_that_cannot_be_had_is_named(
    changes: dict[str, str], reason: str, external: Any, tmp_path: Path
) -> None:
    path = external(**changes)
    (tmp_path / "outside.data").write_bytes(bytes(8))
    (path.parent / "link.data").symlink_to(tmp_path / "outside.data")
    text = str(error_of(path))
    assert "tensor 'w'" in text
    assert str(path) in text
    assert reason in text


def test_external_data_needs_a_folder(external: Any) -> None:
    path = external()
    assert "without a folder" in str(error_of(path.read_bytes()))
    assert "without a folder" in str(error_of(onnx.load(path, load_external_data=False)))
    load_model(onnx.load(path))


def test_a_string_output_is_no_obstacle(build: Any) -> None:
    load_model(build("y = Same(x)", outputs={"y": (TensorProto.STRING, ["N"])}))
