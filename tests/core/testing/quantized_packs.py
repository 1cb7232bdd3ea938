"""Right quantized operators, and what makes each wrong in one way. Their pack is made in the process."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from fhe_core.quantization.quantizers import QuantizationParameters, QuantizationStats
from fhe_core.registry import PackInfo, Registry
from fhe_core.registry.packs import Contribution, LoadedPack
from fhe_core.registry.registrar import Registrar

from fhe_core import QuantizedArray, QuantizedOp

DOMAIN = "com.acme"
X = np.clip(np.random.default_rng(0).standard_normal((24, 6)), -2, 2).astype(np.float32)


def registry_of(*ops: tuple[Any, type[QuantizedOp]]) -> Registry:
    """A registry with one pack, ``acme``, of NumPy functions with their quantized classes."""
    info = PackInfo("acme", "acme-ops", "1.0")
    registrar = Registrar(info)
    for function, quantized in ops:
        registrar.impl(quantized._impl_for_op_named, function, domain=DOMAIN)
        registrar.quantized(quantized, domain=DOMAIN)
    return Registry([LoadedPack(info, Contribution(registrar.close()))])


# -- right ones


def ramp(x: Any, /) -> Any:
    return np.maximum(x, 0)


class QuantizedRamp(QuantizedOp):
    """Case 1: a function of each element."""

    _impl_for_op_named = "Ramp"


def total(x: Any, /) -> Any:
    return x.sum(axis=1)


class QuantizedTotal(QuantizedOp):
    """Case 2: integers."""

    _impl_for_op_named = "Total"
    kept: ClassVar[bool] = False

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        (x,) = q_inputs
        part = self.part(x)
        zero = np.asarray(self.zero(part)) * x.shape[1]
        integers = part.qvalues.sum(axis=1, keepdims=self.kept).astype(np.float64)
        return self.quantized((integers - zero + self.bias()) * part.quantizer.scale)

    def part(self, x: QuantizedArray) -> QuantizedArray:
        """What is added up."""
        return x

    def zero(self, x: QuantizedArray) -> Any:
        return x.quantizer.zero_point

    def bias(self) -> float:
        return 0.0


def join(a: Any, b: Any, /) -> Any:
    return a + b


class QuantizedJoin(QuantizedOp):
    """Case 3: one or the other, by its place."""

    _impl_for_op_named = "Join"
    shares_scale = True

    def can_fuse(self) -> bool:
        return len(self._int_input_names) == 1

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        if self.can_fuse():
            return super().q_impl(*q_inputs, **attrs)
        a, b = q_inputs
        zero = np.asarray(a.quantizer.zero_point) + b.quantizer.zero_point
        integers = (a.qvalues + b.qvalues).astype(np.float64)
        return self.quantized((integers - zero) * a.quantizer.scale)


def share(x: Any, /) -> Any:
    return np.abs(x) / (1 + np.sum(np.abs(x), axis=1, keepdims=True))


class QuantizedShare(QuantizedOp):
    """On the client: a function of whole samples."""

    _impl_for_op_named = "Share"

    def can_fuse(self) -> bool:
        return False


RIGHT = (
    (ramp, QuantizedRamp),
    (total, QuantizedTotal),
    (join, QuantizedJoin),
    (share, QuantizedShare),
)


# -- wrong ones


def requantized(x: QuantizedArray, n_bits: int, stretch: float = 1.0) -> QuantizedArray:
    """``x`` on ``n_bits`` bits, over the range that its own integers span, or a wider one."""
    quantizer = x.quantizer
    ends = [
        float((end - quantizer.zero_point) * quantizer.scale * stretch)
        for end in (quantizer.params.low, quantizer.params.high)
    ]
    return QuantizedArray(n_bits, x.values, stats=QuantizationStats(*ends))


class BiasedAtFour(QuantizedTotal):
    """Off by less than what is lost at 3 bits, and by more than what 4 bits explain."""

    def bias(self) -> float:
        return 0.3 if self.n_bits == 4 else 0.0


class CoarserWithMoreBits(QuantizedTotal):
    """Every error is one of its own roundings, and those grow."""

    def part(self, x: QuantizedArray) -> QuantizedArray:
        return requantized(x, 10 - self.n_bits)


class NeedsZero(QuantizedTotal):
    """Right where the range includes zero."""

    def zero(self, x: QuantizedArray) -> Any:
        return np.clip(x.quantizer.zero_point, 0, 2**self.n_bits - 1)


class KeepsDimensions(QuantizedTotal):
    kept = True


class ForeignQuantizer(QuantizedTotal):
    """Its real values are right, and are quantized with a scale of its own."""

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        made, own = super().q_impl(*q_inputs, **attrs), self.output_quant_params
        params = replace(own, scale=2 * own.scale) if own else None
        return QuantizedArray(self.n_bits, made.values, params=params) if params else made


class DrawsItsScale(QuantizedTotal):
    """Any of these scales would do, but not another one each time."""

    generator = np.random.default_rng()

    def part(self, x: QuantizedArray) -> QuantizedArray:
        return requantized(x, self.n_bits + 2, stretch=1 + self.generator.random() / 10)


class FloatsAsIntegers(QuantizedRamp):
    """The numbers are right; what it hands on as integers is halves."""

    def can_fuse(self) -> bool:
        return True

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        (x,) = q_inputs
        scale = x.quantizer.scale
        halves = self.call_impl(x.values) / (2 * scale)
        parameters = QuantizationParameters(2 * scale, 0, 0, 2**self.n_bits - 1)
        return QuantizedArray(self.n_bits, halves, value_is_float=False, params=parameters)


class NeverFuses(QuantizedRamp):
    def can_fuse(self) -> bool:
        return False


class LooksUpTwice(QuantizedRamp):
    def can_fuse(self) -> bool:
        return True

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        again = requantized(q_inputs[0], self.n_bits + 2)
        real = again.quantizer.dequant(again.qvalues)
        return self.quantized(self.call_impl(real))


class AlwaysFuses(QuantizedJoin):
    """Also of two tensors, where it is no look-up."""

    def can_fuse(self) -> bool:
        return True


class AtTheLargestEnd(QuantizedJoin):
    """Its steps follow from the larger operand, whether that varies or not."""

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        if self.can_fuse():
            return super().q_impl(*q_inputs, **attrs)
        ends = [
            np.asarray(end) - x.quantizer.zero_point
            for x in q_inputs
            for end in (x.quantizer.params.low, x.quantizer.params.high)
        ]
        largest = float(max(np.abs(end).max() for end in ends)) * q_inputs[0].quantizer.scale
        stats = QuantizationStats(-largest, largest)
        a, b = (QuantizedArray(self.n_bits, x.values, stats=stats) for x in q_inputs)
        return super().q_impl(a, b, **attrs)


def centred(x: Any, /) -> Any:
    return x - x.mean(axis=1, keepdims=True)


class MixesElements(QuantizedOp):
    _impl_for_op_named = "Centred"


def standing(x: Any, /) -> Any:
    return x - np.mean(x, axis=0, keepdims=True)


class MixesSamples(QuantizedShare):
    _impl_for_op_named = "Standing"


def complex_share(x: Any, /) -> Any:
    return np.absolute(x * 1j) / (1 + np.sum(np.abs(x), axis=1, keepdims=True))


# By the name of the check that must fail.
WRONG: dict[str, list[tuple[Any, type[QuantizedOp]]]] = {
    # One that mixes samples, or returns another shape, is refused when it is quantized, before other checks.
    "accuracy": [(total, BiasedAtFour), (standing, MixesSamples), (total, KeepsDimensions)],
    "accuracy-grows": [(total, CoarserWithMoreBits)],
    "adversarial": [(total, NeedsZero)],
    "joins": [(join, AtTheLargestEnd)],
    "integers": [(ramp, FloatsAsIntegers), (total, ForeignQuantizer)],
    "can-fuse": [
        (ramp, NeverFuses),
        (ramp, LooksUpTwice),
        (join, AlwaysFuses),
        (centred, MixesElements),
    ],
    "determinism": [(total, DrawsItsScale)],
    "save-load": [(complex_share, QuantizedShare)],
}
