"""Quantization needs memory for a batch of calibration data and for statistics, whatever their number."""

from __future__ import annotations

import tracemalloc

import onnx

import fhe_core

from .building import model, normal


def cnn() -> onnx.ModelProto:
    """Two convolutions and a pooling over images of 3 x 16 x 16."""
    constants = {"w": normal(8, 3, 3, 3, seed=1), "v": normal(8, 8, 3, 3, seed=2) / 10}
    return model(
        """c = Conv <pads = [1, 1, 1, 1]> (x, w)
        r = Relu(c)
        p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r)
        d = Conv(p, v)
        e = Relu(d)
        g = GlobalAveragePool(e)
        y = Flatten(g)""",
        {"x": ("N", 3, 16, 16)},
        constants=constants,
    )


def peak(samples: int) -> int:
    """The bytes that quantization holds at most; NumPy reports its arrays to tracemalloc."""
    x = normal(samples, 3, 16, 16)
    tracemalloc.start()
    try:
        fhe_core.quantize(cnn(), x, n_bits=4)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_grows_by_the_encoded_inputs_alone() -> None:
    """Of each sample 768 integers of 64 bits stay, twice while they are joined: not its 16,000 others."""
    few, many = peak(512), peak(1024)
    assert few < 100e6
    assert many - few < 3 * 512 * 768 * 8
