"""Support vector machines in float give what ONNX Runtime does, and their kernels what they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fhe_core.errors import ModelError
from onnx import TensorProto

from fhe_ops_contrib import svm
from tests.ops_contrib.models import by_runtime, single
from tests.ops_std import onnx_cases

KERNELS = ("LINEAR", "POLY", "RBF", "SIGMOID")
TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")
INTS = (TensorProto.INT64, TensorProto.FLOAT)
STRINGS = (TensorProto.STRING, TensorProto.FLOAT)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 3)).astype(np.float32)


def floats(count: int, seed: int = 1) -> list[float]:
    return np.random.default_rng(seed).normal(size=count).astype(np.float32).tolist()


def compute(op: str, *arrays: Any, **attributes: Any) -> tuple[Any, ...]:
    return onnx_cases.run(
        onnx_cases.implementation_for(svm.IMPLEMENTATIONS, op, 1), arrays, attributes
    )


def agree(op: str, x: Any, outputs: Any = None, **attributes: Any) -> tuple[Any, ...]:
    """The op's outputs, after comparing them with Runtime's."""
    got = compute(op, x, **attributes)
    expected = by_runtime(single(op, x, outputs=outputs, **attributes), x)
    for one, other in zip(got, expected, strict=True):
        onnx_cases.assert_same(one, other, rtol=1e-4, atol=1e-5)
    return got


def regressor(kernel: str = "RBF", vectors: int = 4, **others: Any) -> dict[str, Any]:
    return {
        "coefficients": floats(vectors),
        "kernel_params": [0.3, 0.1, 3.0],
        "kernel_type": kernel,
        "n_supports": vectors,
        "rho": [0.25],
        "support_vectors": floats(3 * vectors, 2),
        **others,
    }


def classifier(per_class: list[int], *, proba: bool = False, **others: Any) -> dict[str, Any]:
    classes, count = len(per_class), sum(per_class)
    pairs = classes * (classes - 1) // 2
    odds = {"prob_a": [-1.5] * pairs, "prob_b": floats(pairs, 5)} if proba else {}
    return {
        "classlabels_ints": [7, -3, 2, 9][:classes],
        "coefficients": floats((classes - 1) * count),
        "kernel_params": [0.3, 0.1, 2.0],
        "kernel_type": "RBF",
        "rho": floats(pairs, 3),
        "support_vectors": floats(3 * count, 2),
        "vectors_per_class": per_class,
        **odds,
        **others,
    }


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("one_class", [0, 1])
def test_a_regressor_weighs_the_kernels_of_its_support_vectors(kernel: str, one_class: int) -> None:
    (y,) = agree("SVMRegressor", X, **regressor(kernel, one_class=one_class))
    assert y.shape == (30, 1)
    if one_class:
        assert set(y.ravel().tolist()) <= {1.0, -1.0}


@pytest.mark.parametrize("degree", [1.0, 2.0, 2.5])
def test_a_polynomial_may_have_any_degree(degree: float) -> None:
    """A broken one of a negative base is NaN."""
    agree("SVMRegressor", X, **regressor("POLY", kernel_params=[1.0, 0.5, degree]))


def test_a_regressor_without_support_vectors_is_linear_whatever_its_kernel() -> None:
    for kernel in KERNELS:
        given = regressor(kernel, 3, n_supports=0)
        del given["support_vectors"]
        agree("SVMRegressor", X, **given)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_regressor_is_not_transformed(transform: str) -> None:
    agree("SVMRegressor", X, **regressor(post_transform=transform))


def test_a_vector_is_one_row() -> None:
    agree("SVMRegressor", X[0], **regressor())
    agree("SVMClassifier", X[0], INTS, **classifier([2, 3]))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("per_class", [[2, 3], [2, 1, 3], [3, 2, 0, 1]])
@pytest.mark.parametrize("proba", [False, True])
def test_each_pair_of_classes_votes(kernel: str, per_class: list[int], proba: bool) -> None:
    given = classifier(per_class, proba=proba, kernel_type=kernel)
    _, scores = agree("SVMClassifier", X, INTS, **given)
    pairs = max(2, len(per_class) * (len(per_class) - 1) // 2)
    assert scores.shape == (30, len(per_class) if proba else pairs)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("per_class", [[2, 3], [2, 1, 3]])
@pytest.mark.parametrize("proba", [False, True])
def test_scores_and_probabilities_are_transformed_as_runtime_does(
    transform: str, per_class: list[int], proba: bool
) -> None:
    given = classifier(per_class, proba=proba, post_transform=transform)
    if transform == "PROBIT" and not proba and len(per_class) == 2:
        # Runtime reads memory here that it never wrote.
        _, scores = compute("SVMClassifier", X, **given)
        inside = np.isfinite(scores).all(axis=1)
        np.testing.assert_allclose(scores[inside, 0], -scores[inside, 1], rtol=1e-4, atol=1e-5)
        return
    agree("SVMClassifier", X, INTS, **given)


@pytest.mark.parametrize("classes", [1, 2, 3])
@pytest.mark.parametrize("negative", [False, True])
def test_without_vectors_each_class_has_a_linear_score(classes: int, negative: bool) -> None:
    """Of two classes the second wins where the larger score is positive, as Runtime has it."""
    coefficients = floats(3 * classes)
    agree(
        "SVMClassifier",
        X,
        INTS,
        classlabels_ints=[5, 6, 7][:classes],
        coefficients=coefficients if negative else np.abs(coefficients).tolist(),
        kernel_params=[0.0, 0.0, 0.0],
        kernel_type="LINEAR",
        rho=[0.125],
        post_transform="LOGISTIC",
    )


def test_labels_may_be_text() -> None:
    given = classifier([2, 1, 3], classlabels_strings=["no", "", "é"])
    del given["classlabels_ints"]
    label, _ = agree("SVMClassifier", X, STRINGS, **given)
    assert label.dtype == object


@pytest.mark.parametrize("kind", [np.float64, np.int64, np.int32])
def test_any_number_is_a_feature(kind: Any) -> None:
    x = (X * 2).astype(kind)
    agree("SVMClassifier", x, INTS, **classifier([2, 1, 3]))
    # Runtime's regressor takes float32 alone.
    onnx_cases.assert_same(
        compute("SVMRegressor", x, **regressor())[0],
        compute("SVMRegressor", x.astype(np.float32), **regressor())[0],
        rtol=1e-5,
    )


def test_probabilities_of_classes_minimize_the_coupling_of_their_pairs() -> None:
    """The exact minimum of Wu, Lin and Weng's problem, as far as LIBSVM's iteration goes."""
    odds = np.random.default_rng(0).normal(0, 3, (50, 6))
    from fhe_ops_contrib.coupling import coupled

    p = coupled(odds, 4)
    np.testing.assert_allclose(p.sum(axis=1), 1)
    first = 1 / (1 + np.exp(odds))
    for row, found in zip(first, p, strict=True):
        r = np.zeros((4, 4))
        r[np.triu_indices(4, 1)] = row
        r[np.tril_indices(4, -1)] = (1 - r.T)[np.tril_indices(4, -1)]
        q = np.diag((r**2).sum(axis=0)) - r * r.T
        system = np.block([[q, np.ones((4, 1))], [np.ones((1, 4)), np.zeros((1, 1))]])
        best = np.linalg.solve(system, np.r_[np.zeros(4), 1])[:4]
        np.testing.assert_allclose(found, best, atol=0.01)


WRONG: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("SVMRegressor", regressor(kernel_type="rbf"), "kernel_type"),
    ("SVMRegressor", regressor(kernel_params=[1.0]), "kernel_params"),
    ("SVMRegressor", regressor(rho=[]), "rho"),
    ("SVMRegressor", regressor(rho=[1.0, 2.0]), "rho"),
    ("SVMRegressor", regressor(n_supports=3), "coefficients"),
    ("SVMRegressor", regressor(n_supports=5), "support_vectors"),
    ("SVMRegressor", regressor(support_vectors=floats(8)), "support_vectors"),
    ("SVMRegressor", regressor(n_supports=0), "coefficients"),
    ("SVMRegressor", regressor(post_transform="EXP"), "post_transform"),
    ("SVMClassifier", classifier([2, 3], vectors_per_class=[5]), "vectors_per_class"),
    ("SVMClassifier", classifier([2, 3], vectors_per_class=[6, -1]), "vectors_per_class"),
    ("SVMClassifier", classifier([2, 3], coefficients=floats(4)), "coefficients"),
    ("SVMClassifier", classifier([2, 3], rho=floats(3)), "rho"),
    ("SVMClassifier", classifier([2, 3], support_vectors=floats(7)), "support_vectors"),
    ("SVMClassifier", classifier([2, 3], prob_a=[1.0]), "prob_b"),
    ("SVMClassifier", classifier([2, 3], prob_a=[1.0] * 2, prob_b=[1.0] * 2), "prob_a"),
    ("SVMClassifier", classifier([2, 3], post_transform="x"), "post_transform"),
    ("SVMClassifier", classifier([2, 3], classlabels_ints=[1]), "vectors_per_class"),
    ("SVMClassifier", classifier([2, 3], classlabels_strings=["a", "b"]), "classlabels"),
    ("SVMClassifier", {**classifier([2, 3]), "classlabels_ints": []}, "classlabels"),
    (
        "SVMClassifier",
        {"classlabels_ints": [1, 2], "coefficients": floats(3), "rho": [0.0]},
        "coef",
    ),
    ("SVMClassifier", {"classlabels_ints": [1, 2], "coefficients": floats(6)}, "rho"),
)


@pytest.mark.parametrize(("op", "attributes", "named"), WRONG)
def test_a_wrong_attribute_is_a_model_error_naming_op_and_attribute(
    op: str, attributes: dict[str, Any], named: str
) -> None:
    with pytest.raises(ModelError) as raised:
        compute(op, X, **attributes)
    error = raised.value
    assert error.where.op == op
    assert named in str(error)
    assert error.expected
    assert error.fix


@pytest.mark.parametrize("per_class", [[2, 3], [2, 1, 3], [1, 1, 1, 1]])
def test_a_score_of_zero_is_a_vote_for_the_second_of_its_pair(per_class: list[int]) -> None:
    """As ONNX Runtime has it: all machines undecided, then only the first."""
    count, classes = sum(per_class), len(per_class)
    pairs = classes * (classes - 1) // 2
    undecided = {"coefficients": [0.0] * ((classes - 1) * count), "kernel_type": "LINEAR"}
    for rho in ([0.0] * pairs, [0.0, *[1.0] * (pairs - 1)], [0.0, *[-1.0] * (pairs - 1)]):
        agree("SVMClassifier", X, INTS, **classifier(per_class, rho=rho, **undecided))
