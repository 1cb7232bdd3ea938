"""Bits of encrypted integers, exactly as NumPy has them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from fhe_core.errors import PlanError
from hypothesis import given, settings
from hypothesis import strategies as st

import fhe_core
from tests.core.quantization.building import model

OPERATORS = {
    "BitwiseAnd": np.bitwise_and,
    "BitwiseOr": np.bitwise_or,
    "BitwiseXor": np.bitwise_xor,
}


def of_integers(nodes: str, inputs: str, *, dtype: Any = np.int64, **constants: Any) -> Any:
    """A model from vectors of integers to integers."""
    arrays = {name: np.asarray(value, dtype) for name, value in constants.items()}
    net = model(nodes, dict.fromkeys(inputs, ("N", 4)), "y", arrays, opset=18)
    for value in (*net.graph.input, *net.graph.output):
        value.type.tensor_type.elem_type = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return net


def every(bits: int, *, signed: bool = False) -> tuple[Any, Any]:
    """All pairs of integers of some bits, four of them a row."""
    low = -(2 ** (bits - 1)) if signed else 0
    a, b = np.meshgrid(*[np.arange(low, low + 2**bits)] * 2)
    return a.reshape(-1, 4), b.reshape(-1, 4)


@settings(max_examples=24, deadline=None)
@given(st.sampled_from(sorted(OPERATORS)), st.integers(2, 6), st.booleans())
def test_two_encrypted_integers(op: str, bits: int, signed: bool) -> None:
    """Every pair of integers, with as many bits as they have and the roundings that follow by default."""
    a, b = every(bits, signed=signed)
    net = of_integers(f"y = {op}(a, b)", "ab")
    qm = fhe_core.quantize(net, (a, b), n_bits=bits, rounding_method="exact")
    assert np.array_equal(qm.forward(a, b, fhe="simulate"), OPERATORS[op](a, b))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int64])
@pytest.mark.parametrize("client_side", ["any", "minimal"])
def test_a_constant_and_the_type_that_bits_are_of(dtype: Any, client_side: str) -> None:
    """What is turned or shifted out depends on the type, which encryption does not know."""
    x = np.arange(16).reshape(4, 4).astype(dtype)
    unsigned = np.dtype(dtype).kind == "u"
    shift = 's = BitShift <direction = "RIGHT"> (x, two)' if unsigned else "s = Identity(x)"
    nodes = f"{shift}\nn = BitwiseNot(s)\ny = BitwiseAnd(n, mask)"
    net = of_integers(nodes, "x", dtype=dtype, two=2, mask=[11, 12, 13, 14])
    expected = ~(x >> 2 if unsigned else x) & np.array([11, 12, 13, 14], dtype)
    qm = fhe_core.quantize(net, x, n_bits=4, client_side=client_side)
    assert np.array_equal(qm.forward(x, fhe="simulate"), expected)


def test_two_digits_take_a_look_up_each_and_one_together() -> None:
    """Of each integer of four bits both digits, and the And of each pair of digits: six look-ups."""
    a, b = every(4)
    qm = fhe_core.quantize(of_integers("y = BitwiseAnd(a, b)", "ab"), (a, b), n_bits=4)
    lookups = [node for node in qm.program.nodes if node.op == "lookup"]
    assert len(lookups) == 6
    assert max(node.inputs[0].width for node in lookups) == 4


def test_too_few_bits_are_refused() -> None:
    a, b = every(4)
    with pytest.raises(PlanError, match="needs all bits"):
        fhe_core.quantize(of_integers("y = BitwiseOr(a, b)", "ab"), (a, b), n_bits=3)


@pytest.mark.fhe
def test_encrypted_integers_are_joined_bit_by_bit() -> None:
    a, b = every(2)
    qm = fhe_core.compile(of_integers("y = BitwiseXor(a, b)", "ab"), (a, b), n_bits=2, rounding=4)
    assert np.array_equal(qm.forward(a[:2], b[:2], fhe="execute"), (a ^ b)[:2])
