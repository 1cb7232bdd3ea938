"""How good a quantized model is: the score that a search must keep, of each output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.arguments import shown
from fhe_core.errors import PlanError

Array = NDArray[Any]
Score = Callable[[Any, Any], float]
#: Answers, (N, ...) integers, truth values or text, from what a model returns for an output.
Answers = Callable[[Any], Array]

#: How far below the float model's score a search may go, by what it compares with.
LABELS_TOLERANCE = 0.005
OUTPUTS_TOLERANCE = 0.02
#: Scores of classes that are as near to each other, as a share of the largest, are the same.
_EQUAL = 1e-6
#: A model that holds its answers for less likely to be right, as a share of how often they are, knows too
#: little of itself.
_SURE = 0.97
#: A variance that is less, as a share of the mean square, is none.
_NOTHING = 1e-12


# -- answers


def largest(axis: int) -> Answers:
    """The place of the largest along an axis."""
    return lambda output: np.asarray(output).argmax(axis=axis)


def above(threshold: float) -> Answers:
    """Whether each number is greater."""
    return lambda output: np.asarray(output) > threshold


def as_they_are(output: Any) -> Array:
    """Integers, truth values or text."""
    return np.asarray(output)


def best_keys(output: Any) -> Array:
    """Of one map a sample, the key of the largest value."""
    return np.asarray([max(each, key=each.__getitem__) for each in output])


# -- scores


def accuracy(found: Array, expected: Array) -> float:
    """Share of the answers that are right."""
    return float(np.mean(found == expected))


def r_squared(outputs: Any, expected: Array) -> float:
    """Coefficient of determination: 1 is perfect, 0 as good as the mean.

    The mean over the columns where there is one row of numbers a sample, each with its own spread; over all
    elements together where there are more dimensions. What never varies is compared with its magnitude.
    """
    wanted = _rows(expected)
    return 1.0 - _share(_rows(outputs) - wanted, wanted)


def _rows(values: Any) -> Array:
    """(N, columns) where each column is a quantity of its own; else (N, 1, elements)."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim <= 2:
        return array.reshape(len(array), -1, 1)
    return array.reshape(len(array), 1, -1)


def _share(errors: Array, wanted: Array) -> float:
    """The mean square of errors, as a share of what varies: the mean over the columns."""
    spread = ((wanted - wanted.mean(axis=0)) ** 2).mean(axis=(0, 2))
    power = (wanted**2).mean(axis=(0, 2))
    # Rounding of floats alone is no spread.
    spread = np.where(spread > _NOTHING * power, spread, power)
    lost = (errors**2).mean(axis=(0, 2))
    # Of what is always 0, any error is all of it.
    shares = np.divide(lost, spread, out=(lost > 0).astype(np.float64), where=spread > 0)
    return float(shares.mean())


@dataclass(frozen=True)
class Criterion:
    """How one output of a model is judged.

    Attributes:
        output: its name.
        index: its place among the outputs.
        answers: what it is read by, where it is a classification; None for numbers.
        labels: what it should be on the calibration data, in the terms of its answers; None where only the
            float model says.
        allowed: how much of the float model's score may be lost.
        axis: along which it has a score for each class.
        names: what its answers are called, in the order of these scores; their places where it has none.
        estimated: the loss on other data counts where it is less than what is measured.
    """

    output: str
    index: int
    answers: Answers | None
    labels: Array | None
    allowed: float
    axis: int | None = None
    names: Array | None = None
    estimated: bool = False

    @property
    def says(self) -> str:
        what = "R²" if self.answers is None else "accuracy"
        against = "by the labels" if self.labels is not None else "against the float model"
        return f"{what} of {self.output!r} {against}"

    def of(self, reference: Sequence[Any], part: Array | None, scores: Array | None) -> Measure:
        """It on some data.

        Args:
            reference: the float model's outputs there.
            part: which calibration samples these are; None where they are none, and have no labels.
            scores: the float model's of each class, in the last axis, where it has them.
        """
        own = reference[self.index]
        labels = None if self.labels is None or part is None else self.labels[part]
        if self.answers is None:
            return Numbers(self, np.asarray(own, np.float64), labels)
        answers = self.answers(own)
        places = self.places(answers)
        if scores is None or places is None or not np.array_equal(scores.argmax(axis=-1), places):
            scores = None  # It decides by something else.
        return Classification(self, self.answers, answers, labels, scores)

    def places(self, answers: Array) -> Array | None:
        """The places of answers among the scores; -1 for what is none of them. None where nobody knows."""
        if self.names is None or self.axis is not None:
            return answers if answers.dtype.kind in "iu" else None
        found = np.full(answers.shape, -1)
        for place, name in enumerate(self.names):
            found[answers == name] = place
        return found


class Measure:
    """A criterion on some data."""

    criterion: Criterion

    def score(self, output: Any) -> float:
        """Of a model's output there: higher is better."""
        raise NotImplementedError

    def lost(self, output: Any) -> float | None:
        """What the score by labels is expected to lose against the float model's on data that it never saw.

        A float model is surer of the samples that it was trained on than of any others, so that there each
        change of its outputs looks like a loss. What can be expected elsewhere follows from the change
        itself. None where the criterion wants no estimate: the score says it all.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Numbers(Measure):
    """R². The loss is the mean square of what changed, as a share of the labels' variance, if it has nothing
    to do with the model's errors."""

    criterion: Criterion
    reference: Array
    labels: Array | None

    def score(self, output: Any) -> float:
        return r_squared(output, self.reference if self.labels is None else self.labels)

    def lost(self, output: Any) -> float | None:
        if not self.criterion.estimated:
            return None
        spread = self.reference if self.labels is None else self.labels
        return _share(_rows(output) - _rows(self.reference), _rows(spread))


@dataclass(frozen=True)
class Classification(Measure):
    """Accuracy. The loss is what the float model itself believes of the answers that changed: how much likelier
    its own is than the new one. Where it has no scores of classes, half of the answers that changed: where two
    nearly equal models differ, either may be right; that at least, too, where it doubts more than it errs.

    Attributes:
        reference: the float model's answers.
        scores: of each class, in the last axis, where the float model has them.
    """

    criterion: Criterion
    answers: Answers
    reference: Array
    labels: Array | None
    scores: Array | None

    def score(self, output: Any) -> float:
        found = self._found(output)
        if self.labels is not None:
            return accuracy(found, self.labels)
        return float(np.mean((found == self.reference) | self._equals(found)))

    def lost(self, output: Any) -> float | None:
        if not self.criterion.estimated:
            return None
        found = self._found(output)
        places = self.criterion.places(found)
        if self.scores is None or places is None:
            return float(np.mean(found != self.reference)) / 2
        likely = _probabilities(self.scores)
        known = (places >= 0) & (places < likely.shape[-1])
        new = np.take_along_axis(likely, np.where(known, places, 0)[..., None], axis=-1)[..., 0]
        believed = float(np.mean(likely.max(axis=-1) - np.where(known, new, 0.0)))
        doubts = self.labels is not None and likely.max(axis=-1).mean() < _SURE * accuracy(
            self.reference, self.labels
        )
        return max(believed, float(np.mean(found != self.reference)) / 2) if doubts else believed

    def _found(self, output: Any) -> Array:
        return self.answers(output).reshape(self.reference.shape)

    def _equals(self, found: Array) -> Array:
        """Answers that the float model itself rates as high as its own: it has the first of the best."""
        places = None if self.scores is None else self.criterion.places(found)
        if self.scores is None or places is None:
            return np.zeros(found.shape, bool)
        known = (places >= 0) & (places < self.scores.shape[-1])
        ours = np.take_along_axis(self.scores, np.where(known, places, 0)[..., None], axis=-1)[
            ..., 0
        ]
        reach = np.abs(self.scores).max(axis=-1)
        return known & (ours >= self.scores.max(axis=-1) - _EQUAL * reach)


def _probabilities(scores: Array) -> Array:
    """Of classes in the last axis: the scores themselves where these are a distribution, else their softmax."""
    scores = np.asarray(scores, np.float64)
    if (scores >= 0).all() and np.allclose(scores.sum(axis=-1), 1, atol=1e-3):
        return scores
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


@dataclass(frozen=True)
class Custom(Measure):
    """The caller's own score, of all outputs."""

    criterion: Criterion
    function: Score
    expected: Any

    def score(self, output: Any) -> float:
        try:
            found = float(self.function(output, self.expected))
        except Exception as error:
            raise PlanError(
                f"your score function failed: {type(error).__name__}: {error}",
                expected="score(outputs, expected), a number, of " + _described(output),
                fix="correct it; it is given all outputs, and labels or else the float model's outputs",
            ) from error
        if np.isfinite(found):
            return found
        raise PlanError(
            "your score function gives no finite number",
            expected="a number, higher is better",
            got=str(found),
            fix="correct it; an error that may be infinite can be clipped",
        )

    def lost(self, output: Any) -> float | None:
        return None


def _described(outputs: Any) -> str:
    arrays = outputs if isinstance(outputs, tuple) else (outputs,)
    return ", ".join(f"{getattr(a, 'dtype', 'maps')}{list(np.shape(a))}" for a in arrays)


def checked_tolerance(tolerance: Any) -> float | None:
    """The tolerance, None for the default of each output.

    Raises:
        PlanError: it is no number of at least 0.
    """
    if tolerance is None:
        return None
    if isinstance(tolerance, (int, float)) and not isinstance(tolerance, bool) and tolerance >= 0:
        return float(tolerance)
    raise PlanError(
        f"tolerance cannot be {shown(tolerance)}",
        expected="a number of at least 0",
        got=shown(tolerance),
        fix="give the score that may be lost, 0.005 for half a percent",
    )
