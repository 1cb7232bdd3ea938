"""A report says of each layer what it costs and adds in error, and is kept with the model."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fhe_core.compiler.report.layers import layers_of
from fhe_core.compiler.report.reading import read_report
from fhe_core.quantization.module import QuantizedModule

import fhe_core
from tests.core.quantization.building import model, normal

from .nets import FAST, WEIGHTS, client_sided, cnn, mlp, samples
from .processes import PACKS, run

X = samples(4)


def layers(report: dict[str, Any]) -> dict[str, Any]:
    return {layer["name"]: layer for layer in report["layers"]}


def chained() -> onnx.ModelProto:
    """x * sigmoid(x) after an affine layer, an addition of what went before, and another layer."""
    return model(
        """h = Gemm(x, w, b)
        s = Sigmoid(h)
        m = Mul(h, s)
        t = Tanh(m)
        g = Gemm(t, u)
        a = Add(g, h)
        y = Gemm(a, v)""",
        {"x": ("N", 4)},
        constants={**WEIGHTS, "u": normal(6, 6, seed=5)},
    )


# -- cost


@pytest.mark.parametrize(
    ("net", "data", "options"),
    [
        (mlp(), X, {"rounding": 3}),
        (mlp(), X, {"rounding": 3, "rounding_method": "exact"}),  # several bootstraps each
        (mlp(), X, {"rounding": {"Gemm_0": 5, "y": 3}}),
        (cnn(), samples(1, 3, 3), {"rounding": 3}),
        (model("y = Gemm(x, w, b)", {"x": ("N", 4)}, constants=WEIGHTS), X, {}),  # no look-ups
    ],
    ids=["approximate", "exact", "one layer wider", "residual", "linear"],
)
def test_the_layers_together_cost_what_the_circuit_does(
    net: onnx.ModelProto, data: Any, options: dict[str, Any]
) -> None:
    pytest.importorskip("concrete.fhe", reason="needs fhe-core[concrete]")
    qm = fhe_core.compile(net, data, n_bits=3, p_error=2.0**-20, **options)
    rows = qm.report["layers"]
    assert math.isclose(sum(row["complexity"] for row in rows), qm.cost.complexity, rel_tol=1e-9)
    assert math.isclose(sum(row["share"] for row in rows), 1.0, rel_tol=1e-9)
    assert sum(row["lookups"] for row in rows) == qm.cost.pbs_count


def test_the_formulas_of_keys_explain_the_whole_complexity(compiled: QuantizedModule) -> None:
    """What one use of each key costs, times its uses, is Concrete's total: nothing is left to share out."""
    from fhe_core.compiler.concrete_backend import spending

    server = compiled.circuit.server  # type: ignore[union-attr]
    prices = spending._prices(server)
    total = sum(
        row.count * prices.get((int(kind), key), 0.0)
        for row in spending._feedback(server).statistics
        for kind, key in row.keys
    )
    assert total == compiled.cost.complexity


def test_a_model_that_was_only_quantized_has_no_cost() -> None:
    report = fhe_core.quantize(mlp(), X, n_bits=3).report
    assert (report["cost"], report["sizes"], report["search"]) == (None, None, None)
    assert {layer["share"] for layer in report["layers"]} == {None}
    assert layers(report)["h"]["lookups"] == 6


# -- layers and groups


def test_a_layer_has_its_bits_and_what_was_fused_into_it() -> None:
    report = fhe_core.quantize(mlp(), X, n_bits=3, rounding=4).report
    first, last = report["layers"]
    assert (first["name"], first["ops"], first["fused_ops"]) == ("h", ["Gemm"], ["Relu"])
    assert (first["bits_in"], first["rounded_bits"], first["output"]) == (3, 4, False)
    assert (last["name"], last["ops"], last["fused_ops"]) == ("y", ["Gemm"], [])
    assert (last["rounded_bits"], last["lookups"], last["output"]) == (None, 0, True)


def test_what_several_layers_read_belongs_to_the_first() -> None:
    qm = fhe_core.quantize(chained(), X, n_bits=3)
    found = layers_of(qm.program)
    numbers = [number for layer in found for number in layer.numbers]
    assert len(set(numbers)) == len(numbers)
    assert len(numbers) == len(qm.program.nodes) - len(qm.program.inputs)
    assert [layer.numbers[-1] for layer in found] == sorted(layer.numbers[-1] for layer in found)


def test_ops_whose_branches_meet_again_are_in_one_look_up() -> None:
    qm = fhe_core.quantize(chained(), X, n_bits=3)
    rows = {row.op: row for row in qm.fusion}
    assert {rows[op].mode for op in ("Sigmoid", "Mul", "Tanh")} == {"float"}
    assert {rows[op].lookups for op in ("Sigmoid", "Mul", "Tanh")} == {("h",)}
    assert {rows[op].lookups for op in ("Gemm", "Add")} == {()}
    groups = qm.report["graph"]["groups"]
    assert ["Sigmoid_1", "Mul_2", "Tanh_3"] in [group["nodes"] for group in groups]


def test_a_look_up_of_no_op_stands_between_two() -> None:
    """The branches of an addition are only brought to its scale."""
    groups = fhe_core.quantize(chained(), X, n_bits=3).report["graph"]["groups"]
    assert ["Gemm_4", "Add_5"] in [group["between"] for group in groups if not group["nodes"]]


def test_what_runs_on_the_client_is_listed() -> None:
    client = fhe_core.quantize(client_sided(), X, **FAST).report["client"]
    assert (client["before_ops"], client["after_ops"]) == (["Div"], ["Softmax"])
    assert [row["integers"] for row in client["sends"]] == [4]
    assert any("Softmax" in phrase for phrase in client["learns"])
    assert {"exp", "true_divide"} <= {*client["encodes_with"], *client["decodes_with"]}


# -- error


def test_fewer_bits_in_one_layer_add_error_there_alone() -> None:
    found = []
    for kept in (6, 4, 2):
        qm = fhe_core.quantize(chained(), X, n_bits=8, rounding={"h": kept, "g": 8, "a": 8})
        found.append({row["name"]: row["error"] for row in qm.report["layers"]})
    first = [errors["h"] for errors in found]
    assert first[0] < first[1] / 2 < first[2] / 4
    for name in set(found[0]) - {"h"}:
        others = [errors[name] for errors in found if errors[name] is not None]
        assert max(others, default=0.0) < first[1]


def test_quantized_results_add_error_where_nothing_is_rounded() -> None:
    """Results of 2 bits are coarse even if the accumulator is read as it is."""
    fine, coarse = (
        layers(fhe_core.quantize(mlp(), X, n_bits=bits, rounding=16).report)["h"]["error"]
        for bits in (7, {"op_inputs": 2, "op_weights": 7, "model_inputs": 7})
    )
    assert fine < 0.02 < 0.1 < coarse


def test_errors_of_inputs_weights_and_layers_explain_that_of_the_whole() -> None:
    """They are nearly independent: their squares add up to its square, within a factor."""
    report = fhe_core.quantize(mlp(), X, n_bits=4, rounding=4).report
    parts = [report["errors"]["weights"], *(row["error"] or 0.0 for row in report["layers"])]
    whole = report["errors"]["whole"]
    assert 0.5 < math.hypot(*parts) / whole < 2


def test_errors_of_classes_are_the_share_that_changes() -> None:
    net = model(
        "h = Gemm(x, w, b)\n r = Relu(h)\n g = Gemm(r, v)\n y = ArgMax <axis = 1> (g)",
        {"x": ("N", 4)},
        constants=WEIGHTS,
    )
    qm = fhe_core.quantize(net, X, **FAST)
    report = qm.report
    count = report["errors"]["samples"]
    wrong = np.mean(qm.forward(X[:count], fhe="simulate") != fhe_core.NumpyModule(net)(X[:count]))
    assert report["errors"]["whole"] == wrong
    assert 0 <= layers(report)["h"]["error"] <= 1


# -- kept with the model


def test_a_saved_report_is_the_same(saved: Path, compiled: QuantizedModule) -> None:
    report = json.loads(json.dumps(compiled.report))
    assert read_report(saved) == report
    loaded = fhe_core.load(saved)
    assert loaded.report == report
    assert (loaded.savings, loaded.notices) == (compiled.savings, compiled.notices)


def test_it_is_read_without_packs_model_and_compiler(saved: Path) -> None:
    code = f"""
from fhe_core.compiler.report.page import page
from fhe_core.compiler.report.reading import read_report
assert "svg" in page(read_report({str(saved)!r}), "net")
assert not {{"concrete", "onnx", "torch"}} & set(sys.modules), sorted(sys.modules)
"""
    run(code, saved.parent, blocked=(*PACKS, "concrete", "onnx"))


def test_a_model_without_a_report_says_what_to_do(saved: Path, tmp_path: Path) -> None:
    from fhe_core.compiler.folder import MANIFEST, manifest_of

    files = {"plan.json": (saved / "plan.json").read_bytes()}
    for name, data in (files | {MANIFEST: manifest_of("model", files, {})}).items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(fhe_core.ArtifactError, match="Save the model again"):
        read_report(tmp_path)


def test_every_layer_has_a_reason() -> None:
    for row in fhe_core.quantize(chained(), X, n_bits=3).report["layers"]:
        assert row["decisions"]
        assert all(re.match(r"\w.*[^.]$", sentence) for sentence in row["decisions"])
