"""check says of each op that cannot be encrypted at its place why, and what to do; and it is right."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from fhe_core.testing import Sample
from fhe_core.testing.onnx_cases import NodeCase, all_cases
from onnx import helper, numpy_helper

import fhe_core
from fhe_core import CalibrationError, FheError, PlanError
from tests.core.quantization.building import model, normal
from tests.ops_std import conformance_samples

EYE = np.eye(4, dtype=np.float32)


def checked(
    nodes: str, outputs: str = "y", *, opset: int = 18, **constants: Any
) -> fhe_core.SupportReport:
    """check's report on a model of one input of four features."""
    return fhe_core.check(
        model(nodes, {"x": ("N", 4)}, outputs, {"w": EYE, **constants}, opset=opset)
    )


# -- it is right


def agrees(proto: onnx.ModelProto, data: Mapping[str, Any]) -> None:
    """Whether check says that a model compiles, and whether it can be quantized, are the same.

    Data that the float model cannot take, and more bits than it was asked to keep, are the data's affair.
    """
    report = fhe_core.check(proto)
    refusal = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fhe_core.quantize(proto, data, n_bits=4)
    except (CalibrationError, PlanError):
        return
    except FheError as error:
        refusal = error
    assert report.ok == (refusal is None), f"check: {report}\nquantize: {refusal}"
    if refusal is not None:
        assert all(problem.fix for problem in report.problems)
        named = {problem.node for problem in report.problems}
        assert refusal.where.node is None or refusal.where.node in named


SAMPLES = conformance_samples.samples()


@pytest.mark.parametrize("op", sorted(SAMPLES))
def test_what_check_accepts_can_be_quantized_and_what_it_refuses_cannot(op: str) -> None:
    """Every sample of the conformance kit, its constants constant."""
    for sample in SAMPLES[op]:
        agrees(*one_node(op, sample))


def one_node(op: str, sample: Sample) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """A model of the op, and the data of its encrypted inputs."""
    arrays = {f"x{i}": x for i, x in enumerate(sample.inputs) if x is not None}
    names = [f"x{i}" if x is not None else "" for i, x in enumerate(sample.inputs)]
    constants = {f"x{i}" for i in sample.constants}
    data = {name: np.asarray(x) for name, x in arrays.items() if name not in constants}
    outputs = [f"y{i}" for i in range(sample.outputs)]
    graph = helper.make_graph(
        [helper.make_node(op, names, outputs, **sample.attributes)],
        "one node",
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(x.dtype), ["N", *x.shape[1:]]
            )
            for name, x in data.items()
        ],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(np.asarray(arrays[name]), name) for name in sorted(constants)],
    )
    opset = sample.opset or onnx.defs.onnx_opset_version()
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    return onnx.shape_inference.infer_shapes(proto), data


def smallest_cases() -> Iterator[Any]:
    """The two smallest of ONNX's own cases of each operator."""
    taken: dict[str, int] = {}
    runnable = [case for case in all_cases() if case.runnable and not case.domain and case.inputs]
    for case in sorted(runnable, key=lambda case: sum(np.size(x) for x in case.inputs)):
        if taken.get(case.op_type, 0) < 2:
            taken[case.op_type] = taken.get(case.op_type, 0) + 1
            yield pytest.param(case, id=case.name)


@pytest.mark.parametrize("case", list(smallest_cases()))
def test_where_everything_is_encrypted_check_and_quantize_refuse_the_same(case: NodeCase) -> None:
    """ONNX's own cases, in which indices, shapes, axes and weights are inputs too."""
    names = [name for name in case.node.input if name]
    arrays = [array for array in case.inputs if array is not None]
    agrees(case.model, dict(zip(names, arrays, strict=True)))


# -- it says why


INDEX = "f = MatMul(x, w) \n i = Cast <to = 7> (f) \n "


@pytest.mark.parametrize(
    ("node", "name"),
    [
        ("y = Gather <axis = 1> (x, i)", "indices"),
        ("y = GatherND(x, i)", "indices"),
        ("y = GatherElements <axis = 1> (x, i)", "indices"),
        ("y = ScatterND(x, i, f)", "indices"),
        ("y = ScatterElements <axis = 1> (x, i, f)", "indices"),
        ("y = Slice(x, i, i)", "starts"),
        ("y = Reshape(x, i)", "shape"),
        ("y = Expand(x, i)", "shape"),
        ("y = Tile(x, i)", "repeats"),
        ("y = Pad(x, i)", "pads"),
        ("y = OneHot(x, i, f)", "depth"),
        ("y = CumSum(x, i)", "axis"),
        ("b = Cast <to = 9> (f) \n y = Compress <axis = 1> (x, b)", "condition"),
        ("y = QuantizeLinear(x, f)", "y_scale"),
    ],
    ids=lambda text: text.partition("(")[0],
)
def test_an_index_a_shape_or_a_scale_has_to_be_a_constant(node: str, name: str) -> None:
    (problem,) = checked(INDEX + node).problems
    assert f"the input {name!r} is encrypted" in problem.reason
    assert f"make {name!r} a constant" in problem.fix
    assert problem.pack == "std"


@pytest.mark.parametrize(
    ("nodes", "says"),
    [
        ("i = NonZero(f) \n g = Cast <to = 1> (i) \n y = MatMul(g, w)", "shape of its result"),
        ("g = Unique(f) \n y = MatMul(g, w)", "shape of its result depends on the data"),
        ("a, s, z = DynamicQuantizeLinear(f) \n y = MatMulInteger(a, k)", "other samples"),
        ("d = Det(f) \n y = Mul(d, x)", "no installed pack has a quantized form"),
        ("y = Gemm <transA = 1> (f, w)", "mixes the samples"),
        ("y = Gemm <transB = 1> (f, x)", "samples with each other"),
        ("y = Conv(k, f)", "the input 'w' is encrypted"),
        ("y = ReduceSum(f, zero)", "works along the batch"),
        ("y = Trilu(f) \n z = MatMul(y, w)", "mixes several elements"),
        ("m = Sign(f) \n y = Dropout(f, half, true)", "training mode"),
    ],
)
def test_what_no_circuit_can_compute_says_why_and_what_to_do(nodes: str, says: str) -> None:
    constants = {
        "k": normal(4, 4).astype(np.uint8) if "Integer" in nodes else normal(1, 4, 2),
        "zero": np.array([0]),
        "half": np.float32(0.5),
        "true": np.array(True),
    }
    (problem,) = checked(
        "f = MatMul(x, w) \n " + nodes, "z" if "z =" in nodes else "y", **constants
    ).problems
    assert says in problem.reason
    assert problem.node
    assert problem.fix


def test_control_flow_on_encrypted_values_is_refused() -> None:
    branches = (
        "then_branch = a () => (float[N, 4] o) {o = Identity(f)}, "
        "else_branch = b () => (float[N, 4] o) {o = Neg(f)}"
    )
    nodes = (
        f"f = MatMul(x, w) \n s = ReduceMax(f) \n c = Cast <to = 9> (s) \n y = If <{branches}> (c)"
    )
    problem = checked(nodes, opset=17).problems[-1]
    assert problem.op == "If"
    assert "which branch to take" in problem.reason


def test_it_never_stops_at_the_first_problem() -> None:
    """Behind what is refused, shapes are those of the float model, so that what comes later is seen."""
    nodes = (
        INDEX + "a = Gather <axis = 1> (x, i) \n b = ReduceSum(x, zero) \n c = Tile(x, i) \n "
        "d = Gemm <transA = 1> (x, w) \n e = Add(b, c) \n y = Conv(e, f)"
    )
    report = checked(nodes, "a d y", zero=np.array([0]))
    assert [problem.op for problem in report.problems] == [
        "Gather",
        "ReduceSum",
        "Tile",
        "Gemm",
        "Conv",
    ]
    refused = {problem.node for problem in report.problems}
    assert {node.node for node in report.nodes if node.status == "unsupported"} == refused


def test_what_shapes_alone_decide_is_no_secret() -> None:
    """Indices and shapes that are computed from shapes are as good as constants."""
    nodes = (
        "f = MatMul(x, w) \n s = Shape(f) \n b = Gather(s, zero) \n t = Concat <axis = 0> (b, rest) \n "
        "r = Reshape(f, t) \n y = MatMul(r, v)"
    )
    constants = {"zero": np.array([0]), "rest": np.array([2, 2]), "v": normal(2, 3)}
    report = checked(nodes, **constants)
    assert report.ok
    found = {node.op: node.status for node in report.nodes}
    assert (found["Shape"], found["Concat"], found["MatMul"]) == ("folded", "folded", "encrypted")


def test_a_constant_that_is_as_long_as_the_batch_is_never_allocated() -> None:
    proto = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[N, 4] x) => (float[N, 4] y) <float[1, 4] c = {1, 2, 3, 4}>
        {
            s = Shape(x)
            z = Expand(c, s)
            y = Add(x, z)
        }
    """)
    assert fhe_core.check(proto).ok
    x = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    y = x + np.arange(1, 5)
    assert np.abs(fhe_core.quantize(proto, x, n_bits=8)(x) - y).max() < 0.05
