"""What weights are tuned on: blends of calibration samples, and what the float model has for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.graph.ir import Graph
from fhe_core.graph.runner import NumpyModule
from fhe_core.program.nodes import BATCH
from fhe_core.quantization.calibration import blended, float_values, static_batch
from fhe_core.quantization.module import QuantizedModule
from fhe_core.quantization.tuning import Lessons

Array = NDArray[Any]

#: Blends: a sample each, with up to this share of another.
_LESSONS = 4096
_BLENDED = 0.3


class School:
    """The float model as the teacher. What it was asked once, it remembers."""

    def __init__(
        self, net: NumpyModule, graph: Graph, data: Mapping[str, Array], seed: int
    ) -> None:
        self._net, self._graph, self._data, self._seed = net, graph, data, seed
        self._taught: dict[Any, tuple[dict[str, Array], dict[str, Array]]] = {}

    def lessons(
        self,
        module: QuantizedModule,
        readings: Sequence[tuple[Array, Array]],
        class_axes: Mapping[str, int],
        samples: Array | None,
    ) -> Lessons | None:
        """What a module's program is to be tuned on.

        Args:
            readings: what the integers of its outputs mean.
            class_axes: of the tensors that have a score for each class.
            samples: indices of the calibration samples to blend; None for all.

        Returns:
            None where an output of the program is no tensor of the float model, element for element.
        """
        outputs = module.program.outputs
        names = [node.origin.output if node.origin else "" for node in outputs]
        known = {*self._graph.input_names, *(n for node in self._graph.nodes for n in node.writes)}
        if not known.issuperset(names) or any(node.shape[:1] != (BATCH,) for node in outputs):
            return None
        data, targets = self._teach(tuple(dict.fromkeys(names)), samples)
        count = len(next(iter(data.values())))
        if any(
            targets[name].shape != (count, *node.shape[1:])
            for name, node in zip(names, outputs, strict=True)
        ):
            return None
        integers = module.encoder(data, count)
        return Lessons(
            dict(zip(module.encoder_names, integers, strict=True)),
            [targets[name].astype(np.float64) for name in names],
            readings,
            [class_axes.get(name) for name in names],
        )

    def blends(self, samples: Array | None) -> dict[str, Array]:
        """The blended samples themselves, those of the lessons in their order."""
        return self._teach(tuple(dict.fromkeys(self._graph.output_names)), samples)[0]

    def _teach(
        self, names: tuple[str, ...], samples: Array | None
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Blended samples, and the float model's tensors on them."""
        key = (names, None if samples is None else samples.tobytes())
        if key not in self._taught:
            count = len(next(iter(self._data.values())))
            chosen = np.arange(count) if samples is None else samples
            batch = static_batch(self._graph) or 1
            rng = np.random.default_rng(self._seed)
            data = blended(self._data, chosen, _LESSONS // batch * batch, _BLENDED, rng)
            self._taught[key] = (data, float_values(self._net, data, names))
        return self._taught[key]
