"""Where in a pack's own code an error came up."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

Location = tuple[str, int]

_OURS = str(Path(__file__).resolve().parents[1])


def location_of(error: BaseException | None, module: str) -> Location | None:
    """File and line: the innermost of the pack's own; else of whoever raised.

    Args:
        module: the name of the pack's module. What is below its topmost package is its own code.
    """
    if error is None:
        return None
    if isinstance(error, SyntaxError) and error.filename:
        return error.filename, error.lineno or 1
    frames = [
        (frame.filename, frame.lineno or 1)
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(("<", _OURS))
    ]
    root = _root(module)
    own = [frame for frame in frames if root and _is_below(frame[0], root)]
    return (own or frames)[-1] if frames else None


def location_of_function(function: Callable[..., Any]) -> Location | None:
    """Where a function is written."""
    code = getattr(function, "__code__", None)
    return (code.co_filename, code.co_firstlineno) if code else None


def _root(module: str) -> Path | None:
    """The folder of a pack's topmost package, or the file of its only module."""
    from importlib.util import find_spec

    name = module.partition(".")[0]
    try:
        spec = getattr(sys.modules.get(name), "__spec__", None) or find_spec(name)
    except (ImportError, AttributeError, ValueError):
        return None
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin)
    return file.parent if spec.submodule_search_locations else file


def _is_below(file: str, root: Path) -> bool:
    path = Path(file)
    return path == root or root in path.parents
