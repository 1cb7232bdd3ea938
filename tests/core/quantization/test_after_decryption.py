"""What only shapes outputs runs after decryption, also where it joins several encrypted tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fhe_core

from .building import model, normal

X = normal(200, 6)
FIRST, SECOND = normal(6, 4, seed=1), normal(6, 4, seed=2)
BOTH = "a = MatMul(x, v) b = MatMul(x, w)"


def net(nodes: str, **constants: Any) -> Any:
    held = {"v": FIRST, "w": SECOND, **constants}
    used = {name: value for name, value in held.items() if f" {name})" in nodes}
    return model(nodes, {"x": ("N", 6)}, constants=used)


def quantized(proto: Any, **options: Any) -> Any:
    """The module, after comparing it with the float model."""
    qm = fhe_core.quantize(proto, X, n_bits=10, **options)
    exact = fhe_core.NumpyModule(proto)(X)
    np.testing.assert_allclose(qm.forward(X), exact, atol=0.02 * np.abs(exact).max())
    return qm


@pytest.mark.parametrize(
    "joined", ["Add(a, b)", "Mul(a, b)", "Max(a, b)", "Concat<axis = 1>(a, b)"]
)
def test_joining_products_at_the_end_takes_no_look_up(joined: str) -> None:
    """Each leaves as the accumulator that it is."""
    qm = quantized(net(f"{BOTH} y = {joined}"))
    assert len(qm.program.lookups) == 0


def test_what_reads_a_decrypted_tensor_runs_after_decryption_too() -> None:
    qm = quantized(net("a = MatMul(x, v) s = Softmax(a) y = ReduceSum(s, axes)", axes=[1]))
    assert len(qm.program.lookups) == 0
    late = {row.op for row in qm.fusion if row.mode == "client"}
    assert late >= {"Softmax", "ReduceSum"}


def test_a_sum_that_reads_no_decrypted_tensor_stays_encrypted() -> None:
    """There it is free, and fewer numbers leave."""
    qm = quantized(net("a = MatMul(x, v) y = ReduceSum(a, axes)", axes=[1]))
    assert [node.shape[1:] for node in qm.program.outputs] == [(1,)]


def test_before_an_op_with_weights_nothing_is_left_to_the_client() -> None:
    nodes = f"{BOTH} c = Mul(a, b) y = MatMul(c, u)"
    qm = fhe_core.quantize(net(nodes, u=normal(4, 2, seed=3)), X, n_bits=6)
    assert len(qm.program.lookups) > 0


def test_with_all_on_the_server_a_product_is_computed_there() -> None:
    proto = net(f"{BOTH} y = Mul(a, b)")
    qm = fhe_core.quantize(proto, X, n_bits=6, client_side="minimal")
    assert len(qm.program.lookups) > 0


def test_inputs_alone_are_joined_under_encryption() -> None:
    """Otherwise nothing would be encrypted at all."""
    proto = model("y = Add(x, z)", {"x": ("N", 6), "z": ("N", 6)})
    qm = fhe_core.quantize(proto, {"x": X, "z": X[::-1].copy()}, n_bits=6)
    assert len(qm.program.outputs) == 1


def test_maps_of_rows_are_dicts() -> None:
    rows = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
    maps = fhe_core.primitives.maps(rows, ["a", "b"])
    assert maps == [{"a": 1.0, "b": 2.0}, {"a": 3.0, "b": 4.0}]
