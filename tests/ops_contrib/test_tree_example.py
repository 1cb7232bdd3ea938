"""The example of an encrypted forest runs, and its labels are those of the float forest."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("concrete.fhe", reason="needs fhe-core[concrete]")
pytest.importorskip("skl2onnx")

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "forest" / "forest.py"


@pytest.mark.fhe
def test_the_forest_of_the_guide_labels_encrypted_samples(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLE], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "100% of the labels are the float forest's" in done.stdout
    answers = re.findall(r"encrypted: (\w+), in truth (\w+)", done.stdout)
    assert len(answers) == 2
    assert all(found == truth for found, truth in answers)
    assert "sorted thresholds" in done.stdout
