"""What a user sees of long work.

Everything long takes ``progress=`` and reports in stages::

    with progress_of(progress).stage("calibrating", total=len(data)) as advance:
        for batch in batches:
            ...
            advance(len(batch))

Nothing but the standard library is imported until a terminal is drawn on.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from fhe_core.errors import InputError

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live
    from rich.text import Text

Advance = Callable[[int], None]


@runtime_checkable
class Progress(Protocol):
    """Whatever shows, logs or ignores the stages of long work."""

    def stage(self, name: str, total: int | None = None) -> AbstractContextManager[Advance]:
        """A stage of the work, for as long as the context lasts.

        Args:
            name: what is going on, a few words such as "calibrating".
            total: how many steps it takes, None if that is unknown.

        Returns:
            a context whose value is called with the number of steps just done. A stage opened
            while another is open is a part of it.
        """


def progress_of(given: bool | Progress | None) -> Progress:
    """What a ``progress=`` argument means.

    Args:
        given: True for bars on standard error if that is a terminal; False or None for silence; or
            an object with `Progress.stage`, which comes back itself.

    Raises:
        InputError: it is none of these.
    """
    if given is None or given is False:
        return SilentProgress()
    if given is True:
        return TerminalProgress() if _can_draw() else SilentProgress()
    if isinstance(given, Progress):
        return given
    raise InputError(
        "progress cannot be shown this way",
        expected="True, False, None or an object with a method stage(name, total)",
        got=type(given).__name__,
        fix="pass progress=True for bars on a terminal",
    )


def duration(seconds: float) -> str:
    """Seconds as people read them: ``0.4 s``, ``12 s``, ``2 min 05 s``, ``1 h 02 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02} min"


class SilentProgress:
    """Shows nothing."""

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Advance]:
        yield _ignore


def _ignore(steps: int) -> None:
    pass


class TerminalProgress:
    """Bars on standard error.

    Open stages are drawn, inner ones below outer ones. A finished outermost stage leaves one line
    with its time, or a line that says so if an exception stopped it; inner ones leave nothing. Any
    thread may advance a stage, one opens and closes them.
    """

    def __init__(self) -> None:
        self._open: list[_Stage] = []
        self._live: Live | None = None
        self._encoding = "ascii"

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Advance]:
        stage = _Stage(name, total)
        self._open.append(stage)
        finished = False
        try:
            self._show()
            yield stage.advance
            finished = True
        finally:
            self._open.remove(stage)
            if not self._open:
                self._close(stage.epitaph(finished, self._encoding))

    def _show(self) -> None:
        if self._live is not None:
            self._live.refresh()
            return
        from rich.console import Console
        from rich.live import Live

        console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        self._encoding = console.encoding
        self._live = Live(
            console=console,
            get_renderable=self._draw,
            refresh_per_second=10,
            transient=True,
            # What is printed to a terminal goes above the bars; a piped stdout stays a pipe.
            redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
        )
        self._live.start(refresh=True)

    def _close(self, last_words: Text) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()
            live.console.print(last_words)

    def _draw(self) -> RenderableType:
        from rich.table import Table

        grid = Table.grid(padding=(0, 1))
        for justify in ("left", "left", "left", "right", "left"):
            grid.add_column(no_wrap=True, justify=justify)
        for depth, stage in enumerate(list(self._open)):
            grid.add_row(*stage.cells(depth, self._encoding))
        return grid


class _Stage:
    """One stage and how far it is."""

    def __init__(self, name: str, total: int | None) -> None:
        self._name = name
        self._total = total
        self._done = 0
        self._start = time.monotonic()
        self._paced = 0.0  # when it last advanced, in seconds from the start
        self._lock = threading.Lock()

    def advance(self, steps: int = 1) -> None:
        with self._lock:
            self._done += steps
            self._paced = time.monotonic() - self._start

    def cells(self, depth: int, encoding: str) -> tuple[RenderableType, ...]:
        """Spinner, name, bar, count and time: 80 columns at most, up to counts of 9999."""
        from rich.progress_bar import ProgressBar

        elapsed = time.monotonic() - self._start
        frames = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏" if _is_unicode(encoding) else "-\\|/"
        spinner = frames[int(elapsed * 10) % len(frames)]
        name = _clipped("  " * depth + self._name, 34)
        if not self._total:
            return spinner, name, duration(elapsed)
        done = min(self._done, self._total)
        times = duration(elapsed)
        if done and elapsed > 2:  # before that, an estimate would jump about
            # At the pace up to the last step: from then on, what is left must shrink.
            left = max(0.0, self._paced / done * self._total - elapsed)
            times = f"{duration(left)} left"
        bar = ProgressBar(total=self._total, completed=done, width=14)
        return spinner, name, bar, f"{done}/{self._total}", times

    def epitaph(self, finished: bool, encoding: str) -> Text:
        """The line that stays."""
        from rich.text import Text

        good, bad = ("✓", "✗") if _is_unicode(encoding) else ("+", "!")
        mark, style = (good, "green") if finished else (bad, "red")
        took = duration(time.monotonic() - self._start) + ("" if finished else ", stopped")
        return Text.assemble((mark, style), f" {_clipped(self._name, 50)}  ", (took, "dim"))


def _clipped(name: str, width: int) -> str:
    return name if len(name) <= width else f"{name[: width - 3]}..."


def _can_draw() -> bool:
    # A dumb terminal cannot move its cursor, so bars would fill it with copies of themselves.
    stream = sys.stderr
    return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"


def _is_unicode(encoding: str) -> bool:
    return encoding.lower().startswith("utf")
