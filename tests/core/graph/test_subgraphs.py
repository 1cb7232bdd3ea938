"""A graph in an attribute arrives as a function: arrays in, a tuple of arrays out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

import fhe_core
from fhe_core import FheError, InputError, NumpyModule, UnsupportedOpError

X = np.array([[1, -2]], np.float32)


def test_a_branch_reads_what_surrounds_it(build: Any, node: Any, subgraph: Any) -> None:
    yes = subgraph("r = Double(k)", outputs=("r",))
    no = subgraph("s = Plus(k, w)", outputs=("s",))
    model = build(
        "k = Double(x)",
        node("y = Choose(flag)", yes=yes, no=no),
        inputs={"x": ["N", 2], "flag": (TensorProto.BOOL, [])},
        constants={"w": np.ones((1, 2), np.float32)},
    )
    net = NumpyModule(model)
    np.testing.assert_array_equal(net(X, True), X * 4)
    np.testing.assert_array_equal(net(X, False), X * 2 + 1)


def test_a_body_runs_as_often_as_the_op_likes(build: Any, node: Any, subgraph: Any) -> None:
    body = subgraph("s = Plus(t, x)", inputs=("t",), outputs=("s",))
    net = NumpyModule(build(node("y = Repeat(x)", body=body, times=3)))
    np.testing.assert_array_equal(net(X), X * 4)


def test_bodies_nest(build: Any, node: Any, subgraph: Any) -> None:
    inner = subgraph("b = Plus(a, x)", inputs=("a",), outputs=("b",))
    outer = subgraph(inputs=("t",), outputs=("s",))
    outer.node.append(node("s = Repeat(t)", body=inner, times=2))
    net = NumpyModule(build(node("y = Repeat(x)", body=outer, times=2)))
    np.testing.assert_array_equal(net(X), X * 5)


def test_a_body_that_returns_what_it_captured_hands_out_a_copy(
    build: Any, node: Any, subgraph: Any
) -> None:
    branch = subgraph("r = Same(x)", outputs=("r",))
    given = X.copy()
    model = build(node("y = Choose(w)", yes=branch, no=branch), constants={"w": np.array(True)})
    result = NumpyModule(model)(given)
    result[...] = 9
    np.testing.assert_array_equal(given, X)


def test_a_constant_branch_is_folded_unless_it_draws_random_numbers(
    build: Any, node: Any, subgraph: Any
) -> None:
    constants = {"w": np.array(True), "k": np.ones((1, 2), np.float32)}
    for op, folded in (("Double", True), ("Noise", False)):
        branch = subgraph(f"r = {op}(k)", outputs=("r",))
        nodes = [node("c = Choose(w)", yes=branch, no=branch), "y = Plus(x, c)"]
        assert ("c" in NumpyModule(build(*nodes, constants=constants)).folded) is folded


def test_an_unsupported_op_in_a_body_is_named(build: Any, node: Any, subgraph: Any) -> None:
    body = subgraph("s = Mystery(t)", inputs=("t",), outputs=("s",))
    model = build(node("y = Repeat(x)", body=body, times=1))
    with pytest.raises(UnsupportedOpError, match=r"node 's', op tests.Mystery"):
        NumpyModule(model)
    assert [p.node for p in fhe_core.check(model).problems if p.op == "Mystery"] == ["s"]


def test_a_failure_in_a_body_names_the_node_in_it(build: Any, node: Any, subgraph: Any) -> None:
    body = subgraph("s = Fail(t)", inputs=("t",), outputs=("s",))
    with pytest.raises(InputError, match=r"node 's', op tests.Fail.*no luck"):
        NumpyModule(build(node("y = Repeat(x)", body=body, times=1)))(X)


def test_a_body_called_with_too_few_inputs_is_the_ops_failure(
    build: Any, node: Any, subgraph: Any
) -> None:
    body = subgraph("s = Plus(t, u)", inputs=("t", "u"), outputs=("s",))
    with pytest.raises(FheError, match=r"node 'y'.*takes 2 inputs and was given 1"):
        NumpyModule(build(node("y = Repeat(x)", body=body, times=1)))(X)


def test_a_list_of_graphs_arrives_as_a_tuple_of_functions(
    build: Any, node: Any, subgraph: Any
) -> None:
    def chain(x: Any, /, *, steps: Any) -> Any:
        for step in steps:
            (x,) = step(x)
        return x

    steps = [
        subgraph("s = Double(t)", inputs=("t",), outputs=("s",)),
        subgraph("q = Plus(p, x)", inputs=("p",), outputs=("q",)),
    ]
    with fhe_core.registered([("Chain", chain, {"domain": "tests", "since_version": 1})]):
        net = NumpyModule(build(node("y = Chain(x)", steps=steps)))
    np.testing.assert_array_equal(net(X), X * 3)
