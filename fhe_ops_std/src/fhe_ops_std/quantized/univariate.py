"""Functions of each element: the first case, where the NumPy implementation is all there is to say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core import CompilationError, QuantizedArray, QuantizedOp
from fhe_ops_std.quantized.stages import LEAST_EXPONENT

#: One encrypted input, any constants: a table look-up of whatever precedes.
NAMES = (
    # activations
    "Celu",
    "Elu",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "LeakyRelu",
    "Mish",
    "Relu",
    "Selu",
    "Shrink",
    "Sigmoid",
    "Softplus",
    "Softsign",
    "Swish",
    "Tanh",
    "ThresholdedRelu",
    # arithmetic
    "Abs",
    "Acos",
    "Acosh",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "Ceil",
    "Clip",
    "Cos",
    "Cosh",
    "Erf",
    "Floor",
    "Log",
    "Neg",
    "Reciprocal",
    "Round",
    "Sign",
    "Sin",
    "Sinh",
    "Sqrt",
    "Tan",
    # logic
    "IsInf",
    "IsNaN",
    "Not",
    # conversions
    "Cast",
    "CastLike",
    "Identity",
)


#: To whole numbers, whatever comes; and those that leave whole numbers whole.
_ROUNDS = frozenset(("Ceil", "Floor", "Round", "Sign"))
_KEEPS = frozenset(("Abs", "Cast", "CastLike", "Identity", "Neg", "Relu"))


class Univariate(QuantizedOp):
    """A function of each element."""

    def gives_whole_numbers(self, whole: Sequence[bool]) -> bool:
        name = self._impl_for_op_named
        return name in _ROUNDS or (name in _KEEPS and whole[0])


def univariate(name: str) -> type[QuantizedOp]:
    """The quantized form of an op that is a function of each element."""
    return type(
        f"Quantized{name}",
        (Univariate,),
        {
            "__doc__": f"{name}, as a table look-up.",
            "__module__": __name__,
            "_impl_for_op_named": name,
        },
    )


class QuantizedExp(QuantizedOp):
    """The exponential, as a table look-up."""

    _impl_for_op_named = "Exp"

    def reach(self, x: NDArray[Any]) -> tuple[float, float]:
        return float(x.max()) + LEAST_EXPONENT, np.inf


class TrainableOp(QuantizedOp):
    """A function of each element when a model is used, and not while it is trained."""

    def training(self) -> bool:
        """Whether this node is as it was in training."""
        raise NotImplementedError

    def can_fuse(self) -> bool:
        return not self.training()

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        if self.training():
            raise CompilationError(
                "the node is in training mode, in which it mixes samples or draws at random",
                where=self.where,
                expected="training_mode off",
                fix="export the model for inference (torch: model.eval())",
            )
        return super().q_impl(*q_inputs, **attrs)


class QuantizedBatchNormalization(TrainableOp):
    """BatchNormalization with constant statistics: affine in each channel."""

    _impl_for_op_named = "BatchNormalization"

    def training(self) -> bool:
        return bool(self.attrs.get("training_mode"))


class QuantizedDropout(TrainableOp):
    """Dropout, which drops nothing when a model is used."""

    _impl_for_op_named = "Dropout"

    def training(self) -> bool:
        ratio, mode = self.constant(1), self.constant(2)
        return bool(mode is not None and mode) and (ratio is None or bool(ratio))


CLASSES: tuple[type[QuantizedOp], ...] = (
    *(univariate(name) for name in NAMES),
    QuantizedExp,
    QuantizedBatchNormalization,
    QuantizedDropout,
)
