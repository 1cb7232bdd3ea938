"""An op that could be part of a look-up, and says that it cannot, is reported and computes the same."""

from __future__ import annotations

from typing import Any

import pytest

import fhe_core
from fhe_core import QuantizedArray, QuantizedOp
from tests.core.quantization.building import model, normal, relative_error

DOMAIN = "stranger"
X = normal(64, 6)


def cube(x: Any, /) -> Any:
    return x**3


def product(a: Any, b: Any, /) -> Any:
    return a * b


def backwards(x: Any, /) -> Any:
    return x[:, ::-1]


class Careful(QuantizedOp):
    """Works on integers, whatever its implementation does."""

    _impl_for_op_named = "Odd"

    def can_fuse(self) -> bool:
        return False

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> Any:
        # A look-up of its own for each operand, which is what fusing would save.
        integers = [x.quantizer.dequant(x.qvalues) for x in q_inputs]
        return self.quantized(self.call_impl(*integers[:1], *integers[:1] * (len(integers) - 1)))


class Reversing(Careful):
    """Moves elements."""

    def q_impl(self, x: QuantizedArray, /, **attrs: Any) -> Any:
        return self.quantized(x.quantizer.dequant(x.qvalues[:, ::-1]))


def module(impl: Any, kind: type[QuantizedOp], call: str = "stranger.Odd(r)") -> Any:
    proto = model(
        f"h = MatMul(x, a) \n r = Tanh(h) \n g = {call} \n y = MatMul(g, b)",
        {"x": ("N", 6)},
        constants={"a": normal(6, 6) / 3, "b": normal(6, 3)},
        domains={DOMAIN: 1},
    )
    options = {"domain": DOMAIN, "since_version": 1}
    with fhe_core.registered(
        impls=[("Odd", impl, options)], quantized=[(kind, {"domain": DOMAIN})]
    ):
        qm = fhe_core.quantize(proto, X, n_bits=8, rounding=10)
        assert relative_error(qm(X), fhe_core.NumpyModule(proto)(X)) < 0.1
    return qm


@pytest.mark.parametrize(
    ("impl", "call"), [(cube, "stranger.Odd(r)"), (product, "stranger.Odd(r, r)")]
)
def test_a_function_of_each_element_that_does_not_fuse_is_reported(impl: Any, call: str) -> None:
    (notice,) = module(impl, Careful, call).notices
    assert "'Odd_2' (Odd, pack '<registered>')" in notice
    assert "each element of 'h' alone" in notice
    assert "can_fuse() returned True" in notice


def test_what_fuses_or_moves_elements_is_not_reported() -> None:
    class Fuses(QuantizedOp):
        _impl_for_op_named = "Odd"

    assert module(cube, Fuses).notices == ()
    assert module(backwards, Reversing).notices == ()


def test_what_mixes_elements_is_not_reported() -> None:
    nodes = "h = MatMul(x, a) \n s = Softmax(h) \n y = MatMul(s, b)"
    weights = {"a": normal(6, 6), "b": normal(6, 3)}
    proto = model(nodes, {"x": ("N", 6)}, constants=weights)
    assert fhe_core.quantize(proto, X).notices == ()


def test_a_notice_is_kept_with_the_module(tmp_path: Any) -> None:
    qm = module(cube, Careful)
    qm.save(tmp_path / "saved")
    assert fhe_core.load(tmp_path / "saved").notices == qm.notices
