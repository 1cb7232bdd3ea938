"""``disable``, ``simulate`` and ``execute`` read one program, and agree where nothing is approximate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

import fhe_core

from .nets import FAST, client_sided, cnn, mlp, samples

EXACT: dict[str, Any] = {"n_bits": 2, "rounding": 2, "rounding_method": "exact"}
UNROUNDED: dict[str, Any] = {"n_bits": 2, "rounding": 16}
CASES = [
    pytest.param(mlp, (4,), UNROUNDED, id="unrounded"),
    pytest.param(client_sided, (4,), {**EXACT, **FAST}, id="client-sided"),
    pytest.param(cnn, (1, 3, 3), EXACT, id="convolution-pooling-residual"),
]


def all_equal(found: Any, expected: Any) -> None:
    found, expected = (part if isinstance(part, tuple) else (part,) for part in (found, expected))
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(("net", "shape", "options"), CASES)
def test_simulation_is_exact_without_approximate_roundings(
    net: Callable[[], onnx.ModelProto], shape: tuple[int, ...], options: dict[str, Any]
) -> None:
    x = samples(*shape)
    qm = fhe_core.quantize(net(), x, **options)
    for seed in range(3):
        all_equal(qm.forward(x, fhe="simulate", seed=seed), qm.forward(x))


@pytest.mark.fhe
@pytest.mark.parametrize(("net", "shape", "options"), CASES)
def test_encryption_changes_nothing_without_approximate_roundings(
    net: Callable[[], onnx.ModelProto], shape: tuple[int, ...], options: dict[str, Any]
) -> None:
    x = samples(*shape)
    qm = fhe_core.compile(net(), x, **options)
    few = x[:3]
    all_equal(qm.forward(few, fhe="execute"), qm.forward(few))


def test_a_simulation_follows_its_seed() -> None:
    x = samples(4)
    qm = fhe_core.quantize(mlp(), x, **FAST)
    first, second, other = (qm.forward(x, fhe="simulate", seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()


def test_what_was_only_quantized_cannot_be_executed() -> None:
    qm = fhe_core.quantize(mlp(), samples(4), **FAST)
    with pytest.raises(fhe_core.CompilationError, match=r"not compiled.*Use fhe_core\.compile"):
        qm.forward(samples(4)[:1], fhe="execute")
    with pytest.raises(fhe_core.CompilationError, match="not compiled"):
        _ = qm.cost
