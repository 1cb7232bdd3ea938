"""``fhe-ops list`` and ``fhe-ops packs``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from fhe_core.cli.render import Section, Table
from fhe_core.cli.text import count
from fhe_core.errors import InputError, PackError, Where
from fhe_core.registry import OpSpec, PackInfo, Registry
from fhe_core.registry.schema import display_domain, newest_opset, normalize_domain

INSTALL = "run `pip install fhe-ops-std`, or install another operator pack"

LEGEND = (
    "An operator has a row for each range of opsets that is served differently. What is float only "
    "runs in the clear and not encrypted. Fusion tells whether the quantized form becomes part of a "
    "table look-up: always, never, or conditional on its place in the graph."
)

ACTIVE = "active"
SHADOWED = "shadowed"
ALTERNATIVE = "alternative"

#: How much of a name must agree with another to be a misspelling of it: "Asin" is none of "Gaussian".
_CLOSE = 0.75

TITLES = ("op", "since", "opsets", "form", "fusion", "pack", "status")


def select(
    registry: Registry,
    domain: str | None = None,
    pack: str | None = None,
    opset: int | None = None,
    *,
    shadowed: bool = False,
) -> list[OpSpec]:
    """The operators that match; empty if none does.

    Args:
        opset: only what serves this opset of its own domain.
        shadowed: also what does not serve because something else does.

    Raises:
        PackError: no pack is loaded, or the wanted one is not.
        InputError: a pack, domain or opset that nobody knows.
    """
    _check_packs(registry, pack)
    specs = registry.ops(shadowed=shadowed)
    if domain is not None:
        wanted = normalize_domain(domain)
        _check_domain(wanted, {spec.domain for spec in specs})
        specs = [spec for spec in specs if spec.domain == wanted]
    if opset is not None:
        _check_opset(opset, {spec.domain for spec in specs})
    return [
        spec
        for spec in specs
        if pack in (None, spec.impl_pack, spec.quantized_pack)
        and (opset is None or _serves(spec, opset))
    ]


def ops_sections(specs: Iterable[OpSpec], *, shadowed: bool) -> list[Section]:
    """A table for each domain, one row an operator and range of opsets.

    Args:
        shadowed: with the last column, which tells what serves from what does not.
    """
    columns = len(TITLES) if shadowed else len(TITLES) - 1
    sections = []
    for domain, group in groupby(specs, key=lambda spec: spec.domain):
        rows = list(group)
        cells = [_cells(spec)[:columns] for spec in rows]
        table = Table(TITLES[:columns], cells, frozenset({"since"}))
        sections.append(Section(f"{display_domain(domain)}: {totals(rows)}", table))
    return sections


def totals(specs: Iterable[OpSpec]) -> str:
    """``114 operators, 106 with a quantized form``: what serves, each operator once."""
    serving = [spec for spec in specs if status_of(spec) == ACTIVE]
    ops = {(spec.domain, spec.op_type) for spec in serving}
    quantized = {(spec.domain, spec.op_type) for spec in serving if spec.quantized}
    return f"{count(len(ops), 'operator')}, {len(quantized)} with a quantized form"


def op_records(specs: Iterable[OpSpec]) -> list[dict[str, Any]]:
    """For programs; docs/json.md documents the keys: add to them, change none."""
    return [
        {
            "op": spec.op_type,
            "domain": spec.domain,
            "since_version": spec.since_version,
            "until": spec.until,
            "quantized": spec.quantized is not None,
            "fusion": spec.fusion,
            "status": status_of(spec),
            **_supplier("impl", spec.impl_pack, spec.impl_origin),
            **_supplier("quantized", spec.quantized_pack, spec.quantized_origin),
            "signature": str(spec.signature) if spec.signature else None,
        }
        for spec in specs
    ]


def packs_table(registry: Registry) -> Table:
    """One row a pack, whatever became of it."""
    rows = [
        (
            pack.name,
            pack.distribution or "",
            pack.version or "",
            pack.status,
            str(_op_count(registry, pack)),
        )
        for pack in registry.packs()
    ]
    titles = ("pack", "distribution", "version", "status", "ops")
    return Table(titles, rows, frozenset({"ops"}))


def pack_notes(registry: Registry) -> list[str]:
    """What does not fit a table: why a pack is not loaded, where that came up, which hooks it has, what it
    imports, and where that is; then whose operators it overrides."""
    notes = [
        f"{pack.name}: " + "; ".join(facts)
        for pack in registry.packs()
        if (
            facts := list(
                filter(
                    None, (pack.reason, _place(pack), _hooks(pack), _entry_point(pack), pack.path)
                )
            )
        )
    ]
    overridden: dict[tuple[str, str], dict[str, None]] = {}
    for override in overrides(registry):
        what = f"{override.slot} of {display_domain(override.domain)}.{override.op}"
        overridden.setdefault((override.pack, override.other), {})[what] = None
    return notes + [
        f"{pack} overrides {other}: {', '.join(what)}" for (pack, other), what in overridden.items()
    ]


@dataclass(frozen=True)
class Override:
    """A registration that serves in place of another pack's.

    ``is_left_out``: nothing serves in its place, because it computes a function that the pack overrides.
    """

    pack: str
    other: str
    slot: str
    op: str
    domain: str
    is_left_out: bool


def overrides(registry: Registry) -> list[Override]:
    """Which packs' registrations are hidden by which, by operator and slot."""
    rows = registry.ops(shadowed=True)
    found: dict[Override, None] = {}
    for hidden in (row for row in rows if status_of(row) == SHADOWED):
        slot = "quantized" if hidden.quantized else "impl"
        other = hidden.quantized_pack or hidden.impl_pack or ""
        for row in rows:
            same = (row.domain, row.op_type) == (hidden.domain, hidden.op_type)
            if status_of(row) == ACTIVE and same and overlap(row, hidden):
                pack = (row.quantized_pack if slot == "quantized" else None) or row.impl_pack or ""
                left_out = slot == "quantized" and row.quantized is None
                key = Override(pack, other, slot, row.op_type, row.domain, left_out)
                found[key] = None
    return list(found)


def overlap(one: OpSpec, other: OpSpec) -> bool:
    """Whether some opset is in both rows' ranges."""
    return one.serves(other.since_version) or other.serves(one.since_version)


def pack_records(registry: Registry) -> list[dict[str, Any]]:
    """For programs; docs/json.md documents the keys: add to them, change none."""
    overridden = overrides(registry)
    return [
        {
            "name": pack.name,
            "distribution": pack.distribution,
            "version": pack.version,
            "entry_point": pack.entry_point,
            "status": pack.status,
            "ops": _op_count(registry, pack),
            "path": pack.path,
            "reason": pack.reason,
            "hooks": list(pack.hooks),
            "file": pack.file,
            "line": pack.line,
            "overrides": [
                {"pack": o.other, "domain": o.domain, "op": o.op, "slot": o.slot}
                for o in overridden
                if o.pack == pack.name and pack.status == "loaded"
            ],
        }
        for pack in registry.packs()
    ]


def opsets(spec: OpSpec) -> str:
    """``13+``, ``6-12`` or ``9``."""
    if spec.until is None:
        return f"{spec.since_version}+"
    if spec.until == spec.since_version:
        return f"{spec.until}"
    return f"{spec.since_version}-{spec.until}"


def status_of(spec: OpSpec) -> str:
    """Whether a row serves, is hidden by another pack's, or waits to be chosen."""
    if spec.alternative:
        return ALTERNATIVE
    return SHADOWED if spec.shadowed else ACTIVE


def _cells(spec: OpSpec) -> tuple[str, ...]:
    return (
        spec.op_type,
        str(spec.since_version),
        opsets(spec),
        "quantized" if spec.quantized else "float only" if status_of(spec) == ACTIVE else "float",
        spec.fusion or "",
        _packs_of(spec),
        status_of(spec),
    )


def _packs_of(spec: OpSpec) -> str:
    """The pack and its version, or both packs where the quantized form is another's."""
    impl = _versioned(spec.impl_pack, spec.impl_origin)
    quantized = _versioned(spec.quantized_pack, spec.quantized_origin)
    if not impl or quantized in ("", impl):
        return impl or quantized
    return f"{impl}, quantized: {quantized}"


def _versioned(pack: str | None, origin: PackInfo | None) -> str:
    return " ".join(filter(None, (pack, origin.version if origin else None)))


def _supplier(slot: str, pack: str | None, origin: PackInfo | None) -> dict[str, str | None]:
    return {
        f"{slot}_pack": pack,
        f"{slot}_distribution": origin.distribution if origin else None,
        f"{slot}_version": origin.version if origin else None,
    }


def _place(pack: PackInfo) -> str | None:
    return pack.file and f"at {pack.file}:{pack.line}"


def _hooks(pack: PackInfo) -> str | None:
    return f"hooks {', '.join(pack.hooks)}" if pack.hooks and pack.status == "loaded" else None


def _entry_point(pack: PackInfo) -> str | None:
    return pack.entry_point and f"entry point {pack.entry_point}"


def _op_count(registry: Registry, pack: PackInfo) -> int:
    if pack.status != "loaded":
        return 0
    rows = registry.ops(pack=pack.name, shadowed=True)
    return len({(row.domain, row.op_type) for row in rows})


def _check_packs(registry: Registry, pack: str | None) -> None:
    packs = registry.packs()
    named = next((info for info in packs if info.name == pack), None)
    if named and named.status != "loaded":
        raise PackError(
            f"the pack is {named.status}: {named.reason}",
            where=Where(pack=pack),
            fix="repair or unblock it; `fhe-ops packs` lists all packs",
        )
    # Operators of `registered` bodies have no pack that could be listed.
    if not registry.ops():
        absent = [info for info in packs if info.status != "loaded"]
        fate = "installed" if not packs else "loaded" if len(absent) == len(packs) else ""
        raise PackError(
            f"no operator pack is {fate}" if fate else "the loaded packs have no operators",
            got="; ".join(f"{info} is {info.status}: {info.reason}" for info in absent) or None,
            fix="repair or unblock one; `fhe-ops packs` lists all packs" if absent else INSTALL,
        )
    if pack is not None and named is None:
        known = [info.name for info in packs]
        close = closest(pack, known)
        raise InputError(
            f"no installed pack is called {pack!r}",
            expected=_one_of(known) if known else None,
            fix=f"use {close!r}"
            if close
            else "install it; `fhe-ops packs` lists those that are installed",
        )


def _check_domain(domain: str, known: set[str]) -> None:
    if domain not in known:
        names = sorted(map(display_domain, known))
        close = closest(domain, names)
        raise InputError(
            f"no loaded pack has operators of the domain {display_domain(domain)!r}",
            expected=_one_of(names),
            fix=f"use {close!r}" if close else "install a pack that has it",
        )


def _check_opset(opset: int, domains: set[str]) -> None:
    newest = [newest_opset(domain) for domain in domains]
    limits = [limit for limit in newest if limit is not None]
    if len(limits) == len(newest) and opset > max(limits, default=0):
        raise InputError(
            f"opset {opset} does not exist yet",
            expected=f"at most {max(limits, default=0)}, the newest that is known",
            fix="choose an opset that exists, or upgrade fhe-core",
        )


def _serves(spec: OpSpec, opset: int) -> bool:
    newest = newest_opset(spec.domain)
    return spec.serves(opset) and (newest is None or opset <= newest)


def _one_of(names: Iterable[str]) -> str:
    return f"one of {', '.join(names)}"


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known name that a misspelt one most likely is."""
    from difflib import get_close_matches

    by_lower = {candidate.lower(): candidate for candidate in known}
    matches = get_close_matches(name.lower(), by_lower, n=1, cutoff=_CLOSE)
    return by_lower[matches[0]] if matches else None
