"""What holds of every quantized array, and of every quantized module on every batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fhe_core.program.widths import bits_of
from fhe_core.quantization.module import QuantizedModule
from fhe_core.quantization.plan import Plan
from fhe_core.quantization.quantizers import RANGES, QuantizationOptions, QuantizationStats
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import fhe_core
from fhe_core import QuantizedArray
from tests.core.quantization.building import model, normal, relative_error

few = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
VALUES = arrays.arrays(
    np.float64,
    st.integers(1, 30),
    elements=st.floats(-1e6, 1e6, allow_nan=False, allow_infinity=False),
)
OPTIONS = st.builds(
    QuantizationOptions, n_bits=st.integers(2, 16), signed=st.booleans(), symmetric=st.booleans()
)


# -- arrays


@few
@given(values=VALUES, options=OPTIONS)
def test_quantizing_what_integers_stand_for_gives_the_same_integers(
    values: Any, options: QuantizationOptions
) -> None:
    array = QuantizedArray(options.n_bits, values, options=options)
    again = QuantizedArray(
        options.n_bits, array.quantizer.dequant(array.qvalues), params=array.quantizer.params
    )
    assert np.array_equal(again.qvalues, array.qvalues)


@few
@given(values=VALUES, options=OPTIONS)
def test_a_value_in_range_is_off_by_half_a_step_at_most(
    values: Any, options: QuantizationOptions
) -> None:
    quantizer = QuantizedArray(options.n_bits, values, options=options).quantizer
    error = abs(quantizer.dequant(quantizer.quant(values)) - values)
    # The ends of an affine range move by half a step, because zero has an integer of its own.
    assert error.max() <= quantizer.scale * (1 + 1e-9)
    inside = quantizer.quant(values) == np.rint(values / quantizer.scale) + quantizer.zero_point
    assert (error[inside] <= quantizer.scale * (0.5 + 1e-6)).all()


@few
@given(values=VALUES, options=OPTIONS)
def test_zero_has_an_integer_that_stands_for_it_exactly(
    values: Any, options: QuantizationOptions
) -> None:
    quantizer = QuantizedArray(options.n_bits, values, options=options).quantizer
    assert quantizer.dequant(quantizer.quant(np.zeros(1)))[0] == 0


@few
@given(values=VALUES, bits=st.integers(2, 8))
def test_every_choice_of_range_lies_inside_the_data(values: Any, bits: int) -> None:
    for choose in RANGES.values():
        low, high = choose(values, bits)
        slack = 1e-9 * (1 + abs(values).max())
        assert values.min() - slack <= low <= high <= values.max() + slack


def test_a_range_of_least_error_saturates_an_outlier() -> None:
    sample = np.append(normal(5000).astype(np.float64), 20.0)
    assert RANGES["minmax"](sample, 4) == (sample.min(), 20.0)
    assert RANGES["mse"](sample, 4)[1] < 12.0
    assert RANGES["percentile"](sample, 4)[1] < 5.0


def test_channels_have_scales_of_their_own() -> None:
    weights = normal(3, 5) * np.array([[1], [10], [100]])
    array = QuantizedArray(
        8,
        weights,
        options=QuantizationOptions(8, signed=True, symmetric=True),
        stats=QuantizationStats.of(weights, axis=0),
    )
    assert array.quantizer.scale.shape == (3, 1)
    assert (abs(array.qvalues).max(axis=1) == 127).all()


# -- modules


@pytest.fixture(scope="module")
def net() -> Any:
    nodes = """
        c = Conv <pads = [1, 1, 1, 1]> (x, k, b)
        r = Relu(c)
        p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r)
        s = Conv(p, l)
        a = Add(p, s)
        f = Flatten(a)
        g = Gemm(f, w)
        y = Softmax <axis = 1> (g)
    """
    constants = {
        "k": normal(3, 2, 3, 3),
        "b": normal(3),
        "l": normal(3, 3, 1, 1),
        "w": normal(12, 4),
    }
    return model(nodes, {"x": ("N", 2, 4, 4)}, "y g", constants)


@pytest.fixture(scope="module")
def x() -> Any:
    return normal(200, 2, 4, 4, seed=8)


@pytest.fixture(scope="module")
def qm(net: Any, x: Any) -> QuantizedModule:
    return fhe_core.quantize(net, x, n_bits=5)


def same(first: Any, second: Any) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_batch_is_its_samples_one_by_one(qm: QuantizedModule, x: Any) -> None:
    one_by_one = zip(*(qm(x[i : i + 1]) for i in range(20)), strict=True)
    assert same(qm(x[:20]), [np.concatenate(parts) for parts in one_by_one])


@few
@given(order=st.permutations(range(12)))
def test_permuting_a_batch_permutes_the_results(
    order: list[int], qm: QuantizedModule, x: Any
) -> None:
    assert same(qm(x[order]), [part[order] for part in qm(x[:12])])


def test_a_batch_larger_than_the_interpreters_is_cut_and_joined(
    qm: QuantizedModule, x: Any
) -> None:
    many = np.concatenate([x] * 12)
    assert same(qm(many), [np.concatenate([part] * 12) for part in qm(x)])


def test_simulation_repeats_under_one_seed_and_differs_under_another(
    qm: QuantizedModule, x: Any
) -> None:
    first, again, other = (qm.forward(x, fhe="simulate", seed=seed) for seed in (1, 1, 2))
    assert same(first, again)
    assert not same(first, other)


def test_two_outputs_come_from_one_circuit(qm: QuantizedModule, x: Any) -> None:
    probabilities, logits = qm(x)
    assert len(qm.program.outputs) == 1
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = exponentials / exponentials.sum(axis=1, keepdims=True)
    assert np.allclose(probabilities, expected, atol=1e-6)


def test_the_batch_may_move_to_another_axis() -> None:
    """As long as its samples stay apart."""
    columns = model(
        "t = Transpose(x) \n h = MatMul(a, t) \n r = Relu(h) \n i = MatMul(b, r) \n y = Transpose(i)",
        {"x": ("N", 6)},
        constants={"a": normal(5, 6), "b": normal(3, 5)},
    )
    x = normal(100, 6, seed=1)
    qm = fhe_core.quantize(columns, x, n_bits=8, rounding=10)
    assert relative_error(qm(x), fhe_core.NumpyModule(columns)(x)) < 0.03


# -- plans


def test_a_plan_read_back_from_json_builds_the_same_module(
    net: Any, x: Any, qm: QuantizedModule
) -> None:
    plan = Plan.from_json(qm.plan.to_json())
    assert plan.to_json() == qm.plan.to_json()
    again = fhe_core.quantize(net, x, plan=plan)
    assert same(again(x), qm(x))
    assert same(again.forward(x, fhe="simulate"), qm.forward(x, fhe="simulate"))
    assert again.plan.to_json() == qm.plan.to_json()


def test_a_plan_may_come_as_a_file_or_as_parsed_json(
    net: Any, x: Any, qm: QuantizedModule, tmp_path: Any
) -> None:
    path = tmp_path / "plan.json"
    path.write_text(qm.plan.to_json(), encoding="utf-8")
    assert same(fhe_core.quantize(net, x, plan=path)(x), qm(x))


def test_an_edited_plan_is_obeyed(net: Any, x: Any, qm: QuantizedModule) -> None:
    """One bit of one accumulator's rounding makes another module, and only there."""
    plan = Plan.from_json(qm.plan.to_json())
    name = next(name for name, entry in plan.accumulators.items() if entry.rounding)
    plan.accumulators[name].rounding = 3
    edited = fhe_core.quantize(net, x, plan=plan)
    assert edited.plan.accumulators[name].rounding == 3
    assert not same(edited(x), qm(x))


# -- settings


@pytest.mark.parametrize(
    "options",
    [
        {"ranges": "minmax"},
        {"ranges": "percentile"},
        {"weight_scheme": "affine"},
        {"weight_granularity": "per-tensor"},
        {"overflow": "guaranteed"},
        {"client_side": "minimal"},
        {"rounding_method": "exact"},
        {"weight_scheme": "affine", "weight_granularity": "per-tensor", "ranges": "minmax"},
        {"n_bits": {"op_inputs": 6, "op_weights": 5, "model_inputs": 8, "model_outputs": 8}},
        {"n_bits": {"op_inputs": 6, "op_weights": 6, "c": 8}},
        {"rounding": {"c": 10}},
    ],
    ids=str,
)
def test_every_setting_keeps_the_answers(net: Any, x: Any, options: dict[str, Any]) -> None:
    qm = fhe_core.quantize(net, x, **{"n_bits": 6, "rounding": 8, **options})
    expected = fhe_core.NumpyModule(net)(x)
    assert relative_error(qm(x)[1], expected[1]) < 0.2
    assert np.mean(qm(x)[0].argmax(axis=1) == expected[0].argmax(axis=1)) > 0.9


def test_guaranteed_accumulators_never_wrap(net: Any, x: Any) -> None:
    """What they can be, for any input that the client can encrypt, fits their width."""
    qm = fhe_core.quantize(net, x, n_bits=5, rounding=8, overflow="guaranteed")
    for looked_up in qm.program.lookups:
        (read,) = looked_up.inputs
        accumulator = read.inputs[0] if read.op == "round" else read
        assert bits_of(*accumulator.bounds) <= accumulator.width
    with pytest.warns(UserWarning, match="saturate"):
        far = qm(x * 100)[1]
    assert np.array_equal(far, qm(np.clip(x * 100, x.min(), x.max()))[1])


def test_what_is_clear_stays_an_input_of_the_circuit(x: Any) -> None:
    sum_of_two = model(
        "h = MatMul(x, w) \n y = Add(h, z)",
        {"x": ("N", 6), "z": ("N", 3)},
        constants={"w": normal(6, 3)},
    )
    data = {"x": normal(100, 6), "z": normal(100, 3)}
    qm = fhe_core.quantize(sum_of_two, data, n_bits=8, rounding=10, encrypted=["x"])
    secret = {node.name: node.attributes["encrypted"] for node in qm.program.inputs}
    assert secret == {"x": True, "z": False}
    expected = fhe_core.NumpyModule(sum_of_two)(**data)
    assert relative_error(qm(**data), expected) < 0.03
