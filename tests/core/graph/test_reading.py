"""read_graph says in plain dataclasses what the protobuf says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fhe_core.graph import Graph, load_model, read_graph
from onnx import AttributeProto, TensorProto, helper

import fhe_core
from fhe_core import ModelError


def read(model: Any) -> Graph:
    return read_graph(load_model(model))


def test_initializers_are_constants_and_not_inputs(build: Any) -> None:
    weight = np.ones((1, 2), np.float32)
    inputs = {"x": ["N", 2], "w": [1, 2]}
    graph = read(build("y = Plus(x, w)", inputs=inputs, constants={"w": weight}))
    assert graph.input_names == ("x",)
    np.testing.assert_array_equal(graph.constants["w"], weight)
    assert not graph.constants["w"].flags.writeable


@pytest.mark.parametrize(
    ("declared", "shape"),
    [
        (["N", 2], ("N", 2)),
        ([None, 2], (None, 2)),
        ([0, 2], (None, 2)),
        ([-1, 2], (None, 2)),
        ([3, 0], (3, 0)),
        ([], ()),
        (None, None),
    ],
)
def test_a_dimension_is_an_int_a_name_or_none(declared: Any, shape: Any, build: Any) -> None:
    (info,) = read(build("y = Same(x)", inputs={"x": declared})).inputs
    assert info.shape == shape
    assert info.dtype == np.float32


def test_strings_and_sequences_have_no_dtype(build: Any) -> None:
    model = build("y, z = Same(x)", outputs={"y": (TensorProto.STRING, ["N"]), "z": None})
    sequence = helper.make_tensor_sequence_value_info("z", TensorProto.FLOAT, None)
    model.graph.output[1].CopyFrom(sequence)
    assert [info.dtype for info in read(model).outputs] == [None, None]


@pytest.mark.parametrize(
    "kind",
    ["BFLOAT16", "FLOAT8E4M3FN", "FLOAT8E5M2", "FLOAT4E2M1", "INT4", "UINT4", "INT2", "UINT2"],
)
def test_a_type_that_numpy_lacks_is_one_of_ml_dtypes(kind: str, build: Any) -> None:
    number = getattr(TensorProto, kind)
    expected = helper.tensor_dtype_to_np_dtype(number)
    ones = np.ones(3).astype(expected)
    model = build("y = Same(x)", "z = Same(w)", inputs={"x": (number, [3])}, outputs=["y", "z"],
                  constants={"w": ones})  # fmt: skip
    graph = read(model)
    assert graph.inputs[0].dtype == graph.constants["w"].dtype == expected
    for result in fhe_core.NumpyModule(model)(ones):
        assert result.dtype == expected
        assert result.tolist() == [1, 1, 1]


@pytest.mark.parametrize("kind", ["COMPLEX64", "COMPLEX128"])
def test_a_tensor_type_that_nothing_computes_with_is_named(kind: str, build: Any) -> None:
    dtype = getattr(TensorProto, kind)
    with pytest.raises(ModelError, match=f"'x' has the element type {kind.lower()}"):
        read(build("y = Same(x)", inputs={"x": (dtype, [2])}))
    model = build("y = Same(x)")
    model.graph.initializer.append(helper.make_tensor("w", dtype, [2], [1, 2]))
    with pytest.raises(ModelError, match=f"'w' has the element type {kind.lower()}"):
        read(model)


def test_an_input_that_is_no_tensor_is_refused(build: Any) -> None:
    model = build("y = Same(x)")
    sequence = helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, None)
    model.graph.input[0].CopyFrom(sequence)
    with pytest.raises(ModelError, match=r"'x' is not a tensor .*got: sequence"):
        read(model)


def test_attributes_are_python_values(build: Any, node: Any) -> None:
    attributes = {
        "a": 3,
        "b": 0.5,
        "c": "text",
        "d": [1, 2],
        "e": [0.5, 1.0],
        "f": ["x", "y"],
        "g": helper.make_tensor("t", TensorProto.INT8, [2], [1, -1]),
        "h": [helper.make_tensor("t", TensorProto.INT8, [1], [5])],
    }
    found = read(build(node("y = Any(x)", **attributes))).nodes[0].attributes
    tensor = found.pop("g")
    (listed,) = found.pop("h")
    assert listed.tolist() == [5]
    assert found == {
        "a": 3,
        "b": 0.5,
        "c": "text",
        "d": (1, 2),
        "e": (0.5, 1.0),
        "f": ("x", "y"),
    }
    assert tensor.dtype == np.int8
    assert tensor.tolist() == [1, -1]
    assert not tensor.flags.writeable


def test_internal_attributes_are_left_out(build: Any, node: Any) -> None:
    assert not read(build(node("y = Any(x)", __note=1))).nodes[0].attributes


def test_an_attribute_that_cannot_be_read_is_named(build: Any, node: Any) -> None:
    entry = node("y = Any(x)", kind=onnx.TypeProto())
    assert entry.attribute[0].type == AttributeProto.TYPE_PROTO
    with pytest.raises(ModelError, match=r"node 'y'.*'kind' is of a type that cannot be read"):
        read(build(entry))
    with pytest.raises(ModelError, match=r"node 'y'.*'text' is not UTF-8"):
        read(build(node("y = Any(x)", text=b"\xff")))


@pytest.mark.parametrize("places", [([2], [1, 2]), ([2, 2], [0, 1, 1, 0])])
def test_a_sparse_initializer_is_a_dense_constant(places: Any, build: Any) -> None:
    model = build("y = Plus(x, w)")
    values = helper.make_tensor("w", TensorProto.FLOAT, [2], [5.0, 7.0])
    indices = helper.make_tensor("i", TensorProto.INT64, *places)
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [2, 2]))
    np.testing.assert_array_equal(read(model).constants["w"], [[0, 5], [7, 0]])


def test_node_names_are_unique(build: Any, node: Any) -> None:
    nodes = [node("a = Same(x)"), node("b = Same(a)"), node("y = Same(b)")]
    nodes[0].name = nodes[1].name = "twin"
    assert [n.name for n in read(build(*nodes)).nodes] == ["twin", "b", "y"]


def test_a_node_has_the_opset_of_its_domain(build: Any, node: Any) -> None:
    model = build(node("a = Relu(x)", domain=""), "y = Same(a)", opsets=[("", 14), ("tests", 3)])
    assert [(n.domain, n.opset) for n in read(model).nodes] == [("", 14), ("tests", 3)]


def test_what_a_subgraph_reads_from_outside_counts_as_its_nodes_input(
    build: Any, node: Any, subgraph: Any
) -> None:
    inner = subgraph("s = Plus(t, k)", "r = Double(s)", inputs=("t",), outputs=("r",))
    model = build("k = Double(x)", node("y = Repeat(x)", body=inner, times=2))
    repeat = read(model).nodes[1]
    assert repeat.captures == ("k",)
    assert repeat.reads == ("x", "k")


@pytest.mark.parametrize(
    ("name", "opsets"),
    [
        ("cnn_digits", {"": 14}),
        ("mlp_diabetes", {"": 14}),
        ("mlp_digits", {"": 14}),
        ("resmlp_digits", {"": 14}),
        ("sk_forestreg_diabetes", {"ai.onnx.ml": 1, "": 14}),
        ("sk_logreg_cancer", {"ai.onnx.ml": 1, "": 14}),
        ("sk_tree_cancer", {"ai.onnx.ml": 1, "": 14}),
    ],
)
def test_the_trained_nets_are_read(name: str, opsets: dict[str, int], models: Path) -> None:
    graph = read(models / f"{name}.onnx")
    assert graph.opsets == opsets
    data = np.load(models / f"{name}.npz")
    (info,) = graph.inputs
    assert info.shape is not None
    assert not isinstance(info.shape[0], int), "the batch is symbolic"
    assert info.shape[1:] == data["x_test"].shape[1:]
