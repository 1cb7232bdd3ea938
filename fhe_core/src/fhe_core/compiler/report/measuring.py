"""How much error each layer adds, measured on calibration data.

The reference is the model with its quantized inputs and weights, and real numbers otherwise: accumulators
are not rounded, and what follows them is not quantized. Against it one layer at a time is made what it is in
the circuit: its accumulator rounded, with the noise of approximate rounding, and what its look-ups give
quantized. The error that this layer adds is how far that moves the model's outputs. What the inputs and
weights add is how far the reference itself is from the float model.

All are root mean squares, relative to the deviation of what is wanted; for outputs that are classes or other
integers, the share of them that change. Errors of several layers add up to less than their sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.errors import FheError
from fhe_core.program import host
from fhe_core.program.interpreter import Noise, group_values, real_group_values
from fhe_core.program.nodes import Node
from fhe_core.program.program import Program
from fhe_core.program.remarks import elements
from fhe_core.program.rules import RULES
from fhe_core.quantization.calibration import batches, static_batch
from fhe_core.quantization.evidence import Evidence
from fhe_core.quantization.module import QuantizedModule, decode

Array = NDArray[Any]

#: Samples that errors are measured on, at the most; fewer where they would take more elements than this, of
#: all look-ups once for each layer: about a second.
_SAMPLES = 256
_ELEMENTS = 10**7
_LEAST_SAMPLES = 16


@dataclass(frozen=True)
class Errors:
    """What was measured.

    Attributes:
        whole: of the quantized model, simulated, against the float model; None where it cannot be told.
        weights: of its inputs and weights alone.
        layers: added by each, by the name of its accumulator.
        samples: how many it was measured on.
    """

    whole: float | None = None
    weights: float | None = None
    layers: Mapping[str, float] = field(default_factory=dict)
    samples: int = 0


def measured(module: QuantizedModule, seed: int = 0) -> Errors:
    """The errors of a module that still has its evidence; none are known of another."""
    if module.evidence is None:
        return Errors()
    data = _samples(module, module.evidence)
    count = len(next(iter(data.values())))
    wanted = _float_outputs(module.evidence, data)
    noisy = module.forward(*(data[name] for name in module.input_names), fhe="simulate", seed=seed)
    try:
        layers = _Layers(module, data, seed)
        reference = layers.decoded(None)
        added = {name: distance(layers.decoded(name), reference) for name in layers.names}
    except (FheError, ValueError, TypeError, IndexError, KeyError):
        # Some function of a pack takes integers only: then it cannot be told what they cost.
        return Errors(distance(noisy, wanted), samples=count)
    return Errors(distance(noisy, wanted), distance(reference, wanted), added, count)


def distance(found: Any, wanted: Any) -> float:
    """How far outputs are from others: of several, the one that is farthest."""
    pairs = zip(_several(found), _several(wanted), strict=True)
    return max(_distance(np.asarray(a), np.asarray(b)) for a, b in pairs)


def _several(outputs: Any) -> tuple[Any, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)


def _distance(found: Array, wanted: Array) -> float:
    if wanted.dtype.kind != "f":
        return float(np.mean(found != wanted))
    error = np.sqrt(np.mean((found.astype(np.float64) - wanted) ** 2))
    return float(error / (np.std(wanted.astype(np.float64)) or 1.0))


def _samples(module: QuantizedModule, evidence: Evidence) -> dict[str, Array]:
    lookups = module.program.lookups
    work = sum(map(elements, lookups)) * len({node.inputs[0].name for node in lookups})
    batch = static_batch(evidence.graph) or 1
    most = max(_LEAST_SAMPLES, min(_SAMPLES, _ELEMENTS // max(work, 1)))
    count = min(most, len(next(iter(evidence.data.values()))))
    count = max(count // batch, 1) * batch
    return {name: array[:count] for name, array in evidence.data.items()}


def _float_outputs(evidence: Evidence, data: Mapping[str, Array]) -> Any:
    parts = [_several(evidence.net(**feeds)) for feeds in batches(evidence.graph, data)]
    joined = tuple(np.concatenate(column) for column in zip(*parts, strict=True))
    return joined if len(joined) > 1 else joined[0]


class _Layers:
    """The recorded program, layer by layer as in the circuit or in real numbers.

    Attributes:
        names: of the accumulators that look-ups read.
    """

    def __init__(self, module: QuantizedModule, data: Mapping[str, Array], seed: int) -> None:
        self._module, self._seed = module, seed
        evidence = module.evidence
        assert evidence is not None  # noqa: S101  # `measured` has looked
        self._integers = evidence.recorded.integers
        self._nodes = Program.of(self._integers).nodes
        self._batch = len(next(iter(data.values())))
        inputs = [node for node in self._nodes if node.op == "input"]
        encoder = host.build([n.attributes["source"] for n in inputs], lambda root: root.name)
        encoded = encoder(data, self._batch)
        self._inputs = {id(n): array for n, array in zip(inputs, encoded, strict=True)}
        read = [node.inputs[0].name for node in self._nodes if node.op == "lookup"]
        self.names = tuple(dict.fromkeys(read))
        self._dropped = _dropped_bits(module.program.nodes)
        self._reference: dict[int, Array] = {}

    def decoded(self, layer: str | None) -> Any:
        """The model's outputs where the named layer is as in the circuit; first, where none is."""
        values: dict[int, Array] = {}
        changed: set[int] = set()
        for node in self._nodes:
            concerns = node.op == "lookup" and node.inputs[0].name == layer
            if not concerns and self._reference and not any(id(n) in changed for n in node.inputs):
                values[id(node)] = self._reference[id(node)]
                continue
            changed.add(id(node))
            values[id(node)] = self._value(node, values, concerns)
        if layer is None:
            self._reference = values
        return decode(self._module.decoder, [values[id(node)] for node in self._integers])

    def _value(self, node: Node, values: Mapping[int, Array], as_in_circuit: bool) -> Array:
        if node.op == "input":
            return self._inputs[id(node)].astype(np.float64)
        if node.op != "lookup":
            arrays = [values[id(source)] for source in node.inputs]
            integers = RULES[node.op].evaluate(arrays, node.attributes, self._batch)
            entry = self._module.plan.accumulators.get(node.name)
            # What tuning adds belongs to the weights that it chose.
            return integers if entry is None or not np.any(entry.shift) else integers + entry.shift
        root = values[id(node.attributes["root"])]
        if as_in_circuit:
            return group_values(node, self._rounded(node, root), self._batch)
        return real_group_values(node, root, self._batch)

    def _rounded(self, node: Node, values: Array) -> Array:
        """An accumulator as its look-up sees it: the middle of its level, without the offset."""
        name = node.inputs[0].name
        dropped, exact = self._dropped.get(name, (0, True))
        entry = self._module.plan.accumulators.get(name)
        integers = np.rint(values)
        if not dropped or entry is None:
            return integers
        offset = np.asarray(entry.offset)
        if offset.ndim and offset.ndim != values.ndim:
            # The float group starts before a layout op that the accumulator comes after.
            offset = np.asarray(0)
        level = (integers + offset) / 2.0**dropped
        level += 0.5 if exact else 0.5 + 2.0 ** -(dropped + 1)
        if not exact:
            level += Noise(self._module.p_error, self._seed)(level.shape)
        rounded: Array = np.floor(level) * 2.0**dropped - offset
        return rounded


def _dropped_bits(nodes: Sequence[Node]) -> dict[str, tuple[int, bool]]:
    """For each accumulator, how many of its own bits the rounding drops, and whether exactly."""
    return {
        node.name: (
            node.attributes["dropped"] - node.attributes["raised"],
            node.attributes["exact"],
        )
        for node in nodes
        if node.op == "round"
    }
