"""An operator that does not resolve is told with its place, the reason and what to do next."""

from __future__ import annotations

import difflib
from typing import Any

import onnx.defs
import pytest
from fhe_core.registry import Registry
from hypothesis import given
from hypothesis import strategies as st

from fhe_core import UnsupportedOpError, registered


def refusal(
    registry: Registry, op_type: str, domain: str = "", opset: int = 17
) -> UnsupportedOpError:
    with pytest.raises(UnsupportedOpError) as caught:
        registry.resolve(op_type, domain, opset=opset)
    where = caught.value.where
    assert (where.op, where.domain, where.opset) == (op_type, domain, opset)
    assert caught.value.fix
    return caught.value


def test_without_any_pack_it_says_what_to_install() -> None:
    empty = Registry(())
    error = refusal(empty, "Relu")
    assert error.problem == "no operator pack is installed"
    assert error.fix == "run `pip install fhe-ops-std`"
    assert refusal(empty, "Scaler", "ai.onnx.ml", 3).fix == "run `pip install fhe-ops-contrib`"


def test_an_op_that_no_pack_has_says_so(site: Any) -> None:
    site.add("acme", "registry.impl('Abs', lambda X, /: X)")
    error = refusal(site.load(), "Relu")
    assert "no loaded pack implements it" in error.problem


def test_the_pack_that_has_the_domain_is_named_if_it_is_blocked(site: Any) -> None:
    site.add("acme", "registry.impl('Abs', lambda X, /: X)")
    error = refusal(site.load(), "Relu")
    if any(pack.name == "std" for pack in site.load().packs()):
        assert "pack 'std'" in (error.fix or "")
    else:
        assert error.fix == "run `pip install fhe-ops-std`"


def test_failed_and_blocked_packs_are_repeated(site: Any) -> None:
    site.add("bad", "1 / 0")
    error = refusal(site.load(), "Relu")
    assert "pack 'bad' (bad-ops 1.0) failed to load: its hook fhe_register_ops" in error.problem


def test_many_failed_packs_do_not_flood_the_message(site: Any) -> None:
    for index in range(8):
        site.add(f"bad{index}", "1 / 0")
    problem = refusal(site.load(), "Relu").problem
    assert problem.count("failed to load") <= 5
    assert "more packs are not loaded, see `fhe-ops packs`" in problem


def test_a_pack_that_clashed_is_repeated_with_both_names(site: Any) -> None:
    site.add("a", "registry.impl('Abs', lambda X, /: X)")
    site.add("b", "registry.impl('Abs', lambda X, /: X)\nregistry.impl('Relu', lambda X, /: X)")
    assert "packs 'a' and 'b' both register" in refusal(site.load(), "Relu").problem


def test_a_misspelt_op_gets_suggestions() -> None:
    error = refusal(Registry(()), "Rleu")
    assert "ONNX has no such operator in domain ai.onnx; perhaps 'Relu'" in error.problem
    assert "perhaps 'Softmax'" in refusal(Registry(()), "softmax").problem


NAMES = {schema.name for schema in onnx.defs.get_all_schemas_with_history() if not schema.domain}


@given(st.sampled_from(sorted(NAMES)), st.text(max_size=4), st.text(max_size=4), st.randoms())
def test_the_suggestions_are_the_closest_names_of_all(
    name: str, before: str, after: str, random: Any
) -> None:
    """By difflib's ratio, upper and lower case aside; whatever was left out beforehand."""
    letters = list(name)
    random.shuffle(letters)
    for word in (before + name + after, before + name[:3] + after, "".join(letters)):
        if word in NAMES or not word:
            continue
        by_lower = {name.lower(): name for name in NAMES}
        close = [by_lower[found] for found in difflib.get_close_matches(word.lower(), by_lower)]
        (_, _, hint) = refusal(Registry(()), word).problem.partition("; perhaps ")
        assert hint == (f"{' or '.join(map(repr, close))} is meant" if close else "")


def test_a_misspelt_op_of_another_domain_gets_suggestions_too() -> None:
    impls = [("Wobble", lambda X, /: X, {"domain": "com.example"})]
    with registered(impls=impls) as registry:
        assert "perhaps 'Wobble'" in refusal(registry, "Woble", "com.example", 1).problem


def test_an_op_that_is_younger_than_the_model_says_since_when_it_exists() -> None:
    problem = refusal(Registry(()), "LayerNormalization", opset=9).problem
    assert problem == "ONNX has LayerNormalization since opset 17, and this model says 9"


def test_a_quantized_class_that_nothing_computes_for_is_named() -> None:
    class QuantizedRelu:
        _impl_for_op_named = "Relu"

        @classmethod
        def fusion(cls) -> str:
            return "always"

    with registered(quantized=[QuantizedRelu]) as registry:
        assert registry.ops(shadowed=True) == []
        error = refusal(registry, "Relu")
    assert "pack '<registered>' has a quantized form of it" in error.problem
    assert error.fix == "set `impl` in QuantizedRelu, or install a pack that has one"


def test_an_alternative_that_nothing_serves_beside_is_named(site: Any) -> None:
    site.add("acme", "registry.impl('Relu', lambda X, /: X, alternative=True)")
    error = refusal(site.load(), "Relu")
    assert "pack 'acme' has an alternative implementation of it" in error.problem
    assert "get_registry(prefer={'Relu': 'acme'})" in (error.fix or "")


def test_a_message_has_no_two_marks_in_a_row(site: Any) -> None:
    site.add("bad", "1 / 0")
    for registry in (Registry(()), site.load()):
        text = str(refusal(registry, "Rleu"))
        assert "'PRelu' is meant" in text
        assert not any(marks in text for marks in ("?.", "?;", ".;", "..", ";."))


def test_each_refusal_is_an_error_of_its_own() -> None:
    """A kept error does not grow with the tracebacks of later ones."""
    registry = Registry(())
    assert refusal(registry, "Relu") is not refusal(registry, "Relu")
