"""Everything that a report says of a module, as plain data: docs/json.md describes the keys."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import fhe_core
from fhe_core.compiler.pareto import points
from fhe_core.compiler.report.decisions import decisions
from fhe_core.compiler.report.layers import Layer, layers_of
from fhe_core.compiler.report.measuring import Errors, measured
from fhe_core.graph.ir import Graph
from fhe_core.program.remarks import elements
from fhe_core.program.widths import bits_of
from fhe_core.quantization.module import FusionRow, QuantizedModule, Spending


def collected(module: QuantizedModule) -> dict[str, Any]:
    """The report of a module. Add keys to it, change none."""
    errors = measured(module)
    spending = module.circuit.spending if module.circuit else None
    layers = layers_of(module.program)
    return {
        "fhe_core": fhe_core.__version__,
        "packs": [{"name": name, "version": version} for name, version in module.packs.items()],
        "passes": list(module.passes),
        "inputs": _inputs(module),
        "outputs": list(module.output_names),
        "cost": asdict(module.cost) if module.circuit else None,
        "sizes": dict(spending.sizes) if spending else None,
        "errors": {
            "whole": _number(errors.whole),
            "weights": _number(errors.weights),
            "samples": errors.samples,
        },
        "overflow": {
            "policy": module.plan.settings.get("overflow", "calibrated"),
            "headroom": _least_headroom(module),
            "risk": module.plan.setting("overflow_risk"),
            "share": module.plan.overflow_share,
        },
        "client": _client(module),
        "layers": [_layer(layer, module, errors, spending) for layer in layers],
        "fusion": [asdict(row) for row in module.fusion],
        "graph": _graph(module, layers),
        "savings": [_saving(saving) for saving in module.savings],
        "notices": list(module.notices),
        "search": _search(module),
    }


def _inputs(module: QuantizedModule) -> list[dict[str, Any]]:
    return [
        {
            "name": info.name,
            "type": str(info),
            "range": list(module.input_ranges.get(info.name, ())) or None,
        }
        for info in module.input_infos
    ]


def _layer(
    layer: Layer, module: QuantizedModule, errors: Errors, spending: Spending | None
) -> dict[str, Any]:
    fused = [row for row in module.fusion if layer.name in row.lookups]
    entry = module.plan.accumulators.get(layer.name)
    complexity = lookups = share = None
    if spending is not None and module.circuit is not None:
        complexity = math.fsum(spending.complexity.get(number, 0.0) for number in layer.numbers)
        lookups = sum(spending.lookups.get(number, 0) for number in layer.numbers)
        share = complexity / (module.circuit.cost.complexity or 1.0)
    return {
        "name": layer.name,
        "nodes": _in_graph_order(layer.origins, module.fusion),
        "ops": _ops(layer.origins, module.fusion),
        "fused_nodes": [row.node for row in fused],
        "fused_ops": [row.op for row in fused],
        "output": layer.is_output,
        "bits_in": layer.bits_in,
        "weight_bits": layer.weight_bits,
        "accumulator_bits": layer.accumulator_bits,
        "rounded_bits": layer.rounding.width if layer.rounding else None,
        "exact_rounding": bool(layer.rounding and layer.rounding.attributes["exact"]),
        "lookups": layer.lookups if lookups is None else lookups,
        "complexity": complexity,
        "share": share,
        "error": _number(errors.layers.get(layer.name)),
        "headroom": entry.headroom if entry else None,
        "decisions": decisions(layer, module),
    }


def _in_graph_order(names: Sequence[str], rows: Sequence[FusionRow]) -> list[str]:
    places = {row.node: place for place, row in enumerate(rows)}
    return sorted(names, key=lambda name: places.get(name, len(places)))


def _ops(names: Sequence[str], rows: Sequence[FusionRow]) -> list[str]:
    ops = {row.node: row.op for row in rows}
    return [ops[name] for name in _in_graph_order(names, rows) if name in ops]


def _least_headroom(module: QuantizedModule) -> float | None:
    found = [entry.headroom for entry in module.plan.accumulators.values()]
    return min(found, default=None)


def _client(module: QuantizedModule) -> dict[str, Any]:
    inputs = {info.name for info in module.input_infos}
    rows = [row for row in module.fusion if row.mode == "client"]
    early = [row for row in rows if set(row.group) <= inputs]
    late = [row for row in rows if row not in early]
    received = [
        {"name": n.name, "integers": elements(n), "bits": bits_of(*n.bounds)}
        | {"encrypted": bool(n.attributes["encrypted"])}
        for n in module.program.inputs
    ]
    sent = [{"integers": elements(n), "bits": n.width} for n in module.program.outputs]
    return {
        "before": [row.node for row in early],
        "before_ops": [row.op for row in early],
        "after": [row.node for row in late],
        "after_ops": [row.op for row in late],
        "encodes_with": module.encoder.rows(),
        "decodes_with": module.decoder.rows(),
        "sends": received,
        "receives": sent,
        "learns": _learns(early, late),
    }


def _learns(early: Sequence[FusionRow], late: Sequence[FusionRow]) -> list[str]:
    """What the client's folder tells whoever reads it."""
    found = ["names, types and calibrated ranges of the inputs, and the scale of each"]
    if early:
        ops = ", ".join(f"{row.op} ({row.node})" for row in early)
        found.append(f"what runs before encryption, with its constants: {ops}")
    found.append("names of the outputs, and the scale and offset of each")
    if late:
        ops = ", ".join(f"{row.op} ({row.node})" for row in late)
        found.append(f"what runs after decryption, with its constants: {ops}")
    found.append("the parameters of the keys, which tell about how wide the look-ups are")
    return found


def _graph(module: QuantizedModule, layers: Sequence[Layer]) -> dict[str, Any]:
    evidence = module.evidence
    return {
        "edges": _edges(evidence.graph) if evidence else [],
        "groups": [group for layer in layers for group in _groups(layer, module.fusion)],
    }


def _edges(graph: Graph) -> list[dict[str, str | None]]:
    """From node to node; an edge from or to nothing is an input or an output of the model."""
    made: dict[str, str | None] = dict.fromkeys(graph.input_names)
    made.update((name, node.name) for node in graph.nodes for name in node.writes)
    edges: list[dict[str, str | None]] = [
        {"from": made[name], "to": node.name, "tensor": name}
        for node in graph.nodes
        for name in dict.fromkeys(node.reads)
        if name in made
    ]
    ends = zip(graph.output_names, graph.output_labels, strict=True)
    return edges + [
        {"from": made[n], "to": None, "tensor": label} for n, label in ends if n in made
    ]


def _groups(layer: Layer, rows: Sequence[FusionRow]) -> list[dict[str, Any]]:
    """The nodes that become one layer's look-ups. Without any, the two that they stand between."""
    if not layer.lookups:
        return []
    fused = [row.node for row in rows if layer.name in row.lookups]
    if fused:
        return [{"layer": layer.name, "nodes": fused, "between": []}]
    consumers = dict.fromkeys(n.where.node for n in layer.nodes if n.op == "lookup")
    known = [row.node for row in rows]
    groups = []
    for consumer in filter(None, consumers):
        producer = next((name for name in reversed(layer.origins) if name in known), None)
        within = producer in (None, consumer) or consumer in layer.origins
        between = [] if within else [producer, consumer]
        groups.append(
            {"layer": layer.name, "nodes": [consumer] if within else [], "between": between}
        )
    return groups


def _saving(saving: Any) -> dict[str, Any]:
    return {
        "name": saving.name,
        "node": saving.node,
        "lookups": saving.lookups,
        "says": saving.says,
        "exact": saving.exact,
    }


def _search(module: QuantizedModule) -> dict[str, Any] | None:
    if not module.search:
        return None
    outcome = module.outcome
    return {
        "candidates": len(module.search),
        "float_score": _number(outcome.float_score if outcome else None),
        "score": _number(outcome.score if outcome else None),
        "tolerance": _number(outcome.tolerance if outcome else None),
        "points": [asdict(point) for point in points(module.search)],
    }


def _number(value: float | None) -> float | None:
    """JSON has neither NaN nor infinity."""
    return None if value is None or not math.isfinite(value) else float(value)
