"""A path, bytes or a ModelProto to a checked ModelProto that stands on its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from fhe_core.errors import ModelError
from fhe_core.files import open_regular
from fhe_core.graph.budgets import check_expansion
from fhe_core.graph.external import embed_external_data, uses_external_data
from fhe_core.graph.protos import check_text, messages
from fhe_core.graph.sizes import size_errors
from fhe_core.graph.validity import DEFAULT_DOMAINS, validity_errors

# What people hand over instead of an ONNX file, by how it begins.
_OTHER_FORMATS = {
    b"PK\x03\x04": "a zip archive (a PyTorch checkpoint or .npz file, perhaps)",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"\x93NUMPY": "a NumPy .npy file",
    b"\x89HDF": "an HDF5 file (a Keras model, perhaps)",
    b"\x1f\x8b": "a gzip archive",
    b"\x80\x02": "a Python pickle",
    b"\x80\x03": "a Python pickle",
    b"\x80\x04": "a Python pickle",
    b"\x80\x05": "a Python pickle",
    b"%PDF": "a PDF document",
    b"version https://git-lfs": "a Git LFS pointer, not the file that it stands for",
}
_EXPORT = "export the model with torch.onnx.export, skl2onnx or another ONNX exporter"
_EXPORT_AGAIN = "export or copy the file again"


@dataclass(frozen=True)
class Parsed:
    """A model as it came: the protobuf, what to call it in messages, and the folder of its data."""

    proto: onnx.ModelProto
    label: str
    folder: Path | None = None


def load_model(model: str | os.PathLike[str] | bytes | onnx.ModelProto) -> onnx.ModelProto:
    """The model, checked and self-contained.

    External data is read in, equal opset imports are merged, and the domain ``ai.onnx`` is written
    ``""``. A given ``ModelProto`` is never modified; where nothing of this is needed, it comes back
    itself.

    Args:
        model: a file's path, a file's content, or a ``ModelProto``.

    Raises:
        ModelError: missing, unreadable, empty, truncated, not ONNX, or not a valid model; an opset
            or IR version that cannot run; external data missing or outside the model's folder; more
            nodes or bytes than a model may have.
    """
    parsed = normalize(parse_model(model))
    for error in validity_errors(parsed.proto, parsed.label) or size_errors(parsed.proto):
        raise error
    return parsed.proto


def parse_model(model: object) -> Parsed:
    """The protobuf of ``model``, not yet checked.

    Raises:
        ModelError: nothing that could be an ONNX model was found.
    """
    if isinstance(model, onnx.ModelProto):
        return _not_hollow(Parsed(model, "the given ModelProto"))
    if isinstance(model, bytes | bytearray | memoryview):
        return _parse_bytes(bytes(model), "the given bytes", None)
    if isinstance(model, str | os.PathLike):
        path = Path(os.fsdecode(model))
        return _parse_bytes(_read_file(path), f"{str(path)!r}", path.parent)
    raise ModelError(
        "this is not a model",
        expected="a path, bytes or onnx.ModelProto",
        got=type(model).__name__,
        fix=_EXPORT,
    )


def _read_file(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            return file.read()
    except FileNotFoundError as error:
        raise ModelError(
            f"{str(path)!r} does not exist",
            got=f"the working directory {str(Path.cwd())!r}" if not path.is_absolute() else None,
            fix="check the path",
        ) from error
    except IsADirectoryError as error:
        found = sorted(entry.name for entry in path.glob("*.onnx"))
        raise ModelError(
            f"{str(path)!r} is a directory",
            expected="an .onnx file",
            got=f"a directory holding {', '.join(found[:5])}" if found else None,
            fix="give the path of the file in it",
        ) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ModelError(
            f"{str(path)!r} cannot be read: {reason}",
            fix="check the path and its permissions",
        ) from error


def _parse_bytes(data: bytes, label: str, folder: Path | None) -> Parsed:
    if not data:
        raise ModelError(f"{label} is empty", got="0 bytes", fix=_EXPORT_AGAIN)
    for magic, what in _OTHER_FORMATS.items():
        if data.startswith(magic):
            raise ModelError(f"{label} is not an ONNX model", got=what, fix=_EXPORT)
    try:
        proto = onnx.ModelProto.FromString(data)
    except Exception as error:  # protobuf's DecodeError; not every backend's is that class
        # Field 1 of a ModelProto, the IR version, comes first and is a varint: the byte 8.
        if data[0] == 8:
            raise ModelError(
                f"{label} is truncated or damaged",
                expected="a whole ONNX file",
                got=f"{len(data)} bytes that do not parse",
                fix=_EXPORT_AGAIN,
            ) from error
        raise ModelError(f"{label} is not an ONNX model", got=_looks(data), fix=_EXPORT) from error
    return _not_hollow(Parsed(proto, label, folder), data)


def _not_hollow(parsed: Parsed, data: bytes = b"") -> Parsed:
    # protobuf reads nearly anything as a message of unknown fields.
    if parsed.proto.HasField("graph"):
        check_text(parsed.proto, parsed.label)
        return parsed
    raise ModelError(
        f"{parsed.label} is not an ONNX model: it holds no graph",
        got=_looks(data) if data else None,
        fix=_EXPORT,
    )


def _looks(data: bytes) -> str:
    head = data[:64]
    return "text" if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head) else "binary data"


def normalize(parsed: Parsed) -> Parsed:
    """External data embedded, opset imports merged, ``ai.onnx`` written ``""``.

    Raises:
        ModelError: external data that cannot be read, one domain imported at two versions, or more
            nodes than a model may have (see ``budgets``).
    """
    check_expansion(parsed.proto, parsed.label)
    edits: list[Callable[[onnx.ModelProto], None]] = []
    if uses_external_data(parsed.proto):
        edits.append(lambda proto: embed_external_data(proto, parsed.folder, parsed.label))
    imports = _merged_imports(parsed)
    if imports != [(entry.domain, entry.version) for entry in parsed.proto.opset_import]:
        edits.append(lambda proto: _set_imports(proto, imports))
    if any(node.domain == "ai.onnx" for node in _all_nodes(parsed.proto)):
        edits.append(_rename_default_domain)
    if not edits:
        return parsed
    proto = onnx.ModelProto()
    proto.CopyFrom(parsed.proto)
    for edit in edits:
        edit(proto)
    return Parsed(proto, parsed.label, parsed.folder)


def _merged_imports(parsed: Parsed) -> list[tuple[str, int]]:
    merged: dict[str, int] = {}
    for entry in parsed.proto.opset_import:
        domain = "" if entry.domain in DEFAULT_DOMAINS else entry.domain
        if merged.setdefault(domain, entry.version) != entry.version:
            raise ModelError(
                f"{parsed.label} imports the domain {domain or 'ai.onnx'!r} twice, at opsets "
                f"{merged[domain]} and {entry.version}",
                expected="one version for each domain",
                fix="export the model again, or remove one of its opset_import entries",
            )
    return list(merged.items())


def _set_imports(proto: onnx.ModelProto, imports: list[tuple[str, int]]) -> None:
    del proto.opset_import[:]
    proto.opset_import.extend(onnx.helper.make_opsetid(*entry) for entry in imports)


def _rename_default_domain(proto: onnx.ModelProto) -> None:
    for node in _all_nodes(proto):
        if node.domain == "ai.onnx":
            node.domain = ""


def _all_nodes(proto: onnx.ModelProto) -> Iterator[Any]:
    return (found for found in messages(proto) if isinstance(found, onnx.NodeProto))
