"""Functions of each element: the first case, where the NumPy implementation is all there is to say."""

from __future__ import annotations

from fhe_core import QuantizedOp

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
    "Exp",
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
    # per-channel affine, with constants for its statistics
    "BatchNormalization",
    # conversions
    "Cast",
    "CastLike",
    "Dropout",
    "Identity",
)


def univariate(name: str) -> type[QuantizedOp]:
    """The quantized form of an op that is a function of each element."""
    return type(
        f"Quantized{name}",
        (QuantizedOp,),
        {
            "__doc__": f"{name}, as a table look-up.",
            "__module__": __name__,
            "_impl_for_op_named": name,
        },
    )


CLASSES: tuple[type[QuantizedOp], ...] = tuple(univariate(name) for name in NAMES)
