"""Tensors and their types: from protobuf to NumPy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from fhe_core.errors import ModelError, Where
from fhe_core.graph.budgets import check_bytes
from fhe_core.graph.ir import ValueInfo

# Strings become arrays of objects; nothing in ONNX computes on complex numbers as such.
_NO_NUMBERS = {
    TensorProto.UNDEFINED,
    TensorProto.STRING,
    TensorProto.COMPLEX64,
    TensorProto.COMPLEX128,
}

#: The type of a tensor's elements by ONNX's number for it. The narrow ones (bfloat16, the 8-, 6-
#: and 4-bit floats, the 4- and 2-bit integers) are those of ml_dtypes, which onnx depends on.
DTYPES: Mapping[int, np.dtype] = {
    number: helper.tensor_dtype_to_np_dtype(number)
    for number in TensorProto.DataType.values()
    if number not in _NO_NUMBERS
}
_NARROW = frozenset(dtype for dtype in DTYPES.values() if dtype.kind == "V")


def kind(dtype: np.dtype) -> str:
    """NumPy's letter for a kind of number, the types of ml_dtypes included, which call themselves
    void: ``f``, ``i``, ``u``, ``b``..."""
    if dtype not in _NARROW:
        return dtype.kind
    return next(
        (k for name, k in (("int", "i"), ("uint", "u")) if dtype.name.startswith(name)), "f"
    )


def largest(dtype: np.dtype) -> float:
    """The largest finite value of a type of floats; infinite for those that hold infinity."""
    if dtype not in _NARROW:
        return np.inf
    import ml_dtypes

    return float(ml_dtypes.finfo(dtype).max)


def value_info(proto: Any) -> ValueInfo:
    """The declared type of a graph input or output.

    Raises:
        ModelError: its elements are of a type that nothing here computes with.
    """
    # A sequence or map; or, in a subgraph, a type that is left to inference.
    if proto.type.WhichOneof("value") != "tensor_type":
        return ValueInfo(proto.name, None, None)
    tensor = proto.type.tensor_type
    shape = tuple(_dimension(dim, i) for i, dim in enumerate(tensor.shape.dim))
    return ValueInfo(
        proto.name,
        _dtype(tensor.elem_type, f"graph input or output {proto.name!r}"),
        shape if tensor.HasField("shape") else None,
    )


def _dimension(dim: Any, position: int) -> int | str | None:
    if dim.HasField("dim_param"):
        return dim.dim_param or None
    # skl2onnx has written 0, and others -1, for a batch of any size.
    if not dim.HasField("dim_value") or dim.dim_value < (1 if position == 0 else 0):
        return None
    return int(dim.dim_value)


def _dtype(elem_type: int, what: str, where: Where | None = None) -> np.dtype | None:
    if elem_type in (TensorProto.STRING, TensorProto.UNDEFINED):
        return None
    try:
        return DTYPES[elem_type]
    except KeyError:
        names = {number: name.lower() for name, number in TensorProto.DataType.items()}
        raise ModelError(
            f"{what} has the element type {names.get(elem_type, elem_type)}",
            where=where,
            expected="a float, an integer, bool or string",
            fix="convert the model to float32",
        ) from None


def array(proto: Any, what: str, where: Where | None = None) -> np.ndarray:
    """A TensorProto's content, read-only.

    Raises:
        ModelError: an element type that nothing here computes with, or data that does not fit the
            shape.
    """
    _dtype(proto.data_type, what, where)
    try:
        return constant(numpy_helper.to_array(proto))
    except Exception as error:
        raise _unreadable(what, where, error) from error


def dense(proto: Any, what: str, where: Where | None = None) -> np.ndarray:
    """A SparseTensorProto's content with its zeros, read-only.

    Raises:
        ModelError: as for `array`, or indices outside the shape.
    """
    values, indices = array(proto.values, what, where), array(proto.indices, what, where)
    check_bytes(math.prod(proto.dims) * values.itemsize, f"{what} takes", where)
    try:
        result = np.zeros(tuple(proto.dims), values.dtype)
        if indices.ndim == 1:
            result.reshape(-1)[indices] = values
        else:
            result[tuple(indices.T)] = values
    except Exception as error:  # indices beyond the shape, or a shape beyond all memory
        raise _unreadable(what, where, error) from error
    return constant(result)


def constant(values: np.ndarray) -> np.ndarray:
    """A read-only view, which the runner's outputs rely on (see ``schedule``)."""
    view = values.view()
    view.setflags(write=False)
    return view


def _unreadable(what: str, where: Where | None, error: Exception) -> ModelError:
    return ModelError(f"{what} cannot be read: {error}", where=where, fix="export the model again")
