"""The registry: which operators there are, whose they are, and which one a model's node means."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from typing import NoReturn

from fhe_core.arguments import shown
from fhe_core.errors import PackError, UnsupportedOpError, Where
from fhe_core.registry.calling import Hooks, Plugin
from fhe_core.registry.choosing import NodeView, choose
from fhe_core.registry.packs import LoadedPack
from fhe_core.registry.passes import (
    GraphAlternative,
    GraphPass,
    GraphReduction,
    ProgramPass,
    Rewritings,
)
from fhe_core.registry.provenance import REGISTERED, PackInfo
from fhe_core.registry.registrar import Registration, Slot
from fhe_core.registry.schema import display_domain, newest_opset, normalize_domain
from fhe_core.registry.spec import OpSpec
from fhe_core.registry.table import Table, by_rank, clash, lay_out
from fhe_core.registry.unsupported import Unsupported, diagnose

Key = tuple[str, str]  # domain, op_type
ByKey = dict[Key, tuple[Registration, ...]]


class Registry:
    """Every operator of the loaded packs. Frozen: nothing can be added or taken away.

    Args:
        packs: in the order in which they were loaded. One that clashes with an earlier one is
            turned into a failed one, and nothing of it stays.
        prefer: operator type to the name of the pack that shall supply it, in both slots. Where two
            domains have an operator of that name, ``"ai.onnx.ml.Scaler"`` tells which.

    Raises:
        PackError: a preferred pack is not loaded, or has no such operator.
    """

    def __init__(
        self, packs: Iterable[LoadedPack], *, prefer: Mapping[str, str] | None = None
    ) -> None:
        prefer = dict(prefer or {})
        settled, registrations = _settle(tuple(packs), prefer)
        rewritings = sum((pack.given.rewritings for pack in settled), Rewritings())
        plugins = [pack.given.plugin for pack in settled if pack.given.plugin]
        self._fill(settled, prefer, registrations, rewritings, Hooks(plugins))

    def _fill(
        self,
        packs: tuple[LoadedPack, ...],
        prefer: Mapping[str, str],
        registrations: ByKey,
        rewritings: Rewritings,
        hooks: Hooks,
    ) -> None:
        self._packs = packs
        self._prefer = prefer
        self._registrations = registrations
        self._rewritings = rewritings
        #: What the packs implement of the hooks that are called after loading.
        self.hooks = hooks
        # Answers that were given, to be given again.
        self._tables: dict[Key, Table] = {}
        self._resolved: dict[tuple[str, str, int], OpSpec | Unsupported] = {}
        self._frozen = True

    def __setattr__(self, name: str, value: object) -> None:
        if hasattr(self, "_frozen"):
            raise _frozen(f"a new value for {name!r}")
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> NoReturn:
        raise _frozen(f"the removal of {name!r}")

    def with_more(
        self,
        registrations: Sequence[Registration],
        rewritings: Rewritings | None = None,
        plugins: Sequence[Plugin] = (),
    ) -> Registry:
        """A registry of these operators, rewritings and plug-ins and more; this one stays as it is.

        Plug-ins that are added are called before those that are there.
        """
        other = object.__new__(Registry)
        other._fill(
            self._packs,
            self._prefer,
            _by_key(registrations, self._registrations),
            self._rewritings + (rewritings or Rewritings()),
            Hooks([*plugins, *self.hooks.plugins]) if plugins else self.hooks,
        )
        return other

    def resolve(self, op_type: str, domain: str = "", *, opset: int) -> OpSpec:
        """The operator that a node of a model means.

        Args:
            op_type: ONNX's name of the operator.
            domain: "" and "ai.onnx" are the default one.
            opset: the version of that domain that the model imports.

        Raises:
            UnsupportedOpError: no loaded pack has the operator, or not at this version. It says
                what to install, and repeats why packs failed that might have had it.
        """
        if not (
            isinstance(op_type, str) and isinstance(domain, str) and isinstance(opset, Integral)
        ):
            raise UnsupportedOpError(
                f"{shown((op_type, domain, opset))} names no operator",
                expected="an operator's type, its domain and an opset",
                got=", ".join(type(part).__name__ for part in (op_type, domain, opset)),
                fix="call it as in resolve('Conv', domain='', opset=17)",
            )
        found = self._resolved.get((domain, op_type, opset))
        if found is None:
            found = self._look_up(op_type, normalize_domain(domain), opset)
            # Of two threads that looked it up at once, both get the answer of the first.
            found = self._resolved.setdefault((domain, op_type, opset), found)
        if isinstance(found, Unsupported):
            raise found.error()
        return found

    def choose(self, spec: OpSpec, slot: Slot, node: NodeView, where: Where) -> OpSpec:
        """The spec with one slot as the packs' hooks `fhe_choose_candidate` want it at a node.

        Args:
            spec: as resolved for the node.
            where: the node, for errors.

        Raises:
            PackError: a hook raised, or answered with something else than a candidate.
        """
        origin = spec.impl_origin if slot == "impl" else spec.quantized_origin
        key = spec.domain, spec.op_type
        if (
            not self.hooks.has("fhe_choose_candidate")
            or origin == REGISTERED
            or _preferred(self._prefer, key)
        ):
            return spec
        served = spec.impl if slot == "impl" else spec.quantized
        others = [
            registration
            for registration in by_rank(self._registrations[key])
            if registration.slot == slot
            and registration.serves(node.opset)
            and not (registration.target is served and registration.origin == origin)
        ]
        return choose(self.hooks, spec, slot, others, node, where) if others else spec

    def passes(self) -> tuple[GraphPass, ...]:
        """Every graph pass, in the order in which they run."""
        return self._rewritings.passes

    def program_passes(self) -> tuple[ProgramPass, ...]:
        """Every pass over integer programs, in the order in which they run within their stages."""
        return self._rewritings.program_passes

    def reductions(self) -> tuple[GraphReduction, ...]:
        """Every reduction, in the order in which they are tried."""
        return self._rewritings.reductions

    def alternatives(self) -> tuple[GraphAlternative, ...]:
        """Every alternative, in the order in which they are tried."""
        return self._rewritings.alternatives

    def ops(
        self, domain: str | None = None, pack: str | None = None, shadowed: bool = False
    ) -> list[OpSpec]:
        """Every operator, one row for each range of opsets, sorted by domain, name and version.

        Args:
            domain: only this one; None for all.
            pack: only rows of which this pack supplies a slot; None for all.
            shadowed: also what another registration hides, and alternatives; those rows have
                ``shadowed`` set.

        Raises:
            PackError: the domain or the pack is no name.
        """
        for name, value in (("domain", domain), ("pack", pack)):
            if not isinstance(value, str | None):
                raise PackError(
                    f"{name} cannot be {shown(value)}",
                    expected="a name, or None for all",
                    got=type(value).__name__,
                    fix=f"leave {name} out for all operators",
                )
        wanted = None if domain is None else normalize_domain(domain)
        rows = [
            row
            for key in self._registrations
            if wanted is None or key[0] == wanted
            for table in (self._table(key),)
            for row in (*table.rows, *(table.shadowed if shadowed else ()))
            if pack is None or pack in (row.impl_pack, row.quantized_pack)
        ]
        return sorted(rows, key=lambda r: (r.domain, r.op_type, r.since_version, r.shadowed))

    def packs(self) -> list[PackInfo]:
        """Every installed pack, in the order of loading, and what became of it."""
        return [pack.info for pack in self._packs]

    def failures(self) -> list[LoadedPack]:
        """The packs that failed, each with the exception that it failed with, if there was one."""
        return [pack for pack in self._packs if pack.info.status == "failed"]

    def __repr__(self) -> str:
        loaded = ", ".join(p.info.name for p in self._packs if p.info.status == "loaded")
        return f"<Registry of {len(self._registrations)} operators, packs: {loaded or 'none'}>"

    def _look_up(self, op_type: str, domain: str, opset: int) -> OpSpec | Unsupported:
        table = self._table((domain, op_type))
        newest = newest_opset(domain)
        if newest is None or opset <= newest:
            for row in table.rows:
                if row.serves(opset):
                    return row
        return diagnose(
            op_type,
            domain,
            opset,
            table=table,
            registered=[key[1] for key in self._registrations if key[0] == domain],
            packs=self.packs(),
        )

    def _table(self, key: Key) -> Table:
        table = self._tables.get(key)
        if table is None:
            preferred = _preferred(self._prefer, key)
            table = lay_out(self._registrations.get(key, ()), preferred)
            table = self._tables.setdefault(key, table)
        return table


def _frozen(got: str) -> PackError:
    return PackError(
        "the registry is frozen",
        got=got,
        fix="register in a pack, or in the body of `with fhe_core.registered(...)`",
    )


def _settle(
    packs: tuple[LoadedPack, ...], prefer: Mapping[str, str]
) -> tuple[tuple[LoadedPack, ...], ByKey]:
    """Takes in pack after pack, and fails each that clashes with those before it."""
    accepted: ByKey = {}
    settled: list[LoadedPack] = []
    for pack in packs:
        reason = _clash_reason(pack, accepted, packs, prefer)
        if reason:
            settled.append(pack.failed(reason))
        else:
            settled.append(pack)
            accepted = _by_key(pack.given.registrations, accepted)
    for name, wanted in prefer.items():
        _check_preference(name, wanted, settled)
    return tuple(settled), accepted


def _clash_reason(
    pack: LoadedPack, accepted: ByKey, packs: Sequence[LoadedPack], prefer: Mapping[str, str]
) -> str | None:
    for new in pack.given.registrations:
        others = accepted.get(new.key)
        if not others:
            continue
        preferred = _preferred(prefer, new.key)
        settling = [
            registration
            for candidate in packs
            if candidate.info.name == preferred
            for registration in candidate.given.registrations
            if registration.key == new.key
        ]
        contention = clash(new, others, settling)
        if contention:
            old, span = contention
            does, passing = "register", f"pass override=True in {new.pack!r}, "
            if new.override:
                does, passing = "override", ""
            return (
                f"packs {old.pack!r} and {new.pack!r} both {does} {new.slot} of "
                f"{_display(new.key)} for {span}; block one, {passing}"
                f"or prefer one with get_registry(prefer={{{new.op_type!r}: {old.pack!r}}})"
            )
    return None


def _check_preference(name: str, wanted: str, packs: Sequence[LoadedPack]) -> None:
    pack = next((pack for pack in packs if pack.info.name == wanted), None)
    where = Where(op=name, pack=wanted)
    if pack is None:
        # One that is loaded and has no operators, such as passes alone, supplies none.
        able = (p for p in packs if p.info.status != "loaded" or p.given.registrations)
        known = ", ".join(pack.info.name for pack in able) or "none"
        raise PackError(
            "the preferred pack is not installed",
            where=where,
            expected=f"one of {known}",
            fix="install it, or prefer another",
        )
    if pack.info.status != "loaded":
        raise PackError(
            f"the preferred pack is {pack.info.status}: {pack.info.reason}",
            where=where,
            fix="repair or unblock it, or prefer another",
        )
    if not any(_preferred({name: wanted}, r.key) for r in pack.given.registrations):
        raise PackError(
            "the preferred pack does not register this operator",
            where=where,
            fix=f"see `fhe-ops list --pack {wanted}` for what it has",
        )


def _preferred(prefer: Mapping[str, str], key: Key) -> str | None:
    return prefer.get(_display(key)) or prefer.get(key[1])


def _display(key: Key) -> str:
    return f"{display_domain(key[0])}.{key[1]}"


def _by_key(added: Iterable[Registration], present: ByKey) -> ByKey:
    together = dict(present)
    for registration in added:
        together[registration.key] = (*together.get(registration.key, ()), registration)
    return together
