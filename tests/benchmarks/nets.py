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


def cheapest_of_peer(name: str, wanted: float) -> dict[str, Any] | None:
    """The peer's cheapest setting whose score is at least ``wanted``; None if it has none."""
    settings = json.loads((MODELS / "peer.json").read_text(encoding="utf-8"))[name]
    close = [row for row in settings if row.get("score", -np.inf) >= wanted]
    return min(close, key=lambda row: float(row["complexity"]), default=None)
