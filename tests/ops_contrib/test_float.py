"""The NumPy implementations compute what ONNX defines, and where it is silent what Runtime does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fhe_core.errors import ModelError
from onnx import TensorProto

import fhe_core
from fhe_ops_contrib import linear, preprocessing
from tests.ops_contrib.models import by_runtime, single
from tests.ops_std import onnx_cases

IMPLEMENTATIONS = (*preprocessing.IMPLEMENTATIONS, *linear.IMPLEMENTATIONS)
OPS = tuple(op for op, _, _ in IMPLEMENTATIONS)
DOMAIN = "ai.onnx.ml"

INTS = (TensorProto.INT64, TensorProto.FLOAT)
STRINGS = (TensorProto.STRING, TensorProto.FLOAT)
TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")
KINDS = (np.float32, np.float64, np.int64, np.int32)
NAN = float("nan")


def f32(value: Any) -> Any:
    return np.array(value, np.float32)


def compute(op: str, *arrays: Any, **attributes: Any) -> tuple[Any, ...]:
    """The function that is registered, on inputs that cannot be written to."""
    function = onnx_cases.implementation_for(IMPLEMENTATIONS, op, 1)
    return onnx_cases.run(function, arrays, attributes)


def agree(
    op: str, *arrays: Any, outputs: tuple[int, ...] | None = None, **attributes: Any
) -> tuple[Any, ...]:
    """The outputs of the op's function, after comparing them with Runtime's."""
    got = compute(op, *arrays, **attributes)
    expected = by_runtime(single(op, *arrays, outputs=outputs, **attributes), *arrays)
    for one, other in zip(got, expected, strict=True):
        onnx_cases.assert_same(one, other, rtol=2e-5, atol=2e-6)
    return got


def numbers(rng: np.random.Generator, *shape: int, kind: Any = np.float32) -> Any:
    """Values of which some are 0."""
    values = rng.normal(0, 3, shape) * rng.choice([0, 1, 1, 1], shape)
    return values.astype(kind)


def floats(rng: np.random.Generator, count: int) -> list[float]:
    return f32(rng.normal(size=count)).tolist()


# -- what is registered


def test_every_op_is_registered_by_this_pack_for_all_opsets_of_its_domain() -> None:
    specs = {spec.op_type: spec for spec in fhe_core.get_registry().ops(domain=DOMAIN)}
    for op in OPS:
        assert (specs[op].since_version, specs[op].until) == (1, None)
        assert specs[op].impl_pack == specs[op].quantized_pack == "contrib"


@pytest.mark.parametrize("case", onnx_cases.parameters(*OPS, domain=DOMAIN))
def test_onnx_s_own_cases(case: Any) -> None:
    """Values, dtypes and shapes are those of ONNX's node tests."""
    case.check(IMPLEMENTATIONS)


def test_onnx_has_cases_for_two_of_the_ops() -> None:
    """A collection that breaks must not pass as an empty one."""
    found = {case.op_type for case in onnx_cases.cases(*OPS, domain=DOMAIN)}
    assert found == {"ArrayFeatureExtractor", "Binarizer"}


# -- preprocessing, as ONNX Runtime


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 5])
def test_scaler_shifts_then_scales_all_features_or_each(kind: Any, count: int) -> None:
    rng = np.random.default_rng(count)
    x = numbers(rng, 7, 5, kind=kind)
    agree("Scaler", x, offset=floats(rng, count), scale=floats(rng, count))
    agree("Scaler", x[0], offset=floats(rng, count), scale=floats(rng, count))


def test_scaler_without_an_attribute_leaves_that_step_out() -> None:
    x = f32([[1, -2]])
    assert compute("Scaler", x, scale=[2.0])[0].tolist() == [[2, -4]]
    assert compute("Scaler", x, offset=[1.0, 2.0])[0].tolist() == [[0, -4]]
    assert compute("Scaler", x.astype(np.int64))[0].dtype == np.float32


def test_binarizer_maps_what_exceeds_the_threshold_to_one() -> None:
    x = f32([[-1, 0, 0.5], [0.75, 1, 2]])
    for threshold in (-1.5, 0.0, 0.5, 3.0):
        agree("Binarizer", x, threshold=threshold)
    agree("Binarizer", x)


@pytest.mark.parametrize("kind", KINDS)
def test_binarizer_keeps_the_type_and_compares_with_the_exact_threshold(kind: Any) -> None:
    """Integers are not compared with a threshold cut to an integer; NaN exceeds nothing."""
    (y,) = compute("Binarizer", np.array([-2, -1, 0], kind), threshold=-1.5)
    onnx_cases.assert_same(y, np.array([0, 1, 1], kind))
    assert compute("Binarizer", f32([NAN]))[0].tolist() == [0]


@pytest.mark.parametrize("replaced", [NAN, 2.0, -1.0])
@pytest.mark.parametrize("count", [1, 3])
def test_imputer_replaces_floats_equal_to_a_value_or_nan(replaced: float, count: int) -> None:
    rng = np.random.default_rng(count)
    x = f32(rng.choice([NAN, 2.0, -1.0, 0.5], (20, 3)))
    agree("Imputer", x, imputed_value_floats=floats(rng, count), replaced_value_float=replaced)


@pytest.mark.parametrize("values", [[7], [7, -8, 9]])
def test_imputer_replaces_integers_equal_to_a_value(values: list[int]) -> None:
    x = np.random.default_rng(0).integers(-2, 3, (20, 3))
    given = {"imputed_value_int64s": values, "replaced_value_int64": 2}
    agree("Imputer", x, outputs=(TensorProto.INT64,), **given)
    (narrow,) = compute("Imputer", x.astype(np.int32), **given)
    onnx_cases.assert_same(narrow, compute("Imputer", x, **given)[0].astype(np.int32))


@pytest.mark.parametrize("norm", ["MAX", "L1", "L2"])
@pytest.mark.parametrize("kind", KINDS)
def test_normalizer_divides_each_row_by_its_norm_unless_that_is_zero(norm: str, kind: Any) -> None:
    x = numbers(np.random.default_rng(4), 9, 4, kind=kind)
    x = np.concatenate([x, np.zeros((1, 4), kind), np.array([[-1, -2, -3, -4]], kind)])
    (y,) = agree("Normalizer", x, norm=norm)
    assert y.dtype == np.float32
    agree("Normalizer", x[-1], norm=norm)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("widths", [[2, 3, 1], [1, 5, 1], [4, 3, 0]])
def test_feature_vectorizer_joins_inputs_cut_or_filled_to_their_widths(
    kind: Any, widths: list[int]
) -> None:
    rng = np.random.default_rng(5)
    parts = [numbers(rng, 6, n, kind=kind) for n in (2, 3, 1)]
    agree("FeatureVectorizer", *parts, inputdimensions=widths)


def test_feature_vectorizer_takes_vectors_as_rows_and_widths_from_its_inputs() -> None:
    agree("FeatureVectorizer", f32([1, 2]), f32([3]), inputdimensions=[2, 1])
    (y,) = compute("FeatureVectorizer", f32([[1, 2]]), np.array([[3]]))
    onnx_cases.assert_same(y, f32([[1, 2, 3]]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4)])
def test_array_feature_extractor_takes_places_of_the_last_axis(kind: Any, shape: Any) -> None:
    x = numbers(np.random.default_rng(6), *shape, kind=kind)
    for y in ([2], [3, 0, 3], [[1], [2]]):
        (got,) = compute("ArrayFeatureExtractor", x, np.array(y))
        proto = single("ArrayFeatureExtractor", x, np.array(y), outputs=(_element_type(x),))
        onnx_cases.assert_same(got, by_runtime(proto, x, np.array(y))[0])


def _element_type(x: Any) -> int:
    kinds = {"float32": "FLOAT", "float64": "DOUBLE", "int64": "INT64", "int32": "INT32"}
    return int(getattr(TensorProto, kinds[x.dtype.name]))


# -- linear models, as ONNX Runtime


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("targets", [1, 2, 5])
@pytest.mark.parametrize("intercepts", [True, False])
def test_regressor_is_a_transformed_matrix_product(
    transform: str, targets: int, intercepts: bool
) -> None:
    rng = np.random.default_rng(targets)
    x = numbers(rng, 30, 4)
    attributes: dict[str, Any] = {
        "coefficients": floats(rng, 4 * targets),
        "targets": targets,
        "post_transform": transform,
        **({"intercepts": floats(rng, targets)} if intercepts else {}),
    }
    (y,) = agree("LinearRegressor", x[np.any(x != 0, axis=1)], **attributes)
    assert y.shape[1] == targets
    agree("LinearRegressor", x[0], **attributes)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("classes", [2, 3, 6])
@pytest.mark.parametrize("text", [True, False])
@pytest.mark.parametrize("multi_class", [0, 1])
def test_classifier_labels_the_largest_score_and_transforms_all(
    transform: str, classes: int, text: bool, multi_class: int
) -> None:
    rng = np.random.default_rng(classes)
    x = numbers(rng, 40, 4)
    label, scores = agree(
        "LinearClassifier",
        x,
        outputs=STRINGS if text else INTS,
        coefficients=floats(rng, 4 * classes),
        intercepts=floats(rng, classes),
        multi_class=multi_class,
        post_transform=transform,
        **_labels(classes, text),
    )
    assert label.shape == (40,)
    assert scores.shape == (40, classes)
    assert len(set(label.tolist())) == classes


def _labels(classes: int, text: bool) -> dict[str, Any]:
    names = ["no", "maybe", "yes", "", "quite so", "é"][:classes]
    return (
        {"classlabels_strings": names}
        if text
        else {"classlabels_ints": [7, -3, 2, 9, 0, 4][:classes]}
    )


@pytest.mark.parametrize("transform", ["NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO"])
@pytest.mark.parametrize("text", [True, False])
def test_one_row_of_coefficients_gives_two_classes_their_scores(transform: str, text: bool) -> None:
    """1 - s and s, or with LOGISTIC the logistic of -s and s; positive scores get the second."""
    rng = np.random.default_rng(8)
    label, _ = agree(
        "LinearClassifier",
        numbers(rng, 40, 3),
        outputs=STRINGS if text else INTS,
        coefficients=floats(rng, 3),
        intercepts=floats(rng, 1),
        post_transform=transform,
        **_labels(2, text),
    )
    assert set(label.tolist()) == ({"no", "maybe"} if text else {7, -3})


def test_probit_of_one_row_is_that_of_the_pair() -> None:
    """Runtime returns memory that it never wrote here, so symmetry is the judge."""
    given = {"coefficients": [1.0], "post_transform": "PROBIT", "classlabels_ints": [0, 1]}
    _, scores = compute("LinearClassifier", f32([[0.5], [0.25], [0.9]]), **given)
    np.testing.assert_allclose(scores[:, 0], -scores[:, 1], rtol=1e-4)
    np.testing.assert_allclose(scores[:, 1], [0, -0.6745, 1.2816], atol=2e-3)


@pytest.mark.parametrize("rows", [1, 2])
def test_equal_scores_get_the_first_label(rows: int) -> None:
    given: Any = {
        "coefficients": [1.0] * rows,
        "intercepts": [0.0] * rows,
        "classlabels_ints": [4, 5],
    }
    label, _ = agree("LinearClassifier", f32([[0], [0]]), outputs=INTS, **given)
    assert label.tolist() == [4, 4]


@pytest.mark.parametrize("kind", KINDS)
def test_classifier_takes_any_number_and_a_vector_as_one_row(kind: Any) -> None:
    x = np.array([[3, -4], [1, 2]], kind)
    given = {"coefficients": [0.5, 0.25], "intercepts": [-0.1], "classlabels_ints": [0, 1]}
    agree("LinearClassifier", x, outputs=INTS, **given)
    agree("LinearClassifier", x[0], outputs=INTS, **given)


def test_intercepts_left_out_are_zero() -> None:
    x = numbers(np.random.default_rng(1), 5, 2)
    for rows in (1, 2):
        given = {"coefficients": [0.5, -0.25] * rows, "classlabels_ints": [0, 1]}
        without = compute("LinearClassifier", x, **given)
        with_zeros = compute("LinearClassifier", x, intercepts=[0.0] * rows, **given)
        for one, other in zip(without, with_zeros, strict=True):
            onnx_cases.assert_same(one, other)


def test_transforms_stay_finite_on_large_scores() -> None:
    """No overflow on the way (it would be a warning, so an error); zeros alone stay zeros."""
    x = f32([[-1000, 1000], [900, -900], [-400, -500], [-500, 0], [0, 0]])
    for transform in ("SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO"):
        (y,) = compute(
            "LinearRegressor",
            x,
            coefficients=[1.0, 0.0, 0.0, 1.0],
            targets=2,
            post_transform=transform,
        )
        assert np.isfinite(y).all()
        assert ((y >= 0) & (y <= 1)).all()
    assert y[-1].tolist() == [0, 0]


def test_a_model_of_skl2onnx_gives_runtime_s_probabilities_and_labels(models: Path) -> None:
    data = np.load(models / "sk_logreg_cancer.npz")
    label, probabilities = fhe_core.NumpyModule(models / "sk_logreg_cancer.onnx")(data["x_test"])
    onnx_cases.assert_same(label, data["label_ref"])
    onnx_cases.assert_same(probabilities, data["y_ref"], rtol=1e-5, atol=1e-6)


# -- attributes that contradict the input or each other

X = f32([[1, 2, 3]])
TWO = {"classlabels_ints": [0, 1]}
WRONG: tuple[tuple[str, Any, dict[str, Any], str], ...] = (
    ("Scaler", X, {"offset": [1.0, 2.0], "scale": [1.0, 2.0]}, "offset"),
    ("Scaler", X, {"scale": [1.0, 2.0]}, "scale"),
    ("Scaler", X, {"offset": [1.0], "scale": [1.0, 2.0, 3.0]}, "scale"),
    ("Imputer", X, {"imputed_value_floats": [1.0, 2.0]}, "imputed_value_floats"),
    ("Imputer", X, {}, "imputed_value_floats"),
    ("Imputer", X, {"imputed_value_floats": [1.0], "imputed_value_int64s": [1]}, "int64s"),
    (
        "Imputer",
        np.ones((1, 3), np.int32),
        {"imputed_value_int64s": [2**40]},
        "imputed_value_int64s",
    ),
    ("Normalizer", X, {"norm": "max"}, "norm"),
    ("FeatureVectorizer", X, {"inputdimensions": [1, 2]}, "inputdimensions"),
    ("FeatureVectorizer", X, {"inputdimensions": [-1]}, "inputdimensions"),
    ("LinearRegressor", X, {}, "coefficients"),
    ("LinearRegressor", X, {"coefficients": [1.0, 2.0]}, "coefficients"),
    ("LinearRegressor", X, {"coefficients": [1.0, 2.0, 3.0], "targets": 2}, "targets"),
    ("LinearRegressor", X, {"coefficients": [], "targets": 0}, "targets"),
    ("LinearRegressor", X, {"coefficients": [1.0] * 3, "intercepts": [1.0] * 2}, "intercepts"),
    ("LinearRegressor", X, {"coefficients": [1.0] * 3, "post_transform": "EXP"}, "post_transform"),
    ("LinearClassifier", X, {"coefficients": [1.0, 2.0], **TWO}, "coefficients"),
    ("LinearClassifier", X, {"coefficients": [], **TWO}, "coefficients"),
    ("LinearClassifier", X, {"coefficients": [1.0] * 9, **TWO}, "classlabels_ints"),
    ("LinearClassifier", X, {"coefficients": [1.0] * 3, "classlabels_ints": [1]}, "ints"),
    (
        "LinearClassifier",
        X,
        {"coefficients": [1.0] * 6, "classlabels_strings": ["a", "b", "c"]},
        "classlabels_strings",
    ),
    ("LinearClassifier", X, {"coefficients": [1.0] * 6}, "classlabels_ints"),
    (
        "LinearClassifier",
        X,
        {"coefficients": [1.0] * 6, "classlabels_strings": ["a", "b"], **TWO},
        "classlabels_strings",
    ),
    ("LinearClassifier", X, {"coefficients": [1.0] * 6, "intercepts": [1.0], **TWO}, "intercepts"),
    (
        "LinearClassifier",
        X,
        {"coefficients": [1.0] * 6, "post_transform": "softmax", **TWO},
        "post_transform",
    ),
)


@pytest.mark.parametrize(("op", "x", "attributes", "named"), WRONG)
def test_a_wrong_attribute_is_a_model_error_naming_op_and_attribute(
    op: str, x: Any, attributes: dict[str, Any], named: str
) -> None:
    with pytest.raises(ModelError) as raised:
        compute(op, x, **attributes)
    error = raised.value
    assert (error.where.op, error.where.domain) == (op, DOMAIN)
    assert named in str(error)
    assert error.expected
    assert error.got
    assert error.fix


@pytest.mark.parametrize("op", ["Normalizer", "FeatureVectorizer", "LinearRegressor"])
def test_more_dimensions_than_onnx_allows_are_a_model_error(op: str) -> None:
    with pytest.raises(ModelError, match=f"{op}.*3 dimensions"):
        compute(op, X[None])


@pytest.mark.parametrize("y", [[3], [-1], []])
def test_places_outside_of_the_features_are_a_model_error(y: list[int]) -> None:
    with pytest.raises(ModelError, match=r"ArrayFeatureExtractor.*from 0 to 2"):
        compute("ArrayFeatureExtractor", X, np.array(y, np.int64))


def test_inside_a_model_the_error_names_the_node_too() -> None:
    proto = single("Scaler", X, offset=[1.0, 2.0], scale=[1.0, 2.0])
    with pytest.raises(ModelError) as raised:
        fhe_core.NumpyModule(proto)(X)
    where = raised.value.where
    assert (where.node, where.op, where.domain, where.pack) == (
        "Scaler",
        "Scaler",
        DOMAIN,
        "contrib",
    )
