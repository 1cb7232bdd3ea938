"""What once failed is answered, or refused by a typed error of one line; and the fuzzer itself runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fhe_core import FheError
from tests.fuzz.cases import Case, judge
from tests.fuzz.models import drive

MODELS = sorted((Path(__file__).parent / "corpus").glob("*.onnx"))


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_a_model_that_once_failed_does_not(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(16))  # what a model must not read
    monkeypatch.chdir(tmp_path)
    said = ""
    try:
        drive(path.read_bytes(), np.random.default_rng(0))
    except FheError as error:
        said = str(error)
    assert "\n" not in said


@pytest.mark.parametrize("number", range(6))
def test_a_case_has_a_verdict(number: int) -> None:
    verdict = judge(Case(seed=0, kind="arguments", number=number))
    assert not verdict.failure, verdict
