"""Look-ups that use the padding bit, so that half a table does: planned with the accumulator, told here."""

from __future__ import annotations

from fhe_core.program.program import Program
from fhe_core.program.savings.saving import Saving, elements, place


def padding_bits(program: Program) -> list[Saving]:
    """What is said of the look-ups of a program that use it."""
    return [
        Saving(
            "padding bit",
            place(node),
            0,
            f"{elements(node)} look-ups use the padding bit: they are triangles, and take one bit less",
        )
        for node in program.lookups
        if node.attributes.get("antiperiodic")
    ]
