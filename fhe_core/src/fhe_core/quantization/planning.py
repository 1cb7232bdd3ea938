"""Chooses the parameters of a whole graph from what calibration saw and from what the ops allow.

Three rules carry most of the weight (each measured on trained nets):

- tensors that an addition or concatenation joins take one scale, so that it needs no look-up of its own;
- each output channel's weights get the scale that makes its accumulator fill the width, so that a
  rounding to a few bits keeps as many levels as it can;
- an offset for each channel centres it there. It costs nothing, not even a wider intermediate result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.errors import PlanError
from fhe_core.quantization.calibration import TensorStats
from fhe_core.quantization.joins import is_chosen, meetings, on_whole_numbers, own_scale
from fhe_core.quantization.placement import Placement
from fhe_core.quantization.plan import Plan, TensorPlan
from fhe_core.quantization.plan_schema import SETTINGS, check_rounding
from fhe_core.quantization.quantizers import (
    LEAST_BITS,
    RANGES,
    QuantizationParameters,
    check_bits,
)

_PARTS = ("op_inputs", "op_weights", "model_inputs", "model_outputs")


@dataclass(frozen=True)
class Settings:
    """What a caller asks of quantization.

    Attributes:
        op_inputs, op_weights, model_inputs, model_outputs: bits.
        nodes: bits of single nodes (output and weights), by node name.
        rounding: bits kept of accumulators; None: ``op_inputs`` + 1, at most 8.
        roundings: the same for single nodes, by name of the node or of its output.
        exact: exact rounding.
        overflow: ``calibrated`` (headroom over the data) or ``guaranteed`` (any input).
        ranges: which range of a tensor gets levels: ``minmax``, ``percentile``, ``mse``.
        weight_scheme, weight_granularity: of constants.
        overflow_risk: share of answers that may wrap somewhere, which headroom follows from.
        headroom: instead, share of an accumulator's calibrated range that is added to it.
        tuning: steps of gradient descent on the weights' integers; 0 rounds them to nearest.
        savings: which look-ups may be left out: ``all`` that do nothing on the calibration data, only those
            for which that is ``exact``, or ``none``: then none uses the padding bit either.
    """

    op_inputs: int
    op_weights: int
    model_inputs: int
    model_outputs: int
    nodes: Mapping[str, int]
    rounding: int | None
    roundings: Mapping[str, int]
    exact: bool = False
    overflow: str = "calibrated"
    ranges: str = "mse"
    weight_scheme: str = "symmetric"
    weight_granularity: str = "per-channel"
    overflow_risk: float = 1e-4
    headroom: float | None = None
    p_error: float = 2.0**-40
    tuning: int = 0
    savings: str = "exact"

    @classmethod
    def of(cls, n_bits: Any, rounding: Any, **options: Any) -> Settings:
        """Settings from the public arguments.

        Raises:
            PlanError: a width, rounding or choice that does not exist.
        """
        parts: dict[str, int] = {}
        nodes: dict[str, int] = {}
        if isinstance(n_bits, Mapping):
            for name, bits in n_bits.items():
                (parts if name in _PARTS else nodes)[str(name)] = check_bits(
                    bits, f"n_bits[{name!r}]"
                )
            default = parts.get("op_inputs", 4)
        else:
            default = check_bits(n_bits, "n_bits")
        bits = {name: parts.get(name, default) for name in _PARTS}
        # Inputs cost nothing, and outputs that leave as accumulators are not quantized at all.
        if not isinstance(n_bits, Mapping):
            bits["model_outputs"] = max(default, 6)
        roundings: dict[str, int] = {}
        kept: int | None = None
        if isinstance(rounding, Mapping):
            roundings = {
                str(name): check_rounding(value, f"node {name!r}")
                for name, value in rounding.items()
            }
        elif rounding is not None:
            kept = check_rounding(rounding, "accumulators")
        for name, value in options.items():
            SETTINGS[name].check(value, "", name)
        return cls(**bits, nodes=nodes, rounding=kept, roundings=roundings, **options)

    @property
    def kept_bits(self) -> int:
        """Bits kept of accumulators, with the default filled in."""
        return self.rounding if self.rounding is not None else min(self.op_inputs + 1, 8)

    def describe(self) -> dict[str, Any]:
        """For the plan's ``settings``: everything that shapes results."""
        return {
            "op_inputs": self.op_inputs,
            "op_weights": self.op_weights,
            "model_inputs": self.model_inputs,
            "model_outputs": self.model_outputs,
            "weight_bits": dict(self.nodes),
            "rounding": self.kept_bits,
            "exact": self.exact,
            "overflow": self.overflow,
            "ranges": self.ranges,
            "weight_scheme": self.weight_scheme,
            "weight_granularity": self.weight_granularity,
            "overflow_risk": self.overflow_risk,
            "p_error": self.p_error,
            "savings": self.savings,
        }


def initial_plan(
    placement: Placement, stats: Mapping[str, TensorStats], settings: Settings
) -> Plan:
    """Tensor parameters from their statistics; weights and accumulators follow when ops are recorded.

    Raises:
        PlanError: ``n_bits`` or ``rounding`` names a node that is not there.
    """
    _check_names(placement, settings)
    plan = Plan(settings=settings.describe())
    if placement.trained:
        plan.settings["trained"] = True
    plan.stats = {name: entry.range for name, entry in stats.items()}
    wanted = {
        name: _wanted(name, placement, stats[name], settings)
        for name in placement.tensors()
        if name in stats
    }
    fixed = placement.fixed()
    own = {name: _own_scale(stats[name], *wanted[name]) for name in wanted}
    own.update((name, float(fixed[name].scale)) for name in fixed if name in wanted)
    widths = {name: bits for name, (_, _, bits) in wanted.items()}
    met, seconds = meetings(placement, stats, widths, own)
    for name, (low, high, bits) in wanted.items():
        scale = met[name].scale
        if met[name].inherits:
            # Joined or moved integers: every value that they can take, so that nothing saturates.
            spread = max(abs(stats[name].minimum), abs(stats[name].maximum), high - low, scale)
            low, high, bits = -4 * spread, 4 * spread, 0
        plan.tensors[name] = _tensor_plan(scale, low, high, bits)
    for name, second in seconds.items():
        plan.tensors[name] = _tensor_plan(second.scale, *wanted[second.of])
    plan.tensors.update((name, _fixed_plan(parameters)) for name, parameters in fixed.items())
    for placed in placement.ops:
        source = placed.variable[0] if placed.variable else ""
        if placed.op.keeps_scale and source in plan.tensors:
            # The same elements: the same integers, whichever of the two is quantized.
            for name in placed.node.writes:
                if name in wanted and not is_chosen(name, placed, placement, own):
                    plan.tensors[name] = replace(plan.tensors[source])
    return plan


def _check_names(placement: Placement, settings: Settings) -> None:
    known = {placed.node.name for placed in placement.ops}
    known |= {name for placed in placement.ops for name in placed.node.writes}
    known |= set(placement.graph.input_names)
    for what, given in (("n_bits", settings.nodes), ("rounding", settings.roundings)):
        for name in given:
            if name.split("#")[0] not in known:
                raise PlanError(
                    f"{what} names {name!r}, which is no node of the model",
                    expected=", ".join(sorted(known)[:8]) + ("..." if len(known) > 8 else ""),
                    got=name,
                    fix="use a node's name, or the name of its first output",
                )


def _wanted(
    name: str, placement: Placement, stats: TensorStats, settings: Settings
) -> tuple[float, float, int]:
    """The range and the bits that a tensor would take if nothing else had a say."""
    producer = placement.producers.get(name)
    keys = [name, producer.node.name] if producer else [name]
    bits = next((settings.nodes[key] for key in keys if key in settings.nodes), None)
    # The caller may send any calibrated value, and may want any result: none may saturate.
    outer = True
    if producer is None:
        bits = bits or settings.model_inputs
    elif name in placement.graph.output_names:
        bits = bits or settings.model_outputs
    else:
        bits, outer = bits or settings.op_inputs, False
    whole = _whole_range(stats, bits)
    if whole is not None:
        return (*whole, bits)
    if outer or _has_step_of_whole_numbers(stats, bits):
        return stats.minimum, stats.maximum, bits
    low, high = RANGES[settings.ranges](stats.sample, bits)
    if stats.covered is not None:
        low, high = min(low, stats.covered[0]), max(high, stats.covered[1])
    return low, high, bits


def _has_step_of_whole_numbers(stats: TensorStats, bits: int) -> bool:
    """Whether 2^bits levels are enough for all whole numbers of a tensor that consists of these."""
    return stats.is_integral and stats.maximum - stats.minimum < 2**bits


def _whole_range(stats: TensorStats, bits: int) -> tuple[float, float] | None:
    """2^bits integers in which all integers of the float model have their place: unsigned, signed, or
    from the least on. None where they are not integers, or too many."""
    if not stats.is_whole:
        return None
    for low in (0.0, -(2.0 ** (bits - 1)), stats.minimum):
        high = low + 2**bits - 1
        if low <= stats.minimum and stats.maximum <= high:
            return low, high
    return None


def _own_scale(stats: TensorStats, low: float, high: float, bits: int) -> float:
    scale = own_scale(low, high, bits)
    return on_whole_numbers(scale) if stats.is_integral else scale


def _fixed_plan(parameters: QuantizationParameters) -> TensorPlan:
    levels = int(parameters.high) - int(parameters.low) + 1
    bits = max(LEAST_BITS, (levels - 1).bit_length())
    return TensorPlan(
        bits, float(parameters.scale), int(parameters.zero_point), int(parameters.low)
    )


def _tensor_plan(scale: float, low: float, high: float, bits: int) -> TensorPlan:
    first = int(np.rint(low / scale))
    # More than asked for where whole numbers need a finer step.
    steps = int(np.rint((high - low) / scale))
    bits = max(bits, LEAST_BITS, steps.bit_length())
    return TensorPlan(bits, float(scale), -first, 0)


# -- accumulators


def usable_span(width: int, kept: int) -> float:
    """How far apart the least and the largest value of an accumulator may be: 2^k - 2^(l-1) - 1.

    l = width - kept bits are dropped; beyond, the largest would round up into the padding bit.
    """
    dropped = width - kept
    return 2.0**width - 1 - (2.0 ** (dropped - 1) if dropped > 0 else 0)


def channel_width(low: NDArray[Any], high: NDArray[Any], *, kept: int) -> int:
    """The bits that the widest channel of a centred accumulator needs.

    Args:
        low, high: planned range of each channel.
        kept: bits that survive the rounding.
    """
    span = float((high - low).max()) + 2
    width = 1
    while usable_span(width, kept) < span:
        width += 1
    return width


def channel_factors(
    low: NDArray[Any], high: NDArray[Any], *, width: int, kept: int
) -> NDArray[np.float64]:
    """How much larger each channel's accumulator may become to fill ``width`` bits.

    Below one where it is too large. Weights are rounded after they are scaled, which moves the range a
    little: a hundredth is left for that.
    """
    with np.errstate(divide="ignore"):
        factors = 0.99 * usable_span(width, kept) / (high - low)
    # A channel that never varies keeps its scale.
    return np.where(np.isfinite(factors), factors, 1.0)


def channel_offsets(
    low: NDArray[Any], high: NDArray[Any], *, width: int, kept: int
) -> NDArray[np.int64]:
    """What centres each channel among the values that ``width`` signed bits may take."""
    spare = usable_span(width, kept) - (high - low)
    return np.rint(-(2.0 ** (width - 1)) + spare / 2 - low).astype(np.int64)


def widened(settings: Settings, **changes: Any) -> Settings:
    """``settings`` with some of them changed."""
    return replace(settings, **changes)
