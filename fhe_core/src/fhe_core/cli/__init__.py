"""The command line, ``fhe-ops``."""

from __future__ import annotations

from fhe_core.cli.app import main

__all__ = ["main"]
