"""Progress: bars on a terminal, nothing elsewhere, and a clean terminal whatever happens."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from fhe_core.errors import InputError
from fhe_core.progress import Progress, SilentProgress, TerminalProgress, duration, progress_of

from .conftest import Site

HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


class Log:
    """A progress of the user's own."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        self.lines.append(f"{name} of {total}")
        yield lambda steps: self.lines.append(f"+{steps}")


def work(progress: bool | Progress | None) -> None:
    with progress_of(progress).stage("counting", total=3) as advance:
        advance(1)
        advance(2)


def test_an_object_is_used_itself() -> None:
    log = Log()
    assert progress_of(log) is log
    work(log)
    assert log.lines == ["counting of 3", "+1", "+2"]


@pytest.mark.parametrize("given", [None, False, True])
def test_nothing_is_shown_where_there_is_no_terminal(
    given: bool | None, capfd: pytest.CaptureFixture[str]
) -> None:
    assert isinstance(progress_of(given), SilentProgress)
    work(given)
    assert capfd.readouterr() == ("", "")


def test_a_dumb_terminal_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(progress_of(True), SilentProgress)
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(progress_of(True), TerminalProgress)


def test_what_is_no_progress_is_refused() -> None:
    with pytest.raises(InputError, match=r"stage\(name, total\); got: str"):
        progress_of("yes")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (125, "2 min 05 s"),
        (3599.6, "1 h 00 min"),
        (7260, "2 h 01 min"),
    ],
)
def test_durations_are_written_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


STAGES = """
import sys, time, warnings
from fhe_core.progress import progress_of
progress = progress_of(True)
with progress.stage("calibrating", total=40) as advance:
    for _ in range(40):
        time.sleep(0.01)
        advance(1)
with progress.stage("searching [/] the cheapest circuit " + "of all " * 20, total=2) as advance:
    for number in range(2):
        with progress.stage(f"compiling {number}"):
            print(f"printed {number}")
            time.sleep(0.15)
        advance(9)
try:
    with progress.stage("failing"):
        time.sleep(0.15)
        raise ValueError
except ValueError:
    print("caught")
with progress.stage("interrupted"):
    raise SystemExit(7)
"""


@pytest.fixture
def shown(site: Site) -> str:
    result = site.run(sys.executable, "-c", STAGES, pty=True)
    assert result.returncode == 7, result
    return result.stdout


def test_finished_outer_stages_stay_with_their_time(shown: str) -> None:
    # What a terminal of enough lines ends up with: a line that is erased starts anew.
    kept = [line.rsplit("\x1b[2K", 1)[-1] for line in shown.split("\n")]
    lines = [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\r", "", line).rstrip() for line in kept]
    marked = [line for line in lines if line.startswith(("✓", "✗", "printed", "caught"))]
    assert [re.sub(r"\d\.\d s", "T", line) for line in marked] == [
        "✓ calibrating  T",
        "printed 0",
        "printed 1",
        "✓ searching [/] the cheapest circuit of all of al...  T",
        "✗ failing  T, stopped",
        "caught",
        "✗ interrupted  T, stopped",
    ]


def test_bars_move_and_fit_the_terminal(shown: str) -> None:
    frames = re.split(r"\r|\n|\x1b\[2K|\x1b\[1A", shown)
    plain = [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", frame) for frame in frames]
    assert max(map(len, plain)) <= 80
    counts = {match[1] for frame in plain if (match := re.search(r"calibrating.* (\d+)/40", frame))}
    assert len(counts) > 2
    assert any(re.search(r"  compiling 1 +0\.\d s", frame) for frame in plain)
    assert any(re.search(r"searching \[/\] the cheapest.* 2/2 ", frame) for frame in plain)


def test_the_cursor_comes_back_after_every_stage(shown: str) -> None:
    assert shown.count(HIDE_CURSOR) == shown.count(SHOW_CURSOR) == 4
    assert shown.rindex(SHOW_CURSOR) > shown.rindex(HIDE_CURSOR)


def test_a_terminal_without_unicode_gets_ascii(site: Site) -> None:
    code = STAGES.split("try:")[0]
    shown = site.run(sys.executable, "-c", code, pty=True, PYTHONIOENCODING="ascii").stdout
    assert shown.isascii()
    assert "+\x1b[0m calibrating" in shown
