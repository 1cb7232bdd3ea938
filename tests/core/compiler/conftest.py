"""One compiled and saved net for all tests that need no other."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from fhe_core.quantization.module import QuantizedModule

import fhe_core

from .nets import FAST, client_sided, samples


@pytest.fixture(scope="session")
def compiled() -> QuantizedModule:
    """An MLP with ops before encryption and after decryption, and two outputs."""
    pytest.importorskip("concrete.fhe", reason="needs fhe-core[concrete]")
    return fhe_core.compile(client_sided(), samples(4), rounding_method="exact", **FAST)


@pytest.fixture(scope="session")
def saved(compiled: QuantizedModule, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where it was saved. Read it only: ``copied`` gives a copy."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    compiled.save(folder)
    return folder


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Callable[[], Path]:
    """A new copy of the saved net at each call, alone in a folder."""

    def copy() -> Path:
        count = len(list(tmp_path.iterdir()))
        return Path(shutil.copytree(saved, tmp_path / str(count) / "model"))

    return copy
