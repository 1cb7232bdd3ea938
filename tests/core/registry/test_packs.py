"""Packs load one by one: what is wrong with one is said, and the others still load."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from fhe_core.registry import current

import fhe_core
from fhe_core import PackError, get_registry

IMPL = "registry.impl('Double', lambda X, /: 2 * X, domain='com.example')"
OTHER = "registry.impl('Triple', lambda X, /: 3 * X, domain='com.example')"

PASSES = """
import fhe_core
@fhe_core.hookimpl
def fhe_register_passes(passes):
    {}
"""
REGISTERING = f"""
@fhe_core.hookimpl
def fhe_register_ops(registry):
    {OTHER}
"""


#: What this project's own distributions provide.
OURS = {"optimization", "std", "contrib"}


def names(registry: Any) -> list[str]:
    return [spec.op_type for spec in registry.ops()]


def statuses(registry: Any) -> dict[str, str]:
    return {p.name: p.status for p in registry.packs() if p.name not in OURS}


def test_an_installed_pack_is_found_with_its_provenance(site: Any) -> None:
    module = site.add("acme", IMPL, distribution="acme-ops", version="2.1")
    registry = site.load()
    (spec,) = registry.ops()
    assert (spec.domain, spec.op_type, spec.impl_pack) == ("com.example", "Double", "acme")
    assert spec.impl(21) == 42
    pack = site.pack("acme")
    assert (pack.distribution, pack.version, pack.status) == ("acme-ops", "2.1", "loaded")
    assert pack.reason is None
    assert pack.path == str(site.folder / f"{module}.py")
    assert pack.entry_point == module
    assert (spec.impl_origin, spec.quantized_origin) == (pack, None)


def test_an_entry_point_may_name_an_object_with_the_hook(site: Any) -> None:
    source = """
        import fhe_core
        class Pack:
            @fhe_core.hookimpl
            def fhe_register_ops(self, registry):
                registry.impl('Double', lambda X, /: 2 * X, domain='com.example')
        pack = Pack()
    """
    site.add("acme", source=source, value="acme_ops:pack")
    assert names(site.load()) == ["Double"]
    assert site.pack("acme").entry_point == "acme_ops:pack"


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "fails to import": (
        {"source": "import no_such_module"},
        "importing bad_ops raised ModuleNotFoundError: No module named 'no_such_module'",
    ),
    "exits": ({"source": "raise SystemExit(3)"}, "importing bad_ops raised SystemExit: 3"),
    "is not Python": ({"source": "def ("}, "importing bad_ops raised SyntaxError"),
    "has no such object": (
        {"source": "", "value": "bad_ops:pack"},
        "importing bad_ops:pack raised AttributeError",
    ),
    "has a malformed entry point": (
        {"source": "", "value": "bad ops!"},
        "its entry point 'bad ops!' is not written 'module' or 'module:object'",
    ),
    "is stale": (
        {"ops": OTHER, "requires": ["FHE_core >=0.0.1, <0.1"]},
        f"it needs fhe-core<0.1,>=0.0.1, but fhe-core {fhe_core.__version__} is installed; "
        "install another version of bad-ops",
    ),
    "is of the future": (
        {"ops": OTHER, "requires": ["numpy", "fhe-core>=99"]},
        f"it needs fhe-core>=99, but fhe-core {fhe_core.__version__} is installed; "
        "upgrade fhe-core",
    ),
    "has a malformed requirement": (
        {"ops": OTHER, "requires": ["fhe-core about 1"]},
        "its requirement 'fhe-core about 1' is malformed",
    ),
    "registers nothing": (
        {"source": "import fhe_core"},
        "it registers no operators; define fhe_register_ops(registry)",
    ),
    "misspells its hook": (
        {"source": "import fhe_core\n@fhe_core.hookimpl\ndef fhe_register_op(registry): ..."},
        "it defines fhe_register_op, but fhe_core has no hook 'fhe_register_op'; "
        "perhaps 'fhe_register_ops' or 'fhe_register_hooks' or 'fhe_register_passes' is meant",
    ),
    "misspells an unmarked hook": (
        {"source": "def fhe_registers_ops(registry): ..."},
        "it defines fhe_registers_ops, but fhe_core has no hook",
    ),
    "forgets the mark": (
        {"source": "def fhe_register_ops(registry): ..."},
        "its fhe_register_ops is not marked; put @fhe_core.hookimpl above it",
    ),
    "takes other arguments": (
        {"source": "import fhe_core\n@fhe_core.hookimpl\ndef fhe_register_ops(reg): ..."},
        "write fhe_register_ops(registry)",
    ),
    "needs more than it is given": (
        {"source": "import fhe_core\n@fhe_core.hookimpl\ndef fhe_register_ops(registry, n): ..."},
        "its hook fhe_register_ops takes n, which it is not called with; "
        "write fhe_register_ops(registry)",
    ),
    "misspells its choice": (
        {"source": "import fhe_core\n@fhe_core.hookimpl\ndef fhe_choose_candidates(node): ..."},
        "it defines fhe_choose_candidates, but fhe_core has no hook 'fhe_choose_candidates'; "
        "perhaps 'fhe_choose_candidate' is meant",
    ),
    "takes other arguments to choose": (
        {"source": "import fhe_core\n@fhe_core.hookimpl\ndef fhe_choose_candidate(nodes): ..."},
        "takes nodes, which it is not called with; write fhe_choose_candidate(node, candidates)",
    ),
    "writes a hook as it cannot be": (
        {
            "source": "import fhe_core\n@fhe_core.hookimpl(wrapper=True)\n"
            "def fhe_register_ops(registry): return 1"
        },
        "one of its hooks is not written as a hook can be",
    ),
    "raises in its hook": (
        {"ops": f"{OTHER}\n1 / 0"},
        "its hook fhe_register_ops raised ZeroDivisionError: division by zero",
    ),
    "exits in its hook": (
        {"ops": f"{OTHER}\nraise SystemExit"},
        "its hook fhe_register_ops raised SystemExit",
    ),
    "registers a wrong signature": (
        {"ops": f"{OTHER}\nregistry.impl('Relu', lambda data, /: data)"},
        "contradicts Relu-1 of ONNX",
    ),
    "registers one thing twice": (
        {"ops": f"{OTHER}\n{OTHER}"},
        "the pack registers impl twice for version 1",
    ),
    "registers passes for ops": (
        {"source": PASSES.format("passes.impl('Double', lambda X, /: X, domain='com.example')")},
        "its hook fhe_register_passes raised AttributeError",
    ),
    "registers a pass that is no function": (
        {"source": PASSES.format("passes.add('fold')")},
        "the pass is no function of one graph (got: 'fold')",
    ),
    "registers a pass of two arguments": (
        {"source": PASSES.format("passes.add(lambda graph, registry: graph)")},
        "the pass is no function of one graph",
    ),
    "gives a pass a name that is none": (
        {"source": PASSES.format("passes.add(lambda graph: graph, name=3)")},
        "the pass's name is no text (got: 3)",
    ),
    "registers two passes of one name": (
        {"source": PASSES.format("[passes.add(lambda graph: graph, name='a') for _ in 'ab']")},
        "the pack registers two passes named 'a'",
    ),
    "raises after it has registered operators": (
        {"source": PASSES.format("1 / 0") + REGISTERING},
        "its hook fhe_register_passes raised ZeroDivisionError: division by zero",
    ),
    "runs code when it is listed": (
        {"source": "def __dir__(): raise ValueError('no listing')"},
        "loading it raised ValueError: no listing",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_pack_fails_with_a_reason_and_leaves_nothing(fault: str, site: Any) -> None:
    options, reason = FAULTS[fault]
    site.add("bad", **options)
    site.add("good", IMPL)
    registry = site.load()
    assert statuses(registry) == {"bad": "failed", "good": "loaded"}
    assert names(registry) == ["Double"]
    said = site.pack("bad").reason
    assert reason in said
    assert "\n" not in said


def test_the_requirement_is_checked_before_the_pack_is_imported(site: Any) -> None:
    module = site.add("late", source="raise RuntimeError('imported')", requires=["fhe-core<0.1"])
    assert "it needs fhe-core<0.1" in site.pack("late").reason
    assert module not in sys.modules


def test_a_requirement_that_does_not_apply_here_is_not_checked(site: Any) -> None:
    site.add(
        "acme",
        IMPL,
        requires=[
            "fhe-core<0.1; extra == 'old'",
            "fhe-core<0.1; python_version < '3'",
            "fhe-core-tools<0.1",
        ],
    )
    assert site.pack("acme").status == "loaded"


@pytest.mark.parametrize("file", ["METADATA", "entry_points.txt"])
def test_unreadable_metadata_of_one_pack_is_reported_and_hurts_no_other(
    file: str, site: Any
) -> None:
    site.add("good", IMPL)
    site.add("bad", OTHER)
    broken = "[fhe_core.packs]\nno equals sign\n" if file == "entry_points.txt" else ""
    (site.folder / "bad_ops-1.0.dist-info" / file).write_text(broken)
    registry = site.load()
    assert names(registry) == ["Double"]
    (bad,) = (p for p in registry.packs() if p.status == "failed")
    assert "its installed metadata is unreadable" in bad.reason


def test_an_unreadable_file_of_a_distribution_that_is_no_pack_hurts_no_pack(site: Any) -> None:
    site.add("good", IMPL)
    stranger = site.folder / "stranger-1.0.dist-info"
    stranger.mkdir()
    (stranger / "entry_points.txt").write_bytes(b"\xff\xfe")
    assert names(site.load()) == ["Double"]


def test_two_distributions_with_one_pack_name_are_both_reported(site: Any) -> None:
    site.add("acme", IMPL, distribution="first-ops")
    site.add("acme", OTHER, distribution="second-ops")
    registry = site.load()
    first, second = (p for p in registry.packs() if p.name == "acme")
    assert (first.distribution, first.status) == ("first-ops", "loaded")
    assert (second.distribution, second.status) == ("second-ops", "failed")
    assert "second-ops and first-ops both have a pack of the name 'acme'" in second.reason
    assert names(registry) == ["Double"]


def test_one_of_two_packs_with_one_name_can_be_blocked_by_its_distribution(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.add("acme", IMPL, distribution="first-ops")
    site.add("acme", OTHER, distribution="second-ops")
    monkeypatch.setenv("FHE_PACKS_BLOCK", "first_ops,fhe-core,fhe-ops-std,fhe-ops-contrib")
    assert names(site.load()) == ["Triple"]


def test_this_projects_packs_come_first_so_that_a_stranger_is_the_one_to_fail(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FHE_PACKS_BLOCK")
    for real in ("fhe_ops_std", "fhe_ops_contrib"):
        # Another test of this process may have loaded the pack that this one stands in for.
        monkeypatch.delitem(sys.modules, real, raising=False)
    site.add("aaa", IMPL)
    site.add("std", IMPL, distribution="fhe-ops-std")
    site.add("contrib", OTHER, distribution="fhe-ops-contrib")
    assert statuses(site.load()) == {"aaa": "failed"}
    assert [p.name for p in site.load().packs()][-3:] == ["std", "contrib", "aaa"]


def test_fhe_packs_allows_only_those_that_it_names(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.add("acme", IMPL)
    module = site.add("other", OTHER)
    monkeypatch.setenv("FHE_PACKS", "acme")
    registry = site.load()
    assert statuses(registry) == {"acme": "loaded", "other": "blocked"}
    assert site.pack("other").reason == "FHE_PACKS does not name it"
    assert module not in sys.modules


def test_fhe_packs_reports_a_name_that_nothing_provides(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.add("acme", IMPL)
    monkeypatch.setenv("FHE_PACKS", "acme, acmee")
    assert statuses(site.load()) == {"acme": "loaded", "acmee": "failed"}
    assert "no installed distribution provides it" in site.pack("acmee").reason


def test_fhe_packs_block_keeps_a_pack_from_being_imported(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = site.add("acme", IMPL)
    monkeypatch.setenv("FHE_PACKS_BLOCK", "acme,fhe-core,fhe-ops-std,fhe-ops-contrib")
    assert statuses(site.load()) == {"acme": "blocked"}
    assert site.pack("acme").reason == "FHE_PACKS_BLOCK names it"
    assert site.pack("acme").path == str(site.folder / f"{module}.py")
    assert module not in sys.modules


def test_fhe_packs_strict_makes_a_failed_pack_an_error(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.add("bad", "1 / 0")
    monkeypatch.setenv("FHE_PACKS_STRICT", "1")
    with pytest.raises(PackError, match=r"'bad'.*raised ZeroDivisionError") as caught:
        site.load()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    with pytest.raises(PackError, match="'bad'"):
        get_registry()


def test_each_failed_pack_is_warned_of_once(site: Any) -> None:
    site.add("bad", "1 / 0")
    site.add("worse", source="raise SystemExit")
    with pytest.warns(UserWarning, match="failed to load") as caught:
        get_registry()
    said = [str(warning.message) for warning in caught]
    assert len(said) == 2
    assert said[0].startswith("pack 'bad' (bad-ops 1.0) failed to load: its hook")
    assert all(Path(warning.filename) == Path(__file__) for warning in caught)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        get_registry()
        get_registry(prefer={})


def test_a_pack_cannot_ask_for_the_registry_while_it_is_being_loaded(site: Any) -> None:
    site.add("early", source="import fhe_core\nfhe_core.get_registry()")
    with pytest.warns(UserWarning, match="while the packs were being loaded"):
        get_registry()


def test_a_pack_cannot_register_once_its_hook_has_returned(site: Any) -> None:
    site.add("acme", f"{IMPL}\nglobal kept\nkept = registry")
    site.load()
    kept = sys.modules["acme_ops"].kept
    assert kept.pack == "acme"
    with pytest.raises(PackError, match="only while `fhe_register_ops` runs"):
        kept.impl("Triple", lambda X, /: X, domain="com.example")


def test_a_pack_may_have_passes_or_a_choice_and_no_operators(site: Any) -> None:
    site.add("a", source=PASSES.format("passes.add(lambda graph: graph, name='same')"))
    site.add("b", source="import fhe_core\n@fhe_core.hookimpl\ndef fhe_choose_candidate(): ...")
    registry = site.load()
    assert statuses(registry) == {"a": "loaded", "b": "loaded"}
    assert list(map(str, registry.passes())) == ["a.same"]


@pytest.mark.parametrize("kind", ["reduction", "alternative"])
def test_a_pack_may_have_one_rewriting_and_nothing_else(kind: str, site: Any) -> None:
    site.add("a", source=PASSES.format(f"passes.add_{kind}(lambda *any: None, name='bend')"))
    assert statuses(site.load()) == {"a": "loaded"}
    assert list(map(str, getattr(site.load(), f"{kind}s")())) == ["a.bend"]


def test_a_pack_cannot_add_a_pass_once_its_hook_has_returned(site: Any) -> None:
    body = "passes.add(lambda graph: graph); global kept; kept = passes"
    site.add("acme", source=PASSES.format(body))
    site.load()
    kept = sys.modules["acme_ops"].kept
    assert kept.pack == "acme"
    with pytest.raises(PackError, match="only while `fhe_register_passes` runs"):
        kept.add(lambda graph: graph, name="late")
    with pytest.raises(PackError, match="reductions can be registered only while"):
        kept.add_reduction(lambda *anything: None, name="late")
    with pytest.raises(PackError, match="alternatives can be registered only while"):
        kept.add_alternative(lambda *anything: None, name="late")


def test_a_pack_that_clashes_loses_its_passes_too(site: Any) -> None:
    site.add("a", OTHER)
    site.add("b", source=PASSES.format("passes.add(lambda graph: graph)") + REGISTERING)
    assert site.pack("b").status == "failed"
    assert site.load().passes() == ()


def test_packs_load_once_for_all_threads(site: Any) -> None:
    """Eight threads that ask at once get the one registry, and the hook runs once."""
    site.add("acme", f"print('hook')\nimport time\ntime.sleep(0.1)\n{IMPL}")
    printed = site.run(
        """
        import threading
        import fhe_core
        barrier, seen = threading.Barrier(8), []
        def ask():
            barrier.wait()
            seen.append(fhe_core.get_registry())
        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        print(len(seen), len(set(map(id, seen))))
        """
    )
    assert printed.split("\n")[:2] == ["hook", "8 1"]


def test_listing_imports_neither_numpy_nor_onnx(site: Any) -> None:
    site.add("acme", "registry.impl('Relu', lambda X, /: X)")
    printed = site.run(
        """
        import json, sys
        import fhe_core
        registry = fhe_core.get_registry()
        registry.resolve("Relu", opset=17)
        registry.ops(shadowed=True)
        print(json.dumps([m for m in ("numpy", "onnx", "concrete", "torch") if m in sys.modules]))
        """
    )
    assert json.loads(printed) == []


def test_a_name_to_block_that_nothing_has_is_warned_of_and_one_that_is_there_is_not(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.add("acme", IMPL)
    monkeypatch.setenv("FHE_PACKS_BLOCK", "acme,acmee,fhe-core,fhe-ops-std,fhe-ops-contrib")
    monkeypatch.setattr(current, "_warned", set())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        current._warn(site.load())
    (warning,) = caught
    assert "pack 'acmee' is blocked" in str(warning.message)
