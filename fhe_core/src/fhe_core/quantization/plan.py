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

from fhe_core.arguments import shown
from fhe_core.errors import PlanError
from fhe_core.files import open_regular
from fhe_core.quantization.grids import grid_of
from fhe_core.quantization.plan_schema import (
    ENTRIES,
    SETTINGS,
    check_entry,
    check_forms,
    check_settings,
    floats,
)
from fhe_core.quantization.quantizers import (
    QuantizationOptions,
    QuantizationParameters,
    QuantizationStats,
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
        risk: the share of answers in which it is expected to wrap.
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
    risk: float = 0.0
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
        tensors: by ONNX tensor name, those that are quantized; by ``tensor@node`` as one op reads them,
            where it joins them at a coarser scale than they have for others.
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
            symmetric = self.setting("weight_scheme") == "symmetric"
            if self.setting("weight_granularity") == "per-tensor":
                axis = None
            grid = grid_of(array, axis) if self.setting("trained") else None
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
        named: dict[str, int] = self.setting("weight_bits")
        return named.get(name.rsplit("@", 1)[-1]) or int(self.setting("op_weights"))

    @property
    def leaves_a_choice(self) -> bool:
        """Whether another width or rounding would make another circuit."""
        rounded = any(entry.rounding is not None for entry in self.accumulators.values())
        return bool(self.tensors or self.weights or rounded)

    @property
    def overflow_share(self) -> float:
        """The expected share of answers in which some accumulator wraps, at most."""
        return min(1.0, sum(entry.risk for entry in self.accumulators.values()))

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
            PlanError: it is not a plan, or of another version, or an entry or a setting is wrong.
        """
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise PlanError(
                f"the plan is not JSON: {error}", fix="write it with plan.to_json()"
            ) from error
        version = document.get("version") if isinstance(document, dict) else document
        if not isinstance(document, dict) or version != PLAN_VERSION:
            raise PlanError(
                "the plan has an unknown version",
                expected=f"version {PLAN_VERSION}",
                got=shown(version),
                fix="write it again with this version of fhe-core",
            )
        known = {"version", "settings", "alternatives", *ENTRIES}
        for part, content in document.items():
            listed = part in ("version", "alternatives")
            if part not in known or not (listed or isinstance(content, dict)):
                raise PlanError(
                    f"{shown(part)} of the plan is not understood",
                    expected="an object with an entry for each name, called "
                    + ", ".join(sorted(known)),
                    got=type(content).__name__,
                    fix="write the plan with plan.to_json()",
                )
        rows = {part: document.get(part, {}) for part in ENTRIES}
        parts: dict[str, Any] = {
            part: {name: _entry(kind, part, name, row) for name, row in rows[part].items()}
            for part, kind in _KINDS.items()
        }
        for part in _ARRAYS:
            # Whatever it is: its rule is asked below.
            parts[part] = {name: _array(row) for name, row in rows[part].items()}
        plan = cls(
            alternatives=document.get("alternatives", []),
            settings=document.get("settings", {}),
            **parts,
        )
        plan.validate()
        for part, dtype in _ARRAYS.items():
            held = getattr(plan, part)
            held.update((name, array.astype(dtype)) for name, array in held.items())
        return plan

    @classmethod
    def of(cls, given: Plan | str | os.PathLike[str] | Mapping[str, Any]) -> Plan:
        """A plan given as such, as a path to its JSON, or as the parsed JSON.

        Raises:
            PlanError: it is none of these, or cannot be read; or see ``from_json``.
        """
        if isinstance(given, Plan):
            given.validate()
            return given
        if isinstance(given, Mapping):
            try:
                return cls.from_json(json.dumps(given))
            except (TypeError, ValueError, RecursionError) as error:
                raise PlanError(
                    f"the plan is no parsed JSON: {error}",
                    fix="give a Plan, json.loads(plan.to_json()), or a path to its JSON",
                ) from error
        try:
            with open_regular(Path(given)) as file:
                text = file.read()
        except (OSError, TypeError, ValueError) as error:
            said = getattr(error, "strerror", None) or error
            raise PlanError(
                f"the plan {shown(given)} cannot be read: {said}",
                expected="a Plan, the path to its JSON, or the parsed JSON",
                got=type(given).__name__,
                fix="give a plan's JSON file",
            ) from error
        return cls.from_json(text)

    def setting(self, name: str) -> Any:
        """One of the settings, or its default where the plan does not say."""
        return self.settings.get(name, SETTINGS[name].default)

    def validate(self) -> None:
        """Raise ``PlanError`` for what no plan can hold: see ``plan_schema``."""
        check_settings(self.settings)
        check_forms(self.alternatives)
        for part, kind in [*_KINDS.items(), *((part, np.ndarray) for part in _ARRAYS)]:
            for name, entry in getattr(self, part).items():
                if not isinstance(entry, kind):
                    raise PlanError(
                        f"{part}[{name!r}] of the plan is not understood",
                        expected=kind.__name__,
                        got=type(entry).__name__,
                        fix="write the plan with plan.to_json(), and read it with Plan.from_json()",
                    )
                check_entry(part, name, entry)
        for name, reduction in self.reductions.items():
            _check_reduction(name, reduction)
        for name, accumulator in self.accumulators.items():
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


#: The parts of a plan whose entries have fields, and those whose entries are arrays.
_KINDS: dict[str, type] = {
    "tensors": TensorPlan,
    "weights": WeightPlan,
    "accumulators": AccumulatorPlan,
    "reductions": ReductionPlan,
}
_ARRAYS: dict[str, type] = {"kernels": np.int64, "constants": np.float64}


def _check_reduction(name: str, reduction: ReductionPlan) -> None:
    live, slope = floats(reduction.live), floats(reduction.slope)
    known = live.size and np.isin(live, (0, 1)).all() and _broadcast(live, slope, reduction.offset)
    if known and (not live.any() or not np.any(slope * (live == 0))):
        return
    raise PlanError(
        f"reductions[{name!r}] of the plan is not understood",
        expected="live of 0 and 1; finite slope and offset; slope 0 where some elements live; arrays that "
        "broadcast to each other",
        got=f"live {shown(reduction.live)}, slope {shown(reduction.slope)}",
        fix="use the plan as it was written, or compile again for a new one",
    )


def _broadcast(*arrays: Any) -> bool:
    try:
        np.broadcast_shapes(*map(np.shape, arrays))
    except ValueError:
        return False
    return True


def _array(value: Any) -> NDArray[Any]:
    """``value`` as an array: of objects, where its lists have several lengths."""
    try:
        return np.asarray(value)
    except ValueError:
        return np.asarray(None)


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
            got=shown(sorted(row)) if isinstance(row, dict) else type(row).__name__,
            fix="remove what is not expected",
        )
    arrays = {
        key: _array(value) if isinstance(value, list) else value for key, value in row.items()
    }
    try:
        return kind(**arrays)
    except TypeError as error:
        raise PlanError(
            f"{part}[{name!r}] of the plan is incomplete: {error}", fix="add it"
        ) from error
