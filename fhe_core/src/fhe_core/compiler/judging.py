"""What a search judges candidates by: scores on calibration data, and how near they are to the float model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.compiler.scoring import Score, default_score, excess, first
from fhe_core.quantization.calibration import batches, blended, static_batch
from fhe_core.quantization.module import QuantizedModule
from fhe_core.quantization.session import Session
from fhe_core.quantization.tuning import divergence

Array = NDArray[Any]

#: Simulations that a candidate's score is the mean of, once the first one looks good.
_SEEDS = 5
#: A first simulation this far below what is wanted ends a candidate.
_HOPELESS = 0.03
#: Samples that candidates are scored on, and checked on, at the most.
_SCORED = 1000
#: Share of the samples that candidates are scored, and weights trained, on.
_SEARCHED = 0.7
#: Blends are a sample and up to this share of another.
_BLENDED = 0.25
#: Fewer calibration samples than this are not divided: half of them would say too little.
_LEAST_SAMPLES = 64


def divided(count: int, seed: int) -> tuple[Array, Array]:
    """Indices of samples to search on, and of all to check on."""
    if count < _LEAST_SAMPLES:
        return np.arange(count), np.arange(count)
    order = np.random.default_rng(seed).permutation(count)
    most = int(count * _SEARCHED)
    searched, rest = order[:most][:_SCORED], order[most:][:_SCORED]
    return np.sort(searched), np.sort(np.concatenate([searched, rest]))


def parts_of(session: Session, count: int, seed: int) -> tuple[Array, Array]:
    """The division, in whole batches where the model has a static batch size."""
    parts = divided(count, seed)
    batch = static_batch(session.graph) or 1
    a, b = (part[: len(part) // batch * batch] for part in parts)
    return (a, b) if len(a) and len(b) else (np.arange(count),) * 2


def part_of(data: Mapping[str, Array], part: Array) -> dict[str, Array]:
    return {name: array[part] for name, array in data.items()}


def blends_of(session: Session, seed: int) -> dict[str, Array] | None:
    """Samples with a share of another in each; None where inputs are no floats."""
    if any(array.dtype.kind != "f" for array in session.data.values()):
        return None
    count = len(next(iter(session.data.values())))
    batch = static_batch(session.graph) or 1
    size = max(min(count, _SCORED) // batch, 1) * batch
    return blended(session.data, np.arange(count), size, _BLENDED, np.random.default_rng(seed))


class Judge:
    """Scores modules on some data.

    Attributes:
        goal: the float model's score there.
        wanted: the least that is within tolerance.
        allowed: the tolerance.
    """

    def __init__(
        self,
        session: Session,
        data: Mapping[str, Array],
        labels: Array | None,
        score: Score | None,
        tolerance: float,
    ) -> None:
        self.data = data
        self._outputs_wanted = reference = float_outputs(session, self.data)
        self._reference = first(reference)
        self._labels = labels if score is None else None
        self.expected = labels if labels is not None else self._reference
        self._score = score or default_score(reference, labels)
        self.goal = float(self._score(reference, self.expected))
        self.wanted, self.allowed = self.goal - tolerance, tolerance

    def accepts(self, score: float) -> bool:
        return score >= self.wanted

    def score(self, module: QuantizedModule, seed: int) -> float:
        """The mean over several simulations; of one alone where that is hopeless already."""
        scores = [self._once(module, seed)]
        if scores[0] >= self.wanted - _HOPELESS:
            scores += [self._once(module, seed + i) for i in range(1, _SEEDS)]
        return float(np.mean(scores))

    def float_score(self, session: Session) -> float:
        """That of a session's float model."""
        return self._scored(float_outputs(session, self.data))

    def divergence(self, module: QuantizedModule, seed: int) -> float:
        """How far a module's first output is from the float model's: the mean over several simulations."""
        runs = (first(self._outputs(module, seed + i)) for i in range(_SEEDS))
        return float(np.mean([divergence(run, self._reference) for run in runs]))

    def _once(self, module: QuantizedModule, seed: int) -> float:
        return self._scored(self._outputs(module, seed))

    def _scored(self, outputs: Any) -> float:
        """The score of some outputs; by labels, what can be expected of it on data that nobody saw."""
        found = float(self._score(outputs, self.expected))
        if self._labels is None:
            return found
        expected = excess(outputs, self._outputs_wanted, self._labels, self._score)
        return max(found, self.goal - expected)

    def _outputs(self, module: QuantizedModule, seed: int) -> Any:
        arrays = [self.data[name] for name in module.input_names]
        return module.forward(*arrays, fhe="simulate", seed=seed)


def float_outputs(session: Session, data: Mapping[str, Array]) -> Any:
    parts = [session.net(**feeds) for feeds in batches(session.graph, data)]
    if isinstance(parts[0], tuple):
        return tuple(np.concatenate(column) for column in zip(*parts, strict=True))
    return np.concatenate(parts)
