"""NumpyModule runs a model as ONNX says, and what it returns is the caller's own."""

from __future__ import annotations

import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fhe_core.graph.model import load_model, read_graph
from fhe_core.graph.simplify import simplify
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto

import fhe_core
from fhe_core import (
    OUTPUTS_WANTED,
    InputError,
    ModelError,
    NumpyModule,
    PackError,
    UnsupportedOpError,
)

X = np.array([[1, -2], [3, 4]], np.float32)


# --- what comes out


def test_one_output_is_an_array_and_several_are_a_tuple(build: Any) -> None:
    np.testing.assert_array_equal(NumpyModule(build("y = Double(x)"))(X), X * 2)
    both = NumpyModule(build("y = Double(x)", "z = Same(y)", outputs=["y", "z"]))(X)
    assert isinstance(both, tuple)
    assert len(both) == 2


def test_inputs_go_by_position_or_by_name(build: Any) -> None:
    net = NumpyModule(build("y = Divide(a, b)", inputs={"a": ["N", 2], "b": ["N", 2]}))
    for result in (net(X, X + 9), net(a=X, b=X + 9), net(X, b=X + 9), net(b=X + 9, a=X)):
        np.testing.assert_array_equal(result, X / (X + 9))
    assert net.input_names == ("a", "b")
    assert net.output_names == ("y",)


def test_an_optional_input_left_out_is_none(build: Any) -> None:
    nodes = ["p = Plus(x, x)", "q = Plus(x, x, )", "y = Plus(p, q, x)"]
    np.testing.assert_array_equal(NumpyModule(build(*nodes))(X), X * 5)


def test_attributes_reach_the_implementation(build: Any, node: Any) -> None:
    net = NumpyModule(build(node("y = Plus(x, x)", scale=0.5)))
    np.testing.assert_array_equal(net(X), X)
    assert net.steps[0].attributes == {"scale": 0.5}


def test_outputs_without_a_name_are_dropped(build: Any, node: Any) -> None:
    net = NumpyModule(build(node(", y = Split(x)", parts=2)))
    np.testing.assert_array_equal(net(X), X[:, 1:])
    fewer = NumpyModule(build(node("y = Split(x)", parts=2)))
    np.testing.assert_array_equal(fewer(X), X[:, :1])


def test_variadic_inputs_are_all_passed(build: Any) -> None:
    np.testing.assert_array_equal(NumpyModule(build("y = Total(x, x, x)"))(X), X * 3)


def test_a_scalar_result_is_an_array(build: Any) -> None:
    with fhe_core.registered([("Sum", lambda x, /: x.sum(), {"domain": "t", "since_version": 1})]):
        entry = onnx.helper.make_node("Sum", ["x"], ["y"], domain="t")
        result = NumpyModule(build(entry, opsets=[("t", 1)]))(X)
    assert isinstance(result, np.ndarray)
    assert result.shape == ()


def test_dividing_by_zero_gives_infinity_in_silence(build: Any) -> None:
    net = NumpyModule(build("y = Divide(x, z)", inputs={"x": [2], "z": [2]}))
    result = net(np.array([1, 0], np.float32), np.zeros(2, np.float32))
    np.testing.assert_array_equal(result, [np.inf, np.nan])


def test_nan_and_infinity_pass_through(build: Any) -> None:
    given = np.array([[np.nan, np.inf]], np.float32)
    np.testing.assert_array_equal(NumpyModule(build("y = Same(x)"))(given), given)


@pytest.mark.parametrize("name", ["mlp_digits", "mlp_diabetes", "resmlp_digits"])
def test_the_trained_nets_agree_with_onnxruntime(name: str, models: Path) -> None:
    def relu(X: Any, /) -> Any:
        return np.maximum(X, 0)

    def add(A: Any, B: Any, /) -> Any:
        return A + B

    def gemm(
        A: Any, B: Any, /, C: Any = None, *, alpha: float = 1.0, beta: float = 1.0,
        transA: int = 0, transB: int = 0,
    ) -> Any:  # fmt: skip
        product = alpha * ((A.T if transA else A) @ (B.T if transB else B))
        return product if C is None else product + beta * C

    data = np.load(models / f"{name}.npz")
    ops = [("Relu", relu, 6), ("Gemm", gemm, 11), ("Add", add, 7)]
    with fhe_core.registered([(op, fn, {"since_version": since}) for op, fn, since in ops]):
        result = NumpyModule(models / f"{name}.onnx")(data["x_test"])
    assert result.dtype == data["y_ref"].dtype
    np.testing.assert_allclose(result, data["y_ref"], rtol=1e-5, atol=1e-4)


# --- whose the arrays are


def test_inputs_and_constants_are_never_handed_out(build: Any) -> None:
    weight = np.ones((1, 2), np.float32)
    nodes = ["a = Same(x)", "b = Same(a)", "c = Same(w)", "d = Double(x)", "e = Same(d)"]
    names = ["a", "b", "c", "d", "e", "x", "w"]
    net = NumpyModule(build(*nodes, outputs=names, constants={"w": weight}))
    given = X.copy()
    first = net(given)
    for i, result in enumerate(first):
        assert result.flags.writeable
        assert not np.shares_memory(result, given)
        assert not any(np.shares_memory(result, other) for other in first[:i])
        result[...] = 99
    np.testing.assert_array_equal(given, X)
    for result, again in zip(net(given), net(given), strict=True):
        np.testing.assert_array_equal(result, again)
        assert not np.any(result == 99)


def test_inputs_are_never_modified(build: Any) -> None:
    given = X.copy()
    with pytest.raises(InputError, match=r"node 'y'.*must not write into its inputs"):
        NumpyModule(build("y = Spoil(x)"))(given)
    with pytest.raises(InputError, match=r"node 'y'.*must not write into its inputs"):
        NumpyModule(build("a = Double(x)", "y = Spoil(a)"))(given)
    np.testing.assert_array_equal(given, X)
    assert given.flags.writeable


def test_intermediate_tensors_go_after_their_last_use(build: Any) -> None:
    alive: list[int] = []
    counted: set[int] = set()

    class Tracked(np.ndarray):
        def __del__(self) -> None:
            counted.discard(id(self))

    def track(x: Any, /) -> Any:
        result = np.asarray(x).copy().view(Tracked)
        counted.add(id(result))
        alive.append(len(counted))
        return [result]  # a sequence is passed on as it is

    def step(x: Any, /) -> Any:
        return track(x[0] if isinstance(x, list) else x)

    chain = ["x", *(f"t{i}" for i in range(20)), "y"]
    nodes = [onnx.helper.make_node("Step", [a], [b], domain="t") for a, b in pairwise(chain)]
    with fhe_core.registered([("Step", step, {"domain": "t", "since_version": 1})]):
        NumpyModule(build(*nodes, opsets=[("t", 1)]))(X)
    assert max(alive) <= 2, "a node's input and output, nothing older"


def test_a_module_may_be_shared_by_threads(build: Any, node: Any) -> None:
    net = NumpyModule(build(*[f"t{i + 1} = Double(t{i})" for i in range(20)], inputs={"t0": [1]},
                            outputs=["t20"]))  # fmt: skip
    wrong: list[float] = []

    def work(seed: int) -> None:
        found = {float(net(np.array([seed], np.float32))[0]) for _ in range(50)}
        wrong.extend(found - {seed * 2.0**20})

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# --- any tensor


def test_run_fetches_any_tensor_in_the_order_asked_for(build: Any) -> None:
    nodes = ["a = Double(x)", "k = Double(w)", "y = Plus(a, k)"]
    net = NumpyModule(build(*nodes, constants={"w": np.ones((1, 2), np.float32)}))
    found = net.run({"x": X}, fetch=["k", "a", "x", "w", "y"])
    assert list(found) == ["k", "a", "x", "w", "y"]
    np.testing.assert_array_equal(found["k"], [[2, 2]])
    np.testing.assert_array_equal(found["a"], X * 2)
    np.testing.assert_array_equal(found["x"], X)
    np.testing.assert_array_equal(found["w"], [[1, 1]])
    assert list(net.run({"x": X})) == ["y"]
    assert net.run({"x": X}, fetch=[]) == {}


def test_run_computes_no_more_than_what_is_fetched(build: Any) -> None:
    net = NumpyModule(build("a = Double(x)", "y = Fail(a)"))
    np.testing.assert_array_equal(net.run({"x": X}, fetch=["a"])["a"], X * 2)
    with pytest.raises(InputError):
        net(X)


def test_an_unknown_tensor_is_an_error_with_the_nearest_name(build: Any) -> None:
    net = NumpyModule(build("hidden = Double(x)", "y = Same(hidden)"))
    with pytest.raises(InputError, match=r"no tensor named 'hiden'. Use 'hidden'"):
        net.run({"x": X}, fetch=["hiden"])


# --- constants


def test_what_depends_on_constants_alone_is_folded(build: Any, node: Any) -> None:
    value = onnx.numpy_helper.from_array(np.ones((1, 2), np.float32))
    nodes = [node("c = Constant()", value=value), "d = Double(c)", "y = Plus(x, d)"]
    net = NumpyModule(build(*nodes))
    assert set(net.folded) == {"c", "d"}
    assert not net.folded["d"].flags.writeable
    np.testing.assert_array_equal(net(X), X + 2)


def test_what_draws_random_numbers_is_not_folded(build: Any) -> None:
    net = NumpyModule(build("n = Noise(w)", "y = Plus(x, n)", constants={"w": np.zeros((1, 2))}))
    assert set(net.folded) == {"w"}
    assert not np.array_equal(net(X), net(X))


def test_a_sequence_is_passed_on_and_never_folded(build: Any) -> None:
    pack = ("Pack", lambda x, /: [x, x * 2], {"domain": "tests", "since_version": 1})
    constants = {"w": np.ones((1, 2), np.float32)}
    with fhe_core.registered([pack]):
        net = NumpyModule(build("s = Pack(w)", "y = Pack(x)", outputs=["y"], constants=constants))
    assert set(net.folded) == {"w"}
    first, second = net(X)
    np.testing.assert_array_equal(second, X * 2)
    first[...] = 9
    assert not np.any(X == 9), "not even in a list is the caller's array handed out"


def test_a_node_that_fails_on_constants_is_the_models_fault(build: Any) -> None:
    model = build("c = Fail(w)", "y = Plus(x, c)", constants={"w": np.ones(1)})
    with pytest.raises(ModelError, match=r"node 'c', op tests.Fail.*on constants.*no luck") as info:
        NumpyModule(model)
    assert isinstance(info.value.__cause__, ValueError)


# --- nodes that do not fit


def test_one_unsupported_op_has_the_registrys_message_and_its_node(build: Any) -> None:
    with pytest.raises(UnsupportedOpError) as info:
        NumpyModule(build("y = Mystery(x)"))
    where = info.value.where
    assert (where.node, where.op, where.domain, where.opset) == ("y", "Mystery", "tests", 1)
    assert info.value.fix


def test_all_unsupported_ops_are_named_in_one_error(build: Any) -> None:
    nodes = ["a = Mystery(x)", "b = Mystery(a)", "c = Double(b)", "y = Riddle(c)"]
    with pytest.raises(UnsupportedOpError, match="3 nodes cannot run") as info:
        NumpyModule(build(*nodes))
    text = str(info.value)
    for part in ("'a', 'b'", "tests.Mystery", "'y'", "tests.Riddle", "opset 1"):
        assert part in text
    assert info.value.problem.count("Mystery") == 1


@pytest.mark.parametrize(
    ("text", "attributes", "parts"),
    [
        ("y = Plus(x, x)", {"scall": 2.0}, ["'scall' is unknown", "scale, label", "scall = 2.0"]),
        ("y = Split(x)", {}, ["required attribute 'parts' is missing"]),
        ("y = Plus(x, x)", {"scale": "big"}, ["'scale' has the wrong type", "float", "'big'"]),
        ("y = Plus(x, x)", {"label": 3}, ["'label' has the wrong type", "string", "integer 3"]),
        ("y = Total(x)", {"axes": 1}, ["'axes' has the wrong type", "list", "integer 1"]),
        ("y = Plus(x)", {}, ["required input b is missing", "a, b", "'x'"]),
        ("y = Plus(x, )", {}, ["required input b is missing"]),
        ("y = Double(x, x)", {}, ["2 inputs", "at most 1: x"]),
    ],
)
def test_a_node_that_does_not_fit_its_implementation_is_an_error(
    text: str, attributes: dict[str, Any], parts: list[str], build: Any, node: Any
) -> None:
    with pytest.raises(ModelError) as info:
        NumpyModule(build(node(text, **attributes)))
    assert info.value.where.node == "y"
    assert info.value.where.pack == "<registered>"
    for part in parts:
        assert part in str(info.value)


def test_a_whole_float_may_be_written_as_an_integer(build: Any, node: Any) -> None:
    np.testing.assert_array_equal(NumpyModule(build(node("y = Plus(x, x)", scale=1)))(X), X * 2)


def test_a_failing_implementation_is_named_with_what_it_was_given(build: Any) -> None:
    with pytest.raises(InputError) as info:
        NumpyModule(build("a = Double(x)", "y = Fail(a)"))(X)
    text = str(info.value)
    for part in ("node 'y'", "tests.Fail", "opset 1", "<registered>", "ValueError: no luck"):
        assert part in text
    assert "float32[2, 2]" in text
    assert isinstance(info.value.__cause__, ValueError)


def test_an_implementation_may_say_that_it_does_not_support_something(build: Any) -> None:
    with pytest.raises(UnsupportedOpError, match=r"node 'y'.*mode 7 is not implemented"):
        NumpyModule(build("y = Refuse(x)"))(X)


def test_too_few_outputs_are_an_error(build: Any) -> None:
    with pytest.raises(PackError, match=r"node 'a'.*returned 1 outputs where the node has 2"):
        NumpyModule(build("a, y = Double(x)"))(X)


@pytest.mark.parametrize(
    ("result", "came"),
    [
        (None, "nothing"),
        ([[1.0, 2.0]], "a list of list"),
        ([1.0, 2.0], "a list of float"),
        ({1.0, 2.0}, "a set"),
        ((X for _ in range(1)), "a generator"),
        (np.ma.masked_greater(X, 0), "a masked array"),
        ((None, X), "nothing"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_result_is_blamed_on_the_op_that_returned_it(
    build: Any, result: Any, came: str
) -> None:
    options = {"domain": "tests", "since_version": 1}
    with (
        fhe_core.registered([("Odd", lambda x, /: result, options)]),
        pytest.raises(PackError, match=rf"node 'a', op tests\.Odd.*returned {came} \(expected"),
    ):
        NumpyModule(build("a = Odd(x)", "y = Double(a)"))(X)


def test_a_list_where_several_outputs_are_due_is_told_to_be_a_tuple(build: Any) -> None:
    options = {"domain": "tests", "since_version": 1}
    with (
        fhe_core.registered([("Odd", lambda x, /: [x, x], options)]),
        pytest.raises(
            PackError, match=r"returned a list \(expected: a tuple with an array for each"
        ),
    ):
        NumpyModule(build("a, b = Odd(x)", "y = Double(a)"))(X)


@pytest.mark.parametrize("result", [2.0, np.float32(2), [X, X], [{"a": 1.0}], [], {"a": 1.0}])
def test_scalars_sequences_and_maps_are_results(build: Any, result: Any) -> None:
    options = {"domain": "tests", "since_version": 1}
    with fhe_core.registered([("Odd", lambda x, /: result, options)]):
        assert type(NumpyModule(build("y = Odd(x)"))(X)) in (np.ndarray, list, dict)


# --- any graph


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_graph_computes_what_its_nodes_say(data: Any, build: Any) -> None:
    values = {"x": X.astype(np.float64), "w": np.array([[1.0, 2.0]])}
    nodes = []
    for i in range(data.draw(st.integers(1, 8))):
        a, b = (data.draw(st.sampled_from(sorted(values))) for _ in range(2))
        op = data.draw(st.sampled_from(["Double", "Same", "Plus"]))
        out = f"t{i}"
        nodes.append(f"{out} = {op}({a}, {b})" if op == "Plus" else f"{out} = {op}({a})")
        left, right = values[a], values[b]
        values[out] = {"Double": left * 2, "Same": left, "Plus": left + right}[op]
    fetch = data.draw(st.lists(st.sampled_from(sorted(values)), min_size=1, unique=True))
    model = build(
        *nodes,
        inputs={"x": (TensorProto.DOUBLE, ["N", 2])},
        outputs=[f"t{len(nodes) - 1}"],
        constants={"w": values["w"]},
    )
    given = values["x"].copy()
    found = NumpyModule(model).run({"x": given}, fetch=fetch)
    for name in fetch:
        np.testing.assert_array_equal(found[name], values[name])
        found[name][...] = -1
    np.testing.assert_array_equal(given, values["x"])


def test_a_node_costs_microseconds(build: Any) -> None:
    count = 1000
    nodes = [f"t{i + 1} = Same(t{i})" for i in range(count)]
    net = NumpyModule(build(*nodes, inputs={"t0": [1]}, outputs=[f"t{count}"]))
    x = np.ones(1, np.float32)

    def seconds() -> float:
        start = time.perf_counter()
        net(x)
        return time.perf_counter() - start

    # 0.6 µs measured, 5 µs the aim. The best of several runs: a busy machine must not decide.
    assert min(seconds() for _ in range(10)) / count < 5e-6


def test_a_function_may_ask_which_outputs_its_node_has() -> None:
    """A parameter with the default OUTPUTS_WANTED is told so, and is no attribute of the op."""

    def parts(x: Any, /, *, axis: int = 0, wanted: tuple[bool, ...] = OUTPUTS_WANTED) -> Any:
        told.append(wanted)
        return tuple(np.split(x, len(wanted), axis))

    told: list[tuple[bool, ...]] = []
    nodes = "agraph (float[6] x) => (float[a] first, float[b] last) {first, , last = own.Parts(x)}"
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["own": 1]> {nodes}')
    with fhe_core.registered(impls=[("Parts", parts, {"domain": "own"})]) as registry:
        assert registry.resolve("Parts", "own", opset=1).signature.attributes == {"axis": 0}
        first, last = fhe_core.NumpyModule(proto)(np.arange(6, dtype=np.float32))
    assert told == [(True, False, True)]
    assert (first.tolist(), last.tolist()) == ([0, 1], [4, 5])


def test_equal_nodes_with_more_outputs_are_not_the_same() -> None:
    """How many outputs a node has may decide what they are: such nodes are never merged."""

    def parts(x: Any, /, *, wanted: tuple[bool, ...] = OUTPUTS_WANTED) -> Any:
        return tuple(np.split(x, len(wanted)))

    nodes = (
        "agraph (float[6] x) => (float[a] half, float[b] third)"
        "{half, rest = own.Parts(x) third, more, most = own.Parts(x)}"
    )
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["own": 1]> {nodes}')
    with fhe_core.registered(impls=[("Parts", parts, {"domain": "own"})]):
        half, third = NumpyModule(simplify(read_graph(load_model(proto))))(
            np.arange(6, dtype=np.float32)
        )
    assert (half.tolist(), third.tolist()) == ([0, 1, 2], [0, 1])
