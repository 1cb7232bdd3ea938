"""Tensors whose data lies in files beside the model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto

from fhe_core.errors import ModelError

_KEEP_TOGETHER = "put the data file where the exporter wrote it, beside the model"


def uses_external_data(proto: onnx.ModelProto) -> bool:
    """Whether any tensor's data lies in another file."""
    return any(tensor.data_location == TensorProto.EXTERNAL for tensor in _tensors(proto))


def embed_external_data(proto: onnx.ModelProto, folder: Path | None, label: str) -> None:
    """Read every external tensor of ``proto`` into it.

    Written here, not left to onnx: what it refuses, and how it says so, changed between the
    versions that are allowed, and it warns on keys it does not know.

    Args:
        proto: modified in place.
        folder: the model file's folder, None if the model came without one.
        label: what to call the model in a message.

    Raises:
        ModelError: a file is missing, too short, or not in ``folder`` or below, symbolic links
            followed.
    """
    for tensor in _tensors(proto):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        tensor.raw_data = _read(tensor, folder, label)
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]


def _tensors(proto: onnx.ModelProto) -> Iterator[Any]:
    yield from _graph_tensors(proto.graph)
    for function in proto.functions:
        yield from _node_tensors(function.node)


def _graph_tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Any) -> Iterator[Any]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("g"):
                yield from _graph_tensors(attribute.g)
            for graph in attribute.graphs:
                yield from _graph_tensors(graph)


def _read(tensor: Any, folder: Path | None, label: str) -> bytes:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    what = f"tensor {tensor.name!r} of {label} lies in another file, {location!r}"
    if folder is None:
        raise ModelError(
            f"{what}, and the model came without a folder to look in",
            fix="give the model's path, or a ModelProto from onnx.load",
        )
    path = folder / location
    # Resolved: neither `..` nor a symbolic link may read a file that the model has no claim to.
    if not location or not path.resolve().is_relative_to(folder.resolve()):
        raise ModelError(
            f"{what}, which is not in the model's folder and is not read",
            fix="save the model with its data beside it, or in one file",
        )
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", -1))
        with path.open("rb") as file:
            file.seek(offset)
            # A length from an untrusted file must not decide how much memory is asked for.
            available = max(path.stat().st_size - offset, 0)
            data = file.read(available if length < 0 else min(length, available))
    except FileNotFoundError as error:
        raise ModelError(f"{what}, which does not exist", fix=_KEEP_TOGETHER) from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{what}, which cannot be read: {error}", fix=_KEEP_TOGETHER) from error
    if len(data) < length:
        raise ModelError(
            f"{what}, which is too short",
            expected=f"{length} bytes from byte {offset}",
            got=f"{len(data)} bytes",
            fix=_KEEP_TOGETHER,
        )
    return data
