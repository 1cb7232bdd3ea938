"""Accumulators stay in the ranges that the plan gives them, as far as ``overflow=`` promises."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from fhe_core.program.interpreter import Interpreter
from fhe_core.program.nodes import Node
from fhe_core.program.program import Program
from fhe_core.quantization.module import QuantizedModule
from numpy.typing import NDArray

import fhe_core
from tests.core.quantization.building import normal

from .nets import cnn, mlp, samples

Array = NDArray[Any]
NETS = [pytest.param(mlp, (4,), id="mlp"), pytest.param(cnn, (1, 3, 3), id="cnn")]


def read(qm: QuantizedModule, x: Array) -> Iterator[tuple[Node, Array]]:
    """Every integer tensor that a look-up or the client reads, with its values for ``x``."""
    ends = [node.inputs[0] for node in qm.program.lookups]
    ends = [node.inputs[0] if node.op == "round" else node for node in ends]
    ends = [*{id(node): node for node in [*ends, *qm.program.outputs]}.values()]
    # Wide enough that nothing wraps: what the circuit would have to hold.
    program = Program(qm.program.nodes, tuple(ends), (0,) * len(ends))
    widths = [node.width for node in ends]
    for node in ends:
        node.width = 40
    interpreter = Interpreter(program)
    for node, width in zip(ends, widths, strict=True):
        node.width = width
    yield from zip(ends, interpreter(qm.encode(x)), strict=True)


def holds(qm: QuantizedModule, node: Node) -> tuple[int, int]:
    """The values that a node's width holds."""
    half = 1 << (node.width - 1)
    if node.signed:
        return -half, half - 1
    used = {id(source) for reader in qm.program.nodes for source in reader.inputs}
    if id(node) not in used:
        # What nothing reads but the client is decrypted with its padding bit.
        return 0, 4 * half - 1
    return 0, 2 * half - 1


@pytest.mark.filterwarnings("ignore:.*saturate:UserWarning")
@pytest.mark.parametrize(("net", "shape"), NETS)
@pytest.mark.parametrize("rounding", [3, 16])
def test_guaranteed_accumulators_hold_any_input(
    net: Callable[[], onnx.ModelProto], shape: tuple[int, ...], rounding: int
) -> None:
    """Also inputs of either sign a thousand times as large as all calibration data."""
    qm = fhe_core.quantize(
        net(), samples(*shape), n_bits=3, rounding=rounding, overflow="guaranteed"
    )
    rng = np.random.default_rng(0)
    wild = rng.choice([-1000.0, 0.0, 1000.0], (500, *shape)).astype(np.float32)
    wild[:250] += 100 * rng.standard_normal((250, *shape), dtype=np.float32)
    for node, values in read(qm, wild):
        low, high = holds(qm, node)
        assert low <= values.min(), node.name
        assert values.max() <= high, node.name


@pytest.mark.parametrize(("net", "shape"), NETS)
def test_calibrated_accumulators_hold_the_calibration_data(
    net: Callable[[], onnx.ModelProto], shape: tuple[int, ...]
) -> None:
    """With the headroom that the plan reports, and in fewer bits than a guarantee takes."""
    x = samples(*shape)
    plans = {
        kind: fhe_core.quantize(net(), x, n_bits=3, rounding=3, overflow=kind)
        for kind in ("calibrated", "guaranteed")
    }
    calibrated = plans["calibrated"]
    for node, values in read(calibrated, x):
        low, high = holds(calibrated, node)
        assert low <= values.min(), node.name
        assert values.max() <= high, node.name
    accumulators = calibrated.plan.accumulators
    assert accumulators
    for name, entry in accumulators.items():
        assert entry.headroom > 0
        assert entry.bits <= plans["guaranteed"].plan.accumulators[name].bits


@pytest.mark.parametrize(("net", "shape"), NETS)
def test_beyond_either_end_a_look_up_answers_as_at_that_end(
    net: Callable[[], onnx.ModelProto], shape: tuple[int, ...]
) -> None:
    """To within one: there the circuit returns minus the entry at the other end, and then adds a constant."""
    qm = fhe_core.quantize(net(), samples(*shape), n_bits=5, rounding=4)
    assert qm.program.lookups
    for node in qm.program.lookups:
        tables = node.attributes["tables"]
        assert set((tables[:, 0] + tables[:, -1]).tolist()) <= {0, 1}, node.name


@pytest.mark.filterwarnings("ignore:.*saturate:UserWarning")
def test_values_a_little_beyond_their_width_change_answers_a_little() -> None:
    """Calibrated on too few samples, one in six answers was as wrong as can be."""
    x = samples(4)
    unseen = np.clip(normal(20_000, 4, seed=5), x[:10].min(0), x[:10].max(0))
    qm = fhe_core.quantize(mlp(), x[:10], n_bits=6, rounding=5)
    wanted = fhe_core.NumpyModule(mlp())(unseen)
    wrong = np.abs(qm.forward(unseen) - wanted).max(axis=1) > 0.25 * np.ptp(wanted)
    assert wrong.mean() < 0.005
