"""Run ONNX models on encrypted data.

Every public name resolves on first use (PEP 562), so that ``import fhe_core`` costs next to nothing
and a program that only lists operators never pays for ONNX or for the FHE compiler.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fhe_core.compiler.artifact import Client, Server, load, load_client, load_server
    from fhe_core.compiler.compile import compile
    from fhe_core.errors import (
        ArtifactError,
        CalibrationError,
        CompilationError,
        FheError,
        InputError,
        ModelError,
        PackError,
        PlanError,
        ProcessError,
        ResourceError,
        SignatureError,
        UnsupportedOpError,
        Where,
        WrapAroundWarning,
    )
    from fhe_core.graph.ir import Graph, Node
    from fhe_core.graph.runner import NumpyModule
    from fhe_core.graph.support import SupportReport
    from fhe_core.program import primitives
    from fhe_core.program.remarks import Remark
    from fhe_core.program.tensor import Tensor
    from fhe_core.quantization.array import QuantizedArray
    from fhe_core.quantization.module import QuantizedModule
    from fhe_core.quantization.op import QuantizedOp, WeightChannels
    from fhe_core.quantization.plan import Plan
    from fhe_core.quantization.post_training import quantize
    from fhe_core.quantization.quantizers import QuantizationParameters, QuantizationStats
    from fhe_core.registry import (
        OUTPUTS_WANTED,
        OpSignature,
        OpSpec,
        PackInfo,
        get_registry,
        hookimpl,
        hookspec,
        registered,
    )

__version__ = "0.1.0"

_HOMES: dict[str, tuple[str, ...]] = {
    "errors": (
        "ArtifactError",
        "CalibrationError",
        "CompilationError",
        "FheError",
        "InputError",
        "ModelError",
        "PackError",
        "PlanError",
        "ProcessError",
        "ResourceError",
        "SignatureError",
        "UnsupportedOpError",
        "Where",
        "WrapAroundWarning",
    ),
    "registry": (
        "OUTPUTS_WANTED",
        "OpSignature",
        "OpSpec",
        "PackInfo",
        "get_registry",
        "hookimpl",
        "hookspec",
        "hookspec",
        "registered",
    ),
    "program": ("primitives",),
    "program.remarks": ("Remark",),
    "program.tensor": ("Tensor",),
    "graph.ir": ("Graph", "Node"),
    "graph.runner": ("NumpyModule",),
    "graph.support": ("SupportReport",),
    "quantization.checking": ("check",),
    "quantization.array": ("QuantizedArray",),
    "quantization.op": ("QuantizedOp", "WeightChannels"),
    "quantization.quantizers": ("QuantizationParameters", "QuantizationStats"),
    "quantization.plan": ("Plan",),
    "quantization.module": ("QuantizedModule",),
    "quantization.post_training": ("quantize",),
    "compiler.compile": ("compile",),
    "compiler.artifact": ("Client", "Server", "load", "load_client", "load_server"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "OUTPUTS_WANTED",
    "ArtifactError",
    "CalibrationError",
    "Client",
    "CompilationError",
    "FheError",
    "Graph",
    "InputError",
    "ModelError",
    "Node",
    "NumpyModule",
    "OpSignature",
    "OpSpec",
    "PackError",
    "PackInfo",
    "Plan",
    "PlanError",
    "ProcessError",
    "QuantizationParameters",
    "QuantizationStats",
    "QuantizedArray",
    "QuantizedModule",
    "QuantizedOp",
    "Remark",
    "ResourceError",
    "Server",
    "SignatureError",
    "SupportReport",
    "Tensor",
    "UnsupportedOpError",
    "WeightChannels",
    "Where",
    "WrapAroundWarning",
    "check",
    "compile",
    "get_registry",
    "hookimpl",
    "hookspec",
    "load",
    "load_client",
    "load_server",
    "primitives",
    "quantize",
    "registered",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"{__name__}.{home}")
    if name == "primitives":
        # A submodule: importing it has already bound it in its package.
        module = import_module(f"{__name__}.program.primitives")
        globals()[name] = module
        return module
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
