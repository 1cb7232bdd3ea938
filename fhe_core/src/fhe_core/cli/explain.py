"""``fhe-ops explain OP``: what an operator takes, who supplies it, and how it runs encrypted."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Iterator
from typing import Any

import click

from fhe_core.cli import text
from fhe_core.cli.listing import closest, opsets
from fhe_core.errors import UnsupportedOpError, Where
from fhe_core.registry import REQUIRED, OpSignature, OpSpec, Registry
from fhe_core.registry.schema import (
    display_domain,
    history,
    newest_opset,
    normalize_domain,
    op_types,
    summary,
)

FUSION = {
    "always": "always: it becomes part of a table look-up",
    "never": "never: it computes on encrypted integers",
    "conditional": "conditional: its place in the graph decides",
}

Rows = Iterator[tuple[str, str]]


def explain(registry: Registry, op_type: str, domain: str | None, opset: int | None) -> None:
    """Prints what is known of an operator, in every domain that has one of its name.

    Raises:
        UnsupportedOpError: no loaded pack has it, or not at this opset.
    """
    wanted = None if domain is None else normalize_domain(domain)
    specs = [spec for spec in registry.ops(wanted, shadowed=True) if spec.op_type == op_type]
    found = sorted({spec.domain for spec in specs if not spec.shadowed})
    if not found:
        _refuse(registry, op_type, _likely_domain(op_type) if wanted is None else wanted, opset)
    for number, name in enumerate(found):
        if number:
            click.echo()
        here = [spec for spec in specs if spec.domain == name]
        if opset is not None:
            registry.resolve(op_type, name, opset=opset)
            here = [spec for spec in here if spec.serves(opset)]
        _print(op_type, name, here)


def _refuse(registry: Registry, op_type: str, domain: str, opset: int | None) -> None:
    try:
        registry.resolve(op_type, domain, opset=opset or newest_opset(domain) or 1)
    except UnsupportedOpError as error:
        fix = error.fix
        if op_type not in op_types(domain):
            close = closest(op_type, [spec.op_type for spec in registry.ops()])
            fix = f"run `fhe-ops explain {close}`" if close else "see `fhe-ops list` for all names"
        where = Where(op=op_type, domain=domain, opset=opset)
        raise UnsupportedOpError(error.problem, where=where, fix=fix) from error


def _likely_domain(op_type: str) -> str:
    return next((name for name in ("", "ai.onnx.ml") if op_type in op_types(name)), "")


def _print(op_type: str, domain: str, specs: list[OpSpec]) -> None:
    click.secho(f"{op_type} of {display_domain(domain)}", bold=True)
    sentence = summary(domain, op_type)
    if sentence:
        click.echo(text.wrapped(sentence, sys.stdout))
    for spec in specs:
        if spec.shadowed:
            continue
        click.echo()
        click.echo(f"opsets {opsets(spec)}{_versions(spec)}")
        hidden = [other for other in specs if other.shadowed and _overlap(spec, other)]
        for label, content in (*_signature(spec), *_suppliers(spec), *_shadowed(hidden)):
            click.echo(text.wrapped(f"  {label:<12}{content}", sys.stdout, indent=" " * 14))


def _versions(spec: OpSpec) -> str:
    """The versions of ONNX's schema that a row serves."""
    served = [
        str(schema.since_version)
        for schema in history(spec.domain, spec.op_type)
        if spec.serves(schema.since_version) and not schema.deprecated
    ]
    return f", ONNX's version{'s' * (len(served) != 1)} {', '.join(served)}" if served else ""


def _signature(spec: OpSpec) -> Rows:
    signature = spec.signature or OpSignature()
    variadic = [f"any number of {signature.variadic}"] if signature.variadic else []
    yield "inputs", ", ".join([*signature.inputs, *variadic]) or "none"
    if signature.optional_inputs:
        yield "optional", ", ".join(signature.optional_inputs)
    label = "attributes"
    for name, default in signature.attributes.items():
        yield label, f"{name}, required" if default is REQUIRED else f"{name} = {default!r}"
        label = ""


def _suppliers(spec: OpSpec) -> Rows:
    yield "float", f"pack {spec.impl_pack}, {_name(spec.impl)}"
    yield from _file(spec.impl)
    if spec.quantized is None:
        yield "quantized", "none: it runs in the clear only"
        return
    yield "quantized", f"pack {spec.quantized_pack}, {_name(spec.quantized)}"
    yield from _file(spec.quantized)
    yield "fusion", FUSION[spec.fusion or "conditional"]


def _shadowed(hidden: list[OpSpec]) -> Rows:
    """Who else offers it, and does not get to serve."""
    label = "shadowed"
    for spec in hidden:
        slot, pack, target = (
            ("quantized", spec.quantized_pack, spec.quantized)
            if spec.quantized
            else ("float", spec.impl_pack, spec.impl)
        )
        yield label, f"{slot} of pack {pack}, {_name(target)}, opsets {opsets(spec)}"
        label = ""


def _overlap(one: OpSpec, other: OpSpec) -> bool:
    return one.serves(other.since_version) or other.serves(one.since_version)


def _bare(target: Any) -> Any:
    """The function below decorators and partial applications."""
    while isinstance(target, functools.partial):
        target = target.func
    return inspect.unwrap(target) if callable(target) else target


def _name(target: Any) -> str:
    """``module:function``."""
    bare = _bare(target)
    name = getattr(bare, "__qualname__", None) or getattr(bare, "__name__", None) or repr(bare)
    module = getattr(bare, "__module__", None)
    return f"{module}:{name}" if module else name


def _file(target: Any) -> Rows:
    """Where the source is; nothing for what has none, such as a function of C."""
    bare = _bare(target)
    try:
        path = inspect.getsourcefile(bare)
    except TypeError:
        return
    try:
        yield "", f"{path}:{inspect.getsourcelines(bare)[1]}"
    except OSError:  # made by a function, not written as a class or def of its own
        yield "", f"{path}"
