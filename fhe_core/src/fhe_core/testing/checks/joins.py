"""Joins: an operand of another kind than the rest does not take their precision away.

An op that asks for one scale of its inputs is tried with one of them constant, a truth value, a count, much
larger, or much smaller than in the sample, where eight bits are enough for each operand by itself.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fhe_core.errors import CalibrationError
from fhe_core.testing.attempts import cases, net_of
from fhe_core.testing.checks import Check, CheckFailed, CheckSkipped
from fhe_core.testing.measuring import in_float
from fhe_core.testing.nets import Net
from fhe_core.testing.subject import Subject

Array = NDArray[np.floating]

_BITS = 8
#: The part of a result's variance that may be lost where the sample itself loses none: eight bits of a uniform
#: distribution lose 2^-16, and a sum of few operands little more.
_LOST = 0.002


def _shares_a_scale(subject: Subject) -> bool:
    """Whether the pack supplies a quantized class of the op that asks for one scale of its inputs."""
    own = (row.quantized for row in subject.rows if row.quantized_pack == subject.pack.name)
    return any(getattr(kind, "shares_scale", False) for kind in own)


def _joins(subject: Subject, case: str) -> None:
    net = net_of(subject, case)
    floats = [name for name, x in net.data.items() if x.dtype.kind == "f"]
    if not net.placed.op.shares_scale or net.placed.fused or len(floats) < 2:
        raise CheckSkipped("the op asks for no common scale of several inputs")
    allowed = max(_LOST, 2 * max(_lost(net), default=0.0))
    for name in floats:
        for kind, operand in _operands(net.data[name]):
            other = net.on({**net.data, name: operand}, kind)
            try:
                lost = max(_lost(other), default=0.0)
            except CalibrationError:
                continue  # the float op itself is not finite there
            if lost > allowed:
                raise CheckFailed(
                    f"with {_BITS} bits, and an input that is {kind}, the result is no longer that of "
                    "the float op",
                    expected=f"R2 of at least {1 - allowed:.4f}",
                    got=f"R2 of {1 - lost:.4f}",
                    fix="in q_impl read the scale of each input, and not that of another",
                )


def _operands(x: Array) -> Iterator[tuple[str, Array]]:
    """Arrays like x, in place of it."""
    ranks = np.argsort(np.argsort(x, axis=None)).reshape(x.shape)
    yield "zero throughout", np.zeros_like(x)
    yield "constant, far from zero", np.full_like(x, 20 * np.abs(x).max(initial=1))
    yield "a truth value", (ranks % 2).astype(x.dtype)
    yield "a count", (ranks % 8).astype(x.dtype)
    yield "1000 times as large", 1000 * x
    yield "1000 times as small", x / 1000


def _lost(net: Net) -> Iterator[float]:
    """The part of the variance of each real output, where it has any, that quantization loses."""
    found = net.module(_BITS).forward(**net.data)
    wanted = in_float(net, net.data, {})
    results = found if isinstance(found, tuple) else (found,)
    for result, float_one in zip(results, wanted, strict=True):
        if float_one.dtype.kind == "f" and np.isfinite(float_one).all() and np.ptp(float_one):
            missed = np.square(np.float64(result) - float_one).mean()
            yield float(missed / np.var(float_one, dtype=np.float64))


JOINS = Check(
    "joins",
    "where inputs share a scale, one that is constant, a truth value, a count, or of another size leaves the "
    "others their precision.",
    _joins,
    _shares_a_scale,
    cases,
)

CHECKS = (JOINS,)
