"""The ONNX model: loaded, read, checked, cleaned, and run in float.

Data flows through the files in this order: ``loading`` (a file to a checked ``ModelProto``; what
is wrong with it is found in ``validity`` and ``names``), ``reading`` (to the plain dataclasses of
``ir``, with ``tensors``, and ``functions`` replaced by their bodies, in which ``scopes`` tells what
a name means), ``steps`` (each node with what implements it), ``folding``, ``schedule`` (slots and
releases), ``runner``. ``passes`` and ``simplify`` stand beside, and ``support``, what ``check`` reports.
"""

from fhe_core.graph.model import Graph, Node, ValueInfo, load_model, read_graph
from fhe_core.graph.runner import NumpyModule
from fhe_core.graph.simplify import simplify
from fhe_core.graph.support import NodeSupport, Problem, SupportReport

__all__ = [
    "Graph",
    "Node",
    "NodeSupport",
    "NumpyModule",
    "Problem",
    "SupportReport",
    "ValueInfo",
    "load_model",
    "read_graph",
    "simplify",
]
