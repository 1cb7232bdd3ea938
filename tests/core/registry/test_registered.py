"""`registered` adds operators for its body alone."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from fhe_core import (
    PackError,
    PackInfo,
    SignatureError,
    UnsupportedOpError,
    get_registry,
    registered,
)


def relu(X: Any, /) -> str:
    return "body"


class QuantizedRelu:
    _impl_for_op_named = "Relu"
    impl = None

    @classmethod
    def fusion(cls) -> str:
        return "conditional"


def resolves() -> bool:
    try:
        get_registry().resolve("Relu", opset=17)
    except UnsupportedOpError:
        return False
    return True


def test_its_ops_are_there_in_the_body_and_gone_after_it() -> None:
    assert not resolves()
    with registered(impls=[("Relu", relu)], quantized=[QuantizedRelu]) as registry:
        spec = get_registry().resolve("Relu", opset=17)
        assert get_registry() is registry
        assert (spec.impl, spec.quantized, spec.fusion) == (relu, QuantizedRelu, "conditional")
        assert spec.impl_pack == spec.quantized_pack == "<registered>"
        assert spec.impl_origin == spec.quantized_origin == PackInfo("<registered>")
    assert not resolves()


def test_they_are_gone_after_an_error_too() -> None:
    with pytest.raises(RuntimeError), registered(impls=[("Relu", relu)]):
        raise RuntimeError
    assert not resolves()


def test_they_come_before_any_pack(site: Any) -> None:
    """Even before an override and the user's preference; what they hide stays visible."""
    site.add("acme", "registry.impl('Relu', lambda X, /: 'pack', override=True)")
    prefer = {"Relu": "acme"}
    with registered(impls=[("Relu", relu, {"since_version": 13})]):
        for registry in (get_registry(), get_registry(prefer=prefer)):
            assert registry.resolve("Relu", opset=17).impl is relu
            assert registry.resolve("Relu", opset=12).impl_pack == "acme"
            assert [r.impl_pack for r in registry.ops(shadowed=True) if r.shadowed] == ["acme"]
    assert get_registry().resolve("Relu", opset=17).impl_pack == "acme"


def test_the_inner_body_comes_first() -> None:
    def inner(X: Any, /) -> str: ...

    with registered(impls=[("Relu", relu)]):
        with registered(impls=[("Relu", inner)]) as registry:
            assert registry.resolve("Relu", opset=17).impl is inner
        assert get_registry().resolve("Relu", opset=17).impl is relu


def test_one_slot_can_be_replaced_alone() -> None:
    class Other(QuantizedRelu):
        pass

    with (
        registered(impls=[("Relu", relu)], quantized=[QuantizedRelu]),
        registered(quantized=[(Other, {"since_version": 13})]) as registry,
    ):
        assert registry.resolve("Relu", opset=12).quantized is QuantizedRelu
        assert registry.resolve("Relu", opset=13).quantized is Other
        assert registry.resolve("Relu", opset=13).impl is relu


def test_another_thread_does_not_see_them() -> None:
    seen: list[bool] = []
    with registered(impls=[("Relu", relu)]):
        thread = threading.Thread(target=lambda: seen.append(resolves()))
        thread.start()
        thread.join()
    assert seen == [False]


def test_a_registry_from_outside_does_not_change() -> None:
    outside = get_registry()
    with registered(impls=[("Relu", relu)]):
        assert outside.ops() == []


def test_it_also_decorates_a_function() -> None:
    @registered(impls=[("Relu", relu)])
    def body() -> bool:
        return resolves()

    assert body()
    assert body()
    assert not resolves()


@pytest.mark.parametrize(
    ("arguments", "error", "problem"),
    [
        ({"impls": ["Relu"]}, PackError, r"expected: \(op_type, fn\)"),
        ({"impls": [("Relu", relu, 1, 2)]}, PackError, r"expected: \(op_type, fn\)"),
        (
            {"impls": [("Relu", relu, {"version": 1})]},
            PackError,
            "override, alternative; got.*version",
        ),
        ({"quantized": [(QuantizedRelu, 13)]}, PackError, "unknown options"),
        ({"quantized": [()]}, PackError, r"a class or \(cls, options\)"),
        ({"impls": [("Relu", relu), ("Relu", relu)]}, PackError, "registers impl twice"),
        ({"impls": [("Relu", lambda x, y, /: x)]}, SignatureError, "contradicts Relu-1"),
    ],
)
def test_a_malformed_item_is_refused(
    arguments: dict[str, Any], error: type[Exception], problem: str
) -> None:
    with pytest.raises(error, match=problem), registered(**arguments):
        pass
