"""The list of operators with how many of ONNX's cases each passes, for docs/ops.md.

``fhe-ops list --format md`` into a file, and ``python -m tests.ops_std.ops_page FILE``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from .onnx_suite import TALLY

SECTION = "\n## "


def with_cases(page: str, tally: Mapping[str, Any]) -> str:
    """The page with a last column in the tables of ONNX's domains.

    Args:
        page: as ``fhe-ops list --format md`` writes it.
        tally: as `onnx_suite.tally` gives it.
    """
    node = tally["kinds"]["node"]
    intro, *sections = page.split(SECTION)
    intro += (
        f"\nONNX's backend suite (onnx {tally['onnx']}) has cases for one operator each, nearly all of its "
        f"newest version: {node['passed']:,} of {node['total']:,} pass. What is "
        "[left out](exclusions.md) counts as out of scope.\n"
    )
    return SECTION.join([intro, *(_section(section, tally["ops"]) for section in sections)])


def _section(text: str, ops: Mapping[str, Mapping[str, int]]) -> str:
    """A section, ``ai.onnx: 178 operators`` and its table, with the column if ONNX has its domain."""
    domain = text.partition(":")[0]
    if not domain.startswith("ai.onnx"):
        return text
    lines = []
    for line, following in pairwise([*text.split("\n"), ""]):
        if line.startswith("| op |"):
            line += " ONNX cases |"
        elif line.startswith("|-"):
            line += "-:|"
        elif line.startswith("|"):
            op = _op(line)
            key = op if domain == "ai.onnx" else f"{domain}.{op}"
            line += f" {_cases(ops.get(key)) if op != _op(following) else ''} |"
        lines.append(line)
    return "\n".join(lines)


def _op(row: str) -> str:
    return row.split("|")[1].strip() if row.startswith("|") else ""


def _cases(counts: Mapping[str, int] | None) -> str:
    if counts is None:
        return "none"
    passed = f"{counts['passed']} of {counts['total']}"
    return f"{passed}, {counts['excluded']} out of scope" if counts["excluded"] else passed


if __name__ == "__main__":
    tally = json.loads(TALLY.read_text(encoding="utf-8"))
    sys.stdout.write(with_cases(Path(sys.argv[1]).read_text(encoding="utf-8"), tally))
