"""What a benchmark found: targets with what was reached, kept in ``docs/bench.json``."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "docs" / "bench.json"
DISTRIBUTIONS = (
    "fhe-core",
    "fhe-ops-std",
    "fhe-ops-contrib",
    "concrete-python",
    "numpy",
    "onnx",
)


@dataclass(frozen=True)
class Target:
    """One promise, and what became of it.

    Attributes:
        missed: by how much it is missed; empty if it is met.
    """

    what: str
    target: str
    reached: str
    missed: str = ""

    @property
    def outcome(self) -> str:
        return f"missed: {self.missed}" if self.missed else "met"


def at_least(what: str, reached: float, bound: float, form: str) -> Target:
    """A target where more is better. ``form`` spells a number: ``"{:,.0f} digits/s"``."""
    missed = "" if reached >= bound else f"{bound / reached:.3g}x too little"
    return Target(what, f"≥ {form.format(bound)}", form.format(reached), missed)


def at_most(what: str, reached: float, bound: float, form: str) -> Target:
    """A target where less is better. ``form`` spells a number: ``"{:.3f} s"``."""
    missed = "" if reached <= bound else f"{reached / bound:.3g}x too much"
    return Target(what, f"≤ {form.format(bound)}", form.format(reached), missed)


def keep(section: str, targets: Sequence[Target], figures: Mapping[str, Any]) -> None:
    """Replace one section of the file. Written beside and renamed: it is never half a file.

    Args:
        section: the benchmark's name.
        figures: all that was measured, as JSON values.
    """
    kept = kept_sections()
    kept[section] = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": _machine(),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in DISTRIBUTIONS},
        },
        "targets": [{**asdict(target), "met": not target.missed} for target in targets],
        "figures": _short(figures),
    }
    beside = KEPT.with_suffix(".json.new")
    text = json.dumps(kept, indent=1, sort_keys=True, ensure_ascii=False)
    beside.write_text(text + "\n", encoding="utf-8")
    beside.replace(KEPT)


def kept_sections() -> dict[str, Any]:
    """The last result of every benchmark, by name; empty if there is none."""
    if not KEPT.exists():
        return {}
    sections: dict[str, Any] = json.loads(KEPT.read_text(encoding="utf-8"))
    return sections


def targets_of(section: Mapping[str, Any]) -> list[Target]:
    """The targets of one kept section."""
    return [
        Target(**{key: value for key, value in kept.items() if key != "met"})
        for kept in section["targets"]
    ]


def _machine() -> dict[str, Any]:
    return {"system": platform.system(), "machine": platform.machine(), "cpus": os.cpu_count()}


def _short(value: Any) -> Any:
    """Floats with six significant digits: more would change with every run for nothing."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {key: _short(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_short(item) for item in value]
    return value
