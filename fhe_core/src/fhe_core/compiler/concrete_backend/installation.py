"""Concrete itself: imported when it is first needed, and kept from what it does to the process."""

from __future__ import annotations

import atexit
import sys
import warnings
from typing import Any

from fhe_core.compiler.concrete_backend.interrupts import leave_interrupts_to_python
from fhe_core.errors import CompilationError


def concrete() -> Any:
    """The module ``concrete.fhe``.

    Raises:
        CompilationError: concrete-python is not installed, or does not load.
    """
    try:
        with warnings.catch_warnings():
            # concrete imports pkg_resources, which says that it is deprecated.
            warnings.simplefilter("ignore")
            from concrete import compiler, fhe
    except ImportError as error:
        raise CompilationError(
            f"the FHE compiler cannot be imported: {error}",
            expected="concrete-python, on CPython 3.10 to 3.12",
            fix="run: pip install 'fhe-core[concrete]'",
        ) from error
    # What it does at exit ends a process that has run a circuit on the spot, with code 0: failed tests
    # pass, and output that is still buffered is lost. It stops data-flow workers, of which there are none.
    leave_interrupts_to_python(sys.modules[compiler.ServerProgram.__module__.rpartition(".")[0]])
    terminate = getattr(compiler, "_terminate_df_parallelization", None)
    if terminate is not None:
        atexit.unregister(terminate)
    return fhe


def compiler() -> Any:
    """The module ``concrete.compiler``, where `concrete` has been."""
    return sys.modules["concrete.compiler"]


def said(error: Exception) -> str:
    """What Concrete says, without the stack that it appends."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
