"""Rounding to the top bits of a width stays within them, or a bit is added for it."""

from __future__ import annotations

import pytest
from fhe_core.program.widths import _rounds_inside


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("width", "kept"), [(4, 4), (5, 3), (6, 2), (7, 6)])
def test_what_rounds_inside_a_width_is_what_no_value_rounds_out_of(
    width: int, kept: int, signed: bool
) -> None:
    """By trying each: half a step is added, and the lower bits go."""
    dropped = width - kept
    half = (1 << dropped) >> 1
    top = (1 << (kept - signed)) - 1
    low = -(1 << (width - 1)) if signed else 0
    for high in range(1, 1 << (width - signed)):
        inside = all((value + half) >> dropped <= top for value in range(max(low, 0), high + 1))
        assert _rounds_inside((low, high), width, kept) == inside
