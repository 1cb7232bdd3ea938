"""Graph passes rewrite what is quantized, and nothing that they return is taken on trust."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fhe_core.registry import PackInfo, to_mend
from onnx import TensorProto, numpy_helper

import fhe_core
from fhe_core import Graph, Node, NumpyModule, PackError, UnsupportedOpError, registered
from tests.core.quantization.building import model, normal, relative_error

X = normal(50, 4, seed=1)
WEIGHTS = {"w": normal(4, 3, seed=2), "v": normal(3, 2, seed=3)}
NET = "h = MatMul(x, w) \n r = Relu(h) \n y = MatMul(r, v)"


def net(nodes: str = NET, **constants: Any) -> Any:
    return model(nodes, {"x": ("N", 4)}, constants={**WEIGHTS, **constants}, domains={"tests": 1})


def swapped(graph: Graph, old: str, **changes: Any) -> Graph:
    """The graph with something else about the nodes of one operator."""
    nodes = (replace(n, **changes) if n.op_type == old else n for n in graph.nodes)
    return replace(graph, nodes=tuple(nodes))


def with_constant(graph: Graph, name: str, value: Any) -> Graph:
    return replace(graph, constants={**graph.constants, name: value})


def quantized(nodes: str, *passes: Any, **constants: Any) -> Any:
    with registered(passes=passes):
        return fhe_core.quantize(net(nodes, **constants), X, n_bits=8)


# -- what passes may do


def explain_mystery(graph: Graph) -> Graph:
    """Mystery is a Relu."""
    if all(node.op_type != "Mystery" for node in graph.nodes):
        return graph
    return swapped(graph, "Mystery", op_type="Relu", domain="", opset=17)


MYSTERY = NET.replace("Relu", "tests.Mystery")


def test_a_pass_may_replace_what_no_pack_implements() -> None:
    with pytest.raises(UnsupportedOpError, match="Mystery"):
        quantized(MYSTERY)
    qm = quantized(MYSTERY, explain_mystery)
    assert qm.passes == ("<registered>.explain_mystery",)

    assert relative_error(qm(X), NumpyModule(net())(X)) < 0.05


def test_the_float_runner_runs_models_as_they_are() -> None:
    with registered(passes=[explain_mystery]), pytest.raises(UnsupportedOpError, match="Mystery"):
        NumpyModule(net(MYSTERY))


def test_a_pass_that_changes_nothing_leaves_no_trace() -> None:
    assert quantized(NET, explain_mystery, lambda graph: graph).passes == ()


def test_a_module_remembers_its_passes_when_it_is_saved(tmp_path: Path) -> None:
    qm = quantized(MYSTERY, (explain_mystery, "explain"))
    qm.save(tmp_path / "module")
    assert fhe_core.load(tmp_path / "module").passes == qm.passes == ("<registered>.explain",)


def test_passes_run_in_order_on_folded_constants_and_what_they_leave_is_simplified() -> None:
    seen: list[list[str]] = []

    def look(graph: Graph) -> Graph:
        seen.append([node.op_type for node in graph.nodes])
        return graph

    def add_a_dead_node(graph: Graph) -> Graph:
        dead = Node("dead", "Relu", "", 17, ("x",), ("dead",), {})
        return replace(graph, nodes=(*graph.nodes, dead))

    def to_tanh(graph: Graph) -> Graph:
        return swapped(graph, "Mystery", op_type="Tanh", domain="", opset=17)

    nodes = "k = Neg(w) \n" + MYSTERY.replace("(x, w)", "(x, k)")
    quantized(nodes, look, add_a_dead_node, (look, "again"), to_tanh, (look, "at last"))
    before, after = ["MatMul", "Mystery", "MatMul"], ["MatMul", "Tanh", "MatMul"]
    assert seen == [before, before, after]


def test_the_inner_bodys_passes_run_last() -> None:
    with registered(passes=[(explain_mystery, "outer")]), registered(passes=[explain_mystery]):
        names = [str(each) for each in fhe_core.get_registry().passes()]
    assert names[-2:] == ["<registered>.outer", "<registered>.explain_mystery"]


def test_rounding_is_no_change() -> None:
    def scale_apart(graph: Graph) -> Graph:
        graph = with_constant(graph, "w", graph.constants["w"] * np.float32(1 / 3))
        return with_constant(graph, "v", graph.constants["v"] * np.float32(3))

    assert quantized(NET, scale_apart).passes == ("<registered>.scale_apart",)


HALF = NET.replace("y =", "z =") + "\n half = Cast <to = 10> (z) \n y = Add(half, k)"


@pytest.mark.parametrize(
    ("nodes", "change", "accepted"),
    [
        (NET, 5e-3, False),
        (HALF, 5e-3, True),
        (HALF, 8e-2, False),
    ],
)
def test_what_counts_as_rounding_follows_from_the_coarsest_type(
    nodes: str, change: float, accepted: bool
) -> None:
    """A constant in half precision, though all else is single."""

    def scaled(graph: Graph) -> Graph:
        return with_constant(graph, "v", graph.constants["v"] * np.float32(1 + change))

    constants = {"k": np.ones(2, np.float16)} if "k)" in nodes else {}
    with registered(passes=[scaled]):
        if accepted:
            found = fhe_core.quantize(net(nodes, **constants), X, n_bits=8).passes
            assert "<registered>.scaled" in found
        else:
            with pytest.raises(PackError, match="changes what the model computes in 'y'"):
                fhe_core.quantize(net(nodes, **constants), X, n_bits=8)


# -- what check says


def test_check_sees_what_passes_leave() -> None:
    with registered(passes=[explain_mystery]):
        report = fhe_core.check(net(MYSTERY))
    assert report.ok
    assert [node.op for node in report.nodes] == ["MatMul", "Relu", "MatMul"]


def test_check_tells_which_nodes_a_pass_has_replaced() -> None:
    def fuse(graph: Graph) -> Graph:
        first, _, last = graph.nodes
        relu = Node("relu", "Relu", "", 17, ("h",), ("r",), {})
        return replace(graph, nodes=(first, relu, last))

    with registered(passes=[fuse]):
        report = fhe_core.check(net(MYSTERY))
    assert report.ok
    assert [(n.node, n.status, n.pack) for n in report.nodes] == [
        ("MatMul_0", "encrypted", "std"),
        ("Mystery_1", "rewritten", "<registered>"),
        ("MatMul_2", "encrypted", "std"),
        ("relu", "fused", "std"),
    ]
    assert "1 rewritten" in str(report)


def test_check_reports_a_pass_that_fails_among_the_other_problems() -> None:
    with registered(passes=[FAULTS["raises"][0]]):
        report = fhe_core.check(net(MYSTERY))
    assert [problem.op for problem in report.problems] == ["Mystery", ""]
    assert "graph pass" in report.problems[1].reason
    assert report.problems[1].pack == "<registered>"


# -- what passes may not do


def drop_last(graph: Graph) -> Graph:
    return replace(graph, nodes=graph.nodes[:-1])


def write_into_a_constant(graph: Graph) -> Graph:
    graph.constants["w"][:] = 0
    return graph


def write_into_an_attribute(graph: Graph) -> Graph:
    graph.nodes[0].attributes["axis"] = 1  # type: ignore[index]
    return graph


def add_a_constant_in_place(graph: Graph) -> Graph:
    graph.constants["k"] = np.zeros(1)  # type: ignore[index]
    return graph


FAULTS: dict[str, tuple[Callable[[Graph], Any], str]] = {
    "raises": (lambda graph: 1 / 0, "raised ZeroDivisionError: division by zero"),
    "exits": (lambda graph: exit(3), "raised SystemExit: 3"),
    "raises an error of ours": (
        lambda graph: NumpyModule(b""),
        "raised ModelError",
    ),
    "returns nothing": (lambda graph: None, r"did not return a graph .*got: NoneType"),
    "changes the inputs": (
        lambda graph: replace(graph, inputs=graph.inputs * 2),
        "its inputs are 'x' .*, 'x' .*, not 'x'",
    ),
    "changes the outputs": (
        lambda graph: replace(graph, outputs=()),
        "its outputs are none, not 'y'",
    ),
    "gives no nodes": (lambda graph: replace(graph, nodes=None), "its nodes are no sequence"),
    "mixes strangers into the nodes": (
        lambda graph: replace(graph, nodes=(*graph.nodes, "Relu")),
        "among its nodes is 'Relu'",
    ),
    "gives a constant that is no array": (
        lambda graph: with_constant(graph, "w", 1.0),
        "its constant 'w' is no array but float",
    ),
    "turns the order round": (
        lambda graph: replace(graph, nodes=graph.nodes[::-1]),
        "reads 'r', which nothing before it defines",
    ),
    "doubles a node": (
        lambda graph: replace(graph, nodes=graph.nodes[:1] * 2),
        "two of its nodes have the name 'MatMul_0'",
    ),
    "defines a tensor twice": (
        lambda graph: swapped(graph, "Relu", outputs=("h",)),
        "'h' is defined twice, the second time by node 'Relu_1'",
    ),
    "loses an output": (drop_last, "nothing defines its output 'y'"),
    "changes a weight": (
        lambda graph: with_constant(graph, "w", graph.constants["w"] * np.float32(1.01)),
        "changes what the model computes in 'y' .*got: 0.01",
    ),
    "changes a type": (
        lambda graph: with_constant(graph, "v", graph.constants["v"].astype(np.float64)),
        "changes what the model computes in 'y' .*float64.* instead of float32",
    ),
    "makes it infinite": (
        lambda graph: with_constant(graph, "v", graph.constants["v"] * np.float32(np.inf)),
        "NaN or infinity in other places",
    ),
    "needs an op that nobody has": (
        lambda graph: swapped(graph, "Relu", op_type="Mystery", domain="tests", opset=1),
        "returned a graph that does not run: no loaded pack implements it",
    ),
    "changes a shape so that it fails": (
        lambda graph: with_constant(graph, "v", np.ones((7, 2), np.float32)),
        "returned a graph that does not run: the implementation failed",
    ),
    "writes into a constant": (write_into_a_constant, "raised ValueError: .*read-only"),
    "writes into an attribute": (write_into_an_attribute, "raised TypeError"),
    "adds a constant in place": (add_a_constant_in_place, "raised TypeError"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_pass_is_an_error_that_names_pack_and_pass(fault: str) -> None:
    faulty, problem = FAULTS[fault]
    with pytest.raises(PackError, match=problem) as caught:
        quantized(NET, (faulty, "faulty"))
    assert caught.value.where.pack == "<registered>"
    assert "its graph pass 'faulty'" in caught.value.problem
    assert caught.value.fix


def test_what_a_subgraph_reads_has_to_stay(build: Any, node: Any, subgraph: Any) -> None:
    body = subgraph("s = Plus(t, a)", inputs=("t",), outputs=("s",))
    proto = build("a = Double(x)", node("y = Repeat(x)", body=body, times=1))

    def rename(graph: Graph) -> Graph:
        first, last = graph.nodes
        nodes = (replace(first, outputs=("b",)), replace(last, captures=("b",)))
        return replace(graph, nodes=nodes)

    with registered(passes=[rename]):
        problem = fhe_core.check(proto).problems[-1]
    assert "node 'y' reads 'a', which nothing before it defines" in problem.reason


def test_random_models_are_not_compared() -> None:
    """Nothing tells a rewritten one from the other; that its graph is sound is checked all the same."""

    def negate(graph: Graph) -> Graph:
        return with_constant(graph, "w", -graph.constants["w"])

    nodes = "n = tests.Noise(c) \n s = Add(x, n) \n" + NET.replace("(x,", "(s,")
    with pytest.raises(UnsupportedOpError, match="Noise"):
        quantized(nodes, negate, c=np.ones(4, np.float32))


def through_magnitudes(scale: float) -> Any:
    """A pass that writes relu(h) @ v as (h, |h|) @ (v, v) / 2, times ``scale``: it rounds elsewhere."""

    def rewrite(graph: Graph) -> Graph:
        relu, product = (n for n in graph.nodes if n.op_type == "Relu" or n.inputs[1:] == ("v",))
        magnitude = replace(relu, op_type="Abs", outputs=("m",))
        both = Node("both", "Concat", "", 17, (relu.inputs[0], "m"), ("c",), {"axis": 1})
        halves = np.concatenate([graph.constants["v"]] * 2) * np.float32(scale / 2)
        first, *rest = (n for n in graph.nodes if n not in (relu, product))
        nodes = (first, magnitude, both, replace(product, inputs=("c", "vv")), *rest)
        return with_constant(replace(graph, nodes=nodes), "vv", halves)

    return rewrite


@pytest.mark.parametrize(
    "rest", ["y = MatMul(r, v)", "l = MatMul(r, v)\n y = ArgMax <axis = 1> (l)"]
)
def test_what_rounding_alone_moves_is_no_change(rest: str) -> None:
    """Units that are dead on all data: a difference of large numbers is 0 here and the last bit there, and
    which of equal scores is the largest is left to that."""
    proto = model(
        f"h = Gemm(x, w, b)\n r = Relu(h)\n {rest}",
        {"x": ("N", 3)},
        constants={
            "w": normal(3, 8, seed=1),
            "b": np.full(8, -99.0, np.float32),
            "v": normal(8, 3, seed=2),
        },
    )
    if "ArgMax" in rest:
        proto.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    x = normal(50, 3, seed=3)
    with registered(passes=[through_magnitudes(1.0)]):
        assert fhe_core.quantize(proto, x, n_bits=6).passes
    proto.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.zeros(8, np.float32), "b"))
    with (
        registered(passes=[through_magnitudes(-1.0)]),
        pytest.raises(PackError, match="changes what the model computes"),
    ):
        fhe_core.quantize(proto, x, n_bits=6)


def test_whose_fault_a_rewriting_is_follows_from_where_it_came_from() -> None:
    """The authors of its distribution are told, and of a function that the caller registered the caller."""
    assert "authors of fhe-pack-x" in to_mend(PackInfo("x", "fhe-pack-x", "1"))
    assert "FHE_PACKS_BLOCK" in to_mend(PackInfo("x", "fhe-pack-x", "1"), optional=True)
    assert to_mend(None) == "report it to the authors of fhe-core, with the model"
    with (
        registered(passes=[lambda graph: None]),
        pytest.raises(PackError, match="Correct it"),
    ):
        fhe_core.quantize(net(), X, n_bits=6)
