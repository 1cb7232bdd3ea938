"""Damaged plans: values of every type and size that JSON has, lost and added ones, and other shapes."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
from fhe_core.quantization.planning import Settings
from fhe_core.quantization.session import Session
from onnx import TensorProto, helper, numpy_helper

import fhe_core

SHARE = 1

_ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 17, 31, 1e-3, 0.5, -0.0, 1e-320, 1e30, 1e300, np.nan, np.inf, -np.inf,
    2**31, 2**53, 2**54, 2**63, 2**64, 10**30, -(2**62), "", "x", "all", "guaranteed", [], [[]], [1], [1, [2]],
    [1, 2, 3, 4], [[1, 2, 3, 4]], [[1], [2], [3], [4]], [[[[1]]]], ["a"], [None], [0.5], [True], [np.nan],
    [10**30], {}, {"x": 1}, {"h": 4}, {"h": "a"},
)  # fmt: skip
_X = np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32)


def case(rng: np.random.Generator, folder: Path) -> None:
    """Builds a module from a damaged plan. What is accepted computes, and can be given again."""
    session, plans = _session()
    document = mutated(plans[rng.integers(len(plans))], rng)
    found = session.rebuild(fhe_core.Plan.of(document))
    for mode in ("disable", "simulate"):
        assert all(np.isfinite(part).all() for part in found.forward(_X[:3], fhe=mode))
    kept = found.plan.to_json()
    assert session.rebuild(fhe_core.Plan.from_json(kept)).plan.to_json() == kept


def mutated(plan: Any, rng: np.random.Generator) -> Any:
    """A plan's JSON with one to three of its values changed, lost or added."""
    document = json.loads(json.dumps(plan))
    for _ in range(rng.choice((1, 1, 2, 3))):
        place = document
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = keys[rng.integers(len(keys))] if keys else 0
            deeper = place[key] if keys else None
            if not isinstance(deeper, (dict, list)) or not deeper or rng.random() < 0.15:
                break
            place = deeper
        if keys and rng.random() < 0.15:
            del place[key]
        elif isinstance(place, dict):
            names = ("x", "y", "h", "w@MatMul_0", "scale", key, key, key, key)
            place[names[rng.integers(len(names))]] = _value(deeper, rng)
        else:
            place[key : key + 1] = [_value(deeper, rng)]
    return document


def _value(old: Any, rng: np.random.Generator) -> Any:
    if type(old) in (int, float) and rng.random() < 0.4:
        return old * (-1, 0, 2, 10, 1000, 1e-6)[rng.integers(6)] + int(rng.integers(-1, 2))
    if rng.random() < 0.02:
        deep: Any = []
        for _ in range(int(rng.integers(1, 900))):
            deep = [deep]
        return deep
    return _ODD[rng.integers(len(_ODD))]


@functools.cache
def _session() -> tuple[Session, list[Any]]:
    """A model with its data, and two plans of it: tuned, and with weights rounded to nearest."""
    rng = np.random.default_rng(0)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["h"], name="MatMul_0"),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("Add", ["r", "x"], ["s"]),
            helper.make_node("Abs", ["s"], ["a"]),
            helper.make_node("MatMul", ["a", "v"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("N", 4))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "yr"],
        [
            numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)
            for name, shape in (("w", (4, 4)), ("v", (4, 2)))
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = Session(model, _X)
    built = (session.build(Settings.of(4, 3, tuning=steps)) for steps in (5, 0))
    return session, [json.loads(module.plan.to_json()) for module in built]


def prepare() -> None:
    """What all cases share is made once."""
    _session()
