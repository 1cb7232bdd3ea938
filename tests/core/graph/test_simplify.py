"""A simplified graph computes the same with less."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fhe_core.graph import Graph, load_model, read_graph, simplify
from fhe_core.graph.simplify import merge_equal_nodes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fhe_core import NumpyModule

X = np.array([[1, -2], [3, 4]], np.float32)
ONES = np.ones((1, 2), np.float32)


def graph_of(model: Any) -> Graph:
    return read_graph(load_model(model))


def ops(graph: Graph) -> list[str]:
    return [node.op_type for node in graph.nodes]


def test_constants_are_folded_and_move_to_the_graphs_constants(build: Any) -> None:
    graph = graph_of(build("k = Double(w)", "y = Plus(x, k)", constants={"w": ONES}))
    simple = simplify(graph)
    assert ops(simple) == ["Plus"]
    assert set(simple.constants) == {"k"}
    np.testing.assert_array_equal(simple.constants["k"], [[2, 2]])
    assert ops(graph) == ["Double", "Plus"], "the given graph stays as it was"


def test_dead_nodes_and_constants_go_and_inputs_stay(build: Any) -> None:
    inputs = {"x": ["N", 2], "unused": ["N", 2]}
    nodes = ["dead = Double(x)", "deader = Plus(dead, w)", "y = Same(x)"]
    simple = simplify(graph_of(build(*nodes, inputs=inputs, constants={"w": ONES})))
    assert ops(simple) == ["Same"]
    assert not simple.constants
    assert simple.input_names == ("x", "unused")


def test_equal_nodes_are_merged(build: Any) -> None:
    nodes = ["a = Double(x)", "b = Double(x)", "c = Same(a)", "d = Same(b)", "y = Plus(c, d)"]
    simple = simplify(graph_of(build(*nodes)))
    assert ops(simple) == ["Double", "Same", "Plus"]
    assert simple.nodes[-1].inputs == ("c", "c")


def test_equal_small_constants_count_as_one(build: Any) -> None:
    nodes = ["a = Plus(x, v)", "b = Plus(x, w)", "y = Plus(a, b)"]
    simple = simplify(graph_of(build(*nodes, constants={"v": ONES, "w": ONES.copy()})))
    assert ops(simple) == ["Plus", "Plus"]
    assert set(simple.constants) == {"v"}


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ({"scale": 1.0}, {"scale": 2.0}),
        ({"scale": 0.0}, {"scale": -0.0}),
        ({"scale": 1.0}, {"scale": 1.0, "label": "a"}),
    ],
)
def test_nodes_with_other_attributes_are_not_equal(
    left: Any, right: Any, build: Any, node: Any
) -> None:
    nodes = [node("a = Plus(x, x)", **left), node("b = Plus(x, x)", **right), "y = Divide(a, b)"]
    assert len(simplify(graph_of(build(*nodes))).nodes) == 3


def test_constants_that_differ_in_type_or_shape_are_not_equal(build: Any) -> None:
    constants = {"u": ONES, "v": ONES.astype(np.float64), "w": ONES.T}
    nodes = ["a = Plus(x, u)", "b = Plus(x, v)", "c = Plus(x, w)", "y = Total(a, b, c)"]
    assert len(simplify(graph_of(build(*nodes, constants=constants))).nodes) == 4


def test_nodes_of_other_versions_are_not_equal(build: Any) -> None:
    """A function of the model may import an opset of its own."""
    graph = graph_of(build("a = Double(x)", "b = Double(x)", "y = Plus(a, b)"))
    first, second, last = graph.nodes
    other = replace(graph, nodes=(first, replace(second, opset=first.opset + 1), last))
    assert ops(merge_equal_nodes(graph)) == ["Double", "Plus"]
    assert ops(merge_equal_nodes(other)) == ["Double", "Double", "Plus"]


def test_a_node_takes_the_place_only_of_one_that_has_no_more_outputs(build: Any) -> None:
    graph = graph_of(build("a = Double(x)", "b = Double(x)", "y = Plus(a, b)"))
    first, second, last = graph.nodes
    few, more = replace(first, outputs=("a", "")), replace(second, outputs=("b", "c"))
    last = replace(last, inputs=("b", "c"))
    assert len(merge_equal_nodes(replace(graph, nodes=(few, more, last))).nodes) == 3
    assert len(merge_equal_nodes(replace(graph, nodes=(more, few, last))).nodes) == 2


def test_random_nodes_are_neither_folded_nor_merged(build: Any) -> None:
    nodes = ["a = Noise(x)", "b = Noise(x)", "y = Plus(a, b)"]
    assert ops(simplify(graph_of(build(*nodes)))) == ["Noise", "Noise", "Plus"]


def test_graph_outputs_keep_their_names(build: Any) -> None:
    model = build("a = Double(x)", "b = Double(x)", outputs=["a", "b"])
    simple = simplify(graph_of(model))
    assert simple.output_names == ("a", "b")
    a, b = NumpyModule(simple)(X)
    np.testing.assert_array_equal(a, b)


def test_an_output_may_be_a_constant(build: Any) -> None:
    model = build("k = Double(w)", "y = Same(x)", outputs=["y", "k"], constants={"w": ONES})
    simple = simplify(graph_of(model))
    np.testing.assert_array_equal(NumpyModule(simple)(X)[1], [[2, 2]])


def test_what_a_subgraph_reads_keeps_its_name(build: Any, node: Any, subgraph: Any) -> None:
    body = subgraph("s = Plus(t, b)", inputs=("t",), outputs=("s",))
    nodes = ["a = Double(x)", "b = Double(x)", node("r = Repeat(a)", body=body, times=1)]
    graph = graph_of(build(*nodes, "y = Same(r)"))
    np.testing.assert_array_equal(NumpyModule(simplify(graph))(X), X * 4)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_simplified_graph_computes_the_same(data: Any, build: Any) -> None:
    names = ["x", "v", "w"]
    nodes = []
    for i in range(data.draw(st.integers(1, 10))):
        a, b = (data.draw(st.sampled_from(names)) for _ in range(2))
        op = data.draw(st.sampled_from(["Double({a})", "Same({a})", "Plus({a}, {b})"]))
        nodes.append(f"t{i} = {op.format(a=a, b=b)}")
        names.append(f"t{i}")
    outputs = data.draw(st.lists(st.sampled_from(names[3:]), min_size=1, unique=True))
    graph = graph_of(build(*nodes, outputs=outputs, constants={"v": ONES, "w": ONES * 1}))
    simple = simplify(graph)
    assert len(simple.nodes) <= len(graph.nodes)
    before, after = (NumpyModule(g).run({"x": X}) for g in (graph, simple))
    assert list(before) == list(after) == outputs
    for name in outputs:
        np.testing.assert_array_equal(before[name], after[name])
    again = simplify(simple)
    assert [n.name for n in again.nodes] == [n.name for n in simple.nodes]
