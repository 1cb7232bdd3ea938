"""Accumulators that fill the period of a triangle: which ones may."""

from __future__ import annotations

import numpy as np
import pytest
from fhe_core.program.antiperiodic import Triangle
from fhe_core.program.nodes import BATCH, Node
from fhe_core.quantization.periods import Period


@pytest.mark.parametrize(("tip", "may"), [(0.0, True), (3.0, True), (-4.0, False), (19.0, False)])
def test_a_triangle_whose_tip_its_quantizer_cuts_off_fills_no_period(tip: float, may: bool) -> None:
    """|x| of what stays far from 0: its levels begin where the data do, and below that all is one level."""
    root = Node("input", (), (BATCH, 1), -128, 127, name="x")
    looked_up = Node("lookup", (root,), (BATCH, 1), 0, 15, {"root": root})
    slope = 0.05 if tip < 15 else -0.05
    triangle = Triangle(np.zeros((1, 1)), np.full((1, 1), slope), np.full((1, 1), tip))
    assert (Period.of(looked_up, triangle, 1) is not None) == may
