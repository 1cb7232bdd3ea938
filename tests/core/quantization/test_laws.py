"""Laws of exactness, for nets that hypothesis makes up: which operators, in which order, joined how, at which
widths. None of them says that results are near float; each says that two ways to them give the same."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from fhe_core.quantization.module import QuantizedModule
from fhe_core.quantization.quantizers import (
    QuantizationOptions,
    QuantizationParameters,
    QuantizationStats,
    UniformQuantizer,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fhe_core
from tests.core.quantization.building import model, normal

SIZE, SAMPLES = 4, 60
DATA = {
    "x": np.clip(normal(SAMPLES, SIZE, seed=1), -2, 2),
    "z": np.clip(normal(SAMPLES, SIZE, seed=2), -2, 2) + 1,
}
CONSTANTS: dict[str, Any] = {
    **{f"w{i}": normal(SIZE, SIZE, seed=i) / 2 for i in range(3)},
    "wide": normal(2 * SIZE, SIZE, seed=7) / 2,
    "c": np.array([0.5, -1, 0.25, 2], np.float32),
    "one": np.float32(1),
    "two": np.float32(2),
    "last": np.int64(-1),
    "axis": np.array([1]),
    "swapped": np.array([2, 0, 3, 1]),
}

#: Nodes from the tensors {a} and {b}, (N, SIZE) each, to {y} of the same shape.
STEPS = (
    *(f"{{y}} = {op}({{a}})" for op in ("Relu", "Tanh", "Sigmoid", "Abs", "Neg", "Softplus")),
    *(f"{{y}} = MatMul({{a}}, w{i})" for i in range(3)),
    *(f"{{y}} = {op}({{a}}, {{b}})" for op in ("Add", "Sub", "Mul", "Max", "Min", "Mean")),
    *(f"{{y}} = {op}({{a}}, c)" for op in ("Add", "Mul", "Div", "Max")),
    "{y}_j = Concat <axis = 1> ({a}, {b}) \n {y} = MatMul({y}_j, wide)",
    "{y}_m = Greater({a}, c) \n {y} = Where({y}_m, {a}, {b})",
    "{y}_m = Less({a}, {b}) \n {y}_n = Greater({b}, c) \n {y}_o = Xor({y}_m, {y}_n) \n"
    "{y} = Cast <to = 1> ({y}_o)",
    "{y}_s = ReduceSum({a}, axis) \n {y} = Sub({b}, {y}_s)",
    "{y} = Gather <axis = 1> ({a}, swapped)",
    "{y}_l = Abs({a}) \n {y}_d = Add({y}_l, one) \n {y} = Div({b}, {y}_d)",
    "{y}_k = ReduceMax <axes = [1]> ({a}) \n {y} = Min({b}, {y}_k)",
    "{y} = CumSum({a}, last)",
    "{y} = LayerNormalization({a}, c)",
    "{y} = PRelu({a}, c)",
    "{y} = Pow({a}, two)",
    "{y} = Softmax({a})",
    "{y}_p, {y}_q = Split <axis = 1> ({a}) \n {y} = Concat <axis = 1> ({y}_q, {y}_p)",
)

few = settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@dataclass(frozen=True)
class Drawn:
    """A net, and how to quantize it."""

    nodes: str
    outputs: str
    how: tuple[tuple[str, Any], ...]

    def proto(self) -> onnx.ModelProto:
        inputs = dict.fromkeys(DATA, ("N", SIZE))
        return model(self.nodes, inputs, self.outputs, CONSTANTS)

    def quantized(self, **changes: Any) -> QuantizedModule:
        return fhe_core.quantize(self.proto(), DATA, **{**dict(self.how), **changes})


@st.composite
def nets(draw: st.DrawFn) -> Drawn:
    """Two to five steps, each from tensors that are there already, and one or two of them as outputs."""
    tensors = list(DATA)
    lines = ["h = MatMul(x, w0) \n i = Add(h, z)"]
    tensors += ["h", "i"]
    for count in range(draw(st.integers(2, 5))):
        step = draw(st.sampled_from(STEPS))
        a, b = (draw(st.sampled_from(tensors)) for _ in range(2))
        lines.append(step.format(a=a, b=b, y=f"t{count}"))
        tensors.append(f"t{count}")
    another = draw(st.sampled_from([[], tensors[2:-1]]))
    outputs = [tensors[-1], *(another and [draw(st.sampled_from(another))])]
    bits = draw(st.integers(2, 5))
    how = {
        "n_bits": bits,
        "rounding": bits + draw(st.integers(0, 2)),
        "client_side": draw(st.sampled_from(["any", "minimal"])),
        "overflow": draw(st.sampled_from(["calibrated", "guaranteed"])),
        "ranges": draw(st.sampled_from(["mse", "minmax"])),
    }
    return Drawn("\n".join(lines), " ".join(outputs), tuple(how.items()))


def parts(result: Any) -> tuple[Any, ...]:
    return result if isinstance(result, tuple) else (result,)


def same(found: Any, expected: Any) -> None:
    for one, other in zip(parts(found), parts(expected), strict=True):
        np.testing.assert_array_equal(one, other)


def samples(indices: Any) -> dict[str, Any]:
    return {name: values[indices] for name, values in DATA.items()}


@few
@given(net=nets(), seed=st.integers(0, 9))
def test_with_exact_roundings_a_simulation_is_the_clear_run(net: Drawn, seed: int) -> None:
    module = net.quantized(rounding_method="exact")
    same(module.forward(**DATA, fhe="simulate", seed=seed), module.forward(**DATA))


@few
@given(net=nets(), order=st.permutations(range(20)))
def test_a_permutation_of_a_batch_permutes_its_results(net: Drawn, order: list[int]) -> None:
    module = net.quantized()
    whole = parts(module.forward(**samples(slice(20))))
    same(module.forward(**samples(order)), tuple(part[order] for part in whole))


@few
@given(net=nets())
def test_a_batch_is_its_samples_one_by_one(net: Drawn) -> None:
    module = net.quantized()
    alone = [parts(module.forward(**samples(slice(i, i + 1)))) for i in range(8)]
    joined = tuple(np.concatenate(results) for results in zip(*alone, strict=True))
    same(module.forward(**samples(slice(8))), joined)


@few
@given(net=nets())
def test_quantizing_again_under_the_same_plan_changes_nothing(net: Drawn) -> None:
    """Read back from JSON, once and twice; nor does saving and loading."""
    module = net.quantized()
    expected = module.forward(**DATA, fhe="simulate")
    plan = module.plan
    for _ in range(2):
        again = fhe_core.quantize(
            net.proto(),
            DATA,
            plan=fhe_core.Plan.from_json(plan.to_json()),
            client_side=dict(net.how)["client_side"],
        )
        same(again.forward(**DATA, fhe="simulate"), expected)
        assert again.plan.to_json() == plan.to_json()
        plan = again.plan
    with tempfile.TemporaryDirectory() as folder:
        module.save(Path(folder) / "net")
        same(fhe_core.load(Path(folder) / "net").forward(**DATA, fhe="simulate"), expected)


@few
@given(net=nets())
def test_inputs_that_are_rounded_already_give_what_they_gave(net: Drawn) -> None:
    """An encrypted input stands for one of its levels: sent as that level it is encrypted as the same."""
    module = net.quantized(client_side="minimal", ranges="minmax")
    levels = {}
    for name, values in DATA.items():
        quantizer = UniformQuantizer(
            QuantizationOptions(8), params=module.plan.tensors[name].parameters
        )
        real = quantizer.dequant(quantizer.quant(values))
        levels[name] = np.clip(real, values.min(), values.max()).astype(np.float32)
    first, again = module.encode(**DATA), module.encode(**levels)
    for name, integers in first.items():
        np.testing.assert_array_equal(again[name], integers)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    bits=st.integers(2, 8),
    axis=st.sampled_from([None, 0, 1]),
    symmetric=st.booleans(),
    size=st.floats(1e-3, 1e4),
    seed=st.integers(0, 999),
)
def test_requantizing_with_the_same_parameters_changes_nothing(
    bits: int, axis: int | None, symmetric: bool, size: float, seed: int
) -> None:
    """Integers to real values and back, as often as one likes, with one scale or one a channel."""
    values = normal(5, 3, seed=seed).astype(np.float64) * size
    options = QuantizationOptions(bits, signed=symmetric, symmetric=symmetric)
    params = QuantizationParameters.of(QuantizationStats.of(values, axis), options)
    once = fhe_core.QuantizedArray(bits, values, params=params)
    twice = fhe_core.QuantizedArray(bits, once.dequant(), params=params)
    thrice = fhe_core.QuantizedArray(bits, twice.dequant(), params=params)
    np.testing.assert_array_equal(twice.qvalues, once.qvalues)
    np.testing.assert_array_equal(thrice.dequant(), twice.dequant())
