"""``fhe_core.compile``: from an ONNX model and data to encrypted inference."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fhe_core.compiler.concrete_backend import compile_program, concrete
from fhe_core.compiler.judging import session_criteria
from fhe_core.compiler.labelling import checked_labels
from fhe_core.compiler.scoring import Score, checked_tolerance
from fhe_core.compiler.search import search
from fhe_core.errors import CompilationError, PlanError
from fhe_core.graph.budgets import byte_limit
from fhe_core.memory import within_memory
from fhe_core.progress import Progress, progress_of
from fhe_core.quantization.module import Cost, QuantizedModule
from fhe_core.quantization.plan import Plan
from fhe_core.quantization.plan_schema import check_p_error, plan_decides
from fhe_core.quantization.planning import Settings
from fhe_core.quantization.post_training import exactness
from fhe_core.quantization.session import Session


@within_memory
@plan_decides
def compile(
    model: Any,
    calibration: Any,
    *,
    n_bits: Any = "auto",
    rounding: Any = None,
    plan: Any = None,
    labels: Any = None,
    score: Score | None = None,
    tolerance: float | None = None,
    p_error: float = 2.0**-40,
    encrypted: Iterable[str] | None = None,
    client_side: str = "any",
    overflow: str = "calibrated",
    overflow_risk: float = 1e-4,
    rounding_method: str = "approximate",
    ranges: str = "mse",
    weight_scheme: str = "symmetric",
    weight_granularity: str = "per-channel",
    savings: str = "exact",
    seed: int = 0,
    registry: Any = None,
    max_bytes: int | None = None,
    progress: bool | Progress | None = None,
) -> QuantizedModule:
    """Compile a model to an encrypted circuit.

    Args:
        model: path, bytes or ``onnx.ModelProto``.
        calibration: an array, a tuple of arrays, or a dict by input name; some hundred samples.
        n_bits: ``"auto"``: the cheapest circuit within tolerance; an int (2 to 16); or a dict of
            ``op_inputs``, ``op_weights``, ``model_inputs``, ``model_outputs`` and node names.
        rounding: bits kept of each accumulator before a look-up: an int, a dict by node name, or None
            for the search's or the plan's choice.
        plan: a ``Plan``, its JSON file or its dict, to compile as it is: without a search. What it decides
            cannot be given too.
        labels: what outputs should be on the calibration data, for a search: an array, or a dict by output
            name. Classes (by number, by the model's own names, or one-hot), yes or no, or numbers.
        score: ``score(outputs, expected)`` of all outputs, higher is better. By default accuracy of each output
            that is a classification, and R² of the others; all have to be within tolerance.
        tolerance: how much of the float model's score a search may lose; 0.005 by labels, else 0.02.
        p_error: probability that one look-up is wrong.
        encrypted: names of the encrypted inputs; all by default.
        client_side: ``any``: what only shapes inputs or outputs runs on the client. ``minimal``: all that
            can be stays on the server.
        overflow: ``calibrated``: accumulators keep headroom over the data. ``guaranteed``: they are wide
            enough for any input.
        overflow_risk: the share of answers in which an accumulator may wrap on data like the calibration
            data, between 0 and 1. Its headroom follows from that and from the number of samples.
        rounding_method: ``approximate``, or ``exact`` (one more look-up for each bit dropped).
        ranges: of activations, unless searched: ``minmax``, ``percentile`` or ``mse``.
        weight_scheme: ``symmetric`` or ``affine``.
        weight_granularity: ``per-channel`` or ``per-tensor``.
        savings: which look-ups may be left out. ``exact``: those that do nothing for any input. ``all``:
            also those that do nothing on the calibration data, and with ``n_bits="auto"`` whole channels
            and activations, as long as the score allows it: what remains is another, smaller network.
            ``none``: none, and no other form of the model.
        seed: of every random choice.
        registry: where ops come from; the installed packs by default.
        max_bytes: what a tensor, for one sample, and all constants together may take; 8 GiB by default.
        progress: True for progress bars on a terminal.

    Raises:
        ModelError, UnsupportedOpError: the model is broken, or an op has no (quantized) implementation.
        PackError: a pack's graph pass changes what the model computes, or one of its hooks fails.
        CalibrationError, PlanError: the data, the widths or the plan cannot be used; labels that no answer of
            the model can equal.
        CompilationError: concrete-python is missing, nothing is within tolerance, or no parameters fit.
    """
    shown = progress_of(progress)
    auto = plan is None and isinstance(n_bits, str)
    if auto and n_bits != "auto":
        raise PlanError(
            f"n_bits cannot be {n_bits!r}",
            expected="'auto', an integer or a dict",
            got=repr(n_bits),
            fix="use n_bits='auto'",
        )
    options: dict[str, Any] = {
        "exact": exactness(rounding_method),
        "overflow": overflow,
        "overflow_risk": overflow_risk,
        "weight_scheme": weight_scheme,
        "weight_granularity": weight_granularity,
        "savings": savings,
        "p_error": check_p_error(p_error),
    }
    base = Settings.of(
        6 if auto or plan is not None else n_bits, rounding, ranges=ranges, **options
    )
    given = None if plan is None else Plan.of(plan)
    allowed = checked_tolerance(tolerance)
    with byte_limit(max_bytes):
        session = Session(
            model,
            calibration,
            encrypted=encrypted,
            client_side=client_side,
            seed=seed,
            registry=registry,
            progress=shown,
        )
    # Before any long work: without the compiler there is nothing to search for.
    concrete()
    if given is not None:
        module = session.rebuild(given)
    elif auto:
        known = checked_labels(labels, session.count, session.graph.output_labels)
        settled = _settled(session, base)
        if settled is not None:
            if score is None:
                session_criteria(session, known, allowed)
            module = settled
        else:
            found = search(
                session,
                known,
                score=score,
                tolerance=allowed,
                base=base,
                compiled=_cost,
                seed=seed,
                progress=shown,
            )
            module = found.module
            module.search = found.candidates
            module.outcome = found.verdict.outcome
    else:
        module = session.build(base)
    with shown.stage("compiling the circuit"):
        module.circuit = compile_program(module.program, module.p_error)
    return module


def _settled(session: Session, base: Settings) -> QuantizedModule | None:
    """The model's one circuit, where its operators leave nothing to choose: all of it is exact."""
    if session.client_side == "minimal":
        return None
    try:
        module = session.build(base)
    except CompilationError:
        return None  # Of these widths: a search may find others.
    return None if module.plan.leaves_a_choice else module


def _cost(module: QuantizedModule) -> Cost:
    return compile_program(module.program, module.p_error).cost
