"""Each hook does what its docstring says: the example there is a pack, and it works."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import replace
from textwrap import dedent
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from fhe_core.graph import Graph, load_model, read_graph
from fhe_core.graph.passes import alternatives
from fhe_core.registry import Registry, hooks
from fhe_core.registry.calling import hook_manager, hook_names
from onnx import TensorProto, helper, numpy_helper

import fhe_core
from fhe_core import NumpyModule, PackError, PackInfo, QuantizedOp, get_registry, registered

DOMAIN = "com.example"
ONES = np.ones(3, np.float32)


def example(hook: str) -> str:
    """The code in a hook's docstring."""
    text = inspect.getdoc(getattr(hooks, hook)) or ""
    return dedent(text.partition("Example::\n")[2])


def model(*nodes: tuple[str, str, str], domain: str = DOMAIN, version: int = 1) -> onnx.ModelProto:
    """From x to y, both of three floats; c is a constant. Nodes are (op, input, output)."""
    graph = helper.make_graph(
        [helper.make_node(op, [a], [b], name=b, domain=domain) for op, a, b in nodes],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(ONES, "c")],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, version)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def implementations(net: NumpyModule) -> list[str]:
    return [step.impl.__name__ for step in net.steps]


# -- the examples


def test_every_hook_has_an_example_and_a_type_for_each_argument() -> None:
    for hook in hook_names(hook_manager()):
        function = getattr(hooks, hook)
        assert f"def {hook}(" in example(hook)
        parameters = inspect.signature(function).parameters.values()
        assert all(p.annotation is not p.empty for p in parameters)
        for parameter in parameters:
            assert f"{parameter.name}: " in inspect.getdoc(function), parameter


def test_the_example_of_registering_hooks(site: Any) -> None:
    """A pack specifies a hook, another implements it, whichever of the two is loaded first."""
    site.add("zzz", source=example("fhe_register_hooks"))
    greets = "import fhe_core\n@fhe_core.hookimpl\ndef fhe_greet(name): return name.upper()"
    site.add("aaa", source=greets)
    registry = site.load()
    assert {site.pack(name).status for name in ("aaa", "zzz")} == {"loaded"}
    answers = [(pack.name, answer) for pack, answer in registry.hooks.each("fhe_greet", name="you")]
    assert answers == [("aaa", "YOU"), ("zzz", "Hello, you")]
    assert registry.hooks.first("fhe_greet", name="you") == "YOU"


def test_a_hook_that_raises_or_that_nobody_specified_is_an_error_with_its_owner(site: Any) -> None:
    site.add("zzz", source=example("fhe_register_hooks"))
    site.add("bad", source="import fhe_core\n@fhe_core.hookimpl\ndef fhe_greet(): return 1 / 0")
    hooks = site.load().hooks
    with pytest.raises(PackError, match="pack 'bad': its hook fhe_greet raised ZeroDivisionError"):
        hooks.first("fhe_greet", name="you")
    with pytest.raises(PackError, match="there is no hook 'fhe_meet'"):
        hooks.first("fhe_meet")


@pytest.mark.parametrize("what", ["3", "object()"])
def test_what_specifies_no_hook_is_refused(what: str, site: Any) -> None:
    body = f"@fhe_core.hookimpl\ndef fhe_register_hooks(hooks): hooks.add({what})"
    site.add("bad", source=f"import fhe_core\n{body}")
    site.load()
    assert site.pack("bad").status == "failed"
    assert "specifies no hook" in site.pack("bad").reason


def test_plug_ins_can_be_registered_for_a_body() -> None:
    """They are asked before the packs, and no more after the body."""

    class Chooses:
        @fhe_core.hookimpl
        def fhe_choose_candidate(self, node: Any, candidates: Any) -> Any:
            return candidates

    before = get_registry().hooks.has("fhe_choose_candidate")
    with fhe_core.registered(plugins=[Chooses()]) as registry:
        answer = registry.hooks.first("fhe_choose_candidate", node=None, candidates="all")
        assert answer == "all"
    assert get_registry().hooks.has("fhe_choose_candidate") == before
    with pytest.raises(PackError, match="has no hook that is called after loading"):
        fhe_core.registered(plugins=[object()]).__enter__()


def test_the_example_of_registering_operators(site: Any) -> None:
    site.add("acme", source=example("fhe_register_ops"))
    spec = site.load().resolve("Double", DOMAIN, opset=1)
    assert spec.impl is not None
    assert spec.impl(3, times=2) == 12


def test_the_example_of_registering_passes(site: Any) -> None:
    site.add("acme", source=example("fhe_register_passes"))
    nodes = [("Identity", "x", "a"), ("Relu", "a", "b"), ("Identity", "b", "y")]
    report = fhe_core.check(model(*nodes, domain=""), registry=site.load())
    assert [(n.node, n.status, n.pack) for n in report.nodes if n.status == "rewritten"] == [
        ("a", "rewritten", "acme")
    ]
    assert [problem.op for problem in report.problems] == ["Relu", "Identity"]


def test_the_example_of_registering_reductions(site: Any) -> None:
    site.add("acme", source=example("fhe_register_passes"))
    site.add("ops", "import numpy as np\nregistry.impl('Relu', lambda X, /: np.maximum(X, 0))")
    site.add("more", "registry.impl('Mul', lambda A, B, /: A * B, since_version=7)")
    site.add("most", "registry.impl('Add', lambda A, B, /: A + B, since_version=7)")
    registry = site.load()
    (straighten,) = registry.reductions()
    assert str(straighten) == "acme.straighten"
    graph = NumpyModule(model(("Relu", "x", "y"), domain=""), registry=registry).graph
    (relu,) = graph.nodes
    none = np.zeros((1, 3), bool)
    slope, offset = np.array([[1.0, 2.0, 0.0]]), np.array([[0.0, 1.0, 5.0]])
    straight = straighten.run(graph, relu, none, slope, offset)
    assert straight is not None
    net = NumpyModule(straight, registry=registry)
    np.testing.assert_array_equal(net(-ONES[None]), [[-1, -1, 5]])
    assert straighten.run(graph, relu, ~none, slope, offset) is None


def test_the_example_of_registering_alternatives(site: Any) -> None:
    site.add("acme", source=example("fhe_register_passes"))
    site.add("ops", "import numpy as np\nregistry.impl('Relu', lambda X, /: np.maximum(X, 0))")
    site.add(
        "more",
        "import numpy as np\n"
        "registry.impl('Max', lambda *data_0: np.maximum(*data_0), since_version=8)",
    )
    registry = site.load()
    net = NumpyModule(model(("Relu", "x", "y"), domain=""), registry=registry)
    (alternative,) = registry.alternatives()
    assert str(alternative) == "acme.relu_as_maximum"
    ((origin, graph),) = alternatives(net.graph, registry, {"x": ONES[None]})
    assert origin is alternative
    assert [node.op_type for node in graph.nodes] == ["Max"]
    assert alternatives(graph, registry, {"x": ONES[None]}) == []


def test_the_example_of_choosing_a_candidate(site: Any) -> None:
    site.add("acme", source=example("fhe_choose_candidate"))
    proto = model(("Double", "x", "y"), ("Double", "c", "k"))
    net = NumpyModule(proto, registry=site.load())
    assert implementations(net) == ["double", "double_by_addition"]
    np.testing.assert_array_equal(net(ONES[None]), 2 * ONES[None])


# -- choosing


CHOOSES = """
import fhe_core

@fhe_core.hookimpl
def fhe_choose_candidate(node, candidates):
    {}
"""


def chooser(site: Any, body: str, name: str = "chooser") -> None:
    site.add(name, source=CHOOSES.format(body))


def offers(site: Any) -> None:
    """Packs a, b and c with an implementation of Double that is their own name."""
    for name, options in (("a", ""), ("b", ", override=True"), ("c", ", alternative=True")):
        ops = f"def {name}(X, /): return X + X\nregistry.impl('Double', {name}, domain='{DOMAIN}'"
        site.add(name, f"{ops}{options})")


def chosen(registry: Registry) -> str:
    (name,) = implementations(NumpyModule(model(("Double", "x", "y")), registry=registry))
    return name


@pytest.mark.parametrize("wanted", ["a", "b", "c"])
def test_any_candidate_can_be_chosen(wanted: str, site: Any) -> None:
    offers(site)
    chooser(site, f"return next(c for c in candidates if c.pack == {wanted!r})")
    assert chosen(site.load()) == wanted


def test_without_an_opinion_the_next_pack_is_asked_and_then_what_serves_stays(site: Any) -> None:
    offers(site)
    chooser(site, "return None", "d")
    assert chosen(site.load()) == "b"
    chooser(site, "return candidates[-1]", "e")
    chooser(site, "raise AssertionError('asked in vain')", "f")
    assert chosen(site.load()) == "c"


def test_what_serves_is_offered_first_then_what_it_shadows_then_alternatives(site: Any) -> None:
    offers(site)
    chooser(site, "raise ValueError([(c.slot, c.pack, c.fusion, c.serving) for c in candidates])")
    expected = [("impl", "b", None, True), ("impl", "a", None, False), ("impl", "c", None, False)]
    with pytest.raises(PackError) as caught:
        chosen(site.load())
    assert str(expected) in str(caught.value)


def test_candidates_of_other_opsets_are_not_offered(site: Any) -> None:
    """A registration that ends before the model's version, or begins after it, cannot serve its node."""
    offers(site)
    for name, options in (("d", "until=1"), ("e", "since_version=3")):
        body = f"def {name}(X, /): return X + X\n"
        site.add(
            name,
            body
            + f"registry.impl('Double', {name}, domain='{DOMAIN}', alternative=True, {options})",
        )
    chooser(site, "raise ValueError([c.pack for c in candidates])")
    with pytest.raises(PackError) as caught:
        NumpyModule(model(("Double", "x", "y"), version=2), registry=site.load())
    assert "['b', 'a', 'c']" in str(caught.value)


def test_a_hook_sees_what_the_node_is(site: Any) -> None:
    options = f"domain='{DOMAIN}'"
    for name, extra in (("a", ""), ("b", ", alternative=True")):
        site.add(
            name, f"registry.impl('Scale', lambda X, W, /, B=None, *, by=1.0: X, {options}{extra})"
        )
    chooser(
        site,
        "assert (node.op_type, node.domain, node.opset) == ('Scale', 'com.example', 1)\n    "
        "assert (node.input_count, node.output_count) == (3, 1)\n    "
        "assert dict(node.attributes) == {'by': 2.0} and list(node.constants) == [2]\n    "
        "assert not node.constants[2].flags.writeable\n    "
        "return candidates[1]",
    )
    proto = model(("Scale", "x", "y"))
    node = proto.graph.node[0]
    node.input[:] = ["x", "", "c"]
    node.attribute.append(helper.make_attribute("by", 2.0))
    with pytest.raises(Exception, match="required input W is missing") as caught:
        NumpyModule(proto, registry=site.load())
    assert caught.value.where.pack == "b"


def test_the_users_preference_and_a_registered_body_end_the_matter(site: Any) -> None:
    offers(site)
    chooser(site, "raise AssertionError('asked in vain')")
    assert chosen(site.load(prefer={"Double": "a"})) == "a"
    assert chosen(site.load(prefer={f"{DOMAIN}.Double": "c"})) == "c"

    def body(X: Any, /) -> Any: ...

    with registered(impls=[("Double", body, {"domain": DOMAIN})]):
        assert chosen(get_registry()) == "body"


def test_nobody_is_asked_where_there_is_nothing_to_choose(site: Any) -> None:
    site.add("a", f"registry.impl('Double', lambda X, /: X, domain='{DOMAIN}')")
    site.add("b", f"registry.impl('Other', lambda X, /: X, domain='{DOMAIN}')")
    chooser(site, "raise AssertionError('asked in vain')")
    assert chosen(site.load()) == "<lambda>"


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("return 1 / 0", "its hook fhe_choose_candidate raised ZeroDivisionError"),
        ("exit(3)", "its hook fhe_choose_candidate raised SystemExit: 3"),
        ("return candidates", "did not choose one of the candidates"),
        ("return candidates[0].target", "did not choose one of the candidates"),
        ("from copy import copy; return copy(candidates[0])", "did not choose one"),
        ("candidates[0].serving = False", "raised FrozenInstanceError"),
    ],
)
def test_a_wrong_answer_is_an_error_that_names_pack_and_node(
    body: str, problem: str, site: Any
) -> None:
    offers(site)
    chooser(site, body)
    with pytest.raises(PackError, match=problem) as caught:
        chosen(site.load())
    assert (caught.value.where.pack, caught.value.where.node) == ("chooser", "y")
    (reported,) = fhe_core.check(model(("Double", "x", "y")), registry=site.load()).problems
    assert (reported.pack, reported.node) == ("chooser", "y")
    assert caught.value.problem in reported.reason


# -- quantized candidates


class QuantizedDouble(QuantizedOp):
    _impl_for_op_named = "Double"


class Mixing(QuantizedOp):
    _impl_for_op_named = "Double"

    def q_impl(self, *q_inputs: Any, **attrs: Any) -> Any:
        (x,) = q_inputs
        return self.quantized((x.qvalues - x.quantizer.zero_point) * (2 * x.quantizer.scale))


@pytest.fixture
def quantized_offers(site: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Registry]:
    """A registry with two quantized classes, of which the hook takes one by its fusion."""
    kinds = {"one": QuantizedDouble, "other": Mixing}

    def build(wanted: str) -> Registry:
        stand_in = ModuleType("quantized_kinds")
        vars(stand_in).update(kinds)
        monkeypatch.setitem(sys.modules, "quantized_kinds", stand_in)
        options = f"domain='{DOMAIN}'"
        site.add("a", f"registry.impl('Double', lambda X, /: X + X, {options})")
        get = "import quantized_kinds\nregistry.quantized(quantized_kinds"
        site.add("b", f"{get}.one, {options})")
        site.add("c", f"{get}.other, {options}, alternative=True)")
        chooser(site, f"return next((c for c in candidates if c.fusion == {wanted!r}), None)")
        return site.load()

    return build


@pytest.mark.parametrize(
    ("wanted", "status", "pack"), [("always", "fused", "b"), ("never", "encrypted", "c")]
)
def test_check_says_what_the_chosen_quantized_class_makes_of_a_node(
    wanted: str, status: str, pack: str, quantized_offers: Callable[[str], Registry]
) -> None:
    report = fhe_core.check(model(("Double", "x", "y")), registry=quantized_offers(wanted))
    assert [(node.status, node.pack) for node in report.nodes] == [(status, pack)]


@pytest.mark.parametrize("wanted", ["always", "never"])
def test_what_is_compiled_is_the_chosen_quantized_class(
    wanted: str, quantized_offers: Callable[[str], Registry]
) -> None:
    registry = quantized_offers(wanted)
    proto, data = model(("Double", "x", "y")), np.ones((5, 3), np.float32)
    qm = fhe_core.quantize(proto, data, registry=registry)
    assert qm.fusion[0].pack == {"always": "b", "never": "c"}[wanted]


def test_a_registered_bodys_pass_is_no_packs() -> None:
    with registered(passes=[lambda graph: graph, (len, "count")]) as registry:
        names = [(each.name, each.origin) for each in registry.passes()]
    assert names == [("<lambda>", PackInfo("<registered>")), ("count", PackInfo("<registered>"))]


def test_a_registered_bodys_reductions_come_after_the_packs_and_the_inner_bodys_last() -> None:
    def bend(graph: Any, node: Any, live: Any, slope: Any, offset: Any) -> None: ...

    before = get_registry().reductions()
    with registered(reductions=[bend]), registered(reductions=[(bend, "inner")]) as registry:
        assert registry.reductions()[: len(before)] == before
        names = [str(each) for each in registry.reductions()[len(before) :]]
    assert names == ["<registered>.bend", "<registered>.inner"]
    assert get_registry().reductions() == before


@pytest.mark.parametrize(
    ("item", "problem"),
    [
        ("bend", "no function of a graph, a node, live, slope and offset"),
        (lambda graph: graph, "no function of a graph, a node, live, slope and offset"),
        ((lambda *a: None, ""), "the reduction's name is no text"),
        ((len, "a", "b"), r"expected: a function or \(fn, name\)"),
    ],
)
def test_a_malformed_reduction_is_refused(item: Any, problem: str) -> None:
    with pytest.raises(PackError, match=problem), registered(reductions=[item]):
        pass


def test_a_registered_bodys_alternatives_come_after_the_packs_and_the_inner_bodys_last() -> None:
    def other(graph: Any, samples: Any) -> None: ...

    before = get_registry().alternatives()
    with registered(alternatives=[other]), registered(alternatives=[(other, "inner")]) as registry:
        names = [str(each) for each in registry.alternatives()[len(before) :]]
    assert names == ["<registered>.other", "<registered>.inner"]
    assert get_registry().alternatives() == before


@pytest.mark.parametrize(
    ("item", "problem"),
    [
        ("other", "no function of a graph and samples"),
        (lambda graph: graph, "no function of a graph and samples"),
        ((lambda *a: None, ""), r"passes\.add_alternative\(fn, name='fold'\)"),
    ],
)
def test_a_malformed_alternative_is_refused(item: Any, problem: str) -> None:
    with pytest.raises(PackError, match=problem), registered(alternatives=[item]):
        pass


def test_an_alternative_that_computes_something_else_is_refused() -> None:
    def doubled(graph: Any, samples: Any) -> Any:
        (node,) = graph.nodes
        twice = replace(node, attributes={"times": 2})
        return replace(graph, nodes=(twice,))

    def double(X: Any, /, *, times: int = 1) -> Any:
        return X * 2**times

    graph = read_graph(load_model(model(("Double", "x", "y"))))
    impls = [("Double", double, {"domain": DOMAIN})]
    with (
        registered(impls, alternatives=[doubled]) as registry,
        pytest.raises(PackError, match="alternative 'doubled' changes what the model computes"),
    ):
        alternatives(graph, registry, {"x": ONES[None]})


def test_two_reductions_of_one_name_are_refused_and_a_pass_may_share_it() -> None:
    def same(*anything: Any) -> None: ...

    with registered(passes=[same], reductions=[same]):
        pass
    with (
        pytest.raises(PackError, match="registers two reductions named 'same'"),
        registered(reductions=[same, same]),
    ):
        pass


@pytest.mark.parametrize(
    ("item", "problem"),
    [
        ("fold", "no function of one graph"),
        ((len, 3), "name is no text"),
        ((len, "a", "b"), r"expected: a function or \(fn, name\)"),
        (lambda: None, "no function of one graph"),
    ],
)
def test_a_malformed_pass_is_refused(item: Any, problem: str) -> None:
    with pytest.raises(PackError, match=problem), registered(passes=[item]):
        pass


def test_graphs_and_nodes_are_public() -> None:
    assert fhe_core.Graph is Graph
    assert {"Graph", "Node", "OUTPUTS_WANTED"} <= set(fhe_core.__all__)
