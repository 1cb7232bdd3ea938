"""Valid models that mean something absurd: attributes, shapes and constants beyond all bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, helper, numpy_helper

from tests.fuzz.models import bases, drawn, drive, mutable, nodes_of, sent

SHARE = 4

_INTS = (0, 1, -1, 2, 3, 5, -2, 255, 2**31 - 1, -(2**31), 2**31, 10**9, 2**40, 2**62, -(2**63))
_FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e9, -1e9, 1e38, -1e38, 1e-40, np.nan, np.inf, -np.inf)
_TEXTS = ("", "linear", "SAME_UPPER", "VALID", "wrap", "LOGISTIC", "é", "x" * 200, "constant")


def prepare() -> None:
    """What is loaded once, before processes part."""
    bases()


def case(rng: np.random.Generator, folder: Path) -> None:
    """A model with one to three absurd values."""
    model = mutable(drawn(rng))
    for _ in range(rng.integers(1, 4)):
        _changes[rng.integers(len(_changes))](model, rng)
    drive(sent(model, folder, rng), rng)


def _attribute(model: Any, rng: np.random.Generator) -> None:
    """An attribute of another value, or one that was left at its default."""
    nodes = list(nodes_of(model.graph))
    if not nodes:
        return
    node = nodes[rng.integers(len(nodes))]
    known = {attribute.name: attribute.type for attribute in node.attribute}
    try:
        schema = onnx.defs.get_schema(node.op_type, domain=node.domain)
        known |= {name: attribute.type.value for name, attribute in schema.attributes.items()}
    except Exception:  # noqa: BLE001 - an operator of nobody
        pass
    if not known:
        return
    name = sorted(known)[rng.integers(len(known))]
    value = _value(known[name], rng)
    if value is None:
        return
    kept = [_copied(attribute) for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value, attr_type=known[name])])


def _value(kind: int, rng: np.random.Generator) -> Any:
    def several(choices: Any) -> list[Any]:
        return [choices[i] for i in rng.integers(len(choices), size=rng.integers(0, 5))]

    if kind == AttributeProto.INT:
        return _INTS[rng.integers(len(_INTS))]
    if kind == AttributeProto.FLOAT:
        return float(_FLOATS[rng.integers(len(_FLOATS))])
    if kind == AttributeProto.STRING:
        return _TEXTS[rng.integers(len(_TEXTS))]
    if kind == AttributeProto.INTS:
        return several(_INTS)
    if kind == AttributeProto.FLOATS:
        return [float(value) for value in several(_FLOATS)]
    if kind == AttributeProto.STRINGS:
        return several(_TEXTS)
    if kind == AttributeProto.TENSOR:
        return numpy_helper.from_array(_array(rng), "t")
    return None


def _array(rng: np.random.Generator, like: np.ndarray | None = None) -> np.ndarray:
    """A constant of absurd values."""
    if like is None or rng.random() < 0.2:
        rank = int(rng.integers(0, 4))
        dtypes = (np.float32, np.int64, np.int32, np.bool_, np.float64, np.uint8, np.float16)
        like = np.zeros(rng.integers(0, 4, size=rank), dtypes[rng.integers(len(dtypes))])
    choices = _FLOATS if like.dtype.kind == "f" else _INTS
    flat = like.copy().reshape(-1)
    with np.errstate(all="ignore"):
        for place in rng.integers(max(flat.size, 1), size=rng.integers(1, 4)):
            if place < flat.size and flat.dtype.kind in "fiub":
                value = choices[rng.integers(len(choices))]
                flat[place] = np.array([value]).astype(flat.dtype)[0]
    return flat.reshape(like.shape)


def _constant(model: Any, rng: np.random.Generator) -> None:
    """A constant of other values; an input may become one."""
    graph = model.graph
    if graph.input and rng.random() < 0.6:
        place = int(rng.integers(len(graph.input)))
        info = graph.input[place]
        tensor = info.type.tensor_type
        try:
            dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        except KeyError:
            return
        shape = [dim.dim_value if 0 <= dim.dim_value < 50 else 2 for dim in tensor.shape.dim]
        if dtype.kind not in "fiub" or np.prod(shape, dtype=float) > 1e5:
            return
        like = np.ones([dim or 1 for dim in shape], dtype)
        graph.initializer.append(numpy_helper.from_array(_array(rng, like), info.name))
        del graph.input[place]
    elif graph.initializer:
        tensor = graph.initializer[rng.integers(len(graph.initializer))]
        try:
            values = numpy_helper.to_array(tensor)
        except Exception:  # noqa: BLE001 - a type that NumPy lacks
            return
        if values.dtype.kind in "fiub":
            tensor.CopyFrom(numpy_helper.from_array(_array(rng, values), tensor.name))


def _shape(model: Any, rng: np.random.Generator) -> None:
    """A declared dimension of another size, or a rank of another number."""
    if not model.graph.input:
        return
    info = model.graph.input[rng.integers(len(model.graph.input))]
    shape = info.type.tensor_type.shape
    if shape.dim and rng.random() < 0.8:
        dim = shape.dim[rng.integers(len(shape.dim))]
        if rng.random() < 0.3:
            dim.dim_param = "N"
        else:
            dim.dim_value = _INTS[rng.integers(len(_INTS))]
    elif shape.dim:
        del shape.dim[rng.integers(len(shape.dim))]
    else:
        shape.dim.add().dim_value = 3


def _version(model: Any, rng: np.random.Generator) -> None:
    """Another opset."""
    if model.opset_import:
        entry = model.opset_import[rng.integers(len(model.opset_import))]
        entry.version = int(rng.integers(1, onnx.defs.onnx_opset_version() + 2))


def _operator(model: Any, rng: np.random.Generator) -> None:
    """Another operator on the same inputs."""
    nodes = list(nodes_of(model.graph))
    others = list(nodes_of(mutable(drawn(rng)).graph))
    if nodes and others:
        node, other = nodes[rng.integers(len(nodes))], others[rng.integers(len(others))]
        node.op_type, node.domain = other.op_type, other.domain
        if rng.random() < 0.5:
            del node.attribute[:]
            node.attribute.extend(other.attribute)


def _more(model: Any, rng: np.random.Generator) -> None:
    """The same operator again and again on its own result: what doubles, doubles often."""
    nodes = list(model.graph.node)
    if not nodes or not model.graph.output:
        return
    node = _copied(nodes[-1])
    if not node.output or not node.input:
        return
    last = node.output[0]
    for i in range(int(rng.choice([3, 30, 60]))):
        again = _copied(node)
        again.name = f"again{i}"
        inputs = [
            last if j == 0 or rng.random() < 0.3 else name for j, name in enumerate(node.input)
        ]
        outputs = [f"again{i}_{j}" if name else "" for j, name in enumerate(node.output)]
        del again.input[:], again.output[:]
        again.input.extend(inputs)
        again.output.extend(outputs)
        model.graph.node.append(again)
        last = outputs[0]
    model.graph.output[0].name = last
    model.graph.output[0].ClearField("type")


def _copied(message: Any) -> Any:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


_changes = (
    _attribute,
    _attribute,
    _attribute,
    _constant,
    _constant,
    _shape,
    _version,
    _operator,
    _more,
)
