"""What the shapes of the inputs decide is constant: the result is that with the constant in its place."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import onnx.parser
import pytest
from fhe_core.program.batch import BATCH
from onnx import numpy_helper

import fhe_core

RNG = np.random.default_rng(0)


def normal(*shape: int) -> Any:
    return RNG.normal(size=shape).astype(np.float32)


W, V, TABLE, KERNEL = normal(6, 3), normal(6, 6), normal(10, 6), normal(4, 2, 3, 3)
TOKEN = normal(1, 1, 6)
SEQUENCES, IMAGES = normal(60, 4, 6), normal(60, 2, 6, 6)
END = "r = Relu(a) y = MatMul(r, w)"
POOL = "r = Relu(u) y = ReduceMean <axes = [2, 3], keepdims = 0> (r)"
SIZED = "n = Shape <end = 1> (x)"

#: Nodes that compute something from shapes, the constant that it is for a batch of any size, and what follows.
FIXED: dict[str, tuple[str, str, Any, str]] = {
    "a slice of a table": (
        "s = Shape(x) e = Gather(s, i1) p = Slice(table, i0, e, i0)",
        "p",
        TABLE[:4],
        "a = Add(x, p) " + END,
    ),
    "a range": (
        "s = Shape(x) e = Gather(s, one) t = Range(zero, e, one) p = Gather(table, t)",
        "p",
        TABLE[:4],
        "a = Add(x, p) " + END,
    ),
    "zeros of a length": (
        "l = Shape <start = 1, end = 2> (x) z = ConstantOfShape(l) p = Unsqueeze(z, i1)",
        "p",
        np.zeros((4, 1), np.float32),
        "q = Add(x, p) a = Mul(q, x) " + END,
    ),
    "a width": (
        "d = Shape <start = -1> (x) f = Cast <to = 1> (d) p = Sqrt(f)",
        "p",
        np.sqrt(np.float32([6])),
        "a = Div(x, p) " + END,
    ),
    "a size over the batch": (
        f"s = Size(x) {SIZED} d = Div(s, n) p = Cast <to = 1> (d)",
        "p",
        np.float32([24]),
        "a = Div(x, p) " + END,
    ),
    "a triangle": (
        "l = Shape <start = 1, end = 2> (x) ll = Concat <axis = 0> (l, l)"
        " o = ConstantOfShape <value = float[1] {1}> (ll) p = Trilu <upper = 0> (o)",
        "p",
        np.tri(4, dtype=np.float32),
        "a = MatMul(p, x) " + END,
    ),
    "pads": (
        "hw = Shape <start = 2> (x) m = Mod(hw, i4) d = Div(m, i2)"
        " z = ConstantOfShape <value = int64[1] {0}> (i2) p = Concat <axis = 0> (z, d, z, d)",
        "p",
        np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        "q = Pad(x, p) u = Conv(q, kernel) " + POOL,
    ),
}

#: Nodes whose result has the batch in it.
SYMBOLIC: dict[str, str] = {
    "a class token": (
        f"{SIZED} s = Concat <axis = 0> (n, rest) t = Expand(token, s) a = Concat <axis = 1> (t, x)"
    ),
    "a tiled token": (
        f"{SIZED} s = Concat <axis = 0> (n, i1, i1) t = Tile(token, s) a = Concat <axis = 1> (x, t)"
    ),
    "zeros of the batch": "s = Shape(x) z = ConstantOfShape(s) a = Max(x, z)",
    "zeros in a condition": "s = Shape(x) z = ConstantOfShape(s) c = Greater(x, z) a = Where(c, x, z)",
    "halves of the batch": (
        "s = Shape(x) z = ConstantOfShape <value = float[1] {0.5}> (s) a = Add(x, z)"
    ),
    "heads": (
        f"{SIZED} s = Concat <axis = 0> (n, heads) q = Reshape(x, s)"
        " p = Transpose <perm = [0, 2, 1, 3]> (q) h = Relu(p) b = Transpose <perm = [0, 2, 1, 3]> (h)"
        " s2 = Concat <axis = 0> (n, back) a = Reshape(b, s2)"
    ),
    "samples in the middle": (
        "xt = Transpose <perm = [1, 0, 2]> (x) s = Shape <end = 2> (xt) c = Concat <axis = 0> (s, i2, three)"
        " q = Reshape(xt, c) s2 = Shape(xt) b = Reshape(q, s2) a = Transpose <perm = [1, 0, 2]> (b)"
    ),
    "flattened": (
        f"{SIZED} m = Neg(i1) s = Concat <axis = 0> (n, m) f = Reshape(x, s)"
        " s2 = Shape(x) a = Reshape(f, s2)"
    ),
    "resized": (
        "c = Conv(x, kernel) nc = Shape <end = 2> (c) s = Concat <axis = 0> (nc, eight)"
        ' u = Resize <mode = "nearest"> (c, , , s)'
    ),
    "interpolated": (
        "c = Conv(x, kernel) nc = Shape <end = 2> (c) s = Concat <axis = 0> (nc, eight)"
        ' u = Resize <mode = "linear"> (c, , , s)'
    ),
}

CONSTANTS: dict[str, Any] = {
    "w": W,
    "table": TABLE,
    "kernel": KERNEL,
    "token": TOKEN,
    "zero": np.array(0),
    "one": np.array(1),
    "rest": np.array([1, 6]),
    "heads": np.array([4, 2, 3]),
    "back": np.array([4, 6]),
    "three": np.array([3]),
    "eight": np.array([8, 8]),
    **{f"i{n}": np.array([n]) for n in range(5)},
}


def model(body: str, batch: str = "N", **constants: Any) -> onnx.ModelProto:
    images = "kernel" in body
    declared = f"float[{batch}, 2, 6, 6] x" if images else f"float[{batch}, 4, 6] x"
    proto = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g ({declared}) => (float[{batch}, A, B] y) {{ {body} }}'
    )
    if images:
        del proto.graph.output[0].type.tensor_type.shape.dim[2]
    given = {**CONSTANTS, **constants}
    words = set(re.findall(r"\w+", body))
    proto.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name)
        for name, value in given.items()
        if name in words
    )
    return proto


def samples(proto: onnx.ModelProto) -> Any:
    rank = len(proto.graph.input[0].type.tensor_type.shape.dim)
    return IMAGES if rank == 4 else SEQUENCES


def quantized(proto: onnx.ModelProto) -> Any:
    assert fhe_core.check(proto).ok
    x = samples(proto)
    return fhe_core.quantize(proto, x, n_bits=8)(x)


@pytest.mark.parametrize("batch", ["N", "1"])
@pytest.mark.parametrize("name", FIXED)
def test_what_follows_from_shapes_is_a_constant(name: str, batch: str) -> None:
    nodes, output, value, rest = FIXED[name]
    found = quantized(model(f"{nodes} {rest}", batch))
    expected = quantized(model(rest, batch, **{output: value}))
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("batch", ["N", "1"])
@pytest.mark.parametrize("name", SYMBOLIC)
def test_what_follows_from_the_batch_size_is_known_for_every_size(name: str, batch: str) -> None:
    body = f"{SYMBOLIC[name]} {POOL if 'Conv' in SYMBOLIC[name] else END}"
    free = model(body)
    expected = fhe_core.NumpyModule(free)(samples(free))
    error = np.square(quantized(model(body, batch)) - expected).mean()
    assert error <= 0.003 * expected.var()


@pytest.mark.parametrize(
    "nodes",
    [
        "n = Shape <end = 1> (x) f = Cast <to = 1> (n) a = Div(x, f)",
        "s = Shape(x) n = Gather(s, zero) r0 = Range(zero, n, one) f = Cast <to = 1> (r0)"
        " u = Unsqueeze(f, i1) v = Unsqueeze(u, i1) a = Add(x, v)",
    ],
    ids=["a mean over the batch", "numbered samples"],
)
def test_what_depends_on_the_number_of_samples_otherwise_is_refused(nodes: str) -> None:
    proto = model(f"{nodes} {END}")
    report = str(fhe_core.check(proto))
    with pytest.raises(fhe_core.CompilationError, match="from the number of samples") as caught:
        fhe_core.quantize(proto, SEQUENCES, n_bits=8)
    for said in (report, str(caught.value)):
        assert "from the number of samples" in " ".join(said.split())
        assert str(int(BATCH)) not in said


def test_shapes_that_depend_on_data_are_not_taken_for_numbers() -> None:
    proto = model(
        f"z = NonZero(x) s = Shape <start = 1> (z) f = Cast <to = 1> (s) a = Add(x, f) {END}"
    )
    report = fhe_core.check(proto)
    assert not report.ok
    assert {problem.node for problem in report.problems} >= {"z"}


def test_an_output_that_follows_from_shapes_is_refused_by_check_and_quantize() -> None:
    proto = model("s = Shape(x) f = Cast <to = 1> (s) y = Sqrt(f)")
    assert not fhe_core.check(proto).ok
    with pytest.raises(fhe_core.CompilationError, match="nothing to decrypt"):
        fhe_core.quantize(proto, SEQUENCES, n_bits=8)
