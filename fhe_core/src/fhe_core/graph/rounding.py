"""How far rounding alone may move what a model computes.

Two forms of one function round in different places. Where a result is the difference of large numbers, or a
decision between equal ones, that may be all that is left of it: zero here and the last bit of a hundred there,
the first class here and the second there. How far is found as backward error analysis has it (Higham, Accuracy
and Stability of Numerical Algorithms, 2002): by what happens if constants and inputs are a rounding larger or
smaller.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.errors import FheError
from fhe_core.graph.ir import Graph
from fhe_core.graph.runner import NumpyModule
from fhe_core.graph.steps import Resolver

Array = NDArray[Any]

#: How much larger or smaller, as a share of each constant and of an input's largest magnitude: some roundings
#: in single precision, as long sums have them.
_ROUNDING = 1e-6
#: How many times everything is moved, and how many times as far as then a result may be elsewhere.
_TIMES = 16
_SLACK = 10.0


@dataclass(frozen=True)
class Reach:
    """What a graph computes on some samples, and what it does with everything moved by roundings."""

    usual: Mapping[str, Any]
    shaken: Sequence[Mapping[str, Any]]

    @classmethod
    def of(cls, graph: Graph, registry: Resolver, samples: Mapping[str, Any]) -> Reach:
        """Of a graph that runs on these samples; as far as it does with everything moved."""
        usual = NumpyModule(graph, registry=registry).run(samples)
        shaken = []
        rng = np.random.default_rng(0)
        for _ in range(_TIMES):
            constants = {name: _moved(value, rng) for name, value in graph.constants.items()}
            inputs = {name: _moved(value, rng, largest=True) for name, value in samples.items()}
            try:
                moved = replace(graph, constants=constants)
                shaken.append(NumpyModule(moved, registry=registry).run(inputs))
            except FheError:
                break
        return cls(usual, shaken)

    def moved(self, name: str) -> Array:
        """How far each element of an output moved at most: numbers for floats, else whether it changed."""
        usual = self.usual[name]
        if not isinstance(usual, np.ndarray):
            return np.zeros((), bool)
        others = [each[name] for each in self.shaken if np.shape(each[name]) == usual.shape]
        if usual.dtype.kind != "f":
            return np.any(
                [other != usual for other in others] or [np.zeros(usual.shape, bool)], axis=0
            )
        with np.errstate(invalid="ignore"):  # Infinity stays where it was.
            distances = [np.abs(other.astype(np.float64) - usual) for other in others]
        return np.max([np.nan_to_num(d) for d in distances] or [np.zeros(usual.shape)], axis=0)


def within_rounding(expected: Any, found: Any, moved: Sequence[Array]) -> bool:
    """Whether two results differ by no more than rounding may make them differ.

    Args:
        moved: how far each of both moves, see ``Reach.moved``.
    """
    if not isinstance(expected, np.ndarray) or not isinstance(found, np.ndarray):
        return False
    if (expected.dtype, expected.shape) != (found.dtype, found.shape):
        return False
    if expected.dtype.kind != "f":
        return bool(np.all((expected == found) | moved[0] | moved[1]))
    if not (np.isfinite(expected).all() and np.isfinite(found).all()):
        return False
    distance = np.abs(expected.astype(np.float64) - found)
    return bool(np.all(distance <= _SLACK * (moved[0] + moved[1])))


def _moved(value: Any, rng: np.random.Generator, *, largest: bool = False) -> Any:
    """Floats, each a rounding of itself, or of the ``largest``, larger or smaller."""
    array = np.asarray(value)
    if array.dtype.kind != "f" or not array.size:
        return value
    finite = np.isfinite(array)
    size = np.abs(array, where=finite, out=np.zeros_like(array))
    if largest:
        size = size.max()
    return (array + rng.uniform(-_ROUNDING, _ROUNDING, array.shape) * size).astype(array.dtype)
