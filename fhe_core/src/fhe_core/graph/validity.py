"""What is wrong with a parsed model: versions, names, order, and whatever onnx.checker finds."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import Any

import onnx
import onnx.checker
import onnx.defs

from fhe_core.errors import ModelError, Where

DEFAULT_DOMAINS = ("", "ai.onnx")
OLDEST_OPSET = (
    6  # opset 5 and older have the `consumed_inputs` and `broadcast` attributes of Caffe2
)
OLDEST_COMPILED_OPSET = 7  # from 7 on, NumPy's rules of broadcasting
NEWEST_OPSET = onnx.defs.onnx_opset_version()

_EXPORT_OPSET = f"export the model again with opset_version={min(17, NEWEST_OPSET)}"
_REPAIR = "repair the graph, or export the model again"


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
        *_name_errors(proto.graph, label),
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
    newest_ml = onnx.defs.onnx_ml_opset_version()
    if versions.get("ai.onnx.ml", 1) > newest_ml:
        yield ModelError(
            f"{label} uses opset {versions['ai.onnx.ml']} of ai.onnx.ml",
            expected=f"opset 1 to {newest_ml} (the newest that onnx {onnx.__version__} knows)",
            fix="export the model with an older opset of ai.onnx.ml",
        )


def _interface_errors(graph: Any, label: str) -> Iterator[ModelError]:
    constants = {tensor.name for tensor in graph.initializer}
    if all(info.name in constants for info in graph.input):
        yield ModelError(f"{label} has no graph inputs", expected="at least one input", fix=_REPAIR)
    if not graph.output:
        yield ModelError(
            f"{label} has no graph outputs", expected="at least one output", fix=_REPAIR
        )


def _domain_errors(proto: onnx.ModelProto, label: str) -> Iterator[ModelError]:
    imported = {entry.domain for entry in proto.opset_import}
    if not imported:
        return
    for node in proto.graph.node:
        if node.domain not in imported:
            yield ModelError(
                f"{label} imports no opset for the domain {node.domain or 'ai.onnx'!r}",
                where=_where(node),
                fix=f"add an opset_import entry for {node.domain or 'ai.onnx'!r}",
            )


def _name_errors(graph: Any, label: str) -> Iterator[ModelError]:
    """Names defined twice, read before they are produced, or never produced."""
    known: set[str] = set()
    for kind, names in (
        ("graph input", [info.name for info in graph.input]),
        ("initializer", _initializer_names(graph)),
    ):
        seen: set[str] = set()
        for name in names:
            if name in seen:
                yield ModelError(f"{label} has two {kind}s named {name!r}", fix=_REPAIR)
            seen.add(name)
        known |= seen  # an initializer may share a graph input's name: it is its default
    produced = {name for node in graph.node for name in node.output}
    looping: set[str] | None = None
    for node in graph.node:
        for name in filter(None, node.input):
            if name in known:
                continue
            if name not in produced:
                yield ModelError(
                    f"input {name!r} is produced by nothing: {label} has no initializer, graph "
                    "input or node output of that name",
                    where=_where(node),
                    got=_near(name, known | produced),
                    fix=_REPAIR,
                )
                continue
            if looping is None:
                looping = _cyclic_names(graph)
            reason = (
                "can never be produced: the graph is cyclic"
                if name in looping
                else "is produced by a later node: the graph is not sorted"
            )
            yield ModelError(
                f"input {name!r} {reason}",
                where=_where(node),
                expected=f"the nodes of {label} in an order in which they can run",
                fix=_REPAIR,
            )
        for name in filter(None, node.output):
            if name in known:
                yield ModelError(
                    f"output {name!r} is already the name of another tensor of {label}",
                    where=_where(node),
                    expected="every tensor to be produced once",
                    fix=_REPAIR,
                )
            known.add(name)
    for info in graph.output:
        if info.name not in known:
            yield ModelError(
                f"graph output {info.name!r} of {label} is produced by nothing",
                got=_near(info.name, known),
                fix=_REPAIR,
            )


def _initializer_names(graph: Any) -> list[str]:
    return [
        *(tensor.name for tensor in graph.initializer),
        *(sparse.values.name for sparse in graph.sparse_initializer),
    ]


def _cyclic_names(graph: Any) -> set[str]:
    """Outputs of the nodes that no order can run: those in a cycle, or behind one."""
    waiting = list(graph.node)
    unproduced = {name for node in waiting for name in node.output}
    while True:
        ready = [node for node in waiting if unproduced.isdisjoint(node.input)]
        if not ready:
            return unproduced
        for node in ready:
            unproduced.difference_update(node.output)
        waiting = [node for node in waiting if not unproduced.isdisjoint(node.output)]


def _checker_errors(proto: onnx.ModelProto, label: str) -> Iterator[ModelError]:
    try:
        onnx.checker.check_model(_with_shapes(proto))
    except onnx.checker.ValidationError as error:
        yield ModelError(f"{label} is not a valid model: {_essence(str(error))}", fix=_REPAIR)
    except Exception as error:  # noqa: BLE001  protobuf's limit of 2 GiB has a different class in each version
        yield ModelError(f"{label} cannot be checked: {_essence(str(error))}", fix=_REPAIR)


def _with_shapes(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with an empty shape where an input or output declares none.

    The checker wants one; onnxruntime does not, and many older exporters wrote none.
    """
    if all(_has_shape(info) for info in (*proto.graph.input, *proto.graph.output)):
        return proto
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for info in (*copy.graph.input, *copy.graph.output):
        if not _has_shape(info):
            info.type.tensor_type.shape.SetInParent()
    return copy


def _has_shape(info: Any) -> bool:
    return info.type.WhichOneof("value") != "tensor_type" or info.type.tensor_type.HasField("shape")


def _essence(message: str) -> str:
    """The checker's message as one line, its trail of contexts cut to the node."""
    text, _, context = message.partition("==> Context:")
    node = re.search(r"Name: (.*?) OpType: (\S+)", context)
    text = " ".join(text.split()).rstrip(".")
    if node is None:
        return text
    return f"{text} (node {node[1]!r}, op {node[2]})" if node[1] else f"{text} (op {node[2]})"


def _where(node: Any) -> Where:
    name = node.name or next(filter(None, node.output), node.op_type)
    return Where(name, node.op_type, node.domain)


def _near(name: str, others: set[str]) -> str | None:
    matches = difflib.get_close_matches(name, others, n=1)
    return f"the nearest name is {matches[0]!r}" if matches else None
