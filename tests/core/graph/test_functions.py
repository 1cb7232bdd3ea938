"""What a model, or ONNX itself, defines by other operators runs by its body."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from fhe_core.graph import load_model, read_graph, simplify
from onnx import TensorProto, helper

import fhe_core
from fhe_core import InputError, ModelError, NumpyModule, UnsupportedOpError

X = np.array([[1, -2], [3, 4]], np.float32)
CALLS = [("", 17), ("tests", 1), ("local", 1)]


@pytest.fixture
def function(node: Any) -> Callable[..., onnx.FunctionProto]:
    """A function of the domain ``local`` from its head, ``"b = Twice(a)"``, and its nodes."""

    def function(
        head: str,
        *nodes: Any,
        attributes: Any = (),
        defaults: Any = None,
        opsets: Any = (("tests", 1), ("local", 1)),
    ) -> onnx.FunctionProto:
        call = node(head)
        return helper.make_function(
            "local",
            call.op_type,
            list(call.input),
            list(call.output),
            [node(entry) if isinstance(entry, str) else entry for entry in nodes],
            [helper.make_opsetid(*entry) for entry in opsets],
            attributes=list(attributes),
            attribute_protos=[helper.make_attribute(*item) for item in (defaults or {}).items()],
        )

    return function


@pytest.fixture
def model(build: Any, node: Any) -> Callable[..., onnx.ModelProto]:
    """A model whose nodes, as text, are calls of functions."""

    def model(*nodes: Any, functions: Any, **options: Any) -> onnx.ModelProto:
        calls = [node(n, domain="local") if isinstance(n, str) else n for n in nodes]
        return build(*calls, functions=functions, opsets=CALLS, **options)

    return model


def refer(node: onnx.NodeProto, **references: str) -> onnx.NodeProto:
    """The node with attributes that refer to those of the function around it."""
    for name, reference in references.items():
        kind = onnx.AttributeProto.FLOAT
        node.attribute.add(name=name, ref_attr_name=reference, type=kind)
    return node


# --- functions of the model


def test_a_call_is_replaced_by_the_body_with_names_of_its_own(function: Any, model: Any) -> None:
    twice = function("b = Twice(a)", "m = Same(a)", "b = Double(m)")
    graph = read_graph(load_model(model("y = Twice(x)", functions=[twice])))
    assert [(n.name, n.op_type, n.inputs, n.outputs) for n in graph.nodes] == [
        ("y/m", "Same", ("x",), ("y/m",)),
        ("y/b", "Double", ("y/m",), ("y",)),
    ]


def test_functions_call_functions(function: Any, model: Any, node: Any) -> None:
    twice = function("b = Twice(a)", "b = Double(a)")
    call = [node(t, domain="local") for t in ("m = Twice(a)", "b = Twice(m)")]
    proto = model("h = Four(x)", "y = Four(h)", functions=[function("b = Four(a)", *call), twice])
    net = NumpyModule(proto)
    np.testing.assert_array_equal(net(X), X * 16)
    names = [n.name for n in net.graph.nodes]
    assert names == ["h/m/b", "h/b/b", "y/m/b", "y/b/b"]
    tensors = [name for n in net.graph.nodes for name in n.outputs]
    assert len(set(tensors)) == len(tensors)


def test_a_local_name_gives_way_to_one_of_the_model(function: Any, model: Any, node: Any) -> None:
    shift = function("b = Shift(a)", "m = Double(a)", "b = Plus(m, a)")
    proto = model(node("y/m = Same(x)"), "y = Shift(y/m)", functions=[shift])
    net = NumpyModule(proto)
    np.testing.assert_array_equal(net(X), X * 3)
    assert "y/m_2" in {name for n in net.graph.nodes for name in n.outputs}


def test_attributes_are_given_or_have_a_default_or_are_left_out(
    function: Any, model: Any, node: Any
) -> None:
    body = refer(node("b = Plus(a, a)"), scale="factor")
    with_default = function("b = Scaled(a)", body, defaults={"factor": 0.25})
    without = function("b = Scaled(a)", body, attributes=["factor"])

    def run(scaled: Any, **attributes: Any) -> Any:
        call = node("y = Scaled(x)", domain="local", **attributes)
        return NumpyModule(model(call, functions=[scaled]))(X)

    np.testing.assert_array_equal(run(with_default, factor=3.0), X * 6)
    np.testing.assert_array_equal(run(with_default), X / 2)
    np.testing.assert_array_equal(run(without, factor=3.0), X * 6)
    np.testing.assert_array_equal(run(without), X * 2)


def test_a_function_has_opsets_of_its_own(function: Any, model: Any) -> None:
    old, new = (function(f"b = {n}(a)", "b = Double(a)", opsets=[("tests", v)]) for n, v in
                (("Old", 1), ("New", 5)))  # fmt: skip
    graph = read_graph(load_model(model("h = Old(x)", "y = New(h)", functions=[old, new])))
    assert [n.opset for n in graph.nodes] == [1, 5]


def test_a_subgraph_in_a_body_reads_the_bodys_tensors_and_attributes(
    function: Any, model: Any, node: Any, subgraph: Any
) -> None:
    inner = subgraph(inputs=("t",), outputs=("s",))
    inner.node.append(refer(node("s = Plus(t, k)"), scale="factor"))
    repeat = function(
        "b = Grow(a)",
        "k = Double(a)",
        node("b = Repeat(a)", body=inner, times=2),
        defaults={"factor": 1.0},
    )
    net = NumpyModule(model("h = Grow(x)", "y = Grow(h)", functions=[repeat]))
    np.testing.assert_array_equal(net(X), X * 25)
    assert net.graph.nodes[1].captures == ("h/k",)


def test_a_call_in_a_subgraph_is_replaced_too(
    function: Any, model: Any, node: Any, subgraph: Any
) -> None:
    twice = function("b = Twice(a)", "b = Double(a)")
    body = subgraph(inputs=("t",), outputs=("s",))
    body.node.append(node("s = Twice(t)", domain="local"))
    proto = model(node("y = Repeat(x)", body=body, times=3), functions=[twice])
    np.testing.assert_array_equal(NumpyModule(proto)(X), X * 8)


def test_inputs_and_outputs_may_be_left_out(function: Any, model: Any) -> None:
    both = function("p, q = Both(a, b, c)", "p = Plus(a, b, c)", "q = Double(p)")
    net = NumpyModule(model(", y = Both(x, x)", functions=[both]))
    np.testing.assert_array_equal(net(X), X * 4)
    fewer = NumpyModule(model("y = Both(x, x, x)", functions=[both]))
    np.testing.assert_array_equal(fewer(X), X * 3)


# --- functions that return what they are given, for which there is no node


@pytest.fixture
def through(function: Any) -> onnx.FunctionProto:
    """``a, b = Through(a)`` with b = 2a."""
    return function("a, b = Through(a)", "b = Double(a)")


def test_a_function_may_return_what_it_was_given(through: Any, model: Any, node: Any) -> None:
    proto = model(
        node("h = Same(x)"), "s, t = Through(h)", node("y = Plus(s, t)"), functions=[through]
    )
    net = NumpyModule(proto)
    assert [n.op_type for n in net.graph.nodes] == ["Same", "Double", "Plus"]
    assert net.graph.nodes[2].inputs == ("h", "t")
    np.testing.assert_array_equal(net(X), X * 3)


def test_an_output_may_be_an_input_or_another_output(through: Any, model: Any) -> None:
    """Under its own name all the same, and without sharing the other's memory."""
    calls = ("y, z = Through(x)", "v, w = Through(z)")
    net = NumpyModule(model(*calls, functions=[through], outputs=["y", "z", "v", "w"]))
    assert net.output_names == ("y", "z", "v", "w")
    x = X.copy()
    same, doubled, again, four = net(x)
    doubled += 1
    same += 1
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(again, X * 2)
    np.testing.assert_array_equal(four, X * 4)
    found = net.run({"x": x}, fetch=["v", "x", "y"])
    assert list(found) == ["v", "x", "y"]
    np.testing.assert_array_equal(found["v"], X * 2)
    np.testing.assert_array_equal(found["y"], X)


def test_an_output_under_another_name_outlives_what_is_cleaned_up(
    through: Any, model: Any, node: Any
) -> None:
    calls = ("y, dead = Through(x)", node("z = Same(x)"))
    proto = model(*calls, functions=[through], outputs=["y", "z"])
    graph = simplify(NumpyModule(proto).graph)
    assert [n.name for n in graph.nodes] == ["z"]
    same, also = NumpyModule(graph)(X)
    np.testing.assert_array_equal(same, also)
    assert fhe_core.check(model("h, y = Through(x)", functions=[through])).nodes[0].op == "Double"


def test_a_constant_that_a_function_returns_is_an_output(through: Any, model: Any) -> None:
    proto = model("y, z = Through(w)", functions=[through], outputs=["y"], constants={"w": X})
    np.testing.assert_array_equal(NumpyModule(proto)(X * 0), X)


def test_a_function_may_return_what_another_returns(
    through: Any, function: Any, model: Any, node: Any
) -> None:
    call = node("b, c = Through(a)", domain="local")
    outer = function("b = Outer(a)", call)
    calls = ("s = Outer(x)", "t = Outer(s)", "y = Outer(t)")
    proto = model(*calls, functions=[through, outer], outputs=["y", "t"])
    for got in NumpyModule(proto)(X):
        np.testing.assert_array_equal(got, X)


def test_a_subgraph_reads_and_returns_what_a_function_returned(
    through: Any, model: Any, node: Any, subgraph: Any
) -> None:
    """In one branch y is an alias, in the other a tensor of the same name is not."""
    yes, no = subgraph(outputs=("u",)), subgraph("u = Double(s)", outputs=("u",))
    yes.node.append(node("u, v = Through(s)", domain="local"))
    for flag, factor in ((True, 1), (False, 2)):
        proto = model(
            "s, d = Through(x)",
            node("y = Choose(flag)", yes=yes, no=no),
            functions=[through],
            constants={"flag": np.array(flag)},
        )
        net = NumpyModule(proto)
        assert net.graph.nodes[1].captures == ("x",)
        np.testing.assert_array_equal(net(X), X * factor)


def test_a_subgraphs_own_tensor_does_not_take_the_place_of_what_was_returned(
    through: Any, model: Any, node: Any, subgraph: Any
) -> None:
    """The subgraph's input has the name of the tensor outside that s is."""
    body = subgraph("r = Plus(x, s)", inputs=("x",), outputs=("r",))
    proto = model(
        "s, d = Through(x)", node("y = Repeat(d)", body=body, times=2), functions=[through]
    )
    np.testing.assert_array_equal(NumpyModule(proto)(X), X * 4)


def test_what_is_left_out_cannot_be_returned(function: Any, model: Any) -> None:
    second = function("b = Second(a, b)", "c = Double(a)")
    with pytest.raises(ModelError, match=r"node 'y', op local.Second.*input 'b', which the call"):
        NumpyModule(model("y = Second(x)", functions=[second]))


# --- what a call may not be, and who comes first


def test_a_pack_that_implements_the_function_comes_first(function: Any, model: Any) -> None:
    proto = model("y = Twice(x)", functions=[function("b = Twice(a)", "b = Fail(a)")])
    fast = ("Twice", lambda a, /: a + a, {"domain": "local", "since_version": 1})
    with fhe_core.registered([fast]):
        net = NumpyModule(proto)
    assert [n.op_type for n in net.graph.nodes] == ["Twice"]
    np.testing.assert_array_equal(net(X), X * 2)


def test_what_fails_in_a_body_is_named_with_its_call(function: Any, model: Any) -> None:
    broken = function("b = Broken(a)", "m = Fail(a)", "b = Same(m)")
    with pytest.raises(InputError, match=r"node 'y/m', op tests.Fail.*no luck"):
        NumpyModule(model("y = Broken(x)", functions=[broken]))(X)
    unknown = function("b = Unknown(a)", "m = Mystery(a)", "b = Same(m)")
    proto = model("y = Unknown(x)", functions=[unknown])
    with pytest.raises(UnsupportedOpError, match=r"node 'y/m', op tests.Mystery"):
        NumpyModule(proto)
    assert ("y/m", "Mystery") in {(p.node, p.op) for p in fhe_core.check(proto).problems}


@pytest.mark.parametrize(
    ("call", "attributes", "reason"),
    [
        ("y = Twice(x, x)", {}, r"2 inputs, and the function that it calls 1.*at most a"),
        ("y, z = Twice(x)", {}, r"2 outputs, and the function that it calls 1"),
        ("y = Twice(x)", {"speed": 3}, r"no attribute 'speed'.*expected: no attributes"),
    ],
)
def test_a_call_that_does_not_fit_its_function_is_named(
    call: str, attributes: Any, reason: str, function: Any, model: Any, node: Any
) -> None:
    entry = node(call, domain="local", **attributes)
    with pytest.raises(ModelError, match=r"node 'y', op local.Twice.*" + reason):
        NumpyModule(model(entry, functions=[function("b = Twice(a)", "b = Double(a)")]))


def test_a_graph_as_a_functions_attribute_is_refused(
    function: Any, model: Any, node: Any, subgraph: Any
) -> None:
    call = node("y = F(x)", domain="local", body=subgraph("s = Same(t)", outputs=("s",),
                                                          inputs=("t",)))  # fmt: skip
    with pytest.raises(ModelError, match="given a graph as the attribute 'body'"):
        NumpyModule(model(call, functions=[function("b = F(a)", "b = Same(a)",
                                                    attributes=["body"])]))  # fmt: skip


def test_functions_that_call_each_other_are_refused(function: Any, model: Any, node: Any) -> None:
    ping = function("b = Ping(a)", node("b = Pong(a)", domain="local"))
    pong = function("b = Pong(a)", node("b = Ping(a)", domain="local"))
    proto = model("y = Ping(x)", functions=[ping, pong])
    with pytest.raises(ModelError, match="Ping"):
        NumpyModule(proto)
    with pytest.raises(ModelError, match=r"local.Ping calls local.Pong calls local.Ping"):
        read_graph(proto)
    assert not fhe_core.check(proto).ok


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        (("b = Same(m)", "m = Double(a)"), "not sorted"),
        (("m = Same(n)", "n = Same(m)", "b = Same(n)"), "the cycle n <- m <- n"),
        (("b = Same(gone)",), "'gone' is produced by nothing"),
        (("m = Same(a)",), "'b' of function 'local.F' of the given ModelProto is produced by no"),
        (("b = Same(a)", "b = Double(a)"), "'b' is already the name"),
    ],
)
def test_a_body_that_cannot_run_is_named_with_its_function(
    nodes: Any, reason: str, function: Any, model: Any
) -> None:
    with pytest.raises(ModelError, match=reason) as caught:
        load_model(model("y = F(x)", functions=[function("b = F(a)", *nodes)]))
    assert "function 'local.F'" in str(caught.value)


# --- functions of ONNX


def greater(A: Any, B: Any, /) -> Any:
    return A > B


def equal(A: Any, B: Any, /) -> Any:
    return A == B


def either(A: Any, B: Any, /) -> Any:
    return A | B


class Only:
    """The registry with a few operators of the default domain, and no others of it."""

    def __init__(self, *op_types: str) -> None:
        self._registry = fhe_core.get_registry()
        self._op_types = op_types

    def resolve(self, op_type: str, domain: str = "", *, opset: int) -> Any:
        if domain == "" and op_type not in self._op_types:
            raise UnsupportedOpError("no loaded pack implements it", fix="install one")
        return self._registry.resolve(op_type, domain=domain, opset=opset)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._registry, name)


@pytest.fixture
def comparison(build: Any, node: Any) -> onnx.ModelProto:
    """A node of GreaterOrEqual, which ONNX defines by Greater, Equal and Or."""
    return build(
        node("y = GreaterOrEqual(x, w)", domain=""),
        outputs={"y": (TensorProto.BOOL, ["N", 2])},
        constants={"w": np.array([[1, 1]], np.float32)},
    )


COMPARISONS = [("Greater", greater, {"since_version": 13}), ("Equal", equal, {"since_version": 13}),
               ("Or", either, {"since_version": 7})]  # fmt: skip


def test_an_operator_that_onnx_defines_by_others_runs_by_them(comparison: Any) -> None:
    with fhe_core.registered(COMPARISONS):
        net = NumpyModule(comparison, registry=Only("Greater", "Equal", "Or"))
    assert [n.op_type for n in net.graph.nodes] == ["Greater", "Equal", "Or"]
    assert all(n.name.startswith("y/") for n in net.graph.nodes)
    np.testing.assert_array_equal(net(X), X >= 1)


def test_a_body_that_needs_what_nobody_has_is_left_alone(comparison: Any) -> None:
    """The message is about the operator in the model, not about the insides of ONNX's body."""
    with (
        fhe_core.registered(COMPARISONS),
        pytest.raises(UnsupportedOpError, match=r"node 'y', op GreaterOrEqual"),
    ):
        NumpyModule(comparison, registry=Only("Greater", "Equal"))


def test_the_body_is_not_asked_for_where_a_pack_has_the_operator(comparison: Any) -> None:
    own = ("GreaterOrEqual", lambda A, B, /: A >= B, {"since_version": 16})
    with fhe_core.registered([*COMPARISONS, own]):
        net = NumpyModule(comparison, registry=Only("Greater", "Equal", "Or", "GreaterOrEqual"))
    assert [n.op_type for n in net.graph.nodes] == ["GreaterOrEqual"]
