"""An operator written as the specification shows it works, whoever wrote it: only the import differs.

The classes below belong to a stranger. Their bodies follow the three cases of the specification's "FHE
Op-graph Design" line by line.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy
import pytest

import fhe_core
from fhe_core import QuantizedArray, QuantizedOp
from tests.core.quantization.building import Array, model, normal, relative_error

DOMAIN = "stranger"


# -- case 1: a float version is sufficient


def bump(x: Any, /, width: Any = None, *, height: float = 1.0) -> Any:
    """height / (1 + (x / width)^2)."""
    ratio = x if width is None else x / width
    return (height / (1 + ratio * ratio)).astype(x.dtype)


class QuantizedBump(QuantizedOp):
    _impl_for_op_named = "Bump"


# -- case 2: an integer implementation is necessary


def row_sum(x: Any, /) -> Any:
    return x.sum(axis=1, keepdims=True)


class QuantizedRowSum(QuantizedOp):
    _impl_for_op_named = "RowSum"

    def q_impl(
        self,
        *q_inputs: QuantizedArray,
        **attrs: Any,
    ) -> QuantizedArray:
        # Retrieve the quantized inputs
        prepared_inputs = self._prepare_inputs_with_constants(
            *q_inputs, calibrate=False, quantize_actual_values=True
        )
        q_input = prepared_inputs[0]
        count = q_input.qvalues.shape[1]
        sum_result = q_input.qvalues.sum(axis=1, keepdims=True)
        sum_result = sum_result - (count - 1) * q_input.quantizer.zero_point

        result = (
            sum_result.astype(numpy.float32) - q_input.quantizer.zero_point
        ) * q_input.quantizer.scale

        return QuantizedArray(
            self.n_bits,
            result,
            value_is_float=True,
            options=self.input_quant_opts,
            stats=self.output_quant_stats,
            params=self.output_quant_params,
        )


# -- case 3: both are necessary


def plus(a: Any, b: Any, /) -> Any:
    return a + b


def minus(a: Any, b: Any, /) -> Any:
    return a - b


class QuantizedPlus(QuantizedOp):
    _impl_for_op_named = "Plus"
    b_sign = 1

    def can_fuse(self) -> bool:
        return len(self._int_input_names) == 1

    def q_impl(
        self,
        *q_inputs: QuantizedArray,
        **attrs: Any,
    ) -> QuantizedArray:
        execute_in_float = len(self.constant_inputs) > 0 or self.can_fuse()

        # a floating point implementation that can fuse
        if execute_in_float:
            prepared_inputs = self._prepare_inputs_with_constants(
                *q_inputs, calibrate=False, quantize_actual_values=False
            )

            result = prepared_inputs[0] + self.b_sign * prepared_inputs[1]
            return QuantizedArray(
                self.n_bits,
                result,
                value_is_float=True,
                options=self.input_quant_opts,
                stats=self.output_quant_stats,
                params=self.output_quant_params,
            )
        else:
            prepared_inputs = self._prepare_inputs_with_constants(
                *q_inputs, calibrate=False, quantize_actual_values=True
            )
            # an integer implementation follows: both inputs at the scale of the output
            scale = self.output_quant_params.scale  # type: ignore[union-attr]
            rescaled = [
                numpy.rint(
                    q_input.quantizer.scale
                    / scale
                    * (q_input.qvalues + (-q_input.quantizer.zero_point))
                ).astype(numpy.int64)
                for q_input in prepared_inputs
            ]
            sum_result = rescaled[0] + self.b_sign * rescaled[1]
            return QuantizedArray(
                self.n_bits,
                sum_result.astype(numpy.float32) * scale,
                value_is_float=True,
                options=self.input_quant_opts,
                stats=self.output_quant_stats,
                params=self.output_quant_params,
            )


class QuantizedMinus(QuantizedPlus):
    _impl_for_op_named = "Minus"
    b_sign = -1


IMPLS = [
    (name, function, {"domain": DOMAIN, "since_version": 1})
    for name, function in (("Bump", bump), ("RowSum", row_sum), ("Plus", plus), ("Minus", minus))
]
QUANTIZED = [
    (kind, {"domain": DOMAIN})
    for kind in (QuantizedBump, QuantizedRowSum, QuantizedPlus, QuantizedMinus)
]
#: Each between two products, so that its inputs are encrypted and its output is quantized.
GRAPHS = {
    "case 1": "h = MatMul(x, a) \n g = stranger.Bump <height = 2.0> (h) \n y = MatMul(g, b)",
    "case 1, optional input": "h = MatMul(x, a) \n g = stranger.Bump(h, w) \n y = MatMul(g, b)",
    "case 2": "h = MatMul(x, a) \n s = stranger.RowSum(h) \n y = MatMul(s, c)",
    "case 3, a constant": "h = MatMul(x, a) \n g = stranger.Minus(h, w) \n y = MatMul(g, b)",
    "case 3, one integer tensor": (
        "h = MatMul(x, a) \n t = Tanh(h) \n g = stranger.Plus(h, t) \n y = MatMul(g, b)"
    ),
    "case 3, two": (
        "h = MatMul(x, a) \n i = MatMul(x, d) \n g = stranger.Minus(h, i) \n y = MatMul(g, b)"
    ),
}
CONSTANTS = {
    "a": normal(6, 6),
    "b": normal(6, 3, seed=1),
    "c": normal(1, 3, seed=2),
    "d": normal(6, 6, seed=3),
    "w": abs(normal(6, seed=4)) + 1,
}


@pytest.fixture(scope="module")
def x() -> Array:
    return normal(400, 6, seed=5)


@pytest.fixture(autouse=True)
def _strangers() -> Iterator[None]:
    with fhe_core.registered(impls=IMPLS, quantized=QUANTIZED):
        yield


def proto(name: str) -> Any:
    constants = {key: value for key, value in CONSTANTS.items() if f" {key})" in GRAPHS[name]}
    return model(GRAPHS[name], {"x": ("N", 6)}, constants=constants, domains={DOMAIN: 1})


# -- they run


@pytest.mark.parametrize("name", GRAPHS)
def test_its_results_approach_float_as_bits_grow(name: str, x: Array) -> None:
    """The error halves at least from 3 bits to 5 and to 8, where it is 3 %."""
    expected = fhe_core.NumpyModule(proto(name))(x)
    errors = []
    for bits in (3, 5, 8):
        qm = fhe_core.quantize(proto(name), x, n_bits=bits, rounding=min(bits + 4, 12))
        errors.append(relative_error(qm(x), expected))
    assert errors[1] < errors[0] / 2
    assert errors[2] < errors[1] / 2
    assert errors[2] < 0.03


@pytest.mark.parametrize("name", GRAPHS)
def test_simulation_is_the_clear_integers_under_exact_rounding(name: str, x: Array) -> None:
    qm = fhe_core.quantize(proto(name), x, n_bits=4, rounding_method="exact")
    assert numpy.array_equal(qm.forward(x, fhe="simulate"), qm.forward(x, fhe="disable"))


# -- fusion


@pytest.mark.parametrize(
    ("name", "modes", "lookups"),
    [
        ("case 1", {"Bump": "float"}, 1),
        ("case 2", {"RowSum": "mixed"}, 2),  # one look-up quantizes its input, one its sum
        ("case 3, a constant", {"Minus": "float"}, 1),
        ("case 3, one integer tensor", {"Tanh": "float", "Plus": "float"}, 1),
        # Each operand is quantized, rescaled to the scale of the output, and their sum quantized.
        ("case 3, two", {"Minus": "mixed"}, 5),
    ],
)
def test_can_fuse_tells_float_mode_from_mixed_mode(
    name: str, modes: dict[str, str], lookups: int, x: Array
) -> None:
    qm = fhe_core.quantize(proto(name), x)
    rows = {row.op: row for row in qm.fusion}
    assert {op: rows[op].mode for op in modes} == modes
    assert {rows[op].pack for op in modes if op != "Tanh"} == {"<registered>"}
    assert len(qm.program.lookups) == lookups


def test_the_fusion_table_names_the_integer_tensors_behind_an_op(x: Array) -> None:
    """One for ops that fuse, however long the chain since then; all of them for the others."""
    fused = fhe_core.quantize(proto("case 3, one integer tensor"), x).fusion
    assert [row.group for row in fused] == [("x",), ("h",), ("h",), ("h",)]
    mixed = fhe_core.quantize(proto("case 3, two"), x).fusion
    assert [row.group for row in mixed] == [("x",), ("x",), ("h", "i"), ("g",)]


@pytest.mark.parametrize(
    ("kind", "fusion"),
    [(QuantizedBump, "always"), (QuantizedRowSum, "never"), (QuantizedPlus, "conditional")],
)
def test_the_registry_knows_what_can_fuse_may_answer(kind: Any, fusion: str) -> None:
    assert kind.fusion() == fusion
    spec = fhe_core.get_registry().resolve(kind._impl_for_op_named, DOMAIN, opset=1)
    assert (spec.quantized, spec.fusion) == (kind, fusion)


# -- metadata


def test_inputs_and_attributes_follow_from_the_signature_of_the_implementation() -> None:
    op = QuantizedBump(8, "bump", height=3.0)
    assert op._params_name_to_input_idx == {"x": 0, "width": 1}
    assert op._authorized_attr_names == {"height"}
    assert op._default_attrs == {"height": 1.0}
    assert op.attrs == {"height": 3.0}
    assert QuantizedBump(8, "bump").attrs == {"height": 1.0}


def test_an_attribute_that_the_implementation_lacks_is_refused() -> None:
    with pytest.raises(fhe_core.SignatureError, match=r"'bump', op Bump: .* colour .*height"):
        QuantizedBump(8, "bump", colour="red")


def test_a_class_without_an_implementation_is_refused() -> None:
    class QuantizedNothing(QuantizedOp):
        _impl_for_op_named = "NoSuchOp"

    with pytest.raises(fhe_core.SignatureError, match=r"QuantizedNothing has no implementation"):
        QuantizedNothing(8)


# -- on ordinary arrays


@pytest.mark.parametrize(
    ("kind", "constants", "function"),
    [
        (QuantizedBump, {}, bump),
        (QuantizedBump, {1: CONSTANTS["w"]}, lambda x: bump(x, CONSTANTS["w"])),
        (QuantizedRowSum, {}, row_sum),
        (QuantizedMinus, {1: CONSTANTS["w"]}, lambda x: minus(x, CONSTANTS["w"])),
    ],
)
def test_it_computes_on_ordinary_arrays_too(
    kind: type[QuantizedOp], constants: Any, function: Any, x: Array
) -> None:
    """In a notebook, without a graph or a plan: what it returns has values, integers and a quantizer."""
    result = kind(8, "alone", constant_inputs=constants)(QuantizedArray(8, x))
    assert relative_error(result.values, function(x)) < 0.02
    assert result.qvalues.dtype == numpy.int64
    assert result.qvalues.min() >= 0
    assert result.qvalues.max() == 255
    assert relative_error(result.dequant(), function(x)) < 0.02


# -- alternative implementations


def test_impl_is_an_alternative_to_the_registered_implementation(x: Array) -> None:
    """The class of another pack then computes the default domain's op, in its own way."""

    def clipped_exp(input: Any, /) -> Any:  # the name that ONNX gives it
        return numpy.exp(numpy.minimum(input, 1)).astype(input.dtype)

    class QuantizedExp(QuantizedOp):
        _impl_for_op_named = "Exp"
        impl = clipped_exp

    exp = model("h = Exp(x) \n y = MatMul(h, b)", {"x": ("N", 6)}, constants={"b": CONSTANTS["b"]})
    float_results = fhe_core.NumpyModule(exp)(x)
    with fhe_core.registered(quantized=[QuantizedExp]):
        qm = fhe_core.quantize(exp, x, n_bits=8, rounding=12)
    assert relative_error(qm(x), clipped_exp(x) @ CONSTANTS["b"]) < 0.02
    assert relative_error(qm(x), float_results) > 0.1


def test_a_stranger_may_override_an_op_of_the_default_domain(x: Array) -> None:
    class QuantizedTanh(QuantizedOp):
        _impl_for_op_named = "Tanh"

    tanh = model("y = Tanh(x)", {"x": ("N", 6)})
    with fhe_core.registered(quantized=[QuantizedTanh]):
        qm = fhe_core.quantize(tanh, x, n_bits=8)
        assert [row.pack for row in qm.fusion] == ["<registered>"]
    assert relative_error(qm(x), numpy.tanh(x)) < 0.02
