"""A model that reads what it may not, or asks for more than there is, is refused at once, by node."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fhe_core.graph import budgets, load_model
from fhe_core.graph.protos import tensors
from fhe_core.graph.scopes import unused
from onnx import AttributeProto, TensorProto, helper, numpy_helper

import fhe_core
from fhe_core import ModelError, NumpyModule

SECRET = np.array([41, 42, 43, 44], np.float32)
Add = Callable[[onnx.ModelProto], TensorProto]


# --- external data, wherever a tensor can stand


def _constant(model: onnx.ModelProto, **attribute: Any) -> Any:
    found = model.graph.node.add(op_type="Constant", output=["unused"])
    return found.attribute.add(**attribute)


def _sparse(values: TensorProto, sparse: Any) -> TensorProto:
    sparse.values.CopyFrom(values)
    sparse.indices.CopyFrom(numpy_helper.from_array(np.arange(4)))
    sparse.dims.append(4)
    return sparse.values


def _in_a_function(model: onnx.ModelProto) -> Any:
    found = model.functions.add(domain="f", name="F", output=["b"])
    found.opset_import.add(domain="", version=17)
    return found


PLACES: dict[str, Callable[[onnx.ModelProto], Any]] = {
    "an initializer": lambda m: m.graph.initializer.add(),
    "a sparse initializer's values": lambda m: m.graph.sparse_initializer.add().values,
    "a sparse initializer's indices": lambda m: m.graph.sparse_initializer.add().indices,
    "an attribute": lambda m: _constant(m, name="value", type=AttributeProto.TENSOR).t,
    "a list of tensors": lambda m: _constant(m, name="v", type=AttributeProto.TENSORS).tensors.add(),
    "a sparse attribute": lambda m: _constant(
        m, name="sparse_value", type=AttributeProto.SPARSE_TENSOR
    ).sparse_tensor.values,
    "a list of sparse tensors": lambda m: (
        _constant(m, name="v", type=AttributeProto.SPARSE_TENSORS).sparse_tensors.add().indices
    ),
    "a subgraph": lambda m: _constant(m, name="g", type=AttributeProto.GRAPH).g.initializer.add(),
    "a function's node": lambda m: (
        _in_a_function(m).node.add(op_type="Constant", output=["b"]).attribute.add(name="value").t
    ),
    "a function's default": lambda m: _in_a_function(m).attribute_proto.add(name="v").t,
    "what a model is trained with": lambda m: m.training_info.add().initialization.initializer.add(),
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_data_outside_the_models_folder_are_read_from_no_place(
    place: str, build: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither from the working directory, where onnx looks, nor for a model without a folder."""
    (tmp_path / "model").mkdir()
    (tmp_path / "secret.bin").write_bytes(SECRET.tobytes())
    monkeypatch.chdir(tmp_path)
    model = build("y = Same(x)")
    tensor = PLACES[place](model)
    tensor.MergeFrom(
        TensorProto(name="w", data_type=1, dims=[4], data_location=TensorProto.EXTERNAL)
    )
    tensor.external_data.add(key="location", value="secret.bin")
    assert list(tensors(model)).count(tensor), "the one walk comes by"
    data = model.SerializeToString()
    path = tmp_path / "model" / "net.onnx"
    path.write_bytes(data)
    for given, reason in (
        (data, "without a folder"),
        (model, "without a folder"),
        (path, "does not exist"),
    ):
        with pytest.raises(ModelError, match=reason):
            load_model(given)
        assert reason in str(fhe_core.check(given))


def test_a_sparse_attributes_data_are_read_from_the_models_folder(tmp_path: Path) -> None:
    node = onnx.NodeProto(op_type="Constant", output=["w"])
    attribute = node.attribute.add(name="sparse_value", type=AttributeProto.SPARSE_TENSOR)
    values = TensorProto(name="w", data_type=1, dims=[4], data_location=TensorProto.EXTERNAL)
    values.external_data.add(key="location", value="w.bin")
    _sparse(values, attribute.sparse_tensor)
    model = _net([node, helper.make_node("Add", ["x", "w"], ["y"])])
    (tmp_path / "w.bin").write_bytes(SECRET.tobytes())
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    net = NumpyModule(tmp_path / "net.onnx")
    np.testing.assert_array_equal(net(np.zeros((1, 4), np.float32)), SECRET[None])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in folders on this system")
def test_a_pipe_is_no_file(build: Any, tmp_path: Path) -> None:
    """Opening it would wait for somebody to write."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelError, match="a pipe, not a regular file"):
        load_model(tmp_path / "pipe")
    with pytest.raises(ModelError, match="a pipe, not a regular file"):
        load_model(_with_data(build, tmp_path, "pipe"))


@pytest.mark.parametrize("location", ["a\0b", "loop", "x" * 300])
def test_a_name_that_no_file_can_have_is_refused(location: str, build: Any, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    path = _with_data(build, tmp_path, location)
    with pytest.raises(ModelError, match="cannot be read"):
        load_model(path)
    assert "cannot be read" in str(fhe_core.check(path))


def _with_data(build: Any, folder: Path, location: str) -> Path:
    model = build("y = Plus(x, w)", constants={"w": SECRET})
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    path = folder / "net.onnx"
    path.write_bytes(model.SerializeToString())
    return path


# --- damaged text and types


@pytest.mark.parametrize("field", ["node", "input", "output", "op type", "attribute", "graph"])
def test_text_that_is_not_utf8_is_refused_wherever_it_stands(field: str) -> None:
    names = {name: name for name in ("node", "input", "output", "op type", "attribute", "graph")}
    names[field] = "AAAA"
    node = helper.make_node(
        names["op type"], [names["input"]], [names["output"]], names["node"], domain="d"
    )
    node.attribute.append(helper.make_attribute(names["attribute"], 1))
    model = _net([node])
    model.graph.name = names["graph"]
    data = model.SerializeToString().replace(b"AAAA", b"\xff\xfe\xff\xfe")
    with pytest.raises(ModelError, match="UTF-8"):
        fhe_core.check(data)


def test_an_input_without_a_type_is_a_problem_of_the_model(build: Any) -> None:
    model = build("y = Same(x)")
    model.graph.input[0].ClearField("type")
    assert not fhe_core.check(model).ok


@pytest.mark.parametrize("version", [2**62, 2**31, 0, -1])
def test_an_opset_that_no_version_can_be_is_a_problem_of_the_model(version: int) -> None:
    model = _net([helper.make_node("Foo", ["x"], ["y"], domain="d")])
    model.opset_import.add(domain="d", version=version)
    assert f"opset {version} of d" in " ".join(str(fhe_core.check(model)).split())


def test_an_op_whose_body_onnx_cannot_write_is_a_problem_of_the_model() -> None:
    model = _net([helper.make_node("SequenceMap", ["x"], ["y"])])
    assert "body" in str(fhe_core.check(model))


# --- expansion


def _net(nodes: list[Any], functions: list[Any] | None = None) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("N", 4))],
        [helper.make_empty_tensor_value_info("y")],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    model.functions.extend(functions or [])
    return model


def _tower(levels: int, calls: int) -> onnx.ModelProto:
    """Functions of which each calls the one before, some times in a row."""
    functions = [
        helper.make_function(
            "f", "F0", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], [helper.make_opsetid("", 17)]
        )
    ]  # fmt: skip
    for level in range(1, levels):
        names = ["a", *(f"t{i}" for i in range(calls - 1)), "b"]
        body = [
            helper.make_node(f"F{level - 1}", [a], [b], domain="f")
            for a, b in itertools.pairwise(names)
        ]
        opsets = [helper.make_opsetid("f", 1)]
        functions.append(helper.make_function("f", f"F{level}", ["a"], ["b"], body, opsets))
    call = helper.make_node(f"F{levels - 1}", ["x"], ["y"], "top", domain="f")
    return _net([call], functions)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (_tower(40, 2), "too many nodes"),
        (_tower(3, 500), "too many nodes"),
        (_tower(2000, 1), "too deep"),
        (_tower(101, 1), "too deep"),
    ],
    ids=["doubling", "wide", "deep", "just too deep"],
)
def test_functions_that_expand_beyond_the_budget_are_refused_unexpanded(
    model: onnx.ModelProto, reason: str
) -> None:
    with pytest.raises(ModelError, match=reason) as caught:
        NumpyModule(model)
    assert caught.value.where.node == "top"
    assert "top" in str(fhe_core.check(model))


def test_functions_within_the_budget_are_expanded() -> None:
    assert len(NumpyModule(_tower(11, 2)).steps) == 2**10
    assert len(NumpyModule(_tower(100, 1)).steps) == 1


def test_a_model_of_too_many_nodes_is_refused_at_the_first_that_is_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(budgets, "MAX_NODES", 100)
    nodes = [helper.make_node("Relu", ["x"], [f"t{i}"]) for i in range(101)]
    with pytest.raises(ModelError, match="too many nodes") as caught:
        load_model(_net(nodes))
    assert caught.value.where.node == "t100"


def test_a_free_name_is_found_in_few_steps() -> None:
    """Thousands of nodes of one name must not make telling them apart quadratic."""

    class Counted(set[str]):
        asked = 0

        def __contains__(self, name: object) -> bool:
            self.asked += 1
            return super().__contains__(name)

    used = Counted(["a", *(f"a_{i}" for i in range(2, 5000))])
    assert unused("a", used) == "a_5000"
    assert used.asked < 40
    assert unused("b", used) == "b"
    assert unused("b", {"b"}) == "b_2"
    assert unused("b", {"b", "b_2"}) == "b_3"
