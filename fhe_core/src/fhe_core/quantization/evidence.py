"""What a module was made from, as far as its report looks back at it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from fhe_core.graph.ir import Graph
from fhe_core.graph.runner import NumpyModule
from fhe_core.quantization.recording import Recorded


@dataclass(frozen=True)
class Evidence:
    """A model, its data, and what became of it.

    Attributes:
        graph: the simplified model.
        net: the same, to run in float.
        data: the calibration data by input name.
        recorded: the integer program, before it had widths and tables.
    """

    graph: Graph
    net: NumpyModule
    data: Mapping[str, NDArray[Any]]
    recorded: Recorded
