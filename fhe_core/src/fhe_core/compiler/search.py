"""``n_bits="auto"``: the cheapest widths and roundings whose score is within tolerance.

Candidates are scored on one part of the calibration data, simulated, with the noise of approximate rounding
in it; what is good enough there and cheaper than the best so far is checked together with the rest, because
the best of many scores flatters. Calibration data are mostly training data, on which a net is surer of
itself than on what it will see: so a candidate must also agree with the float model on blends of samples.

Cost is Concrete's own, from compiled circuits. What an encrypted inference costs is decided by the bits that
roundings keep, so these are tried from few to many, uniformly, until even the narrowest candidate costs more
than the best found. The most promising at each are tuned (`quantization.tuning`) on the first part of the data:
that costs nothing under encryption, and often saves a bit. From the best, single accumulators and weights give
up bits, as long as the score allows it. What is found in the end is tuned once more, on all data.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhe_core.compiler.scoring import (
    Score,
    checked_tolerance,
    default_score,
    first,
)
from fhe_core.errors import CompilationError
from fhe_core.program.nodes import BATCH
from fhe_core.progress import Progress
from fhe_core.quantization.calibration import batches, blended, static_batch
from fhe_core.quantization.module import Cost, QuantizedModule
from fhe_core.quantization.planning import Settings, widened
from fhe_core.quantization.session import Session
from fhe_core.quantization.tuning import divergence

Array = NDArray[Any]

#: Bits kept by roundings, of activations and of weights.
ROUNDINGS = (2, 3, 4, 5, 6, 7, 8)
WIDTHS = (3, 4, 5, 6, 8)
RANGES = ("minmax", "mse")
#: Simulations that a candidate's score is the mean of, once the first one looks good.
_SEEDS = 5
#: A first simulation this far below what is wanted ends a candidate.
_HOPELESS = 0.03
#: Samples that candidates are scored on, and checked on, at the most.
_SCORED = 1000
#: Blends are a sample and up to this share of another.
_BLENDED = 0.25
#: How much more disagreement is allowed on blends than loss of score: as much as without labels.
_BLEND_FACTOR = 3
#: How many single changes are tried on the best uniform candidate.
_REFINEMENTS = 96
#: How many candidates are tuned at each rounding, how far below what is wanted they may be before that, and
#: for how many steps; then for how many the best one is.
_TRIED = 4
_TUNABLE = 0.1
_TRIAL_STEPS = 1000
_STEPS = 4000
#: Fewer calibration samples than this are not divided: half of them would say too little.
_LEAST_SAMPLES = 64


@dataclass(frozen=True)
class Candidate:
    """One set of widths that was looked at.

    Attributes:
        settings: what it was built with.
        score: mean of simulations on the samples of the search.
        cost: of its circuit, where it was good enough to be compiled.
        checked: the lowest of its scores over what was wanted, of all that decide; where it was looked at.
    """

    settings: Settings
    score: float
    cost: Cost | None = None
    checked: float = -math.inf


@dataclass(frozen=True)
class Found:
    """The result of a search.

    Attributes:
        best: the cheapest candidate within tolerance.
        module: what it is.
        candidates: all that were looked at, in order.
        float_score: the float model's, on the same samples.
    """

    best: Candidate
    module: QuantizedModule
    candidates: tuple[Candidate, ...]
    float_score: float


def divided(count: int, seed: int) -> tuple[Array, Array]:
    """Indices of samples to search on, and of all to check on."""
    if count < _LEAST_SAMPLES:
        return np.arange(count), np.arange(count)
    order = np.random.default_rng(seed).permutation(count)
    half = count // 2
    searched, rest = order[:half][:_SCORED], order[half:][:_SCORED]
    return np.sort(searched), np.sort(np.concatenate([searched, rest]))


def search(
    session: Session,
    labels: Array | None,
    *,
    score: Score | None,
    tolerance: Any,
    base: Settings,
    compiled: Callable[[QuantizedModule], Cost],
    seed: int,
    progress: Progress,
) -> Found:
    """Find the cheapest candidate within tolerance.

    Args:
        session: the model with its calibration data.
        labels: of the calibration data, or None.
        score: (outputs, expected), higher is better; accuracy or R² by default.
        compiled: the cost of a module's circuit.

    Raises:
        CompilationError: no candidate is within tolerance; says how close the best one came.
    """
    count = len(next(iter(session.data.values())))
    allowed = checked_tolerance(tolerance, labels)
    parts = _whole(session, count, seed)
    searched, checked = (
        _Judge(
            session,
            _part(session.data, part),
            None if labels is None else labels[part],
            score,
            allowed,
        )
        for part in parts
    )
    checks = [checked]
    blends = _blends(session, seed) if score is None else None
    if blends is not None:
        loose = allowed if labels is None else _BLEND_FACTOR * allowed
        checks.append(_Judge(session, blends, None, None, loose))
    state = _State(_Builder(session, compiled, parts[0]), searched, checks, seed)
    with progress.stage("searching for the cheapest circuit") as advance:
        for kept in ROUNDINGS:
            narrowest = widened(base, rounding=kept, **_bits(WIDTHS[0], WIDTHS[0]))
            if state.best and state.builder.complexity(narrowest) >= _complexity(state.best):
                break
            first_row = len(state.rows)
            for settings in _grid(base, kept):
                state.consider(settings)
                advance(1)
            for settings in _tunable(state.rows[first_row:], searched.wanted):
                state.consider(replace(settings, tuning=_TRIAL_STEPS))
                advance(1)
            if state.best and not state.builder.rounds:
                break
        if state.best is None:
            raise _nothing(state.rows, searched)
        _refine(state, advance)
        module = _finished(session, state, state.best)
    return Found(state.best, module, tuple(state.rows), searched.goal)


def _tunable(rows: Sequence[Candidate], wanted: float) -> list[Settings]:
    """The best few of those that tuning may bring within tolerance, each of other widths."""
    found: dict[tuple[int, int], Settings] = {}
    for row in sorted(rows, key=lambda row: -row.score):
        if row.score >= wanted - _TUNABLE:
            found.setdefault((row.settings.op_inputs, row.settings.op_weights), row.settings)
    return list(found.values())[:_TRIED]


def _finished(session: Session, state: _State, best: Candidate) -> QuantizedModule:
    """The best candidate, tuned on all data if that brings it nearer to the float model."""
    found = session.build(best.settings, state.builder.samples)
    tuned = session.build(replace(best.settings, tuning=_STEPS))
    seed = state.seed + 200
    judge = state.checks[-1]
    nearer = judge.divergence(tuned, seed) < judge.divergence(found, seed)
    return tuned if nearer and state.checked(tuned) >= 0 else found


def _refine(state: _State, advance: Callable[[int], None]) -> None:
    """Go from the best candidate to its cheapest neighbour within tolerance, until there is none."""
    left = _REFINEMENTS
    improved = True
    while improved and left > 0:
        improved = False
        for settings in itertools.islice(_neighbours(state), left):
            left -= 1
            advance(1)
            improved = state.consider(settings) or improved


def _neighbours(state: _State) -> list[Settings]:
    """The best settings, tuned; with the weights of one op a bit narrower; or with one accumulator rounded to
    a bit less.

    Accumulators with most look-ups first, and each tuned, and also with ranges chosen the other way and with
    somewhat narrower and wider activations and weights: the score depends on them by chance, too.
    """
    if state.best is None:
        return []
    settings = state.best.settings
    found = [replace(settings, tuning=_TRIAL_STEPS)]
    for name in state.builder.weighted:
        bits = settings.nodes.get(name, settings.op_weights)
        if bits > WIDTHS[0]:
            found.append(replace(settings, nodes={**settings.nodes, name: bits - 1}))
    for name in state.builder.accumulators(settings):
        kept = settings.roundings.get(name, settings.kept_bits)
        if kept > ROUNDINGS[0]:
            fewer = replace(settings, roundings={**settings.roundings, name: kept - 1}, tuning=0)
            found += [replace(fewer, tuning=_TRIAL_STEPS), *_widened(fewer)]
    return found


def _widened(settings: Settings) -> list[Settings]:
    """The same with activations and weights at most a bit narrower or wider, and either range rule."""
    return [
        widened(settings, ranges=ranges, **_bits(activations, weights))
        for weights in WIDTHS
        if abs(weights - settings.op_weights) <= 1
        for activations in WIDTHS
        if abs(activations - settings.op_inputs) <= 1
        for ranges in RANGES
    ]


def _whole(session: Session, count: int, seed: int) -> tuple[Array, Array]:
    """The division, in whole batches where the model has a static batch size."""
    parts = divided(count, seed)
    batch = static_batch(session.graph) or 1
    a, b = (part[: len(part) // batch * batch] for part in parts)
    return (a, b) if len(a) and len(b) else (np.arange(count),) * 2


def _part(data: Mapping[str, Array], part: Array) -> dict[str, Array]:
    return {name: array[part] for name, array in data.items()}


def _blends(session: Session, seed: int) -> dict[str, Array] | None:
    """Samples with a share of another in each; None where inputs are no floats."""
    if any(array.dtype.kind != "f" for array in session.data.values()):
        return None
    count = len(next(iter(session.data.values())))
    batch = static_batch(session.graph) or 1
    size = max(min(count, _SCORED) // batch, 1) * batch
    return blended(session.data, np.arange(count), size, _BLENDED, np.random.default_rng(seed))


def _nothing(rows: list[Candidate], judge: _Judge) -> CompilationError:
    closest = max(rows, key=lambda row: row.score, default=None)
    return CompilationError(
        "no uniform widths keep the score within tolerance",
        expected=f"at least {judge.wanted:.4f} on held-out calibration data "
        f"(float: {judge.goal:.4f})",
        got=f"{closest.score:.4f} with {_spell(closest.settings)}" if closest else "nothing fits",
        fix="allow a larger tolerance, or give n_bits and rounding yourself",
    )


def _complexity(candidate: Candidate | None) -> float:
    return candidate.cost.complexity if candidate and candidate.cost else float("inf")


def _no_dearer(found: Candidate, best: Candidate | None) -> bool:
    if found.cost is None:
        return False
    return best is None or found.cost.complexity <= _complexity(best)


def _bits(activations: int, weights: int) -> dict[str, int]:
    return {
        "op_inputs": activations,
        "model_inputs": activations,
        "model_outputs": max(activations, 6),
        "op_weights": weights,
    }


def _grid(base: Settings, kept: int) -> Iterator[Settings]:
    for weights in WIDTHS:
        for activations in WIDTHS:
            for ranges in RANGES:
                yield widened(base, rounding=kept, ranges=ranges, **_bits(activations, weights))


def _spell(settings: Settings) -> str:
    return (
        f"{settings.op_inputs}-bit activations, {settings.op_weights}-bit weights, "
        f"accumulators rounded to {settings.rounding} bits"
    )


class _State:
    """What a search has seen.

    Attributes:
        best: the cheapest candidate within tolerance so far.
        rows: every candidate.
    """

    def __init__(
        self, builder: _Builder, searched: _Judge, checks: Sequence[_Judge], seed: int
    ) -> None:
        self.builder, self.searched, self.checks, self.seed = builder, searched, checks, seed
        self.best: Candidate | None = None
        self.rows: list[Candidate] = []
        self._seen: set[str] = set()

    def consider(self, settings: Settings) -> bool:
        """Build, score and price a candidate. Whether it is the new best."""
        key = repr(settings)
        if key in self._seen:
            return False
        self._seen.add(key)
        if settings.tuning and self.best is not None:
            # Tuning takes seconds and changes no cost: what is dearer is not worth it.
            plain = self.builder.complexity(replace(settings, tuning=0))
            if plain > _complexity(self.best):
                return False
        module = self.builder.module(settings)
        if module is None:
            return False
        found = Candidate(settings, self.searched.score(module, self.seed))
        better = False
        if self.searched.accepts(found.score):
            found = replace(found, cost=self.builder.cost(module))
            if _no_dearer(found, self.best):
                found = replace(found, checked=self.checked(module))
                better = found.checked >= 0 and (
                    _complexity(found) < _complexity(self.best)
                    or self.best is None
                    or found.checked > self.best.checked
                )
        self.rows.append(found)
        if better:
            self.best = found
        return better

    def checked(self, module: QuantizedModule) -> float:
        """By how much a module is better than it has to be, in the check where that is least."""
        return min(check.score(module, self.seed + 100) - check.wanted for check in self.checks)


class _Judge:
    """Scores modules on some data.

    Attributes:
        goal: the float model's score there.
        wanted: the least that is within tolerance.
    """

    def __init__(
        self,
        session: Session,
        data: Mapping[str, Array],
        labels: Array | None,
        score: Score | None,
        tolerance: float,
    ) -> None:
        self.data = data
        reference = _float_outputs(session, self.data)
        self._reference = first(reference)
        self.expected = labels if labels is not None else self._reference
        self._score = score or default_score(reference, labels)
        self.goal = float(self._score(reference, self.expected))
        self.wanted = self.goal - tolerance

    def accepts(self, score: float) -> bool:
        return score >= self.wanted

    def score(self, module: QuantizedModule, seed: int) -> float:
        """The mean over several simulations; of one alone where that is hopeless already."""
        scores = [self._once(module, seed)]
        if scores[0] >= self.wanted - _HOPELESS:
            scores += [self._once(module, seed + i) for i in range(1, _SEEDS)]
        return float(np.mean(scores))

    def divergence(self, module: QuantizedModule, seed: int) -> float:
        """How far a module's first output is from the float model's: the mean over several simulations."""
        runs = (first(self._outputs(module, seed + i)) for i in range(_SEEDS))
        return float(np.mean([divergence(run, self._reference) for run in runs]))

    def _once(self, module: QuantizedModule, seed: int) -> float:
        return float(self._score(self._outputs(module, seed), self.expected))

    def _outputs(self, module: QuantizedModule, seed: int) -> Any:
        arrays = [self.data[name] for name in module.input_names]
        return module.forward(*arrays, fhe="simulate", seed=seed)


def _float_outputs(session: Session, data: Mapping[str, Array]) -> Any:
    parts = [session.net(**feeds) for feeds in batches(session.graph, data)]
    if isinstance(parts[0], tuple):
        return tuple(np.concatenate(column) for column in zip(*parts, strict=True))
    return np.concatenate(parts)


class _Builder:
    """Builds candidates and prices them.

    Attributes:
        rounds: whether there are look-ups, so that roundings matter.
        samples: indices of those that candidates are tuned on.
    """

    def __init__(
        self, session: Session, compiled: Callable[[QuantizedModule], Cost], samples: Array
    ) -> None:
        self._session = session
        self.samples = samples
        self._compiled = compiled
        self.rounds = True

    def module(self, settings: Settings) -> QuantizedModule | None:
        """The candidate's module; None where accumulators would be too wide for any circuit."""
        try:
            built = self._session.build(settings, self.samples)
        except CompilationError as error:
            if not error.problem.startswith("an accumulator needs"):
                raise
            return None
        self.rounds = bool(built.program.lookups)
        return built

    @property
    def weighted(self) -> list[str]:
        """Names of the nodes that have weights with a scale for each channel."""
        placed = self._session.placement.ops
        return [entry.node.name for entry in placed if entry.op.weight_channels() is not None]

    def accumulators(self, settings: Settings) -> list[str]:
        """Names of the accumulators that a look-up reads rounded, those with most elements first."""
        module = self.module(settings)
        if module is None:
            return []
        sizes: dict[str, int] = {}
        for node in module.program.lookups:
            if node.inputs[0].op == "round":
                name = node.inputs[0].name
                sizes[name] = sizes.get(name, 0) + math.prod(n for n in node.shape if n != BATCH)
        return sorted(sizes, key=lambda name: (-sizes[name], name))

    def cost(self, module: QuantizedModule) -> Cost | None:
        """What Concrete says; None where it has no parameters."""
        try:
            return self._compiled(module)
        except CompilationError:
            return None

    def complexity(self, settings: Settings) -> float:
        module = self.module(settings)
        found = self.cost(module) if module else None
        return found.complexity if found else float("inf")
