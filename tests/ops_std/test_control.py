"""If, Loop and Scan, with subgraphs that read what is around them: onnxruntime's answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx.parser
import onnxruntime
import pytest

from fhe_core import InputError, NumpyModule, UnsupportedOpError

X = np.array([1, -2, 3], np.float32)
ROWS = np.arange(12, dtype=np.float32).reshape(4, 3)


def model(text: str, opset: int = 17) -> Any:
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}]> {text}')


def agrees(text: str, *arrays: Any, opset: int = 17) -> tuple[Any, ...]:
    """The outputs, which are those of onnxruntime in dtype, shape and value."""
    proto = model(text, opset)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    expected = session.run(None, dict(zip((i.name for i in session.get_inputs()), arrays,
                                          strict=True)))  # fmt: skip
    got = NumpyModule(proto)(*arrays)
    got = got if isinstance(got, tuple) else (got,)
    for one, other in zip(got, expected, strict=True):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=1e-6)
    return got


def scalar(value: Any, dtype: Any) -> Any:
    return np.array(value, dtype)


# --- If


@pytest.mark.parametrize("flag", [True, False])
@pytest.mark.parametrize("opset", [6, 11, 13, 21])
def test_a_branch_gives_all_its_outputs_and_may_hold_another_if(flag: bool, opset: int) -> None:
    agrees(
        """agraph (bool f, float[3] x) => (float[N] y, float[M] z) {
             k = Neg(x)
             y, z = If(f) <
               then_branch = t () => (float[3] a, float[3] b) {
                 a = Abs(k)
                 b = If(f) <
                   then_branch = tt () => (float[3] c) { c = Sum(a, k) },
                   else_branch = te () => (float[3] d) { d = Neg(a) }> },
               else_branch = e () => (float[3] g, float[3] h) { g = Neg(k) h = Neg(g) }>
           }""",
        scalar(flag, bool),
        X,
        opset=opset,
    )


def test_a_condition_of_several_elements_is_refused() -> None:
    text = """agraph (bool[2] f, float[3] x) => (float[N] y) {
      y = If(f) <then_branch = t () => (float[3] a) { a = Abs(x) },
                 else_branch = e () => (float[3] b) { b = Neg(x) }> }"""
    with pytest.raises(InputError, match="node 'y', op If"):
        NumpyModule(model(text))(np.array([True, False]), X)


# --- Loop

LOOP = """agraph (int64 m, bool c, float[3] x, float limit) => (float[N] y, float[K, L] s, int64[I] i) {{
  y, s, i = Loop({m}, {c}, x) <body = b (int64 at, bool before, float[3] v)
    => (bool after, float[3] w, float[3] seen, int64 count) {{
      w = Add(v, x)
      total = ReduceMax<keepdims = 0>(w)
      after = Less(total, limit)
      seen = Neg(w)
      count = Identity(at) }}> }}"""


@pytest.mark.parametrize("m", ["m", ""])
@pytest.mark.parametrize("c", ["c", ""])
@pytest.mark.parametrize("trips", [0, 1, 3])
@pytest.mark.parametrize("start", [True, False])
def test_a_loop_ends_by_its_count_or_its_condition(m: str, c: str, trips: int, start: bool) -> None:
    """Either limit may be absent; what is scanned is empty where the loop never runs."""
    limits = scalar(trips, np.int64), scalar(start, bool)
    for limit in (5, 100):
        _, scanned, counts = agrees(LOOP.format(m=m, c=c), *limits, X, scalar(limit, np.float32))
        assert len(scanned) == len(counts)


def test_loops_nest_and_read_every_surrounding_graph() -> None:
    agrees(
        """agraph (int64 m, float[3] x) => (float[N] y, float[A, B, C] s) {
             t = Constant <value = bool {1}> ()
             y, s = Loop(m, t, x) <body = outer (int64 i, bool c, float[3] v)
               => (bool d, float[3] w, float[J, 3] all) {
                 n = Identity(m)
                 w, all = Loop(n, c, v) <body = inner (int64 j, bool p, float[3] a)
                   => (bool q, float[3] b, float[3] e) {
                     q = Identity(p)
                     sum = Add(a, x)
                     b = Sub(sum, v)
                     e = Add(b, v) }>
                 rows = Shape(all)
                 d = Identity(c) }> }""",
        scalar(2, np.int64),
        X,
    )


@pytest.mark.parametrize("opset", [6, 11, 16])
def test_every_version_of_loop_counts(opset: int) -> None:
    text = """agraph (int64 m, int64 start) => (int64 y, int64[K] s) {
      t = Constant <value = bool {1}> ()
      y, s = Loop(m, t, start) <body = b (int64 i, bool c, int64 v)
        => (bool d, int64 w, int64 e) { d = Cast <to = 9> (c) w = Add(v, i) e = Cast <to = 7> (w) }
      > }"""
    y, s = NumpyModule(model(text, opset))(scalar(4, np.int64), scalar(10, np.int64))
    assert (y.tolist(), s.tolist()) == (16, [10, 11, 13, 16])


def test_an_empty_loop_whose_scanned_type_is_unknown_says_so() -> None:
    text = LOOP.format(m="m", c="c")
    proto = model(text)
    body = proto.graph.node[0].attribute[0].g
    body.output[2].type.Clear()
    net = NumpyModule(proto)
    arguments = X, scalar(100, np.float32)
    assert net(scalar(1, np.int64), scalar(True, bool), *arguments)[1].shape == (1, 3)
    with pytest.raises(UnsupportedOpError, match=r"node 'y', op Loop.*does not declare.*'seen'"):
        net(scalar(0, np.int64), scalar(True, bool), *arguments)


# --- Scan


def scan(attributes: str, opset: int = 17) -> str:
    return f"""agraph (float[3] start, float[4, 3] a, float[4, 3] b) => (float[N] y, float[K, L] s,
                       float[P, Q] t) {{
      y, s, t = Scan <num_scan_inputs = 2 {attributes}, body = step (float[3] v, float[3] p, float[3] q)
        => (float[3] w, float[3] e, float[3] f) {{
          w = Add(v, p)
          e = Sub(w, q)
          f = Mul(e, start) }}> (start, a, b) }}"""


@pytest.mark.parametrize("opset", [9, 11, 16, 21])
@pytest.mark.parametrize(
    "attributes",
    [
        "",
        ", scan_input_directions = [1, 0]",
        ", scan_output_directions = [0, 1]",
        ", scan_output_axes = [1, 0]",
        ", scan_input_directions = [0, 1], scan_output_directions = [1, 1], scan_output_axes = [1, 1]",
    ],
)
def test_a_scan_goes_both_ways_along_any_axis(attributes: str, opset: int) -> None:
    agrees(scan(attributes), X, ROWS, ROWS[::-1] * 2, opset=opset)


def test_a_scan_reads_any_axis_of_its_inputs() -> None:
    attributes = ", scan_input_axes = [1, -2], scan_output_axes = [-1, 0]"
    text = scan(attributes).replace("float[4, 3] a", "float[3, 4] a")
    agrees(text, X, ROWS.T.copy(), ROWS[::-1] * 2)


@pytest.mark.parametrize("lengths", ["", "lengths"])
@pytest.mark.parametrize("directions", ["", ", directions = [1]"])
def test_the_first_scan_has_a_batch_and_sequences_that_end_early(
    lengths: str, directions: str
) -> None:
    text = f"""agraph (int64[2] lengths, float[2, 3] start, float[2, 4, 3] a)
      => (float[2, 3] y, float[2, 4, 3] s) {{
        y, s = Scan <num_scan_inputs = 1 {directions}, body = step (float[3] v, float[3] p)
          => (float[3] w, float[3] e) {{ w = Add(v, p) e = Neg(w) }}> ({lengths}, start, a) }}"""
    given = np.stack([ROWS, ROWS[::-1] + 1])
    agrees(text, np.array([2, 4]), ROWS[:2], given, opset=8)


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        (", scan_input_axes = [0]", "scan_input_axes has 1 elements and not 2"),
        (", scan_output_directions = [0]", "scan_output_directions has 1 elements and not 2"),
        (", scan_input_axes = [0, 2]", "axis"),
    ],
)
def test_a_scan_that_does_not_fit_its_inputs_is_refused(attributes: str, reason: str) -> None:
    with pytest.raises(InputError, match=rf"node 'y', op Scan.*{reason}"):
        NumpyModule(model(scan(attributes)))(X, ROWS, ROWS)


def test_scan_inputs_of_different_lengths_are_refused() -> None:
    text = scan("").replace("float[4, 3] b", "float[M, 3] b")
    with pytest.raises(InputError, match=r"different lengths, \[4, 3\]"):
        NumpyModule(model(text))(X, ROWS, ROWS[:3])
