"""RNN, GRU, LSTM and ReverseSequence compute what ONNX, ONNX Runtime and PyTorch do."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from fhe_core.errors import FheError

from fhe_ops_std import recurrent

from . import onnx_cases
from .oracles import assert_all_same, by_module, by_runtime

OPS = ("RNN", "GRU", "LSTM", "ReverseSequence")
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
ACTIVATIONS = {"RNN": 1, "GRU": 2, "LSTM": 3}


@pytest.mark.parametrize("case", onnx_cases.parameters(*OPS))
def test_onnx_s_own_cases(case: Any) -> None:
    case.check(recurrent.IMPLEMENTATIONS)


def compute(op: str, *inputs: Any, opset: int = 14, **attributes: Any) -> tuple[Any, ...]:
    function = onnx_cases.implementation_for(recurrent.IMPLEMENTATIONS, op, opset)
    return onnx_cases.run(function, inputs, attributes)


def layer(
    op: str, directions: int, *, times: int = 5, batch: int = 3, width: int = 2, hidden: int = 4
) -> list[Any]:
    """All inputs of a layer with small random numbers."""
    rng = np.random.default_rng(directions)

    def normal(*shape: int) -> Any:
        return (rng.normal(size=shape) / 2).astype(np.float32)

    rows = GATES[op] * hidden
    state = (directions, batch, hidden)
    inputs = [
        normal(times, batch, width),
        normal(directions, rows, width),
        normal(directions, rows, hidden),
        normal(directions, 2 * rows),
        np.array([2, 5, 1], np.int32),
        normal(*state),
    ]
    return inputs + ([normal(*state), normal(directions, 3 * hidden)] if op == "LSTM" else [])


def settings(op: str) -> list[dict[str, Any]]:
    more: dict[str, dict[str, Any]] = {
        "RNN": {},
        "GRU": {"linear_before_reset": 1},
        "LSTM": {"input_forget": 1},
    }
    return [{}, more[op], {"clip": 0.3}, {**more[op], "clip": 0.5}]


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_every_setting_is_onnx_runtime_s(op: str, direction: str) -> None:
    """Every subset of the optional inputs that stands for one of their uses, by every attribute."""
    inputs = layer(op, 2 if direction == "bidirectional" else 1)
    left_out: list[tuple[int, ...]] = [(), (3, 4, 5, 6, 7), (4,), (5,), (6, 7), (3, 7)]
    for without, attributes in itertools.product(left_out, settings(op)):
        given = [None if i in without else value for i, value in enumerate(inputs)]
        common = {"hidden_size": 4, "direction": direction, **attributes}
        outputs = 3 if op == "LSTM" else 2
        expected = by_runtime(op, *given, outputs=outputs, opset=14, **common)
        assert_all_same(compute(op, *given, **common), expected)


NAMES: list[tuple[str, list[float], list[float]]] = [
    ("Relu", [], []),
    ("Sigmoid", [], []),
    ("Softsign", [], []),
    ("Softplus", [], []),
    ("LeakyRelu", [0.3], []),
    ("ThresholdedRelu", [0.1], []),
    ("Elu", [0.7], []),
    ("HardSigmoid", [0.3, ], [0.4]),
    ("ScaledTanh", [0.8], [0.9]),
    ("Affine", [0.6], [0.1]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "alpha", "beta"), NAMES)
@pytest.mark.parametrize("op", GATES)
def test_every_activation_is_onnx_runtime_s(
    op: str, name: str, alpha: list[float], beta: list[float]
) -> None:
    """Each takes its alpha and beta from the lists, and leaves the rest to the next."""
    inputs = layer(op, 1)
    names = [*("LeakyRelu", "Tanh")[: ACTIVATIONS[op] - 1], name]
    attributes: dict[str, Any] = {"activations": names, "hidden_size": 4}
    alphas = [0.2] * ("LeakyRelu" in names[:-1]) + alpha
    attributes |= {"activation_alpha": alphas} if alphas else {}
    attributes |= {"activation_beta": beta} if beta else {}
    expected = by_runtime(op, *inputs, outputs=2, opset=14, **attributes)
    assert_all_same(compute(op, *inputs, **attributes), expected)


@pytest.mark.parametrize("op", GATES)
def test_older_opsets_have_no_layout(op: str) -> None:
    inputs = layer(op, 1)
    expected = by_runtime(op, *inputs, outputs=2, opset=7, hidden_size=4)
    assert_all_same(compute(op, *inputs, opset=7, hidden_size=4), expected)
    assert_all_same(compute(op, *inputs, opset=6, hidden_size=4, output_sequence=1), expected)


@pytest.mark.parametrize("op", GATES)
def test_layout_1_has_the_batch_first(op: str) -> None:
    inputs = layer(op, 2)
    swapped = [v.swapaxes(0, 1) if i in (0, 5, 6) else v for i, v in enumerate(inputs)]
    y, *last = compute(op, *inputs, direction="bidirectional")
    y1, *last1 = compute(op, *swapped, direction="bidirectional", layout=1)
    onnx_cases.assert_same(y1, y.transpose(2, 0, 1, 3), rtol=1e-6, atol=1e-6)
    for one, other in zip(last, last1, strict=True):
        onnx_cases.assert_same(other, one.swapaxes(0, 1), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("op", "order"), [("RNN", [0]), ("GRU", [1, 0, 2]), ("LSTM", [0, 2, 3, 1])]
)
def test_a_layer_of_torch_s_is_the_same(op: str, order: list[int]) -> None:
    """PyTorch's GRU is linear before the reset; its gates come in another order."""
    torch.manual_seed(0)
    module = getattr(torch.nn, op)(3, 4, bidirectional=True)
    x = np.random.default_rng(1).normal(size=(6, 2, 3)).astype(np.float32)

    def weights(kind: str, side: str) -> Any:
        w = getattr(module, f"{kind}_l0{side}").detach().numpy()
        # ONNX: LSTM i, o, f, c of PyTorch's i, f, c, o; GRU z, r, n of r, z, n.
        position = {0: [0], 1: [1, 0, 2], 2: [0, 3, 1, 2]}[["RNN", "GRU", "LSTM"].index(op)]
        return np.concatenate([np.split(w, GATES[op])[i] for i in position])

    sides = ("", "_reverse")
    inputs = [
        np.stack([weights(kind, side) for side in sides]) for kind in ("weight_ih", "weight_hh")
    ]
    biases = [[weights(kind, side) for kind in ("bias_ih", "bias_hh")] for side in sides]
    attributes = {"linear_before_reset": 1} if op == "GRU" else {}
    y, *last = compute(
        op,
        x,
        *inputs,
        np.stack([np.concatenate(pair) for pair in biases]),
        direction="bidirectional",
        **attributes,
    )
    with torch.no_grad():
        expected, state = module(torch.from_numpy(x))
    onnx_cases.assert_same(
        y.transpose(0, 2, 1, 3).reshape(6, 2, 8), expected.numpy(), rtol=1e-5, atol=1e-5
    )
    for one, other in zip(last, state if op == "LSTM" else (state,), strict=True):
        onnx_cases.assert_same(one, other.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("op", GATES)
def test_half_precision_is_single_precision_rounded_at_the_end(op: str) -> None:
    inputs = [v.astype(np.float16) if v.dtype == np.float32 else v for v in layer(op, 1)]
    wide = [v.astype(np.float32) if v.dtype == np.float16 else v for v in inputs]
    for got, expected in zip(compute(op, *inputs), compute(op, *wide), strict=True):
        onnx_cases.assert_same(got, expected.astype(np.float16))


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("sizes", [{"times": 0}, {"batch": 0}])
def test_there_may_be_no_time_or_no_sample(op: str, sizes: dict[str, int]) -> None:
    x, w, r, *_ = layer(op, 1, **sizes)
    y, last, *_ = compute(op, x, w, r)
    assert y.shape == (len(x), 1, x.shape[1], 4)
    assert np.array_equal(last, np.zeros((1, x.shape[1], 4)))


def test_reverse_sequence_is_onnx_runtime_s() -> None:
    x = np.arange(2 * 3 * 4 * 2, dtype=np.int64).reshape(3, 2, 8)
    for axes, lengths in ((0, 1), [1, 3]), ((1, 0), [2, 1, 2]):
        attributes = {"time_axis": axes[0], "batch_axis": axes[1]}
        expected = by_runtime("ReverseSequence", x, np.array(lengths), opset=10, **attributes)
        got = compute("ReverseSequence", x, np.array(lengths), opset=10, **attributes)
        assert_all_same(got, expected)


@pytest.mark.parametrize(
    ("op", "change", "attributes", "message"),
    [
        ("LSTM", {}, {"direction": "sideways"}, "'direction' has a value"),
        ("LSTM", {}, {"activations": ["Tanh"]}, "3 activations expected"),
        ("GRU", {}, {"activations": ["Sigmoid", "Cosine"]}, "no activation is called 'Cosine'"),
        ("RNN", {}, {"hidden_size": 5}, "hidden_size 5"),
        ("RNN", {}, {"clip": 0.0}, "clip has to be positive"),
        ("LSTM", {5: np.zeros((1, 2, 4), np.float32)}, {}, "initial states of shape"),
        ("LSTM", {2: np.zeros((1, 12, 4), np.float32)}, {}, "are not those of a layer"),
    ],
)
def test_what_is_no_layer_is_an_error_that_names_the_node(
    op: str, change: dict[int, Any], attributes: dict[str, Any], message: str
) -> None:
    inputs = [change.get(i, value) for i, value in enumerate(layer(op, 1))]
    with pytest.raises(FheError, match=f"(?s){message}.*{op}|{op}.*{message}"):
        by_module(op, *inputs, opset=14, **attributes)


def test_lengths_beyond_the_sequence_are_refused() -> None:
    with pytest.raises(FheError, match="2 lengths from 0 to 3"):
        by_module("ReverseSequence", np.zeros((3, 2)), np.array([1, 4]), opset=10)
