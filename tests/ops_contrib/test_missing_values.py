"""NaN may stand for a missing value where the model replaces it before encryption, and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fhe_core.errors import CalibrationError, InputError
from onnx import TensorProto, helper

import fhe_core
from tests.ops_contrib.models import ml, model

RNG = np.random.default_rng(0)
X = RNG.normal(size=(200, 3)).astype(np.float32)
HOLES = np.where(RNG.random(X.shape) < 0.2, np.float32(np.nan), X)
LINEAR = ml("LinearRegressor", "s", "y", coefficients=[0.5, -1.0, 2.0], intercepts=[0.25])


def imputed(**others: Any) -> Any:
    given = {"imputed_value_floats": [0.5, -0.5, 1.0], "replaced_value_float": float("nan")}
    node = ml("Imputer", "x", "s", **{**given, **others})
    return model([node, LINEAR], {"x": X}, {"y": TensorProto.FLOAT})


def test_missing_values_are_replaced_before_encryption() -> None:
    qm = fhe_core.quantize(imputed(), HOLES, n_bits=8)
    exact = fhe_core.NumpyModule(imputed())(HOLES)
    np.testing.assert_allclose(qm.forward(HOLES), exact, atol=0.05)
    assert len(qm.program.lookups) == 0
    # What is known keeps its calibrated range.
    assert qm.input_ranges["x"] == (np.nanmin(HOLES), np.nanmax(HOLES))
    nothing = np.full((1, 3), np.nan, np.float32)
    np.testing.assert_allclose(qm.forward(nothing), [[3.0]], atol=0.05)


def test_beside_missing_values_others_still_saturate_and_infinity_is_refused() -> None:
    qm = fhe_core.quantize(imputed(), HOLES, n_bits=8)
    far = np.array([[np.nan, 100.0, 0.0]], np.float32)
    with pytest.warns(UserWarning, match="saturate"):
        found = qm.forward(far)
    most = np.array([[np.nan, np.nanmax(HOLES), 0.0]], np.float32)
    np.testing.assert_array_equal(found, qm.forward(most))
    with pytest.raises(InputError, match="'x' holds NaN or infinity"):
        qm.forward(np.array([[np.nan, np.inf, 0.0]], np.float32))


def test_a_saved_client_replaces_them_too(tmp_path: Path) -> None:
    qm = fhe_core.compile(imputed(), HOLES, n_bits=6)
    qm.save(tmp_path / "model")
    loaded = fhe_core.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.forward(HOLES[:5]), qm.forward(HOLES[:5]))


@pytest.mark.parametrize(
    "proto",
    [
        model([ml("Scaler", "x", "s", scale=[2.0]), LINEAR], {"x": X}, {"y": TensorProto.FLOAT}),
        imputed(replaced_value_float=-1.0),
    ],
    ids=["no imputer", "another value"],
)
def test_a_model_that_does_not_replace_them_refuses_them(proto: Any) -> None:
    with pytest.raises(CalibrationError, match=r"'x' holds NaN or infinity.*sample"):
        fhe_core.quantize(proto, HOLES)
    qm = fhe_core.quantize(proto, X)
    with pytest.raises(InputError, match=r"'x' holds NaN or infinity.*such values"):
        qm.forward(HOLES)


def test_without_missing_values_in_the_calibration_data_there_may_be_none_later() -> None:
    """Nothing would have shown that the model replaces them."""
    qm = fhe_core.quantize(imputed(), X, n_bits=8)
    with pytest.raises(InputError, match=r"'x' holds NaN or infinity.*such values"):
        qm.forward(HOLES)


def test_where_all_stays_on_the_server_they_cannot_be_encrypted() -> None:
    with pytest.raises(CalibrationError, match="'x' holds NaN or infinity"):
        fhe_core.quantize(imputed(), HOLES, client_side="minimal")


def test_what_is_chosen_from_the_data_may_be_missing_too() -> None:
    """As a ColumnTransformer chooses it; what the model makes of NaN decides, and not where NaN comes by."""
    chosen = ml("ArrayFeatureExtractor", "x i", "c")
    replaced = ml("Imputer", "c", "s", imputed_value_floats=[0.5], replaced_value_float=np.nan)
    proto = model(
        [chosen, replaced, LINEAR],
        {"x": X},
        {"y": TensorProto.FLOAT},
        {"i": np.array([2, 0, 1])},
    )
    qm = fhe_core.quantize(proto, HOLES, n_bits=8)
    np.testing.assert_allclose(qm.forward(HOLES), fhe_core.NumpyModule(proto)(HOLES), atol=0.05)


def test_nan_that_nothing_quantizes_is_no_error() -> None:
    """A power transformer computes both of its branches, and takes the one that is defined."""
    nodes = [
        helper.make_node("Log", ["x"], ["l"]),
        ml("Imputer", "l", "s", imputed_value_floats=[0.5], replaced_value_float=np.nan),
        LINEAR,
    ]
    proto = model(nodes, {"x": X}, {"y": TensorProto.FLOAT})
    qm = fhe_core.quantize(proto, X, n_bits=8)
    np.testing.assert_allclose(qm.forward(X), fhe_core.NumpyModule(proto)(X), atol=0.1)
    nodes[1] = helper.make_node("Tanh", ["l"], ["s"])
    with pytest.raises(CalibrationError, match="computes NaN in 'l'"):
        fhe_core.quantize(model(nodes, {"x": X}, {"y": TensorProto.FLOAT}), X)
