"""A registration serves the opsets whose schema is called like its own, and no others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fhe_core.registry import PackInfo, Registrar, schema

from fhe_core import OpSpec, SignatureError, UnsupportedOpError, registered

NEWEST = schema.newest_opset("") or 0


def softmax_1(input: Any, /, *, axis: int = 1) -> Any: ...
def softmax_13(input: Any, /, *, axis: int = -1) -> Any: ...
def relu(X: Any, /) -> Any: ...


def rows(*impls: Any) -> list[tuple[int, int | None, Any]]:
    """First and last opset and function of what is registered."""
    with registered(impls=impls) as registry:
        return [
            (spec.since_version, spec.until, spec.impl)
            for spec in registry.ops(pack="<registered>")
        ]


def resolve(opset: int, *impls: Any) -> OpSpec:
    with registered(impls=impls) as registry:
        return registry.resolve(impls[0][0], opset=opset)


def test_versions_that_change_types_alone_are_served() -> None:
    """Relu-6, 13 and 14 differ from Relu-1 in type constraints alone."""
    assert rows(("Relu", relu)) == [(1, None, relu)]
    for opset in (1, 6, 12, 13, NEWEST):
        assert resolve(opset, ("Relu", relu)).impl is relu


def test_a_changed_default_ends_the_range_and_the_error_names_the_version() -> None:
    """Softmax-13 changed the default axis: a pack with Softmax-1 alone must not answer for it."""
    assert rows(("Softmax", softmax_1)) == [(1, 12, softmax_1)]
    assert resolve(12, ("Softmax", softmax_1)).impl is softmax_1
    with pytest.raises(UnsupportedOpError) as caught:
        resolve(17, ("Softmax", softmax_1))
    assert "Softmax is registered for opset 1-12; opset 17 needs version 13" in str(caught.value)


def test_nothing_is_served_before_the_registered_version() -> None:
    with pytest.raises(
        UnsupportedOpError, match="registered for opset 13 and later; opset 9 needs"
    ):
        resolve(9, ("Softmax", softmax_13, {"since_version": 13}))


def test_a_pack_s_next_registration_takes_over() -> None:
    def newer(X: Any, /) -> Any: ...

    assert rows(("Relu", relu), ("Relu", newer, {"since_version": 13})) == [
        (1, 12, relu),
        (13, None, newer),
    ]
    both = [("Softmax", softmax_13, {"since_version": 13}), ("Softmax", softmax_1)]
    assert rows(*both) == [(1, 12, softmax_1), (13, None, softmax_13)]


def test_until_is_the_last_opset_served() -> None:
    assert rows(("Relu", relu, {"until": 12})) == [(1, 12, relu)]
    with pytest.raises(UnsupportedOpError, match="registered for opset 1-12; opset 13 needs"):
        resolve(13, ("Relu", relu, {"until": 12}))


def test_until_at_the_newest_opset_is_no_end() -> None:
    assert rows(("Relu", relu, {"until": NEWEST + 3})) == [(1, None, relu)]


def test_until_cannot_promise_more_than_the_schema_allows() -> None:
    with pytest.raises(SignatureError, match=r"until=17 goes beyond Softmax-1.*at most 12"):
        rows(("Softmax", softmax_1, {"until": 17}))
    with pytest.raises(SignatureError, match="until=5 comes before since_version=6"):
        rows(("Relu", relu, {"since_version": 6, "until": 5}))


def test_a_version_that_onnx_does_not_have_is_refused_with_those_it_has() -> None:
    with pytest.raises(SignatureError, match=r"version 12 .* does not exist.*one of 1, 11, 13"):
        rows(("Softmax", softmax_1, {"since_version": 12}))


def test_a_deprecated_version_is_not_served() -> None:
    def upsample(X: Any, scales: Any, /, *, mode: str = "nearest") -> Any: ...

    assert rows(("Upsample", upsample, {"since_version": 9})) == [(9, 9, upsample)]
    with pytest.raises(UnsupportedOpError, match="deprecated Upsample in opset 10"):
        resolve(13, ("Upsample", upsample, {"since_version": 9}))
    with pytest.raises(SignatureError, match=r"version 10 of Upsample is deprecated.*1, 7, 9"):
        rows(("Upsample", upsample, {"since_version": 10}))


def test_an_opset_newer_than_the_newest_known_is_refused() -> None:
    with pytest.raises(UnsupportedOpError, match=f"newest known opset of ai.onnx is {NEWEST}"):
        resolve(NEWEST + 1, ("Relu", relu))


def test_a_domain_of_ones_own_has_no_newest_opset() -> None:
    options = {"domain": "com.example", "since_version": 2}
    with registered(impls=[("Mine", relu, options)]) as registry:
        assert registry.resolve("Mine", "com.example", opset=1000).impl is relu
        with pytest.raises(UnsupportedOpError, match="registered for opset 2 and later"):
            registry.resolve("Mine", "com.example", opset=1)


@pytest.mark.parametrize("domain", ["", "ai.onnx.ml"])
def test_every_version_of_every_op_can_be_registered_and_ends_where_the_next_differs(
    domain: str,
) -> None:
    """The rule, for all of ONNX: what is called alike is served, the first other ends it."""
    for op_type in schema.op_types(domain):
        versions = schema.history(domain, op_type)
        for index, own in enumerate(versions):
            if own.deprecated:
                continue
            registrar = Registrar(PackInfo("pack"))
            registrar.impl(op_type, define(own), domain=domain, since_version=own.since_version)
            ((span,),) = (registration.spans for registration in registrar.close())
            assert span.first == own.since_version
            others = [s for s in versions[index:] if s.deprecated or not s.called_like(own)]
            end = others[0].since_version - 1 if others else None
            assert span.until == end, own


def define(version: schema.OpSchema) -> Callable[..., Any]:
    namespace: dict[str, Any] = {}
    exec(f"def op{version.as_signature()}: ...", namespace)
    function: Callable[..., Any] = namespace["op"]
    return function


@pytest.mark.parametrize("first", [True, False])
def test_a_pack_s_registrations_never_serve_one_opset_together(first: bool) -> None:
    """The older ends where the newer begins, in whatever order they come."""

    def newer(X: Any, /) -> Any: ...

    impls = [("Relu", relu, {"since_version": 6}), ("Relu", newer, {"since_version": 14})]
    assert rows(*(impls if first else impls[::-1])) == [(6, 13, relu), (14, None, newer)]
    for opset, served in ((6, relu), (13, relu), (14, newer), (15, newer)):
        assert resolve(opset, *impls).impl is served
