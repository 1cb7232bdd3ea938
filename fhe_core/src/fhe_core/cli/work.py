"""``fhe-ops compile`` and ``fhe-ops run``."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

import fhe_core
from fhe_core.cli import text
from fhe_core.cli.arrays import Array, positional, read_arrays, read_one, write_arrays
from fhe_core.cli.outputs import check_file, check_folder, folder_beside
from fhe_core.cli.report import check_picture, draw_front
from fhe_core.errors import CalibrationError, InputError
from fhe_core.progress import duration

if TYPE_CHECKING:
    from fhe_core.quantization.module import QuantizedModule


def compile_model(
    model: Path,
    calibration: str,
    output: Path,
    *,
    labels: str | None,
    plan: Path | None,
    pareto: Path | None,
    force: bool,
    settings: Mapping[str, Any],
) -> None:
    """Compiles a model, saves it, and prints what it will cost to run.

    Cheap checks come first: the work takes minutes.

    Args:
        settings: arguments of `fhe_core.compile`; those that are None are left to it.
    """
    check_folder(output, force=force)
    if pareto is not None:
        check_picture(pareto, {**settings, "plan": plan})
    given: dict[str, Any] = {key: value for key, value in settings.items() if value is not None}
    if plan is not None:
        given["plan"] = fhe_core.Plan.of(plan)
    if labels is not None:
        given["labels"] = read_one(labels, CalibrationError, "the file of labels")
    data = read_arrays(calibration, CalibrationError, "the calibration data")
    arrays = positional(data)
    start = time.monotonic()
    qm = fhe_core.compile(
        model,
        data if arrays is None else arrays[0] if len(arrays) == 1 else arrays,
        progress=True,
        **given,
    )
    took = time.monotonic() - start
    with folder_beside(output) as folder:
        qm.save(folder)
    click.echo(f"Compiled in {duration(took)}, saved to {output}")
    for label, value in _summary(qm):
        click.echo(f"  {label:<24}{value}")
    if pareto is not None:
        draw_front(pareto, qm.report, model.stem)
        click.echo(f"Drew the search to {pareto}")


def run_model(
    folder: Path, given: str, output: Path, *, fhe: str, settings: Mapping[str, Any]
) -> None:
    """Runs a saved model on a batch and writes its outputs by name."""
    check_file(output)
    data = read_arrays(given, InputError, "the input")
    qm = fhe_core.load(folder)
    inputs = _in_order(data, qm.input_names)
    start = time.monotonic()
    result = qm.forward(*inputs, fhe=fhe, progress=True, **settings)
    took = time.monotonic() - start
    results = result if isinstance(result, tuple) else (result,)
    outputs = dict(zip(qm.output_names, map(np.asarray, results), strict=True))
    write_arrays(output, outputs)
    samples = len(inputs[0])
    each = f", {duration(took / samples)} each" if samples > 1 and took / samples >= 0.1 else ""
    click.echo(f"Ran {text.count(samples, 'sample')} in {duration(took)}{each} ({fhe})")
    for name, array in outputs.items():
        click.echo(f"  {name}: {' x '.join(map(str, array.shape))}, {array.dtype}")
    click.echo(f"Saved to {output}")


def _in_order(arrays: Mapping[str, Array], names: Sequence[str]) -> list[Array]:
    """The arrays in the order of the model's inputs, by their names if these say anything."""
    if set(arrays) == set(names):
        return [arrays[name] for name in names]
    unnamed = positional(arrays)
    if unnamed is not None and len(unnamed) == len(names):
        return list(unnamed)
    raise InputError(
        "the arrays in the input file are not the model's inputs",
        expected=", ".join(map(repr, names)),
        got=", ".join(map(repr, arrays)) if any(arrays) else "one array without a name",
        fix="save them with numpy.savez(file, name=array, ...), by the names of the inputs",
    )


def _summary(qm: QuantizedModule) -> list[tuple[str, str]]:
    cost, plan = qm.cost, qm.plan
    lines = [
        ("complexity", f"{_millions(cost.complexity)} (Concrete's measure)"),
        ("table look-ups", f"{cost.pbs_count:,}"),
        ("widest value", text.count(cost.max_bit_width, "bit")),
        ("error, a look-up", f"{cost.p_error:.2g}"),
        ("error, an inference", f"{cost.global_p_error:.2g}"),
    ]
    widths = {
        "tensors": [tensor.bits for tensor in plan.tensors.values()],
        "weights": [weight.bits for weight in plan.weights.values()],
        "accumulators": [a.bits for a in plan.accumulators.values() if a.bits],
        "rounded to": [a.rounding for a in plan.accumulators.values() if a.rounding],
    }
    return lines + [(label, _range(bits)) for label, bits in widths.items() if bits]


def _millions(complexity: float) -> str:
    number = complexity / 1e6
    return f"{number:,.0f} M" if number >= 10 else f"{number:.2g} M"


def _range(bits: Sequence[int]) -> str:
    least, most = min(bits), max(bits)
    return text.count(least, "bit") if least == most else f"{least} to {most} bits"
