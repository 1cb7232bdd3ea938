"""The conformance suite for pytest: subclass `PackSuite`, and every check is a test.

A test is called after its check, ``test_onnx_cases[Softmax/test_softmax_axis_0]``, so that
``-k onnx_cases`` and ``-k Softmax`` choose from them. The class needs no plugin: pytest asks it for
its parameters, and that is where it makes its mark known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import pytest

from fhe_core.errors import FheError
from fhe_core.testing.checks import Check, CheckFailed, CheckSkipped
from fhe_core.testing.checks.all import CHECKS
from fhe_core.testing.running import UNUSED_EXCEPTION, Trial, plan
from fhe_core.testing.sample import Sample
from fhe_core.testing.subject import BITS

MARK = "fhe"
MARK_LINE = f"{MARK}: encrypts with real keys; small circuits, a few seconds each"


class PackSuite:
    """Everything that a pack has to keep, as tests.

    Example::

        from fhe_core.testing import PackSuite, Sample

        class TestMyPack(PackSuite):
            pack = "mypack"
            exceptions = {"accuracy/Foo": "its table has a pole at 0"}

            def samples(self):
                x = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
                return {"Foo": [Sample(x, attributes={"alpha": 2.0}, expected=2 * x)]}

    Attributes:
        pack: the name of the pack's entry point.
        bits: the widths, in bits, at which quantized operators are tried.
        exceptions: ``CHECK/OP`` or ``CHECK/OP/CASE`` to the reason why it is expected to fail. Its
            tests are strict xfails, and one that fits no test is a failure.
        encrypted: the operators of the encrypted run; by default every one that computes on integers, and
            one that never does. Each takes a few seconds.
        thin: not every check on every sample of an operator, but each check on some and each sample in
            some, for packs with hundreds of operators. Results are compared on all samples as before.
    """

    pack: ClassVar[str] = ""
    bits: ClassVar[Sequence[int]] = BITS
    exceptions: ClassVar[Mapping[str, str]] = {}
    encrypted: ClassVar[Sequence[str] | None] = None
    thin: ClassVar[bool] = False

    def samples(self) -> Mapping[str, Sequence[Sample]]:
        """Inputs by operator: needed for custom domains, more to try for ONNX's."""
        return {}

    def pack_name(self, config: pytest.Config) -> str:
        """The name of the pack under test; ``pack`` unless a subclass knows better."""
        return self.pack

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Gives each test of this class its cases. pytest calls it while it collects."""
        check = getattr(metafunc.function, "check", None)
        if check is None:
            return
        _declare_mark(metafunc.config)
        planned = metafunc.config.stash.setdefault(_PLANNED, {})
        if type(self) not in planned:
            planned[type(self)] = self._plan(self.pack_name(metafunc.config))
        trials = planned[type(self)].get(check.name, [])
        marks = [pytest.mark.fhe] if check.encrypts else []
        parameters = [_parameter(trial, marks) for trial in trials]
        nothing = pytest.mark.skip(reason="the pack has nothing that this is about")
        # An empty list is what the user's ini file decides about: it may be an error there.
        metafunc.parametrize("trial", parameters or [pytest.param(None, id="none", marks=nothing)])

    def _plan(self, pack: str) -> Mapping[str, list[Trial]]:
        """The cases by check."""
        suite = type(self).__name__
        if not pack:
            pytest.fail(f"{suite} does not name its pack: set `pack`", pytrace=False)
        try:
            trials = plan(
                pack,
                samples=self.samples(),
                bits=self.bits,
                encrypted=self.encrypted,
                exceptions=self.exceptions,
                thin=self.thin,
            )
        except FheError as error:
            pytest.fail(f"{suite}: {error}", pytrace=False)
        by_check: dict[str, list[Trial]] = {}
        for trial in trials:
            by_check.setdefault(trial.check.name, []).append(trial)
        return by_check


# What is worked out once for a class, in one run of pytest.
_PLANNED = pytest.StashKey[dict[type[PackSuite], Mapping[str, list[Trial]]]]()


def _declare_mark(config: pytest.Config) -> None:
    """Makes the mark known, as --strict-markers wants; the project's own ini file may not."""
    if not any(line.split(":")[0].strip() == MARK for line in config.getini("markers")):
        config.addinivalue_line("markers", MARK_LINE)


def _parameter(trial: Trial, marks: Sequence[pytest.MarkDecorator]) -> Any:
    excused = (
        [pytest.mark.xfail(reason=trial.reason, strict=True)] if trial.reason is not None else []
    )
    return pytest.param(trial, id=trial.label, marks=[*marks, *excused])


def _test_of(check: Check) -> Callable[[PackSuite, Trial], None]:
    def test(self: PackSuite, trial: Trial) -> None:
        try:
            trial.run()
            return
        except CheckSkipped as skip:
            skipped, reason = True, str(skip)
        except CheckFailed as failure:
            skipped, reason = False, str(failure)
        if skipped:
            pytest.skip(reason)
        # The message says it all; a traceback would be of this package, not of the pack.
        pytest.fail(reason, pytrace=False)

    test.__name__ = f"test_{check.name.replace('-', '_')}"
    test.__qualname__ = f"{PackSuite.__name__}.{test.__name__}"
    test.__doc__ = f"{check.law[0].upper()}{check.law[1:]}"
    test.check = check  # type: ignore[attr-defined]
    return test


for _check in (*CHECKS, UNUSED_EXCEPTION):
    _test = _test_of(_check)
    setattr(PackSuite, _test.__name__, _test)
