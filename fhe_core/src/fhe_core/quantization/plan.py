"""The plan: every quantization parameter of a compiled model, in one place that a user can edit.

Ops read it while they are recorded; nothing else decides a scale, a zero point, a width or a rounding.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.errors import PlanError
from fhe_core.quantization.grids import grid_of
from fhe_core.quantization.quantizers import (
    QuantizationOptions,
    QuantizationParameters,
    QuantizationStats,
    check_bits,
)

PLAN_VERSION = 1


@dataclass
class TensorPlan:
    """How one tensor is quantized: real = scale * (integer - zero_point).

    Attributes:
        bits: integers take 2^bits values from ``low`` on.
        scale: real step between integers.
        zero_point, low: a scalar, or an array that broadcasts to the tensor.
    """

    bits: int
    scale: float
    zero_point: Any = 0
    low: Any = 0

    @property
    def parameters(self) -> QuantizationParameters:
        high = np.asarray(self.low) + (2**self.bits - 1)
        return QuantizationParameters(
            self.scale, self.zero_point, self.low, high.item() if high.ndim == 0 else high
        )


@dataclass
class WeightPlan:
    """How the weights of one node are quantized.

    Attributes:
        bits: the width that their scale was chosen for; channels fitted to the accumulator may exceed it.
        scale: a scalar, or an array that broadcasts to the weights.
        symmetric: zero point 0; else ``zero_point`` holds it.
        trained: the scale is the grid that the weights were trained on: they are whole multiples of it.
    """

    bits: int
    scale: Any
    zero_point: Any = 0
    symmetric: bool = True
    trained: bool = False

    @property
    def parameters(self) -> QuantizationParameters:
        # Never saturate: channels that were fitted to the accumulator use more integers than 2^bits.
        limit = 2**31
        return QuantizationParameters(self.scale, self.zero_point, -limit, limit)


@dataclass
class AccumulatorPlan:
    """An integer that a table look-up reads.

    Attributes:
        low, high: the range that it is planned for, offset included; beyond its width it would wrap.
        rounding: bits kept before the look-up; None for all.
        exact: exact rounding (one look-up for each dropped bit), not approximate (one in all).
        bits: its width in the circuit. Follows from the range and from what shares the width.
        headroom: how much of the calibrated range may be added before it wraps (0.1: 10 %).
        offset: added before the rounding, to centre it; a scalar, or one for each channel.
        shift: added too, and not taken into account by tables and decryption: what tuning moves it by.
        antiperiodic: the range is the whole period of a look-up that uses the padding bit, which takes one
            bit less (``program.antiperiodic``).
    """

    low: int
    high: int
    rounding: int | None = None
    exact: bool = False
    offset: Any = 0
    bits: int = 0
    headroom: float = 0.0
    shift: Any = 0
    antiperiodic: bool = False


@dataclass
class ReductionPlan:
    """Which channels of an activation are not computed, and what takes their place.

    Attributes:
        live: 1 where the activation is computed, 0 where it is not: arrays that broadcast to its output, with
            the batch dimension 1.
        slope, offset: elsewhere it is ``slope * x + offset``: constant where some channels live.
    """

    live: Any
    slope: Any
    offset: Any


@dataclass
class Plan:
    """The whole graph's parameters.

    Attributes:
        tensors: by ONNX tensor name, those that are quantized.
        weights: by ``initializer@node``.
        accumulators: by the ONNX output that they compute.
        kernels: integers that tuning chose for weights as the circuit multiplies by them, by the ONNX output
            that they compute. Where there are none, weights are rounded to nearest.
        reductions: by ONNX node, the activations that are computed in part, or not at all.
        constants: what training put in place of float constants, by "node:input".
        alternatives: the forms that the model was brought into after that, each "pack.name".
        settings: what the plan was made from (n_bits, rounding, p_error, overflow...).
        stats: calibrated ranges of tensors; not saved.
    """

    tensors: dict[str, TensorPlan] = field(default_factory=dict)
    weights: dict[str, WeightPlan] = field(default_factory=dict)
    accumulators: dict[str, AccumulatorPlan] = field(default_factory=dict)
    kernels: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    reductions: dict[str, ReductionPlan] = field(default_factory=dict)
    constants: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    alternatives: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    stats: dict[str, QuantizationStats] = field(default_factory=dict, compare=False, repr=False)

    def weight(self, name: str, array: NDArray[Any], axis: int | None) -> WeightPlan:
        """The parameters of a constant, chosen from its range when it is first asked for.

        Args:
            axis: its output channels, which may have a scale each; None: one scale.
        """
        if name not in self.weights:
            bits = self.weight_bits(name)
            symmetric = self.settings.get("weight_scheme", "symmetric") == "symmetric"
            if self.settings.get("weight_granularity", "per-channel") == "per-tensor":
                axis = None
            grid = grid_of(array, axis) if self.settings.get("trained") else None
            if grid is not None:
                self.weights[name] = WeightPlan(bits, grid, trained=True)
                return self.weights[name]
            parameters = QuantizationParameters.of(
                QuantizationStats.of(array, axis),
                QuantizationOptions(bits, signed=True, symmetric=symmetric),
            )
            self.weights[name] = WeightPlan(
                bits, parameters.scale, parameters.zero_point, symmetric
            )
        return self.weights[name]

    def weight_bits(self, name: str) -> int:
        """The width of a constant: as it is planned, else as the settings ask for its node or for all."""
        if name in self.weights:
            return self.weights[name].bits
        named: dict[str, int] = self.settings.get("weight_bits", {})
        return named.get(name.rsplit("@", 1)[-1]) or int(self.settings.get("op_weights", 4))

    @property
    def leaves_a_choice(self) -> bool:
        """Whether another width or rounding would make another circuit."""
        rounded = any(entry.rounding is not None for entry in self.accumulators.values())
        return bool(self.tensors or self.weights or rounded)

    # -- text

    def to_json(self) -> str:
        """The plan as JSON, arrays as nested lists."""
        document = {
            "version": PLAN_VERSION,
            "settings": _listed(self.settings),
            "tensors": {name: _row(entry) for name, entry in self.tensors.items()},
            "weights": {name: _row(entry) for name, entry in self.weights.items()},
            "accumulators": {name: _row(entry) for name, entry in self.accumulators.items()},
            "kernels": {name: integers.tolist() for name, integers in self.kernels.items()},
            "reductions": {name: _row(entry) for name, entry in self.reductions.items()},
            "constants": {name: floats.tolist() for name, floats in self.constants.items()},
            "alternatives": list(self.alternatives),
        }
        return json.dumps(document, indent=2)

    @classmethod
    def from_json(cls, text: str | bytes) -> Plan:
        """The plan in ``text``.

        Raises:
            PlanError: it is not a plan, or of another version, or an entry is wrong.
        """
        try:
            document = json.loads(text)
        except ValueError as error:
            raise PlanError(
                f"the plan is not JSON: {error}", fix="write it with plan.to_json()"
            ) from error
        if not isinstance(document, dict) or document.get("version") != PLAN_VERSION:
            got = document.get("version") if isinstance(document, dict) else type(document).__name__
            raise PlanError(
                "the plan has an unknown version",
                expected=f"version {PLAN_VERSION}",
                got=str(got),
                fix="write it again with this version of fhe-core",
            )
        kinds = {
            "tensors": TensorPlan,
            "weights": WeightPlan,
            "accumulators": AccumulatorPlan,
            "reductions": ReductionPlan,
        }
        for part in ("settings", "kernels", "constants", *kinds):
            if not isinstance(document.get(part, {}), dict):
                raise PlanError(
                    f"{part} of the plan is not understood",
                    expected="an object with an entry for each name",
                    got=type(document[part]).__name__,
                    fix="write the plan with plan.to_json()",
                )
        parts = {
            part: {
                name: _entry(kind, part, name, row) for name, row in document.get(part, {}).items()
            }
            for part, kind in kinds.items()
        }
        kernels = {name: _kernel(name, rows) for name, rows in document.get("kernels", {}).items()}
        constants = {
            name: _constant(name, rows) for name, rows in document.get("constants", {}).items()
        }
        plan = cls(
            kernels=kernels,
            constants=constants,
            alternatives=_names(document.get("alternatives", [])),
            settings=document.get("settings", {}),
            **parts,
        )
        plan.validate()
        return plan

    @classmethod
    def of(cls, given: Plan | str | os.PathLike[str] | Mapping[str, Any]) -> Plan:
        """A plan given as such, as a path to its JSON, or as the parsed JSON."""
        if isinstance(given, Plan):
            given.validate()
            return given
        if isinstance(given, Mapping):
            return cls.from_json(json.dumps(given))
        path = Path(given)
        try:
            return cls.from_json(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise PlanError(
                f"the plan {str(path)!r} cannot be read: {error}", fix="give a plan's JSON file"
            ) from error

    def validate(self) -> None:
        """Raise ``PlanError`` for widths, scales and ranges that no circuit can have."""
        for name, tensor in self.tensors.items():
            check_bits(tensor.bits, f"tensor {name!r}")
            _check_scale(tensor.scale, f"tensor {name!r}")
        for name, weight in self.weights.items():
            _check_scale(weight.scale, f"weights {name!r}")
        for name, reduction in self.reductions.items():
            _check_reduction(name, reduction)
        for name, accumulator in self.accumulators.items():
            if accumulator.rounding is not None:
                check_rounding(accumulator.rounding, f"accumulator {name!r}")
            if accumulator.low > accumulator.high:
                raise PlanError(
                    f"accumulator {name!r} has an empty range",
                    got=f"low {accumulator.low}, high {accumulator.high}",
                    fix="make low at most high",
                )

    def __str__(self) -> str:
        lines = ["tensor                                  bits       scale  zero point"]
        for name, tensor in self.tensors.items():
            zero = np.asarray(tensor.zero_point)
            text = str(zero.item()) if zero.size == 1 else f"{zero.min()}..{zero.max()}"
            lines.append(f"{name[:38]:38}  {tensor.bits:4d}  {tensor.scale:10.4g}  {text:>10}")
        lines.append("accumulator                             bits    rounded        range")
        for name, acc in self.accumulators.items():
            kept = "-" if acc.rounding is None else f"{'=' if acc.exact else '~'}{acc.rounding}"
            lines.append(f"{name[:38]:38}  {acc.bits:4d}  {kept:>9}  {acc.low}..{acc.high}")
        return "\n".join(lines)


def check_rounding(bits: Any, what: str) -> int:
    """``bits`` kept by a rounding, as an int.

    Raises:
        PlanError: it is no integer from 1 to 16.
    """
    if isinstance(bits, (int, np.integer)) and not isinstance(bits, bool) and 1 <= bits <= 16:
        return int(bits)
    raise PlanError(
        f"{what} cannot be rounded to {bits!r} bits",
        expected="an integer from 1 to 16",
        got=repr(bits),
        fix="keep 3 to 6 bits, or rounding=None for the plan's own choice",
    )


def _check_scale(scale: Any, what: str) -> None:
    array = np.asarray(scale, dtype=np.float64)
    if not array.size or not np.isfinite(array).all() or (array <= 0).any():
        raise PlanError(
            f"{what} has an impossible scale",
            expected="positive finite numbers",
            got=str(scale)[:60],
            fix="edit it, or leave the plan's own scale",
        )


def _check_reduction(name: str, reduction: ReductionPlan) -> None:
    parts = [_floats(part) for part in (reduction.live, reduction.slope, reduction.offset)]
    live, slope, _ = parts
    known = all(np.isfinite(part).all() for part in parts) and bool(np.isin(live, (0, 1)).all())
    if known and (not live.any() or not np.any(slope * (live == 0))):
        return
    raise PlanError(
        f"reductions[{name!r}] of the plan is not understood",
        expected="live of 0 and 1; finite slope and offset; slope 0 where some elements live",
        got=f"live {str(reduction.live)[:40]}, slope {str(reduction.slope)[:40]}",
        fix="use the plan as it was written, or compile again for a new one",
    )


def _floats(value: Any) -> NDArray[np.float64]:
    """NaN for what is no array of numbers, lists of several lengths among it."""
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        return np.asarray(np.nan)


def _kernel(name: str, rows: Any) -> NDArray[np.int64]:
    try:
        integers = np.asarray(rows)
    except ValueError:  # lists of several lengths
        integers = np.asarray(None)
    if integers.dtype.kind not in "iu" or not integers.size:
        raise PlanError(
            f"kernels[{name!r}] of the plan holds no integers",
            expected="nested lists of integers, of the shape that the plan had",
            got=str(rows)[:60],
            fix="remove the entry: then the weights are rounded to nearest",
        )
    return integers.astype(np.int64)


def _names(given: Any) -> list[str]:
    if isinstance(given, list) and all(isinstance(name, str) for name in given):
        return given
    raise PlanError(
        "alternatives of the plan are not understood",
        expected="a list of names",
        got=str(given)[:60],
        fix="write the plan with plan.to_json()",
    )


def _constant(name: str, rows: Any) -> NDArray[np.float64]:
    try:
        floats = np.asarray(rows, dtype=np.float64)
    except (TypeError, ValueError):  # no numbers, or lists of several lengths
        floats = np.asarray(np.nan)
    if not np.isfinite(floats).all():
        raise PlanError(
            f"constants[{name!r}] of the plan holds no finite numbers",
            expected="nested lists of numbers, of the shape that the plan had",
            got=str(rows)[:60],
            fix="compile again for a new plan",
        )
    return floats


def _row(entry: Any) -> dict[str, Any]:
    return {f.name: _listed(getattr(entry, f.name)) for f in fields(entry)}


def _listed(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(key): _listed(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_listed(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _entry(kind: type, part: str, name: str, row: Any) -> Any:
    known = {f.name for f in fields(kind)}
    if not isinstance(row, dict) or set(row) - known:
        raise PlanError(
            f"{part}[{name!r}] of the plan is not understood",
            expected=", ".join(sorted(known)),
            got=", ".join(sorted(row)) if isinstance(row, dict) else type(row).__name__,
            fix="remove what is not expected",
        )
    arrays = {
        key: np.asarray(value) if isinstance(value, list) else value for key, value in row.items()
    }
    try:
        return kind(**arrays)
    except TypeError as error:
        raise PlanError(
            f"{part}[{name!r}] of the plan is incomplete: {error}", fix="add it"
        ) from error
