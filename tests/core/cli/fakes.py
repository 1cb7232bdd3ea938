"""A compiler and its modules that remember how they were called, in place of the slow ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from fhe_core.quantization.plan import AccumulatorPlan, Plan, TensorPlan, WeightPlan


class FakeModule:
    """Answers each input with its double, and with its sum."""

    def __init__(self, inputs: tuple[str, ...] = ("x",), outputs: tuple[str, ...] = ("y",)) -> None:
        self.input_names = inputs
        self.output_names = outputs
        self.cost = SimpleNamespace(
            complexity=227.4e6,
            pbs_count=1234,
            max_bit_width=7,
            p_error=2.0**-40,
            global_p_error=1.1e-9,
        )
        self.plan = Plan(
            tensors={"x": TensorPlan(4, 0.1), "h": TensorPlan(3, 0.1)},
            weights={"w@gemm": WeightPlan(4, 0.1)},
            accumulators={"g": AccumulatorPlan(-40, 60, rounding=5, bits=7)},
        )
        self.forwarded: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self.error: BaseException | None = None

    def save(self, path: Path) -> None:
        path.mkdir()
        (path / "manifest.json").write_text("{}")
        for part in ("client", "server"):
            (path / part).mkdir()
            (path / part / "data").write_text("whole")
        if self.error:
            raise self.error

    def forward(self, *arrays: Any, **options: Any) -> Any:
        self.forwarded.append((arrays, options))
        if self.error:
            raise self.error
        results = tuple(np.asarray(arrays[0]) * 2 + i for i in range(len(self.output_names)))
        return results if len(results) > 1 else results[0]


class FakeSdk:
    """`fhe_core.compile` and `fhe_core.load`."""

    def __init__(self) -> None:
        self.module = FakeModule()
        self.error: BaseException | None = None
        self.calls: list[tuple[Any, Any, Mapping[str, Any]]] = []
        self.loaded: list[Path] = []

    def compile(self, model: Any, calibration: Any, **options: Any) -> FakeModule:
        self.calls.append((model, calibration, options))
        if self.error:
            raise self.error
        return self.module

    def load(self, path: Any) -> FakeModule:
        self.loaded.append(path)
        if self.error:
            raise self.error
        return self.module
