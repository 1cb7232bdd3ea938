"""All registrations of one operator, laid out along the opsets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fhe_core.registry.registrar import Registration
from fhe_core.registry.spec import OpSpec
from fhe_core.registry.stateful import as_function
from fhe_core.registry.versions import OPEN, Span, join


@dataclass(frozen=True)
class Table:
    """The rows of one operator.

    ``rows`` are disjoint and in order; ``shadowed`` is what they hide, and alternatives that nobody
    prefers; ``unpaired`` are quantized classes that serve nowhere, because neither they nor any
    pack has a NumPy implementation.
    """

    rows: tuple[OpSpec, ...]
    shadowed: tuple[OpSpec, ...]
    unpaired: tuple[Registration, ...]


def lay_out(registrations: Sequence[Registration], preferred: str | None = None) -> Table:
    """Decides who serves which opsets.

    Args:
        registrations: of one operator, in the order in which their packs were loaded.
        preferred: the pack that the user prefers for this operator.
    """
    ranked = by_rank(registrations, preferred)
    rows: list[tuple[Span, Registration, Registration | None, Registration | None]] = []
    hidden: dict[int, list[Span]] = {}
    serving: set[int] = set()
    for span in _pieces(registrations):
        impl, quantized, left_out = _choose(ranked, span.first, preferred)
        for registration in ranked:
            winner = impl if registration.slot == "impl" else quantized
            # Where there is a function, a quantized class that does not serve is left out on purpose.
            hidden_by = winner or registration.alternative or impl
            beaten = winner is not registration and hidden_by
            if beaten and registration.serves(span.first):
                hidden.setdefault(id(registration), []).append(span)
        source = impl or quantized
        if source is None:
            continue
        serving |= {id(source), id(quantized)}
        suppliers = source, quantized, left_out
        if rows and rows[-1][1:] == suppliers and rows[-1][0].last == span.first - 1:
            span = Span(rows.pop()[0].first, span.last)
        rows.append((span, *suppliers))
    return Table(
        rows=tuple(_row(*row) for row in rows),
        shadowed=tuple(
            _shadow(registration, span)
            for registration in ranked
            for span in join(hidden.get(id(registration), ()))
        ),
        unpaired=tuple(
            registration
            for registration in ranked
            if registration.slot == "quantized"
            and id(registration) not in serving
            and id(registration) not in hidden
        ),
    )


def by_rank(
    registrations: Sequence[Registration], preferred: str | None = None
) -> list[Registration]:
    """Of one operator, who wins first: of equal rank, the one that was registered last.

    Args:
        preferred: the pack that the user prefers for this operator.
    """
    return sorted(registrations, key=lambda r: _rank(r, preferred))[::-1]


def clash(
    new: Registration, accepted: Iterable[Registration], preferred: Iterable[Registration]
) -> tuple[Registration, Span] | None:
    """The accepted registration that ``new`` contends with, and over which opsets, or None.

    Args:
        new: of the pack that is being added. It contends with what it does not override, and an override
            with another.
        accepted: of the same operator, from other packs.
        preferred: of the same operator, from the pack that the user prefers: where it serves,
            nobody else contends.
    """
    settled = [span for r in preferred if r.slot == new.slot for span in r.spans]
    for old in accepted:
        if old.slot != new.slot or old.pack == new.pack or old.override != new.override:
            continue
        if old.alternative or new.alternative:
            continue
        for mine in new.spans:
            for theirs in old.spans:
                both = mine & theirs
                if both and not any(both & span == both for span in settled):
                    return old, both
    return None


def _rank(registration: Registration, preferred: str | None) -> tuple[int, bool, bool, bool]:
    """Who wins: the innermost `registered`, then the user's preference, then an override.

    An override takes effect whichever of the two packs is loaded first. Of a preferred pack, an
    alternative serves where it has nothing else.
    """
    return (
        registration.layer,
        registration.pack == preferred,
        not registration.alternative,
        registration.override,
    )


def _pieces(registrations: Sequence[Registration]) -> Iterable[Span]:
    """The opsets cut wherever a registration begins or ends: within a piece nothing changes."""
    spans = [span for registration in registrations for span in registration.spans]
    starts = sorted({s.first for s in spans} | {s.last + 1 for s in spans if s.last != OPEN})
    ends = [start - 1 for start in starts[1:]] + [OPEN]
    return map(Span, starts, ends)


def _choose(
    ranked: Sequence[Registration], opset: int, preferred: str | None
) -> tuple[Registration | None, Registration | None, Registration | None]:
    """Who fills the two slots, and the quantized class that would if the function were still its own."""
    here = [
        registration
        for registration in ranked
        if registration.serves(opset)
        and (not registration.alternative or registration.pack == preferred)
    ]
    impls = [r for r in here if r.slot == "impl"]
    impl = impls[0] if impls else None
    # A class without a function of its own needs somebody's.
    pairable = [r for r in here if r.slot == "quantized" and (r.signature or impl)]
    own = [r for r in pairable if impl is None or _computes(r, impl, impls[1:])]
    left_out = None if own or not pairable else pairable[0]
    return impl, own[0] if own else None, left_out


def _computes(
    quantized: Registration, impl: Registration, replaced: Sequence[Registration]
) -> bool:
    """Whether a quantized class is the quantized form of this function.

    Not if the function takes another's place, as an override does, and the class is of another pack: it
    computes what was replaced. But a class that evaluates whatever function there is follows it, and an
    alternative computes the same in another way.
    """
    own = quantized.layer > impl.layer or _registrant(quantized) == _registrant(impl)
    follows = quantized.fusion == "always" and quantized.signature is None
    others = (r for r in replaced if _registrant(r) != _registrant(impl))
    replaces = any(not (r.alternative or r.override) for r in others)
    return own or follows or impl.alternative or not replaces


def _registrant(registration: Registration) -> tuple[str, int]:
    return registration.pack, registration.layer


def _row(
    span: Span,
    source: Registration,
    quantized: Registration | None,
    left_out: Registration | None,
) -> OpSpec:
    """``source`` supplies the NumPy function: ``quantized`` itself where nobody registered one."""
    return OpSpec(
        domain=source.domain,
        op_type=source.op_type,
        since_version=span.first,
        until=span.until,
        signature=source.signature,
        fusion=quantized.fusion if quantized else None,
        impl=source.target if source.slot == "impl" else as_function(source.target.impl),
        impl_origin=source.origin,
        quantized=quantized.target if quantized else None,
        quantized_origin=quantized.origin if quantized else None,
        left_out_origin=left_out.origin if left_out else None,
    )


def _shadow(registration: Registration, span: Span) -> OpSpec:
    is_impl = registration.slot == "impl"
    return OpSpec(
        domain=registration.domain,
        op_type=registration.op_type,
        since_version=span.first,
        until=span.until,
        signature=registration.signature,
        fusion=registration.fusion,
        impl=registration.target if is_impl else None,
        impl_origin=registration.origin if is_impl else None,
        quantized=None if is_impl else registration.target,
        quantized_origin=None if is_impl else registration.origin,
        shadowed=True,
        alternative=registration.alternative,
    )
