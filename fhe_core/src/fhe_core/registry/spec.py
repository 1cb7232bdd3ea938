"""One row of the registry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fhe_core.registry.provenance import PackInfo
from fhe_core.registry.registrar import Fusion
from fhe_core.registry.signature import OpSignature


@dataclass(frozen=True)
class OpSpec:
    """An operator over a range of opsets, and who supplies it.

    Attributes:
        domain: "" for ONNX's default domain.
        op_type: ONNX's name of the operator.
        since_version: the first opset served.
        until: the last opset served; None if that is the newest known.
        signature: inputs and attributes, from the NumPy implementation.
        fusion: "always", "never" or "conditional"; None without a quantized form.
        impl: the NumPy implementation; that of the quantized class where nobody registered one.
        impl_origin: the pack that supplies ``impl``.
        quantized: the `fhe_core.QuantizedOp`, or None: then the operator runs in float only.
        quantized_origin: the pack that supplies ``quantized``.
        left_out_origin: the pack whose quantized class does not serve, because it computes a function that
            ``impl`` replaces; None where nothing is left out.
        shadowed: another registration serves here instead; such a row holds one slot alone.
        alternative: registered to be chosen, never to serve by itself; such a row is shadowed too.
    """

    domain: str
    op_type: str
    since_version: int
    until: int | None
    signature: OpSignature | None
    fusion: Fusion | None
    impl: Callable[..., Any] | None
    impl_origin: PackInfo | None
    quantized: type | None
    quantized_origin: PackInfo | None
    shadowed: bool = False
    alternative: bool = False
    left_out_origin: PackInfo | None = None

    @property
    def impl_pack(self) -> str | None:
        """The name of the pack that supplies ``impl``."""
        return self.impl_origin.name if self.impl_origin else None

    @property
    def quantized_pack(self) -> str | None:
        """The name of the pack that supplies ``quantized``."""
        return self.quantized_origin.name if self.quantized_origin else None

    def serves(self, opset: int) -> bool:
        """Whether a model of this opset gets this row."""
        return self.since_version <= opset and (self.until is None or opset <= self.until)
