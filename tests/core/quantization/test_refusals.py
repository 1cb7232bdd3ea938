"""What cannot be right is refused, with an error that says what, where, and what to do next."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from fhe_core.errors import (
    CalibrationError,
    CompilationError,
    FheError,
    InputError,
    ModelError,
    PlanError,
    SignatureError,
    UnsupportedOpError,
)
from fhe_core.quantization.plan import Plan

import fhe_core
from fhe_core import QuantizedArray, QuantizedOp
from tests.core.quantization.building import model, normal

DOMAIN = "stranger"
X = normal(100, 6)
WEIGHTS = {"a": normal(6, 6), "b": normal(6, 3)}
MLP = model(
    "h = MatMul(x, a) \n r = Relu(h) \n y = MatMul(r, b)", {"x": ("N", 6)}, constants=WEIGHTS
)


def refused(kind: type[FheError], attempt: Callable[[], Any]) -> FheError:
    """The error, which must say what to do next."""
    with pytest.raises(kind) as caught:
        attempt()
    assert type(caught.value) is kind
    assert caught.value.fix
    return caught.value


# -- what packs get wrong


def middle(kind: type[QuantizedOp] | None, impl: Any, outputs: str = "g") -> Any:
    """Quantizes a model with that op between two products."""
    proto = model(
        f"h = MatMul(x, a) \n {outputs} = stranger.Odd(h) \n y = MatMul(g, b)",
        {"x": ("N", 6)},
        constants=WEIGHTS,
        domains={DOMAIN: 1},
    )
    options = {"domain": DOMAIN, "since_version": 1}
    quantized = [] if kind is None else [(kind, {"domain": DOMAIN})]
    with fhe_core.registered(impls=[("Odd", impl, options)], quantized=quantized):
        return fhe_core.quantize(proto, X)


def identity(x: Any, /) -> Any:
    return x


def softmax(x: Any, /) -> Any:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def neighbour(x: Any, /) -> Any:
    return np.roll(x, 1, axis=1)


def flattened(x: Any, /) -> Any:
    return np.concatenate([x, x[:, :1]], axis=1)[:, 1:]


class Careless(QuantizedOp):
    """Fuses by default, whatever its implementation does."""

    _impl_for_op_named = "Odd"


@pytest.mark.parametrize("impl", [softmax, neighbour, flattened])
def test_an_op_that_mixes_elements_and_says_that_it_fuses_is_named(impl: Any) -> None:
    error = refused(CompilationError, lambda: middle(Careless, impl))
    assert "mixes several elements" in error.problem
    assert (error.where.op, error.where.domain, error.where.pack) == ("Odd", DOMAIN, "<registered>")
    assert error.where.node == "Odd_1"
    assert "can_fuse" in str(error)


def test_an_op_that_mixes_samples_of_a_batch_is_named() -> None:
    def centred(x: Any, /) -> Any:
        return x - x.mean(axis=0, keepdims=True)

    error = refused(CompilationError, lambda: middle(Careless, centred))
    assert error.where.op == "Odd"


def test_an_op_that_fuses_two_integer_tensors_is_named() -> None:
    class Fuses(QuantizedOp):
        _impl_for_op_named = "Odd"

        def can_fuse(self) -> bool:
            return True

    proto = model(
        "h = MatMul(x, a) \n i = MatMul(x, c) \n g = stranger.Odd(h, i) \n y = MatMul(g, b)",
        {"x": ("N", 6)},
        constants={**WEIGHTS, "c": normal(6, 6, seed=9)},
        domains={DOMAIN: 1},
    )
    impls = [("Odd", lambda a, b, /: a * b, {"domain": DOMAIN, "since_version": 1})]
    with fhe_core.registered(impls=impls, quantized=[(Fuses, {"domain": DOMAIN})]):
        error = refused(CompilationError, lambda: fhe_core.quantize(proto, X))
    assert error.where.op == "Odd"
    assert "'h'" in str(error)
    assert "'i'" in str(error)


def with_q_impl(q_impl: Any) -> type[QuantizedOp]:
    return type("QuantizedOdd", (QuantizedOp,), {"_impl_for_op_named": "Odd", "q_impl": q_impl})


def raises(self: Any, *q_inputs: Any, **attrs: Any) -> Any:
    raise RuntimeError("out of luck")


def returns_a_tensor(self: Any, *q_inputs: Any, **attrs: Any) -> Any:
    return q_inputs[0].values


def branches(self: Any, *q_inputs: Any, **attrs: Any) -> Any:
    return q_inputs[0] if q_inputs[0].qvalues[:, 0] > 0 else None


def converts(self: Any, *q_inputs: Any, **attrs: Any) -> Any:
    return self.quantized(np.asarray(q_inputs[0].values))


def indexes(self: Any, *q_inputs: Any, **attrs: Any) -> Any:
    return self.quantized(np.arange(256)[q_inputs[0].qvalues])


def nothing(self: Any, *q_inputs: Any, **attrs: Any) -> Any:
    return None


@pytest.mark.parametrize(
    ("q_impl", "says"),
    [
        (raises, r"QuantizedOdd\.q_impl failed: RuntimeError: out of luck"),
        (returns_a_tensor, r"returned a Tensor .*expected: a QuantizedArray"),
        (nothing, r"returned a NoneType"),
        (branches, r"branches on an encrypted value"),
        (converts, r"asks an encrypted tensor for its values"),
    ],
)
def test_a_q_impl_that_goes_wrong_is_named_with_what_it_did(q_impl: Any, says: str) -> None:
    with pytest.raises(CompilationError, match=says) as caught:
        middle(with_q_impl(q_impl), identity)
    where = caught.value.where
    assert (where.node, where.op, where.pack) == ("Odd_1", "Odd", "<registered>")
    assert caught.value.fix


def test_a_q_impl_that_indexes_with_encrypted_values_is_refused() -> None:
    error = refused(CompilationError, lambda: middle(with_q_impl(indexes), identity))
    assert error.where.op == "Odd"


def test_too_few_results_are_counted() -> None:
    def halves(x: Any, /) -> Any:
        return x, x

    def one(self: Any, *q_inputs: Any, **attrs: Any) -> Any:
        return q_inputs[0]

    error = refused(CompilationError, lambda: middle(with_q_impl(one), halves, outputs="g, i"))
    assert "returned 1 result" in error.problem
    assert error.expected == "2 QuantizedArrays"


def test_a_constructor_or_can_fuse_that_fails_is_named() -> None:
    class Fails(QuantizedOp):
        _impl_for_op_named = "Odd"

        def can_fuse(self) -> bool:
            return self.no_such_attribute  # type: ignore[attr-defined]

    error = refused(CompilationError, lambda: middle(Fails, identity))
    assert "Fails failed when it was placed" in error.problem
    assert error.where.op == "Odd"


def test_an_attribute_that_the_implementation_lacks_is_refused() -> None:
    proto = model("y = stranger.Odd <colour = 3> (x)", {"x": ("N", 6)}, domains={DOMAIN: 1})
    impls = [("Odd", identity, {"domain": DOMAIN, "since_version": 1})]
    with fhe_core.registered(impls=impls, quantized=[(Careless, {"domain": DOMAIN})]):
        error = refused(ModelError, lambda: fhe_core.quantize(proto, X))
    assert "colour" in str(error)
    refused(SignatureError, lambda: Careless(8, impl=identity, colour=3))


def test_an_op_without_a_quantized_form_may_only_shape_the_output() -> None:
    error = refused(UnsupportedOpError, lambda: middle(None, softmax))
    assert (error.where.op, error.where.node) == ("Odd", "Odd_1")
    assert "MatMul_2" in str(error)
    last = model(
        "h = MatMul(x, a) \n y = stranger.Odd(h)",
        {"x": ("N", 6)},
        constants={"a": WEIGHTS["a"]},
        domains={DOMAIN: 1},
    )
    options = {"domain": DOMAIN, "since_version": 1}
    with fhe_core.registered(impls=[("Odd", softmax, options)]):
        qm = fhe_core.quantize(last, X, n_bits=8)
    assert [row.mode for row in qm.fusion] == ["mixed", "client"]
    assert not qm.program.lookups
    assert np.allclose(qm(X).sum(axis=1), 1)


# -- what models get wrong


def test_an_output_that_depends_on_no_input_is_refused() -> None:
    proto = model("y = Relu(x) \n z = Relu(a)", {"x": ("N", 6)}, "y z", {"a": WEIGHTS["a"]})
    assert refused(CompilationError, lambda: fhe_core.quantize(proto, X)).where.node == "z"


def test_a_model_of_an_opset_before_7_runs_in_float_only() -> None:
    proto = model("y = Relu(x)", {"x": ("N", 6)}, opset=6)
    assert fhe_core.NumpyModule(proto)(X).shape == X.shape
    error = refused(UnsupportedOpError, lambda: fhe_core.quantize(proto, X))
    assert (error.got, error.where.op) == ("opset 6", "Relu")


@pytest.mark.parametrize(
    ("nodes", "says"),
    [
        ("h = ReduceSum <keepdims = 1> (x, zero) \n y = MatMul(h, a)", "batch"),
        ("h = Flatten <axis = 0> (x) \n y = Relu(h)", "samples|batch"),
        ("h = Gemm <transA = 1> (x, d) \n y = Relu(h)", "samples"),
    ],
)
def test_an_op_that_mixes_the_samples_of_a_batch_is_refused(nodes: str, says: str) -> None:
    constants = {
        "zero": np.array([0]),
        "a": WEIGHTS["a"],
        "d": normal(100, 3),
    }
    used = {
        name: value
        for name, value in constants.items()
        if f" {name})" in nodes or f"({name}," in nodes
    }
    proto = model(nodes, {"x": ("N", 6)}, constants=used)
    with pytest.raises(FheError, match=says) as caught:
        fhe_core.quantize(proto, X)
    assert caught.value.where.node
    assert caught.value.fix


# -- settings


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"n_bits": 0}, "n_bits cannot have 0 bits"),
        ({"n_bits": 1}, "n_bits cannot have 1 bits"),
        ({"n_bits": 40}, "n_bits cannot have 40 bits"),
        ({"n_bits": 4.5}, "n_bits cannot have 4.5 bits"),
        ({"n_bits": True}, "n_bits cannot have True bits"),
        ({"n_bits": "many"}, "n_bits cannot have 'many' bits"),
        ({"n_bits": {"op_weights": 0}}, r"n_bits\['op_weights'\] cannot have 0 bits"),
        ({"n_bits": {"nowhere": 4}}, "n_bits names 'nowhere', which is no node .*MatMul_0"),
        ({"rounding": 0}, "cannot be rounded to 0 bits"),
        ({"rounding": 17}, "cannot be rounded to 17 bits"),
        ({"rounding": "x"}, "cannot be rounded to 'x' bits"),
        ({"rounding": {"h": 17}}, "node 'h' cannot be rounded to 17 bits"),
        ({"rounding": {"nowhere": 4}}, "rounding names 'nowhere', which is no node"),
        ({"rounding_method": "up"}, "rounding_method cannot be 'up'"),
        ({"overflow": "never"}, "overflow cannot be 'never'"),
        ({"ranges": "all"}, "ranges cannot be 'all'"),
        ({"weight_scheme": "log"}, "weight_scheme cannot be 'log'"),
        ({"weight_granularity": "per-row"}, "weight_granularity cannot be 'per-row'"),
        ({"client_side": "all"}, "client_side cannot be 'all'"),
        ({"p_error": 0}, "p_error cannot be 0"),
        ({"p_error": 0.9}, "p_error cannot be 0.9"),
        ({"p_error": "low"}, "p_error cannot be 'low'"),
    ],
    ids=str,
)
def test_a_setting_that_does_not_exist_is_named(options: dict[str, Any], names: str) -> None:
    with pytest.raises(PlanError, match=names) as caught:
        fhe_core.quantize(MLP, X, **options)
    assert caught.value.fix


def test_encrypted_names_inputs_of_the_model() -> None:
    for given in (["z"], [], "z"):
        error = refused(InputError, partial(fhe_core.quantize, MLP, X, encrypted=given))
        assert error.expected == "some of x"


def test_an_accumulator_wider_than_any_circuit_says_what_to_turn_down() -> None:
    error = refused(CompilationError, lambda: fhe_core.quantize(MLP, X, n_bits=16, rounding=16))
    assert "an accumulator needs" in error.problem
    assert "n_bits" in str(error.fix)
    assert error.where.node == "MatMul_0"


# -- plans


def edited(**changes: Any) -> dict[str, Any]:
    document = json.loads(fhe_core.quantize(MLP, X).plan.to_json())
    return {**document, **changes}


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        ({"version": 99}, "unknown version"),
        ({}, "unknown version"),
        (edited(tensors={"x": {"bits": 0, "scale": 1.0}}), "tensor 'x' cannot have 0 bits"),
        (edited(tensors={"x": {"bits": 4, "scale": -1.0}}), "tensor 'x' has an impossible scale"),
        (edited(tensors={"x": {"bits": 4, "scale": None}}), "tensor 'x' has an impossible scale"),
        (edited(tensors={"x": {"bits": 4}}), r"tensors\['x'\] of the plan is incomplete"),
        (edited(tensors={"x": {"colour": 4}}), r"tensors\['x'\] of the plan is not understood"),
        (edited(tensors=[1]), "tensors"),
        (edited(accumulators={"h": {"low": 3, "high": 1}}), "'h' has an empty range"),
        (edited(accumulators={"h": {"low": 0, "high": 1, "rounding": 40}}), "rounded to 40 bits"),
        (edited(accumulators={}), "the plan has no accumulator 'h'"),
        ("nowhere.json", "cannot be read"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_plan_that_cannot_be_is_refused(plan: Any, says: str) -> None:
    with pytest.raises(PlanError, match=says) as caught:
        fhe_core.quantize(MLP, X, plan=plan)
    assert caught.value.fix


def test_a_plan_that_is_not_json_is_refused(tmp_path: Any) -> None:
    path = tmp_path / "plan.json"
    for content in (b"{", b"\xff\xfe", b"[]", b"3"):
        path.write_bytes(content)
        refused(PlanError, lambda: fhe_core.quantize(MLP, X, plan=path))


def test_a_plan_of_another_model_is_refused() -> None:
    other = model("z = MatMul(x, a) \n y = Relu(z)", {"x": ("N", 6)}, constants={"a": WEIGHTS["a"]})
    plan = fhe_core.quantize(other, X).plan
    error = refused(PlanError, lambda: fhe_core.quantize(MLP, X, plan=plan))
    assert "'h'" in error.problem


def test_a_plan_is_not_changed_by_building_from_it() -> None:
    plan = fhe_core.quantize(MLP, X).plan
    before = plan.to_json()
    fhe_core.quantize(MLP, X[:50], plan=plan)
    assert plan.to_json() == before
    assert Plan.from_json(before).to_json() == before


# -- data


def spoilt(value: float) -> Any:
    data = X.copy()
    data[3, 2] = value
    return data


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (X[:, :5], "calibration data: .*'x'"),
        (X[0], "calibration data: .*'x'"),
        (X[:0], "'x' has no samples"),
        (X.astype(str), "calibration data: .*'x'"),
        (X * 1j, "calibration data: .*'x'"),
        (spoilt(np.nan), "'x' holds NaN or infinity .*sample 3"),
        (spoilt(-np.inf), "'x' holds NaN or infinity"),
        ({"z": X}, "'?z'?"),
        ({}, "x"),
        ((X, X), "2 arrays"),
        (None, "calibration data: .*'x'"),
        ("file.npy", "calibration data: .*'x'"),
    ],
    ids=str,
)
def test_calibration_data_that_does_not_fit_is_refused(data: Any, says: str) -> None:
    with pytest.raises(CalibrationError, match=says) as caught:
        fhe_core.quantize(MLP, data)
    assert caught.value.fix


def test_inputs_with_different_numbers_of_samples_are_counted() -> None:
    proto = model("y = Add(x, z)", {"x": ("N", 6), "z": ("N", 6)})
    error = refused(CalibrationError, lambda: fhe_core.quantize(proto, (X, X[:50])))
    assert error.got == "x: 100, z: 50"


def test_a_float_model_that_is_not_finite_on_the_data_is_refused() -> None:
    proto = model("y = Log(x)", {"x": ("N", 6)})
    error = refused(CalibrationError, lambda: fhe_core.quantize(proto, X))
    assert "'y'" in error.problem


QM = fhe_core.quantize(MLP, X)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (spoilt(np.nan), "'x' holds NaN or infinity .*1 such"),
        (spoilt(np.inf), "'x' holds NaN or infinity"),
        (X[:, :5], "'x'"),
        (X[0], "'x'.*batch dimension"),
        (X[:0], "no samples"),
        (X.astype(str), "'x'"),
    ],
    ids=str,
)
@pytest.mark.parametrize("fhe", ["disable", "simulate"])
def test_an_input_that_does_not_fit_is_refused(data: Any, says: str, fhe: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        QM.forward(data, fhe=fhe)
    assert caught.value.fix


def test_a_mode_that_does_not_exist_is_refused() -> None:
    refused(InputError, lambda: QM.forward(X, fhe="maybe"))
    refused(InputError, lambda: QM.forward(X, out_of_range="ignore"))
    refused(InputError, lambda: QM.forward(z=X))
    refused(CompilationError, lambda: QM.forward(X, fhe="execute"))
    refused(CompilationError, lambda: QM.cost)


def test_values_out_of_range_saturate_with_one_warning_that_has_their_share() -> None:
    far = X.copy()
    far[:3, 0] = 50
    with pytest.warns(UserWarning, match=r"0\.50% of the input 'x' .*saturate") as caught:
        result = QM(far)
    assert len(caught) == 1
    assert np.array_equal(result, QM(np.clip(far, X.min(), X.max())))


def test_values_out_of_range_are_an_error_where_the_caller_says_so() -> None:
    error = refused(InputError, lambda: QM.forward(X * 2, out_of_range="raise"))
    assert "'x'" in error.problem
    assert str(error.expected).startswith("values from -")


def test_calibration_data_itself_is_in_range() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        QM.forward(X, out_of_range="raise")


def test_integer_inputs_are_quantized_and_checked_as_floats_are() -> None:
    counts = np.arange(60).reshape(10, 6)
    assert QM.forward(np.zeros((2, 6), np.int64)).shape == (2, 3)
    with pytest.warns(UserWarning, match="saturate"):
        QM.forward(counts)


# -- arrays


def test_an_array_of_impossible_bits_is_refused() -> None:
    impossible: tuple[Any, ...] = (0, 1, 40, 2.5)
    for bits in impossible:
        refused(PlanError, partial(QuantizedArray, bits, X))
