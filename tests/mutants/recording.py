"""A pytest plugin: how long each test that passed took, as JSON, into the file that ``MUTANTS_TIMES`` names."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

_seconds: dict[str, float] = {}
_failed: set[str] = set()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _seconds[report.nodeid] = _seconds.get(report.nodeid, 0.0) + report.duration
    if not report.passed:
        _failed.add(report.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if not hasattr(
        session.config, "workerinput"
    ):  # of all workers: the one that hears of every test
        passed = {test: spent for test, spent in _seconds.items() if test not in _failed}
        Path(os.environ["MUTANTS_TIMES"]).write_text(json.dumps(passed))
