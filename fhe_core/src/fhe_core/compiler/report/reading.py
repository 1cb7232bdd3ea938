"""The report in a saved model's folder."""

from __future__ import annotations

import json
import os
from typing import Any

from fhe_core.compiler.folder import read_folder
from fhe_core.errors import ArtifactError

#: Its name in the folder.
FILE = "report.json"


def to_bytes(report: dict[str, Any]) -> bytes:
    return json.dumps(report, indent=1, allow_nan=False).encode()


def read_report(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The report of a saved model. Needs neither the packs, nor the ONNX file, nor concrete-python.

    Raises:
        ArtifactError: missing, damaged, changed, or of an unknown version.
    """
    _, files = read_folder(path, "model")
    return from_files(files, os.fspath(path))


def from_files(files: dict[str, bytes], path: str) -> dict[str, Any]:
    """The report among the files of a saved model.

    Raises:
        ArtifactError: there is none.
    """
    try:
        report: dict[str, Any] = json.loads(files[FILE])
        if not isinstance(report, dict):
            raise TypeError("it is no object")
        to_bytes(report)  # NaN and infinity are no JSON, though Python reads them
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise ArtifactError(
            f"the model in {path!r} has no report",
            expected=f"{FILE}, which save() writes",
            got=f"{type(error).__name__}: {error}",
            fix="save the model again with this version of fhe-core",
        ) from error
    return report
