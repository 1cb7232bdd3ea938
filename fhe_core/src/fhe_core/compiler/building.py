"""Candidates of a search: built, and priced by Concrete."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from fhe_core.errors import CompilationError
from fhe_core.program.nodes import BATCH
from fhe_core.quantization.module import Cost, QuantizedModule
from fhe_core.quantization.planning import Settings
from fhe_core.quantization.session import Session

Array = NDArray[Any]


class Builder:
    """Builds candidates and prices them.

    Attributes:
        samples: indices of those that candidates are tuned on.
    """

    def __init__(
        self, session: Session, compiled: Callable[[QuantizedModule], Cost], samples: Array
    ) -> None:
        self._session = session
        self.samples = samples
        self._compiled = compiled
        self._complexities: dict[str, float] = {}

    def module(self, settings: Settings) -> QuantizedModule | None:
        """The candidate's module; None where accumulators would be too wide for any circuit."""
        try:
            return self._session.build(settings, self.samples)
        except CompilationError as error:
            if not error.problem.startswith("an accumulator needs"):
                raise
            return None

    @property
    def weighted(self) -> list[str]:
        """Names of the nodes that have weights with a scale for each channel."""
        placed = self._session.placement.ops
        return [entry.node.name for entry in placed if entry.op.weight_channels() is not None]

    def accumulators(self, settings: Settings) -> list[str]:
        """Names of the accumulators that a look-up reads rounded, those with most elements first."""
        module = self.module(settings)
        if module is None:
            return []
        sizes: dict[str, int] = {}
        for node in module.program.lookups:
            if node.inputs[0].op == "round":
                name = node.inputs[0].name
                sizes[name] = sizes.get(name, 0) + math.prod(n for n in node.shape if n != BATCH)
        return sorted(sizes, key=lambda name: (-sizes[name], name))

    def cost(self, module: QuantizedModule, settings: Settings) -> Cost | None:
        """What Concrete says; None where it has no parameters."""
        try:
            found = self._compiled(module)
        except CompilationError:
            return None
        self._complexities[_widths(settings)] = found.complexity
        return found

    def complexity(self, settings: Settings) -> float:
        """That of a candidate of these widths; infinite where there is no circuit.

        Which of them does not matter: weights that tuning has moved cost about the same.
        """
        key = _widths(settings)
        if key not in self._complexities:
            self._complexities[key] = float("inf")
            module = self.module(replace(settings, tuning=0))
            if module is not None:
                self.cost(module, settings)
        return self._complexities[key]


def _widths(settings: Settings) -> str:
    """What decides the cost: neither tuning nor the range that tensors take their levels from."""
    return repr(replace(settings, tuning=0, ranges="minmax"))
