"""The part of a graph that no input reaches, computed once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from fhe_core.errors import FheError, InputError, ModelError, ResourceError
from fhe_core.graph.budgets import MAX_FOLDED_ITERATIONS, check_bytes, iterations
from fhe_core.graph.schedule import Schedule
from fhe_core.graph.steps import Step
from fhe_core.graph.tensors import constant


def foldable(step: Step, constants: Mapping[str, Any]) -> bool:
    """Whether a step's outputs are constant, given what else is."""
    return step.deterministic and all(name in constants for name in step.node.reads)


def fold_constants(
    steps: Iterable[Step], constants: Mapping[str, Any]
) -> tuple[dict[str, Any], list[FheError]]:
    """Run every step that depends on constants alone.

    Args:
        steps: in an order in which they can run.
        constants: read-only arrays by name.

    Returns:
        All constants by name, the given ones first, and what went wrong: the outputs of steps that
        fail are not among the constants, nor are sequences and maps.

    Raises:
        ResourceError: there is not enough memory, which says nothing of the step.
    """
    folded = dict(constants)
    errors: list[FheError] = []
    total = 0
    for step in steps:
        if not foldable(step, folded):
            continue
        names = step.node.writes
        try:
            with iterations(MAX_FOLDED_ITERATIONS):
                values = Schedule([step], (), folded, names).run(())
        except ResourceError:
            raise
        except FheError as error:
            errors.append(_blame_model(error))
            continue
        if all(isinstance(value, np.ndarray) for value in values):
            # A view counts as what it stands for: whatever reads it next may make that of it.
            total += sum(value.nbytes for value in values)
            try:
                check_bytes(total, "it and the constants before it take", step.node.where())
            except ModelError as error:
                errors.append(error)
                break
            folded.update(zip(names, map(constant, values), strict=True))
    return folded, errors


def _blame_model(error: FheError) -> FheError:
    """The same error where no input had a part in it."""
    if not isinstance(error, InputError):
        return error
    blamed = ModelError(
        f"on constants, {error.problem}",
        where=error.where,
        expected=error.expected,
        got=error.got,
        fix="correct the model, or the implementation",
    )
    blamed.__cause__ = error.__cause__
    return blamed
