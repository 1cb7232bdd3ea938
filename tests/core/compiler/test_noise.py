"""Under approximate rounding, encryption errs as often, and as far, as the simulation says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fhe_core
from tests.core.quantization.building import model, normal

pytestmark = pytest.mark.fhe

Array = NDArray[Any]

FEATURES, OUTPUTS, SAMPLES = 4, 64, 10
#: A false alarm has this probability, over both directions and both ends.
SIGNIFICANCE = 1e-6
#: Rates may differ by this factor: a bias of up to 0.02 levels was measured under encryption.
BIAS = 1.5


def tails(probabilities: Array) -> tuple[Array, Array]:
    """Of a sum of independent events: the probabilities of at most, and of at least, n of them."""
    distribution = np.ones(1)
    for p in probabilities:
        distribution = np.convolve(distribution, (1 - p, p))
    return np.cumsum(distribution), np.cumsum(distribution[::-1])[::-1]


def levels(values: Array, ladders: list[Array]) -> Array:
    """Each column's values as places on its ladder, where they must be."""
    columns = []
    for column, ladder in zip(values.T, ladders, strict=True):
        place = np.searchsorted(ladder, column)
        np.testing.assert_array_equal(ladder[place.clip(max=len(ladder) - 1)], column)
        columns.append(place)
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
    # The function grows, so the values that a column takes are its levels in order.
    seen = np.concatenate([qm.forward(x), qm.forward(x, fhe="simulate")])
    ladders = [np.unique(column) for column in seen.T]
    assert min(map(len, ladders)) >= 4

    few = x[:SAMPLES]
    expected = levels(qm.forward(few), ladders)
    drawn = [
        levels(qm.forward(few, fhe="simulate", seed=seed), ladders) - expected
        for seed in range(400)
    ]
    off = levels(qm.forward(few, fhe="execute"), ladders) - expected
    assert np.abs(drawn).max() == 1
    assert np.abs(off).max() <= 1
    for direction in (1, -1):
        rates = np.mean([errors == direction for errors in drawn], axis=0).ravel()
        count = int((off == direction).sum())
        at_most, _ = tails(rates / BIAS)
        _, at_least = tails(np.minimum(rates * BIAS, 1))
        assert at_most[count] > SIGNIFICANCE / 4, f"{count} errors, {rates.sum():.1f} simulated"
        assert at_least[count] > SIGNIFICANCE / 4, f"{count} errors, {rates.sum():.1f} simulated"
