"""Every check, in the order in which they run: the cheap and fundamental ones first."""

from __future__ import annotations

from fhe_core.testing.checks import (
    Check,
    accuracy,
    coverage,
    execution,
    floats,
    fusion,
    guarantees,
    integers,
    isolation,
    joins,
    packaging,
    persistence,
    refusals,
    signatures,
    tensors,
    versions,
)

_FAMILIES = (
    packaging,
    isolation,
    coverage,
    signatures,
    floats,
    versions,
    tensors,
    refusals,
    fusion,
    integers,
    accuracy,
    joins,
    guarantees,
    execution,
    persistence,
)

CHECKS: tuple[Check, ...] = tuple(check for family in _FAMILIES for check in family.CHECKS)
