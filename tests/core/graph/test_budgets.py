"""A model asks for bytes and iterations within budgets; running out of memory is no verdict on it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from fhe_core.errors import ResourceError
from fhe_core.graph import budgets
from onnx import TensorProto, helper, numpy_helper

import fhe_core
from fhe_core import InputError, ModelError, NumpyModule

node, tensor = helper.make_node, numpy_helper.from_array
X = np.ones((2, 4), np.float32)


def net(nodes: list[Any], shape: tuple[Any, ...] = ("N", 4), **constants: Any) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_empty_tensor_value_info("y")],
        [tensor(np.asarray(value), name) for name, value in constants.items()],
    )
    imports = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def added(*nodes: Any) -> list[Any]:
    """What the nodes make of constants, summed up and added to x."""
    return [*nodes, node("ReduceSum", ["c"], ["s"], keepdims=0), node("Add", ["x", "s"], ["y"])]


ONE = np.float32(1)
TOO_LARGE = {
    "an input": (net([node("Relu", ["x"], ["y"])], ("N", 2**40)), "'x'"),
    "Expand": (net([node("Expand", ["x", "s"], ["y"])], s=[10**9, 1, 1]), "Expand"),
    "Tile": (net([node("Tile", ["x", "s"], ["y"])], s=[1, 10**10]), "Tile"),
    "Pad": (net([node("Pad", ["x", "s"], ["y"])], s=[0, 10**12, 0, 0]), "Pad"),
    "ConstantOfShape": (
        net(added(node("ConstantOfShape", ["n"], ["c"])), n=[10**6, 10**6]),
        "ConstantOfShape",
    ),
    "Range": (
        net(added(node("Range", ["a", "b", "a"], ["c"])), a=ONE, b=np.float32(1e12)),
        "Range",
    ),
    "doubling": (
        net(
            added(
                *(node("Concat", [f"d{i}"] * 2, [f"d{i + 1}"], axis=0) for i in range(40)),
                node("Identity", ["d40"], ["c"]),
            ),
            d0=[ONE] * 4,
        ),
        "Concat",
    ),
}


@pytest.mark.parametrize("case", TOO_LARGE)
def test_a_tensor_of_too_many_bytes_is_refused_before_it_is_made(case: str) -> None:
    model, named = TOO_LARGE[case]
    for load in (NumpyModule, lambda given: fhe_core.quantize(given, X)):
        with pytest.raises(ModelError, match="more memory than a model may take") as caught:
            load(model)
        assert named in str(caught.value)
    report = fhe_core.check(model)
    assert not report.ok
    assert "max_bytes" in str(report)


def test_max_bytes_moves_the_limit() -> None:
    model = net([node("Expand", ["x", "s"], ["y"])], s=[100, 1, 1])
    NumpyModule(model, max_bytes=1600)
    for load in (
        lambda: NumpyModule(model, max_bytes=1599),
        lambda: fhe_core.quantize(model, X, max_bytes=1599),
    ):
        with pytest.raises(ModelError, match="for one sample"):
            load()
    assert not fhe_core.check(model, max_bytes=1599).ok
    NumpyModule(model)


@pytest.mark.parametrize("limit", [0, -1, 1.5, "8", True])
def test_max_bytes_is_a_positive_number(limit: Any) -> None:
    with pytest.raises(ModelError, match="max_bytes cannot be"):
        NumpyModule(net([node("Relu", ["x"], ["y"])]), max_bytes=limit)


def test_a_sparse_constant_is_not_made_dense_beyond_the_limit() -> None:
    model = net([node("Add", ["x", "w"], ["y"])])
    sparse = model.graph.sparse_initializer.add(dims=[2**20, 2**20])
    sparse.values.CopyFrom(tensor(np.ones(1, np.float32), "w"))
    sparse.indices.CopyFrom(tensor(np.zeros(1, np.int64), "i"))
    with pytest.raises(ModelError, match="more memory than a model may take"):
        NumpyModule(model)


def test_a_function_that_doubles_what_it_is_given_is_refused_before_it_runs() -> None:
    """Though nothing of that is left in what it returns."""
    body = [node("Concat", [f"d{i}"] * 2, [f"d{i + 1}"], axis=0) for i in range(34)]
    body.append(node("ReduceSum", ["d34"], ["s"], keepdims=0))
    opsets = [helper.make_opsetid("", 17)]
    model = net([node("F", ["x"], ["s"], domain="f"), node("Add", ["x", "s"], ["y"])])
    model.functions.append(helper.make_function("f", "F", ["d0"], ["s"], body, opsets))
    model.opset_import.add(domain="f", version=1)
    with pytest.raises(ModelError, match="more memory than a model may take"):
        NumpyModule(model)


def test_a_loop_whose_state_doubles_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    turn = loop(start="k", trips="m")
    (body,) = (attribute.g for attribute in turn.attribute)
    body.node[1].CopyFrom(node("Concat", ["v", "v"], ["w"], axis=0))
    model = net([turn, node("Add", ["x", "l"], ["y"])], t=True, k=[ONE], m=40)
    with pytest.raises(ModelError, match="what its subgraph returns") as caught:
        NumpyModule(model, max_bytes=2**16)
    assert caught.value.where.node == "turn"


def test_constants_are_counted_together() -> None:
    """Each alone is within the limit, and onnx cannot know: their shape is computed."""
    names = [f"c{i}" for i in range(5)]
    makes = [node("Pow", ["n", "n"], ["m"])]
    makes += [node("ConstantOfShape", ["m"], [name]) for name in names]
    model = net(added(*makes, node("Concat", names, ["c"], axis=0)), n=[4])
    with pytest.raises(ModelError, match="it and the constants before it") as caught:
        NumpyModule(model, max_bytes=4 * 4**4 * 4)
    assert caught.value.where.node == "c3", "m takes 8 bytes already"


def loop(*, start: str, trips: str = "") -> Any:
    def info(name: str, kind: int) -> Any:
        return helper.make_tensor_value_info(name, kind, None)

    body = helper.make_graph(
        [node("Identity", ["c"], ["d"]), node("Identity", ["v"], ["w"])],
        "body",
        [
            info("i", TensorProto.INT64),
            info("c", TensorProto.BOOL),
            info("v", TensorProto.FLOAT),
        ],
        [info("d", TensorProto.BOOL), info("w", TensorProto.FLOAT)],
    )
    return node("Loop", [trips, "t", start], ["l"], "turn", body=body)


def test_a_loop_that_never_ends_is_stopped_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fhe_core.graph.folding.MAX_FOLDED_ITERATIONS", 20)
    monkeypatch.setattr("fhe_core.graph.schedule.MAX_ITERATIONS", 30)
    constant = net([loop(start="k"), node("Add", ["x", "l"], ["y"])], t=True, k=ONE)
    with pytest.raises(ModelError, match="may never end") as caught:
        NumpyModule(constant)
    assert caught.value.where.node == "turn"
    assert "turn" in str(fhe_core.check(constant))
    given = net([loop(start="x"), node("Relu", ["l"], ["y"])], t=True)
    with pytest.raises(InputError, match="may never end"):
        NumpyModule(given)(X)


@pytest.mark.parametrize(("trips", "ends"), [(20, True), (21, False)])
def test_a_loop_within_the_budget_is_computed(
    trips: int, ends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fhe_core.graph.folding.MAX_FOLDED_ITERATIONS", 20)
    model = net(
        [loop(start="k", trips="m"), node("Add", ["x", "l"], ["y"])], t=True, k=ONE, m=trips
    )
    if ends:
        np.testing.assert_array_equal(NumpyModule(model)(X), X + 1)
    else:
        with pytest.raises(ModelError, match="may never end"):
            NumpyModule(model)


def test_loops_in_one_another_are_counted_together() -> None:
    with budgets.iterations(3), budgets.iterations(100):
        for _ in range(3):
            budgets.count_iteration()
        with pytest.raises(InputError):
            budgets.count_iteration()
    budgets.count_iteration()


def hungry(x: Any, /) -> Any:
    raise MemoryError("as numpy says it")


@pytest.mark.parametrize("given", ["x", "c"])
def test_running_out_of_memory_is_a_typed_error_and_no_verdict(given: str) -> None:
    """Neither `check` nor anybody else says that the model is at fault."""
    graph = helper.make_graph(
        [helper.make_node("Hungry", [given], ["h"], "big", domain="tests"), node("Add", ["h", "x"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("N", 4))],
        [helper.make_empty_tensor_value_info("y")],
        [tensor(X[:1], "c")],
    )  # fmt: skip
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("tests", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    with fhe_core.registered(impls=[("Hungry", hungry, {"domain": "tests"})]) as registry:
        with pytest.raises(ResourceError, match="as numpy says it") as caught:
            NumpyModule(model, registry=registry)(X)
        assert caught.value.where.node == "big"
        if given == "c":
            with pytest.raises(ResourceError):
                fhe_core.quantize(model, X, registry=registry)
            with pytest.raises(ResourceError):
                fhe_core.check(model, registry=registry)
    assert issubclass(ResourceError, MemoryError)
