"""The conformance suite of whichever pack ``--pack`` names; see `fhe_core.testing.plugin`."""

from __future__ import annotations

import pytest

from fhe_core.testing.suite import PackSuite


class TestPack(PackSuite):
    """An installed pack, without exceptions and without samples of its own."""

    def pack_name(self, config: pytest.Config) -> str:
        """What the command line says."""
        name = config.getoption("--pack", default=None)
        if not name:
            pytest.fail(
                "no pack is named: run `python -m pytest -p fhe_core.testing.plugin --pack NAME "
                "--pyargs fhe_core.testing.conformance`",
                pytrace=False,
            )
        return str(name)
