"""Under approximate rounding, encryption errs as often, and as far, as the simulation says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fhe_core.quantization.module import QuantizedModule
from numpy.typing import NDArray

import fhe_core
from tests.core.quantization.building import model, normal

pytestmark = pytest.mark.fhe

Array = NDArray[Any]

FEATURES, OUTPUTS, SAMPLES = 4, 64, 12
#: A false alarm has this probability, over all counts and both ends of each.
SIGNIFICANCE = 1e-6
#: Rates may differ by these factors, up and down apart and together: a bias of up to 0.02 levels was
#: measured under encryption, which is 0.3 standard deviations of the noise.
BIAS, BOTH_BIAS = 2.0, 1.25
#: Errors that are rarer than this tell most about how far the noise reaches.
RARE = 0.3


def tails(probabilities: Array) -> tuple[Array, Array]:
    """Of a sum of independent events: the probabilities of at most, and of at least, n of them."""
    distribution = np.ones(1)
    for p in probabilities:
        distribution = np.convolve(distribution, (1 - p, p))
    return np.cumsum(distribution), np.cumsum(distribution[::-1])[::-1]


def levels(qm: QuantizedModule, values: Array) -> Array:
    """For each look-up of a growing function, the place of its result among its table's entries."""
    (node,) = qm.program.lookups
    tables = node.attributes["tables"][node.attributes["which"].ravel()]
    assert (np.diff(tables) >= 0).all()
    plan = qm.plan.tensors["y"]
    integers = np.rint(values / plan.scale) + plan.zero_point
    integers -= qm.program.outputs[0].attributes["offset"]  # what is added to the entries
    columns = []
    for column, table in zip(integers.T, tables, strict=True):
        assert np.isin(column, table).all()
        columns.append(np.searchsorted(np.unique(table), column))
    return np.stack(columns, axis=1)


def test_encrypted_errors_are_distributed_as_simulated_ones() -> None:
    """Every look-up is off by one level at most, up and down as often as simulated, for those inputs."""
    x = normal(2000, FEATURES, seed=1)
    net = model(
        "h = Gemm(x, w)\n y = LeakyRelu <alpha = 0.5> (h)",
        {"x": ("N", FEATURES)},
        constants={"w": normal(FEATURES, OUTPUTS, seed=2)},
    )
    bits = {"op_inputs": 4, "model_outputs": 8}
    qm = fhe_core.compile(net, x, n_bits=bits, rounding=3, client_side="minimal")
    assert qm.cost.pbs_count == OUTPUTS

    def errors(inputs: Array, count: int) -> Array:
        clear = levels(qm, qm.forward(inputs))
        drawn = (qm.forward(inputs, fhe="simulate", seed=seed) for seed in range(count))
        return np.stack([levels(qm, values) - clear for values in drawn])

    # The samples with most rare errors.
    rates = np.abs(errors(x, 30)).mean(axis=0)
    few = x[np.argsort(np.where(rates < RARE, rates, 0).sum(axis=1))[-SAMPLES:]]
    drawn = errors(few, 500)
    off = levels(qm, qm.forward(few, fhe="execute")) - levels(qm, qm.forward(few))
    assert np.abs(drawn).max() == 1
    assert np.abs(off).max() <= 1
    rare = np.abs(drawn).mean(axis=0) < RARE
    counts = {
        "up": (drawn == 1, off == 1, BIAS),
        "down": (drawn == -1, off == -1, BIAS),
        "rare": (np.abs(drawn) * rare, np.abs(off) * rare, BOTH_BIAS),
        "frequent": (np.abs(drawn) * ~rare, np.abs(off) * ~rare, BOTH_BIAS),
    }
    for name, (simulated, encrypted, bias) in counts.items():
        rates, count = simulated.mean(axis=0).ravel(), int(encrypted.sum())
        at_most, _ = tails(rates / bias)
        _, at_least = tails(np.minimum(rates * bias, 1))
        chance = min(at_most[count], at_least[count])
        assert chance > SIGNIFICANCE / 8, f"{name}: {count} errors, {rates.sum():.1f} simulated"
