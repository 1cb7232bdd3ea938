"""Under encryption, look-ups that use the padding bit compute what the interpreter says, at half the price."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fhe_core.program.interpreter import Interpreter
from fhe_core.program.program import Program
from fhe_core.quantization.module import QuantizedModule
from numpy.typing import NDArray

import fhe_core
from tests.core.quantization.building import model, normal

pytest.importorskip("concrete.fhe", reason="needs fhe-core[concrete]")
pytestmark = pytest.mark.fhe

Array = NDArray[Any]

FEATURES, NEURONS, KEPT = 4, 3, 3
X = normal(1000, FEATURES, seed=1)
BITS = {"op_inputs": 4, "op_weights": 4, "model_inputs": 3, "model_outputs": 8}


def compiled(function: str, **options: Any) -> QuantizedModule:
    net = model(
        f"h = Gemm(x, w, b) \n y = {function}",
        {"x": ("N", FEATURES)},
        constants={"w": normal(FEATURES, NEURONS, seed=2), "b": normal(NEURONS, seed=3)},
    )
    given = {"n_bits": BITS, "rounding": KEPT, "client_side": "minimal", **options}
    return fhe_core.compile(net, X, **given)


def levels(qm: QuantizedModule, x: Array) -> Array:
    """What the look-up reads, beyond its table too."""
    (looked_up,) = qm.program.lookups
    # Wide enough that it does not wrap where it is decrypted.
    source = replace(looked_up.inputs[0], width=40)
    return Interpreter(Program.of([source]))(qm.encode(x))[0]


def all_over_the_period(qm: QuantizedModule, each: int) -> Array:
    """Inputs that lead to both arms and to either half of each, and some that leave the period."""
    corners = np.random.default_rng(0).choice([X.min(), X.max()], (64, FEATURES))
    inputs = np.concatenate([X, corners.astype(np.float32)])
    quarters = np.clip(levels(qm, inputs) >> (KEPT - 1), -3, 2)
    chosen = [np.flatnonzero((quarters == quarter).any(axis=1))[:each] for quarter in range(-3, 3)]
    assert all(map(len, chosen))
    return inputs[np.concatenate(chosen)]


@pytest.mark.parametrize("method", ["approximate", "exact"])
def test_both_arms_are_computed_under_encryption(method: str) -> None:
    """Equal to the clear result, but for one level where approximate rounding is near its edge."""
    qm = compiled("Abs(h)", rounding_method=method)
    assert qm.plan.accumulators["h"].antiperiodic
    inputs = all_over_the_period(qm, 1 if method == "exact" else 2)
    clear, hidden = qm.forward(inputs), qm.forward(inputs, fhe="execute")
    if method == "exact":
        np.testing.assert_array_equal(hidden, clear)
        return
    (looked_up,) = qm.program.lookups
    step = np.abs(np.diff(looked_up.attributes["tables"], axis=1)).max()
    off = np.abs(hidden - clear) / qm.plan.tensors["y"].scale
    assert off.max() <= step * 1.001
    # As the noise of rounding has it: 4 to 6 % of values are off.
    assert (off > 0).mean() < 0.2


def test_it_costs_what_another_look_up_of_as_many_bits_costs() -> None:
    """And the levels are half as large: a circuit for the whole period is dearer."""
    absolute, plain = compiled("Abs(h)"), compiled("Relu(h)")
    assert absolute.cost.complexity <= plain.cost.complexity
    assert absolute.cost.pbs_count == plain.cost.pbs_count == NEURONS
    wider = compiled("Relu(h)", rounding=KEPT + 1)
    assert absolute.cost.complexity < 0.8 * wider.cost.complexity


def test_a_saved_circuit_keeps_them(tmp_path: Any) -> None:
    qm = compiled("Abs(h)")
    qm.save(tmp_path / "model")
    loaded = fhe_core.load(tmp_path / "model")
    assert loaded.plan.accumulators["h"].antiperiodic
    for fhe in ("disable", "simulate"):
        np.testing.assert_array_equal(
            loaded.forward(X[:50], fhe=fhe, seed=0), qm.forward(X[:50], fhe=fhe, seed=0)
        )
