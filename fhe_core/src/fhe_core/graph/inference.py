"""Types of a node's outputs from those of its inputs: by onnx, or by trying the implementation out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import defs, helper, numpy_helper, shape_inference

from fhe_core.errors import FheError, ResourceError
from fhe_core.graph.budgets import MAX_FOLDED_ITERATIONS, iterations
from fhe_core.graph.ir import Graph, Node
from fhe_core.graph.schedule import Schedule
from fhe_core.graph.steps import Step
from fhe_core.graph.tensors import DTYPES

#: onnx is given constants of up to this many elements: shapes, axes, pads.
_TOLD = 2**10
#: Implementations are tried on inputs of up to this many elements together.
_TRIED = 2**20

#: NumPy has no arrays of more elements, whatever memory they take.
_MOST = 2.0**59


class TensorType(NamedTuple):
    """The type of a tensor whose dimensions are all numbers."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def blank(self) -> np.ndarray:
        """Zeros of this type, in the memory of one."""
        return np.broadcast_to(np.zeros((), self.dtype), self.shape)


def run_step(step: Step, values: Mapping[str, Any]) -> dict[str, np.ndarray] | None:
    """The arrays that a step makes of the values that it reads; None where it fails, or makes no arrays."""
    names = step.node.writes
    try:
        with iterations(MAX_FOLDED_ITERATIONS):
            results = Schedule([step], (), values, names).run(())
    except ResourceError:
        raise
    except FheError:
        return None
    if not all(isinstance(result, np.ndarray) for result in results):
        return None
    return dict(zip(names, results, strict=True))


def output_types(
    step: Step, types: Mapping[str, TensorType], values: Mapping[str, np.ndarray]
) -> Mapping[str, TensorType]:
    """The types of a step's outputs; nothing where one of them depends on data, or cannot be told.

    Args:
        types: of everything that it reads, by name.
        values: of those that are constant.
    """
    try:
        inferred = _by_onnx(step.node, types, values)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001  # no schema, no inference, or one that doesn't take this
        inferred = None
    return _by_trial(step, types, values) if inferred is None else inferred


def _by_onnx(
    node: Node, types: Mapping[str, TensorType], values: Mapping[str, np.ndarray]
) -> Mapping[str, TensorType] | None:
    """None where onnx knows no type, nothing where it leaves a dimension open."""
    if any(isinstance(value, Graph) for value in node.attributes.values()):
        return None
    schema = defs.get_schema(node.op_type, node.opset, node.domain)
    proto = onnx.NodeProto(
        op_type=node.op_type, domain=node.domain, input=node.inputs, output=node.outputs
    )
    for name, value in node.attributes.items():
        given = numpy_helper.from_array(value) if isinstance(value, np.ndarray) else value
        wanted = schema.attributes[name].type.value
        proto.attribute.append(helper.make_attribute(name, given, attr_type=wanted))
    found = shape_inference.infer_node_outputs(
        schema,
        proto,
        {name: _proto(types[name]) for name in node.reads},
        {
            name: numpy_helper.from_array(np.ascontiguousarray(values[name]))
            for name in node.reads
            if name in values and values[name].size <= _TOLD
        },
        opset_imports=[helper.make_opsetid(node.domain, node.opset)],
    )
    result = {}
    for name in node.writes:
        tensor = found[name].tensor_type
        if not tensor.HasField("shape"):
            return None
        if not all(dim.HasField("dim_value") for dim in tensor.shape.dim):
            return {}
        shape = tuple(dim.dim_value for dim in tensor.shape.dim)
        if np.prod(shape, dtype=float) > _MOST:
            return {}
        result[name] = TensorType(DTYPES[tensor.elem_type], shape)
    return result


def _proto(known: TensorType) -> Any:
    return helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(known.dtype), known.shape)


def _by_trial(
    step: Step, types: Mapping[str, TensorType], values: Mapping[str, np.ndarray]
) -> Mapping[str, TensorType]:
    """By running it on zeros and on made-up numbers: shapes that differ depend on data."""
    unknown = {name: types[name] for name in step.node.reads if name not in values}
    if sum(int(np.prod(each.shape)) for each in unknown.values()) > _TRIED:
        return {}
    rng = np.random.default_rng(0)
    made_up = {
        name: (4 * rng.standard_normal(each.shape)).astype(each.dtype)
        for name, each in unknown.items()
    }
    zeros = {name: each.blank() for name, each in unknown.items()}
    fixed = {name: values[name] for name in step.node.reads if name in values}
    results = [run_step(step, {**fixed, **drawn}) for drawn in (zeros, made_up)]
    first, second = (_types(result) for result in results)
    return first if first == second else {}


def _types(arrays: Mapping[str, np.ndarray] | None) -> Mapping[str, TensorType]:
    return {name: TensorType(a.dtype, a.shape) for name, a in (arrays or {}).items()}


def known_types(names: Sequence[str], values: Mapping[str, np.ndarray]) -> dict[str, TensorType]:
    """The types of those values that are there."""
    return {n: TensorType(values[n].dtype, values[n].shape) for n in names if n in values}
