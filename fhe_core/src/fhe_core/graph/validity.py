"""What is wrong with a parsed model: versions, names, order, and whatever onnx.checker finds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import onnx
import onnx.checker
import onnx.defs

from fhe_core.errors import ModelError
from fhe_core.graph.names import REPAIR, name_errors, where_of

DEFAULT_DOMAINS = ("", "ai.onnx")
OLDEST_OPSET = (
    6  # opset 5 and older have the `consumed_inputs` and `broadcast` attributes of Caffe2
)
OLDEST_COMPILED_OPSET = 7  # from 7 on, NumPy's rules of broadcasting
NEWEST_OPSET = onnx.defs.onnx_opset_version()
NEWEST_VERSION = 2**31 - 1  # of any domain: onnx keeps versions in 32 bits

_EXPORT_OPSET = f"export the model again with opset_version={min(17, NEWEST_OPSET)}"


def validity_errors(proto: onnx.ModelProto, label: str) -> list[ModelError]:
    """Everything that makes ``proto`` not a model that can run, best explanation first.

    The checker stops at its first finding and speaks in protobuf's terms, so that it is asked only
    when the checks here find nothing.

    Args:
        proto: a normalized model (see ``loading.normalize``).
        label: what to call the model in a message.
    """
    return [
        *_version_errors(proto, label),
        *_interface_errors(proto.graph, label),
        *_domain_errors(proto, label),
        *name_errors(proto, label),
    ] or list(_checker_errors(proto, label))


def _version_errors(proto: onnx.ModelProto, label: str) -> Iterator[ModelError]:
    if proto.ir_version > onnx.IR_VERSION:
        yield ModelError(
            f"{label} has IR version {proto.ir_version}, newer than the installed onnx "
            f"{onnx.__version__} knows",
            expected=f"IR version {onnx.IR_VERSION} or older",
            fix="upgrade the onnx package, or export the model with an older one",
        )
    versions = {entry.domain: entry.version for entry in proto.opset_import}
    if not versions:
        yield ModelError(
            f"{label} does not say which opset it uses",
            expected="an opset_import entry",
            fix=_EXPORT_OPSET,
        )
    if "" in versions and not OLDEST_OPSET <= versions[""] <= NEWEST_OPSET:
        yield ModelError(
            f"{label} uses opset {versions['']}",
            expected=f"opset {OLDEST_OPSET} to {NEWEST_OPSET} (the newest that onnx "
            f"{onnx.__version__} knows)",
            fix=_EXPORT_OPSET,
        )
    for domain, version in versions.items():
        if domain and not 0 < version <= NEWEST_VERSION:
            yield ModelError(
                f"{label} uses opset {version} of {domain}",
                expected=f"opset 1 to {NEWEST_VERSION}",
                fix="export the model again",
            )
            return
    newest_ml = onnx.defs.onnx_ml_opset_version()
    if versions.get("ai.onnx.ml", 1) > newest_ml:
        yield ModelError(
            f"{label} uses opset {versions['ai.onnx.ml']} of ai.onnx.ml",
            expected=f"opset 1 to {newest_ml} (the newest that onnx {onnx.__version__} knows)",
            fix="export the model with an older opset of ai.onnx.ml",
        )


def _interface_errors(graph: Any, label: str) -> Iterator[ModelError]:
    if not graph.output:
        yield ModelError(
            f"{label} has no graph outputs", expected="at least one output", fix=REPAIR
        )


def _domain_errors(proto: onnx.ModelProto, label: str) -> Iterator[ModelError]:
    imported = {entry.domain for entry in proto.opset_import}
    if not imported:
        return
    for node in proto.graph.node:
        if node.domain not in imported:
            yield ModelError(
                f"{label} imports no opset for the domain {node.domain or 'ai.onnx'!r}",
                where=where_of(node),
                fix=f"add an opset_import entry for {node.domain or 'ai.onnx'!r}",
            )


def _checker_errors(proto: onnx.ModelProto, label: str) -> Iterator[ModelError]:
    try:
        onnx.checker.check_model(_checkable(proto))
    except onnx.checker.ValidationError as error:
        yield ModelError(f"{label} is not a valid model: {_essence(str(error))}", fix=REPAIR)
    except Exception as error:  # noqa: BLE001  protobuf's limit of 2 GiB has a different class in each version
        yield ModelError(f"{label} cannot be checked: {_essence(str(error))}", fix=REPAIR)


def _checkable(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model for the checker: initializers as inputs, a shape for every input, a type for outputs.

    Weights would be copied twice, and beyond 2 GiB not at all; what they hold is seen when they are
    read. The checker wants shapes and types; onnxruntime does not, and older exporters wrote none.
    """
    copy = onnx.ModelProto(ir_version=proto.ir_version)
    copy.opset_import.extend(proto.opset_import)
    copy.functions.extend(proto.functions)
    graph = copy.graph
    graph.name = proto.graph.name
    graph.node.extend(proto.graph.node)
    graph.input.extend(proto.graph.input)
    graph.output.extend(proto.graph.output)
    graph.sparse_initializer.extend(proto.graph.sparse_initializer)
    declared = {info.name for info in graph.input}
    for tensor in proto.graph.initializer:
        if tensor.name not in declared:
            kind = onnx.helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
            graph.input.append(onnx.helper.make_value_info(tensor.name, kind))
    for info in graph.output:
        if info.type.WhichOneof("value") is None:
            info.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    for info in (*graph.input, *graph.output):
        if info.type.WhichOneof("value") == "tensor_type":
            info.type.tensor_type.shape.SetInParent()
    return copy


def _essence(message: str) -> str:
    """The checker's message as one line, its trail of contexts cut to the node."""
    text, _, context = message.partition("==> Context:")
    node = re.search(r"Name: (.*?) OpType: (\S+)", context)
    text = " ".join(text.split()).rstrip(".")
    if node is None:
        return text
    return f"{text} (node {node[1]!r}, op {node[2]})" if node[1] else f"{text} (op {node[2]})"
