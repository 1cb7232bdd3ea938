"""The fusion table: what became of each op, and which look-ups it is part of."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from fhe_core.program.nodes import Call, ordered
from fhe_core.program.program import Program
from fhe_core.quantization.module import FusionRow
from fhe_core.quantization.placement import Placement
from fhe_core.quantization.recording import Recorded


def fusion_table(placement: Placement, recorded: Recorded) -> list[FusionRow]:
    """One row for each op, in graph order.

    Args:
        recorded: what the ops were recorded as, its accumulators named.
    """
    late = _after_decryption(placement, recorded)
    clear = set(placement.graph.input_names) - placement.direct_inputs
    groups = lookup_groups(recorded)
    lookups_of: dict[str, list[str]] = defaultdict(list)
    for key, members in groups.items():
        for member in members:
            lookups_of[member].append(key)
    rows = []
    for placed in placement.ops:
        name = placed.node.name
        early = bool(placed.sources) and placed.sources <= clear and placed.fused
        mode = "client" if name in late or early else "float" if placed.fused else "mixed"
        rows.append(
            FusionRow(
                name,
                placed.node.op_type,
                placed.pack,
                mode,
                tuple(sorted(placed.sources)),
                tuple(lookups_of[name]) if mode == "float" else (),
            )
        )
    return rows


def lookup_groups(recorded: Recorded) -> Mapping[str, set[str]]:
    """Names of the ONNX nodes whose arithmetic became the look-ups of each accumulator, by its name."""
    groups: dict[str, set[str]] = {}
    for node in Program.of(recorded.integers).lookups:
        steps = ordered([node.attributes["call"]], stop_at_nodes=True)
        members = {step.where.node for step in steps if isinstance(step, Call)}
        groups.setdefault(node.inputs[0].name, set()).update(filter(None, members))
    return groups


def _after_decryption(placement: Placement, recorded: Recorded) -> set[str]:
    """Nodes that run on the client: no look-up and no output accumulator comes after them."""
    nodes = Program.of(recorded.integers).nodes
    recorded_by = [node.origin for node in nodes if node.origin]
    origins = {name for origin in recorded_by for name in (origin.where.node, origin.output)}
    late: set[str] = set()
    needed = set(placement.graph.output_names)
    for placed in reversed(placement.ops):
        writes = set(placed.node.writes)
        if not writes & needed:
            continue
        users = {use.node.name for name in writes for use, _ in placement.consumers.get(name, ())}
        if {placed.node.name, *writes} & origins or not users <= late:
            continue
        late.add(placed.node.name)
        needed |= set(placed.variable)
    return late
