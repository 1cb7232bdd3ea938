"""Look-ups that use the padding bit, so that half a table does: planned with the accumulator, told here."""

from __future__ import annotations

from fhe_core.program.program import Program
from fhe_core.program.remarks import Remark, elements, place


def remarks(program: Program) -> list[Remark]:
    """What is said of the look-ups of a program that use it."""
    return [
        Remark(
            "negacyclic look-up",
            place(node),
            0,
            f"{elements(node)} look-ups use the padding bit: they are triangles, and take one bit less",
        )
        for node in program.lookups
        if node.attributes.get("antiperiodic")
    ]
