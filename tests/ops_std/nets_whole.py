"""The whole nets that tests quantize, with their data and what ONNX Runtime makes of it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime

from tests.core.quantization.building import normal
from tests.ops_std import nets_layers, nets_sequences, nets_trained

NEWEST = onnx.defs.onnx_opset_version()
OPSETS = (9, 13, 17, NEWEST)
SAMPLES = 240

Feeds = dict[str, Any]


@dataclass(frozen=True)
class WholeNet:
    """A net at any opset that has its operators.

    Attributes:
        build: from an opset to the model.
        least: R² of each output against float, at six bits with the default roundings.
        since: the oldest opset with its operators.
        twin: the same function in operators that ONNX Runtime has, if those are others.
    """

    build: Callable[[int], onnx.ModelProto]
    least: float
    since: int = 9
    twin: Callable[[int], onnx.ModelProto] | None = None

    @property
    def opsets(self) -> list[int]:
        return [opset for opset in OPSETS if opset >= self.since]


#: What is multiplied by encrypted values, or divided by their deviation, is rounded more often.
NETS = {
    "mlp": WholeNet(nets_layers.mlp, 0.99),
    "cnn": WholeNet(nets_layers.cnn, 0.97),
    "separable": WholeNet(nets_layers.separable, 0.99),
    "residual": WholeNet(nets_layers.residual, 0.98),
    "branches": WholeNet(nets_layers.branches, 0.98),
    "attention": WholeNet(nets_sequences.attention, 0.96, since=17),
    "sigmoid attention": WholeNet(
        functools.partial(nets_sequences.attention, weighing="Sigmoid"), 0.94, since=17
    ),
    "lstm": WholeNet(nets_sequences.lstm, 0.97),
    "gru": WholeNet(nets_sequences.gru, 0.98),
    "trained, QDQ": WholeNet(nets_trained.qdq, 0.96, since=13),
    "trained, Quant": WholeNet(nets_trained.quant, 0.96, since=13, twin=nets_trained.qdq),
}


def feeds(proto: onnx.ModelProto, count: int = SAMPLES) -> Feeds:
    """Seeded samples for each input: normal, cut off at two deviations; states within one."""
    drawn = {}
    for seed, info in enumerate(proto.graph.input, 50):
        shape = [dimension.dim_value for dimension in info.type.tensor_type.shape.dim][1:]
        values = np.clip(normal(count, *shape, seed=seed), -2, 2)
        drawn[info.name] = values if info.name == "x" else np.clip(values, -0.9, 0.9)
    return drawn


def part(data: Feeds, start: int, stop: int) -> Feeds:
    """Some of the samples."""
    return {name: values[start:stop] for name, values in data.items()}


def by_runtime(name: str, data: Feeds) -> tuple[Any, ...]:
    """The outputs of a net in float. Its function is the same at each opset: the runtime gets 17."""
    net = NETS[name]
    proto = (net.twin or net.build)(17)
    options = onnxruntime.SessionOptions()
    # Its fusions of what was trained for integers round at other places.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options)
    return tuple(session.run(None, data))


def outputs(result: Any) -> tuple[Any, ...]:
    """One output or several, as a tuple."""
    return result if isinstance(result, tuple) else (result,)


def explained(result: Any, expected: Any) -> float:
    """R²: the share of the variance of ``expected`` that ``result`` explains."""
    assert result.shape == expected.shape
    error = np.sum((np.float64(result) - expected) ** 2)
    return float(1 - error / np.sum((expected - expected.mean(dtype=np.float64)) ** 2))
