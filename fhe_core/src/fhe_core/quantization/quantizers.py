"""Uniform quantization: real = scale * (integer - zero point).

The arithmetic is the affine scheme of Jacob et al., "Quantization and Training of Neural Networks for
Efficient Integer-Arithmetic-Only Inference" (2018). Everything here works on ordinary arrays and on the
tensors that a ``q_impl`` sees alike.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.errors import PlanError

Array = NDArray[Any]

#: Integers narrower than this cannot hold a sign and a value; wider than that no look-up can read.
LEAST_BITS, MOST_BITS = 2, 16


def check_bits(bits: Any, what: str) -> int:
    """``bits`` as an int.

    Raises:
        PlanError: it is no integer from 2 to 16.
    """
    whole = isinstance(bits, (int, np.integer)) and not isinstance(bits, bool)
    if whole and LEAST_BITS <= bits <= MOST_BITS:
        return int(bits)
    raise PlanError(
        f"{what} cannot have {reprlib.repr(bits)} bits",
        expected=f"an integer from {LEAST_BITS} to {MOST_BITS}",
        got=reprlib.repr(bits),
        fix="use 3 to 8 bits, or n_bits='auto' for the cheapest circuit within tolerance",
    )


@dataclass(frozen=True)
class QuantizationOptions:
    """How to choose integers for real values.

    Attributes:
        n_bits: width of the integers.
        signed: integers from -2^(n-1), and not from 0.
        symmetric: zero point 0 and as many levels on both sides (implies ``signed``).
    """

    n_bits: int
    signed: bool = False
    symmetric: bool = False

    def __post_init__(self) -> None:
        check_bits(self.n_bits, "a quantizer")


@dataclass(frozen=True)
class QuantizationStats:
    """The range of real values to represent: floats, or arrays that broadcast to the values."""

    minimum: Any
    maximum: Any

    @classmethod
    def of(cls, values: Array, axis: int | None = None) -> QuantizationStats:
        """The range of ``values``: of all, or of each slice along ``axis``, with the rank kept."""
        values = np.asarray(values)
        if not values.size:
            return cls(0.0, 0.0)
        if axis is None:
            return cls(float(values.min()), float(values.max()))
        others = tuple(i for i in range(values.ndim) if i != axis % values.ndim)
        return cls(values.min(axis=others, keepdims=True), values.max(axis=others, keepdims=True))


@dataclass(frozen=True)
class QuantizationParameters:
    """Scale, zero point and the integers in use: scalars, or arrays that broadcast to the values."""

    scale: Any
    zero_point: Any
    low: Any
    high: Any

    @classmethod
    def of(cls, stats: QuantizationStats, options: QuantizationOptions) -> QuantizationParameters:
        """The parameters that spread ``options.n_bits`` bits over a range that includes zero."""
        least = np.minimum(np.asarray(stats.minimum, dtype=np.float64), 0.0)
        most = np.maximum(np.asarray(stats.maximum, dtype=np.float64), 0.0)
        if options.symmetric:
            top = 2 ** (options.n_bits - 1) - 1
            scale = _positive(np.maximum(-least, most) / max(top, 1))
            return cls(_plain(scale), 0, -top, top)
        low = -(2 ** (options.n_bits - 1)) if options.signed else 0
        high = low + 2**options.n_bits - 1
        scale = _positive((most - least) / (high - low))
        zero_point = np.rint(low - least / scale).astype(np.int64)
        return cls(_plain(scale), _plain(zero_point), low, high)


def _positive(scale: Array) -> Array:
    # All values equal to zero: any scale represents them. A subnormal range would divide to infinity.
    return np.where(scale > np.finfo(np.float32).tiny, scale, 1.0)


def _plain(value: Array) -> Any:
    return value.item() if value.ndim == 0 else value


class UniformQuantizer:
    """Converts between real values and integers.

    Attributes:
        scale, zero_point: real = scale * (integer - zero_point).
    """

    def __init__(
        self,
        options: QuantizationOptions,
        *,
        stats: QuantizationStats | None = None,
        params: QuantizationParameters | None = None,
    ) -> None:
        if params is None:
            if stats is None:
                raise PlanError(
                    "a quantizer was made without a range",
                    fix="give `stats` or `params`, or values to measure",
                )
            params = QuantizationParameters.of(stats, options)
        self.options = options
        self.stats = stats
        self.params = params

    @property
    def scale(self) -> Any:
        return self.params.scale

    @property
    def zero_point(self) -> Any:
        return self.params.zero_point

    def quant(self, values: Any) -> Any:
        """The nearest integers, saturated at the ends of the range."""
        if values.dtype.itemsize < 4:
            # Half precision cannot tell the levels of a wide quantizer apart.
            values = values.astype(np.float32)
        levels = np.rint(values / self.params.scale) + self.params.zero_point
        return np.clip(levels, self.params.low, self.params.high).astype(np.int64)

    def dequant(self, qvalues: Any) -> Any:
        """The real values (float64) that integers stand for."""
        return (qvalues.astype(np.float64) - self.params.zero_point) * self.params.scale


# -- the range to spend the levels on


def minmax_range(sample: Array, n_bits: int) -> tuple[float, float]:
    """All of the sample."""
    return float(sample.min()), float(sample.max())


def percentile_range(sample: Array, n_bits: int) -> tuple[float, float]:
    """The middle 99.9 %: a few outliers saturate."""
    low, high = np.percentile(sample, (0.05, 99.95))
    return float(low), float(high)


def mse_range(sample: Array, n_bits: int) -> tuple[float, float]:
    """The range, of 24 shrunk ones, whose quantization has the least mean squared error on the sample.

    They shrink towards zero, or towards the end that is nearest to it.
    """
    low, high = float(sample.min()), float(sample.max())
    centre = min(max(low, 0.0), high)
    steps = 2**n_bits - 1
    best, best_error = (low, high), np.inf
    for share in np.linspace(1.0, 0.4, 24):
        least, most = centre + (low - centre) * share, centre + (high - centre) * share
        scale = (most - least) / steps
        if scale <= np.finfo(np.float32).tiny:
            break
        first = np.rint(least / scale)
        levels = np.clip(np.rint(sample / scale), first, first + steps)
        error = float(np.mean((levels * scale - sample) ** 2))
        if error < best_error:
            best, best_error = (least, most), error
    return best


RANGES: dict[str, Callable[[Array, int], tuple[float, float]]] = {
    "minmax": minmax_range,
    "percentile": percentile_range,
    "mse": mse_range,
}
