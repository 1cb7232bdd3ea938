"""What a search judges candidates by: scores on calibration data, and how near they are to the float model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.compiler.labelling import criteria
from fhe_core.compiler.scoring import (
    LABELS_TOLERANCE,
    OUTPUTS_TOLERANCE,
    Criterion,
    Custom,
    Measure,
    Score,
)
from fhe_core.quantization.calibration import blended, float_values, static_batch
from fhe_core.quantization.module import Outcome, QuantizedModule
from fhe_core.quantization.session import Session
from fhe_core.quantization.tuning import divergence

Array = NDArray[Any]

#: Simulations that a candidate's score is the mean of, once the first one looks good.
_SEEDS = 5
#: A first simulation this far below what is wanted ends a candidate.
_HOPELESS = 0.03
#: Samples that candidates are scored on, and checked on, at the most.
_SCORED = 1000
#: Share of the samples that candidates are scored, and weights trained, on.
_SEARCHED = 0.7
#: Blends are a sample and up to this share of another.
_BLENDED = 0.25
#: How much more disagreement is allowed on blends than loss of a score by labels: as much as without labels.
_BLEND_FACTOR = 3
#: Fewer calibration samples than this are not divided: half of them would say too little.
LEAST_SAMPLES = 64


def divided(count: int, seed: int) -> tuple[Array, Array]:
    """Indices of samples to search on, and of all to check on."""
    if count < LEAST_SAMPLES:
        return np.arange(count), np.arange(count)
    order = np.random.default_rng(seed).permutation(count)
    most = int(count * _SEARCHED)
    searched, rest = order[:most][:_SCORED], order[most:][:_SCORED]
    return np.sort(searched), np.sort(np.concatenate([searched, rest]))


def parts_of(session: Session, seed: int) -> tuple[Array, Array]:
    """The division, in whole batches where the model has a static batch size."""
    parts = divided(session.count, seed)
    batch = static_batch(session.graph) or 1
    a, b = (part[: len(part) // batch * batch] for part in parts)
    return (a, b) if len(a) and len(b) else (np.arange(session.count),) * 2


def part_of(data: Mapping[str, Array], part: Array) -> dict[str, Array]:
    return {name: array[part] for name, array in data.items()}


def blends_of(session: Session, seed: int) -> dict[str, Array] | None:
    """Samples with a share of another in each; None where inputs are no floats."""
    if any(array.dtype.kind != "f" for array in session.data.values()):
        return None
    batch = static_batch(session.graph) or 1
    size = max(min(session.count, _SCORED) // batch, 1) * batch
    return blended(
        session.data, np.arange(session.count), size, _BLENDED, np.random.default_rng(seed)
    )


@dataclass(frozen=True)
class Finding:
    """What one output scored in one check.

    Attributes:
        output: its name.
        says: which score of it, and where.
        goal: the float model's.
        score: that of what is judged, as measured.
        lost: what it is expected to lose on data that nobody saw.
        allowed: how much of that is within tolerance.
    """

    output: str
    says: str
    goal: float
    score: float
    lost: float
    allowed: float

    @property
    def margin(self) -> float:
        """By how much it is better than it has to be, in tolerances: 1 is as good as the float model."""
        if self.allowed > 0:
            return 1 - self.lost / self.allowed
        return 1.0 if self.lost <= 0 else -float("inf")


@dataclass(frozen=True)
class Verdict:
    """The findings of a check, one for each output that counts."""

    findings: tuple[Finding, ...]

    @property
    def score(self) -> float:
        """The mean over the outputs."""
        return float(np.mean([finding.score for finding in self.findings]))

    @property
    def goal(self) -> float:
        """The float model's."""
        return float(np.mean([finding.goal for finding in self.findings]))

    @property
    def worst(self) -> Finding:
        """Of the output that is nearest to its tolerance, or beyond it the most."""
        return min(self.findings, key=lambda finding: finding.margin)

    @property
    def margin(self) -> float:
        return self.worst.margin

    @property
    def outcome(self) -> Outcome:
        """What a module says of itself."""
        worst = self.worst
        outputs = {each.output: (each.goal, each.score) for each in self.findings if each.output}
        return Outcome(self.goal, self.score, worst.allowed, worst.lost, outputs)

    @classmethod
    def mean(cls, verdicts: Sequence[Verdict]) -> Verdict:
        """Of several simulations."""
        columns = zip(*(verdict.findings for verdict in verdicts), strict=True)
        return cls(
            tuple(
                replace(
                    column[0],
                    score=float(np.mean([each.score for each in column])),
                    lost=float(np.mean([each.lost for each in column])),
                )
                for column in columns
            )
        )


def judged(
    session: Session, labels: Any, *, score: Score | None, tolerance: float | None, seed: int
) -> tuple[Session, Judge, list[Judge], Array]:
    """What decides on candidates.

    Args:
        labels: of the calibration data, as ``checked_labels`` gives them.
        score: the caller's own; else each output has one, see ``criteria``.
        tolerance: None for the default of each output.

    Returns:
        The session, which knows of the classes that the labels tell; who scores candidates on some samples;
        who checks them, first on all samples; the indices of the former samples.

    Raises:
        CalibrationError: no answer of the model can equal the labels.
    """
    found = (
        session_criteria(session, labels, tolerance)
        if score is None
        else [Criterion("", 0, None, None, _allowed(labels, tolerance))]
    )
    outputs = session.graph.output_names
    session = session.with_class_axes(
        {outputs[each.index]: each.axis for each in found if each.axis is not None}
    )
    searched, checked = parts_of(session, seed)

    def judge(part: Array, where: str) -> Judge:
        expected = None if labels is None else _labels_of(labels, part)
        data = part_of(session.data, part)
        return Judge(session, found, data, where, part=part, score=score, expected=expected)

    first = judge(searched, "on the calibration samples that are searched on")
    checks = [judge(checked, "on the calibration data")]
    blends = blends_of(session, seed) if score is None else None
    if blends is not None:
        loose = [
            replace(each, labels=None, allowed=each.allowed * (_BLEND_FACTOR if labelled else 1))
            for each in found
            for labelled in [each.labels is not None]
        ]
        where = "on blends of two calibration samples each"
        checks.append(Judge(session, loose, blends, where, part=None))
    return session, first, checks, searched


def session_criteria(session: Session, labels: Any, tolerance: float | None) -> list[Criterion]:
    """How each output of a session's model is to be judged; see ``criteria``."""
    return criteria(
        session.graph.output_labels,
        session.graph.output_names,
        float_outputs(session, session.data),
        session.classes,
        labels,
        tolerance,
    )


def _allowed(labels: Any, tolerance: float | None) -> float:
    if tolerance is not None:
        return tolerance
    return OUTPUTS_TOLERANCE if labels is None else LABELS_TOLERANCE


def _labels_of(labels: Any, part: Array) -> Any:
    if isinstance(labels, Mapping):
        return {name: array[part] for name, array in labels.items()}
    return labels[part]


class Judge:
    """Scores modules on some data.

    Args:
        where: what this data is, for messages.
        part: which calibration samples it is; None where it is none of them.

    Attributes:
        goal: the float model's score there, the mean over the outputs.
    """

    def __init__(
        self,
        session: Session,
        criteria: Sequence[Criterion],
        data: Mapping[str, Array],
        where: str,
        *,
        part: Array | None,
        score: Score | None = None,
        expected: Any = None,
    ) -> None:
        self.data, self._where = data, where
        self._session = session
        self._reference, scores = _references(session, data)
        self._measures: list[Measure] = [
            criterion.of(self._reference, part, scores[criterion.index]) for criterion in criteria
        ]
        self._whole = score is not None
        if score is not None:
            given = _only(self._reference) if expected is None else expected
            self._measures = [Custom(criteria[0], score, given)]
        self._goals = [
            measure.score(self._part(measure, self._reference)) for measure in self._measures
        ]
        self.goal = float(np.mean(self._goals))

    @property
    def tells(self) -> bool:
        """Whether these samples tell what a model needs: there are some, and the outputs vary on them."""
        outputs = [np.asarray(output) for output in self._reference]
        return len(outputs[0]) >= LEAST_SAMPLES and any((x != x[:1]).any() for x in outputs)

    def verdict(self, module: QuantizedModule, seed: int) -> Verdict:
        """The mean over several simulations; of one alone where that is hopeless already."""
        verdicts = [self._once(module, seed)]
        if all(each.lost <= each.allowed + _HOPELESS for each in verdicts[0].findings):
            verdicts += [self._once(module, seed + i) for i in range(1, _SEEDS)]
        return Verdict.mean(verdicts)

    def of_float(self, session: Session) -> Verdict:
        """That of a session's float model."""
        return self._judged(float_outputs(session, self.data))

    def divergence(self, module: QuantizedModule, seed: int) -> float:
        """How far a module's outputs are from the float model's: the mean over several simulations."""
        runs = (self._outputs(module, seed + i) for i in range(_SEEDS))
        axes = self._session.class_axes
        return float(
            np.mean(
                [
                    sum(
                        divergence(found, wanted, axes.get(name))
                        for name, found, wanted in zip(
                            self._session.graph.output_names, run, self._reference, strict=True
                        )
                        # Text and maps say nothing that the numbers beside them do not.
                        if isinstance(found, np.ndarray) and found.dtype.kind in "fiub"
                    )
                    for run in runs
                ]
            )
        )

    def _once(self, module: QuantizedModule, seed: int) -> Verdict:
        return self._judged(self._outputs(module, seed))

    def _judged(self, outputs: Sequence[Any]) -> Verdict:
        return Verdict(
            tuple(
                self._finding(measure, goal, self._part(measure, outputs))
                for measure, goal in zip(self._measures, self._goals, strict=True)
            )
        )

    def _finding(self, measure: Measure, goal: float, output: Any) -> Finding:
        score, lost = measure.score(output), measure.lost(output)
        fallen = goal - score
        lost = fallen if lost is None else min(fallen, lost)
        says = f"the {self._says(measure)}, {self._where}"
        criterion = measure.criterion
        return Finding(criterion.output, says, goal, score, lost, criterion.allowed)

    def _says(self, measure: Measure) -> str:
        return "score" if self._whole else measure.criterion.says

    def _part(self, measure: Measure, outputs: Sequence[Any]) -> Any:
        return _only(outputs) if self._whole else outputs[measure.criterion.index]

    def _outputs(self, module: QuantizedModule, seed: int) -> tuple[Any, ...]:
        arrays = [self.data[name] for name in module.input_names]
        return _all(module.forward(*arrays, fhe="simulate", seed=seed))


def _only(outputs: Sequence[Any]) -> Any:
    """The outputs as a model returns them: one alone, or a tuple."""
    return outputs[0] if len(outputs) == 1 else tuple(outputs)


def _all(outputs: Any) -> tuple[Any, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)


def float_outputs(session: Session, data: Mapping[str, Array]) -> tuple[Any, ...]:
    """The outputs of a session's float model, each for all samples."""
    return _fetched(session, data, session.graph.output_names)


def _references(
    session: Session, data: Mapping[str, Array]
) -> tuple[tuple[Any, ...], list[Array | None]]:
    """The float model's outputs, and for each the scores of classes that decide it, in the last axis."""
    classes, names = session.classes, session.graph.output_names
    behind = {name: classes.behind.get(name, name) for name in names}
    scored = [name for name in dict.fromkeys(behind.values()) if name in session.class_axes]
    found = _fetched(session, data, (*names, *scored))
    known = dict(zip(scored, found[len(names) :], strict=True))
    scores: list[Array | None] = [None] * len(names)
    for i, name in enumerate(names):
        if behind[name] in known:
            scores[i] = np.moveaxis(known[behind[name]], session.class_axes[behind[name]], -1)
    return found[: len(names)], scores


def _fetched(session: Session, data: Mapping[str, Array], names: Sequence[str]) -> tuple[Any, ...]:
    found = float_values(session.net, data, names)
    return tuple(found[name] for name in names)
