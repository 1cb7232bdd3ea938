"""An activation becomes affine where it isn't live, and everything else stays as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fhe_core.graph import Graph, load_model, read_graph
from fhe_ops_std.reductions import affine_channels as REDUCE

from fhe_core import NumpyModule
from tests.core.quantization.building import model, normal

X = normal(5, 3, 4, 4, seed=1)
TOP = np.array([[[[0.5]]]], np.float32)
CHANNELS = (1, 3, 1, 1)

ACTIVATIONS = {
    "Relu": "y = Relu(x)",
    "PRelu": "y = PRelu(x, slopes)",
    "Max of a constant and x": "y = Max(top, x)",
    "between two convolutions": "a = Conv(x, k) \n r = Tanh(a) \n y = Conv(r, k)",
}
CONSTANTS: dict[str, Any] = {
    "slopes": np.array([0.1, -0.2, 3], np.float32).reshape(3, 1, 1),
    "top": TOP,
    "k": normal(3, 3, 1, 1, seed=2),
}


def graph_of(nodes: str, opset: int = 17) -> Graph:
    used = {name: value for name, value in CONSTANTS.items() if name in nodes}
    inputs = {"x": ("N", *X.shape[1:])}
    return read_graph(load_model(model(nodes, inputs, constants=used, opset=opset)))


def activation(graph: Graph) -> Any:
    return next(n for n in graph.nodes if n.op_type in ("Relu", "PRelu", "Max", "Tanh"))


def channels(*values: float) -> Any:
    return np.array(values, np.float64).reshape(CHANNELS)


def reduced(graph: Graph, live: Any, slope: Any, offset: Any) -> Graph:
    result = REDUCE(graph, activation(graph), live, slope, offset)
    assert result is not None
    assert (result.inputs, result.outputs) == (graph.inputs, graph.outputs)
    return result


@pytest.mark.parametrize("nodes", ACTIVATIONS.values(), ids=ACTIVATIONS)
@pytest.mark.parametrize(
    ("live", "slope", "offset"),
    [
        ([0, 0, 0], [1, 0.5, -2], [0, 1, 3]),
        ([0, 0, 0], [1, 1, 1], [0, 2, 0]),
        ([0, 0, 0], [0, 3, 1], [0, 0, 0]),
        ([0, 0, 0], [1, 1, 1], [0, 0, 0]),
        ([1, 0, 1], [0, 0, 0], [0, -2, 0]),
        ([1, 0, 0], [5, 0, 0], [9, 0, 0]),
    ],
)
def test_what_is_not_live_is_affine_and_what_is_live_stays(
    nodes: str, live: Any, slope: Any, offset: Any
) -> None:
    graph = graph_of(nodes)
    node = activation(graph)
    (read,) = (name for name in node.inputs if name not in graph.constants)
    (written,) = node.outputs
    mask, a, b = channels(*live).astype(bool), channels(*slope), channels(*offset)
    after = reduced(graph, mask, a, b)
    x, y = NumpyModule(graph).run({"x": X}, fetch=[read, written]).values()
    found = NumpyModule(after).run({"x": X}, fetch=[written])[written]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.where(mask, y, a * x + b), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("live", "slope", "offset", "left"),
    [
        (False, 2, 1, ["Mul", "Add"]),
        (False, 2, 0, ["Mul"]),
        (False, 1, 1, ["Add"]),
        (False, 1, 0, ["Identity"]),
        ([True, False, True], 0, 1, ["Relu", "Mul", "Add"]),
        ([True, False, True], 0, 0, ["Relu", "Mul"]),
    ],
)
def test_nothing_is_multiplied_by_ones_nor_zeros_added(
    live: Any, slope: float, offset: float, left: list[str]
) -> None:
    mask = np.broadcast_to(np.reshape(live, (1, -1, 1, 1)), CHANNELS)
    after = reduced(graph_of("y = Relu(x)"), mask, channels(*[slope] * 3), channels(*[offset] * 3))
    assert [node.op_type for node in after.nodes] == left


def test_what_is_live_everywhere_stays_the_very_graph() -> None:
    graph = graph_of("y = Relu(x)")
    assert reduced(graph, np.ones(CHANNELS, bool), channels(0, 0, 0), channels(0, 0, 0)) is graph


def test_a_node_can_be_reduced_again() -> None:
    """Channel after channel, with names that stay unique: the checks of passes would say."""
    graph = graph_of("y = Relu(x)")
    for dead in range(2):
        live = np.arange(3).reshape(CHANNELS) != dead
        graph = reduced(graph, live, channels(0, 0, 0), channels(4, 4, 4))
    assert len({node.name for node in graph.nodes}) == len(graph.nodes) == 5
    found = NumpyModule(graph)(X)
    np.testing.assert_array_equal(found[:, 2], np.maximum(X[:, 2], 0))
    np.testing.assert_array_equal(found[:, :2], np.full((5, 2, 4, 4), 4))


def test_other_readers_see_the_reduced_output_and_other_nodes_the_old_input() -> None:
    graph = graph_of("r = Relu(x) \n s = Tanh(x) \n t = Neg(r) \n y = Add(s, t)")
    after = reduced(graph, np.zeros(CHANNELS, bool), channels(1, 1, 1), channels(2, 2, 2))
    np.testing.assert_allclose(NumpyModule(after)(X), np.tanh(X) - X - 2, atol=1e-5)


@pytest.mark.parametrize(("number", "dtype"), [(11, np.float64), (10, np.float16)])
def test_the_type_of_the_model_stays(number: int, dtype: Any) -> None:
    graph = graph_of(f"h = Cast <to = {number}> (x) \n r = Relu(h) \n y = Cast <to = 1> (r)")
    after = reduced(graph, np.zeros(CHANNELS, bool), channels(2, 2, 2), channels(1, 1, 1))
    found = NumpyModule(after).run({"x": X}, fetch=["r"])["r"]
    assert found.dtype == dtype
    np.testing.assert_allclose(found, 2 * X.astype(dtype) + 1, rtol=2e-3, atol=2e-3)


def test_none_says_that_it_cannot() -> None:
    none, one, zero = np.zeros(CHANNELS, bool), channels(1, 1, 1), channels(0, 0, 0)
    graph = graph_of("y = Relu(x)")
    some = np.arange(3).reshape(CHANNELS) > 0
    assert REDUCE(graph, activation(graph), some, one, zero) is None
    assert REDUCE(graph, activation(graph), none, one * 1e300, zero) is None
    old = graph_of("y = Relu(x)", opset=6)
    assert REDUCE(old, activation(old), none, one, zero) is None
    both = graph_of("h = Neg(x) \n y = Max(x, h)")
    assert REDUCE(both, activation(both), none, one, zero) is None
