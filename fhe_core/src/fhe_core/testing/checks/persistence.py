"""A quantized operator survives being saved."""

from __future__ import annotations

import tempfile
from pathlib import Path

from fhe_core.testing.attempts import cases, net_of
from fhe_core.testing.checks import Check, CheckFailed
from fhe_core.testing.checks.accuracy import is_quantized
from fhe_core.testing.checks.execution import require_equal
from fhe_core.testing.subject import Subject

_BITS = 4


def _save_load(subject: Subject, case: str) -> None:
    from fhe_core.compiler.artifact import load

    net = net_of(subject, case)
    module = net.module(_BITS, _BITS + 1)
    with tempfile.TemporaryDirectory() as folder:
        module.save(Path(folder) / "model")
        loaded = load(Path(folder) / "model")
    if loaded.plan.to_json() != module.plan.to_json():
        raise CheckFailed(
            "the plan of a loaded model differs from the one that was saved",
            fix="keep to numbers, strings and arrays in what the op writes to its plan",
        )
    require_equal(
        loaded.forward(**net.data),
        module.forward(**net.data),
        "saved and loaded",
        "use arrays, numbers, strings and tuples as arguments of NumPy functions",
    )


SAVE_LOAD = Check(
    "save-load",
    "saved and loaded, without the pack, it gives what it gave before.",
    _save_load,
    is_quantized,
    cases,
)

CHECKS = (SAVE_LOAD,)
