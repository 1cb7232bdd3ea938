"""Einsum is what NumPy's is in double precision, whichever way it is computed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fhe_core.errors import FheError
from hypothesis import given, settings
from hypothesis import strategies as st

from fhe_ops_std import einsum

from . import onnx_cases
from .oracles import assert_all_same, by_module, by_runtime


@pytest.mark.parametrize("case", onnx_cases.parameters("Einsum"))
def test_onnx_s_own_cases(case: Any) -> None:
    case.check(einsum.IMPLEMENTATIONS)


def compute(equation: str, *inputs: Any) -> Any:
    (y,) = onnx_cases.run(einsum.einsum, inputs, {"equation": equation})
    return y


def normal(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


EQUATIONS: list[tuple[str, tuple[tuple[int, ...], ...]]] = [
    ("bhid,bhjd->bhij", ((2, 3, 4, 5), (2, 3, 6, 5))),
    ("bhij,bhjd->bihd", ((2, 3, 4, 5), (2, 3, 5, 6))),
    ("...ij,...jk", ((2, 3, 4), (4, 5))),
    ("...ij,...jk->...ik", ((2, 3, 4), (1, 4, 5))),
    ("i...,i...->...", ((2, 3, 4), (2, 4))),
    ("ii->i", ((3, 3),)),
    ("...ii->...i", ((2, 3, 3),)),
    ("ii", ((3, 3),)),
    ("ij->ji", ((2, 3),)),
    ("iij,jk->ik", ((3, 3, 4), (4, 2))),
    ("ijl,jk->ik", ((2, 3, 4), (3, 5))),
    ("ij,jk", ((2, 3), (3, 4))),
    ("Bij, jk -> Bik", ((2, 3, 4), (4, 5))),
    ("i,j->ij", ((3,), (4,))),
    ("i,i", ((5,), (5,))),
    ("ij,kl->", ((2, 3), (4, 5))),
    ("...,...->...", ((2, 3), (3,))),
    ("ij,jk,kl->il", ((2, 3), (3, 4), (4, 5))),
    ("a,b,c->cab", ((2,), (3,), (4,))),
    ("bij,bjk,bkl,l->bi", ((2, 3, 4), (2, 4, 3), (2, 3, 2), (2,))),
    ("ij,jk->ki", ((2, 0), (0, 2))),
    ("ij,jk->ki", ((0, 3), (3, 2))),
]


@pytest.mark.parametrize(("equation", "shapes"), EQUATIONS)
def test_einsum_is_numpy_s(equation: str, shapes: tuple[tuple[int, ...], ...]) -> None:
    inputs = [normal(*shape) for shape in shapes]
    expected = np.einsum(equation, *(x.astype(np.float64) for x in inputs))
    y = compute(equation, *inputs)
    onnx_cases.assert_same(y, expected.astype(np.float32), rtol=1e-5, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_product_of_two_is_numpy_s(data: st.DataObject) -> None:
    """Subscripts at random: shared or not, summed or not, in any order."""
    left = data.draw(st.permutations("abcd").map(lambda p: "".join(p[:3])))
    right = data.draw(st.permutations("abcd").map(lambda p: "".join(p[:2])))
    out = data.draw(st.permutations(sorted({*left, *right})).map("".join))
    out = out[: data.draw(st.integers(0, len(out)))]
    sizes = {"a": 2, "b": 3, "c": 4, "d": 5}
    a, b = (normal(*(sizes[c] for c in label)) for label in (left, right))
    equation = f"{left},{right}->{out}"
    expected = np.einsum(equation, a.astype(np.float64), b.astype(np.float64))
    onnx_cases.assert_same(
        compute(equation, a, b), np.asarray(expected, np.float32), rtol=1e-4, atol=1e-5
    )


def test_integers_stay_integers() -> None:
    x = np.arange(6).reshape(2, 3)
    assert_all_same([compute("ij,jk", x, x.T)], by_runtime("Einsum", x, x.T, equation="ij,jk"))
    narrow = x.astype(np.int8)
    assert compute("ij,jk", narrow, narrow.T).dtype == np.int8


def test_half_precision_adds_up_in_single_precision() -> None:
    ones = np.ones(4097, np.float16)
    assert compute("i,i", ones, ones) == 4096
    assert compute("i->", ones) == 4096


@pytest.mark.parametrize(
    ("equation", "shapes", "message"),
    [
        ("ij,jk", ((2, 3),), "has 2 inputs, the node 1"),
        ("ij->i", ((2, 3, 4),), "another rank"),
        ("ijk", ((2, 3),), "another rank"),
        ("ij,jk", ((2, 3), (4, 5)), "Einsum"),
        ("ij->k", ((2, 3),), "Einsum"),
    ],
)
def test_equations_that_do_not_fit_are_errors(
    equation: str, shapes: tuple[tuple[int, ...], ...], message: str
) -> None:
    with pytest.raises(FheError, match=message):
        by_module("Einsum", *(normal(*shape) for shape in shapes), equation=equation)
