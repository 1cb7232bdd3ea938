"""``QuantizedArray``: values together with the quantizer that turns them into integers and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fhe_core.program.tensor import Tensor
from fhe_core.quantization.quantizers import (
    QuantizationOptions,
    QuantizationParameters,
    QuantizationStats,
    UniformQuantizer,
)


class QuantizedArray:
    """Real values, their integers, and the quantizer between them. Both sides are computed when read.

    While a model is compiled the values are ``Tensor``s: reading ``qvalues`` then ends the float
    computation that led here, as one table look-up; reading ``values`` continues it.

    Args:
        n_bits: width of the integers.
        values: real values, or integers where ``value_is_float`` is False.
        value_is_float: which of the two ``values`` are.
        options: how to choose parameters; unsigned affine by default.
        stats: the range to represent; measured from ``values`` by default.
        params: scale and zero point, instead of choosing them; or a function that gives them when they
            are first needed.
    """

    def __init__(
        self,
        n_bits: int,
        values: Any,
        value_is_float: bool = True,
        options: QuantizationOptions | None = None,
        stats: QuantizationStats | None = None,
        params: QuantizationParameters | Callable[[], QuantizationParameters] | None = None,
    ) -> None:
        self.n_bits = n_bits
        options = options or QuantizationOptions(n_bits)
        if not isinstance(values, Tensor):
            values = np.asarray(values)
            if params is None and stats is None and value_is_float:
                stats = QuantizationStats.of(values)
        self._quantizer: UniformQuantizer | None = None
        self._request = (options, stats, params)
        self._values = values if value_is_float else None
        self._qvalues = None if value_is_float else values

    @property
    def quantizer(self) -> UniformQuantizer:
        """The quantizer, with ``scale`` and ``zero_point``."""
        if self._quantizer is None:
            options, stats, params = self._request
            if callable(params):
                params = params()
            self._quantizer = UniformQuantizer(options, stats=stats, params=params)
        return self._quantizer

    @property
    def values(self) -> Any:
        """The real values; those that the integers stand for, where only integers were given."""
        if self._values is None:
            self._values = self.dequant()
        return self._values

    @property
    def qvalues(self) -> Any:
        """The integers (int64)."""
        if self._qvalues is None:
            self._qvalues = self.quant()
        return self._qvalues

    @property
    def is_quantized(self) -> bool:
        """Whether anything has asked for the integers."""
        return self._qvalues is not None

    @property
    def is_planned(self) -> bool:
        """Whether anything has asked for the integers, or for what real values they stand for."""
        return self.is_quantized or self._quantizer is not None

    @property
    def held(self) -> Any:
        """The values that it was made from, or the integers; nothing is computed."""
        return self._values if self._values is not None else self._qvalues

    @property
    def shape(self) -> tuple[int, ...]:
        shape: tuple[int, ...] = self.held.shape
        return shape

    def asks_for(self, stats: QuantizationStats | None, params: Any) -> bool:
        """Whether it was made from real values with this very range, or these very parameters."""
        _, own_stats, own_params = self._request
        asked = (params is not None and own_params is params) or (
            own_params is None and stats is not None and own_stats is stats
        )
        return asked and self._values is not None

    def quant(self) -> Any:
        """The integers, computed from the real values."""
        return self.quantizer.quant(self.values)

    def dequant(self) -> Any:
        """The real values (float64) that the integers stand for."""
        return self.quantizer.dequant(self.qvalues)

    def __repr__(self) -> str:
        return f"QuantizedArray({self.n_bits} bits, {self.shape})"
