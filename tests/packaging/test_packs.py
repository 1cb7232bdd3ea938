"""Packs that pip installs from wheels are found by another process, and are gone when pip removes them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .environments import Environment

NewEnvironment = Callable[..., Environment]

LIST = """
import json, warnings
import fhe_core
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    registry = fhe_core.get_registry()
double = registry.resolve("Double", "com.example", opset=1)
print(json.dumps({
    "core": fhe_core.__file__,
    "packs": {pack.name: vars(pack) for pack in registry.packs()},
    "ops": [[spec.op_type, spec.impl_pack] for spec in registry.ops(domain="com.example")],
    "double": double.impl(5, times=2),
    "origin": vars(double.impl_origin),
    "warnings": [str(warning.message) for warning in caught],
}))
"""


@pytest.fixture(scope="module")
def installed(new_environment: NewEnvironment) -> Environment:
    """An environment with every pack of tests/packs, the good and the bad ones."""
    environment = new_environment("fhe-core", "fhe-pack-good", "fhe-pack-audio")
    # pip itself refuses the last two: see below.
    bad = (f"fhe-pack-{name}" for name in ("broken", "clash", "stale", "future"))
    environment.install("--no-deps", *bad)
    return environment


@pytest.fixture(scope="module")
def listing(installed: Environment) -> dict[str, Any]:
    """What a fresh process says of the installed packs."""
    return answer(installed, LIST)


def answer(environment: Environment, code: str, **variables: str) -> Any:
    return json.loads(environment.run("python", "-c", code, **variables).stdout)


def ops(environment: Environment, *, prefer: str = "None", **variables: str) -> Any:
    code = f"""
import json, fhe_core
found = fhe_core.get_registry(prefer={prefer}).ops(domain="com.example")
print(json.dumps([[spec.op_type, spec.impl_pack] for spec in found]))
"""
    return answer(environment, code, **variables)


def test_the_environment_has_the_core_from_its_wheel_alone(
    installed: Environment, listing: dict[str, Any]
) -> None:
    """Else these tests would show what the repository holds, and not what a user gets."""
    assert Path(listing["core"]).parent == installed.packages / "fhe_core"
    code = """
import json
from importlib.metadata import distributions
print(json.dumps(sorted(d.name for d in distributions() if d.name.startswith("fhe"))))
"""
    packs = ("audio", "broken", "clash", "future", "good", "stale")
    assert answer(installed, code) == ["fhe-core", *(f"fhe-pack-{name}" for name in packs)]


def test_the_good_pack_is_loaded_with_its_provenance(
    installed: Environment, listing: dict[str, Any]
) -> None:
    assert listing["packs"]["good"] == {
        "name": "good",
        "distribution": "fhe-pack-good",
        "version": "1.0",
        "path": str(installed.packages / "fhe_pack_good" / "__init__.py"),
        "entry_point": "fhe_pack_good",
        "status": "loaded",
        "reason": None,
        "hooks": ["fhe_register_ops"],
        "file": None,
        "line": None,
    }
    assert listing["origin"] == listing["packs"]["good"]
    assert listing["ops"] == [["Double", "good"]]
    assert listing["double"] == 20


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("broken", "importing fhe_pack_broken raised ModuleNotFoundError"),
        ("stale", "it needs fhe-core<0.1,>=0.0.1, but fhe-core"),
        ("future", "it needs fhe-core>=99, but fhe-core"),
        ("rival", "packs 'good' and 'rival' both register impl of com.example.Double"),
    ],
)
def test_a_bad_pack_is_reported_and_warned_of(
    name: str, reason: str, listing: dict[str, Any]
) -> None:
    pack = listing["packs"][name]
    assert pack["status"] == "failed"
    assert reason in pack["reason"]
    assert [pack["reason"] in warning for warning in listing["warnings"]].count(True) == 1


def test_the_command_line_lists_every_pack_with_what_became_of_it(installed: Environment) -> None:
    done = installed.run("fhe-ops", "packs", "--format", "json", check=False)
    assert done.returncode == 1, "some have failed"
    records = json.loads(done.stdout)
    assert {record["name"]: record["status"] for record in records} == {
        "audio": "loaded",
        "broken": "failed",
        "future": "failed",
        "good": "loaded",
        "optimization": "loaded",
        "rival": "failed",
        "stale": "failed",
    }


@pytest.mark.parametrize("name", ["stale", "future"])
def test_pip_refuses_a_pack_for_another_core(name: str, installed: Environment) -> None:
    done = installed.run("pip", "install", "--force-reinstall", f"fhe-pack-{name}", check=False)
    assert done.returncode != 0
    assert "fhe-core" in done.stdout + done.stderr


def test_the_user_can_prefer_one_of_two_that_clash(installed: Environment) -> None:
    found = ops(installed, prefer='{"Double": "rival"}', FHE_PACKS="good,rival")
    assert found == [["Double", "rival"], ["Triple", "rival"]]


def test_the_user_can_allow_and_block_packs(installed: Environment) -> None:
    assert ops(installed, FHE_PACKS="rival") == [["Double", "rival"], ["Triple", "rival"]]
    blocked = ops(installed, FHE_PACKS="good,rival", FHE_PACKS_BLOCK="fhe-pack-good")
    assert blocked == [["Double", "rival"], ["Triple", "rival"]]


def test_strict_mode_stops_at_a_bad_pack(installed: Environment) -> None:
    code = "import fhe_core; fhe_core.get_registry()"
    variables = {"FHE_PACKS": "broken,good", "FHE_PACKS_STRICT": "1"}
    done = installed.run("python", "-c", code, check=False, **variables)
    assert done.returncode != 0
    assert "PackError: pack 'broken'" in done.stderr


def test_an_uninstalled_pack_takes_its_ops_with_it(new_environment: NewEnvironment) -> None:
    environment = new_environment("fhe-core", "fhe-pack-good", "fhe-pack-clash")
    assert ops(environment) == [["Double", "good"]]
    environment.uninstall("fhe-pack-good")
    assert ops(environment) == [["Double", "rival"], ["Triple", "rival"]]
    environment.uninstall("fhe-pack-clash")
    assert ops(environment) == []


DUET = """
import json, warnings
import numpy as np, onnx.parser
import fhe_core
model = onnx.parser.parse_model('''
<ir_version: 8, opset_import: ["" : 17, "org.example.audio" : 1]>
duet (float[N, 8] left, float[N, 8] right) => (float[N, 7] y)
{
    both = org.example.audio.Mix(left, right)
    loud = org.example.audio.MuLaw<mu = 100.0>(both)
    y = org.example.audio.Difference(loud)
}
''')
report = fhe_core.check(model)
result = {"ok": report.ok, "problems": [[p.op, p.reason, p.fix] for p in report.problems]}
if report.ok:
    sounds = tuple(np.random.default_rng(0).uniform(-1, 1, (2, 100, 8)).astype(np.float32))
    x = sum(sounds) / 2
    loud = np.sign(x) * np.log1p(100 * np.abs(x)) / np.log1p(100)
    real = fhe_core.NumpyModule(model)(*sounds)
    quantized = fhe_core.quantize(model, sounds, n_bits=10).forward(*sounds)
    result["float error"] = float(np.abs(real - np.diff(loud)).max())
    result["quantized error"] = float(np.sqrt(np.mean((quantized - real) ** 2)))
print(json.dumps(result))
"""


def test_a_pack_of_a_custom_domain_serves_models_until_it_is_uninstalled(
    new_environment: NewEnvironment,
) -> None:
    environment = new_environment("fhe-core", "fhe-pack-audio")
    result = answer(environment, DUET)
    assert result["ok"], result["problems"]
    assert result["float error"] < 1e-6
    # Steps of 2 / 2^10; mu-law's slope is at most mu / ln(1 + mu) = 22.
    assert result["quantized error"] < 2**-9 * 22
    environment.uninstall("fhe-pack-audio")
    gone = answer(environment, DUET)
    assert [op for op, _, _ in gone["problems"]] == ["Mix", "MuLaw", "Difference"]


def test_a_packs_own_tests_hold_for_its_wheel(
    root: Path, new_environment: NewEnvironment, tmp_path: Path
) -> None:
    """The kit runs on an installed pack, from a folder that has the tests and not the source."""
    environment = new_environment("fhe-core[testing]", "fhe-pack-audio")
    tests = shutil.copytree(
        root / "tests" / "packs" / "custom-domain" / "tests", tmp_path / "tests"
    )
    done = environment.run("pytest", "-q", "-m", "not fhe", str(tests), cwd=tmp_path)
    assert " passed" in done.stdout
