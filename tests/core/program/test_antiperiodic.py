"""Look-ups of triangles, |a x + b|, use the padding bit: half a table answers for twice as many levels."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fhe_core.program.interpreter import Interpreter
from fhe_core.quantization.module import QuantizedModule
from fhe_core.quantization.plan import Plan
from fhe_core.quantization.planning import Settings
from fhe_core.quantization.session import Session
from numpy.typing import NDArray

import fhe_core
from fhe_core import NumpyModule, PlanError
from tests.core.quantization.building import model, normal

Array = NDArray[Any]

X = normal(600, 4, seed=1)
CONSTANTS = {"w": normal(4, 6, seed=2), "b": normal(6, seed=3), "v": normal(6, 3, seed=4)}
ABS = "h = Gemm(x, w, b) \n a = Abs(h) \n y = Gemm(a, v)"
#: Fine steps behind the look-up, so that what is seen is what its levels do.
OPTIONS: dict[str, Any] = {"n_bits": 8, "rounding": 3}


def net(nodes: str = ABS, **constants: Any) -> Any:
    given = {**CONSTANTS, **constants}
    used = {name: value for name, value in given.items() if f" {name}" in nodes.replace("(", " ")}
    return model(nodes, {"x": ("N", 4)}, constants=used)


def quantized(nodes: str = ABS, **options: Any) -> QuantizedModule:
    return fhe_core.quantize(net(nodes), X, **{**OPTIONS, **options})


def uses_padding_bit(qm: QuantizedModule, name: str = "h") -> bool:
    return qm.plan.accumulators[name].antiperiodic


def loss(qm: QuantizedModule, x: Array) -> float:
    """Mean squared error in variances of what the float model has."""
    wanted = NumpyModule(net())(x)
    return float(np.mean((qm.forward(x) - wanted) ** 2) / wanted.var())


# -- which functions are found


@pytest.mark.parametrize(
    "function",
    [
        "Abs(h)",
        "LeakyRelu <alpha = -1.0> (h)",
        "Mul(h, s) \n s = Sign(h)",
        "Neg(n) \n n = Abs(h)",
        "Max(h, n) \n n = Neg(h)",
        "Abs(s) \n s = Mul(h, t)",
    ],
)
def test_any_function_that_is_a_triangle_is_found(function: str) -> None:
    """However it is written, upside down too."""
    last, *before = function.split("\n")
    nodes = "\n".join(["h = Gemm(x, w, b)", *before, f"a = {last}", "y = Gemm(a, v)"])
    three = net(nodes, t=np.float32([3, 0.5, -1, 2, 1, 1]))
    qm = fhe_core.quantize(three, X, **OPTIONS)
    (entry,) = (e for e in qm.plan.accumulators.values() if e.rounding is not None)
    assert entry.antiperiodic
    wanted = NumpyModule(three)(X)
    assert np.mean((qm.forward(X) - wanted) ** 2) < 0.05 * wanted.var()


@pytest.mark.parametrize(
    "nodes",
    [
        "h = Gemm(x, w, b) \n a = Relu(h) \n y = Gemm(a, v)",
        "h = Gemm(x, w, b) \n a = LeakyRelu <alpha = -0.5> (h) \n y = Gemm(a, v)",
        "h = Gemm(x, w, b) \n a = Mul(h, h) \n y = Gemm(a, v)",
        "h = Gemm(x, w, b) \n a = Abs(h) \n c = Clip(a, zero, one) \n y = Gemm(c, v)",
        "h = Gemm(x, w, b) \n a = Abs(h) \n r = Relu(h) \n s = Add(a, h) \n"
        " p = Gemm(a, v) \n q = Gemm(r, v) \n y = Add(p, q)",
    ],
    ids=["relu", "unequal arms", "square", "saturated", "one of two look-ups"],
)
def test_nothing_else_is(nodes: str) -> None:
    given = net(nodes, zero=np.float32(0), one=np.float32(1))
    qm = fhe_core.quantize(given, X, **OPTIONS)
    assert not any(entry.antiperiodic for entry in qm.plan.accumulators.values())


@pytest.mark.parametrize(
    "option",
    [{"overflow": "guaranteed"}, {"weight_granularity": "per-tensor"}, {"savings": "none"}],
    ids=["guaranteed", "per tensor", "no savings"],
)
def test_it_takes_scales_to_choose_and_ranges_that_are_measured(option: Any) -> None:
    """And it is a saving, so it can be turned off."""
    assert uses_padding_bit(quantized())
    assert not uses_padding_bit(quantized(**option))


# -- what the look-ups compute


@pytest.mark.parametrize("method", ["approximate", "exact"])
@pytest.mark.parametrize("kept", [1, 2, 4])
def test_one_bit_less_is_enough(kept: int, method: str) -> None:
    """With half a table it is no worse than a whole one of one bit more."""
    qm = quantized(rounding=kept, rounding_method=method)
    plain = Plan.from_json(quantized(rounding=kept + 1, rounding_method=method).plan.to_json())
    plain.accumulators["h"].antiperiodic = False
    wider = fhe_core.quantize(net(), X, plan=plain)
    (looked_up,) = qm.program.lookups
    assert looked_up.inputs[0].width == kept
    assert looked_up.attributes["tables"].shape[1] == 2**kept
    assert wider.program.lookups[0].inputs[0].width == kept + 1
    assert loss(qm, X) < 1.1 * loss(wider, X)


def test_a_value_beyond_the_period_comes_back_into_it() -> None:
    """By as much as it left it: the error is twice that, where other accumulators would wrap around."""
    qm = quantized()
    entry = qm.plan.accumulators["h"]
    (looked_up,) = qm.program.lookups
    period = entry.high + 1
    # What the look-up has for accumulators that go from one period into the next on either side.
    far = np.arange(-2 * period, 2 * period)
    folded = np.abs((far + period) % (2 * period) - period)
    tables, dropped = looked_up.attributes["tables"][0], entry.bits - 3
    level = (far + (1 << dropped >> 1)) >> dropped
    turns, place = np.divmod(level - looked_up.attributes["first"], len(tables))
    entries = np.where(turns % 2, -1, 1) * tables[place]
    slope = np.ptp(entries) / (period * (1 - 0.5 / 8))
    wanted = folded * slope
    assert np.abs(entries - entries.min() - wanted).max() < 1.1 * slope * (1 << dropped)


def test_simulation_is_off_by_a_level_at_most() -> None:
    qm = quantized("h = Gemm(x, w, b) \n y = Abs(h)", client_side="minimal")
    assert uses_padding_bit(qm)
    clear, noisy = qm.forward(X), qm.forward(X, fhe="simulate", seed=0)
    entry, plan = qm.plan.accumulators["h"], qm.plan.tensors["y"]
    level = np.abs(np.diff(qm.program.lookups[0].attributes["tables"], axis=1)).max() * plan.scale
    off = np.abs(noisy - clear)
    assert 0 < (off > 0).mean() < 0.2
    assert off.max() <= level * 1.001
    assert entry.rounding == 3


# -- what is built on it


def test_a_plan_repeats_it_and_can_turn_it_off() -> None:
    qm = quantized()
    text = qm.plan.to_json()
    again = fhe_core.quantize(net(), X, plan=Plan.from_json(text))
    np.testing.assert_array_equal(again.forward(X), qm.forward(X))
    document = json.loads(text)
    document["accumulators"]["h"]["antiperiodic"] = False
    off = fhe_core.quantize(net(), X, plan=document)
    assert off.plan.accumulators["h"].bits > qm.plan.accumulators["h"].bits


@pytest.mark.parametrize(
    "change",
    [{"offset": 1000}, {"low": -(2**19), "high": 2**19 - 1}],
    ids=["another centre", "another period"],
)
def test_a_plan_that_says_so_of_another_function_is_refused(change: Any) -> None:
    document = json.loads(quantized().plan.to_json())
    document["accumulators"]["h"].update(change)
    with pytest.raises(PlanError, match="is none"):
        fhe_core.quantize(net(), X, plan=document)


def test_savings_count_them_and_change_nothing() -> None:
    """A neuron that stays on one arm, or outside its width, is not taken for a constant."""
    given = net(b=np.float32([9, -9, 5, 0, 0, 0]))
    qm = fhe_core.quantize(given, X, **OPTIONS)
    assert uses_padding_bit(qm)
    whole, spared = (Interpreter(program)(qm.encode(X)) for program in (qm.whole, qm.program))
    np.testing.assert_array_equal(whole, spared)
    assert [saving.name for saving in qm.savings] == ["negacyclic look-up"]


def test_tuning_knows_that_they_go_on_beyond_their_tables() -> None:
    session = Session(net(), X)
    settings = Settings.of(8, 2)
    plain = session.build(settings)
    tuned = session.build(replace(settings, tuning=600))
    assert uses_padding_bit(tuned)
    assert loss(tuned, X) < 0.9 * loss(plain, X)


def test_what_is_left_of_a_look_up_keeps_the_bounds_of_both_arms() -> None:
    """Equal neurons are computed once; what follows counts on the values that the others can have."""
    same = CONSTANTS["w"].copy()
    same[:, 3:], bias = same[:, :3], np.tile(CONSTANTS["b"][:3], 2)
    qm = fhe_core.quantize(net(w=same, b=bias), X, **OPTIONS)
    (looked_up,) = qm.program.lookups
    assert uses_padding_bit(qm)
    assert looked_up.shape[1] == 3
    np.testing.assert_array_equal(looked_up.low, -looked_up.high)
    whole, spared = (Interpreter(program)(qm.encode(X)) for program in (qm.whole, qm.program))
    np.testing.assert_array_equal(whole, spared)
