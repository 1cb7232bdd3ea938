"""Whole networks of other people agree with ONNX Runtime, to what float32 allows.

A sum of K products rounds K times, by up to 2⁻²⁴ of its size, and independently: over a network of d
layers the errors are those of d·K roundings, which add up like the square root of their number.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from fhe_core import NumpyModule

from . import networks

ROUNDING = 2.0**-24
LARGEST_LOGIT = 8.0


def by_runtime(model: bytes | str, feeds: networks.Feeds, *outputs: str) -> list[Any]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # no remarks on other people's models
    session = onnxruntime.InferenceSession(model, options)
    return list(session.run(list(outputs) or None, feeds))


@pytest.mark.parametrize("name", networks.light_names())
def test_image_classifier(name: str) -> None:
    """With a random image and random weights: the logits, all different, and the probabilities."""
    model, feeds, logits, last, terms = networks.light(name)
    serialized = model.SerializeToString()
    # A sum of residuals grows from block to block; brought back to a size where the probabilities
    # are not all 0 and 1, by the last layer.
    (size,) = by_runtime(serialized, feeds, logits)
    for weight in last:
        feeds[weight] *= np.float32(LARGEST_LOGIT / np.abs(size).max())
    expected = by_runtime(serialized, feeds)
    outputs = NumpyModule(model).run(feeds)
    assert len(np.unique(outputs[logits])) > 800
    tolerance = ROUNDING * math.sqrt(terms)
    for got, wanted in zip(outputs.values(), expected, strict=True):
        assert got.dtype == wanted.dtype
        # A probability changes by at most twice the change of the logits, relatively.
        np.testing.assert_allclose(
            got, wanted, rtol=2 * LARGEST_LOGIT * tolerance, atol=LARGEST_LOGIT * tolerance
        )


@pytest.mark.parametrize("name", networks.INPUTS, ids=lambda name: Path(name).stem)
def test_model_from_a_package(name: str) -> None:
    """Trained weights, as shipped: speech detection, pitches, file types, objects in an image.

    10⁻⁴ of the largest output is d·K of three million, more than these small networks have.
    """
    path, feeds = networks.packaged(name)
    outputs = NumpyModule(path).run(feeds)
    expected = by_runtime(str(path), feeds)
    for got, wanted in zip(outputs.values(), expected, strict=True):
        assert got.dtype == wanted.dtype
        assert got.shape == wanted.shape
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())
