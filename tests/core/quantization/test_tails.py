"""What is planned from N samples is left by no more of later ones than was asked for, on average over plans."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
from fhe_core.quantization.tails import Tail
from numpy.typing import NDArray

Array = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Array]

RISK = 1e-3
CHANNELS = 16
_MIXED = np.random.default_rng(7).standard_normal((10, CHANNELS))

#: Channels of one kind, or unlike each other, or moved by the same causes.
DISTRIBUTIONS: Mapping[str, Draw] = {
    "normal": lambda rng, n: rng.normal(size=(n, CHANNELS)),
    "one channel": lambda rng, n: rng.normal(size=(n, 1)),
    "scales": lambda rng, n: rng.normal(size=(n, CHANNELS)) * np.logspace(-2, 2, CHANNELS),
    "uniform": lambda rng, n: rng.uniform(size=(n, CHANNELS)),
    "laplace": lambda rng, n: rng.laplace(size=(n, CHANNELS)),
    "exponential": lambda rng, n: rng.exponential(size=(n, CHANNELS)),
    "lognormal": lambda rng, n: np.exp(rng.normal(size=(n, CHANNELS))),
    "student": lambda rng, n: rng.standard_t(5, size=(n, CHANNELS)),
    "mixture": lambda rng, n: rng.normal(size=(n, CHANNELS)) * (1 + 2 * (rng.random((n, 1)) < 0.1)),
    "correlated": lambda rng, n: rng.normal(size=(n, 10)) @ _MIXED,
    "maxima": lambda rng, n: rng.normal(size=(n, CHANNELS, 16)).max(axis=-1),
    "sparse": lambda rng, n: np.maximum(rng.normal(size=(n, 10)) - 1, 0) @ _MIXED,
}


def left(draw: Draw, samples: int, plans: int, seed: int = 0) -> float:
    """The share of unseen samples that leave what is planned, in any channel, on average over plans."""
    rng = np.random.default_rng(seed)
    unseen = draw(rng, 20_000)
    shares = []
    for _ in range(plans):
        seen = draw(rng, samples)
        up, down = Tail.of(seen), Tail.of(-seen)
        assert up is not None
        assert down is not None
        share = RISK / (4 * seen.shape[1])
        most = np.maximum(up.reach(share), seen.max(axis=0))
        least = np.minimum(-down.reach(share), seen.min(axis=0))
        shares.append(((unseen > most) | (unseen < least)).any(axis=1).mean())
    return float(np.mean(shares))


#: How many times more than what was asked for, where a tail is heavier than so few samples show.
HEAVIER = {
    ("laplace", 20): 2,
    ("laplace", 100): 2,
    ("lognormal", 20): 2,
    ("lognormal", 100): 2,
    ("sparse", 20): 2,
    ("mixture", 20): 15,
    ("student", 20): 8,
    ("student", 100): 5,
    ("student", 1000): 3,
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize(("samples", "plans"), [(20, 40), (100, 20), (1000, 4)])
def test_few_of_later_samples_leave_what_is_planned(name: str, samples: int, plans: int) -> None:
    """Accumulators are bounded besides, since inputs and look-ups saturate; these are not."""
    assert left(DISTRIBUTIONS[name], samples, plans) <= RISK * HEAVIER.get((name, samples), 1)


@pytest.mark.parametrize("name", ["normal", "scales", "uniform", "correlated", "maxima"])
def test_five_samples_are_enough_where_tails_are_light(name: str) -> None:
    assert left(DISTRIBUTIONS[name], 5, 80) <= RISK


def test_more_samples_ask_for_less_room() -> None:
    """Ten deviations to either side hold what five normal samples show, five what a thousand do."""
    rng = np.random.default_rng(1)
    reach = []
    for samples in (5, 20, 100, 1000):
        tails = [Tail.of(rng.normal(size=(samples, CHANNELS))) for _ in range(20)]
        reach.append(np.mean([tail.reach(1e-6) for tail in tails if tail is not None]))
    assert reach == sorted(reach, reverse=True)
    assert reach[-1] < 6


def test_a_tail_knows_how_often_its_own_reach_is_passed() -> None:
    tail = Tail.of(np.random.default_rng(2).normal(size=(200, CHANNELS)))
    assert tail is not None
    for probability in (1e-3, 1e-5, 1e-8):
        assert tail.passed(tail.reach(probability)) == pytest.approx(
            CHANNELS * probability, rel=0.01
        )


def test_what_never_varies_is_not_expected_to() -> None:
    tail = Tail.of(np.full((50, 3), 7.0))
    assert tail is not None
    assert (tail.reach(1e-6) == 7).all()
    assert tail.passed(np.full(3, 7.0)) == 0


def test_four_samples_tell_nothing() -> None:
    assert Tail.of(np.random.default_rng(3).normal(size=(4, CHANNELS))) is None
