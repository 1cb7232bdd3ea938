"""What ``check`` answers: what becomes of each node, and everything that is in the way."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from fhe_core.errors import FheError

ENCRYPTED = "encrypted"
FUSED = "fused"
BEFORE_ENCRYPTION = "before encryption"
AFTER_DECRYPTION = "after decryption"
FOLDED = "folded"
FLOAT_ONLY = "float only"
UNSUPPORTED = "unsupported"
UNUSED = "unused"
REWRITTEN = "rewritten"
MERGED = "merged"

_WIDTH = 80
_SHOWN_NODES = 5  # names of one op's nodes in the text; the report holds them all


@dataclass(frozen=True)
class Problem:
    """One reason why a model does not compile.

    ``node`` and ``op`` are empty where it concerns the whole model, ``fix`` where none is known,
    ``pack`` where no pack's code is concerned.
    """

    node: str
    op: str
    reason: str
    fix: str
    pack: str = ""

    @classmethod
    def of(cls, error: FheError) -> Problem:
        """What an error says, as a problem."""
        details = [
            f"{label} {text}"
            for label, text in (("expected", error.expected), ("got", error.got))
            if text
        ]
        reason = error.problem + (f" ({'; '.join(details)})" if details else "")
        where = error.where
        return cls(where.node or "", where.op or "", reason, error.fix or "", where.pack or "")

    def __str__(self) -> str:
        return _grouped([self])[0]


@dataclass(frozen=True)
class NodeSupport:
    """What becomes of one node.

    ``status`` is one of ``"encrypted"`` (integer arithmetic, perhaps with look-ups, on the server),
    ``"fused"`` (part of a table look-up there), ``"before encryption"`` and ``"after decryption"`` (in
    float, by the client),
    ``"folded"`` (a constant), ``"merged"`` (another node computes the same), ``"unused"`` (no output
    needs it), ``"rewritten"`` (a pack's graph pass has put something else in its place),
    ``"float only"`` (has no quantized form where one is needed) and ``"unsupported"`` (nothing
    implements it, or it cannot be encrypted at this place). ``pack`` is whose code runs, empty if
    none does. ``quantized`` tells whether an installed pack has a quantized form of the op at all.
    """

    node: str
    op: str
    domain: str
    opset: int
    status: str
    pack: str
    quantized: bool = False


@dataclass(frozen=True)
class SupportReport:
    """Whether a model compiles, and if not, everything that is in the way."""

    problems: tuple[Problem, ...]
    nodes: tuple[NodeSupport, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is in the way."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """The report in plain types, as for JSON."""
        return {"ok": self.ok, **asdict(self)}

    def __str__(self) -> str:
        counts = Counter(node.status for node in self.nodes)
        listed = ", ".join(f"{count} {status}" for status, count in counts.items())
        nodes = f" {_plural(len(self.nodes), 'node')}: {listed}." if self.nodes else ""
        if self.ok:
            return _wrapped(f"This model compiles.{nodes}")
        head = f"This model does not compile: {_plural(len(self.problems), 'problem')}.{nodes}"
        lines = [_wrapped(f"- {line}", "  ") for line in _grouped(self.problems)]
        return "\n".join([_wrapped(head), *lines])


def _grouped(problems: Iterable[Problem]) -> list[str]:
    """One sentence for all the nodes of one op that have the same problem."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for problem in problems:
        groups.setdefault((problem.op, problem.reason, problem.fix), []).append(problem.node)
    lines = []
    for (op, reason, fix), nodes in groups.items():
        names = ", ".join(nodes[:_SHOWN_NODES])
        if len(nodes) > _SHOWN_NODES:
            names += f" and {len(nodes) - _SHOWN_NODES} more"
        place = f"{names} ({op}): " if op else ""
        lines.append(f"{place}{reason}" + (f". {fix[0].upper()}{fix[1:]}" if fix else ""))
    return lines


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(
        text, _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
