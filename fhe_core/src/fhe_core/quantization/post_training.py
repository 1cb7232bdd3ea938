"""Post-training quantization: from a float model and data to a ``QuantizedModule``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fhe_core.arguments import one_of
from fhe_core.errors import PlanError
from fhe_core.graph.budgets import byte_limit
from fhe_core.memory import within_memory
from fhe_core.progress import Progress, progress_of
from fhe_core.quantization.agreement import disagreements
from fhe_core.quantization.module import QuantizedModule
from fhe_core.quantization.plan import Plan
from fhe_core.quantization.plan_schema import check_p_error, plan_decides
from fhe_core.quantization.planning import Settings
from fhe_core.quantization.session import Session


@within_memory
@plan_decides
def quantize(
    model: Any,
    calibration: Any,
    *,
    n_bits: Any = 6,
    rounding: Any = None,
    plan: Any = None,
    encrypted: Iterable[str] | None = None,
    client_side: str = "any",
    overflow: str = "calibrated",
    overflow_risk: float = 1e-4,
    rounding_method: str = "approximate",
    ranges: str = "mse",
    weight_scheme: str = "symmetric",
    weight_granularity: str = "per-channel",
    savings: str = "exact",
    p_error: float = 2.0**-40,
    seed: int = 0,
    registry: Any = None,
    max_bytes: int | None = None,
    progress: bool | Progress | None = None,
) -> QuantizedModule:
    """Quantize a model, without compiling it: needs no FHE backend.

    Args:
        model: path, bytes or ``onnx.ModelProto``.
        calibration: an array, a tuple of arrays, or a dict by input name; some hundred samples.
        n_bits: an int (2 to 16), or a dict of ``op_inputs``, ``op_weights``, ``model_inputs``,
            ``model_outputs`` and node names.
        rounding: bits kept of each accumulator before a look-up: an int, a dict by node name, or None
            for one more than ``op_inputs``.
        plan: a ``Plan``, its JSON file or its dict, to use as it is. What it decides cannot be given too.
        encrypted: names of the encrypted inputs; all by default.
        client_side: ``any``: what only shapes inputs or outputs runs on the client. ``minimal``: all that
            can be stays on the server.
        overflow: ``calibrated``: accumulators keep headroom over the data. ``guaranteed``: they are wide
            enough for any input.
        overflow_risk: the share of answers in which an accumulator may wrap on data like the calibration
            data, between 0 and 1. Its headroom follows from that and from the number of samples.
        rounding_method: ``approximate`` or ``exact``.
        ranges: of activations: ``minmax``, ``percentile`` or ``mse``.
        weight_scheme: ``symmetric`` or ``affine``.
        weight_granularity: ``per-channel`` or ``per-tensor``.
        savings: ``exact``: look-ups that do nothing for any input are left out. ``all``: those too that do
            nothing on the calibration data. ``none``.
        p_error: probability that one look-up is wrong.
        seed: of every random choice.
        registry: where ops come from; the installed packs by default.
        max_bytes: what a tensor, for one sample, and all constants together may take; 8 GiB by default.

    Raises:
        ModelError, UnsupportedOpError, CalibrationError, PlanError, CompilationError: see each.
        PackError: a pack's graph pass changes what the model computes, or one of its hooks fails.
    """
    given = None if plan is None else Plan.of(plan)
    settings = Settings.of(
        n_bits,
        rounding,
        exact=exactness(rounding_method),
        overflow=overflow,
        overflow_risk=overflow_risk,
        ranges=ranges,
        weight_scheme=weight_scheme,
        weight_granularity=weight_granularity,
        savings=savings,
        p_error=check_p_error(p_error),
    )
    with byte_limit(max_bytes):
        session = Session(
            model,
            calibration,
            encrypted=encrypted,
            client_side=client_side,
            seed=seed,
            registry=registry,
            progress=progress_of(progress),
        )
        module = session.build(settings) if given is None else session.rebuild(given)
        module.notices += disagreements(module)
    return module


def exactness(method: str) -> bool:
    """Whether a rounding method is the exact one.

    Raises:
        PlanError: there is no such method.
    """
    return one_of(method, "rounding_method", ("approximate", "exact"), PlanError) == "exact"
