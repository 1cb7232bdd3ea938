"""Graphs, for passes over them: beside `fhe_core.Graph` and `fhe_core.Node`, what packs' passes share.

ValueInfo        name, type and shape of a model's input or output
drop_dead_nodes  a graph without nodes and constants that no output depends on
is_trained       some op fixes how its output is quantized: the weights were trained for that
kind             NumPy's letter for a kind of number, the narrow types of ml_dtypes included
feature_ranges   the ends of each feature of some tensors, on calibration data
feature_factors  powers of two that bring features in units far apart to one scale
"""

from __future__ import annotations

from fhe_core.graph.equalization import feature_factors, feature_ranges
from fhe_core.graph.ir import ValueInfo
from fhe_core.graph.simplify import drop_dead_nodes
from fhe_core.graph.tensors import kind
from fhe_core.quantization.placement import is_trained

__all__ = [
    "ValueInfo",
    "drop_dead_nodes",
    "feature_factors",
    "feature_ranges",
    "is_trained",
    "kind",
]
