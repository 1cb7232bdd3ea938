"""The trained nets that are measured, with their data and the peer's results."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from results import ROOT

Array = NDArray[Any]

MODELS = ROOT / "tests" / "models"
#: How far below the float model's score still counts as close.
CLOSE = 0.01
#: The peer's cost is what its front costs at our score minus this.
HANDICAP = 0.005


@dataclass(frozen=True)
class Net:
    """A trained net. The test data has no part in calibration and search."""

    name: str
    model: Path
    x_calib: Array
    y_calib: Array
    x_test: Array
    y_test: Array
    y_ref: Array

    @classmethod
    def load(cls, name: str) -> Net:
        with np.load(MODELS / f"{name}.npz") as data:
            arrays = {key: data[key] for key in cls.__annotations__ if key in data}
        return cls(name=name, model=MODELS / f"{name}.onnx", **arrays)

    def score(self, outputs: Array) -> float:
        """Accuracy on the test set where the truth is classes, R² where it is numbers."""
        if self.y_test.dtype.kind in "iu":
            return float(np.mean(outputs.argmax(axis=1) == self.y_test))
        error = np.sum((outputs.reshape(-1) - self.y_test) ** 2)
        return float(1.0 - error / np.sum((self.y_test - self.y_test.mean()) ** 2))


def peer_complexity(name: str, wanted: float) -> float:
    """What the peer's Pareto front costs at a score, interpolated in the logarithm of complexity.

    Below the front's cheapest end it is that end; beyond its best score, the setting that has it.
    """
    settings = json.loads((MODELS / "peer.json").read_text(encoding="utf-8"))[name]
    rows = sorted((float(r["complexity"]), r["score"]) for r in settings if "score" in r)
    front: list[tuple[float, float]] = []
    for complexity, score in rows:
        if not front or score > front[-1][1]:
            front.append((complexity, score))
    scores = [score for _, score in front]
    logarithms = [np.log(complexity) for complexity, _ in front]
    return float(np.exp(np.interp(wanted, scores, logarithms)))
