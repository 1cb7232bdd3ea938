"""What a score is: how each output of a model is judged, by labels or by the float model."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import onnx
import pytest
from fhe_core.compiler.judging import Finding, Verdict, judged, session_criteria
from fhe_core.compiler.labelling import checked_labels
from fhe_core.compiler.scoring import Criterion, r_squared
from fhe_core.quantization.session import Session
from numpy.typing import NDArray

import fhe_core
from tests.core.quantization.building import model, normal

Array = NDArray[Any]

X = normal(60, 4, seed=5)
W: dict[str, Any] = {
    "w": normal(4, 3, seed=1),
    "v": normal(4, 1, seed=2),
    "one": np.array([1], np.int64),
    "small": np.float32(0.01),
}
CLASSES = (X @ W["w"]).argmax(axis=1)
ONE_HOT = np.eye(3)[CLASSES]
ML = {"ai.onnx.ml": 3}
NAMES = np.array(["cat", "dog", "eel"])


def session(
    nodes: str, outputs: str = "y", *, whole: tuple[str, ...] = (), x: Array = X, **options: Any
) -> Session:
    """Of a model of x; outputs in ``whole`` are declared as integers."""
    proto = model(nodes, {"x": ("N", *x.shape[1:])}, outputs, W, **options)
    for output in proto.graph.output:
        if output.name in whole:
            output.type.tensor_type.elem_type = onnx.TensorProto.INT64
    return Session(proto, x)


def classifier(names: str, rest: str = "") -> Session:
    """A linear classifier of ai.onnx.ml that gives the classes of CLASSES these names."""
    weights = ", ".join(map(str, W["w"].T.reshape(-1).tolist()))
    proto = model(
        f"label, s = ai.onnx.ml.LinearClassifier <{names}, coefficients = [{weights}], "
        f"intercepts = [0.0, 0.0, 0.0]> (x){rest}",
        {"x": ("N", 4)},
        "label s",
        domains=ML,
    )
    kind = onnx.TensorProto.STRING if "strings" in names else onnx.TensorProto.INT64
    proto.graph.output[0].type.tensor_type.elem_type = kind
    return Session(proto, X)


def criteria(found: Session, labels: Any = None, tolerance: float | None = None) -> list[Criterion]:
    known = checked_labels(labels, found.count, found.graph.output_labels)
    return session_criteria(found, known, tolerance)


def says(found: Session, labels: Any = None) -> list[str]:
    return [each.says for each in criteria(found, labels)]


def score_of_float(found: Session, labels: Any = None) -> float:
    known = checked_labels(labels, found.count, found.graph.output_labels)
    _, _, checks, _ = judged(found, known, score=None, tolerance=None, seed=0)
    return checks[0].goal


# -- without labels


@pytest.mark.parametrize(
    ("nodes", "outputs", "whole", "expected"),
    [
        ("y = MatMul(x, w)", "y", (), ["R²"]),
        ("h = MatMul(x, w)\n y = Softmax(h)", "y", (), ["accuracy"]),
        ("h = MatMul(x, w)\n y = LogSoftmax(h)", "y", (), ["accuracy"]),
        ("y = MatMul(x, w)\n p = Softmax(y)", "y p", (), ["accuracy", "accuracy"]),
        (
            "y = MatMul(x, w)\n c = ArgMax <axis = 1> (y)",
            "y c",
            ("c",),
            ["accuracy", "accuracy"],
        ),
        ("h = MatMul(x, w)\n c = ArgMin <axis = 1> (h)", "c", ("c",), ["accuracy"]),
        ("y = MatMul(x, w)\n r = MatMul(x, v)", "y r", (), ["R²", "R²"]),
        # Parts of a whole that nobody calls probabilities are a distribution all the same.
        (
            "h = MatMul(x, w)\n e = Exp(h)\n s = ReduceSum <keepdims = 1> (e, one)\n y = Div(e, s)",
            "y",
            (),
            ["accuracy"],
        ),
    ],
    ids=["numbers", "softmax", "log", "before-softmax", "argmax", "integer", "two", "sums-to-1"],
)
def test_outputs_are_classes_only_where_the_model_says_so(
    nodes: str, outputs: str, whole: tuple[str, ...], expected: list[str]
) -> None:
    """By a declared trait of what reads or makes them, an integer type, or a sum of 1; all are scored."""
    found = says(session(nodes, outputs, whole=whole))
    assert [each.split()[0] for each in found] == expected


@pytest.mark.parametrize("shape", [(4, 3), (1, 6, 6), (2, 2, 3, 3)])
def test_outputs_of_any_rank_have_a_score(shape: tuple[int, ...]) -> None:
    found = session("y = Relu(x)", x=normal(20, *shape))
    assert score_of_float(found) == 1
    assert score_of_float(found, found.net(found.data["x"])) == 1


def test_the_classes_of_a_segmentation_lie_along_the_axis_of_its_softmax() -> None:
    found = session("y = Softmax <axis = 1> (x)", x=normal(20, 3, 5, 5))
    (criterion,) = criteria(found, normal(20, 3, 5, 5).argmax(axis=1))
    assert criterion.axis == 1


def test_numbers_of_different_units_each_have_their_own_spread() -> None:
    """A column that is a thousand times smaller counts as much."""
    expected = normal(100, 2, seed=1) * np.array([1, 1000], np.float32)
    found = expected.copy()
    found[:, 0] = 0
    assert r_squared(found, expected) == pytest.approx(0.5, abs=0.02)


def test_what_never_varies_is_compared_with_its_magnitude() -> None:
    assert r_squared(np.full((5, 1), 99.0), np.full((5, 1), 100.0)) == pytest.approx(0.9999)
    assert r_squared(np.zeros((5, 2)), np.zeros((5, 2))) == 1
    assert r_squared(np.ones((5, 2)), np.zeros((5, 2))) == 0


# -- labels


@pytest.mark.parametrize(
    "labels",
    [
        CLASSES,
        CLASSES.astype(np.uint8),
        CLASSES.astype(float),
        CLASSES[:, None],
        CLASSES.tolist(),
        ONE_HOT,
        ONE_HOT.astype(int),
        ONE_HOT.astype(bool),
        {"y": CLASSES},
        CLASSES.astype(object),
    ],
    ids=["int", "uint8", "whole", "column", "list", "hot", "hot-int", "hot-bool", "dict", "object"],
)
def test_labels_of_classes_come_in_many_forms(labels: Any) -> None:
    found = session("y = MatMul(x, w)")
    (criterion,) = criteria(found, labels)
    assert criterion.says == "accuracy of 'y' by the labels"
    np.testing.assert_array_equal(criterion.labels, CLASSES)
    assert score_of_float(found, labels) == 1


@pytest.mark.parametrize(
    "labels",
    [(X @ W["v"])[:, 0], X @ W["v"], np.rint(10 * X @ W["v"]), np.rint(9 * X @ W["v"]).astype(int)],
    ids=["row", "column", "whole-floats", "integers"],
)
def test_labels_for_one_number_a_sample_are_numbers(labels: Array) -> None:
    assert says(session("y = MatMul(x, v)"), labels) == ["R² of 'y' by the labels"]


@pytest.mark.parametrize("nodes", ["y = MatMul(x, v)", "h = MatMul(x, v)\n y = Sigmoid(h)"])
@pytest.mark.parametrize("form", ["0/1", "bool", "-1/1"])
def test_two_classes_may_share_one_score(nodes: str, form: str) -> None:
    """Cut at 0, or at a half where it is a probability."""
    truth = (X @ W["v"])[:, 0] > 0
    labels = {"0/1": truth.astype(int), "bool": truth, "-1/1": np.where(truth, 1, -1)}[form]
    assert score_of_float(session(nodes), labels) == 1


def test_labels_may_say_yes_or_no_of_each_of_several() -> None:
    labels = (X @ W["w"] > 0).astype(int)
    assert says(session("y = MatMul(x, w)"), labels) == ["accuracy of 'y' by the labels"]
    assert score_of_float(session("y = MatMul(x, w)"), labels) == 1


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        ('classlabels_strings = ["cat", "dog", "eel"]', NAMES[CLASSES]),
        ('classlabels_strings = ["cat", "dog", "eel"]', NAMES[CLASSES].astype(object)),
        ('classlabels_strings = ["cat", "dog", "eel"]', NAMES[CLASSES].astype("S")),
        ("classlabels_ints = [7, 3, 5]", np.array([7, 3, 5])[CLASSES]),
        ("classlabels_ints = [7, 3, 5]", np.array([7.0, 3.0, 5.0])[CLASSES]),
    ],
    ids=["text", "objects", "bytes", "numbers", "floats"],
)
def test_labels_are_mapped_through_the_names_of_the_models_classes(
    names: str, labels: Array
) -> None:
    """For the answers and for the scores beside them."""
    found = classifier(names)
    assert says(found, labels) == [
        "accuracy of 'label' by the labels",
        "accuracy of 's' by the labels",
    ]
    assert score_of_float(found, labels) == 1


def test_answers_that_are_looked_up_have_the_names_that_the_table_has() -> None:
    found = session(
        "y = MatMul(x, w)\n b = ArgMax <axis = 1, keepdims = 0> (y)\n"
        "c = ai.onnx.ml.LabelEncoder <keys_int64s = [0, 1, 2], values_int64s = [7, 3, 5]> (b)",
        "c y",
        whole=("c",),
        domains=ML,
    )
    assert score_of_float(found, np.array([7, 3, 5])[CLASSES]) == 1
    with pytest.raises(fhe_core.CalibrationError, match=r"7, 3, 5"):
        criteria(found, np.array([7, 3, 4])[CLASSES])


def test_labels_for_one_of_several_outputs_leave_the_others_to_the_float_model() -> None:
    """One array goes to the output of classes, though it would fit the numbers beside it."""
    found = session("r = MatMul(x, v)\n y = MatMul(x, w)", "r y")
    expected = ["R² of 'r' against the float model", "accuracy of 'y' by the labels"]
    assert says(found, CLASSES) == expected
    assert says(found, {"y": CLASSES}) == expected
    assert [each.allowed for each in criteria(found, CLASSES)] == [0.02, 0.005]
    assert [each.allowed for each in criteria(found, CLASSES, 0.1)] == [0.1, 0.1]
    both = {"y": CLASSES, "r": X @ W["v"]}
    assert says(found, both) == ["R² of 'r' by the labels", "accuracy of 'y' by the labels"]


@pytest.mark.parametrize(
    ("labels", "problem", "expected"),
    [
        (CLASSES + 1, "never equal an answer", "0 to 2"),
        (CLASSES - 1, "never equal an answer", "0 to 2"),
        (CLASSES + 0.5, "never equal an answer", "0 to 2"),
        (NAMES[CLASSES], "never equal an answer", "0 to 2"),
        ((CLASSES + 1) % 3, "right on none", "answers such as"),
        (np.zeros((60, 5)), "do not fit", r"float32\[60, 3\]"),
        (np.zeros((60, 5, 5), int), "do not fit", r"float32\[60, 3\]"),
        ({"z": CLASSES}, "labels for 'z'", "outputs y"),
        ({}, "labels for no output", "outputs y"),
        ([[1], [2, 3]] * 30, "do not belong together", "60 labels"),
        (np.full(60, 1j), "neither numbers nor text", "integers"),
    ],
    ids=[
        "1-based",
        "negative",
        "half",
        "text",
        "turned",
        "columns",
        "rank",
        "name",
        "empty",
        "ragged",
        "complex",
    ],
)
def test_labels_that_can_never_match_are_refused(labels: Any, problem: str, expected: str) -> None:
    with pytest.raises(fhe_core.CalibrationError, match=problem) as caught:
        criteria(session("y = MatMul(x, w)"), labels)
    assert re.search(expected, str(caught.value))


@pytest.mark.parametrize(
    ("labels", "came"), [(CLASSES, "0, 1, 2"), (np.array(["cat", "dog", "owl"])[CLASSES], "owl")]
)
def test_labels_that_are_none_of_the_named_classes_are_refused(labels: Array, came: str) -> None:
    """It says what the classes are, and what came."""
    found = classifier('classlabels_strings = ["cat", "dog", "eel"]')
    with pytest.raises(fhe_core.CalibrationError) as caught:
        criteria(found, {"label": labels})
    assert "cat, dog, eel" in str(caught.value.expected)
    assert came in str(caught.value.got)


# -- verdicts


def test_a_verdict_is_that_of_the_output_that_is_nearest_to_fail() -> None:
    good = Finding("a", "", 0.9, 0.89, 0.01, 0.02)
    bad = Finding("b", "", 0.5, 0.47, 0.03, 0.02)
    verdict = Verdict((good, bad))
    assert verdict.worst is bad
    assert verdict.margin == pytest.approx(-0.5)
    assert verdict.score == pytest.approx(0.68)
    assert verdict.outcome.outputs == {"a": (0.9, 0.89), "b": (0.5, 0.47)}
    assert Finding("", "", 1, 1, 0, 0).margin == 1
    assert Finding("", "", 1, 1, 1e-9, 0).margin == -np.inf


def test_answers_that_the_float_model_rates_the_same_are_equally_right() -> None:
    """A blank sample has no class of its own: any is as good as the first."""
    x = X.copy()
    x[:30] = 0
    found = session("h = MatMul(x, w)\n y = ArgMax <axis = 1, keepdims = 0> (h)", whole=("y",), x=x)
    _, _, checks, _ = judged(found, None, score=None, tolerance=None, seed=0)
    measure = checks[0]._measures[0]
    answers = found.net(x)
    other = np.where(np.arange(60) < 30, 2, answers)
    assert measure.score(other) == 1
    assert measure.score(np.where(np.arange(60) < 30, answers, (answers + 1) % 3)) == 0.5


@pytest.mark.parametrize(
    ("score", "problem"),
    [
        (lambda outputs, expected: 1 / 0, "ZeroDivisionError"),
        (lambda outputs: 1.0, "TypeError"),
        (lambda outputs, expected: None, "TypeError"),
        (lambda outputs, expected: float("nan"), "no finite number"),
    ],
    ids=["raises", "takes-one", "None", "NaN"],
)
def test_a_score_of_the_callers_that_fails_is_named_as_such(score: Any, problem: str) -> None:
    with pytest.raises(fhe_core.PlanError, match=f"your score function.*{problem}"):
        judged(session("y = MatMul(x, w)"), None, score=score, tolerance=None, seed=0)


def test_a_score_of_the_callers_sees_all_outputs() -> None:
    """And all of the float model's, or the labels."""
    seen: list[Any] = []

    def score(outputs: Any, expected: Any) -> float:
        seen.append(([np.shape(each) for each in outputs], [np.shape(each) for each in expected]))
        return 1.0

    found = session("y = MatMul(x, w)\n r = MatMul(x, v)", "y r")
    judged(found, None, score=score, tolerance=None, seed=0)
    assert seen[-1] == ([(60, 3), (60, 1)], [(60, 3), (60, 1)])
    judged(found, CLASSES, score=score, tolerance=None, seed=0)
    assert seen[-1][1] == [()] * 60


def lost(found: Session, labels: Any, output: Any) -> float:
    known = checked_labels(labels, found.count, found.graph.output_labels)
    _, _, checks, _ = judged(found, known, score=None, tolerance=None, seed=0)
    answer = checks[0]._judged((output,)).worst.lost
    assert answer is not None
    return answer


def test_a_changed_class_costs_what_the_float_model_believes_of_it() -> None:
    """The likelihood of its own class minus that of the new one: little between two that are nearly equal."""
    found = session("h = MatMul(x, w)\n y = Softmax(h)")
    likely = found.net(X)
    order = likely.argsort(axis=1)
    second = likely.copy()
    places = np.arange(60)
    second[places, order[:, 1]] = 2
    gap = likely[places, order[:, 2]] - likely[places, order[:, 1]]
    # It errs as often as it says.
    labels = np.where(places < 30, order[:, 0], CLASSES)
    assert lost(found, labels, second) == pytest.approx(gap.mean(), rel=1e-5)
    # Scores that are no distribution are what a softmax makes one of.
    assert lost(session("y = MatMul(x, w)"), labels, second) == pytest.approx(gap.mean(), rel=1e-5)


def test_a_changed_answer_costs_a_half_where_nothing_says_how_likely_it_was() -> None:
    found = session("h = MatMul(x, v)\n y = Sigmoid(h)")
    truth = (X @ W["v"] > 0).astype(int)
    other = found.net(X)
    other[:30] = 1 - other[:30]
    assert lost(found, truth, other) == pytest.approx(0.25)


def test_without_labels_every_other_answer_is_lost() -> None:
    found = session("h = MatMul(x, w)\n y = Softmax(h)")
    assert lost(found, None, np.roll(found.net(X), 1, axis=1)) == 1


def test_a_model_that_doubts_more_than_it_errs_is_not_believed() -> None:
    """Small scores that are always right: half of what changed is lost at least."""
    found = session("h = MatMul(x, w)\n y = Mul(h, small)")
    other = np.roll(found.net(X), 1, axis=1)
    assert lost(found, CLASSES, other) >= 0.5
