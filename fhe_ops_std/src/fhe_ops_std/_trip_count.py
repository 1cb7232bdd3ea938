"""How often a Loop runs, where whatever its condition depends on is constants or counters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fhe_core import FheError

if TYPE_CHECKING:
    # Importing them imports onnx, which listing operators should not cost.
    from fhe_core import Graph, Node

Array = NDArray[Any]


def trip_count(
    constants: Mapping[str, Array],
    body: Graph,
    limit: str,
    condition: str,
    states: Sequence[str],
    *,
    bound: int,
) -> int | None:
    """How often a Loop runs, found by running what its condition depends on; None where that is not known.

    Args:
        constants: of the graph around it.
        limit, condition, states: the names of the Loop's inputs, empty where there is none.
        bound: as often as anybody may want it to run.
    """
    most = constants.get(limit) if limit else np.array(bound + 1)
    running = constants.get(condition) if condition else np.array(True)
    if most is None or running is None:
        return None
    values = [constants.get(name) for name in states]
    counters = _Counters(constants, body, [value is not None for value in values])
    if counters.module is None:
        return None
    known = tuple(
        v for v, kept in zip(values, counters.kept, strict=True) if kept and v is not None
    )
    number = 0
    while number < most.item() and running.item():
        if number > bound:
            return None
        rank = len(body.inputs[0].shape or ())
        try:
            running, *rest = counters(np.full((1,) * rank, number, np.int64), running, *known)
        except FheError:
            return None
        known = tuple(rest)
        number += 1
    return number


class _Counters:
    """The part of a body that its condition depends on: the condition, and values that start as constants.

    Attributes:
        module: that part as a function; None where the condition depends on anything else.
        kept: by state, whether it is in it.
    """

    def __init__(self, constants: Mapping[str, Array], body: Graph, known: Sequence[bool]) -> None:
        self._body, self._constants = body, constants
        self.kept = list(known)
        states = body.input_names[2:]
        outputs = body.output_names
        while True:
            allowed = {
                *body.input_names[:2],
                *(n for n, k in zip(states, self.kept, strict=True) if k),
            }
            still = [
                kept and self._depends_on(outputs[1 + i], allowed)
                for i, kept in enumerate(self.kept)
            ]
            if still == self.kept:
                break
            self.kept = still
        self.module: Any = self._made() if self._depends_on(outputs[0], allowed) else None

    def __call__(self, *arrays: Array) -> tuple[Array, ...]:
        names = self.module.input_names
        results = self.module.run(dict(zip(names, arrays, strict=True)), fetch=self._outputs)
        return tuple(results[name] for name in self._outputs)

    def _slice(self, name: str) -> tuple[list[Node], set[str]]:
        """The nodes behind a tensor of the body, and what they read from outside."""
        wanted, nodes = {name}, []
        for node in reversed(self._body.nodes):
            if not wanted.isdisjoint(node.writes):
                nodes.append(node)
                wanted.update(node.reads)
        made = {output for node in self._body.nodes for output in node.writes}
        return nodes[::-1], wanted - made - set(self._body.constants)

    def _depends_on(self, name: str, allowed: set[str]) -> bool:
        _, free = self._slice(name)
        return all(each in allowed or each in self._constants for each in free)

    def _made(self) -> Any:
        from fhe_core import NumpyModule

        states = [
            n for n, kept in zip(self._body.output_names[1:], self.kept, strict=False) if kept
        ]
        self._outputs = [self._body.output_names[0], *states]
        behind = {node for name in self._outputs for node in self._slice(name)[0]}
        free = set().union(*(self._slice(name)[1] for name in self._outputs))
        inputs = [
            info
            for info, kept in zip(self._body.inputs, [True, True, *self.kept], strict=True)
            if kept
        ]
        outer = {n: v for n, v in self._constants.items() if n in free}
        graph = replace(
            self._body,
            inputs=tuple(replace(info, shape=None) for info in inputs),
            outputs=(),
            nodes=tuple(node for node in self._body.nodes if node in behind),
            constants={**outer, **self._body.constants},
        )
        try:
            return NumpyModule(graph)
        except FheError:
            return None
