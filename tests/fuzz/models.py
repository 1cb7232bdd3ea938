"""Whole models to damage, and what a damaged one is put through."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import fhe_core
from fhe_core import FheError

_LARGEST = 20_000  # bytes: what is larger is data, and data are seldom at fault
_FILES = ("pytorch-converted", "pytorch-operator", "simple")


@cache
def bases() -> tuple[bytes, ...]:
    """ONNX's own test models, of nearly all operators, and some of several nodes."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [case.model for case in load_model_tests(kind="node")]
    data = [model.SerializeToString() for model in found if model is not None]
    root = Path(onnx.__file__).parent / "backend" / "test" / "data"
    for folder in _FILES:
        data += [path.read_bytes() for path in sorted((root / folder).glob("*/model.onnx"))]
    trained = sorted((Path(__file__).parents[1] / "models").glob("*.onnx"))
    data += [path.read_bytes() for path in trained]
    small = [one for one in data if len(one) <= _LARGEST and _takes_little(one)]
    # The nets of several nodes are few: they come more often.
    return (*small, *(model.SerializeToString() for model in _nets() for _ in range(20)))


def _takes_little(data: bytes) -> bool:
    """Whether its inputs are small: of large ones, each fault would take its time."""
    sizes = (
        [dim.dim_value or 1 for dim in info.type.tensor_type.shape.dim]
        for info in mutable(data).graph.input
    )
    return all(np.prod(size, dtype=float) <= 10_000 for size in sizes)


def drawn(rng: np.random.Generator) -> bytes:
    """One of them."""
    return bases()[rng.integers(len(bases()))]


def drive(model: Any, rng: np.random.Generator) -> None:
    """Checks a model, loads it, runs it, and quantizes it: each may refuse.

    Raises:
        FheError: the last refusal.
    """
    refused: FheError | None = None

    def attempt(act: Callable[[], Any]) -> Any:
        nonlocal refused
        try:
            return act()
        except FheError as error:
            refused = error

    attempt(lambda: str(fhe_core.check(model)))
    net = attempt(lambda: fhe_core.NumpyModule(model))
    if net is not None:
        arrays = [_fitting(info, rng) for info in net.graph.inputs]
        attempt(lambda: net(*arrays))
        if all(array.dtype.kind in "fiub" for array in arrays):
            attempt(lambda: fhe_core.quantize(model, tuple(arrays)).forward(*arrays))
    if refused is not None:
        raise refused


def _fitting(info: Any, rng: np.random.Generator) -> np.ndarray:
    """An array of a declared type, as far as that is small."""
    shape = [
        dim if isinstance(dim, int) else int(rng.integers(1, 4))
        for dim in (info.shape if info.shape is not None else (2, 3))
    ]
    if np.prod(shape, dtype=float) > 1e6:
        shape = [min(dim, 3) for dim in shape]
    if info.dtype is None:
        return np.full(shape, "a", object)
    with np.errstate(all="ignore"):
        return (rng.normal(size=shape) * rng.choice([1, 10])).astype(info.dtype)


def mutable(data: bytes) -> onnx.ModelProto:
    """A model as a message of its own."""
    return onnx.ModelProto.FromString(data)


def nodes_of(graph: Any) -> Iterator[Any]:
    """The nodes of a graph and of its subgraphs."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                yield from nodes_of(body)


def _nets() -> Iterator[onnx.ModelProto]:
    rng = np.random.default_rng(0)
    tensor = numpy_helper.from_array

    def weights(name: str, *shape: int) -> TensorProto:
        return tensor(rng.normal(size=shape).astype(np.float32), name)

    node = helper.make_node
    yield _net(
        [
            node("Gemm", ["x", "w", "b"], ["h"], transB=1),
            node("Relu", ["h"], ["r"]),
            node("MatMul", ["r", "v"], ["y"]),
        ],
        [weights("w", 5, 4), weights("b", 5), weights("v", 5, 2)],
    )
    yield _net(
        [
            node("Shape", ["x"], ["s"]),
            node("Gather", ["s", "zero"], ["n"], axis=0),
            node("Concat", ["n", "rest"], ["t"], axis=0),
            node("Reshape", ["x", "t"], ["q"]),
            node("Conv", ["q", "w"], ["c"], kernel_shape=[2, 2]),
            node("MaxPool", ["c"], ["p"], kernel_shape=[1, 1]),
            node("Flatten", ["p"], ["y"]),
        ],
        [
            tensor(np.array([0]), "zero"),
            tensor(np.array([1, 2, 2]), "rest"),
            weights("w", 3, 1, 2, 2),
        ],
    )
    scalar = [helper.make_tensor_value_info(name, TensorProto.INT64, ()) for name in ("i",)]
    flags = [helper.make_tensor_value_info(name, TensorProto.BOOL, ()) for name in ("c", "d")]
    state = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("v", "u")]
    body = helper.make_graph(
        [node("Identity", ["c"], ["d"]), node("Add", ["v", "k"], ["u"])],
        "body",
        [*scalar, flags[0], state[0]],
        [flags[1], state[1]],
    )
    yield _net(
        [node("Loop", ["n", "t", "k"], ["l"], body=body), node("Mul", ["x", "l"], ["y"])],
        [tensor(np.array(3), "n"), tensor(np.array(True), "t"), weights("k", 4)],
    )
    branch = helper.make_graph([node("Sigmoid", ["x"], ["z"])], "a", [], [state[1]])
    branch.output[0].name = "z"
    yield _net(
        [node("If", ["t"], ["y"], then_branch=branch, else_branch=branch)],
        [tensor(np.array(True), "t")],
    )
    functions = [
        helper.make_function(
            "f", "F0", ["a"], ["b"], [node("Relu", ["a"], ["b"])], [helper.make_opsetid("", 17)]
        ),
        helper.make_function(
            "f",
            "F1",
            ["a"],
            ["b"],
            [node("F0", ["a"], ["t"], domain="f"), node("F0", ["t"], ["b"], domain="f")],
            [helper.make_opsetid("f", 1)],
        ),
    ]
    yield _net([node("F1", ["x"], ["y"], domain="f")], [], functions)
    yield _net(
        [
            node("Constant", [], ["s"], value_ints=[2, 1, 1]),
            node("Tile", ["w", "s"], ["u"]),
            node("Expand", ["x", "s"], ["v"]),
            node("Concat", ["u", "v"], ["y"], axis=0),
        ],
        [weights("w", 1, 2, 4)],
    )


def _net(
    nodes: list[Any], constants: list[Any], functions: list[Any] | None = None
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("N", 4))],
        [helper.make_empty_tensor_value_info("y")],
        constants,
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    model.functions.extend(functions or [])
    return model


def sent(model: onnx.ModelProto, folder: Path, rng: np.random.Generator) -> Any:
    """The model as users hand it over: a message, bytes, or a file."""
    way = rng.integers(3)
    if way == 0:
        return model
    data = None
    with contextlib.suppress(Exception):  # more than protobuf writes
        data = model.SerializeToString()
    if data is None or way == 1:
        return model if data is None else data
    path = folder / "model.onnx"
    path.write_bytes(data)
    return path
