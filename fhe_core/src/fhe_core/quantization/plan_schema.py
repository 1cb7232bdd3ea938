"""What a plan may hold: one rule for each field of its entries and each setting, with their defaults.

A plan is a file that people edit. Nothing of it is used before it is checked here: Concrete ends the whole
process on a probability that is none.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from fhe_core.arguments import shown
from fhe_core.errors import PlanError
from fhe_core.program.pipeline import CHOICES
from fhe_core.quantization.quantizers import RANGES, check_bits

#: Integers up to here are exact as float64, and sums of some of them fit int64.
MOST_INTEGER = 2**53
#: Weights saturate there (``WeightPlan.parameters``).
MOST_WEIGHT = 2**31

#: Raises PlanError for a value that cannot be: (value, the entry's name or "", the field's name).
Check = Callable[[Any, str, str], object]


@dataclass(frozen=True)
class Setting:
    """One of a plan's settings: its value where the plan has none, and what it may be."""

    default: Any
    check: Check


def rule(expected: str, holds: Callable[[Any], bool], problem: str = "cannot be {}") -> Check:
    """A check that says what it expected."""

    def check(value: Any, what: str, name: str) -> None:
        if not holds(value):
            raise PlanError(
                f"{name}{what and f' of {what}'} {problem.format(shown(value))}",
                expected=expected,
                got=shown(value),
                fix="correct it, or leave it out where it has a default",
            )

    return check


def check_rounding(bits: Any, what: str) -> int:
    """``bits`` kept by a rounding, as an int.

    Raises:
        PlanError: it is no integer from 1 to 16.
    """
    if is_integer(bits) and 1 <= bits <= 16:
        return int(bits)
    raise PlanError(
        f"{what} cannot be rounded to {shown(bits)} bits",
        expected="an integer from 1 to 16",
        got=shown(bits),
        fix="keep 3 to 6 bits, or rounding=None for the plan's own choice",
    )


def check_p_error(p_error: Any) -> float:
    """A probability that Concrete's optimizer has parameters for.

    Raises:
        PlanError: it is no number between 2^-128 and 0.5.
    """
    if is_number(p_error) and 2.0**-128 <= p_error < 0.5:
        return float(p_error)
    raise PlanError(
        f"p_error cannot be {shown(p_error)}",
        expected="a probability between 2**-128 and 0.5",
        got=shown(p_error),
        fix="use 2**-40, or 2**-17 for half the cost",
    )


def is_integer(value: Any) -> bool:
    """A whole number of a type of its own: no truth value."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """A finite real number: no truth value."""
    if isinstance(value, (float, np.floating)):
        return math.isfinite(value)
    return is_integer(value) and abs(value) <= MOST_INTEGER


def floats(value: Any) -> NDArray[np.float64]:
    """``value`` as an array of finite numbers; of NaN, where it is none, lists of several lengths among it."""
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return np.asarray(np.nan)


def _are_integers(value: Any, most: int = MOST_INTEGER) -> bool:
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError):
        return False
    known = array.dtype.kind in "iu" and bool(array.size)
    return known and bool((np.abs(array.astype(np.float64)) <= most).all())


def _are_scales(value: Any) -> bool:
    """Beyond float32 a product with them is zero or infinite."""
    array, limits = floats(value), np.finfo(np.float32)
    known = bool(array.size) and not _is_truth(value)
    return known and bool(((array >= limits.tiny) & (array <= limits.max)).all())


def _is_truth(value: Any) -> bool:
    return np.asarray(value).dtype.kind == "b"


def _check_scale(scale: Any, what: str, name: str) -> None:
    if not _are_scales(scale):
        raise PlanError(
            f"{what} has an impossible {name}",
            expected="positive finite numbers",
            got=shown(scale),
            fix="edit it, or leave the plan's own scale",
        )


def _check_one_scale(scale: Any, what: str, name: str) -> None:
    _check_scale(scale if is_number(scale) else None, what, name)


def _check_width(bits: Any, what: str, name: str) -> None:
    check_bits(bits, what)


def _check_kept(bits: Any, what: str, name: str) -> None:
    if bits is not None:
        check_rounding(bits, what)


def _check_widths(given: Any, what: str, name: str) -> None:
    if not isinstance(given, Mapping):
        rule("an object of widths by node name", lambda _: False)(given, what, name)
    for node, bits in given.items():
        check_bits(bits, f"{name}[{node!r}] of {what}")


def _one_of(*allowed: str) -> Check:
    return rule(" or ".join(allowed), lambda value: isinstance(value, str) and value in allowed)


_TRUTH = rule("true or false", lambda value: isinstance(value, (bool, np.bool_)))
_COUNT = rule("a whole number from 0 on", lambda v: is_integer(v) and 0 <= v <= MOST_INTEGER)
_SHARE = rule("a number from 0 on", lambda value: is_number(value) and 0 <= value <= 2**16)
_PROBABILITY = rule("a probability from 0 to 1", lambda v: is_number(v) and 0 <= v <= 1)
_RISK = rule("a probability between 0 and 1", lambda value: is_number(value) and 0 < value < 1)
_INTEGER = rule(
    "a whole number of at most 53 bits", lambda v: is_integer(v) and abs(v) <= MOST_INTEGER
)
_INTEGERS = rule("whole numbers of at most 53 bits", _are_integers)
_FLOATS = rule("finite numbers", lambda value: bool(np.isfinite(floats(value)).all()))
_KERNEL = rule(
    "whole numbers of at most 31 bits",
    lambda value: _are_integers(value, MOST_WEIGHT),
    "holds no integers that weights can be",
)
_FORMS = rule(
    "a list of names",
    lambda value: isinstance(value, list) and all(isinstance(name, str) for name in value),
)

SETTINGS: Mapping[str, Setting] = {
    "op_inputs": Setting(6, _check_width),
    "op_weights": Setting(4, _check_width),
    "model_inputs": Setting(6, _check_width),
    "model_outputs": Setting(6, _check_width),
    "weight_bits": Setting({}, _check_widths),
    "rounding": Setting(None, _check_kept),
    "exact": Setting(False, _TRUTH),
    "overflow": Setting("calibrated", _one_of("calibrated", "guaranteed")),
    "ranges": Setting("mse", _one_of(*RANGES)),
    "weight_scheme": Setting("symmetric", _one_of("symmetric", "affine")),
    "weight_granularity": Setting("per-channel", _one_of("per-channel", "per-tensor")),
    "overflow_risk": Setting(1e-4, _RISK),
    "headroom": Setting(0.2, _SHARE),
    "p_error": Setting(2.0**-40, lambda value, what, name: check_p_error(value)),
    "savings": Setting("all", _one_of(*CHOICES)),
    "tuning": Setting(0, _COUNT),
    "trained": Setting(False, _TRUTH),
}

#: By part of a plan, the fields of its entries; None: an entry is one value.
ENTRIES: Mapping[str, Mapping[str | None, Check]] = {
    "tensors": {
        "bits": _check_width,
        "scale": _check_one_scale,
        "zero_point": _INTEGERS,
        "low": _INTEGERS,
    },
    "weights": {
        "bits": _check_width,
        "scale": _check_scale,
        "zero_point": _INTEGERS,
        "symmetric": _TRUTH,
        "trained": _TRUTH,
    },
    "accumulators": {
        "low": _INTEGER,
        "high": _INTEGER,
        "rounding": _check_kept,
        "exact": _TRUTH,
        "offset": _INTEGERS,
        "bits": _COUNT,
        "headroom": _SHARE,
        "risk": _PROBABILITY,
        "shift": _INTEGERS,
        "antiperiodic": _TRUTH,
    },
    "reductions": {"live": _FLOATS, "slope": _FLOATS, "offset": _FLOATS},
    "kernels": {None: _KERNEL},
    "constants": {None: _FLOATS},
}


def check_settings(settings: Any) -> None:
    """Raises PlanError for a setting that is none, or that has an impossible value."""
    if not isinstance(settings, Mapping):
        raise PlanError(
            "settings of the plan are not understood",
            expected="an object with an entry for each name",
            got=type(settings).__name__,
            fix="write the plan with plan.to_json()",
        )
    for name, value in settings.items():
        if name not in SETTINGS:
            raise PlanError(
                f"settings of the plan name {shown(name)}, which is none",
                expected=", ".join(SETTINGS),
                got=shown(name),
                fix="remove it",
            )
        SETTINGS[name].check(value, "the plan's settings", name)


def check_entry(part: str, name: str, entry: Any) -> None:
    """Raises PlanError for a field of an entry that has an impossible value."""
    what = f"{part if part == 'weights' else part.removesuffix('s')} {name!r}"
    for field, check in ENTRIES[part].items():
        if field is None:
            check(entry, "the plan", f"{part}[{name!r}]")
        else:
            check(getattr(entry, field), what, field)


def check_forms(alternatives: Any) -> None:
    """Raises PlanError for alternatives that are no list of names."""
    _FORMS(alternatives, "the plan", "alternatives")


_Given = ParamSpec("_Given")
_Made = TypeVar("_Made")

#: What a plan decides under another name than its setting's, or that a search alone would heed.
_DECIDED = ("n_bits", "rounding", "labels", "score", "tolerance")


def plan_decides(function: Callable[_Given, _Made]) -> Callable[_Given, _Made]:
    """Refuses arguments beside ``plan=`` that the plan would overrule.

    Those that say what the plan says are left, and those that are None or "auto", which say nothing.
    """

    @functools.wraps(function)
    def checked(*args: _Given.args, **kwargs: _Given.kwargs) -> _Made:
        if kwargs.get("plan") is not None:
            from fhe_core.quantization.plan import Plan

            given: Any = kwargs["plan"]
            kwargs["plan"] = plan = Plan.of(given)
            _refuse_overruled(plan.setting, kwargs)
        return function(*args, **kwargs)

    return checked


def _refuse_overruled(setting: Callable[[str], Any], given: Mapping[str, Any]) -> None:
    known = {name: setting(name) for name in SETTINGS if name not in _DECIDED}
    known["rounding_method"] = "exact" if known["exact"] else "approximate"
    for name, value in given.items():
        says_nothing = value is None or (isinstance(value, str) and value == "auto")
        if says_nothing or not (name in _DECIDED or name in known):
            continue
        if name in known and type(value) in (str, int, float) and value == known[name]:
            continue
        raise PlanError(
            f"the plan decides {name}, and {name}={shown(value)} was given beside it",
            expected=f"plan= without {name}=" + (f", or {known[name]!r}" if name in known else ""),
            got=f"{name}={shown(value)}",
            fix=f"leave {name}= out, or change the plan",
        )
