"""Why an operator does not resolve, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fhe_core.errors import UnsupportedOpError, Where
from fhe_core.registry.provenance import PackInfo
from fhe_core.registry.schema import (
    OpSchema,
    display_domain,
    history,
    newest_opset,
    op_types,
    schema_at,
)
from fhe_core.registry.table import Table
from fhe_core.registry.versions import OPEN, Span, did_you_mean

# Who supplies ONNX's own domains. The core knows no operator by name, only where to send people.
SUPPLIERS = {"": "fhe-ops-std", "ai.onnx.ml": "fhe-ops-contrib"}

# More failed packs than this do not help to read a message; `fhe-ops packs` lists them all.
SHOWN_PACKS = 5


@dataclass(frozen=True)
class Unsupported:
    """An operator that does not resolve. ``error()`` makes a fresh error each time it is raised."""

    problem: str
    where: Where
    fix: str

    def error(self) -> UnsupportedOpError:
        return UnsupportedOpError(self.problem, where=self.where, fix=self.fix)


def diagnose(
    op_type: str,
    domain: str,
    opset: int,
    *,
    table: Table,
    registered: Sequence[str],
    packs: Sequence[PackInfo],
) -> Unsupported:
    """Explains why nothing serves an operator.

    Args:
        domain: normalized.
        table: of this operator; no row of it serves the opset.
        registered: every operator that some pack registered in this domain.
        packs: all of them, whatever became of them.
    """
    where = Where(op=op_type, domain=domain, opset=opset)
    against = _schema_problem(op_type, domain, opset, registered)
    if against:
        return Unsupported(against[0], where, against[1])
    problem, fix = (
        _alternative_problem(op_type, opset, table)
        or _version_problem(op_type, domain, opset, table)
        or _pack_problem(op_type, domain, table, packs, registered)
    )
    # A pack that is not loaded might have had it.
    suspects = [f"{pack} {_fate(pack)}" for pack in packs if pack.status != "loaded"]
    if len(suspects) > SHOWN_PACKS:
        more = len(suspects) - SHOWN_PACKS
        suspects[SHOWN_PACKS:] = [f"{more} more packs are not loaded, see `fhe-ops packs`"]
    return Unsupported("; ".join([problem, *suspects]), where, fix)


def _schema_problem(
    op_type: str, domain: str, opset: int, registered: Sequence[str]
) -> tuple[str, str] | None:
    """What ONNX itself says against the operator, whatever packs there are."""
    newest = newest_opset(domain)
    if newest is None:
        return None
    if opset > newest:
        problem = f"the newest known opset of {display_domain(domain)} is {newest}"
        return problem, f"export the model with opset {newest} or older, or upgrade fhe-core"
    schemas = history(domain, op_type)
    if schemas:
        return _dated_problem(schemas, opset)
    hint = did_you_mean(op_type, (*op_types(domain), *registered))
    problem = f"ONNX has no such operator in domain {display_domain(domain)}"
    return "; ".join(filter(None, (problem, hint))), "check the model's op_type and domain"


def _dated_problem(schemas: Sequence[OpSchema], opset: int) -> tuple[str, str] | None:
    op_type, first = schemas[0].op_type, schemas[0].since_version
    if opset < first:
        problem = f"ONNX has {op_type} since opset {first}, and this model says {opset}"
        return problem, f"export the model with opset {first} or newer"
    own = schema_at(schemas[0].domain, op_type, opset)
    if own is not None and own.deprecated:
        problem = f"ONNX has deprecated {op_type} in opset {own.since_version}"
        return (
            problem,
            "export the model again: a newer exporter uses the operator that replaced it",
        )
    return None


def _alternative_problem(op_type: str, opset: int, table: Table) -> tuple[str, str] | None:
    """Registered, but only to be chosen instead of something else."""
    found = [row for row in table.shadowed if row.alternative and row.impl and row.serves(opset)]
    if not found:
        return None
    pack = found[0].impl_pack
    return (
        f"pack {pack!r} has an alternative implementation of it, but nothing that it could replace",
        f"prefer it with get_registry(prefer={{{op_type!r}: {pack!r}}}), or install a pack that "
        "implements the operator",
    )


def _version_problem(op_type: str, domain: str, opset: int, table: Table) -> tuple[str, str] | None:
    """Registered, but for other opsets."""
    if not table.rows:
        return None
    served = " and ".join(str(Span(row.since_version, row.until or OPEN)) for row in table.rows)
    schema = schema_at(domain, op_type, opset)
    needed = f"version {schema.since_version}" if schema else "another version"
    return (
        f"{op_type} is registered for {served}; opset {opset} needs {needed}",
        f"export the model with an opset that is served, or have {needed} added to "
        f"pack {table.rows[-1].impl_pack!r} or to your own",
    )


def _pack_problem(
    op_type: str,
    domain: str,
    table: Table,
    packs: Sequence[PackInfo],
    registered: Sequence[str],
) -> tuple[str, str]:
    """Nobody registered it."""
    if table.unpaired:
        cls, pack = table.unpaired[0].target.__name__, table.unpaired[0].pack
        return (
            f"pack {pack!r} has a quantized form of it, but nobody has a NumPy implementation",
            f"set `impl` in {cls}, or install a pack that has one",
        )
    supplier = SUPPLIERS.get(domain)
    supplied = next((pack for pack in packs if pack.distribution == supplier), None)
    extra = f", domain={domain!r}" if domain else ""
    fix = (
        "install a pack that has it, or register your own with "
        f"`registry.impl({op_type!r}, fn{extra})`"
    )
    if supplier and not supplied:
        fix = f"run `pip install {supplier}`"
    elif supplied and supplied.status != "loaded":
        fix = f"repair or unblock pack {supplied.name!r}, which has the operators of this domain"
    problem = "no loaded pack implements it" if packs else "no operator pack is installed"
    return "; ".join(filter(None, (problem, did_you_mean(op_type, registered)))), fix


def _fate(pack: PackInfo) -> str:
    return f"{'failed to load' if pack.status == 'failed' else 'is blocked'}: {pack.reason}"
