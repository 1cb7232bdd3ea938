"""``fhe-ops list`` and ``fhe-ops packs``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fhe_core.cli.render import Table
from fhe_core.errors import InputError, PackError, Where
from fhe_core.registry import OpSpec, PackInfo, Registry
from fhe_core.registry.schema import display_domain, newest_opset, normalize_domain

INSTALL = "run `pip install fhe-ops-std`, or install another operator pack"


def select(
    registry: Registry, domain: str | None, pack: str | None, opset: int | None
) -> list[OpSpec]:
    """The operators that match; empty if none does.

    Args:
        opset: only what serves this opset of its own domain.

    Raises:
        PackError: no pack is loaded, or the wanted one is not.
        InputError: a pack, domain or opset that nobody knows.
    """
    _check_packs(registry, pack)
    specs = registry.ops()
    if domain is not None:
        _check_domain(normalize_domain(domain), {spec.domain for spec in specs})
        specs = registry.ops(domain=domain)
    if opset is not None:
        _check_opset(opset, {spec.domain for spec in specs})
    return [
        spec
        for spec in specs
        if pack in (None, spec.impl_pack, spec.quantized_pack)
        and (opset is None or _serves(spec, opset))
    ]


def ops_table(specs: Iterable[OpSpec]) -> Table:
    """One row an operator and range of opsets."""
    rows = [
        (
            spec.op_type,
            display_domain(spec.domain),
            opsets(spec),
            "quantized" if spec.quantized else "float only",
            spec.fusion or "",
            packs_of(spec),
        )
        for spec in specs
    ]
    return Table(("op", "domain", "opsets", "form", "fusion", "pack"), rows)


def op_records(specs: Iterable[OpSpec]) -> list[dict[str, Any]]:
    """For programs. ``fhe-ops list --help`` documents the keys: add to them, change none."""
    return [
        {
            "op": spec.op_type,
            "domain": spec.domain,
            "since_version": spec.since_version,
            "until": spec.until,
            "quantized": spec.quantized is not None,
            "fusion": spec.fusion,
            "impl_pack": spec.impl_pack,
            "quantized_pack": spec.quantized_pack,
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
    """What does not fit a table: where a loaded pack is, why another is not loaded."""
    return [
        f"{pack.name}: {pack.reason or pack.path}"
        for pack in registry.packs()
        if pack.reason or pack.path
    ]


def pack_records(registry: Registry) -> list[dict[str, Any]]:
    """For programs. ``fhe-ops packs --help`` documents the keys: add to them, change none."""
    return [
        {
            "name": pack.name,
            "distribution": pack.distribution,
            "version": pack.version,
            "status": pack.status,
            "ops": _op_count(registry, pack),
            "path": pack.path,
            "reason": pack.reason,
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


def packs_of(spec: OpSpec) -> str:
    """The pack, or both where the quantized form is another's."""
    if spec.quantized_pack in (None, spec.impl_pack):
        return spec.impl_pack or ""
    return f"{spec.impl_pack}, quantized: {spec.quantized_pack}"


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
        raise PackError(
            "no operator pack is loaded" if packs else "no operator pack is installed",
            got="; ".join(f"{info} is {info.status}: {info.reason}" for info in packs) or None,
            fix="repair or unblock one; `fhe-ops packs` lists all packs" if packs else INSTALL,
        )
    if pack is not None and named is None:
        known = [info.name for info in packs]
        close = closest(pack, known)
        raise InputError(
            f"no installed pack is called {pack!r}",
            expected=_one_of(known),
            fix=f"use {close!r}" if close else INSTALL,
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
    matches = get_close_matches(name.lower(), by_lower, n=1)
    return by_lower[matches[0]] if matches else None
