"""A node that ONNX forbids is a typed error that names it, never a number."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, helper

from fhe_core import FheError, InputError, ModelError, NumpyModule

from .onnx_suite import SuiteCase, cases

X = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def one_node(
    op_type: str, *shapes: Any, opset: int = 17, outputs: int = 1, **attributes: Any
) -> onnx.ModelProto:
    """A model of one node, named ``it``, whose inputs are floats of these shapes."""
    names = [f"x{i}" for i in range(len(shapes))]
    outs = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op_type, names, outs, name="it", **attributes)
    infos = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in zip(names, shapes, strict=True)
    ]
    results = [helper.make_tensor_value_info(out, onnx.TensorProto.FLOAT, None) for out in outs]
    graph = helper.make_graph([node], "g", infos, results)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


# --- attributes


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"alpha": "much"}, "alpha"),
        ({"alpha": [1.0]}, "alpha"),
        ({"slope": 1.0}, "Unrecognized attribute: slope"),
    ],
)
def test_an_attribute_of_a_wrong_type_or_name_is_named(
    attributes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ModelError, match=rf"{reason}.*node 'it', op LeakyRelu"):
        NumpyModule(one_node("LeakyRelu", [2], **attributes))


def test_a_required_attribute_that_is_missing_is_named() -> None:
    with pytest.raises(ModelError, match=r"kernel_shape.*node 'it', op MaxPool"):
        NumpyModule(one_node("MaxPool", [1, 1, 4, 4]))


# --- axes


def with_axis_beyond(case: SuiteCase, axis: int) -> onnx.ModelProto | None:
    """The case's model with each ``axis`` and ``axes`` attribute out of range; None without one."""
    proto = onnx.ModelProto()
    proto.CopyFrom(case.model)
    (node,) = proto.graph.node
    if node.op_type in ("QuantizeLinear", "DequantizeLinear") and _scalar(proto.graph.input[1]):
        return None  # the axis does not count then
    changed = False
    for attribute in node.attribute:
        if attribute.name == "axis" and attribute.type == AttributeProto.INT:
            attribute.i, changed = axis, True
        if attribute.name == "axes" and attribute.ints:
            attribute.ints[0], changed = axis, True
    return proto if changed else None


def _scalar(info: onnx.ValueInfoProto) -> bool:
    return not info.type.tensor_type.shape.dim


AXES = [
    pytest.param(proto, case, id=f"{case.name}-{axis}")
    for case in cases()
    if case.kind == "node" and "_expanded" not in case.name and not case.excluded
    for axis in (17, -17)
    if (proto := with_axis_beyond(case, axis)) is not None
]


@pytest.mark.parametrize(("proto", "case"), AXES)
def test_an_axis_out_of_range_is_refused(proto: onnx.ModelProto, case: SuiteCase) -> None:
    ((inputs, _),) = case.data_sets()
    with pytest.raises(FheError) as caught:
        NumpyModule(proto)(*inputs)
    assert caught.value.where.op == proto.graph.node[0].op_type


# --- shapes


@pytest.mark.parametrize(
    "op_type", ["Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "Mean"]
)
def test_shapes_that_do_not_broadcast_are_refused(op_type: str) -> None:
    with pytest.raises(
        InputError, match=rf"node 'it', op {op_type}.*float32\[2, 3\], float32\[2\]"
    ):
        NumpyModule(one_node(op_type, [2, 3], [2]))(np.ones((2, 3)), np.ones(2))


@pytest.mark.parametrize(
    ("op_type", "shapes", "attributes"),
    [
        ("Conv", ([1, 2, 4, 4], [3, 5, 2, 2]), {}),
        ("Gemm", ([2, 3], [4, 5]), {}),
        ("MatMul", ([2, 3], [4, 5]), {}),
        ("Concat", ([2, 3], [4, 5]), {"axis": 0}),
        ("Transpose", ([2, 3],), {"perm": [0, 0]}),
        ("Transpose", ([2, 3],), {"perm": [0, 1, 2]}),
        ("BatchNormalization", ([1, 2, 3], [5], [5], [5], [5]), {}),
    ],
)
def test_shapes_that_do_not_fit_each_other_are_refused(
    op_type: str, shapes: Any, attributes: dict[str, Any]
) -> None:
    proto = one_node(op_type, *shapes, **attributes)
    with pytest.raises(FheError) as caught:
        NumpyModule(proto)(*map(np.ones, shapes))
    assert caught.value.where.node == "it"


@pytest.mark.parametrize("op_type", ["Conv", "MaxPool", "AveragePool"])
def test_negative_pads_are_refused_where_onnx_does(op_type: str) -> None:
    weights = [[1, 1, 2, 2]] if op_type == "Conv" else []
    proto = one_node(op_type, [1, 1, 4, 4], *weights, kernel_shape=[2, 2], pads=[-1, 0, 0, 0])
    with pytest.raises(FheError) as caught:
        NumpyModule(proto)(*(np.ones(shape) for shape in ([1, 1, 4, 4], *weights)))
    assert caught.value.where.node == "it"


# --- before opset 7

LEGACY = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide, "Pow": np.power}


@pytest.mark.parametrize("op_type", LEGACY)
@pytest.mark.parametrize(
    ("shape", "axis", "aligned"),
    [
        ([4], None, (1, 1, 4)),
        ([3, 4], None, (1, 3, 4)),
        ([2], 0, (2, 1, 1)),
        ([2, 3], 0, (2, 3, 1)),
        ([3], 1, (1, 3, 1)),
        ([3], -2, (1, 3, 1)),
        ([1], None, (1, 1, 1)),
        ([], None, (1, 1, 1)),
        ([3, 1], 1, (1, 3, 1)),
    ],
)
def test_opset_6_broadcasts_the_second_operand_from_an_axis_on(
    op_type: str, shape: list[int], axis: int | None, aligned: tuple[int, ...]
) -> None:
    attributes = {"broadcast": 1} | ({} if axis is None else {"axis": axis})
    proto = one_node(op_type, [2, 3, 4], shape, opset=6, **attributes)
    b = np.arange(1, 1 + np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)
    expected = LEGACY[op_type](X, b.reshape(aligned))
    np.testing.assert_allclose(NumpyModule(proto)(X, b), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("shape", "attributes"),
    [
        ([4], {}),
        ([3], {"broadcast": 1}),
        ([2, 4], {"broadcast": 1, "axis": 0}),
        ([4], {"broadcast": 1, "axis": 3}),
        ([1, 2, 3, 4], {"broadcast": 1}),
    ],
)
def test_opset_6_broadcasts_nothing_else(shape: list[int], attributes: dict[str, int]) -> None:
    proto = one_node("Add", [2, 3, 4], shape, opset=6, **attributes)
    with pytest.raises(InputError, match="node 'it', op Add, opset 6"):
        NumpyModule(proto)(X, np.ones(shape))


@pytest.mark.parametrize(
    ("op_type", "expected"),
    [("Greater", [[False, True]]), ("Less", [[True, False]]), ("Equal", [[False, False]])],
)
def test_comparisons_of_opset_6_broadcast_alike(op_type: str, expected: Any) -> None:
    kind = onnx.TensorProto.INT32 if op_type == "Equal" else onnx.TensorProto.FLOAT
    proto = one_node(op_type, [1, 2], [1], opset=6, broadcast=1)
    for info in proto.graph.input:
        info.type.tensor_type.elem_type = kind
    proto.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.BOOL
    assert NumpyModule(proto)(np.array([[1, 3]]), np.array([2])).tolist() == expected


@pytest.mark.parametrize(("op_type", "table"), [("And", "0001"), ("Or", "0111"), ("Xor", "0110")])
def test_logic_of_opset_6_broadcasts_alike(op_type: str, table: str) -> None:
    proto = one_node(op_type, [2, 2], [2], opset=6, broadcast=1, axis=0)
    for info in (*proto.graph.input, *proto.graph.output):
        info.type.tensor_type.elem_type = onnx.TensorProto.BOOL
    a, b = np.array([[False, True], [False, True]]), np.array([False, True])
    assert NumpyModule(proto)(a, b).ravel().tolist() == [bit == "1" for bit in table]


@pytest.mark.parametrize(("shape", "aligned"), [([3], (3, 1)), ([1], (1, 1))])
def test_the_slope_of_opset_6_is_one_number_for_each_channel(shape: Any, aligned: Any) -> None:
    proto = one_node("PRelu", [2, 3, 4], shape, opset=6)
    slope = np.linspace(0.5, 2, shape[0], dtype=np.float32)
    x = X - 12
    expected = np.where(x < 0, slope.reshape(aligned) * x, x)
    np.testing.assert_allclose(NumpyModule(proto)(x, slope), expected)


# --- as many as the node has outputs


@pytest.mark.parametrize("opset", [6, 11, 13])
def test_split_without_sizes_gives_each_output_an_equal_part(opset: int) -> None:
    parts = NumpyModule(one_node("Split", [2, 3, 4], opset=opset, axis=2, outputs=2))(X)
    np.testing.assert_array_equal(np.stack(parts), [X[..., :2], X[..., 2:]])
    with pytest.raises(FheError, match="node 'it', op Split"):
        NumpyModule(one_node("Split", [2, 3, 4], opset=opset, axis=2, outputs=3))(X)


def test_max_pool_gives_indices_only_where_the_node_has_them() -> None:
    attributes = {"kernel_shape": [2]}
    alone = NumpyModule(one_node("MaxPool", [2, 3, 4], **attributes))
    assert isinstance(alone.steps[0].impl(X, **alone.steps[0].arguments), np.ndarray)
    both = one_node("MaxPool", [2, 3, 4], outputs=2, **attributes)
    both.graph.output[1].type.tensor_type.elem_type = onnx.TensorProto.INT64
    y, places = NumpyModule(both)(X)
    np.testing.assert_array_equal(y, alone(X))
    np.testing.assert_array_equal(X.ravel()[places], y)
