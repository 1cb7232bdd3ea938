"""Accuracy: by how much a quantized operator may differ from float follows from the widths alone.

The bound, its derivation and what it assumes are in `testing.bounds`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.errors import CalibrationError
from fhe_core.testing.attempts import attempt_of, cases, net_of
from fhe_core.testing.bounds import FLOAT
from fhe_core.testing.checks import Check, CheckFailed, CheckSkipped
from fhe_core.testing.measuring import Measured, measure
from fhe_core.testing.nets import Net
from fhe_core.testing.subject import Subject

Array = NDArray[Any]


def is_quantized(subject: Subject) -> bool:
    """Whether the pack supplies a quantized class of the op."""
    return subject.has_quantized


def _accuracy(subject: Subject, case: str) -> None:
    attempt = attempt_of(subject, case)
    if attempt.is_fault:
        raise attempt.refusal or AssertionError
    if attempt.net is None and not attempt.claims_to_fuse:
        raise CheckFailed(
            "the sample cannot be quantized",
            got=str(attempt.refusal),
            fix="correct the sample, or the quantized class",
        )
    net = net_of(subject, case)
    for bits in subject.bits:
        _require_explained(net, bits)
        if not any(result.error.size for result in measure(net, bits)):
            raise CheckFailed(
                f"with {bits} bits there is nothing to compare",
                expected="results that are finite numbers, also on what the inputs are rounded to",
                got="NaN, infinity or text in float",
                fix="give a sample that stays within what the op is defined on",
            )


def _require_explained(net: Net, bits: int, what: str = "the sample") -> None:
    for number, result in enumerate(measure(net, bits)):
        if not result.missed.any():
            continue
        worst = int(np.argmax(result.missed))
        error, inherited = result.error.flat[worst], result.inherited.flat[worst]
        raise CheckFailed(
            f"with {bits} bits, on {what}, output {number} is further from float than its roundings "
            f"explain, in {np.count_nonzero(result.missed)} of {result.missed.size} values",
            expected=f"an error of at most {result.allowed.flat[worst]:.4g}: rounding the inputs and "
            f"weights makes {inherited:.4g} of it, the op's own look-ups the rest",
            got=f"an error of {error:.4g}; the float op on the rounded inputs lies "
            f"{result.missed.flat[worst]:.4g} outside of what the look-ups can give",
            fix="compare q_impl with the float op: scales, zero points, offsets, what it clips",
        )


def _grows(subject: Subject, case: str) -> None:
    net = net_of(subject, case)
    before: list[Measured] | None = None
    widths = sorted(subject.bits)
    for fewer, bits in zip([0, *widths], widths, strict=False):
        results = measure(net, bits)
        for number, (one, other) in enumerate(zip(before or (), results, strict=bool(before))):
            allowed = _rms(one.error) + _rms(other.inherited) + other.step / 2
            if _rms(other.error) > allowed * (1 + FLOAT):
                raise CheckFailed(
                    f"output {number} is further from float with {bits} bits than with {fewer}",
                    expected=f"at most {allowed:.4g} rms: as much as with {fewer} bits "
                    f"({_rms(one.error):.4g}), and what rounding the inputs to {bits} bits makes "
                    f"of the float op ({_rms(other.inherited):.4g})",
                    got=f"{_rms(other.error):.4g} rms",
                    fix="look for a width in q_impl that does not follow n_bits",
                )
        before = results


def _rms(error: Array) -> float:
    return float(np.sqrt(np.mean(error**2))) if error.size else 0.0


def _adversarial(subject: Subject, case: str) -> None:
    net = net_of(subject, case)
    tried = 0
    for name, data in _patterns(net.data):
        other = net.on(data, name)
        try:
            for bits in sorted({min(subject.bits), max(subject.bits)}):
                _require_explained(other, bits, name)
        except CalibrationError:
            continue  # the float op itself is not finite there
        tried += 1
    if not tried:
        raise CheckSkipped("the float op is not finite on any of these inputs")


def _patterns(data: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Inputs that are hard to quantize, made from a sample's."""
    for name, change in (
        ("constant channels", _constant_channels),
        ("one outlier", _one_outlier),
        ("all zero", np.zeros_like),
        ("all negative", lambda x: -np.abs(x)),
    ):
        yield name, {key: change(x) if x.dtype.kind == "f" else x for key, x in data.items()}


def _constant_channels(x: Array) -> Array:
    """Every other one, all samples alike."""
    changed = x.copy()
    if x.ndim > 1:
        changed[:, ::2] = x.reshape(-1)[0]
    return changed


def _one_outlier(x: Array) -> Array:
    changed = x.copy()
    changed.reshape(-1)[x.size // 2] = 20 * np.abs(x).max(initial=1)
    return changed


ACCURACY = Check(
    "accuracy",
    "the quantized op is as close to float as the widths of its inputs, weights and look-ups allow.",
    _accuracy,
    is_quantized,
    cases,
    judges="quantized",
)
GROWS = Check(
    "accuracy-grows",
    "with more bits the quantized op is no further from float.",
    _grows,
    is_quantized,
    cases,
)
ADVERSARIAL = Check(
    "adversarial",
    "constant channels, an outlier, zeros and negative numbers alone keep the bound of the accuracy.",
    _adversarial,
    is_quantized,
    cases,
)

CHECKS = (ACCURACY, GROWS, ADVERSARIAL)
