"""Operators and a model builder for the tests of the graph package.

The operators live in a domain of their own, ``tests``, so that no installed pack has a say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import fhe_core
from fhe_core import QuantizedArray, QuantizedOp

DOMAIN = "tests"
Build = Callable[..., onnx.ModelProto]


def double(x: Any, /) -> Any:
    return x * 2


def plus(a: Any, b: Any, /, c: Any = None, *, scale: float = 1.0, label: str = "") -> Any:
    total = a + b if c is None else a + b + c
    return total * np.asarray(scale, total.dtype)


def split(x: Any, /, *, parts: int) -> Any:
    return tuple(np.split(x, parts, axis=1))


def total(*inputs: Any, axes: tuple[int, ...] = ()) -> Any:
    return sum(inputs)


def same(x: Any, /) -> Any:
    return x


def constant(*, value: Any) -> Any:
    return value


def divide(a: Any, b: Any, /) -> Any:
    return a / b


def spoil(x: Any, /) -> Any:
    x *= 2
    return x


def fail(x: Any, /) -> Any:
    raise ValueError("no luck")


def refuse(x: Any, /) -> Any:
    raise NotImplementedError("mode 7 is not implemented")


def noise(x: Any, /, *, seed: float = 0.0) -> Any:
    return x + np.random.default_rng().normal(size=x.shape)


def choose(flag: Any, /, *, yes: Any, no: Any) -> Any:
    return yes() if flag else no()


def repeat(x: Any, /, *, times: int, body: Any) -> Any:
    for _ in range(times):
        (x,) = body(x)
    return x


OPS = {
    "Double": double,
    "Plus": plus,
    "Split": split,
    "Total": total,
    "Same": same,
    "Constant": constant,
    "Divide": divide,
    "Spoil": spoil,
    "Fail": fail,
    "Refuse": refuse,
    "Noise": noise,
    "Choose": choose,
    "Repeat": repeat,
    "Mix": double,
    "Fuse": double,
    "Maybe": double,
}


class QuantizedMix(QuantizedOp):
    """Integer arithmetic: never part of a look-up."""

    _impl_for_op_named = "Mix"

    def q_impl(self, x: QuantizedArray, /, **attrs: Any) -> Any:
        doubled = (x.qvalues - x.quantizer.zero_point) * 2
        return self.quantized(doubled.astype(np.float64) * x.quantizer.scale)


class QuantizedFuse(QuantizedOp):
    """A function of each element: always part of a look-up."""

    _impl_for_op_named = "Fuse"


class QuantizedMaybe(QuantizedMix):
    """Part of a look-up where its place in the graph allows it."""

    _impl_for_op_named = "Maybe"

    def can_fuse(self) -> bool:
        return len(self._int_input_names) == 1


QUANTIZED = (QuantizedMix, QuantizedFuse, QuantizedMaybe)


@pytest.fixture(autouse=True)
def _ops() -> Iterator[None]:
    impls = [(name, fn, {"domain": DOMAIN, "since_version": 1}) for name, fn in OPS.items()]
    quantized = [(kind, {"domain": DOMAIN}) for kind in QUANTIZED]
    with fhe_core.registered(impls=impls, quantized=quantized):
        yield


def _node(text: str, /, domain: str = DOMAIN, **attributes: Any) -> onnx.NodeProto:
    """``"y, z = Op(x, )"``, an empty name where an input or output is left out."""
    outputs, _, call = text.partition("=")
    op_type, _, inputs = call.strip().rstrip(")").partition("(")
    names = [[name.strip() for name in part.split(",")] for part in (inputs, outputs)]
    if names[0] == [""]:
        names[0] = []
    return helper.make_node(op_type, *names, domain=domain, **attributes)


@pytest.fixture
def node() -> Callable[..., onnx.NodeProto]:
    """A node from ``"y, z = Op(x, w)"`` and its attributes."""
    return _node


def _info(name: str, spec: Any) -> onnx.ValueInfoProto:
    dtype, shape = spec if isinstance(spec, tuple) else (TensorProto.FLOAT, spec)
    return helper.make_tensor_value_info(name, dtype, shape)


@pytest.fixture
def build() -> Build:
    """A model from nodes (or their text), inputs (name to shape, or type and shape) and outputs."""

    def build(
        *nodes: str | onnx.NodeProto,
        inputs: Any = None,
        outputs: Any = ("y",),
        constants: Any = None,
        opsets: Any = (("", 17), (DOMAIN, 1)),
        **options: Any,
    ) -> onnx.ModelProto:
        inputs = {"x": ["N", 2]} if inputs is None else inputs
        if not isinstance(outputs, dict):
            outputs = dict.fromkeys(outputs)
        graph = helper.make_graph(
            [_node(entry) if isinstance(entry, str) else entry for entry in nodes],
            "g",
            [_info(*item) for item in inputs.items()],
            [_info(*item) for item in outputs.items()],
            [onnx.numpy_helper.from_array(v, n) for n, v in (constants or {}).items()],
        )
        options.setdefault("ir_version", 8)
        imports = [helper.make_opsetid(*entry) for entry in opsets]
        return helper.make_model(graph, opset_imports=imports, **options)

    return build


@pytest.fixture
def subgraph() -> Callable[..., onnx.GraphProto]:
    """A subgraph from nodes, input names and output names."""

    def subgraph(
        *nodes: str, inputs: tuple[str, ...] = (), outputs: tuple[str, ...]
    ) -> onnx.GraphProto:
        return helper.make_graph(
            [_node(text) for text in nodes],
            "body",
            [helper.make_value_info(name, onnx.TypeProto()) for name in inputs],
            [helper.make_value_info(name, onnx.TypeProto()) for name in outputs],
        )

    return subgraph
