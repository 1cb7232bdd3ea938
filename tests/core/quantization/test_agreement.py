"""A module that does not compute what the model does says so."""

from __future__ import annotations

import numpy as np

import fhe_core
from tests.core.quantization.building import model, normal

FAR = np.float32([1, 1e6])


def test_an_output_that_is_far_from_the_float_models_is_a_notice() -> None:
    """One scale for two inputs in units of their own leaves the smaller without a level."""
    x = normal(200, 2) * FAR
    proto = model("r = Relu(x) \n y = Mul(r, s)", {"x": ("N", 2)}, constants={"s": 1 / FAR})
    (notice,) = (n for n in fhe_core.quantize(proto, x, n_bits=8).notices if "far from" in n)
    assert notice.startswith("on the calibration data, 'y' is far from the float model's (R2 = ")


def test_labels_that_differ_are_a_notice() -> None:
    x = normal(200, 2) * FAR
    nodes = "r = Abs(x) \n z = Mul(r, s) \n g = Greater(z, tenth) \n y = Cast <to = 7> (g)"
    constants = {"s": 1 / FAR, "tenth": np.float32(0.1)}
    proto = model(nodes, {"x": ("N", 2)}, constants=constants)
    assert any("'y' equals" in n for n in fhe_core.quantize(proto, x, n_bits=8).notices)


def test_what_is_near_goes_without_saying() -> None:
    proto = model("y = Relu(x)", {"x": ("N", 2)})
    for x in (normal(200, 2), np.zeros((200, 2), np.float32)):
        assert not any("float model" in n for n in fhe_core.quantize(proto, x, n_bits=6).notices)
