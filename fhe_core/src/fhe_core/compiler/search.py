"""``n_bits="auto"``: the cheapest circuit whose score is within tolerance.

Smaller models that are good enough in float come first (`compiler.students`). Each of them, and each form of it
that the packs have, is tried with every rounding, those pairs first that cost least, because what an encrypted
inference costs is decided by how many look-ups there are and by the bits that their roundings keep.

Candidates are tuned (`quantization.tuning`) and scored on one part of the calibration data, simulated, with the
noise of approximate rounding in it; what is good enough there and cheaper than the best so far is checked
together with the rest, because the best of many scores flatters. Calibration data are mostly training data, on
which a net is surer of itself than on what it will see: so a candidate must also agree with the float model on
blends of samples. Cost is Concrete's own, from compiled circuits. From the best, single accumulators and
weights give up bits, as long as the score allows it. What is found in the end is tuned once more, on all data.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from fhe_core.compiler.building import Builder
from fhe_core.compiler.judging import LEAST_SAMPLES, Finding, Judge, Verdict, judged
from fhe_core.compiler.scoring import Score
from fhe_core.compiler.students import Student, in_best_forms, students
from fhe_core.errors import CompilationError
from fhe_core.progress import Progress
from fhe_core.quantization.module import Cost, QuantizedModule
from fhe_core.quantization.planning import Settings, widened
from fhe_core.quantization.session import Session

Array = NDArray[Any]

#: Bits kept by roundings, of activations and of weights.
ROUNDINGS = (2, 3, 4, 5, 6, 7, 8)
WIDTHS = (3, 4, 5, 6, 8)
#: Bits of activations and of weights, together, that are tried, the most accurate first: these tell whether a
#: rounding is worth more trials.
PAIRS = ((8, 8), (8, 6), (6, 6), (6, 5), (5, 5), (5, 4), (4, 4))
#: Bits of activations and of weights alike that are tried first, untuned: what a careful user would try.
UNIFORM = (8, 6, 5, 4)
#: What is tried before where no look-up follows: there wide sums cost next to nothing.
WIDE_PAIRS = ((12, 12), (10, 10))
#: Two candidates this far below what is wanted, in tolerances, end the trials with a rounding, or three nearer.
_NEAR = 1.2
#: Between the seeds of simulations for a score and those of its check.
_CHECKED = 100
#: How many single changes are tried on the best uniform candidate.
_REFINEMENTS = 16
#: How far below what is wanted a model may be before it is tuned, in tolerances; for how many steps candidates
#: are, and then the best of them.
_TUNABLE = 12
_TRIAL_STEPS = 1000
_STEPS = 4000
#: From so many bits kept on, a model is also tried in the form that it came in.
_MANY = 5
#: About what a look-up costs, in millions, by the bits that its rounding keeps: for the order of trials.
LOOKUP = {2: 41e6, 3: 68e6, 4: 98e6, 5: 227e6, 6: 526e6, 7: 1201e6, 8: 2694e6}
#: Complexities that differ by less are the same, and so are all below what half a look-up costs.
_SAME = 1.02
_FREE = 1e7
#: How much of the tolerance a smaller model has to leave to its roundings.
_LEAST_MARGIN = 0.3


@dataclass(frozen=True)
class Candidate:
    """One set of widths that was looked at.

    Attributes:
        settings: what it was built with.
        student: what was left out of the model before.
        score: mean of simulations on the samples of the search.
        worst: in the check that it is nearest to fail, or fails the most, of those that it was put to.
        cost: of its circuit, where it was good enough to be compiled.
        checked: by how much it is better than it has to be, in tolerances, in the worst of all checks; where it
            was put to them.
    """

    settings: Settings
    student: Student
    score: float
    worst: Finding
    cost: Cost | None = None
    checked: float = -float("inf")

    def describe(self) -> str:
        """Its widths, and what it does without."""
        forms = "".join(f", {name}" for name in self.student.session.alternatives)
        return f"{self.student}{forms}: {_spell(self.settings)}"


@dataclass(frozen=True)
class Found:
    """The result of a search.

    Attributes:
        best: the cheapest candidate within tolerance.
        module: what it is.
        candidates: all that were looked at, in order.
        verdict: on the module, by the calibration data.
    """

    best: Candidate
    module: QuantizedModule
    candidates: tuple[Candidate, ...]
    verdict: Verdict


def search(
    session: Session,
    labels: Any,
    *,
    score: Score | None,
    tolerance: float | None,
    base: Settings,
    compiled: Callable[[QuantizedModule], Cost],
    seed: int,
    progress: Progress,
) -> Found:
    """Find the cheapest candidate within tolerance.

    Args:
        session: the model with its calibration data.
        labels: of the calibration data, as ``checked_labels`` gives them.
        score: (outputs, expected), higher is better; accuracy or R² of each output by default.
        compiled: the cost of a module's circuit.

    Raises:
        CalibrationError: no answer of the model can equal the labels.
        CompilationError: no candidate is within tolerance; says which check the best one failed.
    """
    session, searched, checks, samples = judged(
        session, labels, score=score, tolerance=tolerance, seed=seed
    )
    state = _State(compiled, samples, searched, checks, seed)
    with progress.stage("looking for what can be left out") as advance:
        smaller = students(
            session,
            state.margin,
            samples,
            least=_LEAST_MARGIN,
            seed=seed,
            advance=advance,
            wanted=base.savings == "all" and checks[0].tells,
        )
        if base.savings != "none":
            smaller = in_best_forms(smaller)
    state.has_lookups = any(student.lookups or student.left_out for student in smaller)
    with progress.stage("searching for the cheapest circuit") as advance:
        _uniform(state, smaller[0], base, advance)
        for student, kept in _in_order(smaller):
            if state.best and student.lookups * LOOKUP[kept] > _complexity(state.best):
                break
            pairs = PAIRS if student.lookups else WIDE_PAIRS + PAIRS
            tried = [widened(base, rounding=kept, **_bits(*pair)) for pair in pairs]
            if not state.is_promising(student, tried):
                continue
            misses = 0
            for settings in tried:
                advance(1)
                looked_at = len(state.rows)
                state.consider(student, replace(settings, tuning=_TRIAL_STEPS))
                if len(state.rows) == looked_at:
                    continue
                near = state.rows[-1].checked
                misses += (near < 0) + (near < -_NEAR)
                if misses > 2:
                    break
        if state.best is None:
            raise _nothing(state.rows, session.count)
        _refine(state, advance)
        module = _finished(state)
    return Found(
        state.best, module, tuple(state.rows), state.checks[0].verdict(module, seed + _CHECKED)
    )


def _uniform(state: _State, whole: Student, base: Settings, advance: Callable[[int], None]) -> None:
    """Look at the uniform grid of the whole model, bits by rounding: nothing dearer than its best is found.

    Where a score is too low it is so with fewer bits.
    """
    for kept in ROUNDINGS if whole.lookups else ROUNDINGS[-1:]:
        if state.best and whole.lookups * LOOKUP[kept] > _complexity(state.best):
            return
        for bits in UNIFORM:
            advance(1)
            looked_at = len(state.rows)
            state.consider(whole, widened(base, rounding=kept, **_bits(bits, bits)))
            if len(state.rows) > looked_at and state.rows[-1].worst.margin < 0:
                break


def _in_order(smaller: Sequence[Student]) -> list[tuple[Student, int]]:
    """Every model with every rounding, those that cost least first."""
    pairs = [
        (student, kept)
        for student in smaller
        for kept in (ROUNDINGS if student.lookups else ROUNDINGS[-1:])
        if not student.replaced or kept >= _MANY
    ]
    return sorted(pairs, key=lambda pair: pair[0].lookups * LOOKUP[pair[1]])


def _finished(state: _State) -> QuantizedModule:
    """The best candidate; tuned on all data if that brings it nearer to the float model, and passes as well.

    What is tuned again is another circuit: it is priced and checked again.
    """
    best, found = state.best, state.module
    if best is None or found is None:
        raise LookupError("a search ends with its best candidate")
    settings = replace(best.settings, tuning=_STEPS)
    tuned = best.student.session.build(settings)
    seed, judge = state.seed + 200, state.checks[-1]
    if judge.divergence(tuned, seed) < judge.divergence(found, seed):
        state.take(best.student, settings, tuned)
    return state.module or found


def _refine(state: _State, advance: Callable[[int], None]) -> None:
    """Go from the best candidate to its cheapest neighbour within tolerance, until there is none."""
    left = _REFINEMENTS
    improved = True
    while improved and left > 0:
        improved = False
        for student, settings in itertools.islice(_neighbours(state), left):
            left -= 1
            advance(1)
            improved = state.consider(student, settings) or improved


def _neighbours(state: _State) -> list[tuple[Student, Settings]]:
    """The best settings with one accumulator rounded to a bit less, those with most look-ups first; with the
    weights of one op a bit narrower; or with ranges chosen the other way."""
    if state.best is None:
        return []
    student, settings = state.best.student, state.best.settings
    builder = state.builder(student)
    found = []
    for name in builder.accumulators(settings):
        kept = settings.roundings.get(name, settings.kept_bits)
        if kept > ROUNDINGS[0]:
            found.append(replace(settings, roundings={**settings.roundings, name: kept - 1}))
    for name in builder.weighted:
        bits = settings.nodes.get(name, settings.op_weights)
        if bits > WIDTHS[0]:
            found.append(replace(settings, nodes={**settings.nodes, name: bits - 1}))
    found.append(replace(settings, ranges="mse"))
    return [(student, changed) for changed in found]


def _nothing(rows: Sequence[Candidate], samples: int) -> CompilationError:
    """Why none of the candidates is good enough: the check that the nearest one failed."""
    if not rows:
        return CompilationError(
            "no uniform widths give accumulators that a circuit can hold",
            expected="accumulators that fit at some of 4 to 8 bits",
            got="sums too wide for any look-up",
            fix="give n_bits and rounding yourself, or make layers narrower",
        )
    failed = [row for row in rows if row.worst.margin < 0]
    if not failed:
        return CompilationError(
            "Concrete has no parameters for any candidate within tolerance",
            expected="a circuit that can be compiled",
            got=f"none for {len(rows)} candidates, {_spell(rows[-1].settings)} among them",
            fix="allow a larger tolerance or a larger p_error, or give n_bits and rounding yourself",
        )
    # Of those that went furthest, the nearest.
    closest = max(failed, key=lambda row: (row.cost is not None, row.worst.margin, row.score))
    worst = closest.worst
    few = f"; and give more than {samples} calibration samples" if samples < LEAST_SAMPLES else ""
    wanted, got, goal = _apart(worst.goal - worst.allowed, worst.score, worst.goal)
    return CompilationError(
        f"no uniform widths keep {worst.says}, within tolerance",
        expected=f"at least {wanted} (float: {goal})",
        got=f"{got} with {_spell(closest.settings)}",
        fix="allow a larger tolerance, or give n_bits and rounding yourself" + few,
    )


def _apart(wanted: float, got: float, goal: float) -> tuple[str, ...]:
    """Figures with as many digits as tell the first two apart, at least four."""
    digits = next((n for n in range(4, 16) if f"{wanted:.{n}f}" != f"{got:.{n}f}"), 16)
    return tuple(f"{value:.{digits}f}" for value in (wanted, got, goal))


def _complexity(candidate: Candidate | None) -> float:
    return candidate.cost.complexity if candidate and candidate.cost else float("inf")


def _bits(activations: int, weights: int) -> dict[str, int]:
    return {
        "op_inputs": activations,
        "model_inputs": activations,
        "model_outputs": max(activations, 6),
        "op_weights": weights,
    }


def _spell(settings: Settings) -> str:
    return (
        f"{settings.op_inputs}-bit activations, {settings.op_weights}-bit weights, "
        f"accumulators rounded to {settings.rounding} bits"
    )


class _State:
    """What a search has seen.

    Attributes:
        best: the cheapest candidate within tolerance so far.
        module: what that is.
        rows: every candidate.
    """

    def __init__(
        self,
        compiled: Callable[[QuantizedModule], Cost],
        samples: Array,
        searched: Judge,
        checks: Sequence[Judge],
        seed: int,
    ) -> None:
        self._compiled, self.samples = compiled, samples
        self.searched, self.checks, self.seed = searched, checks, seed
        self.best: Candidate | None = None
        self.module: QuantizedModule | None = None
        self.rows: list[Candidate] = []
        self._seen: set[tuple[int, str]] = set()
        self._builders: dict[int, Builder] = {}
        self.has_lookups = True

    def builder(self, student: Student) -> Builder:
        """What builds candidates of one model."""
        key = id(student)
        if key not in self._builders:
            self._builders[key] = Builder(student.session, self._compiled, self.samples)
        return self._builders[key]

    def margin(self, session: Session) -> float:
        """By how much a float model is better than it has to be, as a share of what it may lose."""
        return min(check.of_float(session).margin for check in self.checks)

    def consider(self, student: Student, settings: Settings) -> bool:
        """Build, score and price a candidate. Whether it is the new best."""
        key, builder = (id(student), repr(settings)), self.builder(student)
        if key in self._seen:
            return False
        self._seen.add(key)
        if self.is_too_dear(student, settings):
            return False
        module = builder.module(settings)
        return module is not None and self.take(student, settings, module)

    def take(self, student: Student, settings: Settings, module: QuantizedModule) -> bool:
        """Score and price a module; it is the best from now on where it is better."""
        verdict = self.searched.verdict(module, self.seed)
        found = Candidate(settings, student, verdict.score, verdict.worst)
        better = False
        if verdict.margin >= 0:
            found = replace(found, cost=self.builder(student).cost(module, settings))
            if found.cost and self._price(_complexity(found)) <= self._price(
                _complexity(self.best) * _SAME
            ):
                worst = self.checked(module)
                found = replace(found, checked=worst.margin, worst=worst)
                better = found.checked >= 0 and self._is_better(found)
        self.rows.append(found)
        if better:
            self.best, self.module = found, module
        return better

    def _is_better(self, found: Candidate) -> bool:
        """Whether it is cheaper than the best so far, or as cheap and nearer to what is wanted."""
        if self.best is None:
            return True
        ours, others = (self._price(_complexity(each)) for each in (found, self.best))
        return ours * _SAME < others or (
            ours <= others * _SAME and found.checked > self.best.checked
        )

    def _price(self, complexity: float) -> float:
        """The complexity, as far as it counts: without look-ups, a model that has some is all but free."""
        return max(complexity, _FREE) if self.has_lookups else complexity

    def is_too_dear(self, student: Student, settings: Settings) -> bool:
        """Whether candidates of these widths cost more than the best. Tuning takes longer than to ask."""
        if self.best is None:
            return False
        complexity = self.builder(student).complexity(settings)
        return self._price(complexity) > self._price(_complexity(self.best)) * _SAME

    def is_promising(self, student: Student, settings: Sequence[Settings]) -> bool:
        """Whether tuning may make up for what is lost with the first of these that there is a circuit for."""
        for each in settings:
            module = self.builder(student).module(each)
            if module is not None:
                verdict = self.searched.verdict(module, self.seed)
                self.rows.append(Candidate(each, student, verdict.score, verdict.worst))
                return verdict.margin >= -_TUNABLE
        return False

    def checked(self, module: QuantizedModule) -> Finding:
        """In the check that a module is nearest to fail, or fails the most."""
        findings = [check.verdict(module, self.seed + _CHECKED).worst for check in self.checks]
        return min(findings, key=lambda finding: finding.margin)
