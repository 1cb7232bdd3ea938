"""What is no regular file is neither read nor replaced, and a reader who goes away changes no answer."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fhe_core.cli.outputs import beside, check_file, check_replaceable
from fhe_core.cli.report import check_picture
from onnx import TensorProto, helper

from fhe_core import InputError

from .conftest import cli

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in folders")


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _link_to_a_pipe(path: Path) -> None:
    os.mkfifo(path.with_suffix(".pipe"))
    path.symlink_to(path.with_suffix(".pipe"))


def _socket(path: Path) -> None:
    os.mknod(path, stat.S_IFSOCK | 0o600)


KINDS: list[Callable[[Path], None]] = [_pipe, _loop, _link_to_a_pipe, _socket, Path.mkdir]


@pytest.mark.parametrize("make", KINDS)
def test_an_output_that_is_no_file_is_refused_before_the_work_and_kept(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    for name, check in (
        ("page.html", check_replaceable),
        ("out.npz", check_file),
        ("front.svg", lambda path: check_picture(path, {})),
    ):
        path = tmp_path / name
        make(path)
        before = os.lstat(path)
        with pytest.raises(InputError, match="the output"):
            check(path)
        with pytest.raises(InputError, match="the output"), beside(path) as temporary:
            temporary.write_text("lost")
        assert os.lstat(path) == before
        assert not list(tmp_path.glob(".*")), "nothing is left beside it"


def test_a_link_to_a_file_stays_one(tmp_path: Path) -> None:
    (tmp_path / "file.html").write_text("old")
    (tmp_path / "link.html").symlink_to("file.html")
    with beside(tmp_path / "link.html") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "link.html").is_symlink()
    assert (tmp_path / "file.html").read_text() == "new"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, one of which does not compile, and what is no file."""
    folder = tmp_path_factory.mktemp("files")
    for name, op in (("good", "Relu"), ("bad", "NoSuchOp")):
        infos = [helper.make_tensor_value_info(x, TensorProto.FLOAT, ["N", 2]) for x in "xy"]
        graph = helper.make_graph(
            [helper.make_node(op, ["x"], ["y"], domain="" if op == "Relu" else "nobody")],
            "net", infos[:1], infos[1:],
        )  # fmt: skip
        imports = [helper.make_opsetid("", 17), helper.make_opsetid("nobody", 1)]
        model = helper.make_model(graph, opset_imports=imports, ir_version=8)
        onnx.save(model, folder / f"{name}.onnx")
    np.save(folder / "x.npy", np.zeros((2, 2), np.float32))
    os.mkfifo(folder / "pipe")
    (folder / "loop").symlink_to("loop")
    return folder


def fhe_ops(folder: Path, *words: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    program = "from fhe_core.cli import main; main()"
    packs = {name: value for name, value in os.environ.items() if name != "FHE_PACKS_BLOCK"}
    return subprocess.run(
        [sys.executable, "-c", program, *words],
        cwd=folder,
        env=packs,
        timeout=60,
        check=False,
        **options,
    )


@pytest.mark.parametrize(("model", "code"), [("good", 0), ("bad", 1)])
def test_the_exit_code_tells_of_the_model_and_not_of_the_reader(
    model: str, code: int, folder: Path
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        gone = fhe_ops(folder, "check", f"{model}.onnx", stdout=writer, stderr=subprocess.PIPE)
    finally:
        os.close(writer)
    assert (gone.returncode, gone.stderr) == (code, b"")
    closed = fhe_ops(
        folder, "check", f"{model}.onnx", stderr=subprocess.PIPE, preexec_fn=lambda: os.close(1)
    )
    assert (closed.returncode, closed.stderr) == (code, b"")


@pytest.mark.parametrize(
    "words",
    [
        ("check", "pipe"),
        ("check", "loop"),
        ("check", "/dev/null"),
        ("report", "loop"),
        ("report", "pipe"),
        ("compile", "good.onnx", "--calibration", "pipe", "-o", "out"),
        ("compile", "good.onnx", "--calibration", "x.npy", "-o", "loop"),
        ("compile", "good.onnx", "--calibration", "x.npy", "-o", "loop/out"),
        ("compile", "good.onnx", "--calibration", "x.npy", "-o", "out", "--plan", "pipe"),
        ("run", "loop", "--input", "x.npy", "--output", "out.npz"),
        ("new-pack", "name", "--output", "loop"),
    ],
    ids=" ".join,
)
def test_a_pipe_a_device_or_a_circle_of_links_is_wrong_use(
    words: tuple[str, ...], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    answer = cli(*words)
    assert answer.code == 2, answer
