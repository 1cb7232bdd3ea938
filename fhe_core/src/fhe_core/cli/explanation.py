"""What ``fhe-ops explain OP`` tells of an operator, before it is printed."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fhe_core.cli.listing import ACTIVE, closest, overlap, status_of
from fhe_core.errors import UnsupportedOpError, Where
from fhe_core.registry import REQUIRED, OpSignature, OpSpec, PackInfo, Registry
from fhe_core.registry.schema import (
    history,
    is_known_domain,
    newest_opset,
    normalize_domain,
    op_types,
    summary,
)

# Where ONNX describes the operators of its two domains.
ONNX_PAGES = {
    "": "https://onnx.ai/onnx/operators/onnx__{}.html",
    "ai.onnx.ml": "https://onnx.ai/onnx/operators/onnx_aionnxml_{}.html",
}


@dataclass(frozen=True)
class Supply:
    """One slot of an operator: whose it is, and where its code stands.

    Attributes:
        target: ``module:name`` of the function or class.
        file: its source, None for what has none, such as a function of C.
        line: where it begins in the file, None if that cannot be told.
    """

    pack: PackInfo | None
    target: str
    file: str | None
    line: int | None


@dataclass(frozen=True)
class Other:
    """A registration that another one hides, or that waits to be chosen."""

    spec: OpSpec
    slot: str
    supply: Supply


@dataclass(frozen=True)
class Served:
    """A range of opsets that is served in one way.

    ``onnx_versions`` are the versions of ONNX's schema in it; empty in a domain of a pack's own.
    """

    spec: OpSpec
    onnx_versions: tuple[int, ...]
    signature: OpSignature
    impl: Supply
    quantized: Supply | None
    others: tuple[Other, ...]


@dataclass(frozen=True)
class Explanation:
    """An operator of one domain.

    ``summary`` is the first sentence of its ONNX page, at ``url``. In a domain that is not ONNX's it
    is the first line of the implementation's docstring, and there is no page.
    """

    op_type: str
    domain: str
    summary: str | None
    url: str | None
    rows: tuple[Served, ...]


def explanations(
    registry: Registry, op_type: str, domain: str | None = None, opset: int | None = None
) -> list[Explanation]:
    """What is known of an operator, for every domain that has one of its name.

    Raises:
        UnsupportedOpError: no loaded pack has it, or not at this opset.
    """
    wanted = None if domain is None else normalize_domain(domain)
    specs = [spec for spec in registry.ops(wanted, shadowed=True) if spec.op_type == op_type]
    found = sorted({spec.domain for spec in specs if status_of(spec) == ACTIVE})
    if opset is not None:
        found = [name for name in found if _serves(registry, op_type, name, opset)] or found[:1]
    if not found:
        _refuse(registry, op_type, _likely_domain(op_type) if wanted is None else wanted, opset)
    if opset is not None:
        registry.resolve(op_type, found[0], opset=opset)  # says why nothing serves it
        specs = [spec for spec in specs if spec.serves(opset)]
    return [_explanation(op_type, name, [s for s in specs if s.domain == name]) for name in found]


def _serves(registry: Registry, op_type: str, domain: str, opset: int) -> bool:
    try:
        registry.resolve(op_type, domain, opset=opset)
    except UnsupportedOpError:
        return False
    return True


def _refuse(registry: Registry, op_type: str, domain: str, opset: int | None) -> None:
    try:
        registry.resolve(op_type, domain, opset=opset or newest_opset(domain) or 1)
    except UnsupportedOpError as error:
        fix = error.fix
        if op_type not in op_types(domain):
            names = [spec.op_type for spec in registry.ops()]
            close = op_type if op_type in names else closest(op_type, names)
            fix = f"run `fhe-ops explain {close}`" if close else "see `fhe-ops list` for all names"
        where = Where(op=op_type, domain=domain, opset=opset)
        raise UnsupportedOpError(error.problem, where=where, fix=fix) from error


def _likely_domain(op_type: str) -> str:
    return next((name for name in ONNX_PAGES if op_type in op_types(name)), "")


def _explanation(op_type: str, domain: str, specs: Sequence[OpSpec]) -> Explanation:
    active = [spec for spec in specs if status_of(spec) == ACTIVE]
    return Explanation(
        op_type,
        domain,
        summary(domain, op_type) if is_known_domain(domain) else _first_line(active[-1]),
        ONNX_PAGES[domain].format(op_type) if op_type in op_types(domain) else None,
        tuple(_served(spec, specs) for spec in active),
    )


def _first_line(spec: OpSpec) -> str | None:
    """Of the docstring, which is all that a domain of a pack's own has for documentation."""
    text = inspect.getdoc(_bare(spec.impl)) or inspect.getdoc(spec.quantized)
    return text.splitlines()[0] if text else None


def _served(spec: OpSpec, specs: Sequence[OpSpec]) -> Served:
    versions = tuple(
        schema.since_version
        for schema in history(spec.domain, spec.op_type)
        if spec.serves(schema.since_version) and not schema.deprecated
    )
    others = tuple(
        _other(other) for other in specs if status_of(other) != ACTIVE and overlap(spec, other)
    )
    return Served(
        spec,
        versions,
        spec.signature or OpSignature(),
        _supply(spec.impl, spec.impl_origin),
        _supply(spec.quantized, spec.quantized_origin) if spec.quantized else None,
        others,
    )


def _other(spec: OpSpec) -> Other:
    """A row that does not serve holds one slot alone."""
    slot, supply = (
        ("quantized", _supply(spec.quantized, spec.quantized_origin))
        if spec.quantized
        else ("impl", _supply(spec.impl, spec.impl_origin))
    )
    return Other(spec, slot, supply)


def _supply(target: Any, pack: PackInfo | None) -> Supply:
    bare = _bare(target)
    file = line = None
    try:
        file = inspect.getsourcefile(bare)
        line = inspect.getsourcelines(bare)[1]
    except (TypeError, OSError):
        # A function of C has no file, and what a function has made no line of its own.
        pass
    return Supply(pack, _name(bare), file, line)


def _bare(target: Any) -> Any:
    """The function below decorators and partial applications."""
    while isinstance(target, functools.partial):
        target = target.func
    return inspect.unwrap(target) if callable(target) else target


def _name(bare: Any) -> str:
    """``module:function``."""
    name = getattr(bare, "__qualname__", None) or getattr(bare, "__name__", None) or repr(bare)
    module = getattr(bare, "__module__", None)
    return f"{module}:{name}" if module else name


# -- for programs; docs/json.md documents the keys: add to them, change none


def record(explanation: Explanation) -> dict[str, Any]:
    """An operator in plain types."""
    return {
        "op": explanation.op_type,
        "domain": explanation.domain,
        "summary": explanation.summary,
        "url": explanation.url,
        "rows": [_row_record(row) for row in explanation.rows],
    }


def _row_record(row: Served) -> dict[str, Any]:
    signature = row.signature
    return {
        "since_version": row.spec.since_version,
        "until": row.spec.until,
        "onnx_versions": list(row.onnx_versions),
        "inputs": list(signature.inputs),
        "optional_inputs": list(signature.optional_inputs),
        "variadic": signature.variadic,
        "attributes": [
            {
                "name": name,
                "required": default is REQUIRED,
                "default": None if default is REQUIRED else _plain(default),
            }
            for name, default in signature.attributes.items()
        ],
        "fusion": row.spec.fusion,
        "impl": _supply_record(row.impl),
        "quantized": _supply_record(row.quantized) if row.quantized else None,
        "others": [
            {
                "slot": other.slot,
                "status": status_of(other.spec),
                "since_version": other.spec.since_version,
                "until": other.spec.until,
                **_supply_record(other.supply),
            }
            for other in row.others
        ],
    }


def _supply_record(supply: Supply) -> dict[str, Any]:
    pack = supply.pack
    return {
        "pack": pack and pack.name,
        "distribution": pack and pack.distribution,
        "version": pack and pack.version,
        "entry_point": pack and pack.entry_point,
        "target": supply.target,
        "file": supply.file,
        "line": supply.line,
    }


def _plain(default: Any) -> Any:
    """A default that JSON can hold: what it cannot is written as Python would."""
    if isinstance(default, (list, tuple)):
        return [_plain(item) for item in default]
    is_number = isinstance(default, (bool, int)) or (
        isinstance(default, float) and math.isfinite(default)
    )
    return default if default is None or is_number or isinstance(default, str) else repr(default)
