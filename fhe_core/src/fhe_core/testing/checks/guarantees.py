"""``overflow="guaranteed"`` is a theorem: with no input does anything leave what its width holds.

It is tried where it would fail first: with every element at either end of its range, chosen at random.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.errors import CompilationError
from fhe_core.program.interpreter import Interpreter, Noise
from fhe_core.program.wrapping import Wraps
from fhe_core.quantization.module import QuantizedModule
from fhe_core.quantization.planning import Settings
from fhe_core.testing.attempts import cases, net_of
from fhe_core.testing.checks import Check, CheckFailed, CheckSkipped
from fhe_core.testing.checks.accuracy import is_quantized
from fhe_core.testing.nets import Net
from fhe_core.testing.subject import Subject

Array = NDArray[Any]

_BITS = 4
#: Bits kept: fewer than a difference of two integers has, so that what chooses between them is rounded.
_KEPT = 3
_SAMPLES = 128


def _guarantee(subject: Subject, case: str) -> None:
    net = net_of(subject, case)
    if not net.held:
        raise CheckSkipped("the op works before encryption or after decryption alone")
    settings = Settings.of(_BITS, _KEPT, overflow="guaranteed", savings="none")
    try:
        module = net.session.build(settings)
    except CompilationError as error:
        raise CheckSkipped(f"no circuit holds what any input may be: {error.problem}") from error
    require_inside(module, corners(net), Noise(module.p_error, 0))


def corners(net: Net, seed: int = 0) -> dict[str, Array]:
    """Samples whose elements are the least and the largest values of each input, or its own."""
    rng = np.random.default_rng(seed)
    found = {}
    count = len(next(iter(net.session.data.values())))
    rows = rng.integers(0, count, max(1, _SAMPLES // count) * count)
    for name, array in net.session.data.items():
        own = array[rows]
        if array.dtype.kind == "f" and array.size and np.isfinite(array).all():
            ends = np.where(rng.random(own.shape) < 0.5, array.min(), array.max())
            own = np.where(rng.random((len(own), *[1] * (own.ndim - 1))) < 0.9, ends, own)
        found[name] = own.astype(array.dtype)
    return found


def require_inside(module: QuantizedModule, data: dict[str, Array], noise: Noise | None) -> None:
    """Raises ``CheckFailed`` if a look-up or the client reads a value beyond what its width holds."""
    integers = module.encode(**dict[str, Any](data))
    for each in (None, noise):
        # The noise of approximate rounding may lift the largest values by a level, which is answered alike.
        wraps = Wraps(strict=each is None)
        Interpreter(module.program)(integers, each, wraps)
        if not wraps.wrong:
            continue
        raise CheckFailed(
            f"values leave {', '.join(map(repr, wraps.nodes))}, where no input may make them",
            expected="values within the bounds that were recorded",
            got=f"{wraps.wrong} of {wraps.samples} samples with values beyond",
            fix="do not set the bounds of a tensor, and choose with primitives.maximum and minimum",
        )


GUARANTEE = Check(
    "guarantee",
    "with overflow='guaranteed' nothing leaves its width, whatever the input.",
    _guarantee,
    is_quantized,
    cases,
)

CHECKS = (GUARANTEE,)
