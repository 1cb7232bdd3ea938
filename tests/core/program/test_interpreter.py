"""The interpreter computes integers exactly, whatever it holds them in, and noise as it was measured."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fhe_core.program.interpreter import CHUNK, Interpreter, Noise
from numpy.typing import NDArray

from .programs import entry, fixed, linear, looked_up, program, rounded, widened

Array = NDArray[Any]
P_ERROR = 2.0**-40


def integers(low: int, high: int, *shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(low, high + 1, shape)


@pytest.mark.parametrize("bits", [3, 12, 24])
def test_products_are_exact_in_float32_in_float64_and_in_int64(bits: int) -> None:
    x = entry("x", 50, bits + 1)
    most = 2**bits - 1
    weights = integers(-most, most, 50, 4)
    total = linear("matmul", x, weights=weights, left=False)
    widened([x, total])
    values = integers(-most, most, 30, 50, seed=1)
    (found,) = Interpreter(program(total))({"x": values})
    np.testing.assert_array_equal(found, values @ weights)


def test_a_batch_in_chunks_gives_what_its_samples_give() -> None:
    x = entry("x", 3, 4)
    total = linear("matmul", x, weights=integers(-3, 3, 3, 2), left=False)
    widened([x, total])
    interpreter = Interpreter(program(looked_up(total, [integers(-5, 5, 1 << total.width)])))
    values = integers(-8, 7, 2 * CHUNK + 3, 3)
    (found,) = interpreter({"x": values})
    assert found.shape == (2 * CHUNK + 3, 2)
    for place in (0, CHUNK - 1, CHUNK, 2 * CHUNK + 2):
        (alone,) = interpreter({"x": values[place : place + 1]})
        np.testing.assert_array_equal(alone[0], found[place])


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "approximate"])
def test_a_rounding_takes_the_nearest_level_and_ties_upward(exact: bool) -> None:
    x = entry("x", 1, 8)
    kept = rounded(x, 4, exact=exact)
    values = np.arange(-128, 120)[:, None]
    (found,) = Interpreter(program(looked_up(kept, [np.arange(16) - 8])))({"x": values})
    np.testing.assert_array_equal(found, np.floor(values / 16 + 0.5))


def test_exact_rounding_has_no_noise() -> None:
    x = entry("x", 1, 8)
    interpreter = Interpreter(program(looked_up(rounded(x, 4, exact=True), [np.arange(16) - 8])))
    values = {"x": np.arange(-128, 120)[:, None]}
    (clear,), (noisy,) = interpreter(values), interpreter(values, Noise(P_ERROR, 0))
    np.testing.assert_array_equal(noisy, clear)


def test_approximate_rounding_is_off_by_one_level_at_its_edges_and_nowhere_else() -> None:
    """At an edge as often up as down, to the half unit that edges lie lower; none a level's middle."""
    x = entry("x", 1, 10)
    interpreter = Interpreter(program(looked_up(rounded(x, 4, exact=False), [np.arange(16) - 8])))
    samples = 20_000
    for value, level in ((32, 0.5), (64, 1.0), (33, 33 / 64), (31, 31 / 64)):
        (found,) = interpreter({"x": np.full((samples, 1), value)}, Noise(P_ERROR, 5))
        assert set(np.unique(found)) <= {np.floor(level), np.floor(level) + 1}
        below = (found == 0).mean()
        # 0.0702 of a level is one standard deviation at 2^-40; 1 - below is what it makes of the distance.
        expected = {32: 0.456, 64: 0.0, 33: 0.369, 31: 0.544}[value]
        assert below == pytest.approx(expected, abs=0.02), value


def test_noise_follows_its_seed() -> None:
    draws = [Noise(P_ERROR, seed)((1000,)) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])
    assert draws[0].std() == pytest.approx(0.0702, rel=0.1)


def test_an_overflow_flips_the_sign_of_what_a_look_up_returns() -> None:
    x = entry("x", 1, 5)
    doubled = linear("scale", x, factor=np.array([2]))
    fixed(5, doubled)
    table = np.arange(32) + 1
    values = np.array([[7], [8], [-8], [-9]])
    (found,) = Interpreter(program(looked_up(doubled, [table])))({"x": values})
    np.testing.assert_array_equal(found[:, 0] % 128, [31, -1 % 128, 1, -31 % 128])


@pytest.mark.parametrize("signed", [True, False])
def test_an_output_beyond_its_width_is_read_modulo_twice_its_levels(signed: bool) -> None:
    """k + 1 bits arrive. Signed, what is at least half of the levels is read as negative."""
    width = 3
    full = 1 << width
    made = linear("scale", entry("x", 1, width, signed=signed), factor=np.array([[5]]))
    made.width, made.signed = width, signed
    low = -(full // 2) if signed else 0
    x = np.arange(low, low + full)[:, None]
    raw = (5 * x) % (2 * full)
    expected = np.where(raw < full // 2, raw, raw - np.where(raw < full, full, 2 * full))
    (got,) = Interpreter(program(made))({"x": x})
    np.testing.assert_array_equal(got, expected if signed else raw)
