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
from fhe_core.program.wrapping import Wraps
from fhe_core.quantization.accumulators import Accumulators
from fhe_core.quantization.extremes import Flat
from fhe_core.quantization.module import QuantizedModule
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import fhe_core
from tests.core.quantization.building import model, normal

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


def relu_net() -> onnx.ModelProto:
    """10-16-16-3."""
    sizes = ((10, 16), (16, 16), (16, 3))
    constants = {f"w{i}": normal(*size, seed=i) / size[0] ** 0.5 for i, size in enumerate(sizes)}
    return model(
        "h = Gemm(x, w0)\n r = Relu(h)\n i = Gemm(r, w1)\n s = Relu(i)\n y = Gemm(s, w2)",
        {"x": ("N", 10)},
        constants=constants,
    )


def wrapped(qm: QuantizedModule, x: Array) -> float:
    """The share of answers that wrap."""
    wraps = Wraps()
    Interpreter(qm.program)(qm.encode(x), None, wraps)
    return wraps.wrong / wraps.samples


DRAWS: dict[str, Callable[[np.random.Generator, int], Array]] = {
    "normal": lambda rng, n: rng.normal(size=(n, 10)),
    "uniform": lambda rng, n: rng.uniform(-1, 1, size=(n, 10)),
    "laplace": lambda rng, n: rng.laplace(size=(n, 10)),
    "exponential": lambda rng, n: rng.exponential(size=(n, 10)),
    "correlated": lambda rng, n: rng.normal(size=(n, 3)) @ normal(3, 10, seed=4),
}


@pytest.mark.filterwarnings("ignore:.*saturate:UserWarning")
@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("count", [5, 100, 1000])
def test_unseen_answers_wrap_no_more_often_than_was_asked_for(name: str, count: int) -> None:
    """One in six did after 5 samples, one in a hundred after 100, one in a thousand after 1,000."""
    rng = np.random.default_rng(3)
    shares = []
    for _ in range(3 if count < 1000 else 1):
        x = DRAWS[name](rng, count).astype(np.float32)
        qm = fhe_core.quantize(relu_net(), x, n_bits=6, rounding=5)
        shares.append(wrapped(qm, DRAWS[name](rng, 20_000).astype(np.float32)))
    assert np.mean(shares) <= 1e-4


def test_a_smaller_risk_takes_more_headroom() -> None:
    """The plan tells how often each accumulator is expected to wrap, and the report how often any is."""
    plans = [
        fhe_core.quantize(mlp(), samples(4), n_bits=6, overflow_risk=risk).plan
        for risk in (0.1, 1e-2, 1e-4, 1e-8)
    ]
    headrooms = [plan.accumulators["y"].headroom for plan in plans]
    assert headrooms == sorted(headrooms)
    assert headrooms[0] < headrooms[-1]
    for plan, risk in zip(plans, (0.1, 1e-2, 1e-4, 1e-8), strict=True):
        assert plan.overflow_share <= risk
        assert plan.settings["overflow_risk"] == risk


@pytest.mark.parametrize("risk", [0, 1, -1e-4, 2, float("nan"), "little", None, True])
def test_a_risk_is_a_probability(risk: Any) -> None:
    with pytest.raises(fhe_core.PlanError, match="overflow_risk cannot be"):
        fhe_core.quantize(mlp(), samples(4), overflow_risk=risk)


@pytest.mark.filterwarnings("ignore:.*saturate:UserWarning")
@pytest.mark.parametrize("count", [5, 20, 100])
@pytest.mark.parametrize("bits", [4, 8])
def test_without_look_ups_no_input_can_make_an_output_wrap(count: int, bits: int) -> None:
    """There the guarantee costs less than a tenth."""
    net = model("y = MatMul(x, w)", {"x": ("N", 8)}, constants={"w": normal(8, 3)})
    qm = fhe_core.quantize(net, normal(count, 8, seed=1), n_bits=bits)
    assert qm.plan.overflow_share == 0
    assert wrapped(qm, 100 * normal(5000, 8, seed=2)) == 0
    assert not qm.notices


def test_few_calibration_samples_are_a_notice() -> None:
    assert any("20 calibration samples" in n for n in quantized_from(20).notices)
    assert not quantized_from(200).notices


def quantized_from(count: int, **options: Any) -> QuantizedModule:
    return fhe_core.quantize(mlp(), samples(4)[:count], n_bits=6, rounding=5, **options)


@pytest.mark.parametrize("fhe", ["disable", "simulate"])
def test_answers_that_wrap_are_a_warning_that_names_where(fhe: str) -> None:
    """Once a run, with their share; there is none where nothing wraps."""
    plan = quantized_from(200).plan
    entry = plan.accumulators["y"]
    entry.low, entry.high = entry.low, entry.high // 8  # what a plan says is done
    qm = fhe_core.quantize(mlp(), samples(4), plan=plan)
    with pytest.warns(
        fhe_core.WrapAroundWarning, match=r"% of the answers wrap around.*'y'"
    ) as said:
        qm.forward(samples(4), fhe=fhe)
    assert len(said) == 1
    quantized_from(200).forward(samples(4), fhe=fhe)


#: Programs of choices, sums and scales, which bounds have to follow through roundings.
STEPS = {
    "greater": "{o} = Max({a}, {b})",
    "smaller": "{o} = Min({a}, {b})",
    "sum": "{o} = Add({a}, {b})",
    "difference": "{o} = Sub({a}, {b})",
    "clipped": "{o} = Relu({a})",
    "pooled": "{o}_f = Unsqueeze({a}, one)\n {o}_p = MaxPool <kernel_shape = [3], pads = [1, 1]> ({o}_f)\n"
    " {o} = Squeeze({o}_p, one)",
    "mixed": "{o} = MatMul({a}, w)",
}


@pytest.mark.filterwarnings("ignore:.*saturate:UserWarning")
@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.data())
def test_no_input_makes_a_guaranteed_accumulator_wrap(data: st.DataObject) -> None:
    """Whatever is computed, in however many bits: every element is tried at either end of its range."""
    names = ["x"]
    nodes = []
    for i in range(data.draw(st.integers(1, 4), label="steps")):
        step = data.draw(st.sampled_from(sorted(STEPS)), label="step")
        a, b = (data.draw(st.sampled_from(names), label="operand") for _ in range(2))
        nodes.append(STEPS[step].format(o=f"t{i}", a=a, b=b))
        names.append(f"t{i}")
    nodes.append(f"s = Sigmoid({names[-1]})\n y = MatMul(s, w)\n z = Identity({names[-1]})")
    net = model(
        "\n".join(nodes),
        {"x": ("N", 4)},
        "y z",
        {"w": normal(4, 4, seed=1), "one": np.array([1])},
    )
    bits = data.draw(st.integers(2, 6), label="bits")
    kept = data.draw(st.integers(1, bits + 1), label="rounding")
    try:
        qm = fhe_core.quantize(
            net, normal(30, 4, seed=2), n_bits=bits, rounding=kept, overflow="guaranteed"
        )
    except fhe_core.CompilationError:
        assume(False)
    ends = normal(30, 4, seed=2)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**16), label="seed"))
    x = rng.choice([ends.min(), ends.max()], (200, 4)).astype(np.float32)
    wraps = Wraps(strict=True)
    Interpreter(qm.program)(qm.encode(x), None, wraps)
    assert not wraps.wrong, wraps.nodes


def test_a_look_up_that_is_flat_at_one_end_needs_little_room_at_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is beyond one end is answered as at this end for as long as the function is flat at the other."""

    def headroom() -> float:
        x = np.random.default_rng(3).normal(size=(300, 10)).astype(np.float32)
        plan = fhe_core.quantize(relu_net(), x, n_bits=6, rounding=5).plan
        return plan.accumulators["h"].headroom

    knowing = headroom()
    monkeypatch.setattr(Accumulators, "_flat", lambda self, node, span: Flat.nowhere(span))
    assert knowing < 0.7 * headroom()
