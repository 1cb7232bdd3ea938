"""``fhe-ops report``: one report in every format; and the picture of a search."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fhe_core.cli import report as command
from fhe_core.quantization.module import Cost, Outcome, QuantizedModule
from fhe_core.quantization.planning import Settings

import fhe_core
from tests.core.compiler.nets import client_sided, samples
from tests.core.compiler.test_forged_folders import forged

from .conftest import Answer, Site, cli, refused
from .test_json import Schema, definitions, faults

__all__ = ["definitions"]


def searched() -> tuple[Any, ...]:
    """Candidates as a search leaves them, one without a price."""
    settings = Settings.of(4, 4)
    costs = (Cost(1e9, 9, 9, 1e-9, 1e-8), Cost(2e9, 9, 9, 1e-9, 1e-8), None)
    return tuple(
        SimpleNamespace(settings=settings, score=score, cost=cost, checked=0.01)
        for score, cost in zip((0.9, 0.95, 0.8), costs, strict=True)
    )


@pytest.fixture(scope="module")
def qm() -> QuantizedModule:
    """Quantized and not compiled, with a client's side, as if its widths had been searched for."""
    module = fhe_core.quantize(client_sided(), samples(4), n_bits=3)
    module.search = searched()
    module.outcome = Outcome(float_score=0.96, score=0.95, tolerance=0.02)
    module.notices = ("the input is narrow",)
    return module


@pytest.fixture(scope="module")
def saved(qm: QuantizedModule, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reports") / "net"
    qm.save(folder)
    return folder


def report(folder: Path, *options: object) -> Answer:
    answer = cli("report", folder, *options)
    assert (answer.code, answer.err) == (0, "")
    return answer


def test_a_pipe_gets_a_line_for_each_row(saved: Path) -> None:
    lines = report(saved).out.splitlines()
    assert lines[0] == "net, quantized and not compiled: it has no cost yet"
    (row,) = (line for line in lines if line.startswith("h ") and "Gemm + Relu" in line)
    share, error = row.split()[-2:]
    assert share == "-"
    assert error.endswith("%")
    for heading in ("The whole model", "2 layers", "Fusion", "On the client's side"):
        assert heading in lines
    assert "Pareto front of 3 candidates" in lines
    assert "the input is narrow" in lines


def test_a_terminal_of_80_columns_breaks_no_line(saved: Path, site: Site) -> None:
    program = "from fhe_core.cli import main; main()"
    answer = site.run(sys.executable, "-c", program, "report", str(saved), pty=True)
    assert answer.returncode == 0, answer.stdout
    shown = [
        line.replace("\x1b[1m", "").replace("\x1b[0m", "") for line in answer.stdout.split("\n")
    ]
    assert max(map(len, shown)) <= 80
    assert any("Gemm + Relu" in line for line in shown)


def test_json_is_as_documented_and_as_in_python(
    saved: Path, qm: QuantizedModule, definitions: Schema
) -> None:
    found = json.loads(report(saved, "--format", "json").out)
    assert faults(found, definitions["report"], definitions) == []
    assert found == json.loads(json.dumps(qm.report))


def test_markdown_is_a_page_of_tables(saved: Path) -> None:
    out = report(saved, "--format", "md").out
    assert out.startswith("# net\n\nQuantized and not compiled: it has no cost yet.\n")
    assert "\n## Fusion\n\n| op | node | mode |" in out


def test_the_web_page_goes_to_its_file(saved: Path, tmp_path: Path) -> None:
    place = tmp_path / "new" / "page.html"
    answer = report(saved, "--html", place)
    assert answer.out == f"Saved to {place}\n"
    text = place.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert "<title>net</title>" in text


def test_a_folder_that_is_no_saved_model_is_refused(tmp_path: Path) -> None:
    refused(cli("report", tmp_path), 2, "is no saved model")
    refused(cli("report", tmp_path / "none"), 2, "is no saved model")


@pytest.mark.parametrize("text", ["[]", "{}", "NaN", "[" * 10**5, '{"layers": 7}'])
@pytest.mark.parametrize("options", [(), ("--html", "page.html"), ("--format", "md")])
def test_a_report_that_means_nothing_is_refused(
    text: str,
    options: tuple[str, ...],
    saved: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Though its hash agrees."""
    monkeypatch.chdir(tmp_path)
    folder = Path(shutil.copytree(saved, tmp_path / "net"))
    forged(folder, "report.json", text.encode())
    refused(cli("report", folder, *options), 2, "net'")
    assert not (tmp_path / "page.html").exists()


def test_a_page_that_cannot_be_written_is_refused_first(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused(cli("report", tmp_path, "--html", tmp_path / "file" / "x.html"), 2, "not a folder")


# -- the picture of a search


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--pareto", "front.pdf"), ("neither .png nor .svg", "front.svg")),
        (("--pareto", "front.svg", "--n-bits", "4"), ("nothing is searched for",)),
        (("--pareto", "front.svg", "--plan", "plan.json"), ("nothing is searched for",)),
    ],
)
def test_a_picture_that_cannot_be_is_refused_before_the_work(
    options: tuple[str, ...], words: tuple[str, ...], tmp_path: Path
) -> None:
    answer = cli("compile", "m.onnx", "--calibration", "x.npy", "-o", tmp_path / "out", *options)
    refused(answer, 2, *words)


def test_a_png_without_matplotlib_names_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    answer = cli(
        *("compile", "m.onnx", "--calibration", "x.npy", "-o", tmp_path / "out"),
        *("--pareto", tmp_path / "front.png"),
    )
    refused(answer, 1, "pip install 'fhe-core[plot]'", ".svg")


def test_the_front_is_drawn_as_svg_and_as_png(qm: QuantizedModule, tmp_path: Path) -> None:
    compiled = {**qm.report, "cost": {"complexity": 2e9}}
    command.draw_front(tmp_path / "front.svg", compiled, "net")
    svg = (tmp_path / "front.svg").read_text(encoding="utf-8")
    assert svg.startswith("<svg")
    assert svg.count("<circle") == 2  # of what has a price
    assert 'class="dot found"' in svg
    pytest.importorskip("matplotlib", reason="needs fhe-core[plot]")
    command.draw_front(tmp_path / "front.png", compiled, "net")
    assert (tmp_path / "front.png").read_bytes().startswith(b"\x89PNG")


def test_a_search_that_priced_nothing_has_no_picture(qm: QuantizedModule, tmp_path: Path) -> None:
    search = {**qm.report["search"], "points": []}
    with pytest.raises(fhe_core.CompilationError, match="priced no candidate"):
        command.draw_front(tmp_path / "front.svg", {**qm.report, "search": search}, "net")
