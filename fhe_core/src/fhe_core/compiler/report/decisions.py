"""What the planner decided about a layer, and why, in sentences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from fhe_core.compiler.report.layers import Layer
from fhe_core.quantization.module import QuantizedModule
from fhe_core.quantization.plan import AccumulatorPlan

_JOINING = {"add", "subtract", "concatenate"}


def decisions(layer: Layer, module: QuantizedModule) -> list[str]:
    """One sentence for each decision, the most expensive first."""
    found = [*_rounding(layer, module), *_weights(layer, module), *_joins(layer)]
    entry = module.plan.accumulators.get(layer.name)
    return [*found, *_offset(entry), *_savings(layer, module)]


def _rounding(layer: Layer, module: QuantizedModule) -> Iterator[str]:
    rounding = layer.rounding
    if not layer.lookups:
        yield "needs no look-up: the client decrypts the accumulator"
    elif rounding is None:
        yield f"not rounded: its look-ups read all {layer.accumulator_bits} bits"
    else:
        how = "exactly" if rounding.attributes["exact"] else "approximately"
        yield f"rounded {how} to {rounding.width} bits, {_reason(layer, module)}"


def _reason(layer: Layer, module: QuantizedModule) -> str:
    kept = getattr(module.plan.accumulators.get(layer.name), "rounding", None)
    usual = module.plan.settings.get("rounding")
    if not module.search:
        return "as the plan says"
    if kept is None or usual is None or kept == usual:
        return "the fewest with which the search stayed within tolerance"
    fewer = "fewer" if kept < usual else "more"
    return f"{fewer} than the {usual} of other layers: the search tried this layer by itself"


def _weights(layer: Layer, module: QuantizedModule) -> Iterator[str]:
    plan = module.plan
    tuned = [n for n in layer.nodes if n.attributes.get("kernel") in plan.kernels]
    if tuned:
        steps = plan.settings.get("tuning")
        yield f"weights tuned{f' in {steps} steps' if steps else ''} to make up for the roundings"
    names = {node.where.node for node in layer.nodes if "weights" in node.attributes}
    for name, weight in plan.weights.items():
        if name.rsplit("@", 1)[-1] not in names:
            continue
        if weight.trained:
            yield "weights keep the scale that they were trained with"
        elif np.size(weight.scale) > 1:
            yield (
                f"weights planned for {weight.bits} bits, with a scale for each of "
                f"{np.size(weight.scale)} channels that makes it fill the accumulator"
            )


def _joins(layer: Layer) -> Iterator[str]:
    for node in layer.nodes:
        if node.op in _JOINING and len(node.inputs) > 1:
            yield f"{node.where.op or node.op} joins tensors of one scale, without look-ups of its own"


def _offset(entry: AccumulatorPlan | None) -> Iterator[str]:
    offset = np.asarray(entry.offset if entry else 0)
    if offset.size > 1:
        yield "each channel centred in the accumulator by an offset, which is free"
    elif offset.any():
        yield "centred in the accumulator by an offset, which is free"
    if entry is not None and entry.antiperiodic:
        yield "its look-ups use the padding bit: they are triangles, and take one bit less"


def _savings(layer: Layer, module: QuantizedModule) -> Iterable[str]:
    own = {layer.name, *layer.origins}
    own |= {row.node for row in module.fusion if layer.name in row.lookups}
    return (saving.says for saving in module.savings if saving.lookups and saving.node in own)
