"""The registry says which operators there are, whose they are, and what a node means."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from fhe_core.registry import Registry

from fhe_core import PackError, get_registry

RELU = "registry.impl('Relu', lambda X, /: {value!r}, **{options})"
QUANTIZED = """
class QuantizedRelu:
    _impl_for_op_named = 'Relu'
    impl = None
    @classmethod
    def fusion(cls): return {fusion!r}
registry.quantized(QuantizedRelu, **{options})
"""

OWN_SOFTMAX = """
class QuantizedSoftmax:
    _impl_for_op_named = "Softmax"
    @staticmethod
    def impl(input, /, *, axis=-1): return "own"
    @classmethod
    def fusion(cls): return "never"
registry.quantized(QuantizedSoftmax, **{options})
"""


def relu(value: str, **options: Any) -> str:
    """A hook's body that registers a Relu which answers ``value``."""
    return RELU.format(value=value, options=options)


def quantized(fusion: str = "always", **options: Any) -> str:
    return QUANTIZED.format(fusion=fusion, options=options)


def answer(registry: Registry, opset: int = 17) -> Any:
    impl = registry.resolve("Relu", opset=opset).impl
    assert impl is not None
    return impl(None)


def layout(registry: Registry, **filters: Any) -> list[tuple[Any, ...]]:
    return [
        (r.op_type, r.since_version, r.until, r.impl_pack, r.quantized_pack, r.shadowed)
        for r in registry.ops(**filters)
    ]


def test_one_row_holds_both_slots_over_the_range_that_they_share(site: Any) -> None:
    site.add("a", relu("a") + quantized(since_version=13))
    registry = site.load()
    assert layout(registry) == [
        ("Relu", 1, 12, "a", None, False),
        ("Relu", 13, None, "a", "a", False),
    ]
    float_only, both = registry.ops()
    assert (float_only.fusion, both.fusion) == (None, "always")
    assert both.quantized is not None
    assert both.quantized.__name__ == "QuantizedRelu"
    assert str(both.signature) == "(X, /)"


def test_what_resolves_is_the_row_that_is_listed(site: Any) -> None:
    site.add("a", relu("a") + quantized(since_version=13))
    registry = site.load()
    first, second = registry.ops()
    assert registry.resolve("Relu", opset=12) is first
    assert registry.resolve("Relu", "ai.onnx", opset=13) is registry.resolve("Relu", opset=13)
    assert registry.resolve("Relu", opset=13) is second


def test_a_quantized_class_without_a_version_serves_wherever_the_impl_resolves(site: Any) -> None:
    """Also where the implementation is another pack's."""
    site.add("a", relu("a", since_version=6, until=13))
    site.add("b", quantized())
    assert layout(site.load()) == [("Relu", 6, 13, "a", "b", False)]


def test_a_quantized_class_may_bring_its_own_impl(site: Any) -> None:
    """Its signature is then the specification, and it serves the versions that this fits."""
    site.add("a", OWN_SOFTMAX.format(options={}))
    (spec,) = site.load().ops()
    assert (spec.since_version, spec.until, spec.impl_pack) == (13, None, "a")
    assert str(spec.signature) == "(input, /, *, axis=-1)"
    assert spec.impl is not None
    assert spec.impl(None) == "own"


def test_an_impl_of_its_own_is_checked_too(site: Any) -> None:
    site.add("a", OWN_SOFTMAX.format(options={"until": 12}))
    assert "until=12 comes before every version of Softmax that" in site.pack("a").reason
    site.add("b", OWN_SOFTMAX.format(options={"since_version": 1}))
    assert "Softmax-1 of ONNX" in site.pack("b").reason


def test_an_impl_of_its_own_serves_every_opset_of_a_domain_of_ones_own(site: Any) -> None:
    site.add("a", OWN_SOFTMAX.format(options={"domain": "com.example"}))
    assert layout(site.load()) == [("Softmax", 1, None, "a", "a", False)]


def test_rows_are_sorted_and_filtered(site: Any) -> None:
    site.add("a", relu("a") + "\nregistry.impl('Double', lambda X, /: X, domain='com.example')")
    site.add("b", "registry.impl('Abs', lambda X, /: X)" + quantized())
    registry = site.load()
    assert [r.op_type for r in registry.ops()] == ["Abs", "Relu", "Double"]
    assert [r.op_type for r in registry.ops(domain="ai.onnx")] == ["Abs", "Relu"]
    assert [r.op_type for r in registry.ops(domain="com.example")] == ["Double"]
    assert [r.op_type for r in registry.ops(pack="a")] == ["Relu", "Double"]
    assert [r.op_type for r in registry.ops(pack="b")] == ["Abs", "Relu"]


def test_two_packs_in_one_slot_are_a_clash_that_names_both(site: Any) -> None:
    site.add("a", relu("a"))
    site.add("b", relu("b", since_version=13) + "\nregistry.impl('Abs', lambda X, /: X)")
    registry = site.load()
    assert layout(registry) == [("Relu", 1, None, "a", None, False)]
    reason = site.pack("b").reason
    assert "packs 'a' and 'b' both register impl of ai.onnx.Relu for opset 13 and later" in reason
    assert "override=True" in reason
    assert "get_registry(prefer={'Relu': 'a'})" in reason


def test_a_clash_is_an_error_in_strict_mode(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    site.add("a", relu("a"))
    site.add("b", relu("b"))
    monkeypatch.setenv("FHE_PACKS_STRICT", "1")
    with pytest.raises(PackError, match="packs 'a' and 'b' both register"):
        site.load()
    assert answer(site.load(prefer={"Relu": "b"})) == "b"


def test_the_two_slots_clash_separately(site: Any) -> None:
    site.add("a", relu("a"))
    site.add("b", quantized())
    site.add("c", quantized())
    registry = site.load()
    assert layout(registry) == [("Relu", 1, None, "a", "b", False)]
    assert "both register quantized of ai.onnx.Relu" in site.pack("c").reason


def test_packs_with_disjoint_opsets_do_not_clash(site: Any) -> None:
    site.add("a", relu("a", until=12))
    site.add("b", relu("b", since_version=13))
    registry = site.load()
    assert [answer(registry, opset) for opset in (12, 13)] == ["a", "b"]


@pytest.mark.parametrize("overriding", ["a", "c"])
def test_an_override_wins_whichever_pack_is_loaded_first(overriding: str, site: Any) -> None:
    site.add("b", relu("b"))
    site.add(overriding, relu(overriding, override=True))
    registry = site.load()
    assert answer(registry) == overriding
    assert layout(registry) == [("Relu", 1, None, overriding, None, False)]
    assert layout(registry, shadowed=True)[1] == ("Relu", 1, None, "b", None, True)


def test_two_overrides_of_one_slot_clash_until_one_is_preferred(site: Any) -> None:
    site.add("std", relu("std"))
    site.add("x", relu("x", override=True))
    site.add("y", relu("y", override=True, since_version=6))
    registry = site.load()
    assert [p.status for p in registry.packs()][-3:] == ["loaded", "loaded", "failed"]
    reason = registry.packs()[-1].reason
    assert reason is not None
    assert "packs 'x' and 'y' both override impl of ai.onnx.Relu for opset 6 and later" in reason
    assert "override=True" not in reason
    assert answer(registry) == "x"
    assert answer(site.load(prefer={"Relu": "y"})) == "y"


def test_overrides_of_disjoint_opsets_do_not_clash(site: Any) -> None:
    site.add("std", relu("std"))
    site.add("x", relu("x", override=True, until=5))
    site.add("y", relu("y", override=True, since_version=6))
    assert [answer(site.load(), opset) for opset in (5, 6)] == ["x", "y"]


def test_a_float_override_alone_leaves_out_the_form_of_what_it_replaces(site: Any) -> None:
    """The class computes the function that was replaced, so it is another operator's."""
    site.add("std", f"{relu('std')}\n{quantized('never')}")
    site.add("x", relu("x", override=True, until=12))
    registry = site.load()
    assert layout(registry, shadowed=True) == [
        ("Relu", 1, 12, "x", None, False),
        ("Relu", 1, 12, None, "std", True),
        ("Relu", 1, 12, "std", None, True),
        ("Relu", 13, None, "std", "std", False),
    ]
    left_out = registry.resolve("Relu", opset=12).left_out_origin
    assert left_out is not None
    assert left_out.name == "std"
    assert registry.resolve("Relu", opset=13).left_out_origin is None


@pytest.mark.parametrize(
    ("theirs", "mine"),
    [
        # It evaluates whatever function there is.
        (quantized("always"), ""),
        # The override has its own.
        (quantized("never"), quantized("never", override=True)),
    ],
)
def test_a_form_that_computes_the_override_serves(theirs: str, mine: str, site: Any) -> None:
    site.add("std", f"{relu('std')}\n{theirs}")
    site.add("x", f"{relu('x', override=True)}\n{mine}")
    (row,) = site.load().ops()
    assert row.impl_pack == "x"
    assert row.quantized_pack == ("x" if mine else "std")


def test_a_form_without_a_function_of_its_own_pairs_with_whoever_has_one(site: Any) -> None:
    """Nobody's function is replaced there."""
    site.add("a", quantized("never"))
    site.add("b", relu("b"))
    site.add("c", relu("c", override=True))
    assert layout(site.load()) == [("Relu", 1, None, "c", None, False)]
    assert layout(site.load(prefer={"Relu": "b"}))[0][3:5] == ("b", "a")


def test_an_override_leaves_the_rest_of_the_range_to_the_other(site: Any) -> None:
    site.add("a", relu("a"))
    site.add("b", relu("b", since_version=6, until=13, override=True))
    assert layout(site.load(), shadowed=True) == [
        ("Relu", 1, 5, "a", None, False),
        ("Relu", 6, 13, "b", None, False),
        ("Relu", 6, 13, "a", None, True),
        ("Relu", 14, None, "a", None, False),
    ]


def test_what_is_hidden_does_not_cut_the_row_that_hides_it(site: Any) -> None:
    site.add("a", relu("a", override=True))
    site.add("b", relu("b", since_version=6, until=13))
    assert layout(site.load(), shadowed=True) == [
        ("Relu", 1, None, "a", None, False),
        ("Relu", 6, 13, "b", None, True),
    ]


def test_the_users_preference_settles_a_clash_and_beats_an_override(site: Any) -> None:
    site.add("a", relu("a"))
    site.add("b", relu("b"))
    site.add("c", relu("c", override=True))
    for name in ("a", "b", "c"):
        registry = site.load(prefer={"Relu": name})
        assert answer(registry) == name
        assert {p.status for p in registry.packs() if p.name == name} == {"loaded"}


def test_a_preference_can_name_the_domain(site: Any) -> None:
    site.add("a", relu("a"))
    site.add("b", relu("b"))
    assert answer(site.load(prefer={"ai.onnx.Relu": "b"})) == "b"


def test_preferred_registries_share_what_was_imported(site: Any) -> None:
    """A variant is built from the loaded registrations, and built once."""
    site.add("a", f"{relu('a')}")
    site.add("b", f"{relu('b', override=True)}")
    base = get_registry()
    variant = get_registry(prefer={"Relu": "a"})
    assert (answer(base), answer(variant)) == ("b", "a")
    assert get_registry() is base
    assert get_registry(prefer={"Relu": "a"}) is variant
    shadowed = [r.impl for r in base.ops(shadowed=True) if r.shadowed]
    assert shadowed == [variant.resolve("Relu", opset=17).impl]


@pytest.mark.parametrize(
    ("prefer", "problem"),
    [
        ({"Relu": "nobody"}, r"not installed.*one of .*a, bad"),
        ({"Relu": "bad"}, "failed: its hook fhe_register_ops raised"),
        ({"Conv": "a"}, "does not register this operator"),
    ],
)
def test_a_preference_that_cannot_be_met_is_an_error(
    prefer: dict[str, str], problem: str, site: Any
) -> None:
    site.add("a", relu("a"))
    site.add("bad", "1 / 0")
    with pytest.raises(PackError, match=problem):
        site.load(prefer=prefer)


@pytest.mark.parametrize(
    ("ops", "reason"),
    [
        ("registry.quantized(3)", "does not say which operator it is for"),
        ("registry.quantized(type('Q', (), {}))", "does not say which operator it is for"),
        (
            "registry.quantized(type('Q', (), {'_impl_for_op_named': 'Relu'}))",
            "does not say whether the operator fuses",
        ),
        (
            "registry.quantized(type('Q', (), {'_impl_for_op_named': 'Relu', "
            "'fusion': lambda: 'never', 'impl': 3}))",
            "Q.impl is no function",
        ),
        (
            "registry.quantized(type('Q', (), {'_impl_for_op_named': 'Rleu', "
            "'fusion': lambda: 'never'}))",
            "no operator 'Rleu'",
        ),
        ("registry.impl('Relu', 'relu')", "the implementation of Relu is no function"),
        ("registry.impl('', print)", "the operator's name is no text"),
        ("registry.impl('Relu', print, domain=None)", "the domain is no text"),
        ("registry.impl('Relu', print, since_version='13')", "since_version is no opset"),
        ("registry.impl('Relu', print, until=0)", "until is no opset"),
        ("registry.impl('Relu', print, alternative=1)", "alternative is neither True nor False"),
        ("registry.impl('Relu', print, override='no')", "override is neither True nor False"),
        (
            "registry.impl('Relu', lambda X, /: X, override=True, alternative=True)",
            "what is an alternative takes nobody's place",
        ),
    ],
)
def test_a_wrong_registration_says_what_would_be_right(ops: str, reason: str, site: Any) -> None:
    site.add("a", ops)
    assert reason in site.pack("a").reason


def test_the_registry_and_what_it_answers_are_frozen(site: Any) -> None:
    site.add("a", relu("a") + quantized())
    registry = site.load()
    (spec,) = registry.ops()
    with pytest.raises(PackError, match=r"the registry is frozen.*got: a new value for 'resolve'"):
        registry.resolve = lambda *args, **kwargs: spec  # type: ignore[method-assign]
    with pytest.raises(PackError, match=r"the registry is frozen.*the removal of '_packs'"):
        del registry._packs
    for frozen in (spec, spec.impl_origin, spec.signature):
        with pytest.raises(FrozenInstanceError):
            frozen.name = None  # type: ignore[union-attr]
    with pytest.raises(TypeError):
        spec.signature.attributes["axis"] = 1  # type: ignore[index, union-attr]
    registry.ops().clear()
    registry.packs().clear()
    assert registry.ops() == [spec]
    assert registry.packs()


def test_threads_that_ask_at_once_get_the_same_rows(site: Any) -> None:
    site.add(
        "a", "\n".join(f"registry.impl('Op{i}', lambda X, /: X, domain='d')" for i in range(200))
    )
    registry = site.load()
    barrier = threading.Barrier(4)

    def ask(_: int) -> list[int]:
        barrier.wait()
        return [id(registry.resolve(f"Op{i}", "d", opset=1)) for i in range(200)]

    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(ask, range(4))
    assert others == [first] * 3
    assert {id(row) for row in registry.ops("d")} == set(first)


# -- alternatives


def test_an_alternative_clashes_with_nobody_and_serves_nobody(site: Any) -> None:
    site.add("a", relu("a"))
    site.add("b", relu("b", alternative=True))
    site.add("c", relu("c", alternative=True, since_version=13))
    registry = site.load()
    assert {p.status for p in registry.packs() if p.name in "abc"} == {"loaded"}
    assert layout(registry) == [("Relu", 1, None, "a", None, False)]
    found = [r for r in registry.ops(shadowed=True) if r.alternative]
    assert [(r.impl_pack, r.since_version, r.shadowed) for r in found] == [
        ("b", 1, True),
        ("c", 13, True),
    ]


def test_an_alternative_serves_where_the_user_prefers_its_pack(site: Any) -> None:
    site.add("a", relu("a"))
    site.add("b", relu("b", alternative=True, until=12))
    registry = site.load(prefer={"Relu": "b"})
    assert [answer(registry, opset) for opset in (12, 13)] == ["b", "a"]


def test_a_preferred_pack_serves_with_its_own_choice_before_its_alternative(site: Any) -> None:
    site.add("a", relu("a", alternative=True) + "\n" + relu("b"))
    for prefer in (None, {"Relu": "a"}):
        assert answer(site.load(prefer=prefer)) == "b"


def test_several_alternatives_of_one_pack_stand_side_by_side(site: Any) -> None:
    site.add("a", "\n".join(relu(value, alternative=True) for value in "abc"))
    assert len(site.load().ops(shadowed=True)) == 3


def test_an_alternative_quantized_class_waits_to_be_chosen(site: Any) -> None:
    site.add("a", relu("a"))
    site.add("b", quantized(alternative=True))
    assert layout(site.load(), shadowed=True) == [
        ("Relu", 1, None, "a", None, False),
        ("Relu", 1, None, None, "b", True),
    ]
    assert site.load(prefer={"Relu": "b"}).resolve("Relu", opset=17).quantized_pack == "b"
