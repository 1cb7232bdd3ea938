"""How good a quantized model is: the score that a search must keep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.errors import CalibrationError, PlanError

Array = NDArray[Any]
Score = Callable[[Any, Array], float]

#: How far below the float model's score a search may go, by what it compares with.
LABELS_TOLERANCE = 0.005
OUTPUTS_TOLERANCE = 0.02


def first(outputs: Any) -> Array:
    """The outputs to be scored: the first, where a model has several."""
    return np.asarray(outputs[0] if isinstance(outputs, tuple) else outputs)


def accuracy(outputs: Any, expected: Array) -> float:
    """Share of samples whose class is right. Outputs: classes, or one score a class in the last axis."""
    return float(np.mean(_classes(first(outputs)) == _classes(np.asarray(expected))))


def _classes(values: Array) -> Array:
    if values.dtype.kind == "f" and values.ndim > 1 and values.shape[-1] > 1:
        return values.reshape(len(values), -1, values.shape[-1]).argmax(axis=-1).squeeze(-1)
    return values.reshape(len(values), -1).squeeze(-1) if values.size == len(values) else values


def r_squared(outputs: Any, expected: Array) -> float:
    """Coefficient of determination over all elements: 1 is perfect, 0 as good as the mean."""
    found = first(outputs).reshape(len(expected), -1).astype(np.float64)
    wanted = np.asarray(expected, dtype=np.float64).reshape(len(expected), -1)
    spread = float(((wanted - wanted.mean(axis=0)) ** 2).sum())
    error = float(((found - wanted) ** 2).sum())
    return 1.0 - error / spread if spread > 0 else float(error == 0.0)


def default_score(outputs: Any, labels: Array | None) -> Score:
    """Accuracy for classes, R² for numbers: by the labels, or by the float model's outputs."""
    array = first(outputs)
    many = array.ndim > 1 and array.shape[-1] > 1
    if labels is not None:
        classes = labels.dtype.kind in "iubUSO" and (many or array.dtype.kind not in "f")
        return accuracy if classes else r_squared
    return accuracy if many or array.dtype.kind != "f" else r_squared


def excess(outputs: Any, reference: Any, labels: Array, score: Score) -> float:
    """What the score by labels is expected to lose against the float model's, where that never saw them.

    A float model is surer of the samples that it was trained on than of any others, so that there each change
    of its outputs looks like a loss. What can be expected elsewhere follows from the change itself. R²: its
    mean square, as a share of the labels' variance, if it has nothing to do with the model's errors. Accuracy:
    where two nearly equal models differ, either may be right; half of such samples is taken for lost.

    Args:
        outputs, reference: the candidate's and the float model's.
        score: ``accuracy`` or ``r_squared``.
    """
    if score is accuracy:
        return float(np.mean(_classes(first(outputs)) != _classes(first(reference)))) / 2
    found, wanted = (
        first(x).reshape(len(labels), -1).astype(np.float64) for x in (outputs, reference)
    )
    spread = float(((labels - labels.mean(axis=0)) ** 2).mean())
    return float(((found - wanted) ** 2).mean()) / spread if spread > 0 else float("inf")


def checked_labels(labels: Any, samples: int) -> Array | None:
    """``labels`` as an array.

    Raises:
        CalibrationError: not one for each sample, or NaN among them.
    """
    if labels is None:
        return None
    array = np.asarray(labels)
    if array.ndim == 0 or len(array) != samples:
        raise CalibrationError(
            "labels and calibration data do not belong together",
            expected=f"{samples} labels, one a sample",
            got=f"shape {array.shape}",
            fix="give the labels of the calibration samples",
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise CalibrationError(
            "the labels hold NaN or infinity",
            got=f"{int((~np.isfinite(array)).sum())} such labels",
            fix="drop those samples",
        )
    return array


def checked_tolerance(tolerance: Any, labels: Array | None) -> float:
    """The tolerance, with its default.

    Raises:
        PlanError: it is no number of at least 0.
    """
    if tolerance is None:
        return OUTPUTS_TOLERANCE if labels is None else LABELS_TOLERANCE
    if isinstance(tolerance, (int, float)) and not isinstance(tolerance, bool) and tolerance >= 0:
        return float(tolerance)
    raise PlanError(
        f"tolerance cannot be {tolerance!r}",
        expected="a number of at least 0",
        got=repr(tolerance),
        fix="give the score that may be lost, 0.005 for half a percent",
    )
