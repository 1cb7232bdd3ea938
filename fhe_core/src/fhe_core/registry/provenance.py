"""Who a pack is: on every operator that it supplies, and in the list of all packs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["loaded", "failed", "blocked"]


@dataclass(frozen=True)
class PackInfo:
    """A pack that is installed, and what became of it.

    Attributes:
        name: the name of its entry point.
        distribution: the distribution that it comes from; None if its metadata is unreadable.
        version: of the distribution.
        path: the file that Python imports, None if it cannot be told.
        entry_point: what it names, "module" or "module:object"; None if it is unreadable.
        status: "loaded", "failed" or "blocked".
        reason: why it is not loaded, one sentence without a full stop; None if it is.
        hooks: the names of those that it implements; empty if that could not be found out.
        file, line: where it failed, in its own code if that can be told; None if it did not.
    """

    name: str
    distribution: str | None = None
    version: str | None = None
    path: str | None = None
    entry_point: str | None = None
    status: Status = "loaded"
    reason: str | None = None
    hooks: tuple[str, ...] = ()
    file: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        origin = f" ({self.distribution} {self.version})" if self.distribution else ""
        return f"pack {self.name!r}{origin}"


#: Stands for the body of a `fhe_core.registered`, as if it were a pack.
REGISTERED = PackInfo("<registered>")


def to_mend(origin: PackInfo | None, *, optional: bool = False) -> str:
    """Who can mend what a pack does wrong, as the end of an error; without a pack, the kernel's own authors.

    Args:
        optional: the model runs without the pack, so that it can be blocked.
    """
    if origin == REGISTERED:
        return "correct it: the code that calls this has registered it"
    whose = "fhe-core" if origin is None else origin.distribution or f"the pack {origin.name!r}"
    block = ", or block the pack with FHE_PACKS_BLOCK" if optional and origin else ""
    return f"report it to the authors of {whose}, with the model{block}"
