"""``fhe-ops run``: a batch in, an array for each output out."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fhe_core.errors import ArtifactError, InputError

import fhe_core

from .conftest import Answer, cli, refused
from .fakes import FakeModule, FakeSdk

DATA = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def sdk(monkeypatch: pytest.MonkeyPatch) -> FakeSdk:
    sdk = FakeSdk()
    monkeypatch.setitem(vars(fhe_core), "load", sdk.load)
    return sdk


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", DATA)
    return tmp_path


def run(*options: object, given: object = "x.npy", output: str = "y.npz") -> Answer:
    return cli("run", "digits", "--input", given, "--output", output, *options)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_outputs_are_saved_by_name_and_their_shapes_printed(sdk: FakeSdk, here: Path) -> None:
    sdk.module = FakeModule(outputs=("y", "/fc/file"))
    answer = run()
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.splitlines()[1:] == [
        "  y: 2 x 3, float32",
        "  /fc/file: 2 x 3, float32",
        "Saved to y.npz",
    ]
    assert answer.out.startswith("Ran 2 samples in ")
    assert "(execute)" in answer.out
    assert sdk.loaded == [Path("digits")]
    with np.load("y.npz") as saved:
        assert saved.files == ["y", "/fc/file"]
        np.testing.assert_array_equal(saved["y"], DATA * 2)
        np.testing.assert_array_equal(saved["/fc/file"], DATA * 2 + 1)
    assert names(here) == ["x.npy", "y.npz"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), {"fhe": "execute"}),
        (("--fhe", "simulate", "--seed", "3"), {"fhe": "simulate", "seed": 3}),
        (("--fhe", "disable"), {"fhe": "disable"}),
    ],
)
def test_the_mode_and_the_seed_are_passed_on(
    options: tuple[str, ...], expected: dict[str, Any], sdk: FakeSdk
) -> None:
    assert run(*options).code == 0
    assert sdk.module.forwarded[0][1] == {"progress": True, **expected}


def test_inputs_go_by_name_or_else_by_position(sdk: FakeSdk) -> None:
    sdk.module = FakeModule(inputs=("fhe", "seed"))  # names of forward's own arguments
    np.savez("named.npz", seed=DATA + 1, fhe=DATA)
    np.savez("unnamed.npz", DATA, DATA + 1)
    for name in ("named", "unnamed"):
        assert run(given=f"{name}.npz").code == 0
        first, second = sdk.module.forwarded.pop()[0]
        np.testing.assert_array_equal(first, DATA)
        np.testing.assert_array_equal(second, DATA + 1)


def test_inputs_that_are_not_the_models_are_refused(sdk: FakeSdk, here: Path) -> None:
    sdk.module = FakeModule(inputs=("a", "b"))
    np.savez("wrong.npz", a=DATA, c=DATA)
    refused(run(given="wrong.npz"), 2, "'a', 'b'", "'a', 'c'")
    refused(run(), 2, "'a', 'b'", "without a name")
    assert sdk.module.forwarded == []
    assert "y.npz" not in names(here)


def test_strings_are_saved_without_pickle(sdk: FakeSdk, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.array(["cat", "mouse"], dtype=object)
    monkeypatch.setattr(sdk.module, "forward", lambda *_, **__: labels)
    assert run().code == 0
    with np.load("y.npz") as saved:
        assert saved["y"].tolist() == ["cat", "mouse"]


def test_an_older_output_is_replaced_and_survives_a_failure(
    sdk: FakeSdk, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez("y.npz", y=DATA)
    before = Path("y.npz").read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("numpy.lib.format.write_array", full)
        refused(run(), 2, "No space left on device")
    assert Path("y.npz").read_bytes() == before
    assert names(here) == ["x.npy", "y.npz"]
    assert run().code == 0
    assert Path("y.npz").read_bytes() != before


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("y.npy", ("'y.npy' is not called .npz", "'y.npz'")),
        ("y", ("'y' is not called .npz",)),
        ("x.npy/y.npz", ("cannot be written", "not a folder")),
        ("folder.npz", ("is a folder",)),
    ],
)
def test_an_output_that_cannot_be_is_refused_before_the_work(
    output: str, words: tuple[str, ...], sdk: FakeSdk, here: Path
) -> None:
    (here / "folder.npz").mkdir()
    refused(run(output=output), 2, *words)
    assert sdk.loaded == []


def test_a_bad_artifact_is_wrong_use(sdk: FakeSdk, here: Path) -> None:
    sdk.error = ArtifactError("'digits' is not a saved model", fix="save one")
    refused(run(), 2, "'digits' is not a saved model", "fix: save one")
    assert names(here) == ["x.npy"]


def test_a_bad_value_is_wrong_use(sdk: FakeSdk, here: Path) -> None:
    sdk.module.error = InputError("the input 'x' holds NaN", got="3 of them", fix="drop them")
    refused(run(), 2, "the input 'x' holds NaN", "got: 3 of them", "fix: drop them")
    assert names(here) == ["x.npy"]


def test_warnings_are_one_line_each(sdk: FakeSdk, monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(*arrays: Any, **_: Any) -> Any:
        warnings.warn("1% of the input 'x'\nsaturates", UserWarning, stacklevel=1)
        warnings.warn("for programmers", DeprecationWarning, stacklevel=1)
        return arrays[0]

    monkeypatch.setattr(sdk.module, "forward", forward)
    answer = run()
    assert answer.code == 0
    assert answer.err == "warning: 1% of the input 'x' saturates\n"


def test_what_must_be_given_is_asked_for() -> None:
    refused(cli("run"), 2, "DIR", "fhe-ops run --help")
    refused(cli("run", "digits", "--output", "y.npz"), 2, "--input")
    refused(cli("run", "digits", "--input", "x.npy"), 2, "--output")
    refused(run("--fhe", "maybe"), 2, "'maybe'", "execute")
