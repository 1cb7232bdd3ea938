"""What the checks look at: a pack, and each operator that it registers."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fhe_core.errors import PackError, Where
from fhe_core.registry import OpSpec, PackInfo, Registry, get_registry
from fhe_core.registry.schema import display_domain, newest_opset
from fhe_core.testing.sample import Sample

#: The widths, in bits, at which quantized operators are tried.
BITS = (2, 3, 4, 6, 8)


@dataclass(frozen=True)
class Subject:
    """An operator of a pack, or the pack as a whole.

    Attributes:
        pack: the pack, whatever became of it.
        registry: where operators are resolved.
        op: the operator's name, with its domain where the pack has two of that name; "" for the
            whole pack.
        rows: the operator's rows that this pack has a part in, oldest first; for the whole pack
            those of all its operators.
        samples: what the author gave for it; each has a name and an opset.
        bits: the widths to try.
        encrypted: whether it takes part in the encrypted run.
        saved: whether it is encrypted once more, from where it was saved.
    """

    pack: PackInfo
    registry: Registry
    op: str = ""
    rows: tuple[OpSpec, ...] = ()
    samples: tuple[Sample, ...] = ()
    bits: tuple[int, ...] = BITS
    encrypted: bool = False
    saved: bool = False

    @property
    def spec(self) -> OpSpec | None:
        """The newest row of an operator, None for the whole pack."""
        return self.rows[-1] if self.op else None

    @property
    def opset(self) -> int:
        """The newest opset that ``spec`` serves."""
        return last_opset(self.rows[-1])

    @property
    def has_impl(self) -> bool:
        """Whether the pack supplies a NumPy function of it."""
        return any(row.impl_pack == self.pack.name for row in self.rows)

    @property
    def has_quantized(self) -> bool:
        """Whether the pack supplies a quantized class of it."""
        return any(row.quantized_pack == self.pack.name for row in self.rows)


def last_opset(spec: OpSpec) -> int:
    """The newest opset that a row serves; where nothing limits it, the first that it serves."""
    if spec.until is not None:
        return spec.until
    return newest_opset(spec.domain) or spec.since_version


def registry_for(name: str) -> Registry:
    """The registry in which a pack's operators serve, also those that another's hide elsewhere."""
    with warnings.catch_warnings():
        # That the pack failed is what a check says, and not in passing; others are not looked at.
        warnings.simplefilter("ignore")
        registry = get_registry()
    hidden = {
        f"{display_domain(row.domain)}.{row.op_type}": name
        for row in registry.ops(pack=name, shadowed=True)
        if row.shadowed
    }
    return get_registry(prefer=hidden) if hidden else registry


def find_pack(registry: Registry, name: str) -> PackInfo:
    """The pack of this name, loaded or not.

    Raises:
        PackError: nothing of that name is installed.
    """
    packs = registry.packs()
    found = next((pack for pack in packs if pack.name == name), None)
    if found is not None:
        return found
    raise PackError(
        "no such pack is installed here",
        where=Where(pack=name),
        expected=f"one of {', '.join(pack.name for pack in packs) or 'none'}",
        fix="install its distribution (`pip install -e .`), and give the name of its entry point "
        "in the group fhe_core.packs",
    )


def whole_pack(registry: Registry, pack: PackInfo) -> Subject:
    """The subject of the checks that concern a pack as such."""
    return Subject(pack, registry, rows=tuple(registry.ops(pack=pack.name)))


def operators(
    registry: Registry,
    pack: PackInfo,
    *,
    samples: Mapping[str, Sequence[Sample]] | None = None,
    bits: Sequence[int] = BITS,
    encrypted: Sequence[str] | None = None,
) -> tuple[Subject, ...]:
    """One subject for each operator of the pack, by name; none if it is not loaded.

    Args:
        samples: by operator.
        encrypted: the operators of the encrypted run; by default every one that computes on integers, and
            one that never does.

    Raises:
        PackError: ``samples`` or ``encrypted`` name an operator that the pack does not have, or two
            samples of an operator have one name.
    """
    if pack.status != "loaded":
        return ()
    rows: dict[tuple[str, str], list[OpSpec]] = {}
    for row in registry.ops(pack=pack.name):
        rows.setdefault((row.domain, row.op_type), []).append(row)
    named = {_name(key, rows): tuple(of_op) for key, of_op in rows.items()}
    given = dict(samples or {})
    every = _quantized(named, pack, given)
    first = {fusion: name for name, fusion in reversed(every.items())}
    on_integers = [name for name, fusion in every.items() if fusion != "always"]
    chosen = {*on_integers, *first.values()} if encrypted is None else {*encrypted}
    saved = {every[name]: name for name in reversed(every) if name in chosen}.values()
    for where, names in (("samples()", given), ("encrypted", chosen)):
        for name in names:
            if name not in named:
                raise PackError(
                    f"{where} names {name!r}, which the pack does not register",
                    where=Where(pack=pack.name),
                    expected=f"one of {', '.join(sorted(named)) or 'none'}",
                    fix="correct the name, or register the operator",
                )
    return tuple(
        Subject(
            pack,
            registry,
            op=name,
            rows=named[name],
            samples=_labelled(given.get(name, ()), named[name][-1], pack),
            bits=tuple(bits),
            encrypted=name in chosen,
            saved=name in saved,
        )
        for name in sorted(named)
    )


def _name(key: tuple[str, str], rows: Mapping[tuple[str, str], object]) -> str:
    domain, op_type = key
    alone = sum(other == op_type for _, other in rows) == 1
    return op_type if alone else f"{display_domain(domain)}.{op_type}"


def _labelled(samples: Sequence[Sample], newest: OpSpec, pack: PackInfo) -> tuple[Sample, ...]:
    """The samples with a name and an opset each."""
    labelled = tuple(
        Sample(
            *sample.inputs,
            constants=sample.constants,
            attributes=sample.attributes,
            expected=sample.expected,
            name=sample.name or str(number),
            opset=sample.opset or last_opset(newest),
            outputs=sample.outputs,
        )
        for number, sample in enumerate(samples, 1)
    )
    names = [sample.name for sample in labelled]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise PackError(
            f"samples() has two samples named {twice!r}",
            where=Where(op=newest.op_type, domain=newest.domain, pack=pack.name),
            fix="give each a name of its own",
        )
    return labelled


def _quantized(
    named: Mapping[str, tuple[OpSpec, ...]], pack: PackInfo, samples: Mapping[str, object]
) -> dict[str, str | None]:
    """The fusion of each operator that the pack quantizes; those with samples first."""
    names = sorted(named, key=lambda name: (name not in samples, name))
    return {
        name: named[name][-1].fusion
        for name in names
        if named[name][-1].quantized_pack == pack.name
    }
