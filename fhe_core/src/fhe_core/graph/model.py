"""An ONNX model as plain data: what the rest of the package imports."""

from fhe_core.graph.ir import Graph, Node, ValueInfo
from fhe_core.graph.loading import load_model
from fhe_core.graph.reading import read_graph

__all__ = ["Graph", "Node", "ValueInfo", "load_model", "read_graph"]
