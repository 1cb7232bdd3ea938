"""An integer that no circuit has says which, how wide, and what makes it narrower; and then it is."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import pytest

import fhe_core
from fhe_core import CompilationError
from tests.core.quantization.building import model, normal

X = normal(50, 256)
NET = model(
    "h = MatMul(x, a) \n r = Relu(h) \n y = MatMul(r, b)",
    {"x": ("N", 256)},
    constants={"a": normal(256, 4), "b": normal(4, 3)},
)


def refusal(**options: Any) -> CompilationError:
    with pytest.raises(CompilationError) as caught:
        fhe_core.quantize(NET, X, **options)
    return caught.value


def test_an_accumulator_beyond_all_circuits_names_its_weights_and_what_they_multiply() -> None:
    error = refusal(n_bits=12)
    assert (error.where.node, error.where.op, error.where.pack) == ("MatMul_0", "MatMul", "std")
    assert re.fullmatch(r"an accumulator needs 2\d bits", error.problem)
    assert "in 'h'" in str(error.got)
    fix = str(error.fix)
    assert "weights of 'MatMul_0'" in fix
    assert "sums of 256 products: n_bits={'MatMul_0': " in fix
    assert "the input 'x', which has 12: n_bits={'x': 6}" in fix


def test_a_look_up_of_too_many_bits_names_the_rounding_that_it_lacks() -> None:
    plan = fhe_core.quantize(NET, X, n_bits=8, rounding=16).plan
    plan.accumulators["h"].rounding = None
    error = refusal(plan=plan)
    assert error.where.node == "MatMul_0"
    assert "rounding={'h': 8}" in str(error.fix)


def test_what_the_error_says_to_do_helps() -> None:
    error = refusal(n_bits=12)
    (weights,) = re.findall(r"n_bits={'MatMul_0': (\d+)}", str(error.fix))
    (inputs,) = re.findall(r"n_bits={'x': (\d+)}", str(error.fix))
    widths = {"op_inputs": 8, "op_weights": 8, "MatMul_0": int(weights), "x": int(inputs)}
    assert fhe_core.quantize(NET, X, n_bits=widths).plan.accumulators["h"].bits <= 20


def test_a_product_of_encrypted_values_names_its_factors_and_not_their_squares() -> None:
    """Of the squares, which are what is summed up, nobody chooses the bits."""
    turned = "q = MatMul(x, a) \n k = MatMul(x, b) \n t = Transpose <perm = [0, 2, 1]> (q)"
    net = model(
        f"{turned} \n p = MatMul(t, k) \n y = MatMul(p, c)",
        {"x": ("N", 64, 8)},
        constants={"a": normal(8, 4), "b": normal(8, 4, seed=1), "c": normal(4, 2)},
    )
    data = normal(20, 64, 8)
    with pytest.raises(CompilationError) as caught:
        fhe_core.quantize(net, data, n_bits=10)
    assert re.fullmatch(r"an accumulator needs 2\d bits", caught.value.problem)
    (bits,) = set(re.findall(r"which has 10: n_bits={'op_inputs': (\d+)}", str(caught.value.fix)))
    assert int(bits) == 5
    assert fhe_core.quantize(net, data, n_bits={"op_inputs": int(bits), "op_weights": 10})


@pytest.mark.fhe
def test_where_concrete_finds_no_parameters_the_widest_look_up_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the folder that Concrete made for the circuit is gone."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    pytest.importorskip("concrete.fhe", reason="needs fhe-core[concrete]")
    nodes = "h = MatMul(x, a) \n r = Relu(h) \n y = MatMul(r, b)"
    small = model(nodes, {"x": ("N", 64)}, constants={"a": normal(64, 1), "b": normal(1, 1)})
    with pytest.raises(CompilationError, match="NoParametersFound") as caught:
        fhe_core.compile(small, X[:, :64], n_bits=9, rounding=16, p_error=2.0**-128)
    error = caught.value
    assert (error.where.node, error.where.op) == ("MatMul_0", "MatMul")
    assert re.fullmatch(
        r"at the widest place a look-up of 16 bits, of the \d\d bits of 'h'", str(error.got)
    )
    assert "rounding={'h': 15}" in str(error.fix)
    assert "weights of 'MatMul_0'" in str(error.fix)
    assert list(tmp_path.iterdir()) == []
