"""ONNX's own node tests: for almost every operator, small calls with inputs and expected outputs.

They are the nearest thing to an executable specification. ONNX computes them while its modules are
imported, with warnings and with NumPy's global generator: here that happens once for a process,
silently, from a fixed seed, and leaves the generator as it was.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from fhe_core.registry.schema import newest_opset, normalize_domain


@dataclass(frozen=True, eq=False)
class NodeCase:
    """One node with its inputs (None: left out) and expected outputs (None: not asked for).

    Attributes:
        name: ONNX's, such as ``test_softmax_axis_0``.
        model: of this one node. All inputs of the node are inputs of the model.
        rtol, atol: the tolerance that ONNX states for it.
    """

    name: str
    model: onnx.ModelProto
    op_type: str
    domain: str
    opset: int
    attributes: Mapping[str, Any]
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    rtol: float
    atol: float

    @property
    def node(self) -> onnx.NodeProto:
        """The node itself."""
        return self.model.graph.node[0]

    @property
    def runnable(self) -> bool:
        """Whether every value is a tensor: models have no other inputs and outputs here."""
        values = [value for value in (*self.inputs, *self.outputs) if value is not None]
        return all(isinstance(value, np.ndarray) for value in values)


def cases_of(op_type: str, domain: str = "") -> tuple[NodeCase, ...]:
    """The runnable cases of an operator, by name."""
    if newest_opset(domain) is None:
        return ()  # an op that ONNX does not know: spare the seconds that its cases take
    return tuple(c for c in _by_op().get((normalize_domain(domain), op_type), ()) if c.runnable)


@functools.cache
def all_cases() -> tuple[NodeCase, ...]:
    """Every case of one node, by name; without those that expand an op into others."""
    found = [test for test in _collected() if "_expanded" not in test.name]
    single = [_node_case(test) for test in found if len(test.model.graph.node) == 1]
    return tuple(sorted(single, key=lambda case: case.name))


@functools.cache
def _by_op() -> Mapping[tuple[str, str], list[NodeCase]]:
    grouped: dict[tuple[str, str], list[NodeCase]] = {}
    for case in all_cases():
        grouped.setdefault((case.domain, case.op_type), []).append(case)
    return grouped


def _collected() -> list[Any]:
    state = np.random.get_state()  # noqa: NPY002 - ONNX draws from the global generator
    try:
        np.random.seed(0)  # noqa: NPY002
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            from onnx.backend.test.case.node import collect_testcases

            found: list[Any] = collect_testcases(None)
            return found
    finally:
        np.random.set_state(state)  # noqa: NPY002


def _node_case(test: Any) -> NodeCase:
    (node,) = test.model.graph.node
    opsets = {entry.domain: entry.version for entry in test.model.opset_import}
    ((inputs, outputs),) = test.data_sets
    return NodeCase(
        name=test.name,
        model=test.model,
        op_type=node.op_type,
        domain=normalize_domain(node.domain),
        opset=opsets[node.domain],
        attributes={attribute.name: _attribute(attribute) for attribute in node.attribute},
        inputs=_by_name(node.input, inputs),
        outputs=_by_name(node.output, outputs),
        rtol=test.rtol,
        atol=test.atol,
    )


def _by_name(names: Iterable[str], values: Iterable[Any]) -> tuple[Any, ...]:
    # ONNX lists values only for the names that are present ("" is a missing optional one).
    present = iter(values)
    return tuple(_value(next(present)) if name else None for name in names)


def _value(value: Any) -> Any:
    if isinstance(value, list):
        return [_value(one) for one in value]
    if value is None:
        return None
    array = numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value
    locked = np.asarray(array).view()
    locked.setflags(write=False)  # the next test reads the same array
    return locked


def _attribute(attribute: onnx.AttributeProto) -> Any:
    value = helper.get_attribute_value(attribute)
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, onnx.GraphProto | onnx.SparseTensorProto | onnx.TypeProto | int | float):
        return value
    return tuple(one.decode() if isinstance(one, bytes) else one for one in value)
