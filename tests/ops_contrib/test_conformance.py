"""The operators of ai.onnx.ml, of QONNX and the pack's own keep every law of the conformance kit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from fhe_core.testing import PackSuite, Sample

from tests.ops_contrib import samples_ml, samples_qonnx, samples_trees


class TestContrib(PackSuite):
    pack = "contrib"
    thin = True
    # One of each kind of fusion, and of those the cheapest.
    encrypted: ClassVar[Sequence[str]] = ("ArrayFeatureExtractor", "Binarizer", "LinearRegressor")
    exceptions: ClassVar[Mapping[str, str]] = {
        "accuracy/ZipMap": "maps are results, and no look-up can hold them as the kit's net wants",
        "collected/CategoryMapper": "its results are text, which the kit does not compare",
        "repeatable/ZipMap": "the kit compares arrays, and these are maps",
    }

    def samples(self) -> Mapping[str, Sequence[Sample]]:
        return {**samples_ml.SAMPLES, **samples_qonnx.SAMPLES, **samples_trees.SAMPLES}
