"""Arithmetic of the default ONNX domain in NumPy float: element by element, with broadcasting.

The result's dtype is the input's throughout. Integers overflow by wrapping, as in ONNX's runtimes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_ops_std._domains import Flag

from ._blocks import by_blocks
from ._broadcasting import aligned, limited

Array = NDArray[Any]

# --- two operands ---


def add(a: Array, b: Array, /) -> Array:
    """ONNX Add-14: a + b."""
    return np.add(a, b)


def sub(a: Array, b: Array, /) -> Array:
    """ONNX Sub-14: a - b."""
    return np.subtract(a, b)


def mul(a: Array, b: Array, /) -> Array:
    """ONNX Mul-14: a * b."""
    return np.multiply(a, b)


def div(a: Array, b: Array, /) -> Array:
    """ONNX Div-14: a / b, truncated toward zero for integers."""
    if a.dtype.kind == "i":
        # NumPy floors. Without its remainder a is a multiple of b, where the two agree.
        return np.floor_divide(a - np.fmod(a, b), b)
    return np.floor_divide(a, b) if a.dtype.kind == "u" else np.divide(a, b)


def mod(a: Array, b: Array, /, *, fmod: Flag = 0) -> Array:
    """ONNX Mod-28: a - floor(a / b) * b, or with ``fmod`` a - trunc(a / b) * b."""
    return np.fmod(a, b) if fmod else np.mod(a, b)


def pow_1(x: Array, y: Array, /, *, axis: int | None = None, broadcast: Flag = 0) -> Array:
    """ONNX Pow-1: x ** y with limited broadcasting."""
    return pow(x, aligned(x, y, axis, broadcast))


def pow(x: Array, y: Array, /) -> Array:
    """ONNX Pow-15: x ** y, in the dtype of x.

    For integer x and negative y, x ** y truncated toward zero: 0, unless x is 1 or -1.
    """
    # The operator, not np.power: it squares, takes the root... for an exponent that is one number.
    if x.dtype.kind in "iu" and y.dtype.kind not in "iu":
        return (x**y).astype(x.dtype)
    exponent = y if y.dtype == x.dtype else y.astype(x.dtype)
    if x.dtype.kind != "i":
        return x**exponent
    whole = x ** np.abs(exponent)
    return np.where((exponent >= 0) | (np.abs(x) == 1), whole, x.dtype.type(0))


# --- any number of operands ---


def sum(*inputs: Array) -> Array:
    """ONNX Sum-13: the sum of the inputs, element by element."""
    return functools.reduce(np.add, inputs)


def mean(*inputs: Array) -> Array:
    """ONNX Mean-13: the mean of the inputs, element by element."""
    total = sum(*inputs)
    return np.divide(total, total.dtype.type(len(inputs)))


def min(*inputs: Array) -> Array:
    """ONNX Min-13: the least of the inputs, element by element; NaN if one is NaN."""
    return functools.reduce(np.minimum, inputs)


def max(*inputs: Array) -> Array:
    """ONNX Max-13: the greatest of the inputs, element by element; NaN if one is NaN."""
    return functools.reduce(np.maximum, inputs)


# --- signs, powers, roundings, limits ---


def neg(x: Array, /) -> Array:
    """ONNX Neg-13: -x."""
    return np.negative(x)


def abs(x: Array, /) -> Array:
    """ONNX Abs-13: |x|."""
    return np.abs(x)


def sign(input: Array, /) -> Array:
    """ONNX Sign-13: 1 for x > 0, -1 for x < 0, 0 for 0."""
    return np.sign(input)


def reciprocal(x: Array, /) -> Array:
    """ONNX Reciprocal-13: 1 / x."""
    return np.reciprocal(x)


def sqrt(x: Array, /) -> Array:
    """ONNX Sqrt-13: the square root, NaN for negative x."""
    return np.sqrt(x)


def exp(input: Array, /) -> Array:
    """ONNX Exp-13: e ** x."""
    return np.exp(input)


def log(input: Array, /) -> Array:
    """ONNX Log-13: the natural logarithm."""
    return np.log(input)


def floor(x: Array, /) -> Array:
    """ONNX Floor-13: the greatest integer <= x."""
    return np.floor(x)


def ceil(x: Array, /) -> Array:
    """ONNX Ceil-13: the least integer >= x."""
    return np.ceil(x)


def round(x: Array, /) -> Array:
    """ONNX Round-22: the nearest integer, halves to the even one."""
    return np.rint(x)


def clip_6(
    input: Array, /, *, min: float = -3.4028234663852886e38, max: float = 3.4028234663852886e38
) -> Array:
    """ONNX Clip-6: min(max(x, ``min``), ``max``), the limits being attributes."""
    with np.errstate(over="ignore"):  # the defaults are float32's limits, in float16 infinite
        low, high = input.dtype.type(min), input.dtype.type(max)
    return np.clip(input, low, high).astype(input.dtype, copy=False)


def clip_11(input: Array, /, min: Array | None = None, max: Array | None = None) -> Array:
    """ONNX Clip-13: min(max(x, ``min``), ``max``), the limits being 0-d inputs; ``max`` wins."""
    if min is None:
        return input if max is None else np.minimum(input, max)
    if max is None:
        return np.maximum(input, min)
    return np.clip(input, min, max).astype(input.dtype, copy=False)  # bfloat16 widens


# --- trigonometric and hyperbolic functions ---


def sin(input: Array, /) -> Array:
    """ONNX Sin-22: the sine of an angle in radians."""
    return np.sin(input)


def cos(input: Array, /) -> Array:
    """ONNX Cos-22: the cosine of an angle in radians."""
    return np.cos(input)


def tan(input: Array, /) -> Array:
    """ONNX Tan-22: the tangent of an angle in radians."""
    return np.tan(input)


def asin(input: Array, /) -> Array:
    """ONNX Asin-22: the inverse of the sine, in [-pi / 2, pi / 2]."""
    return np.arcsin(input)


def acos(input: Array, /) -> Array:
    """ONNX Acos-22: the inverse of the cosine, in [0, pi]."""
    return np.arccos(input)


def atan(input: Array, /) -> Array:
    """ONNX Atan-22: the inverse of the tangent, in (-pi / 2, pi / 2)."""
    return np.arctan(input)


def sinh(input: Array, /) -> Array:
    """ONNX Sinh-22: (exp(x) - exp(-x)) / 2."""
    return np.sinh(input)


def cosh(input: Array, /) -> Array:
    """ONNX Cosh-22: (exp(x) + exp(-x)) / 2."""
    return np.cosh(input)


def asinh(input: Array, /) -> Array:
    """ONNX Asinh-22: log(x + sqrt(x² + 1))."""
    return np.arcsinh(input)


def acosh(input: Array, /) -> Array:
    """ONNX Acosh-22: log(x + sqrt(x² - 1))."""
    return np.arccosh(input)


def atanh(input: Array, /) -> Array:
    """ONNX Atanh-22: log((1 + x) / (1 - x)) / 2."""
    return np.arctanh(input)


# --- the error function ---


@by_blocks
def erf(input: Array, /) -> Array:
    """ONNX Erf-13: 2 / sqrt(pi) times the integral of exp(-t²) for t from 0 to x.

    The absolute error is below 1e-7 for float32 and 1e-15 for float64. Narrower floats are computed
    in float32; integers in float64, truncated.

    Sources: for float64 W. J. Cody, "Rational Chebyshev approximations for the error function",
    Mathematics of Computation 23 (1969), with the coefficients of his program CALERF. For float32
    two minimax polynomials, fitted for this file by C. L. Lawson's iteration, in the form that
    N. Juffa gave them (Stack Overflow, question 35148198).
    """
    if input.dtype == np.float32:
        return _erf_float32(input)
    if input.dtype == np.float64:
        return _erf_float64(input)
    if input.dtype.kind in "iu":
        return _erf_float64(input.astype(np.float64)).astype(input.dtype)
    return _erf_float32(input.astype(np.float32)).astype(input.dtype)


def _erf_float32(x: Array) -> Array:
    size = np.abs(x)
    inner = np.minimum(size, _SPLIT_32)
    small = inner + inner * _polynomial(_INNER_32, inner * inner)
    outer = np.minimum(size, np.float32(4))  # beyond which erf is 1 in float32
    large = np.float32(1) - np.exp(outer * _polynomial(_OUTER_32, outer) - outer)
    return np.copysign(_choose(size <= _SPLIT_32, small, large), x)


def _erf_float64(x: Array) -> Array:
    size = np.abs(x)
    inner = np.minimum(size, _SPLIT_64)
    square = inner * inner
    small = inner * _polynomial(_INNER_OVER_64, square) / _polynomial(_INNER_UNDER_64, square)
    # Cody has a third range, beyond 4, for the relative error of 1 - erf; 6 is where erf is 1.
    outer = np.minimum(size, np.float64(6))
    tail = (
        np.exp(-outer * outer)
        * _polynomial(_OUTER_OVER_64, outer)
        / _polynomial(_OUTER_UNDER_64, outer)
    )
    return np.copysign(_choose(size <= _SPLIT_64, small, np.float64(1) - tail), x)


def _polynomial(coefficients: Sequence[np.floating[Any]], x: Array) -> Array:
    """Horner's rule, the highest power first."""
    value = coefficients[0] * x + coefficients[1]
    for coefficient in coefficients[2:]:
        value = value * x + coefficient
    return value


def _choose(condition: Array, x: Array, y: Array) -> Array:
    """``np.where`` for finite x and y, without a branch for each element, which is slow."""
    chosen = condition.astype(x.dtype)
    return chosen * x + (x.dtype.type(1) - chosen) * y


def _float32(*values: float) -> tuple[np.float32, ...]:
    return tuple(np.float32(value) for value in values)


def _float64(*values: float) -> tuple[np.float64, ...]:
    return tuple(np.float64(value) for value in values)


_SPLIT_32 = np.float32(0.9)
_INNER_32 = _float32(  # erf(x) / x - 1, in x²
    -5.93838302e-4, 4.97780001e-3, -2.67509181e-2, 1.12811340e-1, -3.76123747e-1, 1.28379092e-1
)
_OUTER_32 = _float32(  # log(1 - erf(x)) / x + 1, in x up to 4
    -1.07631525e-5,
    3.18059489e-4,
    -3.62291800e-3,
    2.37201845e-2,
    -1.06187609e-1,
    -6.35181499e-1,
    -1.28640964e-1,
)
_SPLIT_64 = np.float64(0.46875)
_INNER_OVER_64 = _float64(
    1.85777706184603153e-1,
    3.16112374387056560e0,
    1.13864154151050156e2,
    3.77485237685302021e2,
    3.20937758913846947e3,
)
_INNER_UNDER_64 = _float64(
    1.0,
    2.36012909523441209e1,
    2.44024637934444173e2,
    1.28261652607737228e3,
    2.84423683343917062e3,
)
_OUTER_OVER_64 = _float64(
    2.15311535474403846e-8,
    5.64188496988670089e-1,
    8.88314979438837594e0,
    6.61191906371416295e1,
    2.98635138197400131e2,
    8.81952221241769090e2,
    1.71204761263407058e3,
    2.05107837782607147e3,
    1.23033935479799725e3,
)
_OUTER_UNDER_64 = _float64(
    1.0,
    1.57449261107098347e1,
    1.17693950891312499e2,
    5.37181101862009858e2,
    1.62138957456669019e3,
    3.29079923573345963e3,
    4.36261909014324716e3,
    3.43936767414372164e3,
    1.23033935480374942e3,
)


IMPLEMENTATIONS: tuple[tuple[str, int, Callable[..., Any]], ...] = (
    ("Add", 6, limited(add, "Add-6")),
    ("Sub", 6, limited(sub, "Sub-6")),
    ("Mul", 6, limited(mul, "Mul-6")),
    ("Div", 6, limited(div, "Div-6")),
    ("Pow", 1, pow_1),
    ("Add", 7, add),
    ("Sub", 7, sub),
    ("Mul", 7, mul),
    ("Div", 7, div),
    ("Mod", 10, mod),
    ("Pow", 7, pow),
    ("Sum", 6, sum),
    ("Mean", 6, mean),
    ("Min", 6, min),
    ("Max", 6, max),
    ("Neg", 6, neg),
    ("Abs", 6, abs),
    ("Sign", 9, sign),
    ("Reciprocal", 6, reciprocal),
    ("Sqrt", 6, sqrt),
    ("Exp", 6, exp),
    ("Log", 6, log),
    ("Floor", 6, floor),
    ("Ceil", 6, ceil),
    ("Round", 11, round),
    ("Clip", 6, clip_6),
    ("Clip", 11, clip_11),
    ("Sin", 7, sin),
    ("Cos", 7, cos),
    ("Tan", 7, tan),
    ("Asin", 7, asin),
    ("Acos", 7, acos),
    ("Atan", 7, atan),
    ("Sinh", 9, sinh),
    ("Cosh", 9, cosh),
    ("Asinh", 9, asinh),
    ("Acosh", 9, acosh),
    ("Atanh", 9, atanh),
    ("Erf", 9, erf),
)
