"""An op computes in every float type that ONNX allows it, and gives its result in that type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, defs

from fhe_core import NumpyModule

from .onnx_suite import SuiteCase, cases

#: Each type with its number in ONNX, and how much of the largest result a single one may be off.
TYPES = {
    "bfloat16": (TensorProto.BFLOAT16, ml_dtypes.bfloat16, 2**-6),
    "float16": (TensorProto.FLOAT16, np.float16, 2**-9),
    "double": (TensorProto.DOUBLE, np.float64, 2**-20),
}
# Bodies made of other ops add up in the narrow type itself.
BY_THEIR_BODIES = ("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")


def changed_inputs(case: SuiteCase, kind: str) -> tuple[set[str], set[str]]:
    """The float32 inputs that may be of this type, and the schema's names for their types."""
    (node,) = case.model.graph.node
    opset = next(entry.version for entry in case.model.opset_import if not entry.domain)
    schema = defs.get_schema(node.op_type, opset, "")
    allowed = {c.type_param_str for c in schema.type_constraints
               if f"tensor({kind})" in c.allowed_type_strs}  # fmt: skip
    floats = {info.name for info in case.model.graph.input
              if info.type.tensor_type.elem_type == TensorProto.FLOAT}  # fmt: skip
    names, types = set(), set()
    for i, name in enumerate(node.input):
        parameter = schema.inputs[min(i, len(schema.inputs) - 1)]
        if name in floats and parameter.type_str in allowed:
            names.add(name)
            types.add(parameter.type_str)
    return names, types


def usable(case: SuiteCase) -> bool:
    domain, name = case.op or ("", "")
    return (
        case.kind == "node"
        and not domain
        and not case.excluded
        and "_expanded" not in case.name
        and name not in ("BitCast", "Loop", *BY_THEIR_BODIES)  # fixed by an attribute or a subgraph
    )


OPS: dict[tuple[str, str], list[SuiteCase]] = {}
for _case in filter(usable, cases()):
    for _kind in TYPES:
        if changed_inputs(_case, _kind)[0]:
            OPS.setdefault((_case.op[1] if _case.op else "", _kind), []).append(_case)


@pytest.mark.parametrize(
    ("kind", "chosen"),
    [pytest.param(kind, chosen, id=f"{op}-{kind}") for (op, kind), chosen in OPS.items()],
)
def test_a_result_has_the_type_of_the_data(kind: str, chosen: Sequence[SuiteCase]) -> None:
    """Against the same node in single precision, on data that both types hold."""
    number, dtype, tolerance = TYPES[kind]
    for case in chosen:
        names, types = changed_inputs(case, kind)
        proto = onnx.ModelProto()
        proto.CopyFrom(case.model)
        for info in proto.graph.input:
            if info.name in names:
                info.type.tensor_type.elem_type = number
        for info in proto.graph.output:
            info.type.ClearField("value")
        ((inputs, _),) = case.data_sets()
        given, rounded = list(inputs), list(inputs)
        for i, info in enumerate(case.model.graph.input):
            if info.name in names:
                with np.errstate(over="ignore"):
                    given[i] = inputs[i].astype(dtype)
                rounded[i] = given[i].astype(np.float32)
        results = as_tuple(NumpyModule(proto)(*given))
        wide = as_tuple(NumpyModule(case.model)(*rounded))
        for got, expected, follows in zip(results, wide, follow(case, types), strict=True):
            assert got.dtype == dtype or not follows, case.name
            assert got.shape == expected.shape, case.name
            if follows:
                close(got, expected, tolerance)


def as_tuple(result: Any) -> tuple[Any, ...]:
    return result if isinstance(result, tuple) else (result,)


def follow(case: SuiteCase, types: set[str]) -> list[bool]:
    """For each output of the node whether its type is that of the changed inputs."""
    (node,) = case.model.graph.node
    opset = next(entry.version for entry in case.model.opset_import if not entry.domain)
    outputs = defs.get_schema(node.op_type, opset, "").outputs
    return [
        outputs[min(i, len(outputs) - 1)].type_str in types
        for i, name in enumerate(node.output)
        if name
    ]


def close(got: Any, expected: Any, tolerance: float) -> None:
    one, other = got.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(one) & np.isfinite(other)
    largest = np.max(np.abs(other[finite]), initial=1e-6)
    np.testing.assert_allclose(one[finite] / largest, other[finite] / largest, atol=tolerance)
