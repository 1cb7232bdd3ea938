"""Which operators there are, and whose.

A pack is a distribution with an entry point in the group ``fhe_core.packs``; it registers NumPy
functions and quantized classes through one hook. `get_registry` finds the packs and answers which
registration a model's node means. Nothing here imports numpy or onnx.
"""

from __future__ import annotations

from fhe_core.registry.current import get_registry, load_registry, registered
from fhe_core.registry.hooks import hookimpl
from fhe_core.registry.packs import PackInfo
from fhe_core.registry.registrar import Registrar
from fhe_core.registry.registry import Registry
from fhe_core.registry.signature import OUTPUTS_WANTED, REQUIRED, OpSignature
from fhe_core.registry.spec import OpSpec

__all__ = [
    "OUTPUTS_WANTED",
    "REQUIRED",
    "OpSignature",
    "OpSpec",
    "PackInfo",
    "Registrar",
    "Registry",
    "get_registry",
    "hookimpl",
    "load_registry",
    "registered",
]
