"""The whole way by hand: check, compile, run encrypted; and what goes wrong on it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from .conftest import COMMAND

pytest.importorskip("concrete.fhe", reason="needs fhe-core[concrete]")
pytestmark = [
    pytest.mark.fhe,
    pytest.mark.skipif(not COMMAND.exists(), reason="fhe-core is not installed, only on the path"),
]

RANDOM = np.random.default_rng(0)
DATA = RANDOM.uniform(-1, 1, (64, 3)).astype(np.float32)
FAST = ("--n-bits", "3", "--rounding", "3", "--p-error", "2^-20")


def fhe_ops(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs the command with the real pack, in a folder."""
    environment = {name: value for name, value in os.environ.items() if name != "FHE_PACKS_BLOCK"}
    environment["FHE_PACKS"] = "fhe-ops-std"
    return subprocess.run(
        [COMMAND, *map(str, arguments)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A net of two layers, its data, and the net compiled."""
    folder = tmp_path_factory.mktemp("net")
    weights = {
        "w1": RANDOM.uniform(-1, 1, (3, 4)),
        "w2": RANDOM.uniform(-1, 1, (4, 2)),
    }
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w1"], ["h"], name="first"),
            helper.make_node("Relu", ["h"], ["r"], name="relu"),
            helper.make_node("MatMul", ["r", "w2"], ["scores"], name="second"),
        ],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 2])],
        [
            numpy_helper.from_array(value.astype(np.float32), name)
            for name, value in weights.items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "net.onnx")
    np.save(folder / "data.npy", DATA)
    np.savez(folder / "few.npz", x=DATA[:2])
    result = fhe_ops(folder, "compile", "net.onnx", "--calibration", "data.npy", "-o", "net", *FAST)
    assert (result.returncode, result.stderr) == (0, ""), result
    assert "table look-ups" in result.stdout
    assert "saved to net" in result.stdout
    return folder


def test_the_model_is_said_to_compile(folder: Path) -> None:
    result = fhe_ops(folder, "check", "net.onnx")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("This model compiles.")


def test_encrypted_answers_are_near_those_of_the_clear_integers(folder: Path) -> None:
    answers = {}
    for mode in ("execute", "disable", "simulate"):
        output = f"{mode}.npz"
        result = fhe_ops(
            folder, "run", "net", "--input", "few.npz", "--output", output, "--fhe", mode
        )
        assert (result.returncode, result.stderr) == (0, ""), result
        assert "scores: 2 x 2, float" in result.stdout
        with np.load(folder / output) as saved:
            assert saved.files == ["scores"]
            answers[mode] = saved["scores"]
    spread = np.ptp(answers["disable"])
    np.testing.assert_allclose(answers["execute"], answers["disable"], atol=spread)
    assert answers["execute"].shape == (2, 2)


BAD_DATA = {
    "wrong shape": (np.zeros((4, 5), np.float32), "5"),
    "wrong type": (np.array([["a", "b", "c"]]), "str"),
    "complex": (np.zeros((4, 3), complex), "complex"),
    "empty": (DATA[:0], "sample"),
    "nan": (np.full((4, 3), np.nan, np.float32), "NaN"),
    "infinity": (np.full((4, 3), np.inf, np.float32), "infinity"),
}


@pytest.mark.parametrize("kind", BAD_DATA)
@pytest.mark.parametrize("command", ["compile", "run"])
def test_bad_data_is_wrong_use_and_nothing_is_written(
    command: str, kind: str, folder: Path, tmp_path: Path
) -> None:
    data, word = BAD_DATA[kind]
    path = tmp_path / "bad.npy"
    np.save(path, data)
    result = (
        fhe_ops(folder, "compile", "net.onnx", "--calibration", path, "-o", tmp_path / "out", *FAST)
        if command == "compile"
        else fhe_ops(
            folder, *("run", "net", "--fhe", "disable"), "--input", path, "--output",
            tmp_path / "y.npz",
        )
    )  # fmt: skip
    refuses(result, 2, "x", word)
    assert [entry.name for entry in tmp_path.iterdir()] == ["bad.npy"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (("--n-bits", "0"), ("0",)),
        (("--n-bits", "1"), ("1",)),
        (("--n-bits", "40"), ("40",)),
        (("--n-bits", "3", "--rounding", "99"), ("99",)),
    ],
)
def test_impossible_settings_are_wrong_use(
    settings: tuple[str, ...], words: tuple[str, ...], folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = fhe_ops(
        folder, "compile", "net.onnx", "--calibration", "data.npy", "-o", out, *settings
    )
    refuses(result, 2, *words)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_no_artifact_is_wrong_use(folder: Path, tmp_path: Path) -> None:
    for artifact in (tmp_path, tmp_path / "missing", folder / "net.onnx"):
        result = fhe_ops(
            folder, "run", artifact, "--input", "few.npz", "--output", tmp_path / "y.npz"
        )
        refuses(result, 2, artifact.name)
    assert not list(tmp_path.iterdir())


def refuses(result: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    assert (result.returncode, result.stdout) == (code, ""), result
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("error: ")
    assert "\n  fix: " in result.stderr
    for word in words:
        assert word in result.stderr, result.stderr
