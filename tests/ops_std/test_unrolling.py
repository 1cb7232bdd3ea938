"""Loops that run a known number of times, and branches that are known, are written out; others stay."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx.parser
import pytest
from fhe_core.graph.model import load_model, read_graph
from fhe_core.graph.simplify import tidy
from fhe_ops_std.unrolling import unroll

import fhe_core
from fhe_core import NumpyModule, get_registry
from fhe_ops_std import unrolling

X = np.random.default_rng(0).normal(size=(6, 4, 3)).astype(np.float32)
WEIGHTS = (
    "float[3, 3] w = {0.5, -0.2, 0.1, 0.3, 0.4, -0.6, 0.2, 0.1, 0.7}, int64 five = {5}, bool true = {1}, "
    "bool no = {0}, int64 zero = {0}, int64 one = {1}, int64 many = {1000000}, int64 two = {2}"
)


def parsed(nodes: str, shape: str = "N, 3", opset: int = 17, outputs: str = "y") -> Any:
    declared = ", ".join(f"float[N, 3] {name}" for name in outputs.split())
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": {opset}]>'
        f"agraph (float[{shape}] x) => ({declared}) <{WEIGHTS}> {{ {nodes} }}"
    )
    for info in model.graph.output:
        info.type.tensor_type.ClearField("shape")
    return model


def written_out(model: Any) -> Any:
    """The graph after the pass, which computes the same, to the last bit."""
    shape = [d.dim_value or 6 for d in model.graph.input[0].type.tensor_type.shape.dim]
    x = X if len(shape) == 3 else X[:, 0]
    graph = tidy(read_graph(load_model(model)), get_registry())
    result = unroll(graph)
    for one, other in zip(outputs(result, x), outputs(graph, x), strict=True):
        np.testing.assert_array_equal(one, other)
    return result


def outputs(graph: Any, x: Any) -> tuple[Any, ...]:
    found = NumpyModule(graph)(x)
    return found if isinstance(found, tuple) else (found,)


def kinds(graph: Any) -> set[str]:
    return {node.op_type for node in graph.nodes}


STEP = "i_c = Identity(c_in) p = MatMul(h, w) h_out = Tanh(p)"
LOOP = (
    "y = Loop <body = b (int64 i, bool c_in, float[N, 3] h) => (bool i_c, float[N, 3] h_out) "
    f"{{ {STEP} }}> "
)

WRITTEN = {
    "a count": LOOP + "(five, true, x)",
    "a count and no condition": LOOP + "(five, , x)",
    "rows": "last, y = Loop <body = b (int64 i, bool c_in, float[N, 3] h) => "
    f"(bool i_c, float[N, 3] h_out, float[N, 3] h_out) {{ {STEP} }}> (five, true, x)",
    "a counter": "k, y = Loop <body = b (int64 i, bool c_in, int64 n, float[N, 3] h) => "
    "(bool more, int64 n_out, float[N, 3] h_out) { n_out = Add(n, two) more = Less(n_out, five) "
    "p = MatMul(h, w) h_out = Tanh(p) }> (, true, zero, x)",
    "the iteration": "y = Loop <body = b (int64 i, bool c_in, float[N, 3] h) => "
    "(bool c_out, float[N, 3] h_out) { c_out = Less(i, two) f = Cast <to = 1> (i) "
    "h_out = Add(h, f) }> (many, true, x)",
    "a loop in a loop": "y = Loop <body = outer (int64 i, bool c, float[N, 3] a) => (bool c_1, "
    "float[N, 3] a_out) { c_1 = Identity(c) s = MatMul(a, w) a_out = Loop <body = inner (int64 j, bool d, "
    "float[N, 3] q) => (bool d_1, float[N, 3] q_out) { d_1 = Identity(d) t = Add(q, s) q_out = Tanh(t) }> "
    "(two, true, a) }> (two, true, x)",
    "a branch": "y = If <then_branch = t () => (float[N, 3] u) { u = MatMul(x, w) }, "
    "else_branch = e () => (float[N, 3] v) { v = Tanh(x) }> (no)",
    "a branch in a loop": "y = Loop <body = b (int64 i, bool c_in, float[N, 3] h) => (bool i_c, "
    "float[N, 3] h_out) { i_c = Identity(c_in) h_out = If <then_branch = t () => (float[N, 3] u) "
    "{ u = MatMul(h, w) }, else_branch = e () => (float[N, 3] v) { v = Tanh(h) }> (true) }> (two, true, x)",
}


@pytest.mark.parametrize("nodes", WRITTEN.values(), ids=WRITTEN)
@pytest.mark.parametrize("opset", [11, 17])
def test_what_runs_a_known_number_of_times_is_written_out(nodes: str, opset: int) -> None:
    assert kinds(written_out(parsed(nodes, opset=opset))).isdisjoint({"Loop", "If", "Scan"})


SCAN = (
    "last, y = Scan <num_scan_inputs = 1, {}, body = b (float[N, 3] h, float[N, 3] f) => (float[N, 3] h_out, "
    "float[N, 3] row) {{ s = Add(h, f) p = MatMul(s, w) h_out = Tanh(p) row = Identity(h_out) }}> (start, x)"
)


@pytest.mark.parametrize("axis", [1, -2])
@pytest.mark.parametrize("back", [0, 1])
def test_a_scan_along_time_is_written_out(axis: int, back: int) -> None:
    where = (
        f"scan_input_axes = [{axis}], scan_output_axes = [1], scan_input_directions = [{back}], "
        f"scan_output_directions = [{back}]"
    )
    nodes = "m = ReduceMean <axes = [1], keepdims = 0> (x) start = Sub(m, m) " + SCAN.format(where)
    result = written_out(parsed(nodes, "N, 4, 3", outputs="y last"))
    assert "Scan" not in kinds(result)


LEFT = {
    "a condition of the data": "y = Loop <body = b (int64 i, bool c_in, float[N, 3] h) => (bool go, "
    "float[N, 3] h_out) { h_out = MatMul(h, w) s = ReduceMax <keepdims = 0> (h_out) zf = Cast <to = 1> (zero) "
    "go = Less(s, zf) }> (five, true, x)",
    "a count of the data": "s = ReduceMax <keepdims = 0> (x) m = Cast <to = 7> (s) "
    + LOOP
    + "(m, true, x)",
    "no end": LOOP + "(, true, x)",
}


@pytest.mark.parametrize("nodes", LEFT.values(), ids=LEFT)
def test_loops_that_depend_on_data_or_never_end_stay(nodes: str) -> None:
    graph = tidy(read_graph(load_model(parsed(nodes))), get_registry())
    assert unroll(graph) is graph


def test_a_loop_longer_than_what_may_be_written_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unrolling, "MOST_NODES", 20)
    graph = tidy(read_graph(load_model(parsed(LOOP + "(many, true, x)"))), get_registry())
    assert unroll(graph) is graph


def test_a_scan_along_the_batch_stays() -> None:
    nodes = "m = ReduceMean <axes = [0], keepdims = 0> (x) start = Sub(m, m) " + SCAN.format(
        "scan_input_axes = [0]"
    )
    nodes = nodes.replace("float[N, 3]", "float[3]").replace("MatMul(s, w)", "Identity(s)")
    graph = tidy(read_graph(load_model(parsed(nodes, outputs="y last"))), get_registry())
    assert unroll(graph) is graph


def test_a_loop_that_is_written_out_is_encrypted() -> None:
    model = parsed(LOOP + "(two, true, x)")
    assert fhe_core.check(model).ok
    qm = fhe_core.quantize(model, X[:, 0], n_bits=8)
    np.testing.assert_allclose(qm.forward(X[:, 0]), NumpyModule(model)(X[:, 0]), atol=0.05)
    assert "std.unroll" in qm.passes


def test_what_other_packs_know_as_a_whole_comes_first() -> None:
    """A pass that is to be last runs after those of all packs, and they once more over what it made."""
    seen = []

    def looks(graph: Any) -> Any:
        seen.append(kinds(graph) & {"Loop"})
        return graph

    with fhe_core.registered(passes=[looks]):
        fhe_core.quantize(parsed(LOOP + "(two, true, x)"), X[:, 0])
    assert seen == [{"Loop"}, set()]
