"""Each quantized operator between two products, with no more look-ups than it must have; and by itself, on
ordinary arrays. What it computes alone, at which widths and how exactly, the conformance kit shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest
from fhe_core.graph.model import read_graph
from fhe_core.quantization.module import QuantizedModule

import fhe_core
from fhe_core import QuantizedArray
from tests.core.quantization.building import model, normal, relative_error

SAMPLES = 300

#: Nodes from what a product gives, ``{0}_raw``, to what the op is defined on, ``{0}``.
POSITIVE = "{0}_size = Abs({0}_raw) \n {0} = Add({0}_size, one)"
SMALL = "{0}_tanh = Tanh({0}_raw) \n {0} = Mul({0}_tanh, nine_tenths)"
DOMAIN_CONSTANTS = {"one": np.float32(1), "nine_tenths": np.float32(0.9)}


@dataclass(frozen=True)
class Case:
    """An op from x (and z) to y.

    Attributes:
        nodes: in ONNX's text format.
        shape: of one sample.
        domain: nodes that make x and z from any numbers; none by default.
        lookups: of the op between two products, those that quantize its inputs among them.
        within: relative error between two products.
    """

    nodes: str
    constants: Mapping[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] = (5,)
    domain: str = ""
    opset: int = 17
    lookups: int = 1
    within: float = 0.03
    batch: Any = "N"

    @property
    def inputs(self) -> list[str]:
        return ["x", "z"] if "z" in self.nodes else ["x"]

    def alone(self) -> onnx.ModelProto:
        shapes = dict.fromkeys(self.inputs, (self.batch, *self.shape))
        return model(self.nodes, shapes, "y", self.constants, opset=self.opset)

    def data(self) -> dict[str, Any]:
        """What the op is defined on."""
        data = {f"{name}_raw": value for name, value in self.raw().items()}
        if not self.domain:
            return self.raw()
        nodes = "\n".join(self.domain.format(name) for name in self.inputs)
        shapes = dict.fromkeys(data, ("N", *self.shape))
        net = fhe_core.NumpyModule(model(nodes, shapes, " ".join(self.inputs), DOMAIN_CONSTANTS))
        values = net(**data)
        return dict(zip(self.inputs, values if len(self.inputs) > 1 else [values], strict=True))

    def raw(self) -> dict[str, Any]:
        return {
            name: normal(SAMPLES, *self.shape, seed=i + 1) for i, name in enumerate(self.inputs)
        }

    def between_products(self) -> onnx.ModelProto:
        """The op in the middle: a product of each input before it, one of its output after it."""
        constants = {**self.constants, **(DOMAIN_CONSTANTS if self.domain else {})}
        lines = []
        for i, name in enumerate(self.inputs):
            size = self.shape[-1]
            constants[f"w_{name}"] = normal(size, size, seed=i + 11) / np.sqrt(np.float32(size))
            lines.append(f"{name}{'_raw' if self.domain else ''} = MatMul(in_{name}, w_{name})")
            lines.append(self.domain.format(name))
        first = {name: values[:1] for name, values in self.data().items()}
        width = fhe_core.NumpyModule(self.alone())(**first).shape[-1]
        constants["w_y"] = normal(width, 3, seed=13) / np.sqrt(np.float32(width))
        nodes = "\n".join([*lines, self.nodes, "out = MatMul(y, w_y)"])
        shapes = {f"in_{name}": (self.batch, *self.shape) for name in self.inputs}
        return model(nodes, shapes, "out", constants, opset=self.opset)


IMAGE = (4, 6, 6)


def linear() -> Iterator[tuple[str, Case]]:
    w, b = normal(5, 3), normal(3)
    yield "Gemm", Case("y = Gemm(x, w, b)", {"w": w, "b": b}, lookups=2)
    yield "Gemm opset 9", Case("y = Gemm(x, w, b)", {"w": w, "b": b}, lookups=2, opset=9)
    yield "Gemm without C", Case("y = Gemm(x, w)", {"w": w}, lookups=2)
    yield "Gemm scalar C", Case("y = Gemm(x, w, b)", {"w": w, "b": normal(1)}, lookups=2)
    scaled = "y = Gemm <transB = 1, alpha = 0.5, beta = 2.0> (x, w, b)"
    yield "Gemm transB alpha beta", Case(scaled, {"w": normal(3, 5), "b": b}, lookups=2)
    yield "MatMul", Case("y = MatMul(x, w)", {"w": w}, lookups=2)
    yield "MatMul of rows", Case("y = MatMul(x, w)", {"w": w}, (2, 5), lookups=2)
    yield "MatMul batched", Case("y = MatMul(x, w)", {"w": normal(2, 5, 3)}, (2, 4, 5), lookups=2)
    yield "MatMul vector", Case("y = MatMul(x, w)", {"w": normal(5)}, (2, 5), lookups=2)
    yield (
        "MatMul constant first",
        Case("y = MatMul(w, x)", {"w": normal(3, 5)}, (5, 2), lookups=2, within=0.05),
    )
    # Two look-ups quantize, two multiply, one is the product's own.
    yield "MatMul encrypted", Case("y = MatMul(x, z)", {}, (3, 3), lookups=5, within=0.06)
    kernel = {"w": normal(3, 4, 3, 3), "b": normal(3)}
    yield "Conv", Case("y = Conv(x, w, b)", kernel, IMAGE, lookups=2)
    yield "Conv static batch", Case("y = Conv(x, w, b)", kernel, IMAGE, lookups=2, batch=1)
    yield (
        "Conv 1-D",
        Case(
            "y = Conv <pads = [2, 1], strides = [2]> (x, w, b)",
            {"w": normal(4, 3, 3), "b": normal(4)},
            (3, 9),
            lookups=2,
        ),
    )
    for name, attributes, weights in (
        ("asymmetric pads", "pads = [1, 0, 2, 1], kernel_shape = [3, 3]", (3, 4, 3, 3)),
        ("groups", "group = 2, pads = [1, 1, 1, 1]", (6, 2, 3, 3)),
        ("depthwise", "group = 4, pads = [1, 1, 1, 1], strides = [2, 2]", (4, 1, 3, 3)),
        ("depthwise times two", "group = 4", (8, 1, 3, 3)),
        ("dilation", "dilations = [2, 1]", (3, 4, 3, 3)),
        ("SAME_UPPER", 'auto_pad = "SAME_UPPER", strides = [2, 2]', (3, 4, 3, 3)),
        ("SAME_LOWER", 'auto_pad = "SAME_LOWER", strides = [2, 2]', (3, 4, 3, 3)),
        ("VALID", 'auto_pad = "VALID"', (3, 4, 3, 3)),
    ):
        constants = {"w": normal(*weights), "b": normal(weights[0])}
        yield (
            f"Conv {name}",
            Case(f"y = Conv <{attributes}> (x, w, b)", constants, IMAGE, lookups=2),
        )


def arithmetic() -> Iterator[tuple[str, Case]]:
    w = {"w": normal(5)}
    for op, encrypted in (("Add", 2), ("Sub", 2), ("Mul", 5), ("Div", 5)):
        positive = POSITIVE if op == "Div" else ""
        yield f"{op} a constant", Case(f"y = {op}(x, w)", w)
        yield f"{op} a scalar", Case(f"y = {op}(x, w)", {"w": np.float32(1.5)})
        yield f"{op} to a constant", Case(f"y = {op}(w, x)", w, domain=positive)
        both = f"y = {op}(x, z)"
        yield f"{op} encrypted", Case(both, domain=positive, lookups=encrypted)
        # One integer tensor is behind both operands, so it is one look-up.
        itself = f"s = Cosh(x) \n y = {op}(x, s)"
        yield f"{op} with a function of itself", Case(itself, within=0.08)  # long tails
        yield f"{op} with itself", Case(f"y = {op}(x, x)", domain=positive)
    broadcast = "a = ReduceMean <axes = [1]> (z) \n y = Add(x, a)"
    yield "Add broadcast", Case(broadcast, {}, (3, 5), lookups=3)
    yield "Sum of three", Case("y = Sum(x, z, x)", lookups=2)
    yield "Sum with a constant", Case("y = Sum(x, w, z)", w, lookups=2)
    yield "Mean", Case("y = Mean(x, z)", lookups=3)
    yield "Mean with a constant", Case("y = Mean(x, w, z)", w, lookups=3)
    for op in ("Max", "Min"):
        yield f"{op} of a constant", Case(f"y = {op}(x, w)", w)
        yield f"{op} of one", Case(f"y = {op}(x)")
        yield f"{op} encrypted", Case(f"y = {op}(x, z)", lookups=3)
        yield f"{op} with a constant", Case(f"y = {op}(x, w, z)", w, lookups=4)
    yield "Pow", Case("y = Pow(x, w)", {"w": np.float32(2)})
    yield "Pow of a constant", Case("y = Pow(w, x)", {"w": np.float32(2)})
    yield "PRelu", Case("y = PRelu(x, w)", w)
    yield "Where", Case("c = Greater(x, w) \n y = Where(c, x, w)", w)


def univariate() -> Iterator[tuple[str, Case]]:
    for op in [
        "Celu",
        "Elu",
        "HardSigmoid",
        "HardSwish",
        "LeakyRelu",
        "Relu",
        "Selu",
        "Sigmoid",
        "Softplus",
        "Softsign",
        "Tanh",
        "Mish",
        "ThresholdedRelu",
        "Abs",
        "Atan",
        "Asinh",
        "Cos",
        "Cosh",
        "Erf",
        "Exp",
        "Neg",
        "Sin",
        "Sinh",
        "Identity",
        "Dropout",
    ]:
        within = {"ThresholdedRelu": 0.08, "Sinh": 0.05, "Exp": 0.05}.get(
            op, 0.03
        )  # a jump; long tails
        yield op, Case(f"y = {op}(x)", opset=18, within=within)
    for op in ("Ceil", "Floor", "Round", "Sign"):  # of integers between the jumps, some cross one
        yield op, Case(f"y = {op}(x)", within=0.12)
    for op in ("Log", "Sqrt", "Reciprocal", "Acosh"):
        yield op, Case(f"y = {op}(x)", domain=POSITIVE)
    for op in ("Acos", "Asin", "Atanh", "Tan"):
        yield op, Case(f"y = {op}(x)", domain=SMALL)
    yield "Gelu", Case("y = Gelu(x)", opset=20)
    yield "Gelu tanh", Case('y = Gelu <approximate = "tanh"> (x)', opset=20)
    low, high = {"low": np.float32(-0.5)}, {"high": np.float32(1)}
    yield "Clip", Case("y = Clip(x, low, high)", {**low, **high})
    yield "Clip minimum", Case("y = Clip(x, low)", low)
    yield "Clip maximum", Case("y = Clip(x, , high)", high)
    yield "Clip opset 9", Case("y = Clip <min = -0.5, max = 1.0> (x)", opset=9)
    yield "Cast", Case("y = Cast <to = 1> (x)")
    yield "Cast to int64", Case("h = Cast <to = 7> (x) \n y = Cast <to = 1> (h)", within=0.12)
    yield (
        "Not",
        Case(
            "c = Greater(x, w) \n d = Not(c) \n y = Cast <to = 1> (d)",
            {"w": normal(5)},
            within=0.08,
        ),
    )
    statistics = {"s": normal(4), "b": normal(4), "m": normal(4), "v": abs(normal(4)) + 0.5}
    yield "BatchNormalization", Case("y = BatchNormalization(x, s, b, m, v)", statistics, IMAGE)


def pooling() -> Iterator[tuple[str, Case]]:
    for name, attributes, comparisons in (
        ("2x2", "kernel_shape = [2, 2], strides = [2, 2]", 2),
        ("overlapping", "kernel_shape = [3, 3]", 4),
        ("pads", "kernel_shape = [3, 3], pads = [1, 1, 1, 1]", 4),
        ("asymmetric pads", "kernel_shape = [3, 3], pads = [0, 1, 2, 1], strides = [2, 1]", 4),
        (
            "ceil_mode",
            "kernel_shape = [3, 3], strides = [2, 2], ceil_mode = 1, pads = [1, 1, 1, 1]",
            4,
        ),
        ("ceil_mode beyond", "kernel_shape = [2, 2], strides = [4, 4], ceil_mode = 1", 2),
        ("SAME_UPPER", 'kernel_shape = [3, 3], strides = [2, 2], auto_pad = "SAME_UPPER"', 4),
        ("dilations", "kernel_shape = [2, 2], dilations = [2, 2]", 2),
    ):
        average = f"y = AveragePool <{attributes}> (x)"
        yield f"AveragePool {name}", Case(average, {}, IMAGE, opset=19, lookups=2)
        most = f"y = MaxPool <{attributes}> (x)"
        yield f"MaxPool {name}", Case(most, {}, IMAGE, opset=19, lookups=1 + comparisons)
    pads = "kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1"
    yield "AveragePool padding counts", Case(f"y = AveragePool <{pads}> (x)", {}, IMAGE, lookups=2)
    yield "AveragePool 1-D", Case("y = AveragePool <kernel_shape = [2]> (x)", {}, (3, 7), lookups=2)
    yield "MaxPool 1-D", Case("y = MaxPool <kernel_shape = [2]> (x)", {}, (3, 7), lookups=2)
    yield "GlobalAveragePool", Case("y = GlobalAveragePool(x)", {}, IMAGE, lookups=2)
    yield "GlobalMaxPool", Case("y = GlobalMaxPool(x)", {}, IMAGE, lookups=11)


def layout() -> Iterator[tuple[str, Case]]:
    """Moves of elements, none of which costs a look-up beyond the one that quantizes its input."""
    pads = [0, 0, 1, 1, 0, 0, 2, 1]
    opened = {"zero": np.int64(0), "axis": [0], "rest": [-1]}
    shape = (
        "s = Shape(x) \n n = Gather(s, zero) \n u = Unsqueeze{0} \n c = Concat <axis = 0> (u, rest)"
    )
    for name, nodes, constants, opset in (
        ("Flatten", "y = Flatten(x)", {}, 17),
        ("Reshape", "y = Reshape(x, s)", {"s": [-1, 144]}, 17),
        ("Reshape keeps 0", "y = Reshape(x, s)", {"s": [0, 0, 36]}, 17),
        ("Reshape by Shape", f"{shape.format('(n, axis)')} \n y = Reshape(x, c)", opened, 17),
        (
            "Reshape by Shape opset 9",
            f"{shape.format(' <axes = [0]> (n)')} \n y = Reshape(x, c)",
            {"zero": np.int64(0), "rest": [-1]},
            9,
        ),
        ("Transpose", "y = Transpose <perm = [0, 2, 3, 1]> (x)", {}, 17),
        ("Unsqueeze Squeeze", "h = Unsqueeze(x, a) \n y = Squeeze(h, a)", {"a": [1, 4]}, 17),
        (
            "Unsqueeze Squeeze opset 9",
            "h = Unsqueeze <axes = [1, 4]> (x) \n y = Squeeze <axes = [1, 4]> (h)",
            {},
            9,
        ),
        ("Concat with itself", "y = Concat <axis = 1> (x, x)", {}, 17),
        (
            "Slice",
            "y = Slice(x, a, b, c, d)",
            {"a": [0, 1], "b": [3, 100], "c": [1, 2], "d": [2, 2]},
            17,
        ),
        (
            "Slice backwards",
            "y = Slice(x, a, b, c, d)",
            {"a": [-1], "b": [-100], "c": [1], "d": [-1]},
            17,
        ),
        ("Slice opset 9", "y = Slice <starts = [1], ends = [3], axes = [1]> (x)", {}, 9),
        ("Gather", "y = Gather <axis = 1> (x, i)", {"i": [3, 0]}, 17),
        ("Gather one", "y = Gather <axis = 1> (x, i)", {"i": np.int64(2)}, 17),
        ("Pad", "y = Pad(x, p)", {"p": pads}, 17),
        ("Pad axes", "y = Pad(x, p, , a)", {"p": [1, 1], "a": [2]}, 18),
        ("Pad less", "y = Pad(x, p)", {"p": [0, 0, -1, 1, 0, 0, -1, 0]}, 17),
        ("Pad reflect", 'y = Pad <mode = "reflect"> (x, p)', {"p": pads}, 17),
        ("Pad edge", 'y = Pad <mode = "edge"> (x, p)', {"p": pads}, 17),
        (
            "Expand",
            "u = Unsqueeze(x, a) \n y = Expand(u, s)",
            {"a": [1], "s": [1, 2, 1, 1, 1]},
            17,
        ),
        ("Tile", "y = Tile(x, r)", {"r": [1, 2, 1, 1]}, 17),
        ("DepthToSpace", "y = DepthToSpace <blocksize = 2> (x)", {}, 17),
        ("SpaceToDepth", "y = SpaceToDepth <blocksize = 2> (x)", {}, 17),
    ):
        yield name, Case(nodes, constants, IMAGE, opset=opset)
    level = {"p": pads, "v": np.float32(0.75)}
    yield "Pad with a value", Case("y = Pad(x, p, v)", level, IMAGE)
    nine = "y = Pad <pads = [0, 0, 1, 1, 0, 0, 1, 1], value = 0.5> (x)"
    yield "Pad opset 9", Case(nine, {}, IMAGE, opset=9)
    first, last = {"w": normal(1, 2, 6, 6)}, {"v": normal(1, 1, 6, 6, seed=1)}
    around: Any
    for name, around, joined in (
        ("before", first, "w, x"),
        ("after", first, "x, w"),
        ("around", {**first, **last}, "w, x, v"),
    ):
        nodes = f"y = Concat <axis = 1> ({joined})"
        yield f"Concat constants {name}", Case(nodes, around, IMAGE, batch=1)
    # Two parts, each quantized; nothing more to join them in another order.
    parts = "a, b = Split <axis = 1{0} \n y = Concat <axis = 1> (b, a)"
    yield "Split", Case(parts.format("> (x, s)"), {"s": [1, 3]}, IMAGE, lookups=2)
    halves = parts.format(", num_outputs = 2> (x)")
    yield "Split opset 18", Case(halves, {}, IMAGE, opset=18, lookups=2)
    yield "Concat", Case("y = Concat <axis = 1> (x, z)", {}, IMAGE, lookups=2)


def reduction() -> Iterator[tuple[str, Case]]:
    yield "ReduceSum", Case("y = ReduceSum(x, a)", {"a": [2, 3]}, IMAGE, lookups=2)
    dropped = "y = ReduceSum <axes = [2, 3], keepdims = 0> (x)"
    yield "ReduceSum opset 11", Case(dropped, {}, IMAGE, opset=11, lookups=2)
    yield "ReduceMean", Case("y = ReduceMean <axes = [-1]> (x)", {}, IMAGE, lookups=2)
    mean = "y = ReduceMean <keepdims = 0> (x, a)"
    yield "ReduceMean opset 18", Case(mean, {"a": [1]}, IMAGE, opset=18, lookups=2)


CASES = {
    name: case
    for group in (linear, arithmetic, univariate, pooling, layout, reduction)
    for name, case in group()
}


def quantized(proto: onnx.ModelProto, data: Mapping[str, Any], rounding: int) -> QuantizedModule:
    return fhe_core.quantize(
        proto, dict(data), n_bits=8, rounding=rounding, rounding_method="exact"
    )


def in_float(proto: onnx.ModelProto, data: Mapping[str, Any], batch: Any) -> Any:
    net = fhe_core.NumpyModule(proto)
    if batch == "N":
        return net(**data)
    return np.concatenate(
        [net(**{name: a[i : i + 1] for name, a in data.items()}) for i in range(SAMPLES)]
    )


@pytest.mark.parametrize("name", CASES)
def test_between_two_products_it_agrees_with_float_and_costs_no_more(name: str) -> None:
    case = CASES[name]
    proto = case.between_products()
    data = {f"in_{key}": values for key, values in case.raw().items()}
    qm = quantized(proto, data, rounding=10)  # finer than the 8 bits that follow
    result = qm.forward(**data)
    assert relative_error(result, in_float(proto, data, case.batch)) < case.within
    assert len(qm.program.lookups) == case.lookups
    assert np.array_equal(qm.forward(**data, fhe="simulate"), result)


#: Without a plan a range includes zero, where 1 / x has none; x / x needs to be one op for the quantizer.
NEEDS_A_PLAN = ("Div encrypted", "Div with itself")
BY_THEMSELVES = [
    name
    for name, case in CASES.items()
    if case.nodes.count("(") == 1 and case.batch == "N" and name not in NEEDS_A_PLAN
]


@pytest.mark.parametrize("name", BY_THEMSELVES)
def test_on_ordinary_arrays_it_computes_without_a_graph_or_a_plan(name: str) -> None:
    case = CASES[name]
    graph, data = read_graph(case.alone()), case.data()
    (node,) = graph.nodes
    spec = fhe_core.get_registry().resolve(node.op_type, node.domain, opset=node.opset)
    constants = {i: graph.constants[n] for i, n in enumerate(node.inputs) if n in graph.constants}
    assert spec.quantized is not None
    op = spec.quantized(
        8,
        node.name,
        constant_inputs=constants,
        input_names=node.inputs,
        impl=spec.impl,
        **node.attributes,
    )
    result = op(*(QuantizedArray(8, data[n]) for n in node.inputs if n in data))
    result = result[0] if isinstance(result, tuple) else result  # Dropout has a mask too
    expected = in_float(case.alone(), data, case.batch)
    assert relative_error(result.values, expected) < case.within
    assert relative_error(result.quantizer.dequant(result.qvalues), expected) < case.within
