"""Where shapes, precisions and ranges are at their ends: right, or refused with a reason."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fhe_core.quantization.quantizers import (
    QuantizationOptions,
    QuantizationParameters,
    UniformQuantizer,
)
from onnx import helper

import fhe_core
from fhe_core import CompilationError, primitives
from tests.core.quantization.building import model, normal

X = normal(60, 4)


@pytest.mark.parametrize(
    ("begin", "end", "step"), [(0, 3, 1), (2, 2**31 - 1, 1), (-1, -(2**31), -1), (0, 100, 2)]
)
def test_a_slice_of_the_batch_is_refused(begin: int, end: int, step: int) -> None:
    """Also where it would leave two or three samples as they are."""
    constants = {"a": [begin], "b": [end], "axis": [0], "step": [step]}
    proto = model("h = Slice(x, a, b, axis, step) \n y = Relu(h)", {"x": ("N", 4)}, "y", constants)
    with pytest.raises(CompilationError, match="selects samples of the batch"):
        fhe_core.quantize(proto, X)


def test_a_slice_that_takes_every_sample_is_none() -> None:
    constants = {"a": [0, 1], "b": [2**31 - 1, 3], "axes": [0, 1]}
    proto = model("h = Slice(x, a, b, axes) \n y = Relu(h)", {"x": ("N", 4)}, "y", constants)
    result = fhe_core.quantize(proto, X, n_bits=8, client_side="minimal").forward(X)
    assert abs(result - np.maximum(X[:, 1:3], 0)).max() < 0.05


def test_an_encrypted_tensor_without_elements_is_refused() -> None:
    constants = {"a": [2], "b": [2], "axis": [1]}
    proto = model("h = Slice(x, a, b, axis) \n y = Relu(h)", {"x": ("N", 4)}, "y", constants)
    with pytest.raises(CompilationError, match="elements"):
        fhe_core.quantize(proto, X, client_side="minimal")


@pytest.mark.parametrize(
    "wrong",
    [{"weights": np.full((1, 2, 1, 1), 0.5)}, {"pad_value": 0.5}],
    ids=["weights", "padding"],
)
def test_a_convolution_of_integers_takes_no_fractions(wrong: Any) -> None:
    x = np.ones((1, 2, 3, 3), np.int64)
    given = {"weights": np.ones((1, 2, 1, 1)), "pad_value": 0, **wrong}
    with pytest.raises(CompilationError, match="that are no integers"):
        primitives.conv(x, **given, strides=(1, 1), pads=((1, 1), (1, 1)), dilations=(1, 1))


def test_half_precision_is_quantized_as_finely_as_single() -> None:
    """float16 has 11 bits: dividing in it would leave out levels of a 12-bit quantizer."""
    parameters = QuantizationParameters(0.001, 100, 0, 4095)
    quantizer = UniformQuantizer(QuantizationOptions(12), params=parameters)
    x = np.linspace(0, 3.9, 999).astype(np.float16)
    np.testing.assert_array_equal(quantizer.quant(x), quantizer.quant(x.astype(np.float32)))


def test_an_offset_survives_layout_that_changes_the_rank_before_a_look_up() -> None:
    """All negative numbers are shifted before their look-up, which comes after the Gather."""
    data = -abs(X) - 1
    constants = {"i": [[0, 2]]}
    nodes = "h = Gather <axis = 1> (x, i) \n y = Exp(h)"
    proto = model(nodes, {"x": ("N", 4)}, "y", constants)
    # Half a step of the input, where the function is steepest, and half a step of the output.
    steps = np.ptp(data) / 2 * np.exp(data.max()) + np.ptp(np.exp(data)) / 2
    for bits in (2, 4, 8):
        module = fhe_core.quantize(proto, data, n_bits=bits, client_side="minimal")
        error = abs(module.forward(data) - np.exp(data)[:, [[0, 2]]]).max()
        assert error <= steps / (2**bits - 1)


def test_an_output_may_be_an_input_or_another_output_under_a_name_of_its_own() -> None:
    """Of a function that returns what it was given, too."""
    both = helper.make_function(
        "local",
        "Both",
        ["a"],
        ["a", "b"],
        [helper.make_node("Relu", ["a"], ["b"])],
        [helper.make_opsetid("", 17)],
    )
    nodes = "same, b = local.Both(x) \n again, c = local.Both(b)"
    proto = model(nodes, {"x": ("N", 4)}, "b again same c", domains={"local": 1})
    proto.functions.append(both)
    qm = fhe_core.quantize(proto, X, n_bits=8)
    assert qm.output_names == ("b", "again", "same", "c")
    positive = np.maximum(X, 0)
    for got, expected in zip(qm.forward(X), (positive, positive, X, positive), strict=True):
        assert abs(got - expected).max() < 0.05
