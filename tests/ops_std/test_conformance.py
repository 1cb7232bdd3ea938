"""The default ONNX domain keeps every law of the conformance kit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from fhe_core.testing import PackSuite, Sample

from tests.ops_std import conformance_samples

X = np.random.default_rng(0).normal(size=(24, 2, 3, 4)).astype(np.float32)


class TestStd(PackSuite):
    pack = "std"
    thin = True
    # Of each kind of integer arithmetic an operator or two: all of them take minutes.
    encrypted: ClassVar[Sequence[str]] = (
        *("Add", "And", "Concat", "Conv", "Equal", "Gemm", "Max", "MaxPool", "Relu", "Where"),
    )
    exceptions: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(
            ("collected/Shape", "collected/Size"),
            "a shape is no secret, and not encrypted: there is nothing to compare",
        ),
        "reference/AveragePool/opset-6": "onnx.reference counts the padding, which opset 6 leaves out",
        "reference/BatchNormalization/opset-9": "onnx.reference mixes the batch's statistics in, "
        "which ONNX does only for nodes with five outputs",
        "reference/OneHot/opset-9": "onnx.reference counts negative indices from the end, as from "
        "opset 11 on",
        "reference/PRelu/opset-6": "onnx.reference broadcasts the slope, which is one number a channel "
        "until opset 7",
        "reference/Gemm/opset-6": "onnx.reference forgets beta where C has the shape of the result",
        **dict.fromkeys(
            (
                "shapes/AffineGrid",
                "shapes/GatherElements",
                "shapes/GatherND",
                "shapes/GridSample",
                "shapes/MaxUnpool",
                "shapes/ReverseSequence",
                "shapes/Scatter",
                "shapes/ScatterElements",
                "shapes/ScatterND",
                "shapes/TensorScatter/circular",
            ),
            "the float op takes no other batch than the one that its constants have an entry for",
        ),
        "result-types/STFT": "ONNX's inference forgets that half of a spectrum is left out",
        "empty/NonMaxSuppression": "a batch of one looks like weights, so that the boxes go and the "
        "scores stay: onnx.reference does not look whether they fit",
    }

    def samples(self) -> Mapping[str, Sequence[Sample]]:
        """More to encrypt than ONNX's tests have, and the results of what nobody else judges."""
        whole, corner = [1, 0, 0, 3, 2], [0, 0, 0, 1, 1]
        of_roi = np.array([X[1].max((1, 2)), X[0, :, :2, :2].max((1, 2))])[..., None, None]
        return {
            **conformance_samples.samples(),
            "GlobalLpPool": [Sample(X, expected=np.sqrt((X**2).sum((2, 3), keepdims=True)))],
            "MaxRoiPool": [
                Sample(
                    X,
                    np.array([whole, corner], np.float32),
                    constants=[1],
                    attributes={"pooled_shape": [1, 1]},
                    expected=of_roi,
                )
            ],
        }
