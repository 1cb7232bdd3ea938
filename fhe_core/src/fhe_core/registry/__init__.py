"""Which operators there are, and whose.

A pack is a distribution with an entry point in the group ``fhe_core.packs``; through a few hooks it
registers NumPy functions, quantized classes, graph passes, reductions and
alternatives, and chooses between candidates.
`get_registry` finds the packs and answers which registration a model's node means. Nothing here
imports numpy or onnx.
"""

from __future__ import annotations

from fhe_core.registry.calling import Hooks
from fhe_core.registry.choosing import Candidate, NodeView
from fhe_core.registry.current import get_registry, load_registry, registered
from fhe_core.registry.hooks import hookimpl, hookspec
from fhe_core.registry.passes import (
    GraphAlternative,
    GraphPass,
    GraphReduction,
    PassRegistrar,
    ProgramPass,
    Rewriting,
)
from fhe_core.registry.provenance import PackInfo, to_mend
from fhe_core.registry.registrar import Registrar
from fhe_core.registry.registry import Registry
from fhe_core.registry.signature import OUTPUTS_WANTED, REQUIRED, OpSignature
from fhe_core.registry.spec import OpSpec

__all__ = [
    "OUTPUTS_WANTED",
    "REQUIRED",
    "Candidate",
    "GraphAlternative",
    "GraphPass",
    "GraphReduction",
    "Hooks",
    "NodeView",
    "OpSignature",
    "OpSpec",
    "PackInfo",
    "PassRegistrar",
    "ProgramPass",
    "Registrar",
    "Registry",
    "Rewriting",
    "get_registry",
    "hookimpl",
    "hookspec",
    "load_registry",
    "registered",
    "to_mend",
]
