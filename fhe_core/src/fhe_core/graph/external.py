"""Tensors whose data lies in files beside the model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto

from fhe_core.errors import ModelError
from fhe_core.files import open_regular
from fhe_core.graph.budgets import check_bytes
from fhe_core.graph.protos import tensors

_KEEP_TOGETHER = "put the data file where the exporter wrote it, beside the model"


def uses_external_data(proto: onnx.ModelProto) -> bool:
    """Whether any tensor's data lies in another file."""
    return any(tensor.data_location == TensorProto.EXTERNAL for tensor in tensors(proto))


def embed_external_data(proto: onnx.ModelProto, folder: Path | None, label: str) -> None:
    """Read every external tensor of ``proto`` into it.

    Written here, not left to onnx: what it refuses, and how it says so, changed between the
    versions that are allowed, and it warns on keys it does not know.

    Args:
        proto: modified in place.
        folder: the model file's folder, None if the model came without one.
        label: what to call the model in a message.

    Raises:
        ModelError: a file is missing, too short, no regular file, or not in ``folder`` or below,
            symbolic links followed.
    """
    total = 0
    for tensor in tensors(proto):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        tensor.raw_data = _read(tensor, folder, label)
        # One file may be read for many tensors.
        total += len(tensor.raw_data)
        check_bytes(total, f"the data of {label} in other files take")
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]


def _read(tensor: Any, folder: Path | None, label: str) -> bytes:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    what = f"tensor {tensor.name!r} of {label} lies in another file, {location!r}"
    if folder is None:
        raise ModelError(
            f"{what}, and the model came without a folder to look in",
            fix="give the model's path, or a ModelProto from onnx.load",
        )
    try:
        path = folder / location
        # Resolved: neither `..` nor a symbolic link may read a file that the model has no claim to.
        if not location or not path.resolve().is_relative_to(folder.resolve()):
            raise ModelError(
                f"{what}, which is not in the model's folder and is not read",
                fix="save the model with its data beside it, or in one file",
            )
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", -1))
        with open_regular(path) as file:
            file.seek(offset)
            # A length from an untrusted file must not decide how much memory is asked for.
            available = max(os.fstat(file.fileno()).st_size - offset, 0)
            data = file.read(available if length < 0 else min(length, available))
    except FileNotFoundError as error:
        raise ModelError(f"{what}, which does not exist", fix=_KEEP_TOGETHER) from error
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise ModelError(f"{what}, which cannot be read: {error}", fix=_KEEP_TOGETHER) from error
    if len(data) < length:
        raise ModelError(
            f"{what}, which is too short",
            expected=f"{length} bytes from byte {offset}",
            got=f"{len(data)} bytes",
            fix=_KEEP_TOGETHER,
        )
    return data
