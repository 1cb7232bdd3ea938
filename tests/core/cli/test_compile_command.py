"""``fhe-ops compile``: checks first, works with progress, saves whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fhe_core.errors import CompilationError, FheError, ModelError, PlanError, Where

import fhe_core

from .conftest import Answer, cli, refused
from .fakes import FakeSdk

DATA = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def sdk(monkeypatch: pytest.MonkeyPatch) -> FakeSdk:
    sdk = FakeSdk()
    monkeypatch.setitem(vars(fhe_core), "compile", sdk.compile)
    return sdk


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    np.save("data.npy", DATA)
    return folder


def compile_(*options: object, calibration: object = "data.npy", output: str = "out") -> Answer:
    return cli("compile", "m.onnx", "--calibration", calibration, "-o", output, *options)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_it_saves_the_module_and_prints_cost_widths_and_place(sdk: FakeSdk, here: Path) -> None:
    answer = compile_()
    assert (answer.code, answer.err) == (0, "")
    first, *rest = answer.out.splitlines()
    assert first.startswith("Compiled in ")
    assert first.endswith(" s, saved to out")
    assert rest == [
        "  complexity              227 M (Concrete's measure)",
        "  table look-ups          1,234",
        "  widest value            7 bits",
        "  error, a look-up        9.1e-13",
        "  error, an inference     1.1e-09",
        "  tensors                 3 to 4 bits",
        "  weights                 4 bits",
        "  accumulators            7 bits",
        "  rounded to              5 bits",
    ]
    assert files(here) == ["data.npy", "out/client/data", "out/manifest.json", "out/server/data"]


def test_only_what_the_user_chose_is_passed_on(sdk: FakeSdk) -> None:
    compile_()
    ((model, calibration, options),) = sdk.calls
    assert model == Path("m.onnx")
    np.testing.assert_array_equal(calibration, DATA)
    assert options == {"progress": True}


def test_every_option_reaches_the_compiler(sdk: FakeSdk, here: Path) -> None:
    np.savez("labels.npz", np.array([1, 0]))
    (here / "plan.json").write_text(sdk.module.plan.to_json())
    answer = compile_(
        *("--labels", "labels.npz", "--n-bits", "5", "--rounding", "4", "--tolerance", "0.1"),
        *("--p-error", "2^-20", "--client-side", "minimal", "--overflow", "guaranteed"),
        *("--plan", "plan.json", "--seed", "7"),
    )
    assert answer.code == 0, answer
    options: dict[str, Any] = dict(sdk.calls[0][2])
    assert options.pop("labels").tolist() == [1, 0]
    assert options.pop("plan") == sdk.module.plan
    assert options == {
        "progress": True,
        "n_bits": 5,
        "rounding": 4,
        "tolerance": 0.1,
        "p_error": 2.0**-20,
        "client_side": "minimal",
        "overflow": "guaranteed",
        "seed": 7,
    }


@pytest.mark.parametrize(("given", "expected"), [("auto", "auto"), ("0", 0), ("40", 40)])
def test_possible_bits_are_the_compilers_business(
    given: str, expected: object, sdk: FakeSdk
) -> None:
    compile_("--n-bits", given)
    assert sdk.calls[0][2]["n_bits"] == expected


@pytest.mark.parametrize(("given", "expected"), [("1e-9", 1e-9), ("2**-40", 2.0**-40)])
def test_a_probability_may_be_a_power_of_two(given: str, expected: float, sdk: FakeSdk) -> None:
    compile_("--p-error", given)
    assert sdk.calls[0][2]["p_error"] == expected


def test_arrays_of_an_npz_go_by_name_unless_their_names_say_nothing(sdk: FakeSdk) -> None:
    np.savez("named.npz", a=DATA, b=DATA + 1)
    np.savez("unnamed.npz", DATA, DATA + 1)
    np.savez("single.npz", whatever=DATA)
    for name in ("named", "unnamed", "single"):
        compile_(calibration=f"{name}.npz", output=name)
    compile_(calibration="named.npz:b", output="chosen")
    named, unnamed, single, chosen = (calibration for _, calibration, _ in sdk.calls)
    assert list(named) == ["a", "b"]
    assert isinstance(unnamed, tuple)
    np.testing.assert_array_equal(unnamed[1], DATA + 1)
    np.testing.assert_array_equal(single, DATA)
    np.testing.assert_array_equal(chosen, DATA + 1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--n-bits", "four"), ("--n-bits", "'four'", "auto")),
        (("--rounding", "x"), ("--rounding", "'x'")),
        (("--p-error", "2"), ("--p-error", "2^-40")),
        (("--p-error", "nan"), ("--p-error", "2^-40")),
        (("--p-error", "2^-2000"), ("--p-error",)),
        (("--client-side", "none"), ("--client-side", "minimal")),
        (("--plan", "missing.json"), ("missing.json",)),
        (("--labels", "missing.npy"), ("labels", "missing.npy")),
    ],
)
def test_arguments_that_make_no_sense_are_wrong_use(
    options: tuple[str, ...], words: tuple[str, ...], sdk: FakeSdk, here: Path
) -> None:
    refused(compile_(*options), 2, *words)
    assert sdk.calls == []
    assert files(here) == ["data.npy"]


def test_what_must_be_given_is_asked_for() -> None:
    refused(cli("compile"), 2, "MODEL", "fhe-ops compile --help")
    refused(cli("compile", "m.onnx", "-o", "out"), 2, "--calibration")
    refused(cli("compile", "m.onnx", "--calibration", "data.npy"), 2, "--output")


def test_a_plan_that_is_none_is_refused(sdk: FakeSdk, here: Path) -> None:
    (here / "plan.json").write_text("{]")
    refused(compile_("--plan", "plan.json"), 2, "not JSON")
    assert sdk.calls == []


def test_several_labels_are_refused(sdk: FakeSdk) -> None:
    np.savez("labels.npz", a=DATA, b=DATA)
    refused(compile_("--labels", "labels.npz"), 2, "2 arrays", "labels.npz:a")


# -- where it is saved


def test_a_folder_that_holds_something_is_not_touched(sdk: FakeSdk, here: Path) -> None:
    (here / "out").mkdir()
    (here / "out" / "thesis.tex").write_text("precious")
    refused(compile_(), 2, "'out' is not empty", "thesis.tex", "--force")
    refused(compile_("--force"), 2, "not a saved model", "thesis.tex")
    assert sdk.calls == []
    assert files(here) == ["data.npy", "out/thesis.tex"]


def test_force_replaces_a_saved_model(sdk: FakeSdk, here: Path) -> None:
    compile_()
    (here / "out" / "client" / "data").write_text("old")
    (here / "out" / "left_over").write_text("old")
    refused(compile_(), 2, "--force")
    assert compile_("--force").code == 0
    assert (here / "out" / "client" / "data").read_text() == "whole"
    assert files(here) == ["data.npy", "out/client/data", "out/manifest.json", "out/server/data"]


def test_an_empty_folder_and_a_new_path_are_fine(sdk: FakeSdk, here: Path) -> None:
    (here / "out").mkdir()
    assert compile_().code == 0
    assert compile_(output="new/deep").code == 0
    assert (here / "new" / "deep" / "server" / "data").is_file()


def test_a_place_that_cannot_be_written_is_told_before_the_work(
    sdk: FakeSdk, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused(compile_(output="data.npy"), 2, "'data.npy' is not a folder")
    refused(compile_(output="data.npy/out"), 2, "is not a folder")
    refused(compile_(output="/"), 2, "mount point", "'/model'")
    monkeypatch.setattr("os.access", lambda *_: False)
    refused(compile_(output="elsewhere/out"), 2, "read-only")
    assert sdk.calls == []


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_save_that_fails_leaves_what_was_there(
    error: BaseException, old: bool, sdk: FakeSdk, here: Path
) -> None:
    if old:
        compile_()
        (here / "out" / "client" / "data").write_text("old")
    before = files(here)
    sdk.module.error = error
    answer = compile_("--force")
    assert answer.code == (130 if isinstance(error, KeyboardInterrupt) else 2)
    assert files(here) == before
    assert sorted(path.name for path in here.iterdir()) == ["data.npy", *["out"] * old]
    if old:
        assert (here / "out" / "client" / "data").read_text() == "old"


# -- what the compiler says


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CompilationError("no settings are within tolerance", fix="allow more"), 1),
        (CompilationError("concrete-python is not installed", fix="pip install it"), 1),
        (ModelError("'m.onnx' does not exist", fix="check the path"), 2),
        (PlanError("n_bits cannot be 40", where=Where(node="gemm"), fix="use 2 to 8"), 2),
    ],
)
def test_its_errors_keep_their_words_and_get_their_code(
    error: FheError, code: int, sdk: FakeSdk, here: Path
) -> None:
    sdk.error = error
    refused(compile_(), code, error.problem, str(error.where), f"fix: {error.fix}")
    assert files(here) == ["data.npy"]


def test_an_interrupt_is_no_traceback(sdk: FakeSdk, here: Path) -> None:
    sdk.error = KeyboardInterrupt()
    answer = compile_()
    assert answer.code == 130
    assert answer.err.strip() == "error: interrupted"
    assert files(here) == ["data.npy"]
