"""Choosing who serves one node, where several could: the question, and how it is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fhe_core.errors import PackError, Where
from fhe_core.registry.calling import Hooks
from fhe_core.registry.provenance import to_mend
from fhe_core.registry.registrar import Fusion, Registration, Slot
from fhe_core.registry.spec import OpSpec


@dataclass(frozen=True)
class NodeView:
    """What a choosing hook is told of a node.

    Attributes:
        op_type: ONNX's name of the operator.
        domain: "" for ONNX's default domain.
        opset: the version of that domain that the model imports.
        attributes: the node's own, read-only; those that it leaves to their defaults are missing.
        constants: the inputs that are constant, by position; read-only arrays. Before constants are
            folded, as when a model is run in float, that is initializers alone.
        input_count: how many inputs the node has, those that it leaves out in between among them.
        output_count: likewise.
    """

    op_type: str
    domain: str
    opset: int
    attributes: Mapping[str, Any]
    constants: Mapping[int, Any]
    input_count: int
    output_count: int


_HOOK = "fhe_choose_candidate"


# The target may be anything: candidates compare by identity.
@dataclass(frozen=True, eq=False)
class Candidate:
    """One registration that could serve a node.

    Attributes:
        slot: "impl" or "quantized".
        target: the NumPy function, or the quantized class.
        pack: the name of the pack that registered it.
        fusion: "always", "never" or "conditional"; None for a NumPy function.
        serving: whether it is taken if nobody chooses another.
    """

    slot: Slot
    target: Any
    pack: str
    fusion: Fusion | None
    serving: bool


def choose(
    hooks: Hooks,
    spec: OpSpec,
    slot: Slot,
    others: Sequence[Registration],
    node: NodeView,
    where: Where,
) -> OpSpec:
    """The spec with one slot as the first pack that has an opinion wants it.

    Args:
        spec: what serves if nobody has.
        others: the registrations besides that could fill the slot.
        where: the node, for errors.

    Raises:
        PackError: a hook raised, or answered with something else than a candidate.
    """
    offered = {Candidate(slot, r.target, r.pack, r.fusion, False): _filled(spec, r) for r in others}
    serving = _serving(spec, slot)
    if serving:
        offered = {serving: spec, **offered}
    candidates = tuple(offered)
    for origin, answer in hooks.each(_HOOK, where, node=node, candidates=candidates):
        if any(answer is candidate for candidate in candidates):
            return offered[answer]
        raise PackError(
            f"its hook {_HOOK} did not choose one of the candidates",
            where=replace(where, pack=origin.name),
            expected="one of the candidates that it was given, or None",
            got=repr(answer),
            fix=to_mend(origin, optional=True),
        )
    return spec


def _serving(spec: OpSpec, slot: Slot) -> Candidate | None:
    if slot == "impl":
        return Candidate(slot, spec.impl, spec.impl_pack or "", None, True)
    if spec.quantized is None:
        return None
    return Candidate(slot, spec.quantized, spec.quantized_pack or "", spec.fusion, True)


def _filled(spec: OpSpec, taken: Registration) -> OpSpec:
    if taken.slot == "impl":
        return replace(spec, impl=taken.target, impl_origin=taken.origin, signature=taken.signature)
    return replace(spec, quantized=taken.target, quantized_origin=taken.origin, fusion=taken.fusion)
