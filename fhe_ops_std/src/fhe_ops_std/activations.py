"""Activations of the default ONNX domain in NumPy float: ReLU and its variants, sigmoids, softmax.

Constants are brought to the input's dtype first: a Python float and a 0-d float32 array make a
float64 in NumPy 1. Functions in two pieces are written as a sum over the positive and the negative
part of x rather than with ``np.where``, which costs five times as much on mixed signs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ._blocks import by_blocks
from ._precision import precise, rounded
from .arithmetic import erf

Array = NDArray[Any]

# --- rectifiers ---


def relu(x: Array, /) -> Array:
    """ONNX Relu-14: max(0, x)."""
    return np.maximum(x, x.dtype.type(0))


def leaky_relu(x: Array, /, *, alpha: float = 0.009999999776482582) -> Array:
    """ONNX LeakyRelu-16: alpha * x for x < 0, x for x >= 0."""
    zero = x.dtype.type(0)
    return np.maximum(x, zero) + x.dtype.type(alpha) * np.minimum(x, zero)


def p_relu_6(x: Array, slope: Array, /) -> Array:
    """ONNX PRelu-6: slope * x for x < 0, x for x >= 0; slope is one number, or one a channel."""
    if slope.size > 1 and slope.shape != x.shape[1:2]:
        raise ValueError(f"slope of shape {slope.shape} has not one number for each channel of x")
    return p_relu(x, slope.reshape(-1, *(1,) * max(x.ndim - 2, 0)) if slope.size > 1 else slope)


def p_relu(x: Array, slope: Array, /) -> Array:
    """ONNX PRelu-16: slope * x for x < 0, x for x >= 0; slope broadcasts to x."""
    zero = x.dtype.type(0)
    return np.minimum(x, zero) * slope + np.maximum(x, zero)


def thresholded_relu(x: Array, /, *, alpha: float = 1.0) -> Array:
    """ONNX ThresholdedRelu-22: x for x > alpha, 0 otherwise."""
    return np.where(x > x.dtype.type(alpha), x, x.dtype.type(0))


@by_blocks
def elu(x: Array, /, *, alpha: float = 1.0) -> Array:
    """ONNX Elu-22: alpha * (exp(x) - 1) for x < 0, x for x >= 0."""
    zero = x.dtype.type(0)
    return np.maximum(x, zero) + x.dtype.type(alpha) * np.expm1(np.minimum(x, zero))


@by_blocks
def selu(
    x: Array, /, *, alpha: float = 1.6732631921768188, gamma: float = 1.0507010221481323
) -> Array:
    """ONNX Selu-22: gamma * (alpha * exp(x) - alpha) for x <= 0, gamma * x for x > 0."""
    return x.dtype.type(gamma) * elu(x, alpha=alpha)


@by_blocks
def celu(x: Array, /, *, alpha: float = 1.0) -> Array:
    """ONNX Celu-28: max(0, x) + min(0, alpha * (exp(x / alpha) - 1))."""
    zero, scale = x.dtype.type(0), x.dtype.type(alpha)
    return np.maximum(x, zero) + scale * np.expm1(np.minimum(x, zero) / scale)


@by_blocks
def shrink(input: Array, /, *, bias: float = 0.0, lambd: float = 0.5) -> Array:
    """ONNX Shrink-9: x + bias for x < -lambd, x - bias for x > lambd, 0 otherwise."""
    # Not in x's type: for unsigned integers -lambd would be a large number.
    wide = input.astype(np.promote_types(input.dtype, np.float32), copy=False)
    y = np.where(wide < -lambd, wide + bias, np.where(wide > lambd, wide - bias, 0))
    return y.astype(input.dtype)


# --- sigmoids and their products with x ---


@by_blocks
def sigmoid(x: Array, /) -> Array:
    """ONNX Sigmoid-13: 1 / (1 + exp(-x)).

    Computed as exp(min(x, 0)) / (1 + exp(-|x|)), in which nothing overflows.
    """
    zero, one = x.dtype.type(0), x.dtype.type(1)
    return np.exp(np.minimum(x, zero)) / (one + np.exp(-np.abs(x)))


def hard_sigmoid(x: Array, /, *, alpha: float = 0.20000000298023224, beta: float = 0.5) -> Array:
    """ONNX HardSigmoid-22: max(0, min(1, alpha * x + beta))."""
    scalar = x.dtype.type
    return np.minimum(np.maximum(scalar(alpha) * x + scalar(beta), scalar(0)), scalar(1))


def hard_swish(x: Array, /) -> Array:
    """ONNX HardSwish-22: x * max(0, min(1, x / 6 + 1 / 2))."""
    return x * hard_sigmoid(x, alpha=1 / 6, beta=0.5)


@by_blocks
def swish(x: Array, /, *, alpha: float = 1.0) -> Array:
    """ONNX Swish-24: x * sigmoid(alpha * x)."""
    return x * sigmoid(x.dtype.type(alpha) * x)


def swi_glu(a: Array, b: Array, /, *, alpha: float = 1.0) -> Array:
    """ONNX SwiGLU-28: a * sigmoid(alpha * a) * b, of one shape."""
    if a.shape != b.shape:
        raise ValueError(f"a and b do not broadcast: {a.shape} and {b.shape}")
    return rounded(swish(precise(a), alpha=alpha) * precise(b), a.dtype)


@by_blocks
def gelu(x: Array, /, *, approximate: Literal["none", "tanh"] = "none") -> Array:
    """ONNX Gelu-20: x / 2 * (1 + erf(x / sqrt 2)).

    With ``approximate="tanh"``: x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x³))).
    """
    scalar = x.dtype.type
    half = scalar(0.5)
    if approximate == "tanh":
        scale, cubic = scalar(math.sqrt(2 / math.pi)), scalar(0.044715 * math.sqrt(2 / math.pi))
        inner = np.tanh(x * (scale + cubic * (x * x)))
    else:
        inner = erf(x * scalar(math.sqrt(0.5)))
    return x * (half + half * inner)


@by_blocks
def mish(x: Array, /) -> Array:
    """ONNX Mish-22: x * tanh(log(1 + exp(x)))."""
    return x * np.tanh(softplus(x))


# --- other squashing functions ---


def tanh(input: Array, /) -> Array:
    """ONNX Tanh-13: the hyperbolic tangent."""
    return np.tanh(input)


@by_blocks
def softplus(x: Array, /) -> Array:
    """ONNX Softplus-22: log(1 + exp(x)).

    Computed as max(x, 0) + log(1 + exp(-|x|)), in which nothing overflows.
    """
    # np.logaddexp is the same number, fifteen times as slowly.
    return np.maximum(x, x.dtype.type(0)) + np.log1p(np.exp(-np.abs(x)))


def softsign(input: Array, /) -> Array:
    """ONNX Softsign-22: x / (1 + |x|)."""
    return input / (input.dtype.type(1) + np.abs(input))


# --- over an axis ---
# Up to opset 12 the input counts as a matrix with the axes before `axis` as rows and all the others
# as columns, so these are functions of several axes at once; since opset 13, of one.


def softmax_1(input: Array, /, *, axis: int = 1) -> Array:
    """ONNX Softmax-1 and -11: exp(x) / sum(exp(x)), summed over ``axis`` and all axes after it."""
    return _softmax(input, _axes_from(axis, input.ndim))


def softmax_13(input: Array, /, *, axis: int = -1) -> Array:
    """ONNX Softmax-13: exp(x) / sum(exp(x)), summed over ``axis``."""
    return _softmax(input, axis)


def log_softmax_1(input: Array, /, *, axis: int = 1) -> Array:
    """ONNX LogSoftmax-1 and -11: x - log(sum(exp(x))), over ``axis`` and all axes after it."""
    return _log_softmax(input, _axes_from(axis, input.ndim))


def log_softmax_13(input: Array, /, *, axis: int = -1) -> Array:
    """ONNX LogSoftmax-13: x - log(sum(exp(x))), summed over ``axis``."""
    return _log_softmax(input, axis)


def hardmax_1(input: Array, /, *, axis: int = 1) -> Array:
    """ONNX Hardmax-1 and -11: 1 at the first maximum over ``axis`` and all after it, else 0."""
    first = _first(axis, input.ndim)
    matrix = input.reshape(math.prod(input.shape[:first]), math.prod(input.shape[first:]))
    return _hardmax(matrix, 1).reshape(input.shape)


def hardmax_13(input: Array, /, *, axis: int = -1) -> Array:
    """ONNX Hardmax-13: 1 at the first maximum along ``axis``, 0 elsewhere."""
    return _hardmax(input, axis)


def _softmax(x: Array, axes: int | tuple[int, ...]) -> Array:
    if x.size == 0:
        return x
    exponentials = np.exp(x - np.max(x, axis=axes, keepdims=True))  # at most exp(0)
    return exponentials / np.sum(exponentials, axis=axes, keepdims=True)


def _log_softmax(x: Array, axes: int | tuple[int, ...]) -> Array:
    if x.size == 0:
        return x
    shifted = x - np.max(x, axis=axes, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=axes, keepdims=True))


def _hardmax(x: Array, axis: int) -> Array:
    if x.size == 0 or x.ndim == 0:
        return np.ones_like(x)
    along = [1] * x.ndim
    along[axis] = -1
    positions = np.arange(x.shape[axis]).reshape(along)
    return (np.argmax(x, axis=axis, keepdims=True) == positions).astype(x.dtype)


def _axes_from(axis: int, ndim: int) -> tuple[int, ...]:
    return tuple(range(_first(axis, ndim), ndim))


def _first(axis: int, ndim: int) -> int:
    # Not a modulo: axis = ndim is allowed, and leaves one column.
    return axis + ndim if axis < 0 else axis


IMPLEMENTATIONS: tuple[tuple[str, int, Callable[..., Any]], ...] = (
    ("Relu", 6, relu),
    ("LeakyRelu", 6, leaky_relu),
    ("PRelu", 6, p_relu_6),
    ("PRelu", 7, p_relu),
    ("ThresholdedRelu", 10, thresholded_relu),
    ("Shrink", 9, shrink),
    ("Elu", 6, elu),
    ("Selu", 6, selu),
    ("Celu", 12, celu),
    ("Sigmoid", 6, sigmoid),
    ("HardSigmoid", 6, hard_sigmoid),
    ("HardSwish", 14, hard_swish),
    ("Swish", 24, swish),
    ("SwiGLU", 28, swi_glu),
    ("Gelu", 20, gelu),
    ("Mish", 18, mish),
    ("Tanh", 6, tanh),
    ("Softplus", 1, softplus),
    ("Softsign", 1, softsign),
    ("Softmax", 1, softmax_1),
    ("Softmax", 13, softmax_13),
    ("LogSoftmax", 1, log_softmax_1),
    ("LogSoftmax", 13, log_softmax_13),
    ("Hardmax", 1, hardmax_1),
    ("Hardmax", 13, hardmax_13),
)
