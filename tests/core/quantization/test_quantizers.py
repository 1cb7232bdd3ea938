"""The estimators of a tensor's range."""

from __future__ import annotations

import numpy as np
import pytest
from fhe_core.quantization.quantizers import mse_range

RNG = np.random.default_rng(0)
#: Most values near zero, and one far away.
SPREAD = np.append(RNG.normal(0, 1, 2000), 12.0)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("offset", [0.0, 50.0])
def test_the_mse_range_shrinks_within_what_was_seen(sign: int, offset: float) -> None:
    """Towards zero where values have both signs, else towards the end that is nearest to it."""
    sample = sign * (np.abs(SPREAD) + offset if offset else SPREAD)
    low, high = mse_range(sample, 3)
    assert sample.min() <= low <= high <= sample.max()
    assert high - low < 0.8 * np.ptp(sample)
    if offset:
        near = min(abs(sample.min()), abs(sample.max()))
        assert min(abs(low), abs(high)) == pytest.approx(near)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("offset", [0.0, 7.0, -7.0])
def test_no_range_that_was_tried_has_a_smaller_mean_squared_error(bits: int, offset: float) -> None:
    sample = SPREAD + offset

    def error(low: float, high: float) -> float:
        scale = (high - low) / (2**bits - 1)
        first = np.rint(low / scale)
        levels = np.clip(np.rint(sample / scale), first, first + 2**bits - 1)
        return float(np.mean((levels * scale - sample) ** 2))

    centre = min(max(sample.min(), 0.0), sample.max())
    found = error(*mse_range(sample, bits))
    for share in np.linspace(1.0, 0.4, 24):
        ends = (centre + (end - centre) * share for end in (sample.min(), sample.max()))
        assert found <= error(*ends) * (1 + 1e-9)
