"""The passes over a finished program, and the order in which they run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from fhe_core.program.program import Program
from fhe_core.program.savings.answers import known_answers
from fhe_core.program.savings.padding import padding_bits
from fhe_core.program.savings.products import unread_products
from fhe_core.program.savings.saving import Saving, lookups, place
from fhe_core.program.savings.silent import silent_neurons
from fhe_core.program.savings.twins import shared_elements, shared_nodes

Pass = Callable[[Program], tuple[Program, list[Saving]]]

#: Those whose programs compute the same for every input.
EXACT: tuple[Pass, ...] = (known_answers, shared_nodes, shared_elements, unread_products)
#: What a caller may ask for: all passes, those that are exact, or none.
CHOICES = ("all", "exact", "none")
#: One pass makes room for another; a few rounds were enough for every model that was seen.
_ROUNDS = 4


def saved(
    program: Program, samples: Mapping[str, NDArray[Any]] | None = None
) -> tuple[Program, tuple[Saving, ...]]:
    """The program with everything left out that need not be computed, and what that was.

    Args:
        program: complete, with widths and tables. It stays as it is.
        samples: integers of the calibration data by input, for what holds on them and perhaps not elsewhere;
            None for exact passes alone.
    """
    program, found = _exactly(program)
    if samples is not None:
        whole = program
        program, silent = silent_neurons(whole, samples)
        if silent:
            silent += _unreported(whole, program, silent)
            program, more = _exactly(program)
            # Exact by itself, what follows from an assumption is not.
            found += [*silent, *(replace(saving, exact=False) for saving in more)]
    return program, (*found, *padding_bits(program))


def _exactly(program: Program) -> tuple[Program, list[Saving]]:
    found: list[Saving] = []
    for _ in range(_ROUNDS):
        before = len(found)
        for each in EXACT:
            whole = program
            program, savings = each(whole)
            found += [*savings, *_unreported(whole, program, savings)]
        if len(found) == before:
            break
    return program, found


def _unreported(before: Program, after: Program, savings: list[Saving]) -> list[Saving]:
    """Look-ups that nothing reads any more since a pass left out others, and that went without a word."""
    count = lookups(before) - lookups(after) - sum(saving.lookups for saving in savings)
    if not count:
        return []
    left = Counter(place(node) for node in after.lookups)
    gone = Counter(place(node) for node in before.lookups) - left
    says = f"{count} look-ups are read by nothing any more"
    exact = all(saving.exact for saving in savings)
    return [Saving("unread elements", ", ".join(gone), count, says, exact)]
