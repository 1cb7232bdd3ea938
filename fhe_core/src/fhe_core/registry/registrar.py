"""What a pack is handed to register its operators with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, NoReturn

from fhe_core.errors import PackError, Where
from fhe_core.registry.provenance import PackInfo
from fhe_core.registry.schema import normalize_domain
from fhe_core.registry.signature import OpSignature, function_name
from fhe_core.registry.stateful import as_function
from fhe_core.registry.versions import Span, span_from, spans_that_fit

# An operator has two slots, which clash and are overridden separately.
Slot = Literal["impl", "quantized"]
Fusion = Literal["always", "never", "conditional"]
FUSIONS = ("always", "never", "conditional")


@dataclass(frozen=True)
class Registration:
    """One thing that one pack registered, and the opsets that it serves if nobody else does.

    ``signature`` is that of the function in ``target``: None for a quantized class without an
    ``impl`` of its own, which is called like the NumPy function it is paired with. An
    ``alternative`` serves only where it is chosen. ``layer`` is 0 for packs and counts up for
    nested `registered` bodies.
    """

    slot: Slot
    domain: str
    op_type: str
    target: Any
    origin: PackInfo
    spans: tuple[Span, ...]
    since_version: int | None
    signature: OpSignature | None
    fusion: Fusion | None = None
    override: bool = False
    alternative: bool = False
    layer: int = 0

    @property
    def pack(self) -> str:
        return self.origin.name

    @property
    def key(self) -> tuple[str, str]:
        return self.domain, self.op_type

    def serves(self, opset: int) -> bool:
        return any(opset in span for span in self.spans)


class Registrar:
    """Registers operators in the name of one pack, while its hook runs.

    Everything is checked at once, so that an error points at the registration that is wrong.
    """

    def __init__(self, origin: PackInfo, *, layer: int = 0) -> None:
        self._origin = origin
        self._pack = origin.name
        self._layer = layer
        self._registrations: dict[tuple[object, ...], Registration] = {}
        self._closed = False

    @property
    def pack(self) -> str:
        """The name of the pack that this registrar is bound to."""
        return self._pack

    def impl(
        self,
        op_type: str,
        fn: Callable[..., Any],
        *,
        domain: str = "",
        since_version: int = 1,
        until: int | None = None,
        override: bool = False,
        alternative: bool = False,
    ) -> None:
        """Registers the NumPy implementation of an operator.

        Args:
            op_type: ONNX's name of the operator.
            fn: called as ``fn(*inputs, **attributes)``; a missing optional input is None. Returns
                one array, or a tuple of them for several outputs. Its signature is the
                specification. A class is constructed with the attributes, once for each node, and its
                instances are called with the inputs.
            domain: ONNX's operator domain; "" and "ai.onnx" are the default one.
            since_version: the schema version that ``fn`` implements.
            until: the last opset to serve; None for as long as the schema stays as it is.
            override: take the place of another pack's implementation.
            alternative: serve only where the hook `fhe_choose_candidate` or the user's preference
                chooses it; such a registration clashes with none.

        Raises:
            SignatureError: the signature breaks the convention or contradicts the ONNX schema.
            PackError: an argument is of a wrong kind, the pack registered this before, or its hook
                has already returned.
        """
        where = self._check_arguments(op_type, domain, since_version, until)
        _check_flags(override, alternative, where)
        if not callable(fn):
            raise PackError(
                f"the implementation of {op_type} is no function",
                where=where,
                got=repr(fn),
                fix="pass a function of arrays, such as `def relu(X, /): ...`",
            )
        fn = as_function(fn)
        signature = OpSignature.from_callable(fn)
        domain = normalize_domain(domain)
        span = span_from(
            domain,
            op_type,
            since_version,
            until=until,
            signature=signature,
            function=function_name(fn),
            where=where,
        )
        self._add(
            Registration(
                slot="impl",
                domain=domain,
                op_type=op_type,
                target=fn,
                origin=self._origin,
                spans=(span,),
                since_version=since_version,
                signature=signature,
                override=override,
                alternative=alternative,
                layer=self._layer,
            )
        )

    def quantized(
        self,
        cls: type,
        *,
        domain: str = "",
        since_version: int | None = None,
        until: int | None = None,
        override: bool = False,
        alternative: bool = False,
    ) -> None:
        """Registers the quantized form of the operator that ``cls._impl_for_op_named`` names.

        Args:
            cls: a `fhe_core.QuantizedOp`. Its class attribute ``impl``, if set, is its own NumPy
                function, which it uses instead of the registered one.
            domain: ONNX's operator domain; "" and "ai.onnx" are the default one.
            since_version: the schema version that it implements; None for every version whose NumPy
                implementation resolves (or that its own ``impl`` fits).
            until: the last opset to serve; None for as long as the schema stays as it is.
            override: take the place of another pack's quantized class.
            alternative: serve only where the hook `fhe_choose_candidate` or the user's preference
                chooses it; such a registration clashes with none.

        Raises:
            SignatureError: the signature of ``cls.impl`` breaks the convention or contradicts the
                ONNX schema.
            PackError: ``cls`` is no quantized operator, an argument is of a wrong kind, the pack
                registered this before, or its hook has already returned.
        """
        op_type, own, fusion = self._read_class(cls)
        where = self._check_arguments(op_type, domain, since_version, until)
        _check_flags(override, alternative, where)
        domain = normalize_domain(domain)
        signature = None if own is None else OpSignature.from_callable(as_function(own))
        name = f"{function_name(cls)}.impl"
        if since_version is not None:
            spans: tuple[Span, ...] = (
                span_from(
                    domain,
                    op_type,
                    since_version,
                    until=until,
                    signature=signature,
                    function=name,
                    where=where,
                ),
            )
        else:
            spans = spans_that_fit(
                domain, op_type, signature, until=until, function=name, where=where
            )
        self._add(
            Registration(
                slot="quantized",
                domain=domain,
                op_type=op_type,
                target=cls,
                origin=self._origin,
                spans=spans,
                since_version=since_version,
                signature=signature,
                fusion=fusion,
                override=override,
                alternative=alternative,
                layer=self._layer,
            )
        )

    def close(self) -> tuple[Registration, ...]:
        """Ends registration; returns what was registered, each up to the next of its operator."""
        self._closed = True
        successors = defaultdict(list)
        for registration in self._registrations.values():
            # Alternatives stand side by side: none is another's next version.
            if not registration.alternative:
                place = registration.slot, registration.key
                successors[place].append(registration.since_version or 0)
        return tuple(
            registration
            if registration.alternative
            else _cut(registration, successors[registration.slot, registration.key])
            for registration in self._registrations.values()
        )

    def _check_arguments(
        self, op_type: str, domain: str, since_version: int | None, until: int | None
    ) -> Where:
        def refuse(problem: str, got: object, fix: str, where: Where) -> NoReturn:
            raise PackError(problem, where=where, got=repr(got), fix=fix)

        here = Where(pack=self._pack)
        if self._closed:
            refuse(
                "operators can be registered only while `fhe_register_ops` runs",
                op_type,
                "register in the hook, or use `fhe_core.registered(...)` for the body of a `with`",
                here,
            )
        if not isinstance(op_type, str) or not op_type:
            refuse("the operator's name is no text", op_type, "pass ONNX's name of it", here)
        if not isinstance(domain, str):
            refuse("the domain is no text", domain, "pass ONNX's name of it, '' for ai.onnx", here)
        where = Where(op=op_type, domain=normalize_domain(domain), pack=self._pack)
        for name, version in (("since_version", since_version), ("until", until)):
            is_version = isinstance(version, int) and not isinstance(version, bool) and version >= 1
            if version is not None and not is_version:
                refuse(f"{name} is no opset", version, "pass a whole number from 1 on", where)
        return where

    def _read_class(self, cls: type) -> tuple[str, Callable[..., Any] | None, Fusion]:
        """The op's name, the class's own impl and its fusion.

        By duck typing: QuantizedOp lives in a package that builds on this one.
        """
        where = Where(pack=self._pack)
        op_type = getattr(cls, "_impl_for_op_named", None)
        if not isinstance(cls, type) or not isinstance(op_type, str) or not op_type:
            raise PackError(
                f"{function_name(cls)} does not say which operator it is for",
                where=where,
                expected="a class with `_impl_for_op_named` set to the op's name",
                got=repr(op_type) if isinstance(cls, type) else repr(cls),
                fix="derive it from fhe_core.QuantizedOp and set _impl_for_op_named",
            )
        fusion = getattr(cls, "fusion", None)
        answer = fusion() if callable(fusion) else None
        if answer not in FUSIONS:
            raise PackError(
                f"{function_name(cls)}.fusion() does not say whether the operator fuses",
                where=where,
                expected=" or ".join(map(repr, FUSIONS)),
                got=repr(answer),
                fix="derive it from fhe_core.QuantizedOp, which tells it from can_fuse",
            )
        own = getattr(cls, "impl", None)
        if own is not None and not callable(own):
            raise PackError(
                f"{function_name(cls)}.impl is no function",
                where=where,
                got=repr(own),
                fix="set it to a function of arrays, or leave it out",
            )
        return op_type, own, answer

    def _add(self, new: Registration) -> None:
        variant = id(new.target) if new.alternative else None
        place = (new.slot, new.key, new.since_version, variant)
        old = self._registrations.setdefault(place, new)
        if old is not new:
            version = (
                "every version" if new.since_version is None else f"version {new.since_version}"
            )
            raise PackError(
                f"the pack registers {new.slot} twice for {version}",
                where=Where(op=new.op_type, domain=new.domain, pack=self._pack),
                got=f"{function_name(old.target)} and {function_name(new.target)}",
                fix="drop one, or pass the since_version that each implements",
            )


def _check_flags(override: object, alternative: object, where: Where) -> None:
    for name, flag in (("override", override), ("alternative", alternative)):
        if not isinstance(flag, bool):
            raise PackError(
                f"{name} is neither True nor False",
                where=where,
                got=repr(flag),
                fix="pass a truth value, or leave it out",
            )
    if override and alternative:
        raise PackError(
            "what is an alternative takes nobody's place",
            where=where,
            expected="override=True or alternative=True",
            got="both",
            fix="leave one of them out",
        )


def _cut(registration: Registration, starts: list[int]) -> Registration:
    """The registration with its spans ended before its pack's next one in the same slot."""
    later = [start for start in starts if start > (registration.since_version or 0)]
    if not later:
        return registration
    allowed = Span(1, min(later) - 1)
    spans = tuple(cut for span in registration.spans if (cut := span & allowed))
    return replace(registration, spans=spans)
