"""What every folder of tests shares."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The top of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def models() -> Path:
    """The folder of trained nets: ``NAME.onnx``, its data in ``NAME.npz``, and ``peer.json``."""
    return ROOT / "tests" / "models"
