"""``python -m pytest -p fhe_core.testing.plugin --pack NAME --pyargs fhe_core.testing.conformance``

The option of that one command. It is no entry point of pytest: one would import fhe_core into every
run of every project, and before coverage starts to measure.
"""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """The pack to test."""
    parser.addoption(
        "--pack",
        metavar="NAME",
        help="the operator pack that fhe_core.testing.conformance tests, by its entry point's name",
    )
