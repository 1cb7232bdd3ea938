"""The conformance kit: one suite for the packs of this project and for those of strangers.

Subclass `PackSuite` in a pytest file, or call `run_checks` without pytest. Nothing here is imported
before it is used, and pytest is needed by `PackSuite` alone (``pip install fhe-core[testing]``).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fhe_core.testing.running import Outcome, run_checks
    from fhe_core.testing.sample import Sample
    from fhe_core.testing.suite import PackSuite

_HOME_OF = {
    "Outcome": "running",
    "PackSuite": "suite",
    "Sample": "sample",
    "run_checks": "running",
}

__all__ = ["Outcome", "PackSuite", "Sample", "run_checks"]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
