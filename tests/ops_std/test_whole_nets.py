"""Whole nets: quantized they stay near what ONNX Runtime gives in float, and all ways to run them agree.

Near is R² over the calibration data, for each output; how much of it each net must keep is said where it is
listed.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fhe_core.quantization.module import QuantizedModule

import fhe_core
from tests.ops_std.nets_whole import NETS, by_runtime, explained, feeds, outputs, part

EXACT: dict[str, Any] = {"rounding": 6, "rounding_method": "exact"}


@functools.cache
def data(name: str) -> dict[str, Any]:
    return feeds(NETS[name].build(17))


@functools.cache
def quantized(name: str, opset: int = 17, **how: Any) -> QuantizedModule:
    given = {"n_bits": 6, **how}
    return fhe_core.quantize(NETS[name].build(opset), data(name), **given)


def same(found: Any, expected: Any) -> None:
    for one, other in zip(outputs(found), outputs(expected), strict=True):
        np.testing.assert_array_equal(one, other)


EACH_OPSET = [(name, opset) for name, net in NETS.items() for opset in net.opsets]


@pytest.mark.parametrize(("name", "opset"), EACH_OPSET)
def test_at_six_bits_a_net_is_near_float_at_each_opset(name: str, opset: int) -> None:
    """In the clear, and with the noise of approximate roundings; ``check`` has promised it."""
    net = NETS[name]
    assert fhe_core.check(net.build(opset)).ok
    module = quantized(name, opset)
    for mode in ("disable", "simulate"):
        results = outputs(module.forward(**data(name), fhe=mode))
        for result, expected in zip(results, by_runtime(name, data(name)), strict=True):
            assert result.dtype == expected.dtype
            assert explained(result, expected) >= net.least


@pytest.mark.parametrize("name", [name for name in NETS if name.startswith("trained")])
def test_a_trained_residual_net_gives_its_own_numbers(name: str) -> None:
    """Although its addition joins two scales: the finer one is a part of the other."""
    module = quantized(name, n_bits=3, rounding=16, rounding_method="exact")
    same(module.forward(**data(name), fhe="simulate"), by_runtime(name, data(name)))


@pytest.mark.parametrize("name", NETS)
def test_with_exact_roundings_a_simulation_changes_nothing(name: str) -> None:
    module = quantized(name, **EXACT)
    few = part(data(name), 0, 40)
    same(module.forward(**few, fhe="simulate", seed=1), module.forward(**few))


@pytest.mark.parametrize("name", NETS)
def test_a_saved_net_gives_the_same_when_it_is_loaded(name: str, tmp_path: Path) -> None:
    module = quantized(name)
    module.save(tmp_path / "net")
    again = fhe_core.load(tmp_path / "net")
    few = part(data(name), 0, 20)
    for mode in ("disable", "simulate"):
        same(again.forward(**few, fhe=mode), module.forward(**few, fhe=mode))


@pytest.mark.parametrize("name", NETS)
def test_a_plan_that_is_read_back_builds_the_same_net(name: str) -> None:
    """Under other calibration data too: the plan says everything."""
    module, few = quantized(name), part(data(name), 0, 20)
    plan = fhe_core.Plan.from_json(module.plan.to_json())
    again = fhe_core.quantize(NETS[name].build(17), part(data(name), 20, 120), plan=plan)
    for mode in ("disable", "simulate"):
        same(again.forward(**few, fhe=mode), module.forward(**few, fhe=mode))


def test_a_state_may_be_clear_while_the_sequence_is_encrypted() -> None:
    """An LSTM of three inputs and two outputs: who sees which input changes no number."""
    module = quantized("lstm", encrypted=("x",))
    few = part(data("lstm"), 0, 30)
    same(module.forward(**few), quantized("lstm").forward(**few))
    secret = {node.name: node.attributes["encrypted"] for node in module.program.inputs}
    assert {name.split("#")[0] for name, hidden in secret.items() if hidden} == {"x"}
    assert {name for name, hidden in secret.items() if not hidden} == {"h0", "c0"}


@pytest.mark.parametrize("weighing", ["attention", "sigmoid attention"])
def test_attention_multiplies_encrypted_values_by_encrypted_ones(weighing: str) -> None:
    """Two look-ups a product: queries by keys over the width, and shares by values over the words."""
    fused = {row.node: row.mode for row in quantized(weighing).fusion}
    products = {node: mode for node, mode in fused.items() if node.startswith("MatMul")}
    assert set(products.values()) == {"mixed"}
    words, width = data(weighing)["x"].shape[1:]
    pairs = [
        node
        for node in quantized(weighing).program.lookups
        if node.shape[1:] in ((words, width, words), (words, words, width))
    ]
    assert len(pairs) == 4


@pytest.mark.fhe
@pytest.mark.parametrize(("name", "encrypted"), [("mlp", None), ("gru", ("x",))])
def test_encrypted_a_net_gives_what_it_gives_in_the_clear(name: str, encrypted: Any) -> None:
    """At two bits, under real keys, with exact roundings: the results are equal. The state of the GRU is
    clear, and so are the first of the products that it takes part in."""
    given = {"n_bits": 2, "encrypted": encrypted, **EXACT}
    module = fhe_core.compile(NETS[name].build(17), data(name), **given)
    one = part(data(name), 0, 1)
    same(module.forward(**one, fhe="execute"), module.forward(**one))
