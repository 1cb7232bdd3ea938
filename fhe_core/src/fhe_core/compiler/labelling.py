"""Which outputs of a model a caller's labels belong to, and what they say of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.compiler.scoring import (
    LABELS_TOLERANCE,
    OUTPUTS_TOLERANCE,
    Answers,
    Criterion,
    above,
    as_they_are,
    best_keys,
    largest,
)
from fhe_core.errors import CalibrationError
from fhe_core.quantization.classes import Classes

Array = NDArray[Any]

#: Integers that nobody declares to be classes are numbers if there are more of them.
_MOST_CLASSES = 100
#: By how much the parts of a distribution may miss a sum of 1.
_SUM = 1e-3
#: Outputs that are right on as many of the same samples say the same.
_SAME_ANSWERS = 0.95
#: A model that is right on none of so many labels has other classes.
_ENOUGH = 10


def checked_labels(labels: Any, samples: int, outputs: Sequence[str]) -> Any:
    """``labels`` as an array, or as a dict of arrays by output name; None where there are none.

    Raises:
        CalibrationError: not one for each sample, NaN among them, or for an output that is not there.
    """
    if labels is None:
        return None
    if not isinstance(labels, Mapping):
        return _checked(labels, samples)
    unknown = [str(name) for name in labels if name not in outputs]
    if unknown or not labels:
        raise CalibrationError(
            f"there are labels for {', '.join(map(repr, unknown)) or 'no output'}",
            expected=f"some of the outputs {', '.join(outputs)}",
            got=", ".join(map(str, labels)) or "an empty dict",
            fix="name outputs of the model",
        )
    return {name: _checked(given, samples) for name, given in labels.items()}


def _checked(labels: Any, samples: int) -> Array:
    try:
        array = np.asarray(labels)
        if array.dtype.kind == "O":
            array = np.asarray(array.tolist())
    except ValueError:
        array = np.empty(0, object)
    if array.ndim == 0 or len(array) != samples:
        raise CalibrationError(
            "labels and calibration data do not belong together",
            expected=f"{samples} labels, one a sample",
            got=f"shape {array.shape}",
            fix="give the labels of the calibration samples; for several outputs, a dict by output name",
        )
    if array.dtype.kind not in "fiubUS":
        raise CalibrationError(
            "the labels are neither numbers nor text",
            expected="integers, floats, truth values or text",
            got=str(array.dtype),
            fix="convert them",
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise CalibrationError(
            "the labels hold NaN or infinity",
            got=f"{int((~np.isfinite(array)).sum())} such labels",
            fix="drop those samples",
        )
    return array.astype(np.str_) if array.dtype.kind == "S" else array


def criteria(
    names: Sequence[str],
    tensors: Sequence[str],
    reference: Sequence[Any],
    classes: Classes,
    labels: Any,
    tolerance: float | None,
) -> list[Criterion]:
    """How each output is to be judged.

    Args:
        names, tensors: of the outputs: what the model calls them, and what the graph does.
        reference: the float model's outputs on the calibration data.
        labels: as ``checked_labels`` gives them.

    Raises:
        CalibrationError: labels that no answer of the model can equal.
    """
    by_outputs = OUTPUTS_TOLERANCE if tolerance is None else tolerance
    found = [
        _unlabelled(name, i, reference[i], classes, tensor, by_outputs)
        for i, (name, tensor) in enumerate(zip(names, tensors, strict=True))
    ]
    if labels is None:
        return found
    given = labels if isinstance(labels, Mapping) else None
    labelled: dict[int, Criterion] = {}
    refused: list[CalibrationError] = []
    for criterion in found:
        if given is not None and criterion.output not in given:
            continue
        array = labels if given is None else given[criterion.output]
        try:
            matched = _Matching(criterion, reference[criterion.index]).matched(array)
        except CalibrationError as error:
            if given is not None or len(names) == 1:
                raise
            refused.append(error)
            continue
        allowed = LABELS_TOLERANCE if tolerance is None else tolerance
        labelled[criterion.index] = replace(matched, allowed=allowed, estimated=True)
    if not labelled:
        raise _fit_none(refused, names, reference, labels)
    if given is None:
        labelled = _that_agree(labelled, reference)
    for criterion in labelled.values():
        _refuse_other_classes(criterion, reference[criterion.index])
    return [labelled.get(criterion.index, criterion) for criterion in found]


def _unlabelled(
    name: str, index: int, output: Any, classes: Classes, tensor: str, allowed: float
) -> Criterion:
    """By the float model alone: classes only where the model says so."""
    criterion = Criterion(name, index, None, None, allowed, names=classes.names.get(tensor))
    if isinstance(output, list) or _are_maps(output):
        return replace(criterion, answers=best_keys)
    if output.dtype.kind in "OUSb":
        return replace(criterion, answers=as_they_are)
    if output.dtype.kind in "iu":
        few = tensor in classes.names or len(np.unique(output)) <= _MOST_CLASSES
        return replace(criterion, answers=as_they_are if few else None)
    axis = classes.axes.get(tensor, _normalized_axis(output))
    return criterion if axis is None else replace(criterion, answers=largest(axis), axis=axis)


def _are_maps(output: Any) -> bool:
    return output.dtype.kind == "O" and output.size > 0 and isinstance(output.flat[0], Mapping)


def _normalized_axis(output: Array) -> int | None:
    """The axis along which an output is a distribution: never negative, and summing to 1."""
    if output.ndim < 2 or not output.size or float(output.min()) < -_SUM:
        return None
    for axis in (output.ndim - 1, *range(1, output.ndim - 1)):
        if output.shape[axis] > 1 and (np.abs(output.sum(axis=axis) - 1) <= _SUM).all():
            return axis
    return None


class _Matching:
    """Labels for one output, in the terms of its answers."""

    def __init__(self, criterion: Criterion, output: Any) -> None:
        self._criterion, self._output = criterion, output
        self._names = criterion.names

    def matched(self, labels: Array) -> Criterion:
        """The criterion with these labels.

        Raises:
            CalibrationError: they do not fit the output, or are none of its classes.
        """
        output = self._output
        if not isinstance(output, np.ndarray) or _are_maps(output):
            return self._with(best_keys, self._named(_flat(labels)))
        if output.dtype.kind not in "f":
            return self._whole(labels)
        ours, theirs = _squeezed(output.shape), _squeezed(labels.shape)
        if ours == theirs:
            return self._elementwise(labels)
        axes = [i for i, n in enumerate(output.shape) if i and n > 1]
        last_first = [self._criterion.axis, *axes[::-1]]
        for axis in (a for a in last_first if a is not None):
            left = _squeezed(output.shape[:axis] + output.shape[axis + 1 :])
            if left == theirs:
                return self._of_classes(labels, axis)
        raise self._misfit(labels)

    def _with(self, answers: Answers | None, labels: Array, axis: int | None = None) -> Criterion:
        return replace(self._criterion, answers=answers, labels=labels, axis=axis)

    def _whole(self, labels: Array) -> Criterion:
        """For an output of integers, truth values or text."""
        output = self._output
        axis = _one_hot_axis(labels)
        if axis is not None and _squeezed(labels.shape) != _squeezed(output.shape):
            labels = labels.argmax(axis=axis)
            if self._names is not None:
                self._refuse(labels, labels < len(self._names))
                labels = self._names[labels]
        if _squeezed(labels.shape) != _squeezed(output.shape):
            raise self._misfit(labels)
        labels = labels.reshape(output.shape)
        if self._criterion.answers is None:
            return self._with(None, self._numbers(labels))
        return self._with(as_they_are, self._named(labels))

    def _elementwise(self, labels: Array) -> Criterion:
        """For as many numbers as labels."""
        output = self._output
        axis = _one_hot_axis(labels)
        if axis is not None:
            axis = _matching_axis(labels.shape, output.shape, axis)
        labels = labels.reshape(output.shape)
        if axis is not None and output.shape[axis] > 1:
            return self._with(largest(axis), labels.argmax(axis=axis), axis)
        if labels.dtype.kind == "U":
            raise self._misfit(labels)
        truths = _as_truths(labels)
        if truths is None:
            return self._with(None, labels.astype(np.float64))
        # Probabilities are cut at a half, scores at 0: the model's own answers tell which these are.
        right = {cut: float(np.mean((output > cut) == truths)) for cut in (0.5, 0.0)}
        return self._with(above(max(right, key=lambda cut: right[cut])), truths)

    def _of_classes(self, labels: Array, axis: int) -> Criterion:
        """For a score of each class along ``axis``."""
        count = self._output.shape[axis]
        labels = labels.reshape(self._output.shape[:axis] + self._output.shape[axis + 1 :])
        if self._names is not None and len(self._names) == count:
            named = self._named(labels)
            places = np.zeros(named.shape, np.int64)
            for place, name in enumerate(self._names):
                places[named == name] = place
            return self._with(largest(axis), places, axis)
        if labels.dtype.kind == "U":
            self._refuse(labels, np.zeros(labels.shape, bool), count)
        self._refuse(labels, (labels >= 0) & (labels < count) & (labels == np.floor(labels)), count)
        return self._with(largest(axis), labels.astype(np.int64), axis)

    def _named(self, labels: Array) -> Array:
        """Labels that are the model's own names of classes, in their type."""
        like = self._names
        if like is None and isinstance(self._output, np.ndarray):
            like = self._output
        if like is None:
            return labels
        text = like.dtype.kind in "OU"
        if text != (labels.dtype.kind == "U"):
            self._refuse(labels, np.zeros(labels.shape, bool))
        if self._names is not None:
            self._refuse(
                labels, np.isin(labels, self._names.astype(np.str_) if text else self._names)
            )
        elif not text:
            self._refuse(labels, labels == np.floor(labels))
        return labels.astype(object) if text else labels

    def _numbers(self, labels: Array) -> Array:
        if labels.dtype.kind == "U":
            raise self._misfit(labels)
        return labels.astype(np.float64)

    def _refuse(self, labels: Array, known: Array, count: int | None = None) -> None:
        """Raises CalibrationError where some labels are not known."""
        if np.all(known):
            return
        if self._names is not None:
            expected = f"the model's classes: {_listed(self._names)}"
        elif count is not None:
            expected = f"the numbers of its {count} scores, 0 to {count - 1}"
        else:
            expected = f"values like the model's own: {_listed(np.unique(self._output))}"
        wrong = labels[~np.asarray(known)]
        raise CalibrationError(
            f"some labels can never equal an answer of the model in {self._criterion.output!r}",
            expected=expected,
            got=f"{_listed(np.unique(wrong))} in {wrong.size} of {labels.size} labels",
            fix="name the classes as the model does",
        )

    def _misfit(self, labels: Array) -> CalibrationError:
        output = self._output
        kind = "text" if labels.dtype.kind == "U" else labels.dtype.name
        return CalibrationError(
            f"the labels do not fit the output {self._criterion.output!r}",
            expected=f"for {output.dtype.name}{list(output.shape)}: as many numbers, or a class a sample",
            got=f"{kind}{list(labels.shape)}",
            fix="give labels of the output's shape, or classes; for several outputs, a dict by output name",
        )


def _squeezed(shape: Sequence[int]) -> tuple[int, ...]:
    """A shape without dimensions of size 1, the samples' aside."""
    return (shape[0], *(n for n in shape[1:] if n != 1))


def _flat(labels: Array) -> Array:
    return labels.reshape(_squeezed(labels.shape))


def _one_hot_axis(labels: Array) -> int | None:
    """The axis along which labels mark one class each."""
    if labels.ndim < 2 or labels.dtype.kind == "U" or not ((labels == 0) | (labels == 1)).all():
        return None
    for axis in (labels.ndim - 1, *range(1, labels.ndim - 1)):
        if labels.shape[axis] > 1 and (labels.sum(axis=axis) == 1).all():
            return axis
    return None


def _matching_axis(given: Sequence[int], wanted: Sequence[int], axis: int) -> int:
    """The place of an axis after a reshape that only adds or drops dimensions of size 1."""
    place = sum(n != 1 for n in given[1:axis])
    return [i for i, n in enumerate(wanted) if i and n != 1][place]


def _as_truths(labels: Array) -> Array | None:
    """Labels that say yes or no: truth values, or integers of which there are but two, 1 for yes."""
    if labels.dtype.kind == "b":
        return labels
    if labels.dtype.kind in "iu" and np.isin(labels, (0, 1)).all():
        return labels == 1
    if labels.dtype.kind == "i" and np.isin(labels, (-1, 1)).all():
        return labels == 1
    return None


def _that_agree(labelled: dict[int, Criterion], reference: Sequence[Any]) -> dict[int, Criterion]:
    """Of the outputs that one array of labels fits, those that it is meant for: the first, classes before
    numbers, and those that give the same answers."""
    chosen = sorted(labelled.values(), key=lambda each: (each.answers is None, each.index))
    first = _right(chosen[0], reference)
    kept = [chosen[0]]
    for each in chosen[1:]:
        right = _right(each, reference)
        if first is None or right is None or first.shape != right.shape:
            continue
        if np.mean(first == right) >= _SAME_ANSWERS:
            kept.append(each)
    return {each.index: each for each in kept}


def _right(criterion: Criterion, reference: Sequence[Any]) -> Array | None:
    """Which answers of the float model are right."""
    if criterion.answers is None or criterion.labels is None:
        return None
    answers = criterion.answers(reference[criterion.index])
    return np.asarray(answers.reshape(criterion.labels.shape) == criterion.labels)


def _refuse_other_classes(criterion: Criterion, output: Any) -> None:
    """Raises CalibrationError where the float model is right on no label at all."""
    if criterion.answers is None or criterion.labels is None or len(criterion.labels) < _ENOUGH:
        return
    answers = criterion.answers(output).reshape(criterion.labels.shape)
    if (answers == criterion.labels).any():
        return
    raise CalibrationError(
        f"the float model is right on none of the labels of {criterion.output!r}",
        expected=f"answers such as {_listed(answers.reshape(-1))} for the first samples",
        got=_listed(criterion.labels.reshape(-1)),
        fix="bring the labels into the order of the model's classes and of the calibration samples",
    )


def _fit_none(
    refused: Sequence[CalibrationError],
    names: Sequence[str],
    reference: Sequence[Any],
    labels: Array,
) -> CalibrationError:
    outputs = ", ".join(
        f"{name}: {getattr(array, 'dtype', 'maps')}{list(np.shape(array))}"
        for name, array in zip(names, reference, strict=True)
    )
    return CalibrationError(
        f"the labels fit none of the outputs: {'; '.join(error.problem for error in refused)}",
        expected="; ".join(str(error.expected) for error in refused) or outputs,
        got=refused[0].got if refused else f"{labels.dtype}{list(labels.shape)}",
        fix="give labels for one output, or a dict by output name",
    )


def _listed(values: Array, most: int = 8) -> str:
    shown = ", ".join(str(value) for value in values[:most].tolist())
    return shown + (", ..." if len(values) > most else "")
